//! Machines that are not ready: `start` says what is wrong and what to do, and has changed nothing.

use std::net::IpAddr;
use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::command::Ended;
use crate::support::eventually;
use crate::support::hoist;
use crate::support::node::Node;

#[test]
fn bad_machine() {
    let node = Node::up("bad");
    let cluster = Cluster::render(&node);
    preflight_finds_nothing(&node, &cluster);
    a_port_is_held(&node, &cluster);
    the_runtime_is_away(&node, &cluster);
    the_cgroup_drivers_differ(&node, &Cluster::render(&node));
    a_foreign_manifest_stands_there(&node, &cluster);
    the_address_is_not_of_this_machine(&node);
    the_user_is_not_root(&node, &Cluster::render(&node));
    there_is_no_kubelet(&node, &cluster);
}

/// An administrator has said that it must not run.
#[test]
fn bad_machine_masked_kubelet() {
    let node = Node::up("bad-masked");
    let cluster = Cluster::render(&node);
    node.sh("systemctl mask kubelet");
    let start = refused(&node, cluster.start_command(&["--timeout=10s"])).expect(4);
    start.says(&["kubelet", "masked", "systemctl unmask kubelet", "nothing was changed"]);
}

/// It ends whenever it is started, as with a flag that it does not know. That shows only after a while, and what was
/// installed meanwhile is taken back.
#[test]
fn bad_machine_failing_kubelet() {
    let node = Node::up("bad-failing");
    let cluster = Cluster::render(&node);
    let version = &node.kubernetes;
    node.sh(&format!(
        "rm /usr/local/bin/kubelet
        cat >/usr/local/bin/kubelet <<'END'
#!/bin/sh
[ \"$1\" = --version ] && echo Kubernetes v{version}
END
        chmod 755 /usr/local/bin/kubelet"
    ));
    let start = undone(&node, cluster.start_command(&["--timeout=10s"]));
    // Nobody serves the API.
    start.expect(7).says(&["no kubelet answers", "journalctl -u kubelet", "the API is NOT served"]);
}

/// Where `start` writes.
const FOLDERS: &str = "/etc/kubernetes /etc/systemd/system /var/lib/kubelet /var/lib/etcd /var/lib/hoist";

/// Runs `start`, or another command in its place, and asserts that it has touched nothing.
fn refused(node: &Node, command: Vec<String>) -> Ended {
    unchanged(node, command, "-printf '%p %M %s %T@\\n'")
}

/// The same of one that puts things back as they were: by that, the time of a folder changes.
fn undone(node: &Node, command: Vec<String>) -> Ended {
    unchanged(node, command, "-type d -printf '%p %M\\n' -o -printf '%p %M %s %T@\\n'")
}

fn unchanged(node: &Node, command: Vec<String>, shown: &str) -> Ended {
    let files = &format!("find {FOLDERS} {shown} | sort");
    let (before, began) = (node.sh(files), kubelet(node));
    let start = node.exec(command);
    eprintln!("{start}");
    let (after, ended) = (node.sh(files), kubelet(node));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (before, after) = (lines(&before), lines(&after));
    let changed: Vec<_> = before.symmetric_difference(&after).take(20).collect();
    assert!(changed.is_empty(), "changed (the first 20): {changed:#?} by {start}");
    assert_eq!(began, ended, "the kubelet was touched by {start}");
    start
}

fn kubelet(node: &Node) -> String {
    node.sh("systemctl show kubelet --property=ActiveState,UnitFileState,MainPID")
}

/// `hoist preflight`.
fn preflight_of(cluster: &Cluster, args: &[&str]) -> Vec<String> {
    cluster.command("preflight", args)
}

/// The whole truth about a good machine.
fn preflight_finds_nothing(node: &Node, cluster: &Cluster) {
    let preflight = refused(node, preflight_of(cluster, &["--output=json"])).expect(0);
    let report: serde_json::Value = serde_json::from_str(&preflight.stdout).unwrap();
    assert_eq!((&report["schema"], &report["ready"]), (&"hoist.preflight/v1".into(), &true.into()));
    // Those by which the others would be worth nothing.
    for name in ["CRI", "CgroupDriver", "KubeletVersion", "Service-Kubelet", "Hostname", "Clock"] {
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["outcome"], "ok", "{check:#}");
    }
}

fn the_runtime_is_away(node: &Node, cluster: &Cluster) {
    node.sh("systemctl stop containerd");
    let start = refused(node, cluster.start_command(&[])).expect(4);
    start.says(&[
        "CRI: unix:///run/containerd/containerd.sock: no container runtime",
        "systemctl",
        "nothing was changed",
    ]);
    node.sh("systemctl start containerd");
    refused(node, preflight_of(cluster, &[])).expect(0);
}

fn the_cgroup_drivers_differ(node: &Node, cluster: &Cluster) {
    let path = cluster.assets.join("kubelet/config.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("cgroupDriver: cgroupfs"), "{text}");
    std::fs::write(&path, text.replace("cgroupDriver: cgroupfs", "cgroupDriver: systemd")).unwrap();
    let start = refused(node, cluster.start_command(&[])).expect(4);
    start.says(&["CgroupDriver: the kubelet's cgroup driver is systemd, and that of containerd 1.", "is cgroupfs"]);
    std::fs::write(&path, text).unwrap();
}

fn a_port_is_held(node: &Node, cluster: &Cluster) {
    let holder = node.spawn(["busybox", "nc", "-l", "-p", "6443"]);
    let pid = eventually("the port is held", Duration::from_secs(10), || {
        let listener = node.sh("ss -ltnpH 'sport = :6443'");
        listener.split_once("pid=").map(|(_, rest)| rest.split(',').next().unwrap().to_owned())
    });
    let start = refused(node, cluster.start_command(&[])).expect(4);
    start.says(&["port 6443", "busybox", &format!("pid {pid}"), "nothing was changed"]);
    let preflight = refused(node, preflight_of(cluster, &[])).expect(4);
    assert!(preflight.stdout.contains("error    Port-6443"), "{preflight}");
    let skipping = refused(node, preflight_of(cluster, &["--skip-preflight=Port-6443"])).expect(0);
    assert!(skipping.stdout.contains("skipped  Port-6443"), "{skipping}");
    let ignoring = refused(node, preflight_of(cluster, &["--ignore-preflight-errors=all"])).expect(0);
    assert!(ignoring.stdout.contains("warning: port 6443 is held by busybox"), "{ignoring}");
    holder.kill();
    eventually("the port is free", Duration::from_secs(10), || {
        node.sh("ss -ltnH 'sport = :6443'").is_empty().then_some(())
    });
}

fn a_foreign_manifest_stands_there(node: &Node, cluster: &Cluster) {
    let path = "/etc/kubernetes/manifests/kube-apiserver.yaml";
    node.sh(&format!(
        "mkdir -p /etc/kubernetes/manifests
        cat >{path} <<END
apiVersion: v1
kind: Pod
metadata: {{name: kube-apiserver, namespace: kube-system}}
spec: {{containers: [{{name: kube-apiserver, image: example.com/kube-apiserver, command: [kube-apiserver]}}]}}
END"
    ));
    refused(node, cluster.start_command(&[])).expect(4).says(&[path, "kube-apiserver", "nothing was changed"]);
    node.sh(&format!("rm {path}"));
}

fn the_address_is_not_of_this_machine(node: &Node) {
    // Of the node's own network, and given to no node: the highest is given last.
    let IpAddr::V4(own) = node.address else { panic!("{}", node.address) };
    let [a, b, c, _] = own.octets();
    let cluster = Cluster::render_at(node, IpAddr::from([a, b, c, 254]));
    let start = refused(node, cluster.start_command(&[])).expect(4);
    start.says(&["no interface of this machine", &cluster.address.to_string(), "nothing was changed"]);
}

fn the_user_is_not_root(node: &Node, cluster: &Cluster) {
    // A copy that everybody can read, so that nothing but the user is wrong.
    let (assets, binary) = (cluster.assets.display(), hoist());
    node.sh(&format!(
        "mkdir /opt/nobody; cp -r {assets} /opt/nobody/assets; cp {} /opt/nobody/hoist; chmod -R a+rX /opt/nobody",
        binary.display()
    ));
    let command =
        "setpriv --reuid=65534 --regid=65534 --clear-groups /opt/nobody/hoist start --asset-dir /opt/nobody/assets";
    let start = refused(node, command.split(' ').map(str::to_owned).collect()).expect(4);
    start.says(&["root", "sudo", "nothing was changed"]);
}

fn there_is_no_kubelet(node: &Node, cluster: &Cluster) {
    node.sh("rm -r /usr/local/bin/kubelet /lib/systemd/system/kubelet.service*; systemctl daemon-reload");
    let start = refused(node, cluster.start_command(&["--timeout=10s"])).expect(4);
    start.says(&["kubelet", "install"]);
}
