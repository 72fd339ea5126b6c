//! The terminal, or the connection, that `start` runs in goes away.

use std::time::Duration;

use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::eventually;
use crate::support::node::Node;

const FIND: &str = "pgrep -xf '[^ ]*/hoist start .*'";

#[test]
fn hang_up() {
    let node = Node::up("hang-up");
    let cluster = Cluster::render(&node);

    // It stops at the next safe point, says how to go on, and the same command goes on.
    // Whatever becomes of it where the tests run.
    let default = ["env", "--default-signal=HUP"].map(str::to_owned);
    let start = node.spawn(default.into_iter().chain(cluster.start_command(&[])));
    raised(&node);
    node.sh(&format!("kill -HUP $({FIND})"));
    let start = start.wait(Duration::from_secs(30)).expect(129);
    start.says(&["interrupted", "run the same command again to continue", "to undo:"]);

    // Nohup keeps it from stopping; and nobody reads any more what it says.
    let command = cluster.start_command(&[]).join(" ");
    let script = format!("nohup {command} 2>&1 | head -n 1; exit ${{PIPESTATUS[0]}}");
    let start = node.spawn(["bash", "-c", &script]);
    eventually("hoist runs", Duration::from_secs(10), || (node.exec(["sh", "-c", FIND]).code == Some(0)).then_some(()));
    node.sh(&format!("kill -HUP $({FIND})"));
    let start = start.wait(START_LIMIT).expect(0);
    assert_eq!(start.stdout.lines().count(), 1, "the reader was gone after the first line: {start}");
    assert_serves_itself(&node, &cluster);
}

/// Waits until `start` has raised the bridge.
fn raised(node: &Node) {
    eventually("the bridge stands", Duration::from_secs(30), || {
        let manifest = "/etc/kubernetes/manifests/bridge-kube-apiserver.yaml";
        (node.exec(["test", "-e", manifest]).code == Some(0)).then_some(())
    });
}
