//! What a cluster holds that stands in the way of another version: `plan` names it, and nothing else of the like.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::support::cluster::{Cluster, declaration, render};
use crate::support::command::{Ended, run};
use crate::support::controller::{Controller, LATER};
use crate::support::node::Node;
use crate::support::{eventually, hoist};

const OLD: &str = "1.36.3";
const NEW: &str = "1.37.2";
const LIMIT: Duration = Duration::from_secs(60);
/// A version of the API that 1.37 does not have: not on by default.
const ALPHA: &str = "apiServer:
  extraArgs:
  - {name: runtime-config, value: scheduling.k8s.io/v1alpha2=true}
  - {name: feature-gates, value: GenericWorkload=true}
";
const WORKLOAD: &str = "apiVersion: scheduling.k8s.io/v1alpha2
kind: Workload
metadata: {name: w, namespace: default}
spec: {podGroupTemplates: [{name: p, schedulingPolicy: {basic: {}}}]}
";

#[test]
fn what_another_version_cannot_read_is_named_before() {
    let node = Node::of_version("up", OLD);
    let cluster = Cluster::to_render(&node, node.address);
    render(&format!("{}{ALPHA}", declaration(&node, node.address)), &cluster.assets).ok();
    let controller = Controller::start(node, cluster);
    let kubectl = &controller.kubectl;

    let before = plan(&controller);
    for nothing in ["v1alpha2", "storedVersions", "DiskPressure"] {
        assert!(!before.stdout.contains(nothing), "{before}");
    }

    kubectl.apply(WORKLOAD);
    kubectl.apply(&crd("v1alpha1"));
    eventually("the CRD is served", LATER, || {
        let crd = kubectl.get(&["crd", "things.example.com"]);
        (crd["status"]["storedVersions"] == serde_json::json!(["v1alpha1"])).then_some(())
    });
    // Replaced, as by an operator's new release that forgot what is stored.
    let patch = r#"{"status":{"storedVersions":["v1alpha1","v1"]}}"#;
    kubectl.apply(&crd("v1alpha1").replace(
        "versions:",
        "versions:\n  - {name: v1, served: true, storage: false, schema: {openAPIV3Schema: {type: object}}}",
    ));
    kubectl.run(&["patch", "crd", "things.example.com", "--subresource=status", "--type=merge", "-p", patch]).ok();
    let there = kubectl.get(&["crd", "things.example.com"]);
    assert_eq!(there["status"]["storedVersions"], serde_json::json!(["v1alpha1", "v1"]), "{there}");
    assert!(!plan(&controller).stdout.contains("storedVersions"), "a version that the CRD has is no loss");

    let named = plan(&controller).expect(3);
    assert!(
        named.stdout.contains(
            "workloads.v1alpha2.scheduling.k8s.io: objects of it are there, and Kubernetes 1.37 cannot read them"
        ),
        "{named}"
    );
    kubectl.run(&["get", "workloads.v1alpha2.scheduling.k8s.io", "-A"]).ok();
    kubectl.run(&["delete", "workloads.v1alpha2.scheduling.k8s.io", "w"]).ok();
    assert!(!plan(&controller).stdout.contains("workloads.v1alpha2"), "what is gone is in nobody's way");
}

fn crd(version: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: things.example.com}}
spec:
  group: example.com
  names: {{kind: Thing, plural: things}}
  scope: Cluster
  versions:
  - {{name: {version}, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object}}}}}}
"
    )
}

/// `hoist upgrade plan --to`, on the machine with the asset directory.
fn plan(controller: &Controller) -> Ended {
    let assets = fs::canonicalize(&controller.cluster.assets).unwrap();
    let mut command = Command::new(hoist());
    command.args(["upgrade", "plan", "--to", &format!("v{NEW}"), "--asset-dir"]).arg(assets);
    let ended = run(&mut command, LIMIT);
    eprintln!("{ended}");
    ended
}
