//! Add-ons on a real node: a CRD, its operator, a webhook with its certificate and an object of it, from `hoist start`; then
//! `hoist apply`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::metrics;
use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, declaration, render};
use crate::support::command::{Ended, run};
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::{eventually, hoist, repository};

const LIMIT: Duration = Duration::from_secs(120);
/// Gadgets are of the last rank, whatever their file is called.
const GADGET: &str = "00-gadget.yaml";

fn gadget(name: &str, size: u32) -> String {
    format!(
        "apiVersion: example.com/v1\nkind: Gadget\nmetadata: {{name: {name}, namespace: demo}}\nspec: {{size: {size}}}\n"
    )
}

fn map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: demo}}\ndata: {{a: b}}\n")
}

/// What the API server asks without a kube-proxy: the endpoints of a Service themselves.
pub const ROUTING: &str = "apiServer: {extraArgs: [{name: enable-aggregator-routing, value: \"true\"}]}\n";

#[test]
fn addons() {
    let node = Node::up("addons");
    let cluster = Cluster::to_render(&node, node.address);
    let source = sources(&cluster);
    let example = repository().join("docs/examples/metrics");
    let named = format!("addons: [{}, {}]\n", source.display(), example.display());
    render(&(declaration(&node, node.address) + ROUTING + &named), &cluster.assets).ok();
    let folder = cluster.assets.join("addons/chain");

    let start = cluster.started(&node, &[]).expect(0);
    eprintln!("{start}");
    assert!(start.stdout.contains("add-ons: 16 created, 0 unchanged"), "{start}");
    assert_serves_itself(&node, &cluster);
    let kubectl = cluster.kubectl();
    let phase = || kubectl.get(&["gadget", "-n", "demo", "first"])["status"]["phase"].as_str().map(str::to_owned);
    assert_eq!(eventually("the operator sets the status", LIMIT, phase), "Seen");

    let before = versions(&kubectl);
    let again = apply(&cluster, &[]).expect(0);
    assert!(again.stdout.contains("add-ons: 16 unchanged") && !again.stdout.contains("created"), "{again}");
    assert_eq!(versions(&kubectl), before);
    assert!(cluster.started(&node, &[]).expect(0).stdout.contains("add-ons: 16 unchanged"));

    a_refusal_is_named_and_stops_nobody_else(&cluster, &kubectl);
    an_edit_is_shown_and_then_applied(&cluster, &kubectl, &folder);
    pruning_takes_what_left_the_folder(&cluster, &kubectl);
    metrics::are_read(&node, &kubectl, &example);
    metrics::a_prometheus_reads_them(&node, &kubectl, &example);
}

/// `hoist apply` on this machine, which is no node.
fn apply(cluster: &Cluster, args: &[&str]) -> Ended {
    let mut command = Command::new(hoist());
    command.arg("apply").arg("--asset-dir").arg(&cluster.assets).args(["--progress-timeout=60s"]).args(args);
    let ended = run(&mut command, LIMIT);
    eprintln!("{ended}");
    ended
}

/// The folder `chain` that cluster.yaml names.
fn sources(cluster: &Cluster) -> PathBuf {
    let folder = cluster.assets.with_extension("addons").join("chain");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let program = folder.with_file_name("program");
    let mut build = Command::new("go");
    build.current_dir(repository().join("tests/webhook")).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod");
    run(build.args(["build", "-trimpath", "-o"]).arg(program.join("webhook")), Duration::from_secs(300)).ok();

    let (ca, certificate, key) = certificates("webhook.demo.svc");
    let own = repository().join("tests/e2e/addons");
    let read = |name: &str| fs::read_to_string(own.join(name)).unwrap();
    let webhook =
        [("CERTIFICATE", &certificate), ("KEY", &key), ("caBundle: CA", &format!("caBundle: {}", STANDARD.encode(ca)))]
            .into_iter()
            .fold(read("webhook.yaml"), |text, (from, to)| {
                let value =
                    if from.starts_with("caBundle") { to.clone() } else { format!(": {}", STANDARD.encode(to)) };
                let from = if from.starts_with("caBundle") { from.to_owned() } else { format!(": {from}") };
                text.replace(&from, &value)
            })
            .replace("path: PROGRAM", &format!("path: {}", program.display()));
    for (name, text) in [
        (GADGET, gadget("first", 3)),
        ("10-webhook.yaml", webhook),
        ("20-operator.yaml", read("operator.yaml")),
        ("90-crd.yaml", read("crd.yaml")),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    folder
}

/// A CA, and a certificate of it with its key.
pub fn certificates(name: &str) -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = leaf.signed_by(&key, &Issuer::new(params, ca_key)).unwrap().pem();
    (ca, certificate, key.serialize_pem())
}

/// The resourceVersions of what nobody but hoist writes.
fn versions(kubectl: &Kubectl) -> Vec<Value> {
    let kinds = "secrets,services,serviceaccounts,roles,rolebindings,gadgets";
    let of_demo = kubectl.list(&[kinds, "-n", "demo"]);
    let inventory = kubectl.get(&["configmap", "-n", "kube-system", "hoist-inventory"]);
    of_demo.iter().chain([&inventory]).map(|object| object["metadata"]["resourceVersion"].clone()).collect()
}

fn a_refusal_is_named_and_stops_nobody_else(cluster: &Cluster, kubectl: &Kubectl) {
    fs::write(cluster.assets.join("addons/broken.yaml"), gadget("broken", 11)).unwrap();
    fs::write(cluster.assets.join("addons/fine.yaml"), gadget("fine", 10)).unwrap();
    let dry = apply(cluster, &["--dry-run"]).expect(8);
    assert!(dry.stdout.contains("would create Gadget demo/fine"), "{dry}");
    dry.says(&["addons/broken.yaml:1:1: admission webhook \"gadgets.example.com\" denied the request: a size of 11 is too large"]);
    assert_eq!(kubectl.run(&["get", "gadget", "-n", "demo", "fine"]).code, Some(1), "a dry run made it");
    let refused = apply(cluster, &[]).expect(8);
    refused.says(&["addons/broken.yaml:1:1", "a size of 11 is too large"]);
    kubectl.get(&["gadget", "-n", "demo", "fine"]);
    fs::remove_file(cluster.assets.join("addons/broken.yaml")).unwrap();
}

fn an_edit_is_shown_and_then_applied(cluster: &Cluster, kubectl: &Kubectl, folder: &Path) {
    let size = || kubectl.get(&["gadget", "-n", "demo", "first"])["spec"]["size"].clone();
    assert_eq!(apply(cluster, &["--diff"]).expect(0).stdout, "", "nothing differs");
    fs::write(folder.join(GADGET), gadget("first", 4)).unwrap();
    let diff = apply(cluster, &["--diff"]).expect(2).stdout;
    assert!(diff.starts_with("--- live/Gadget/demo/first\n") && diff.contains("\n-  size: 3\n+  size: 4\n"), "{diff}");
    assert_eq!(diff.matches("--- ").count(), 1, "{diff}");
    assert_eq!(size(), 3);
    let applied = apply(cluster, &["--addons-only"]).expect(0).stdout;
    assert!(
        applied.contains("configured Gadget demo/first") && applied.contains("add-ons: 1 configured, 16 unchanged"),
        "{applied}"
    );
    assert_eq!(size(), 4);
}

fn pruning_takes_what_left_the_folder(cluster: &Cluster, kubectl: &Kubectl) {
    let own = cluster.assets.join("addons/own.yaml");
    fs::write(&own, map("own")).unwrap();
    apply(cluster, &[]).expect(0);
    kubectl.apply(&map("of-the-user"));
    for file in ["own.yaml", "fine.yaml"] {
        fs::remove_file(cluster.assets.join("addons").join(file)).unwrap();
    }
    let names = || kubectl.run(&["get", "configmaps,gadgets", "-n", "demo", "-o", "name"]).ok();
    let before = names();
    apply(cluster, &[]).expect(0);
    let dry = apply(cluster, &["--prune", "--dry-run=server"]).expect(0).stdout;
    assert!(dry.contains("would prune Gadget demo/fine\nwould prune ConfigMap demo/own\n"), "{dry}");
    assert_eq!(names(), before, "nobody asked");
    let pruned = apply(cluster, &["--prune"]).expect(0).stdout;
    assert!(pruned.contains("add-ons: 2 pruned, 16 unchanged"), "{pruned}");
    let kept: Vec<_> = before.lines().filter(|line| !line.ends_with("/own") && !line.ends_with("/fine")).collect();
    assert_eq!(names().lines().collect::<Vec<_>>(), kept);
    assert!(kept.contains(&"configmap/of-the-user") && kept.contains(&"gadget.example.com/first"), "{kept:?}");
}
