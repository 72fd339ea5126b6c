//! A tenant's version is edited while clients of it never stop and operators are killed: tried, undone, committed.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Meta, NAMESPACE, Tenant, declaration};
use crate::support::cluster::Cluster;
use crate::support::controller::{Controller, LATER, SOON};
use crate::support::node::Node;
use crate::support::traffic::Traffic;
use crate::support::{eventually, repository};

/// The version of Kubernetes that the tenant begins with.
const OLD: &str = "1.36.3";
/// What docs/hosting.md has for it.
const PAGE: &str = r#"    kubectl -n tenants patch hcp a --type=merge -p '{"spec": {"kubernetesVersion": "v1.37.2"}}'"#;
/// How long a step may take, with operators that are killed meanwhile, on a busy machine.
const STEP: Duration = Duration::from_secs(400);
/// For so long at most, a client that never stops has no answer while API servers are replaced, on a busy machine.
const GAP: Duration = Duration::from_secs(3);
/// And while the only etcd is exchanged.
const ETCD: Duration = Duration::from_secs(9);
/// An operator that leads is killed so often.
const KILLED: Duration = Duration::from_secs(20);

#[test]
fn hosting_upgrade() {
    let node = Node::plain("hosting-u");
    assert_ne!(node.kubernetes, OLD, "the nodes' own version is the next one");
    node.has_images_of(OLD);
    let new = node.kubernetes.clone();
    let cluster = Cluster::render(&node);
    let meta = Meta { controller: Controller::start(node, cluster) };
    meta.is_installed();
    let tenant = meta.comes_up_as("a", &meta.of(OLD, "")).0;
    assert_eq!(meta.status("committedVersion"), format!("v{OLD}"));
    let traffic = Traffic::begin(tenant.client());
    std::thread::sleep(Duration::from_secs(2));

    meta.what_does_not_come_is_said_and_undone(&tenant, &new);
    meta.a_trial_is_given_up(&tenant, &new);
    let begun = Instant::now();
    let etcd = meta.goes_to(&tenant, &new);
    eprintln!("from the edit until all of it is v{new}, with operators killed meanwhile: {:.1?}", begun.elapsed());
    let until = begun.elapsed() - etcd;
    std::thread::sleep(Duration::from_secs(3));
    let record = traffic.end().unwrap();
    eprintln!("while the tenant was upgraded: {record}");
    tenant.has_all_of(&record);
    let etcd = record.lasted - until - Duration::from_secs(3);
    let (gap, exchange) =
        (record.longest_gap_within(Duration::ZERO..etcd), record.longest_gap_within(etcd..record.lasted));
    eprintln!("longest gap until etcd was told, at {etcd:.1?}: {:.2?}; from then on: {:.2?}", gap.0, exchange.0);
    assert_eq!(record.failures().count(), 0, "{record}");
    assert!(gap.0 < GAP && exchange.0 < ETCD, "{record}");
    assert!(record.exchanges.len() > 2000, "{record}");
}

impl Meta {
    /// The tenant `a` of this version.
    fn of(&self, version: &str, more: &str) -> String {
        let own = &self.controller.node.kubernetes;
        declaration(self, "a", more)
            .replace(&format!("kubernetesVersion: v{own}"), &format!("kubernetesVersion: v{version}"))
    }

    fn status(&self, field: &str) -> String {
        self.get("a")["status"][field].as_str().unwrap_or_default().to_owned()
    }

    /// The versions of a workload's image: that of its template, and whether all its pods have it and are ready.
    fn image(&self, name: &str) -> (String, bool) {
        let object = self.kubectl().get(&["-n", NAMESPACE, "deployment", &format!("a-{name}")]);
        let image = object["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
        let is = |field: &str| object["status"][field] == 1;
        (image, is("updatedReplicas") && is("readyReplicas") && is("replicas"))
    }

    /// A new version without an image: what serves goes on, the cause and the way back are said, and it is gone.
    fn what_does_not_come_is_said_and_undone(&self, tenant: &Tenant, new: &str) {
        let none = "  images: {kubeAPIServer: registry.k8s.io/kube-apiserver:none}\n";
        self.kubectl().apply(&self.of(new, none));
        let said = eventually("the condition names the cause", LATER, || {
            self.condition("a", "Upgraded").filter(|(_, reason, _)| reason == "ImageNotPulled")
        });
        eprintln!("{}", said.2);
        for part in ["spec.images", &format!("spec.kubernetesVersion: v{OLD} leads back"), "emulates 1.36"] {
            assert!(said.2.contains(part), "{part}: {said:?}");
        }
        std::thread::sleep(KILLED);
        assert_eq!(tenant.runs().0, format!("v{OLD}"));
        for name in ["controller-manager", "scheduler"] {
            assert!(self.image(name).0.ends_with(&format!(":v{OLD}")), "{name}");
        }
        assert_eq!(self.status("committedVersion"), format!("v{OLD}"));
        self.kubectl().apply(&self.of(OLD, ""));
        self.is_of(OLD);
    }

    /// API servers on trial that serve are taken back by an edit, and the controllers before them.
    fn a_trial_is_given_up(&self, tenant: &Tenant, new: &str) {
        self.kubectl().apply(&self.of(new, ""));
        eventually("an API server on trial serves", STEP, || {
            let (version, emulates) = tenant.runs();
            assert_ne!(self.status("committedVersion"), format!("v{new}"), "it is to be caught on trial");
            (version == format!("v{new}") && emulates.as_deref() == Some("36")).then_some(())
        });
        eventually("a controller is on trial", STEP, || {
            assert_ne!(self.status("committedVersion"), format!("v{new}"), "it is to be caught on trial");
            self.image("scheduler").0.ends_with(&format!(":v{new}")).then_some(())
        });
        self.kubectl().apply(&self.of(OLD, ""));
        self.is_of(OLD);
        assert_eq!(tenant.runs(), (format!("v{OLD}"), None));
    }

    /// To the end, with each operator killed that leads for so long. Returns when etcd was told, from the edit on.
    fn goes_to(&self, tenant: &Tenant, new: &str) -> Duration {
        let begun = Instant::now();
        let etcd_image = || {
            let set = self.kubectl().get(&["-n", NAMESPACE, "statefulset", "a-etcd"]);
            set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
        };
        let old_etcd = etcd_image();
        let page = std::fs::read_to_string(repository().join("docs/hosting.md")).unwrap();
        assert!(page.lines().any(|line| line == PAGE), "the page has another command");
        let command = PAGE.trim().strip_prefix("kubectl ").unwrap().replace("v1.37.2", &format!("v{new}"));
        let (args, patch) = command.split_once(" -p ").unwrap();
        let args: Vec<_> = args.split(' ').chain(["-p", patch.trim_matches('\'')]).collect();
        self.kubectl().run(&args).ok();
        let (mut killed, mut kills, mut etcd) = (Instant::now(), 0, None);
        let mut steps: Vec<String> = Vec::new();
        eventually("the tenant is of the next version", STEP, || {
            let (version, emulates) = tenant.runs();
            if version == format!("v{new}")
                && emulates.is_none()
                && !steps.iter().any(|step| step.contains("no emulation"))
            {
                assert!(
                    self.status("committedVersion") == format!("v{new}"),
                    "nothing is written that is not committed"
                );
            }
            // Never are controllers newer than the API servers that they ask.
            let controllers = self.image("controller-manager").0;
            let (servers, is_rolled_out) = self.image("apiserver");
            // Looked at last: what is committed stays so.
            let committed = self.status("committedVersion") == format!("v{new}");
            let is_new = |image: &str| image.ends_with(&format!(":v{new}"));
            assert!(
                !is_new(&controllers) || is_new(&servers) && (is_rolled_out || committed),
                "{controllers} beside {servers}"
            );
            let step = format!(
                "{version} {}, controllers {}, committed {committed}",
                emulates.map_or("no emulation".into(), |minor| format!("as 1.{minor}")),
                controllers.rsplit_once(':').unwrap().1
            );
            if steps.last() != Some(&step) {
                eprintln!("{:.1?}: {step}", begun.elapsed());
                steps.push(step);
            }
            if committed && etcd.is_none() && etcd_image() != old_etcd {
                assert!(is_rolled_out && is_new(&controllers));
                etcd = Some(begun.elapsed());
            }
            if killed.elapsed() > KILLED && kills < 4 {
                let leader = self.holder();
                self.kubectl().run(&["-n", "hoist-hosting", "delete", "pod", &leader, "--force", "--grace-period=0"]);
                (killed, kills) = (Instant::now(), kills + 1);
            }
            if committed && steps.iter().filter(|step| step.ends_with("true")).count() == 1 {
                let patch = format!("{{\"spec\":{{\"kubernetesVersion\":\"v{OLD}\"}}}}");
                let said = self.kubectl().run(&["-n", NAMESPACE, "patch", "hcp", "a", "--type=merge", "-p", &patch]);
                assert!(said.code == Some(1) && said.stderr.contains("the version is committed"), "{said}");
            }
            (self.status("version") == format!("v{new}")).then_some(())
        });
        assert!(kills > 0);
        assert!(
            steps.iter().any(|step| step.contains("as 1.36") && step.contains(&format!("controllers v{new}"))),
            "{steps:?}"
        );
        self.is_of(new);
        assert_eq!(tenant.runs(), (format!("v{new}"), None));
        let proxy = tenant.kubectl.get(&["-n", "kube-system", "daemonset", "kube-proxy"]);
        let image = &proxy["spec"]["template"]["spec"]["containers"][0]["image"];
        assert!(image.as_str().unwrap().ends_with(&format!(":v{new}")), "{image}");
        etcd.expect("etcd follows last")
    }

    fn is_of(&self, version: &str) {
        self.is_ready("a");
        eventually("all of it is of that version", STEP, || {
            let is_said = self.condition("a", "Upgraded").is_some_and(|(status, ..)| status == "True");
            let ready = self.condition("a", "Ready").is_some_and(|(status, ..)| status == "True");
            (is_said && ready && self.status("version") == format!("v{version}")).then_some(())
        });
        for name in ["apiserver", "controller-manager", "scheduler"] {
            eventually("its workloads are", SOON, || {
                let (image, is_rolled_out) = self.image(name);
                (image.ends_with(&format!(":v{version}")) && is_rolled_out).then_some(())
            });
        }
    }
}

impl Tenant {
    /// What the API server says of itself that answers: its version, and the minor version that it emulates.
    fn runs(&self) -> (String, Option<String>) {
        let said = self.kubectl.run(&["get", "--raw", "/version"]).ok();
        let said: Value = serde_json::from_str(&said).unwrap();
        let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
        let (version, minor) = (text("gitVersion"), text("emulationMinor"));
        let emulates = !minor.is_empty() && !version.starts_with(&format!("v1.{minor}."));
        (version, emulates.then_some(minor))
    }
}
