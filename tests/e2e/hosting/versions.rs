//! Tenants of two versions of Kubernetes side by side, and an upgrade of one.

use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::{Meta, NAMESPACE, declaration};
use crate::support::cluster::Cluster;
use crate::support::controller::{Controller, LATER};
use crate::support::kubectl::Kubectl;
use crate::support::node::{Node, disk};
use crate::support::{cache, eventually};

/// A version of Kubernetes that a tenant begins with.
const OLDER: &str = "1.36.3";

/// A tenant of the version before is brought to the next one by one edit, beside another one.
#[test]
fn hosting_of_two_versions() {
    let node = Node::plain("hosting-v");
    assert_ne!(node.kubernetes, OLDER, "the nodes' own version is the next one");
    node.has_images_of(OLDER);
    let etcd = cache().join(format!("kubernetes/v{OLDER}/images/etcd.tar"));
    std::fs::copy(etcd, disk(&node).join("opt/etcd.tar")).unwrap();
    node.sh("ctr -n k8s.io images import /opt/etcd.tar; rm /opt/etcd.tar");
    let cluster = Cluster::render(&node);
    let meta = Meta { controller: Controller::start(node, cluster) };
    meta.is_installed();
    let own = meta.controller.node.kubernetes.clone();
    let text = declaration(&meta, "old", "").replace(&format!("v{own}"), &format!("v{OLDER}"));
    meta.kubectl().apply(&text);
    meta.is_ready("old");
    meta.comes_up("new");
    let runs = || {
        let path = meta.file("old.kubeconfig", &meta.hoist(&["hosting", "kubeconfig", "old"]).ok());
        let said = Kubectl::new(&own, Path::new(&path)).run(&["version", "-o", "json"]).ok();
        let said: Value = serde_json::from_str(&said).unwrap();
        said["serverVersion"]["gitVersion"].as_str().unwrap().to_owned()
    };
    assert_eq!(runs(), format!("v{OLDER}"));

    let begun = Instant::now();
    meta.kubectl().apply(&declaration(&meta, "old", ""));
    let image = |name: &str| {
        let object = meta.kubectl().get(&["-n", NAMESPACE, "deployment", &format!("old-{name}")]);
        object["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    };
    eventually("the tenant runs the next version", LATER, || {
        // Never are controllers newer than an API server that they ask.
        let controllers = image("controller-manager");
        let servers = image("apiserver");
        let is_new = |image: &str| image.ends_with(&format!(":v{own}"));
        assert!(!is_new(&controllers) || is_new(&servers), "{controllers} beside {servers}");
        let status = meta.get("old")["status"].clone();
        (status["version"] == format!("v{own}")).then_some(())
    });
    meta.is_ready("old");
    eprintln!("from the edit until all of it is the next version: {:.1?}", begun.elapsed());
    assert_eq!(runs(), format!("v{own}"));
}
