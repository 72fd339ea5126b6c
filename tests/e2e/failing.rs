//! The pivot that cannot succeed: the bridge stays and the API is served throughout, `start` ends by its limit and says
//! why and what to do, and once the user has done that, `start` goes on to the end.

use std::path::PathBuf;
use std::time::Duration;

use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT, declaration, render};
use crate::support::command::{Ended, run};
use crate::support::hoist;
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::traffic::Traffic;

/// In the API server's manifest, and nowhere else.
const GOOD_FLAG: &str = "--shutdown-send-retry-after=true";
const BAD_FLAG: &str = "--no-such-flag=true";
/// Longer than anything takes on the way that is no progress, and short for a test.
const PROGRESS_TIMEOUT: &str = "--progress-timeout=15s";

/// It crashes over and over. Mended with kubectl.
#[test]
fn failing_api_server() {
    fails_until_mended(
        "failing",
        |cluster| edit(&daemon_set(cluster), GOOD_FLAG, BAD_FLAG),
        &[
            "container kube-apiserver: ",
            "restarted ",
            "ended with exit code 1",
            // As it wrote it, and what is made of it.
            "Error: unknown flag: --no-such-flag\n",
            "BackOff: Back-off restarting failed container",
            "likely cause: kube-apiserver does not know the flag --no-such-flag",
            "edit daemonset/kube-apiserver`",
        ],
        |_, kubectl, _| {
            let mut object = kubectl.get(&["daemonset", "-n", "kube-system", "kube-apiserver"]);
            object["metadata"].as_object_mut().unwrap().remove("managedFields");
            kubectl.apply(&object.to_string().replace(BAD_FLAG, GOOD_FLAG));
        },
    );
}

/// It runs and never gets ready: etcd is of another CA than its Secret says. Mended by what the message says to type.
#[test]
fn failing_etcd_ca() {
    fails_until_mended(
        "failing-ca",
        |cluster| {
            let path = cluster.assets.join("manifests/kube-apiserver/secret.yaml");
            let text = std::fs::read_to_string(&path).unwrap();
            let value = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap().to_owned();
            edit(&path, &value("\"etcd-ca.crt\":"), &value("\"ca.crt\":"));
        },
        &[
            "container kube-apiserver: ",
            "x509: certificate signed by unknown authority",
            "likely cause: etcd's certificate is not signed by the CA that kube-apiserver trusts",
            "Unhealthy: ",
        ],
        |cluster, _, message| {
            let commands = commands(&message.stderr);
            assert_eq!(commands.len(), 3, "hoist render, kubectl apply, hoist start: {commands:#?}");
            assert_eq!(commands[2], ["hoist", "start"]);
            for command in &commands[..2] {
                let program = if command[0] == "hoist" { hoist() } else { cluster.kubectl().program };
                let mut told = std::process::Command::new(program);
                run(told.args(&command[1..]), Duration::from_secs(60)).ok();
            }
        },
    );
}

/// Its image cannot be pulled. Mended in the manifest.
#[test]
fn failing_image() {
    const BAD_IMAGE: &str = "registry.k8s.io/kube-apiserver:v9.9.9";
    let good = |cluster: &Cluster| {
        let text = std::fs::read_to_string(daemon_set(cluster)).unwrap();
        let line = text.lines().find(|line| line.trim().starts_with("image: ")).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    let image = std::cell::OnceCell::new();
    fails_until_mended(
        "failing-image",
        |cluster| edit(&daemon_set(cluster), image.get_or_init(|| good(cluster)), BAD_IMAGE),
        &[
            "container kube-apiserver: ",
            "Failed: Failed to pull image",
            // A test node reaches no registry.
            &format!("cannot reach the registry of {BAD_IMAGE}"),
            "manifests/kube-apiserver/daemonset.yaml",
        ],
        |cluster, _, _| edit(&daemon_set(cluster), BAD_IMAGE, image.get().unwrap()),
    );
}

/// No node matches, and a DaemonSet that matches none has no pod that could say so. Mended on the Node.
#[test]
fn failing_node_selector() {
    const LABEL: &str = "node-role.kubernetes.io/control-plane: \"\"\n";
    fails_until_mended(
        "failing-pending",
        |cluster| edit(&daemon_set(cluster), LABEL, &format!("{LABEL}        disk: ssd\n")),
        &[
            "kube-system/kube-apiserver has no pod yet",
            "the DaemonSet wants no pod, for no node fits: its nodeSelector asks for the label disk=ssd, which e2e-failing-pending has not",
            "likely cause: no node fits daemonset/kube-apiserver",
            "edit node e2e-failing-pending`",
        ],
        |_, kubectl, _| drop(kubectl.run(&["label", "node", "e2e-failing-pending", "disk=ssd"]).ok()),
    );
}

fn fails_until_mended(name: &str, spoil: impl Fn(&Cluster), says: &[&str], mend: impl Fn(&Cluster, &Kubectl, &Ended)) {
    let node = Node::up(name);
    let cluster = Cluster::render(&node);
    spoil(&cluster);
    let traffic = Traffic::begin(cluster.client());

    // What is wrong with it is not to be found beforehand: this is about what a cluster makes of it.
    let start = cluster.started(&node, &[PROGRESS_TIMEOUT, "--validate=false"]).expect(6);
    eprintln!("{start}");
    start.says(&[
        "timed out waiting for the self-hosted API server: ",
        "kube-system/kube-apiserver",
        "the API is served",
    ]);
    start.says(&["next: ", "then run `hoist start` again"]);
    start.says(says);
    // Whoever waits is told before it is over.
    assert!(start.stdout.contains("likely cause: "), "no hint while it waited: {start}");
    node.sh("ls /etc/kubernetes/manifests/bridge-kube-apiserver.yaml /etc/kubernetes/bridge/kube-apiserver/ca.crt");

    let status = node.exec(cluster.command("status", &[])).expect(1);
    for text in ["API: served by the bridge", "  - the bridge is ", "kube-apiserver", "127.0.0.1:6443 is not"] {
        assert!(status.stdout.contains(text), "{text}: {status}");
    }

    mend(&cluster, &cluster.kubectl(), &start);
    let start = cluster.start(&node, &["--progress-timeout=60s", "--validate=false"]).wait(START_LIMIT);
    let record = traffic.end().unwrap_or_else(|| panic!("the API was never ready: {start}"));
    eprintln!("{start}\n{record}");
    start.expect(0);
    assert_eq!(record.failures().count(), 0, "requests failed: {record}");
    assert_serves_itself(&node, &cluster);
}

/// The moment the bridge is lowered, the self-hosted API server goes for good: it is brought back by the bridge, which
/// has kept all it needs.
#[test]
fn failing_at_the_pivot() {
    let node = Node::up("failing-pivot");
    let cluster = Cluster::render(&node);
    let kubectl = cluster.kubectl();
    // In the node, so that it is quick: `start` would be done two seconds later.
    let script = format!(
        r#"manifest=/etc/kubernetes/manifests/bridge-kube-apiserver.yaml
        until [ -e $manifest ]; do sleep 0.1; done
        while [ -e $manifest ]; do sleep 0.02; done
        kubectl --kubeconfig {} -n kube-system delete daemonsets,pods -l component=kube-apiserver --force --grace-period=0 --wait=false
        for dir in /proc/[0-9]*; do
            [ "$(tr '\0' '\n' <$dir/cmdline | head -n 1)" != kube-apiserver ] || tr '\0' '\n' <$dir/environ | grep -q ^HOIST_BRIDGE= || kill -9 ${{dir#/proc/}}
        done 2>/dev/null"#,
        cluster.assets.join("auth/kubeconfig").display(),
    );
    let killer = node.spawn(["sh", "-uc", &script]);
    let start = cluster.started(&node, &[]).expect(6);
    let killer = killer.wait(Duration::from_secs(5));
    eprintln!("{start}\n{killer}");
    start.says(&[
        "the self-hosted control plane to prove itself in time",
        "the bridge is raised again",
        "kube-system/kube-apiserver is not in the cluster",
        // The kubelet has deleted its log with it.
        ", which is gone:",
        "the API is served",
        "hoist start` again",
    ]);

    kubectl.run(&["get", "nodes"]).ok();
    let listeners = node.sh("ss -ltnpH 'sport = :6443'");
    assert!(listeners.contains("\"hoist\""), "the bridge's forwarder does not listen: {listeners}");
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        kubectl.get(&["secret", "-n", "kube-system", component]);
        node.sh(&format!("ls /etc/kubernetes/bridge/{component}/ca.crt"));
    }

    let start = cluster.started(&node, &[]).expect(0);
    eprintln!("{start}");
    assert_serves_itself(&node, &cluster);
}

/// A flag that neither API server takes: nothing serves, and nobody can be asked but this host. Mended in cluster.yaml.
#[test]
fn failing_bridge() {
    let node = Node::up("failing-bridge");
    let cluster = Cluster::render(&node);
    let good = declaration(&node, node.address);
    let bad = format!("{good}apiServer:\n  extraArgs:\n  - {{name: tls-sni-cert-key, value: soon}}\n");
    render(&bad, &cluster.assets).ok();
    let start = cluster.started(&node, &[PROGRESS_TIMEOUT]).expect(7);
    eprintln!("{start}");
    start.says(&[
        "timed out waiting for the bridge's API server",
        "the static pod bridge-kube-apiserver on e2e-failing-bridge",
        "Error: invalid argument \"soon\" for \"--tls-sni-cert-key\" flag",
        "likely cause: \"soon\" is not a value that kube-apiserver takes for the flag --tls-sni-cert-key",
        "the API is NOT served",
        "cluster.yaml, then `hoist render ",
        "then run `hoist start` again",
    ]);
    render(&good, &cluster.assets).ok();
    let start = cluster.started(&node, &[]).expect(0);
    eprintln!("{start}");
    assert_serves_itself(&node, &cluster);
}

fn daemon_set(cluster: &Cluster) -> PathBuf {
    cluster.assets.join("manifests/kube-apiserver/daemonset.yaml")
}

#[track_caller]
fn edit(path: &PathBuf, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from:?}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// What stands between backquotes behind "next:", word by word.
fn commands(message: &str) -> Vec<Vec<&str>> {
    let next = message.split_once("\n  next: ").unwrap().1;
    next.split('`').skip(1).step_by(2).map(|command| command.split_whitespace().collect()).collect()
}
