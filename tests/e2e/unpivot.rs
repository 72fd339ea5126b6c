//! The way back to static pods, and from there to a self-hosted control plane, with clients that never stop asking.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::serving::{assert_is_static, assert_serves_itself};
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::command::Ended;
use crate::support::eventually;
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::traffic::Traffic;

/// How long the clients go on after the command has said that all is well.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// How long the API may be away after a boot.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// A flag that somebody has given the scheduler.
const FLAG: &str = "--kube-api-qps=61";

#[test]
fn unpivot() {
    let node = Node::up("unpivot");
    let cluster = Cluster::render(&node);
    let kubectl = cluster.kubectl();
    cluster.started(&node, &[]).expect(0);
    let image = edit(&node, &kubectl);
    starts_at_boot(&node, &cluster);

    let ended = under_traffic(&cluster, &kubectl, || node.spawn(cluster.command("unpivot", &[])).wait(START_LIMIT));
    assert!(ended.stdout.contains("hoist.service is disabled"), "{ended}");
    assert_is_static(&node, &cluster);
    the_edit_is_kept(&node, &kubectl, &image);
    let status = node.exec(cluster.command("status", &[])).expect(0);
    assert!(status.stdout.contains("the control plane is static pods"), "{status}");

    node.power_cut();
    node.boot();
    eventually("the kubelet alone brings the API back", BOOT_LIMIT, || {
        (kubectl.run(&["get", "--raw", "/readyz"]).code == Some(0)).then_some(())
    });
    let again = node.exec(cluster.command("unpivot", &[])).expect(0);
    eprintln!("unpivot of static pods took {:.1?}", again.took);
    assert_is_static(&node, &cluster);
    the_edit_is_kept(&node, &kubectl, &image);

    under_traffic(&cluster, &kubectl, || cluster.started(&node, &[]));
    assert_serves_itself(&node, &cluster);
    assert_eq!(node.exec(["test", "-e", "/etc/kubernetes/static-pods"]).code, Some(1));
    node.sh("systemctl enable hoist");
    without_power_in_between(&node, &cluster, &kubectl);
}

/// The power is cut while it deletes, and again while it puts the static pods in: each time something serves after the boot,
/// nothing pivots again, and the next run goes on.
fn without_power_in_between(node: &Node, cluster: &Cluster, kubectl: &Kubectl) {
    for step in ["delete", "install"] {
        let run = node.spawn(cluster.command("unpivot", &[]));
        eventually("unpivot comes to the step", START_LIMIT, || {
            run.said().contains(&format!("] {step}: ")).then_some(())
        });
        node.power_cut();
        let said = run.kill().stdout;
        eprintln!("{said}");
        assert!(step != "delete" || said.contains("hoist.service is disabled"), "{said}");
        node.boot();
        eventually("something serves after the boot", BOOT_LIMIT, || {
            (kubectl.run(&["get", "--raw", "/readyz"]).code == Some(0)).then_some(())
        });
        assert_eq!(node.sh("systemctl is-enabled hoist || true").trim(), "disabled");
        assert_eq!(node.sh("systemctl is-active hoist || true").trim(), "inactive");
    }
    node.exec(cluster.command("unpivot", &[])).expect(0);
    assert_is_static(node, cluster);
}

/// Gives the scheduler another image and a flag, and returns the image.
fn edit(node: &Node, kubectl: &Kubectl) -> String {
    let image = format!("registry.k8s.io/kube-scheduler:v{}-1", node.kubernetes);
    let container = "/spec/template/spec/containers/0";
    let patch = format!(
        r#"[{{"op": "add", "path": "{container}/command/-", "value": "{FLAG}"}},
            {{"op": "replace", "path": "{container}/image", "value": "{image}"}}]"#
    );
    kubectl.run(&["patch", "-n", "kube-system", "deployment/kube-scheduler", "--type=json", "-p", &patch]).ok();
    kubectl.run(&["rollout", "status", "-n", "kube-system", "--timeout=90s", "deployment/kube-scheduler"]).ok();
    image
}

/// Lets systemd run `hoist start` at each boot.
fn starts_at_boot(node: &Node, cluster: &Cluster) {
    let start = cluster.start_command(&[]).join(" ");
    let unit = format!(
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={start}\n[Install]\nWantedBy=multi-user.target\n"
    );
    node.sh(&format!(
        "printf '{unit}' >/etc/systemd/system/hoist.service; systemctl daemon-reload; systemctl enable hoist"
    ));
}

/// Runs a command to its end, with success, while clients ask: none of them may notice, and nothing may be lost.
#[track_caller]
fn under_traffic(cluster: &Cluster, kubectl: &Kubectl, command: impl FnOnce() -> Ended) -> Ended {
    kubectl.run(&["delete", "configmaps", "-n", "default", "--all"]).ok();
    let traffic = Traffic::begin(cluster.client());
    // What it sees before is seen, too.
    std::thread::sleep(Duration::from_secs(1));
    let ended = command();
    std::thread::sleep(AFTERWARDS);
    let record = traffic.end().unwrap();
    eprintln!("{ended}\n{record}");
    let ended = ended.expect(0);
    assert_eq!(record.failures().count(), 0, "requests failed: {record}");
    assert!(record.exchanges.len() > 100, "too few requests to show anything: {record}");
    let there = kubectl.list(&["configmaps", "-n", "default"]);
    let there: BTreeSet<_> = there.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
    let missing: Vec<_> = record.acknowledged().into_iter().filter(|name| !there.contains(name)).collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    ended
}

fn the_edit_is_kept(node: &Node, kubectl: &Kubectl, image: &str) {
    let pod = kubectl.get(&["pod", "-n", "kube-system", &format!("kube-scheduler-{}", node.name)]);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], image);
    assert!(container["command"].as_array().unwrap().contains(&FLAG.into()), "{container}");
    let command = node.sh("tr '\\0' ' ' </proc/$(pgrep -f '^kube-scheduler')/cmdline");
    assert!(command.contains(FLAG), "{command}");
}
