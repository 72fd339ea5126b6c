//! A machine that finds all it needs on its disk: it boots, nobody types anything, and there is a cluster.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::command::run;
use crate::support::hoist;
use crate::support::node::{Node, disk};

#[test]
fn first_boot() {
    let node = Node::off("first-boot");
    let cluster = Cluster::render(&node);
    install(&node, &cluster);

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

    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "configmap", "-n", "default", "written-before"]).ok();
    let before = identities(&cluster);
    node.power_cut();
    node.boot();
    until_up(&node);
    assert_serves_itself(&node, &cluster);
    kubectl.get(&["configmap", "-n", "default", "written-before"]);
    assert_eq!(identities(&cluster), before, "nothing of the cluster was made anew, and no manifest applied again");
}

/// As an image has them that is made for this machine; the kubelet's package has no unit.
fn install(node: &Node, cluster: &Cluster) {
    let disk = disk(node);
    let units = disk.join("private/etc-systemd-system");
    fs::create_dir_all(disk.join("etc/hoist")).unwrap();
    run(
        std::process::Command::new("cp").arg("-a").arg(&cluster.assets).arg(disk.join("etc/hoist/assets")),
        START_LIMIT,
    )
    .ok();
    fs::set_permissions(disk.join("etc/hoist/assets"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(hoist(), disk.join("usr/local/bin/hoist")).unwrap();
    fs::copy(cluster.assets.join("systemd/hoist.service"), units.join("hoist.service")).unwrap();
    // What `systemctl enable` makes.
    let wants = units.join("multi-user.target.wants/hoist.service");
    symlink(Path::new("/etc/systemd/system/hoist.service"), wants).unwrap();
    fs::remove_file(disk.join("usr/lib/systemd/system/kubelet.service")).unwrap();
    fs::remove_dir_all(disk.join("usr/lib/systemd/system/kubelet.service.d")).unwrap();
}

/// Waits until the unit has done its work, at its first attempt; returns each status that it showed meanwhile.
fn until_up(node: &Node) -> BTreeSet<String> {
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
