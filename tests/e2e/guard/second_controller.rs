//! A node becomes a controller by a label, and guard comes to it with the cluster's copy of the bridge. It has no etcd
//! member, so no API server can serve there, and guard cannot hear that the label is gone: it is taken away by hand.

use super::{Controller, METRICS, SOON, page};
use crate::support::node::Node;
use crate::support::{eventually, hoist, worker};

const LABEL: &str = "node-role.kubernetes.io/control-plane";

#[test]
fn guard_second_controller() {
    let controller = Controller::up("guard-first");
    let second = Node::up("guard-second");
    worker::join(&second, &controller.cluster);
    second.sh(&format!("mkdir -p /var/lib/hoist/bin && cp {} /var/lib/hoist/bin/hoist", hoist().display()));
    let kubectl = &controller.kubectl;
    let node = format!("node/{}", second.name);
    eventually("the second node registers", SOON, || (kubectl.run(&["get", &node]).code == Some(0)).then_some(()));
    let traffic = controller.traffic();

    kubectl.run(&["label", &node, &format!("{LABEL}=")]).ok();
    eventually("guard is on the second node", SOON, || {
        let page = second.inside(|| page(METRICS.into(), "/metrics"));
        page.is_ok_and(|text| text.contains("\nhoist_guard_copy_whole 1\n")).then_some(())
    });
    let there = "stat -c '%a %n' /etc/kubernetes/manifests/hoist-guard.yaml /var/lib/hoist/guard/bridge.json";
    let expected = "600 /etc/kubernetes/manifests/hoist-guard.yaml\n600 /var/lib/hoist/guard/bridge.json\n";
    assert_eq!(second.sh(there), expected);
    // Nothing of the first controller's alone is there.
    let copy = second.sh("cat /var/lib/hoist/guard/bridge.json");
    assert!(copy.contains("tls/ca.key") && !copy.contains("tls/etcd/e2e-guard-first/"), "{} bytes", copy.len());

    kubectl.run(&["label", &node, &format!("{LABEL}-")]).ok();
    second.sh(&format!("{} guard remove", hoist().display()));
    eventually("guard has left the second node", SOON, || {
        let all =
            second.sh("find /etc/kubernetes/manifests /etc/kubernetes/bridge /var/lib/hoist/* 2>/dev/null || true");
        (all.trim() == "/etc/kubernetes/manifests").then_some(())
    });
    // The first one minds it not.
    controller.has_guard();
    assert!(controller.is_lowered());
    controller.nothing_failed(traffic);
}
