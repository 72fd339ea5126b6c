//! The .deb of scripts/package on a machine that has dpkg, from its installation to its purge, and hoist's own image.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::first_boot::until_up;
use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::command::run;
use crate::support::controller::Controller;
use crate::support::node::Node;
use crate::support::{hoist, repository};

/// How long scripts/package may take, its tools included where they are not there yet.
const PACKAGE_LIMIT: Duration = Duration::from_secs(600);
/// How a machine's dpkg begins: with no package at all.
const DPKG: &str = "cd /var/lib/dpkg && mkdir info updates triggers parts alternatives && touch status available";
/// What of the package, and of what came with it, is anywhere on a node: the asset directory is the administrator's.
const LEFT: &str = "find /usr /etc /var/lib/dpkg /var/lib/systemd -xdev -iname '*hoist*' ! -path '/etc/hoist*'; find /etc/systemd/system -name 'hoist*'";
const KEPT: &str = "/etc/hoist/assets/tls/ca.key";

/// The .deb of the binary under test.
fn deb() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
    let mut command = Command::new(repository().join("scripts/package"));
    command.arg("--binary").arg(hoist()).arg("--output-dir").arg(&dir).arg("deb");
    let made = run(&mut command, PACKAGE_LIMIT).ok();
    let deb = made.lines().find(|line| line.ends_with(".deb")).unwrap_or_else(|| panic!("no .deb: {made}"));
    deb.into()
}

#[test]
fn package() {
    let deb = deb().display().to_string();
    let node = Node::up("package");
    node.sh(DPKG);
    let clean = node.sh(LEFT);
    let install = || eprintln!("{}", node.exec(["dpkg", "--install", &deb]).ok());
    let show = |property: &str| node.sh(&format!("systemctl show hoist --value --property={property}")).trim().to_owned();
    install();
    let says = |words: &str, text: &str| assert!(node.sh(words).contains(text), "{words} does not say {text}");
    says("hoist version", "hoist ");
    says("man -l /usr/share/man/man1/hoist-start.1.gz 2>/dev/null || zcat /usr/share/man/man1/hoist-start.1.gz", "asset");
    says("bash -c '. /usr/share/bash-completion/completions/hoist && complete -p hoist'", "_hoist");
    node.sh("hoist config default | cmp - /usr/share/doc/hoist/examples/cluster.yaml");
    assert_eq!(node.sh("dpkg --verify hoist"), "");
    assert_eq!(node.sh("stat -c %a,%U /etc/hoist").trim(), "700,root");

    // Neither enabled nor started; and started by hand, it waits for an asset directory.
    assert_eq!((show("UnitFileState"), show("ActiveState")), ("disabled".into(), "inactive".into()));
    node.sh("systemctl start hoist");
    assert_eq!((show("ConditionResult"), show("ActiveState")), ("no".into(), "inactive".into()));
    let verified = node.exec(["systemd-analyze", "verify", "--man=no", "hoist.service"]).expect(0);
    assert!(!verified.stderr.contains("hoist.service"), "{verified}");

    let cluster = Cluster::render(&node);
    node.sh(&format!("cp -rp {} /etc/hoist/assets", cluster.assets.display()));
    node.sh("systemctl enable hoist; systemctl start --no-block hoist");
    until_up(&node);
    assert_serves_itself(&node, &cluster);

    let controller = Controller { kubectl: cluster.kubectl(), cluster, node };
    let node = &controller.node;
    controller.has_guard();
    let run_of = || (show("InvocationID"), show("UnitFileState"), node.sh("pgrep -f '^/hoist guard'"));
    let before = run_of();
    let traffic = controller.traffic();
    eprintln!("{}", node.exec(["dpkg", "--install", &deb]).ok());
    assert_eq!(run_of(), before, "an upgrade restarts nothing");
    assert_eq!(before.1, "enabled");
    node.exec(["hoist", "start"]).expect(0);

    let files = node.sh("dpkg -L hoist");
    let said = node.exec(["dpkg", "--purge", "hoist"]).ok();
    eprintln!("{said}");
    assert!(said.contains("/var/lib/hoist/bin/hoist reset"), "{said}");
    for file in files.lines().filter(|file| file.contains("hoist") && *file != "/etc/hoist") {
        assert_eq!(node.exec(["test", "-e", file]).code, Some(1), "{file} is there");
    }
    assert_eq!(node.sh(LEFT), clean);
    node.sh("systemctl list-units --all --plain --no-legend 'hoist*' | cmp - /dev/null");
    node.sh(&format!("test -s {KEPT}"));
    std::thread::sleep(Duration::from_secs(3));
    let record = traffic.end().unwrap();
    eprintln!("over an upgrade and a purge: {record}");
    assert_eq!(record.failures().count(), 0, "{record}");
    assert_serves_itself(node, &controller.cluster);

    // As the purge has said; and what is installed again does not bring back at a boot what was taken off.
    eprintln!("{}", node.exec(["dpkg", "--install", &deb]).ok());
    node.sh("systemctl enable hoist");
    node.spawn(["/var/lib/hoist/bin/hoist", "reset", "--force"]).wait(START_LIMIT).expect(0);
    assert_eq!(show("UnitFileState"), "disabled");
    node.sh("test -e /usr/lib/systemd/system/hoist.service");
    assert_eq!(node.sh("dpkg --verify hoist"), "");
}
