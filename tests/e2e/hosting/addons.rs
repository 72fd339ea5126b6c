//! What is applied in a tenant besides what a cluster has: by its object, and by one command.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Meta, NAMESPACE, RESTS, Tenant, declaration};
use crate::support::controller::{LATER, SOON};
use crate::support::eventually;

/// A custom resource before its CRD, and what has a namespace before that: the ranks put them in order.
const WIDGETS: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: widgets, namespace: tenants}
data:
  a-widget.yaml: |
    apiVersion: example.com/v1
    kind: Widget
    metadata: {name: first, namespace: demo}
    ---
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: hello, namespace: demo}
    data: {said: one}
  b-crd.yaml: |
    apiVersion: apiextensions.k8s.io/v1
    kind: CustomResourceDefinition
    metadata: {name: widgets.example.com}
    spec:
      group: example.com
      scope: Namespaced
      names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
      versions:
      - name: v1
        served: true
        storage: true
        schema: {openAPIV3Schema: {type: object}}
  c-namespace.yaml: |
    apiVersion: v1
    kind: Namespace
    metadata: {name: demo}
";

const TOKENS: &str = "apiVersion: v1
kind: Secret
metadata: {name: tokens, namespace: tenants}
stringData:
  token.yaml: |
    apiVersion: v1
    kind: Secret
    metadata: {name: token, namespace: default}
    stringData: {token: abc}
";

impl Meta {
    fn names(&self, addons: &str) {
        self.kubectl().apply(&declaration(self, "a", &format!("  addons: [{addons}]\n")));
    }

    /// The condition about the add-ons, once it is about what is declared now and has this status.
    #[track_caller]
    fn says_of_add_ons(&self, wanted: &str, reason: &str) -> String {
        eventually(&format!("the add-ons of a: {wanted}, {reason}"), LATER, || {
            let object = self.get("a");
            let all = object["status"]["conditions"].as_array()?;
            let one = all.iter().find(|one| one["type"] == "SpecAddonsApplied")?;
            let is_of_now = one["observedGeneration"] == object["metadata"]["generation"];
            let is_wanted = one["status"] == wanted && one["reason"] == reason;
            (is_of_now && is_wanted).then(|| one["message"].as_str().unwrap().to_owned())
        })
    }

    pub(super) fn add_ons_are_applied(&self, tenant: &Tenant) {
        let kubectl = self.kubectl();
        kubectl.apply(WIDGETS);
        kubectl.apply(TOKENS);
        let names = "{kind: ConfigMap, name: widgets}, {kind: Secret, name: tokens}";
        self.names(&format!("{names}, {{kind: ConfigMap, name: later}}"));
        let said = self.says_of_add_ons("False", "NotFound");
        assert!(said.contains("ConfigMap later of spec.addons is not there. Make it"), "{said}");
        // All others are applied, and the tenant is as ready as it was.
        tenant.kubectl.run(&["-n", "demo", "get", "widget", "first"]).ok();
        tenant.kubectl.run(&["get", "secret", "token"]).ok();
        self.is_ready("a");

        kubectl.apply(&map("later", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\n"));
        self.says_of_add_ons("True", "Applied");
        tenant.kubectl.run(&["get", "configmap", "later"]).ok();
        self.turns_at_rest_write_nothing_there(tenant);

        // What is changed is taken up by the clock alone; what was edited in the tenant stands.
        let edit = r#"{"data":{"said":"edited"}}"#;
        tenant.kubectl.run(&["-n", "demo", "patch", "configmap", "hello", "--type=merge", "-p", edit]).ok();
        kubectl.apply(&map("later", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {it: changed}\n"));
        eventually("the changed ConfigMap is taken up", RESTS + SOON, || {
            let object = tenant.kubectl.get(&["configmap", "later"]);
            (object["data"]["it"] == "changed").then_some(())
        });
        assert_eq!(tenant.kubectl.get(&["-n", "demo", "configmap", "hello"])["data"]["said"], "edited");
        self.what_cannot_be_applied_is_said();
        self.what_no_object_may_say();
        self.names(names);
        self.says_of_add_ons("True", "Applied");
    }

    fn what_cannot_be_applied_is_said(&self) {
        let kubectl = self.kubectl();
        kubectl.apply(&map("bad", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name}\n"));
        self.names("{kind: ConfigMap, name: bad}, {kind: ConfigMap, name: widgets}");
        let said = self.says_of_add_ons("False", "Refused");
        eprintln!("{said}");
        assert!(said.contains("addons/configmap-bad/it.yaml:1:1") && said.contains("Not_A_Name"), "{said}");
        kubectl.apply(&map("bad", "apiVersion: v1\nkind: ConfigMap\nmetadata: {nmae: x}\n"));
        eventually("a manifest that is none is named", LATER, || {
            self.condition("a", "SpecAddonsApplied")
                .filter(|(_, reason, said)| reason == "Invalid" && said.contains("unknown field `nmae`"))
        });
        // There is no node: a Deployment does not get ready, and holds back what comes after it.
        kubectl.apply(&map("bad", DEPLOYMENT));
        let said = self.says_of_add_ons("False", "NotReady");
        assert!(said.contains("Deployment default/waits") && said.contains("0 of 1 available"), "{said}");
        // Keys are no add-on.
        self.names("{kind: Secret, name: b-pki}");
        let said = self.says_of_add_ons("False", "Invalid");
        assert!(said.contains("the operator's own"), "{said}");
        self.is_ready("a");
    }

    fn what_no_object_may_say(&self) {
        let twice = "{kind: ConfigMap, name: x}, {kind: ConfigMap, name: x}";
        let many: Vec<_> = (0..17).map(|number| format!("{{kind: ConfigMap, name: x{number}}}")).collect();
        for (addons, why) in [
            (twice, "Duplicate value"),
            ("{kind: Pod, name: x}", "Unsupported value"),
            ("{kind: Secret, name: ../x}", "it is not the name of an object"),
            (&*many.join(", "), "at most 16"),
        ] {
            let text = declaration(self, "a", &format!("  addons: [{addons}]\n"));
            let path = self.file("refused.yaml", &text);
            let said = self.kubectl().run(&["apply", "--dry-run=server", "-f", &path]);
            assert!(said.code == Some(1) && said.stderr.contains(why), "{addons}: {said}");
        }
    }

    fn turns_at_rest_write_nothing_there(&self, tenant: &Tenant) {
        let versions = || -> BTreeSet<String> {
            let line = "{range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
            let kinds = "configmaps,secrets,customresourcedefinitions,namespaces";
            let said = tenant.kubectl.run(&["get", kinds, "-A", "-o", &format!("jsonpath={line}")]).ok();
            let text = tenant.kubectl.run(&["get", "--raw", "/apis/example.com/v1/widgets"]).ok();
            let widgets = serde_json::from_str::<Value>(&text).unwrap()["items"].to_string();
            said.lines().map(str::to_owned).chain([widgets]).collect()
        };
        std::thread::sleep(Duration::from_secs(3));
        let (there, own) = (versions(), self.versions());
        assert!(there.iter().any(|line| line.starts_with("ConfigMap/hoist-inventory ")), "{there:?}");
        std::thread::sleep(RESTS);
        assert_eq!(versions(), there, "a turn at rest");
        assert_eq!(self.versions(), own, "a turn at rest");
    }

    /// `hoist apply --tenant`, as of any folder with manifests.
    pub(super) fn one_command_applies(&self, tenant: &Tenant) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hosting-applied");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("map.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: by-command}\n")
            .unwrap();
        let path = folder.display().to_string();
        let said = self.hoist(&["apply", "--tenant", "a", &path]).ok();
        assert!(said.contains("1 created"), "{said}");
        tenant.kubectl.run(&["get", "configmap", "by-command"]).ok();
        let meta = self.kubectl().run(&["get", "configmap", "by-command"]);
        assert_eq!(meta.code, Some(1), "it is the tenant's alone: {meta}");
        let again = self.hoist(&["apply", "--tenant", "a", &path]).ok();
        assert!(again.contains("1 unchanged"), "{again}");
        let nothing = self.hoist(&["apply", "--tenant", "a"]);
        assert!(nothing.code == Some(3) && nothing.stderr.contains("hoist apply --tenant a DIR"), "{nothing}");
    }
}

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: waits, namespace: default}
spec:
  selector: {matchLabels: {app: waits}}
  template:
    metadata: {labels: {app: waits}}
    spec: {containers: [{name: waits, image: registry.k8s.io/pause}]}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.held.example.com}
spec:
  group: held.example.com
  groupPriorityMinimum: 1
  version: v1
  versionPriority: 1
  insecureSkipTLSVerify: true
  service: {name: waits, namespace: default}
";

/// A ConfigMap in the tenants' namespace with one manifest.
fn map(name: &str, manifest: &str) -> String {
    let lines: String = manifest.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\ndata:\n  it.yaml: |\n{lines}"
    )
}
