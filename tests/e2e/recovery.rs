//! What takes the control plane away, and how `start` brings it back.

use std::time::Duration;

use crate::serving::assert_serves_itself;
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::node::Node;

/// In the API server's manifest, and nowhere else.
const GOOD_FLAG: &str = "--shutdown-send-retry-after=true";
const BAD_FLAG: &str = "--no-such-flag=true";

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

/// A self-hosted API server that cannot start: the bridge stays, the message has the cause, and once the user has
/// mended it by kubectl alone, `start` goes on from there.
#[test]
fn failing_api_server() {
    let node = Node::up("failing");
    let cluster = Cluster::render(&node);
    let kubectl = cluster.kubectl();
    let manifest = cluster.assets.join("manifests/kube-apiserver/daemonset.yaml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert!(text.contains(GOOD_FLAG), "{text}");
    std::fs::write(&manifest, text.replace(GOOD_FLAG, BAD_FLAG)).unwrap();

    let start = cluster.started(&node, &["--progress-timeout=30s"]).expect(6);
    start.says(&["unknown flag: --no-such-flag", "the API is served", "kubectl"]);
    kubectl.run(&["get", "nodes"]).ok();
    let status = node.exec(cluster.command("status", &[])).expect(1);
    for text in ["API: served by the bridge", "  - the bridge is ", "kube-apiserver", "127.0.0.1:6443 is not"] {
        assert!(status.stdout.contains(text), "{text}: {status}");
    }

    let mut object = kubectl.get(&["daemonset", "-n", "kube-system", "kube-apiserver"]);
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    kubectl.apply(&object.to_string().replace(BAD_FLAG, GOOD_FLAG));
    eventually("the mended pod is there", Duration::from_secs(60), || {
        let pods = kubectl.list(&["pods", "-n", "kube-system", "-l", "component=kube-apiserver"]);
        pods.iter().any(|pod| pod.to_string().contains(GOOD_FLAG)).then_some(())
    });
    let start = cluster.started(&node, &[]).expect(0);
    eprintln!("{start}");
    assert_serves_itself(&node, &cluster);
}
