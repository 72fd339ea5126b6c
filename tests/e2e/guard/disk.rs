//! No room on the disk: guard says so, leaves alone what serves, and raises as soon as there is some.

use std::time::Duration;

use super::{Controller, SOON};
use crate::support::cluster::Cluster;
use crate::support::controller::NO_IMAGE;
use crate::support::eventually;
use crate::support::node::Node;

/// Folders of the node that get a small disk each: what guard writes to.
const KUBERNETES: (&str, &str) = ("/etc/kubernetes", "2m");
const HOIST: (&str, &str) = ("/var/lib/hoist", "64m");

#[test]
fn guard_disk() {
    let node = Node::up("guard-disk");
    for (path, size) in [KUBERNETES, HOIST] {
        node.sh(&format!("mount -t tmpfs -o mode=755,size={size} tmpfs {path}"));
    }
    let cluster = Cluster::render(&node);
    let controller = Controller::start(node, cluster);
    let traffic = controller.traffic();
    let manifests = "ls -A /etc/kubernetes/manifests";
    let before = controller.node.sh(manifests);

    // The disk of /var stays full throughout: all that a raise takes of it is there already.
    fill(&controller, HOIST.0);
    fill(&controller, KUBERNETES.0);
    let (errors, raises) = (controller.metric("errors_total"), controller.raises());
    controller.set_image(NO_IMAGE);
    eventually("guard says that it cannot raise the bridge", SOON, || {
        (controller.metric("errors_total") > errors).then_some(())
    });
    let said = controller.guard_said();
    assert!(said.contains("No space left on device"), "{said}");
    // What is there stays: etcd, guard; and no half of a bridge is shown to the kubelet.
    eventually("the API server has ended", SOON, || controller.api_server().is_none().then_some(()));
    assert_eq!((controller.node.sh(manifests), controller.raises()), (before, raises));
    assert!(!controller.is_served(), "by whom?");

    controller.node.sh("rm /etc/kubernetes/fill");
    eventually("the API is served by the bridge", SOON, || controller.is_served().then_some(()));
    assert_eq!(controller.raises(), raises + 1.0, "{}", controller.guard_said());
    controller.undo();
    let lowered = "test -z \"$(find /etc/kubernetes/manifests -name 'bridge-*')\" && test ! -e /etc/kubernetes/bridge";
    eventually("the bridge is lowered", SOON, || {
        (controller.node.exec(["sh", "-c", lowered]).code == Some(0)).then_some(())
    });
    controller.nothing_is_lost(traffic);
    read_only(&controller);
}

/// The same for a disk that has become read-only, as Linux makes it of one that fails.
fn read_only(controller: &Controller) {
    controller.node.sh("mount -o remount,ro /etc/kubernetes");
    let errors = controller.metric("errors_total");
    controller.set_image(NO_IMAGE);
    eventually("guard says that it cannot raise the bridge", SOON, || {
        (controller.metric("errors_total") > errors).then_some(())
    });
    let said = controller.guard_said();
    assert!(said.contains("Read-only file system"), "{said}");
    controller.node.sh("mount -o remount,rw /etc/kubernetes");
    eventually("the API is served by the bridge", SOON, || controller.is_served().then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    assert!(controller.is_served());
}

fn fill(controller: &Controller, path: &str) {
    let script = format!("! dd if=/dev/zero of={path}/fill bs=4k 2>&1; ! echo more >{path}/more; rm -f {path}/more");
    let said = controller.node.sh(&script);
    assert!(said.contains("No space left on device"), "{said}");
}
