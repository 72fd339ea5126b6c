//! The .deb of scripts/package on a machine that has dpkg, from its installation to its purge, and hoist's own image.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::first_boot::until_up;
use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT, declaration, render};
use crate::support::command::run;
use crate::support::controller::{Controller, METRICS, SOON, page};
use crate::support::node::Node;
use crate::support::{eventually, hoist, repository, worker};

/// How long scripts/package may take, its tools included where they are not there yet.
const PACKAGE_LIMIT: Duration = Duration::from_secs(600);
/// How a machine's dpkg begins: with no package at all.
const DPKG: &str = "mkdir -p /var/lib/dpkg /var/lib/systemd && cd /var/lib/dpkg && mkdir info updates triggers parts alternatives && touch status available";
/// What of the package, and of what came with it, is anywhere on a node: the asset directory is the administrator's.
const LEFT: &str = "find /usr/bin /usr/lib/systemd /usr/share /etc /var/lib/dpkg /var/lib/systemd -xdev -iname '*hoist*' ! -path '/etc/hoist*'; find /etc/systemd/system -name 'hoist*'";
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

/// Installs it, or upgrades to it.
fn install(node: &Node, deb: &str) {
    eprintln!("{}", node.exec(["dpkg", "--install", deb]).ok());
}

/// What systemd says of hoist.service.
fn unit(node: &Node, property: &str) -> String {
    node.sh(&format!("systemctl show hoist --value --property={property}")).trim().to_owned()
}

#[test]
fn package() {
    let deb = deb().display().to_string();
    let node = Node::up("package");
    let begun = Instant::now();
    let at = |what: &str| eprintln!("{what}: at {:.0?}", begun.elapsed());
    node.sh(DPKG);
    let clean = node.sh(LEFT);
    install(&node, &deb);
    is_whole(&node);
    does_nothing_without_assets(&node);

    let cluster = Cluster::render(&node);
    node.sh(&format!("cp -rp {} /etc/hoist/assets", cluster.assets.display()));
    node.sh("systemctl enable hoist; systemctl start --no-block hoist");
    at("enabled");
    until_up(&node);
    assert_serves_itself(&node, &cluster);
    at("up");

    let controller = Controller { kubectl: cluster.kubectl(), cluster, node };
    let node = &controller.node;
    controller.has_guard();
    let runs = || (unit(node, "InvocationID"), unit(node, "UnitFileState"), node.sh("pgrep -f '^/hoist guard'"));
    let before = runs();
    let traffic = controller.traffic();
    install(node, &deb);
    assert_eq!(runs(), before, "an upgrade restarts nothing");
    assert_eq!(before.1, "enabled");
    // As of a newer version: another file, which does the same.
    node.sh("cp /usr/bin/hoist /usr/bin/hoist.new; echo >>/usr/bin/hoist.new; mv /usr/bin/hoist.new /usr/bin/hoist");
    node.exec(["hoist", "start"]).expect(0);
    node.sh("cmp /usr/bin/hoist /var/lib/hoist/bin/hoist");
    node.exec(["hoist", "guard", "remove"]).expect(0);
    node.exec(["hoist", "start"]).expect(0);
    controller.has_guard();
    assert_ne!(runs().2, before.2, "guard is a new process");

    let files = node.sh("dpkg -L hoist");
    let said = node.exec(["dpkg", "--purge", "hoist"]).ok();
    eprintln!("{said}");
    assert!(said.contains("/var/lib/hoist/bin/hoist reset"), "{said}");
    for file in files.lines().filter(|file| file.contains("hoist") && *file != "/etc/hoist") {
        assert_eq!(node.exec(["test", "-e", file]).code, Some(1), "{file} is there");
    }
    assert_eq!(node.sh(LEFT), clean);
    assert_eq!(unit(node, "LoadState"), "not-found");
    node.sh(&format!("test -s {KEPT}"));
    std::thread::sleep(Duration::from_secs(3));
    let record = traffic.end().unwrap();
    eprintln!("over an upgrade and a purge: {record}");
    assert_eq!(record.failures().count(), 0, "{record}");
    at("purged");
    assert_serves_itself(node, &controller.cluster);

    // As the purge has said; and what is installed again does not bring back at a boot what was taken off.
    install(node, &deb);
    node.sh("systemctl enable hoist");
    at("installed again");
    node.spawn(["/var/lib/hoist/bin/hoist", "reset", "--force"]).wait(START_LIMIT).expect(0);
    at("reset");
    assert_eq!(unit(node, "UnitFileState"), "disabled");
    assert_eq!(node.sh("dpkg --verify hoist"), "");
}

/// What was installed is what hoist itself writes, and where shells, man and systemd look.
fn is_whole(node: &Node) {
    let says = |words: &str, text: &str| assert!(node.sh(words).contains(text), "{words} does not say {text}");
    says("hoist version", "hoist ");
    says("zcat /usr/share/man/man1/hoist-start.1.gz", "asset");
    says("bash -c '. /usr/share/bash-completion/completions/hoist && complete -p hoist'", "_hoist");
    node.sh("hoist config default | cmp - /usr/share/doc/hoist/examples/cluster.yaml");
    assert_eq!(node.sh("dpkg --verify hoist"), "");
    assert_eq!(node.sh("stat -c %a,%U /etc/hoist").trim(), "700,root");
    let verified = node.exec(["systemd-analyze", "verify", "--man=no", "hoist.service"]).expect(0);
    assert!(!verified.stderr.contains("hoist.service"), "{verified}");
}

/// Neither enabled nor started; and started by hand, it waits for an asset directory.
fn does_nothing_without_assets(node: &Node) {
    assert_eq!((unit(node, "UnitFileState"), unit(node, "ActiveState")), ("disabled".into(), "inactive".into()));
    node.sh("systemctl start hoist");
    assert_eq!((unit(node, "ConditionResult"), unit(node, "ActiveState")), ("no".into(), "inactive".into()));
}

/// As `hoist image save` names it by itself.
const IMAGE: &str = concat!("localhost/hoist:", env!("CARGO_PKG_VERSION"));
/// Who runs hoist from a file of the node's.
const MOUNTED: &str = "grep -lE '^([^ ]+ ){4}/hoist ' /proc/[0-9]*/mountinfo 2>/dev/null || true";

/// Puts hoist's image on a node: nothing but the binary is needed for it.
fn import(node: &Node) {
    let hoist = hoist().display().to_string();
    node.sh(&format!("{hoist} image save - | ctr -n k8s.io images import -"));
}

#[test]
fn package_image() {
    let node = Node::up("image");
    let binary = hoist().display().to_string();
    import(&node);
    let version = node.sh(&format!("{binary} version"));
    assert_eq!(node.sh(&format!("ctr -n k8s.io run --rm {IMAGE} version /hoist version")), version);

    let cluster = Cluster::to_render(&node, node.address);
    let text = format!("{}images: {{hoist: \"{IMAGE}\"}}\n", declaration(&node, node.address));
    render(&text, &cluster.assets).ok();
    let controller = Controller::start(node, cluster);
    let (node, kubectl) = (&controller.node, &controller.kubectl);
    assert_serves_itself(node, &controller.cluster);
    let image_of = |pod: &str, container: &str| {
        let pod = kubectl.get(&["-n", "kube-system", "pod", &format!("{pod}-{}", node.name)]);
        let containers = pod["spec"]["containers"].as_array().unwrap();
        containers.iter().find(|there| there["name"] == container).unwrap()["image"].clone()
    };
    assert_eq!(image_of("hoist-guard", "guard"), IMAGE);
    assert_eq!(image_of("hoist-endpoint", "endpoint"), IMAGE);
    assert_eq!(node.sh(MOUNTED), "");

    // The bridge of an edit, and guard, without the binary of the disk.
    node.sh("rm -r /var/lib/hoist/bin");
    let traffic = controller.traffic();
    controller.add_flag("--event-ttl=2h");
    controller.until_raised();
    eventually("the forwarder's pod is there", SOON, || {
        let name = format!("bridge-kube-apiserver-{}", node.name);
        (kubectl.run(&["-n", "kube-system", "get", "pod", &name]).code == Some(0)).then_some(())
    });
    assert_eq!(image_of("bridge-kube-apiserver", "forwarder"), IMAGE);
    controller.rolled_out();
    controller.until_lowered();
    let record = traffic.end().unwrap();
    eprintln!("over an edit, with the image: {record}");
    assert_eq!(record.failures().count(), 0, "{record}");
    controller.cluster.started(node, &[]).expect(0);
    node.sh(&format!("cmp {binary} /var/lib/hoist/bin/hoist"));
    comes_to_a_second_controller(&controller);
}

/// By the label alone: nobody has copied a file there.
fn comes_to_a_second_controller(controller: &Controller) {
    let second = Node::up("image-second");
    import(&second);
    second.sh("rm -rf /var/lib/hoist");
    worker::join(&second, &controller.cluster);
    let node = format!("node/{}", second.name);
    let kubectl = &controller.kubectl;
    eventually("the second node registers", SOON, || (kubectl.run(&["get", &node]).code == Some(0)).then_some(()));
    kubectl.run(&["label", &node, "node-role.kubernetes.io/control-plane="]).ok();
    eventually("guard is on the second node", SOON, || {
        let page = second.inside(|| page(METRICS.into(), "/metrics"));
        page.is_ok_and(|text| text.contains("\nhoist_guard_copy_whole 1\n")).then_some(())
    });
    second.sh(&format!("cmp {} /var/lib/hoist/bin/hoist", hoist().display()));
    assert_eq!(second.sh(MOUNTED), "");
}
