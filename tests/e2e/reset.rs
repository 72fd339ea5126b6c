//! hoist is taken off a node, and comes back: with etcd's data to the same cluster, without it to a new one.

use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::hoist;
use crate::support::node::Node;

/// Nothing of hoist's but etcd's data and what a user keeps.
const LEFT: &str = "find /etc/kubernetes /var/lib/hoist /var/lib/kubelet/config.yaml /var/lib/kubelet/pki/kubelet-client* /etc/systemd/system/kubelet.service* -type f 2>/dev/null || true";

#[test]
fn reset() {
    let node = Node::up("reset");
    let cluster = Cluster::render(&node);
    let kubectl = cluster.kubectl();
    node.sh("mkdir -p /etc/kubernetes/mine; echo x >/etc/kubernetes/mine/file");
    let before = node.sh(LEFT);
    cluster.started(&node, &[]).expect(0);
    kubectl.run(&["create", "configmap", "-n", "default", "written-before"]).ok();

    let reset = |args: &[&str]| {
        let hoist = hoist().display().to_string();
        let ended = node.spawn([&[hoist.as_str(), "reset"], args].concat()).wait(START_LIMIT);
        eprintln!("{ended}");
        ended
    };
    let shown = reset(&["--dry-run"]).expect(0);
    for text in ["/etc/kubernetes/manifests/etcd.yaml", "it keeps etcd's data", "the pod kube-system/kube-apiserver-"] {
        assert!(shown.stdout.contains(text), "{text}: {shown}");
    }
    reset(&[]).expect(1).says(&["the user didn't answer"]);
    assert_serves_itself(&node, &cluster);

    reset(&["--force"]).expect(0);
    assert_is_off(&node, &before);
    assert!(reset(&["-f"]).expect(0).stdout.contains("nothing of hoist's is on this node"));
    cluster.started(&node, &[]).expect(0);
    assert_serves_itself(&node, &cluster);
    kubectl.get(&["configmap", "-n", "default", "written-before"]);

    reset(&["--force", "--remove-etcd-data"]).expect(0);
    assert_is_off(&node, &before);
    assert_eq!(node.sh("ls -A /var/lib/etcd"), "");
    cluster.started(&node, &[]).expect(0);
    assert_serves_itself(&node, &cluster);
    assert_eq!(kubectl.run(&["get", "configmap", "-n", "default", "written-before"]).code, Some(1), "a new cluster");
}

/// Only what was there before hoist is there, and nothing of the control plane runs.
fn assert_is_off(node: &Node, before: &str) {
    assert_eq!(node.sh(LEFT), before);
    assert_eq!(node.sh("cat /etc/kubernetes/mine/file"), "x\n");
    let running = node.sh("ps -eo comm= | grep -E '^(kube|etcd|hoist)' || true");
    assert_eq!(running, "", "still running");
    assert_eq!(node.sh("ctr -n k8s.io tasks ls -q"), "");
    assert_eq!(node.sh("grep -c /var/lib/kubelet/pods /proc/mounts || true"), "0\n");
}
