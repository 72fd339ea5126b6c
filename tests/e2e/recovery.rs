//! What takes the control plane away, and how `start` brings it back.

use crate::serving::assert_serves_itself;
use crate::support::cluster::Cluster;
use crate::support::node::Node;

/// A reboot of the only controller: what was written is there, and so is what a user has edited since.
#[test]
fn reboot() {
    let node = Node::up("reboot");
    let cluster = Cluster::render(&node);
    let kubectl = cluster.kubectl();
    cluster.started(&node, &[]).expect(0);
    let image = format!("registry.k8s.io/kube-scheduler:v{}-1", node.kubernetes);
    kubectl.run(&["create", "configmap", "-n", "default", "written-before"]).ok();
    kubectl
        .run(&["set", "image", "-n", "kube-system", "deployment/kube-scheduler", &format!("kube-scheduler={image}")])
        .ok();
    kubectl.run(&["rollout", "status", "-n", "kube-system", "--timeout=90s", "deployment/kube-scheduler"]).ok();

    node.power_cut();
    node.boot();
    let start = cluster.started(&node, &[]).expect(0);
    eprintln!("{start}");

    assert_serves_itself(&node, &cluster);
    kubectl.get(&["configmap", "-n", "default", "written-before"]);
    let scheduler = kubectl.get(&["deployment", "-n", "kube-system", "kube-scheduler"]);
    assert_eq!(scheduler["spec"]["template"]["spec"]["containers"][0]["image"], image.as_str());
}
