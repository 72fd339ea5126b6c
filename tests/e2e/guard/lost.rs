//! What a fallback needs is gone at a boot: the image of the bridge, the disk of etcd's data. And etcd's quota is reached.

use std::fs;
use std::time::Duration;

use super::{Controller, LATER, SOON};
use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT, declaration, render};
use crate::support::eventually;
use crate::support::node::Node;

/// For so long a cluster that must not be begun is waited for: it took 6 s when it was.
const NEVER: Duration = Duration::from_secs(20);

#[test]
fn guard_lost() {
    let controller = Controller::up("guard-lost");
    controller.kubectl.run(&["create", "configmap", "-n", "default", "written-before"]).ok();
    the_image_of_the_bridge(&controller);
    the_disk_of_etcd(&controller);
    assert_serves_itself(&controller.node, &controller.cluster);
    a_new_beginning(&controller);
    assert_serves_itself(&controller.node, &controller.cluster);
}

/// The data is lost, and a new cluster is wanted.
fn a_new_beginning(controller: &Controller) {
    // Its manifests name the image that was removed.
    let named = format!("registry.k8s.io/kube-apiserver:v{}", controller.node.kubernetes);
    controller.node.sh(&format!("ctr -n k8s.io images tag {named}-1 {named}"));
    controller.node.power_cut();
    let data = controller.var("lib/etcd");
    fs::rename(&data, controller.var("lib/etcd.lost")).unwrap();
    fs::create_dir(&data).unwrap();
    controller.node.boot();
    eventually("the kubelet runs", SOON, || {
        (controller.node.exec(["systemctl", "is-active", "kubelet"]).code == Some(0)).then_some(())
    });
    controller.cluster.started(&controller.node, &["--new-cluster"]).expect(0);
    let gone = controller.kubectl.run(&["get", "configmap", "-n", "default", "written-before"]);
    assert_eq!(gone.code, Some(1), "{gone}");
    controller.node.sh("test -f /var/lib/etcd/member/hoist-began");
    let id = controller.kubectl.run(&["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"]).ok();
    let noted = fs::read_to_string(controller.cluster.assets.join("cluster-id")).unwrap();
    assert_eq!(noted.trim(), id.trim());
}

/// The API server was rolled to another image, and the old one was removed since.
fn the_image_of_the_bridge(controller: &Controller) {
    let old = format!("registry.k8s.io/kube-apiserver:v{}", controller.node.kubernetes);
    let new = format!("{old}-1");
    controller.node.sh(&format!("ctr -n k8s.io images tag {old} {new}"));
    controller.set_image(&new);
    controller.rolled_out();
    controller.until_lowered();
    let copy = controller.var("lib/hoist/guard/bridge.json");
    let followed = format!("\"to\":\"{new}\"");
    eventually("guard's copy follows the image", LATER, || {
        fs::read_to_string(&copy).unwrap_or_default().contains(&followed).then_some(())
    });
    controller.node.sh(&format!("ctr -n k8s.io images rm {old}"));
    controller.node.power_cut();
    controller.node.boot();
    eventually("the API is served", SOON, || controller.is_served().then_some(()));
    controller.until_lowered();
    eprintln!("{}", controller.guard_said());
}

/// The machine boots without the disk of etcd's data.
fn the_disk_of_etcd(controller: &Controller) {
    let (data, away) = (controller.var("lib/etcd"), controller.var("lib/etcd.away"));
    controller.node.power_cut();
    fs::rename(&data, &away).unwrap();
    fs::create_dir(&data).unwrap();
    controller.node.boot();
    let begun = std::time::Instant::now();
    while begun.elapsed() < NEVER {
        assert!(!controller.is_served(), "a second cluster after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(500));
    }
    let found = controller.node.sh("find /var/lib/etcd; pgrep -x etcd || true");
    assert_eq!(found, "/var/lib/etcd\n");
    eventually("guard says it", SOON, || {
        controller.guard_said().contains("etcd is not started: its data is not in /var/lib/etcd").then_some(())
    });
    let typed = |command: &str, args: &[&str]| {
        let ended = controller.node.spawn(controller.cluster.command(command, args)).wait(START_LIMIT);
        eprintln!("{ended}");
        ended
    };
    let status = typed("status", &[]).expect(1);
    assert!(status.stdout.contains("etcd's data is not in /var/lib/etcd: mount the disk"), "{status}");
    typed("start", &["--timeout=60s"]).expect(4).says(&["has no etcd data", "hoist start --new-cluster"]);

    controller.node.power_cut();
    fs::remove_dir(&data).unwrap();
    fs::rename(&away, &data).unwrap();
    controller.node.boot();
    eventually("the API is served", SOON, || controller.is_served().then_some(()));
    controller.until_lowered();
    controller.kubectl.get(&["configmap", "-n", "default", "written-before"]);
}

/// etcd's database is full: it is said, and what is said to type mends it.
#[test]
fn guard_quota() {
    let node = Node::up("guard-quota");
    let cluster = Cluster::to_render(&node, node.address);
    let quota = "etcd:\n  local:\n    extraArgs:\n    - {name: quota-backend-bytes, value: \"16777216\"}\n";
    render(&(declaration(&node, node.address) + quota), &cluster.assets).ok();
    let controller = Controller::start(node, cluster);
    let file = controller.cluster.assets.with_extension("fill");
    fs::write(&file, "a".repeat(900 << 10)).unwrap();
    let file = format!("--from-file=x={}", file.display());
    let full = (0..40).find_map(|number| {
        let made = controller.kubectl.run(&["create", "configmap", "-n", "default", &format!("fill-{number}"), &file]);
        (made.code != Some(0)).then_some((number, made))
    });
    let (count, full) = full.expect("the quota is reached");
    full.says(&["database space exceeded"]);

    let said = || controller.node.spawn(controller.cluster.command("status", &[])).wait(START_LIMIT);
    let status = said().expect(1);
    eprintln!("{status}");
    let line = status.stdout.lines().find(|line| line.contains("etcd has raised the alarm NOSPACE")).unwrap();
    eventually("guard says it", LATER, || controller.guard_said().contains("the alarm NOSPACE").then_some(()));
    assert!(controller.metric("etcd_alarms") >= 1.0);

    // Deleting is writing, too: etcd takes it.
    for number in 0..count {
        controller.kubectl.run(&["delete", "configmap", "-n", "default", &format!("fill-{number}")]).ok();
    }
    let commands: Vec<_> = line.split('`').filter_map(|part| part.strip_prefix("kubectl ")).collect();
    assert_eq!(commands.len(), 3, "{line}");
    // What was deleted has a revision of its own by now.
    let again = said();
    let line = again.stdout.lines().find(|line| line.contains("has raised the alarm NOSPACE")).unwrap_or(line);
    for command in line.split('`').filter_map(|part| part.strip_prefix("kubectl ")) {
        let args: Vec<_> = command.split_whitespace().collect();
        controller.kubectl.run(&args).ok();
    }
    controller.kubectl.run(&["create", "configmap", "-n", "default", "after"]).ok();
    assert!(!said().stdout.contains("NOSPACE"));
    controller.control_plane_is_rolled_out();
}
