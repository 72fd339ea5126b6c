//! Hosted control planes: a cluster of one controller carries those of other clusters, as their objects declare them. A
//! machine becomes a tenant's worker; what is wrong with one tenant is said, and keeps no other one from anything.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::command::{Ended, run};
use crate::support::controller::{Controller, LATER, SOON};
use crate::support::http::Client;
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::traffic::Traffic;
use crate::support::{eventually, hoist, worker};

mod addons;
mod isolation;
mod members;
mod restore;
mod tenants;
mod traffic;
mod upgrade;
mod versions;

const NAMESPACE: &str = "tenants";
/// Where the tenants' data is on the controller.
const FOLDER: &str = "/var/lib/tenants";
/// The operator's account.
const OPERATOR: &str = "system:serviceaccount:hoist-hosting:hoist-operator";
/// Longer than the operator rests.
const RESTS: Duration = Duration::from_secs(70);

#[test]
fn hosting() {
    let node = Node::plain("hosting");
    let cluster = Cluster::render(&node);
    let meta = Meta { controller: Controller::start(node, cluster) };
    meta.is_installed();
    let before = meta.objects();

    let (tenant, taken) = meta.comes_up("a");
    eprintln!("from apply to a usable kubeconfig: {taken:.1?}");
    tenant.leads();
    let again = meta.comes_up("warm").1;
    eprintln!("the second one: {again:.1?}");
    meta.what_is_refused();
    meta.at_rest_nothing_is_written();
    meta.drift_is_put_right();
    meta.no_request_is_lost_with_a_pod(&tenant);
    meta.a_worker_joins(&tenant);
    meta.what_is_wrong_is_said();
    meta.keys_are_never_made_again();
    meta.deletion_leaves_nothing(&before);
}

struct Meta {
    controller: Controller,
}

/// A tenant that is up.
struct Tenant {
    kubectl: Kubectl,
    kubeconfig: String,
}

/// What a tenant of the tests has, with `more` at its end; in the form of YAML.
fn declaration(meta: &Meta, name: &str, more: &str) -> String {
    let node = &meta.controller.node;
    format!(
        "apiVersion: hoist.dev/v1alpha1
kind: HostedControlPlane
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  kubernetesVersion: v{version}
  exposure: {{type: NodePort, address: {address}}}
  etcd: {{localPath: {{node: {node}, path: {FOLDER}}}}}
  tolerations: [{{key: node-role.kubernetes.io/control-plane, operator: Exists}}]
  apiServer: {{resources: {{requests: {{cpu: 20m}}}}}}
  dns: {{upstreams: []}}
  kubeProxy: {{mode: nftables, config: {{conntrack: {{maxPerCore: 0}}}}}}
  kubelet:
    config:
      failCgroupV1: false
      enforceNodeAllocatable: []
      localStorageCapacityIsolation: false
      imageGCHighThresholdPercent: 100
      cgroupDriver: cgroupfs
      evictionHard: {{memory.available: 0%, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0%}}
{more}",
        version = node.kubernetes,
        address = node.address,
        node = node.name,
    )
}

impl Meta {
    fn kubectl(&self) -> &Kubectl {
        &self.controller.kubectl
    }

    fn hoist(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(hoist());
        command.args(args).arg("--asset-dir").arg(&self.controller.cluster.assets);
        run(&mut command, SOON)
    }

    #[track_caller]
    fn get(&self, name: &str) -> Value {
        self.kubectl().get(&["-n", NAMESPACE, "hostedcontrolplane", name])
    }

    fn condition(&self, name: &str, kind: &str) -> Option<(String, String, String)> {
        let object = self.get(name);
        let all = object["status"]["conditions"].as_array()?;
        let one = all.iter().find(|one| one["type"] == kind)?;
        let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    #[track_caller]
    fn is_ready(&self, name: &str) {
        eventually(&format!("the tenant {name} is ready"), LATER, || {
            let (status, ..) = self.condition(name, "Ready")?;
            (status == "True").then_some(())
        });
    }

    /// The operator may what it needs, and nothing in namespaces where it was not let in.
    fn is_installed(&self) {
        let printed = self.hoist(&["hosting", "install", "--print"]).ok();
        assert!(printed.contains("kind: CustomResourceDefinition"), "{printed}");
        let said = self.hoist(&["hosting", "install"]).ok();
        eprint!("{said}");
        let again = self.hoist(&["hosting", "install"]).ok();
        assert!(again.contains(" 0 of them new or changed"), "{again}");
        let kubectl = self.kubectl();
        kubectl.run(&["-n", "hoist-hosting", "rollout", "status", "deployment/hoist-operator", "--timeout=110s"]).ok();
        for (verb, resource, namespace, expected) in [
            ("get", "secrets", NAMESPACE, "yes"),
            ("list", "secrets", NAMESPACE, "no"),
            ("get", "secrets", "default", "no"),
            ("get", "secrets", "kube-system", "no"),
            ("create", "pods", "default", "no"),
            ("create", "hostedcontrolplanes.hoist.dev", NAMESPACE, "no"),
            ("delete", "hostedcontrolplanes.hoist.dev", NAMESPACE, "no"),
            ("list", "nodes", "", "no"),
            ("escalate", "clusterroles.rbac.authorization.k8s.io", "", "no"),
        ] {
            let said = kubectl.run(&["auth", "can-i", verb, resource, "-n", namespace, "--as", OPERATOR]).stdout;
            assert!(said.starts_with(expected), "{verb} {resource} in {namespace}: {said}");
        }
        let explained = kubectl.run(&["explain", "hostedcontrolplane.spec.exposure"]).ok();
        assert!(explained.contains("How the tenant's nodes and clients reach its API servers."), "{explained}");
        self.controller.node.sh(&format!("mkdir -p {FOLDER}"));
    }

    /// From the object's making until its admin's kubeconfig makes something.
    #[track_caller]
    fn comes_up(&self, name: &str) -> (Tenant, Duration) {
        self.comes_up_as(name, &declaration(self, name, ""))
    }

    /// The same of one that is declared in another way.
    #[track_caller]
    fn comes_up_as(&self, name: &str, declared: &str) -> (Tenant, Duration) {
        let begun = Instant::now();
        self.kubectl().apply(declared);
        let path = PathBuf::from(self.file(&format!("{name}.kubeconfig"), ""));
        let tenant = eventually(&format!("{name} has a kubeconfig that can be used"), LATER, || {
            let said = self.hoist(&["hosting", "kubeconfig", name]);
            let kubeconfig = Some(said.stdout).filter(|_| said.code == Some(0))?;
            std::fs::write(&path, &kubeconfig).unwrap();
            let kubectl = Kubectl::new(&self.controller.node.kubernetes, &path);
            let made = kubectl.run(&["create", "configmap", "made", "--from-literal=by=admin"]);
            // It was made, too, where its answer came too late.
            (made.code == Some(0) || made.stderr.contains("already exists")).then_some(Tenant { kubectl, kubeconfig })
        });
        let taken = begun.elapsed();
        self.is_ready(name);
        eprintln!("{name} is ready after {:.1?}", begun.elapsed());
        let shown = self.hoist(&["hosting", "status", name]).ok();
        let version = declared.split_once("kubernetesVersion: ").unwrap().1.lines().next().unwrap();
        assert!(shown.contains(&format!("{version}   yes")), "{shown}");
        let columns = self.kubectl().run(&["-n", NAMESPACE, "get", "hcp", name]).ok();
        assert!(columns.contains("VERSION") && columns.contains("True"), "{columns}");
        (tenant, taken)
    }

    /// What would harm a tenant that is there is refused before anything acts on it.
    fn what_is_refused(&self) {
        let version = &self.controller.node.kubernetes;
        let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
        let patch = |text: String| {
            self.kubectl().run(&["-n", NAMESPACE, "patch", "hcp", "a", "--type=merge", "--dry-run=server", "-p", &text])
        };
        let of_version =
            |minor: u32, patch: u32| format!("{{\"spec\":{{\"kubernetesVersion\":\"v1.{minor}.{patch}\"}}}}");
        for (text, why) in [
            (of_version(parts[1] - 1, 9), "an older version cannot read"),
            (of_version(parts[1] + 2, 0), "no minor version may be skipped"),
            (r#"{"spec":{"kubernetesVersion":"latest"}}"#.into(), "should match"),
            (r#"{"spec":{"exposure":{"address":"192.0.2.1"}}}"#.into(), "it stays as it is"),
            (r#"{"spec":{"exposure":{"type":"ClusterIP"}}}"#.into(), "it stays as it is"),
            (r#"{"spec":{"networking":{"podSubnet":"10.9.0.0/16"}}}"#.into(), "they stay as they are"),
            (r#"{"spec":{"etcd":{"localPath":{"path":"/elsewhere"}}}}"#.into(), "it cannot be moved"),
            (r#"{"spec":{"etcd":{"volume":{"size":"1Gi"}}}}"#.into(), "write one of localPath and volume"),
            (r#"{"spec":{"etcd":{"replicas":3}}}"#.into(), "the number of members cannot be changed yet"),
        ] {
            let said = patch(text.clone());
            assert!(said.code == Some(1) && said.stderr.contains(why), "{text}: {said}");
        }
        patch(of_version(parts[1] + 1, 0)).ok();
        let long = declaration(self, &"a".repeat(41), "");
        let said = self.kubectl().run(&["apply", "-f", &self.file("long.yaml", &long)]);
        assert!(said.stderr.contains("at most 40"), "{said}");
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", self.controller.node.name));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// All objects in the tenants' namespace, and their resourceVersions.
    fn versions(&self) -> BTreeSet<String> {
        let kinds = "hcp,services,secrets,configmaps,deployments,statefulsets,poddisruptionbudgets,pods";
        let line = "{range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
        let said = self.kubectl().run(&["-n", NAMESPACE, "get", kinds, "-o", &format!("jsonpath={line}")]).ok();
        said.lines().map(str::to_owned).collect()
    }

    /// Several turns come and go, by the clock and because the object was touched.
    fn at_rest_nothing_is_written(&self) {
        std::thread::sleep(Duration::from_secs(5));
        let before = self.versions();
        std::thread::sleep(RESTS);
        assert_eq!(self.versions(), before, "a turn at rest");
        let without = |all: BTreeSet<String>| -> BTreeSet<String> {
            all.into_iter().filter(|line| !line.starts_with("HostedControlPlane/")).collect()
        };
        for number in 0..3 {
            let touch = format!("touched={number}");
            self.kubectl().run(&["-n", NAMESPACE, "annotate", "hcp", "a", "--overwrite", &touch]).ok();
            std::thread::sleep(Duration::from_secs(3));
        }
        assert_eq!(without(self.versions()), without(before), "turns because the object was touched");
    }

    fn drift_is_put_right(&self) {
        let kubectl = self.kubectl();
        let flags = "/spec/template/spec/containers/0/command/1";
        let patch =
            format!("[{{\"op\":\"replace\",\"path\":\"{flags}\",\"value\":\"--leader-elect-retry-period=9s\"}}]");
        kubectl.run(&["-n", NAMESPACE, "patch", "deployment", "a-scheduler", "--type=json", "-p", &patch]).ok();
        eventually("the scheduler's flag is as it was", SOON, || {
            let deployment = kubectl.get(&["-n", NAMESPACE, "deployment", "a-scheduler"]);
            let command = deployment["spec"]["template"]["spec"]["containers"][0]["command"].to_string();
            (!command.contains("9s")).then_some(())
        });
        kubectl.run(&["-n", NAMESPACE, "delete", "secret", "a-kubeconfig"]).ok();
        kubectl.run(&["-n", NAMESPACE, "delete", "service", "a-apiserver", "--dry-run=server"]).ok();
        eventually("the kubeconfig is there again", LATER, || {
            (self.hoist(&["hosting", "kubeconfig", "a"]).code == Some(0)).then_some(())
        });
        eventually("an event says that it was put right", SOON, || {
            let events = kubectl.run(&["-n", NAMESPACE, "get", "events", "--field-selector=reason=Corrected"]).stdout;
            events.contains("a-scheduler was changed by somebody else").then_some(())
        });
        self.is_ready("a");
    }

    /// The only pod of the API servers is deleted under clients that never stop.
    fn no_request_is_lost_with_a_pod(&self, tenant: &Tenant) {
        let traffic = Traffic::begin(tenant.client());
        std::thread::sleep(Duration::from_secs(2));
        let pods = ["-n", NAMESPACE, "-l", "component=kube-apiserver,hoist.dev/tenant=a"];
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let old: Vec<_> = self.kubectl().list(&[&pods[..], &["pods"]].concat()).iter().map(uid).collect();
        self.kubectl().run(&[&["delete", "pod", "--wait=false"], &pods[..]].concat()).ok();
        eventually("another pod serves, and the old one is gone", LATER, || {
            let now = self.kubectl().list(&[&pods[..], &["pods"]].concat());
            (now.len() == 1 && !old.contains(&uid(&now[0]))).then_some(())
        });
        std::thread::sleep(Duration::from_secs(3));
        let record = traffic.end().unwrap();
        eprintln!("while the API server's only pod was deleted: {record}");
        assert!(record.exchanges.len() > 500, "{record}");
        assert_eq!(record.failures().count(), 0, "{record}");
        self.is_ready("a");
    }

    /// A worker of the tenant `a`: by a token and the files of `hoist join-assets`.
    fn worker(&self, tenant: &Tenant, name: &str) -> Node {
        let node = Node::plain(name);
        let token = self.hoist(&["token", "create", "--tenant", "a"]).ok();
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-join", node.name));
        let _ = std::fs::remove_dir_all(&out);
        let (to, address) = (out.display().to_string(), node.address.to_string());
        let said = self.hoist(&[
            "join-assets",
            "--tenant",
            "a",
            "--token",
            token.trim(),
            "--output-dir",
            &to,
            "--node",
            &node.name,
            "--node-ip",
            &address,
        ]);
        assert_eq!(said.ok().lines().filter(|line| line.starts_with("wrote ")).count(), 6);
        node.sh(&format!(
            "mkdir -p /etc/systemd/system/kubelet.service.d
            ln -sf /dev/null /etc/systemd/system/kubelet.service.d/10-kubeadm.conf
            tar -C {to} -c etc var | tar -x -C / --no-same-owner --no-overwrite-dir
            systemctl daemon-reload; systemctl enable --now kubelet"
        ));
        eventually("the tenant's worker is ready", LATER, || {
            let nodes = tenant.kubectl.list(&["nodes"]);
            let all = nodes.first()?["status"]["conditions"].as_array()?;
            all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True").then_some(())
        });
        node
    }

    /// Its kubelet's certificate is approved by the operator.
    fn a_worker_joins(&self, tenant: &Tenant) {
        let node = self.worker(tenant, "hosting-w");
        worker::says_hello(&tenant.kubectl, &node, "hello", LATER);
        eventually("its kubelet serves with a certificate of the tenant's CA", SOON, || {
            tenant.kubectl.run(&["logs", "hello"]).stdout.contains("hello").then_some(())
        });
        assert_eq!(tenant.kubectl.run(&["exec", "hello", "--", "echo", "there"]).ok(), "there\n");
        tenant.kubectl.run(&["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=110s"]).ok();
        // By the address that kube-proxy of the tenant's node gives the kubernetes Service.
        let script = "nc -w 10 10.96.0.1 443 </dev/null && echo reached";
        assert_eq!(tenant.kubectl.run(&["exec", "hello", "--", "sh", "-c", script]).ok(), "reached\n");
        eventually("the tenant's object counts its node", LATER, || {
            (self.get("a")["status"]["nodes"] == 1).then_some(())
        });
        tenant.kubectl.run(&["delete", "pod", "hello", "--wait=false"]).ok();
    }

    /// Each of these is wrong by itself, says why, and what to do; the others stay as they are.
    fn what_is_wrong_is_said(&self) {
        let service = self.kubectl().get(&["-n", NAMESPACE, "service", "a-apiserver"]);
        let taken = service["spec"]["ports"][0]["nodePort"].to_string();
        let of = |name: &str, from: &str, to: &str| {
            let text = declaration(self, name, "");
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        };
        let address = format!("address: {}", self.controller.node.address);
        let bad = [
            (of("port", &address, &format!("{address}, nodePort: {taken}")), "port", "NodePortTaken", "nodePort"),
            (
                of("image", "  dns:", "  images: {etcd: registry.k8s.io/etcd:none}\n  dns:"),
                "image",
                "ImageNotPulled",
                "spec.images",
            ),
            (of("folder", FOLDER, "/var/lib/nowhere"), "folder", "NotMounted", "Make the folder /var/lib/nowhere"),
            (
                of("old", &format!("v{}", self.controller.node.kubernetes), "v1.20.0"),
                "old",
                "InvalidSpec",
                "supported: ",
            ),
            (
                of("flag", "  dns:", "  scheduler: {extraArgs: [{name: nonsense, value: x}]}\n  dns:"),
                "flag",
                "InvalidSpec",
                "nonsense",
            ),
        ];
        for (text, ..) in &bad {
            self.kubectl().apply(text);
        }
        self.kubectl().run(&["create", "namespace", "elsewhere"]).ok();
        let elsewhere = declaration(self, "a", "").replace(&format!("namespace: {NAMESPACE}"), "namespace: elsewhere");
        self.kubectl().apply(&elsewhere);
        for (_, name, reason, remedy) in &bad {
            let said = eventually(&format!("{name} says {reason}"), LATER, || {
                self.condition(name, "Ready").filter(|(_, said, _)| said == reason)
            });
            eprintln!("{name}: {}: {}", said.1, said.2);
            assert!(said.0 == "False" && said.2.contains(remedy), "{said:?}");
        }
        eventually("a tenant where the operator was not let in says so", LATER, || {
            let object = self.kubectl().get(&["-n", "elsewhere", "hcp", "a"]);
            let text = object["status"]["conditions"].to_string();
            (text.contains("Forbidden") && text.contains("hoist hosting install --tenant-namespace elsewhere"))
                .then_some(())
        });
        let shown = self.hoist(&["hosting", "status"]);
        assert!(shown.code == Some(1) && shown.stdout.contains("NodePortTaken"), "{shown}");
        self.is_ready("a");
        let names: Vec<_> = bad.iter().map(|(_, name, ..)| *name).collect();
        self.kubectl().run(&[&["-n", NAMESPACE, "delete", "hcp", "--timeout=110s"], &names[..]].concat()).ok();
        self.kubectl().run(&["delete", "namespace", "elsewhere", "--timeout=110s"]).ok();
    }

    /// Without its CA a tenant's nodes would be nobody's: that is said, and what runs goes on.
    fn keys_are_never_made_again(&self) {
        let kept = self.kubectl().run(&["-n", NAMESPACE, "get", "secret", "warm-pki", "-o", "yaml"]).ok();
        self.kubectl().run(&["-n", NAMESPACE, "delete", "secret", "warm-pki"]).ok();
        eventually("the loss of the keys is said", LATER, || {
            self.condition("warm", "Ready").filter(|(_, reason, _)| reason == "KeysLost")
        });
        let there = self.kubectl().run(&["-n", NAMESPACE, "get", "secret", "warm-pki"]);
        assert_eq!(there.code, Some(1), "{there}");
        let fields = ["uid:", "resourceVersion:", "creationTimestamp:"];
        let restored: Vec<_> =
            kept.lines().filter(|line| !fields.iter().any(|field| line.starts_with(&format!("  {field}")))).collect();
        self.kubectl().apply(&restored.join("\n"));
        self.is_ready("warm");
    }

    /// Everything in the tenants' namespace, what is of no namespace that tenants could leave, and the folder.
    fn objects(&self) -> BTreeSet<String> {
        let kubectl = self.kubectl();
        let names =
            |args: &[&str]| -> Vec<String> { kubectl.run(args).ok().split_whitespace().map(str::to_owned).collect() };
        let kinds = names(&["api-resources", "--namespaced", "--verbs=list", "-o", "name"]);
        let kinds: Vec<_> =
            kinds.into_iter().filter(|kind| !kind.starts_with("events") && !kind.contains("metrics")).collect();
        let mut all: BTreeSet<String> =
            names(&["-n", NAMESPACE, "get", &kinds.join(","), "-o", "name"]).into_iter().collect();
        let wide = "namespaces,clusterroles,clusterrolebindings,persistentvolumes,customresourcedefinitions";
        all.extend(names(&["get", wide, "-o", "name"]));
        all.extend(self.controller.node.sh(&format!("ls -A {FOLDER}")).lines().map(|line| format!("{FOLDER}/{line}")));
        all
    }

    fn deletion_leaves_nothing(&self, before: &BTreeSet<String>) {
        let there = self.controller.node.sh(&format!("ls {FOLDER}"));
        let folders: Vec<_> = there.lines().map(|line| line.rsplit_once('.').unwrap().0).collect();
        assert_eq!(folders, ["tenants.a", "tenants.warm"]);
        self.kubectl().run(&["-n", NAMESPACE, "delete", "hcp", "--all", "--timeout=110s"]).ok();
        eventually("nothing of the tenants is left", LATER, || {
            let left: Vec<_> = self.objects().difference(before).cloned().collect();
            if !left.is_empty() {
                eprintln!("{left:?}");
                std::thread::sleep(Duration::from_secs(5));
            }
            left.is_empty().then_some(())
        });
        assert_eq!(self.objects(), *before);
    }
}

impl Tenant {
    fn text(&self, key: &str) -> &str {
        let line = self.kubeconfig.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}: ")));
        line.unwrap_or_else(|| panic!("{key}")).trim_matches('"')
    }

    fn client(&self) -> Client {
        let [ca, certificate, key] = ["certificate-authority-data", "client-certificate-data", "client-key-data"]
            .map(|key| STANDARD.decode(self.text(key)).unwrap());
        let address: SocketAddr = self.text("server").strip_prefix("https://").unwrap().parse().unwrap();
        Client::with_certificate(&ca, &certificate, &key, address)
    }

    /// Both of its controllers have their Leases.
    fn leads(&self) {
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let lease = self.kubectl.get(&["-n", "kube-system", "lease", name]);
            assert!(lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty()), "{lease}");
        }
    }
}
