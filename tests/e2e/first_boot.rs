//! A machine that finds all it needs at its first boot: nobody types anything, and there is a cluster.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::first_boot::{bare, ignite, seed};
use crate::support::hoist;
use crate::support::node::{Node, disk};

const BINARY: &str = "/usr/local/bin/hoist";
const MINE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine, namespace: default}\n";

/// By Ignition; and the next boot, after a power cut.
#[test]
fn first_boot() {
    let node = Node::off("first-boot");
    let cluster = Cluster::render(&node);
    cluster.add_manifest("mine.yaml", MINE);
    ignite(&node, &cluster.first_boot(&node, "ignition", "ign"), "hoist.service");
    bare(&node);
    fs::copy(hoist(), disk(&node).join(BINARY.trim_start_matches('/'))).unwrap();

    node.boot();
    let said = until_up(&node);
    // Among much else; these two last for seconds.
    for title in ["the bridge serves the API: waiting for ", "hand over to the self-hosted controllers: waiting for "] {
        assert!(said.iter().any(|status| status.starts_with(title)), "{title}: {said:#?}");
    }
    assert_serves_itself(&node, &cluster);
    let status = node.sh("systemctl status --no-pager hoist");
    eprintln!("{status}");
    assert!(status.contains("Status: \"done in ") && status.contains("the cluster serves itself\""), "{status}");
    // On a machine that has all they name. The kubelet's is hoist's own: there was none.
    let verified = node.exec(["systemd-analyze", "verify", "--man=no", "hoist.service", "kubelet.service"]).expect(0);
    let ours = ["hoist.service", "kubelet.service"].map(|unit| format!("/etc/systemd/system/{unit}"));
    assert!(!ours.iter().any(|unit| verified.stderr.contains(unit)), "{verified}");
    node.sh("grep -q '^# How a kubelet must be run for hoist' /etc/systemd/system/kubelet.service");

    only_root_reads(&node);

    let kubectl = cluster.kubectl();
    kubectl.get(&["configmap", "-n", "default", "mine"]);
    kubectl.run(&["create", "configmap", "-n", "default", "written-before"]).ok();
    let before = identities(&cluster);
    node.power_cut();
    node.boot();
    until_up(&node);
    assert_serves_itself(&node, &cluster);
    kubectl.get(&["configmap", "-n", "default", "written-before"]);
    assert_eq!(identities(&cluster), before, "nothing of the cluster was made anew, and no manifest applied again");
}

/// The same by cloud-init, which runs while systemd is already at work.
#[test]
fn first_boot_cloud_init() {
    let node = Node::off("cloud-init");
    let cluster = Cluster::render(&node);
    cluster.add_manifest("mine.yaml", MINE);
    // The binary comes by another part. From the repository, which the node has, where the documentation says `curl`.
    let fetch =
        format!("#!/bin/sh\ntest -x {BINARY} && exit 0\ncp {} {BINARY} && chmod 755 {BINARY}\n", hoist().display());
    seed(&node, &cluster.first_boot(&node, "cloud-init", "cloud-init.yaml"), Some(&fetch));
    bare(&node);

    node.boot();
    until_up(&node);
    assert_serves_itself(&node, &cluster);
    cluster.kubectl().get(&["configmap", "-n", "default", "mine"]);
    assert_eq!(node.sh("systemctl is-enabled hoist").trim(), "enabled");
    only_root_reads(&node);
    // Nor what cloud-init keeps of its user data.
    let kept = node.sh("grep -rl 'PRIVATE KEY' /var/lib/cloud /run/cloud-init /var/log | xargs stat -c %a | sort -u");
    assert_eq!(kept, "600\n");
}

/// Nobody else, not even into the folder.
fn only_root_reads(node: &Node) {
    assert_eq!(node.sh("stat -c %a,%U /etc/hoist/assets").trim(), "700,root");
    assert_eq!(node.sh("find /etc/hoist/assets -type f -perm /077"), "");
}

/// Waits until the unit has done its work, at its first attempt; returns each status that it showed meanwhile.
pub fn until_up(node: &Node) -> BTreeSet<String> {
    let begun = Instant::now();
    let mut said = BTreeSet::new();
    loop {
        let show = "systemctl show hoist --property=ActiveState,SubState,NRestarts,StatusText,Result";
        let shown = node.sh(show);
        let value =
            |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
        said.insert(value("StatusText").to_owned());
        assert_eq!((value("NRestarts"), value("Result")), ("0", "success"), "{shown}");
        if (value("ActiveState"), value("SubState")) == ("active", "exited") {
            eprintln!("up {:.1?} after the node: {said:#?}", begun.elapsed());
            return said;
        }
        assert!(begun.elapsed() < START_LIMIT, "{shown}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Which objects of the control plane there are, and which version of each somebody has asked for.
fn identities(cluster: &Cluster) -> BTreeSet<String> {
    let objects = cluster.kubectl().list(&["-n", "kube-system", "daemonsets,deployments,secrets,serviceaccounts"]);
    let name = |object: &serde_json::Value| {
        let metadata = &object["metadata"];
        format!("{} {} {} {}", object["kind"], metadata["name"], metadata["uid"], metadata["generation"])
    };
    objects.iter().map(name).collect()
}
