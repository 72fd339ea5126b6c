//! What kubectl can delete of the control plane, it deletes. The API stays.

use super::{Controller, LATER, manifest};
use crate::serving::assert_serves_itself;
use crate::support::eventually;

const IN_SYSTEM: &str = "--namespace=kube-system";

#[test]
fn guard_deletions() {
    let controller = Controller::up("guard-deletions");
    let kubectl = &controller.kubectl;
    let traffic = controller.traffic();

    // All at once, those that would make them anew included.
    kubectl.run(&["delete", "pod", "--all", IN_SYSTEM]).ok();
    all_is_back(&controller);
    eprintln!("all pods deleted, and back");

    kubectl.run(&["delete", "daemonset", "kube-apiserver", IN_SYSTEM]).ok();
    eventually("the API server ends", LATER, || controller.api_server().is_none().then_some(()));
    assert!(controller.is_raised() && controller.is_served());
    // While the bridge stands, its own controller manager sees to that.
    kubectl.run(&["delete", "deployment", "kube-controller-manager", "kube-scheduler", IN_SYSTEM]).ok();
    eprintln!("the control plane deleted");
    namespaces(&controller);
    for name in ["kube-apiserver/daemonset.yaml", "kube-controller-manager", "kube-scheduler"] {
        let path = manifest(&controller.cluster, name);
        kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &path]).ok();
    }
    all_is_back(&controller);
    eprintln!("applied, and back");
    controller.nothing_failed(traffic);
    assert_serves_itself(&controller.node, &controller.cluster);
}

fn namespaces(controller: &Controller) {
    for name in ["kube-system", "kube-public", "default"] {
        let refused = controller.kubectl.run(&["delete", "namespace", name]).expect(1);
        refused.says(&["this namespace may not be deleted"]);
    }
    // The one that may: with the Lease by which the node is known to live.
    controller.kubectl.run(&["delete", "namespace", "kube-node-lease"]).ok();
    eventually("the namespace is back", LATER, || {
        let get = controller.kubectl.run(&["get", "namespace", "kube-node-lease", "-o", "jsonpath={.status.phase}"]);
        (get.stdout == "Active").then_some(())
    });
}

fn all_is_back(controller: &Controller) {
    controller.until_lowered();
    controller.control_plane_is_rolled_out();
}
