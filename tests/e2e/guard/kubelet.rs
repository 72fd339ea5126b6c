//! The kubelet forgets, restarts, is away; the node is drained. The API stays.

use std::time::Duration;

use super::{Controller, SOON, long};
use crate::serving::assert_serves_itself;
use crate::support::eventually;

/// A minute may pass until guard looks for leaders; then nobody must have led for half a minute.
const LEADERLESS: Duration = Duration::from_secs(180);

#[test]
fn guard_kubelet() {
    let controller = Controller::up("guard-kubelet");
    let kubectl = &controller.kubectl;
    let (traffic, raises) = (controller.traffic(), controller.raises());
    let guard = controller.guard_process();

    // A static pod is the kubelet's own: its mirror can be deleted, and comes back.
    for pod in ["etcd", "hoist-guard"] {
        let name = format!("{pod}-{}", controller.node.name);
        kubectl.run(&["delete", "pod", "-n", "kube-system", &name]).ok();
        eventually("the mirror pod is back", SOON, || {
            (kubectl.run(&["get", "pod", "-n", "kube-system", &name]).code == Some(0)).then_some(())
        });
    }
    assert_eq!(controller.guard_process(), guard, "guard was started anew");
    eprintln!("mirror pods deleted, and back");

    controller.node.sh("systemctl restart kubelet");
    node_is_ready(&controller);
    eprintln!("the kubelet restarted");

    let away = long(30, 300);
    controller.node.sh("systemctl stop kubelet");
    std::thread::sleep(away);
    assert!(controller.is_served());
    controller.node.sh("systemctl start kubelet");
    node_is_ready(&controller);
    eprintln!("the kubelet was away for {away:.0?}");

    assert_eq!(controller.raises(), raises, "{}", controller.guard_said());
    drained(&controller);
    assert_eq!(controller.guard_process(), guard, "guard was started anew");
    controller.nothing_failed(traffic);
    assert_serves_itself(&controller.node, &controller.cluster);
}

/// The controller manager and the scheduler may be evicted together, and then nobody makes them anew: guard raises the
/// bridge, which does.
fn drained(controller: &Controller) {
    let (kubectl, name) = (&controller.kubectl, controller.node.name.as_str());
    kubectl.run(&["drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"]).ok();
    assert!(controller.is_served() && controller.is_lowered());
    eventually("the bridge is raised: nobody leads", LEADERLESS, || controller.is_raised().then_some(()));
    controller.until_lowered();
    controller.control_plane_is_rolled_out();
    eprintln!("drained, and all is back");
    kubectl.run(&["uncordon", name]).ok();
}

fn node_is_ready(controller: &Controller) {
    let node = format!("node/{}", controller.node.name);
    controller.kubectl.run(&["wait", "--for=condition=Ready", "--timeout=90s", &node]).ok();
}
