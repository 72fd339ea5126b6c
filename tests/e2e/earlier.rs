//! What an earlier hoist has made is read by this one, and what this one has made by the release before it: guard's copy, the
//! Secret, the record of what was rendered, backups.

use std::process::Command;
use std::time::Duration;

use crate::recover::{assert_kept, run_command, write};
use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, declaration};
use crate::support::command::{Ended, run};
use crate::support::controller::Controller;
use crate::support::node::Node;
use crate::support::{hoist, recover_page as page, repository};

/// The release before this one. A release names its predecessor here.
const BEFORE: &str = "6eada4754d918203291a53a923324af6a7364c61";
/// The last one that knew clusters of one controller only, and of no exchange of hoist.
const OF_ONE: &str = "d3c41da69fab27b8f615f4383ce8aaccaae46ef4";
const BUILD_LIMIT: Duration = Duration::from_secs(1200);
/// Where both are on the node; each command of a page says `hoist`, and means one of them.
const OLD: &str = "/opt/old/hoist";
const NEW: &str = "/opt/new/hoist";

#[test]
fn the_release_before_hands_over_and_takes_back() {
    let controller = made_by(BEFORE, "earlier");
    let node = &controller.node;
    let old_writes = write(&controller.cluster);
    said(node, OLD, &page::PLAIN_BACKUP.replace("plain", "old"));

    let traffic = controller.traffic();
    said(node, NEW, "hoist upgrade hoist");
    said(node, NEW, "hoist status --asset-dir /etc/hoist/assets");
    // guard's copy and the Secret are written by this one from here on.
    controller.add_flag("--event-ttl=2h");
    controller.rolled_out();
    controller.until_lowered();
    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
    outlives_a_power_cut(&controller);
    rendered_and_started_anew(&controller);
    let new_writes = write(&controller.cluster);
    said(node, NEW, &page::PLAIN_BACKUP.replace("plain", "new"));

    let traffic = controller.traffic();
    said(node, OLD, "hoist upgrade hoist");
    said(node, OLD, "hoist status --asset-dir /etc/hoist/assets");
    let record = traffic.end().unwrap();
    assert_eq!(record.failures().count(), 0, "{record}");
    outlives_a_power_cut(&controller);

    let restored =
        |backup: &str| page::RESTORE_BACKUP.replace("backup.tar", backup).replace(" --identity /root/key.txt", "");
    said(node, OLD, &restored("new.tar"));
    assert_serves_itself(node, &controller.cluster);
    assert_kept(&new_writes, &controller.kubectl);
    said(node, NEW, &restored("old.tar"));
    assert_serves_itself(node, &controller.cluster);
    assert_kept(&old_writes, &controller.kubectl);
}

#[test]
fn a_cluster_of_the_release_of_one_controller_is_taken_over() {
    let controller = made_by(OF_ONE, "of-one");
    let (node, writes) = (&controller.node, write(&controller.cluster));
    said(node, OLD, &page::PLAIN_BACKUP.replace("plain", "old"));
    let traffic = controller.traffic();
    rendered_and_started_anew(&controller);
    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
    outlives_a_power_cut(&controller);
    said(node, NEW, &restored("old.tar"));
    assert_serves_itself(node, &controller.cluster);
    assert_kept(&writes, &controller.kubectl);
}

/// A cluster that this commit's hoist has rendered and started.
fn made_by(commit: &str, name: &str) -> Controller {
    let node = Node::up(name);
    let built = run(Command::new(repository().join("scripts/earlier")).arg(commit), BUILD_LIMIT).expect(0);
    let cluster = Cluster::to_render(&node, node.address);
    let file = cluster.assets.with_extension("yaml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, declaration(&node, node.address)).unwrap();
    // A node sees cargo's folder, and not every cache.
    let old = cluster.assets.with_extension("hoist");
    std::fs::copy(built.stdout.trim(), &old).unwrap();
    let mut render = Command::new(&old);
    render.arg("render").arg("--config").arg(&file).arg("--asset-dir").arg(&cluster.assets);
    run(&mut render, Duration::from_secs(60)).expect(0);
    for (from, to) in [(old.as_path(), OLD), (&hoist(), NEW)] {
        node.sh(&format!("install -D -m 755 {} {to}", from.display()));
    }
    let (assets, file) = (cluster.assets.display(), file.display());
    node.sh(&format!("mkdir -m 700 /etc/hoist && cp -rp {assets} /etc/hoist/assets && cp {file} /etc/hoist/"));
    said(&node, OLD, "hoist start --asset-dir /etc/hoist/assets --timeout=180s");
    let controller = Controller { kubectl: cluster.kubectl(), node, cluster };
    controller.has_guard();
    controller
}

/// Runs a command of a page by one of them, and it succeeds.
#[track_caller]
fn said(node: &Node, program: &str, command: &str) -> Ended {
    let of = program.trim_end_matches("/hoist");
    run_command(node, &format!("PATH={of}:$PATH; {command}")).expect(0)
}

/// The page's command with a backup that is not encrypted.
fn restored(backup: &str) -> String {
    page::RESTORE_BACKUP.replace("backup.tar", backup).replace(" --identity /root/key.txt", "")
}

/// As the page of an older cluster says.
#[track_caller]
fn rendered_and_started_anew(controller: &Controller) {
    let Controller { node, cluster, .. } = controller;
    let yaml = format!("/etc/hoist/{}", cluster.assets.with_extension("yaml").file_name().unwrap().display());
    said(node, NEW, &format!("hoist render --config {yaml} --asset-dir /etc/hoist/assets"));
    said(node, NEW, "hoist start --asset-dir /etc/hoist/assets --timeout=180s");
    assert_serves_itself(node, cluster);
}

#[track_caller]
fn outlives_a_power_cut(controller: &Controller) {
    controller.node.power_cut();
    controller.node.boot();
    controller.until_lowered();
    assert_serves_itself(&controller.node, &controller.cluster);
}
