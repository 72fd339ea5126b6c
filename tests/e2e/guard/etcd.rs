//! etcd of the only controller is edited: it begins anew in its pod, and clients wait.

use super::{Controller, LATER};
use crate::serving::assert_serves_itself;
use crate::support::eventually;

const EDIT: &str = "cd /etc/kubernetes/manifests
sed 's/--heartbeat-interval=70/--heartbeat-interval=80/' etcd.yaml >/etc/kubernetes/etcd.yaml.new
mv /etc/kubernetes/etcd.yaml.new etcd.yaml";

#[test]
fn guard_etcd() {
    let controller = Controller::up("guard-etcd");
    let node = &controller.node;
    let pod = ["pod", "-n", "kube-system", &format!("etcd-{}", node.name)];
    let hash = || controller.kubectl.get(&pod)["metadata"]["annotations"]["kubernetes.io/config.hash"].clone();
    let (before, traffic) = (hash(), controller.traffic());
    node.sh(EDIT);
    eventually("etcd has the edited flag", LATER, || {
        node.sh("pgrep -xa etcd || true").contains("--heartbeat-interval=80").then_some(())
    });
    eventually("the API answers", LATER, || controller.is_served().then_some(()));
    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
    eventually("the API shows it", LATER, || {
        let shown = controller.kubectl.run(&[&["get"], &pod[..], &["-o", "yaml"]].concat());
        shown.stdout.contains("--heartbeat-interval=80").then_some(())
    });
    assert_eq!(hash(), before, "it is another pod");

    // At a boot nothing of it runs, and its manifest is as any other.
    node.power_cut();
    node.boot();
    controller.until_lowered();
    assert!(node.sh("pgrep -xa etcd").contains("--heartbeat-interval=80"));
    assert_ne!(hash(), before);
    assert_serves_itself(node, &controller.cluster);
}
