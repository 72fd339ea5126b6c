//! A node that joins a cluster as a worker: by TLS bootstrap, with what the asset directory has for its kubelet.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cluster::Cluster;
use super::command::run;
use super::kubectl::Kubectl;
use super::node::Node;
use super::{eventually, hoist};

/// How long a node may take from its kubelet's start until it is ready, its network included.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// How long a kubelet may take until it says what it met.
const SAID_LIMIT: Duration = Duration::from_secs(60);

/// Starts the kubelet of a node with the bootstrap token, which `start` has made good.
pub fn join(node: &Node, cluster: &Cluster) {
    join_at_boot(node, cluster);
    node.sh("systemctl start kubelet");
}

/// The same, from the next time on that the node is switched on.
pub fn join_at_boot(node: &Node, cluster: &Cluster) {
    let assets = cluster.assets.display();
    node.sh(&format!(
        "mkdir -p /etc/kubernetes/manifests /etc/kubernetes/pki
        cp {assets}/auth/kubeconfig-kubelet /etc/kubernetes/bootstrap-kubelet.conf
        cp {assets}/tls/ca.crt /etc/kubernetes/pki/ca.crt
        cp {assets}/kubelet/config.yaml /var/lib/kubelet/config.yaml
        systemctl enable kubelet"
    ));
}

/// `hoist join-assets` for a node, and its files on it, with hoist's binary.
pub fn unpack(node: &Node, cluster: &Cluster) {
    let out: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-join", node.name));
    let _ = std::fs::remove_dir_all(&out);
    let says = |args: &[&str]| {
        let mut command = Command::new(hoist());
        command.args(args).arg("--asset-dir").arg(&cluster.assets);
        run(&mut command, SAID_LIMIT).ok()
    };
    let token = says(&["token", "create"]);
    let (token, address, to) = (token.trim(), node.address.to_string(), out.display().to_string());
    says(&["join-assets", "--token", token, "--output-dir", &to, "--node", &node.name, "--node-ip", &address]);
    node.sh(&format!(
        "mkdir -p /etc/systemd/system/kubelet.service.d /var/lib/hoist/bin
        ln -sf /dev/null /etc/systemd/system/kubelet.service.d/10-kubeadm.conf
        test -e /var/lib/hoist/bin/hoist || cp {} /var/lib/hoist/bin/hoist
        tar -C {to} -c etc var | tar -x -C / --no-same-owner --no-overwrite-dir
        systemctl daemon-reload",
        hoist().display()
    ));
}

/// Makes a pod on a node that says hello in its log, and waits until it is ready.
#[track_caller]
pub fn says_hello(kubectl: &Kubectl, node: &Node, name: &str, limit: Duration) {
    kubectl.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {}
  containers:
  - {{name: a, image: 'docker.io/library/busybox:1.36', command: [sh, -c, 'echo hello; sleep infinity']}}
  terminationGracePeriodSeconds: 0
  tolerations: [{{operator: Exists}}]
",
        node.name
    ));
    let limit = format!("--timeout={}s", limit.as_secs());
    kubectl.run(&["wait", "--for=condition=Ready", &limit, &format!("pod/{name}")]).ok();
}

/// Makes a node that joins the cluster.
pub fn up(name: &str, cluster: &Cluster) -> Node {
    let node = Node::plain(name);
    join(&node, cluster);
    node
}

/// Waits until a node is ready.
#[track_caller]
pub fn is_ready(node: &Node, cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    eventually(&format!("{} is ready", node.name), READY_LIMIT, || {
        let args = ["get", "node", &node.name, "-o", r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#];
        (kubectl.run(&args).stdout == "True").then_some(())
    });
}

/// Starts the kubelet anew after a script, and waits until its journal says one of these; the line that does.
#[track_caller]
pub fn kubelet_says(node: &Node, script: &str, said: &[&str]) -> String {
    // What it said before does not count.
    node.sh(&format!("{script}\njournalctl --rotate -q; journalctl --vacuum-time=1s -q; systemctl restart kubelet"));
    eventually(&format!("the kubelet's journal says {said:?}"), SAID_LIMIT, || {
        let journal = node.sh("journalctl -u kubelet -o cat --no-pager");
        journal.lines().find(|line| said.iter().any(|said| line.contains(said))).map(str::to_owned)
    })
}

/// The network of the pod whose container runs exactly this command: nodes' processes are this machine's, too.
pub fn pod_network(command: &[&str]) -> File {
    let line: Vec<u8> = command.iter().flat_map(|word| word.bytes().chain([0])).collect();
    eventually(&format!("{command:?} runs in a pod"), READY_LIMIT, || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let runs = |entry: &std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|it| it == line);
        File::open(processes.into_iter().find(runs)?.path().join("ns/net")).ok()
    })
}
