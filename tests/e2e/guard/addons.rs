//! A start that waits for an add-on which never gets ready keeps nobody from the node: a bad edit meanwhile leaves the API
//! served. Nor does another user who holds a lock that an older hoist has left.

use std::fs;
use std::time::Duration;

use super::{Controller, SOON};
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::controller::NO_IMAGE;
use crate::support::eventually;
use crate::support::node::Node;

const SLOW: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: slow, namespace: default}
spec:
  selector: {matchLabels: {app: slow}}
  template:
    metadata: {labels: {app: slow}}
    spec: {containers: [{name: app, image: registry.k8s.io/no-such-image:v1}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: after, namespace: default, annotations: {hoist/rank: \"3500\"}}
";
/// As `kubectl get -o yaml` writes it, of another cluster.
const EXPORTED: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: exported
  namespace: default
  uid: 0e5c1d36-1111-4222-8333-444455556666
";
const LOCKS: &str = "/run/hoist.lock /var/lib/hoist/lock";

#[test]
fn guard_addons() {
    let node = Node::up("guard-addons");
    let cluster = Cluster::render(&node);
    let addons = cluster.assets.join("addons");
    fs::create_dir(&addons).unwrap();
    fs::write(addons.join("slow.yaml"), SLOW).unwrap();
    node.sh("echo 'pid 1, since 2020-01-01T00:00:00Z' >/run/hoist.lock; chmod 644 /run/hoist.lock");
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups flock /run/hoist.lock sleep 600";
    let holder = node.spawn(nobody.split(' '));
    eventually("somebody holds the lock", SOON, || {
        (node.exec(["flock", "--nonblock", "/run/hoist.lock", "true"]).code == Some(1)).then_some(())
    });

    let start = cluster.start(&node, &["--progress-timeout=40s"]);
    let kubectl = cluster.kubectl();
    let controller = Controller { node, cluster, kubectl };
    eventually("the add-on is applied", Duration::from_secs(120), || {
        (controller.kubectl.run(&["get", "deployment", "slow"]).code == Some(0)).then_some(())
    });
    controller.has_guard();
    assert_eq!(controller.node.sh(&format!("stat -c %a {LOCKS}")), "600\n600\n");
    let traffic = controller.traffic();
    controller.edit_badly(|| controller.set_image(NO_IMAGE));
    controller.until_raised();
    let ended = start.wait(START_LIMIT);
    eprintln!("{ended}");
    ended.expect(6).says(&["Deployment default/slow", "the API is served"]);
    assert!(controller.is_raised() && controller.is_served(), "{:?}", controller.manifests());
    eprintln!("a bad edit while start waits for an add-on:");
    controller.nothing_failed(traffic);

    controller.undo();
    controller.until_lowered();
    holder.kill();
    another_clusters_object_is_refused_at_once(&controller);
}

fn another_clusters_object_is_refused_at_once(controller: &Controller) {
    let addons = controller.cluster.assets.join("addons");
    fs::remove_file(addons.join("slow.yaml")).unwrap();
    fs::write(addons.join("exported.yaml"), EXPORTED).unwrap();
    controller.cluster.add_manifest("exported.yaml", &EXPORTED.replace("exported", "mine"));
    let told = controller.node.exec(controller.cluster.command("validate", &[])).expect(0);
    assert!(told.stdout.contains("manifests/exported.yaml:6:3: warning: metadata.uid"), "{told}");
    let apply = controller.node.exec(controller.cluster.command("apply", &[]));
    eprintln!("{apply}");
    assert!(apply.took < Duration::from_secs(30), "{apply}");
    let remedy = "leave metadata.uid out of the file";
    apply.expect(8).says(&["addons/exported.yaml:1:1", "manifests/exported.yaml:1:1", "uid mismatch", remedy]);
}
