//! Another hoist on a controller and on a worker: guard and the endpoints are exchanged, and no connection is refused meanwhile.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use crate::node_endpoint::joined;
use crate::support::cluster::{Cluster, declaration, render};
use crate::support::command::{Ended, Running};
use crate::support::controller::Controller;
use crate::support::hoist;
use crate::support::http::Client;
use crate::support::node::{Node, init_of};
use crate::support::random::Random;
use crate::support::traffic::Traffic;
use crate::upgrade_node::containers;

/// How long it may take on one node of a busy machine.
const LIMIT: Duration = Duration::from_secs(180);
/// The commands of the page docs/upgrade.md.
pub const HERE: &str = "hoist upgrade hoist";
pub const ALL: &str = "hoist upgrade hoist --all-nodes --image registry.example.com/hoist:2 --asset-dir assets";
const IMAGE: &str = "registry.example.com/hoist:2";
const OLD_IMAGE: &str = "registry.example.com/hoist:1";
/// Where the new hoist is on a node.
const NEW: &str = "/opt/hoist-new";

#[test]
fn hoist_is_exchanged_where_pods_run_the_binary_of_the_disk() {
    let controller = up("uh1", "");
    let worker = joined("uh2", &controller);
    let (own, all) = (hoist().display().to_string(), [&controller.node, &worker]);
    all.iter().for_each(|node| {
        has_new(node, "new");
        has_image(node, NEW, IMAGE);
    });
    let old = all.map(parts);
    let traffic = all.map(endpoint_traffic(&controller));
    let at_address = controller.traffic();
    let before = all.map(others);

    // Killed at any moment, the same command goes on.
    let mut random = Random::seeded("HOIST_UPGRADE_SEED");
    for _ in 0..3 {
        let running = begin(&controller.node, &[]);
        std::thread::sleep(random.up_to(Duration::from_secs(4)));
        running.kill();
    }
    let ended = here(&controller.node, &[]).expect(0);
    assert!(ended.stdout.contains("this node has this hoist now") || ended.stdout.contains("was this one before"));
    is_new(&controller.node, &old[0]);
    controller.node.sh(&format!("cd /var/lib/hoist/bin && cmp hoist {NEW} && cmp hoist.previous {own}"));
    assert_eq!(controller.node.sh("ls /etc/kubernetes/manifests | grep -c beside || true").trim(), "0");
    let after = here(&controller.node, &[]).expect(0);
    assert!(after.stdout.contains("all of hoist on this node was this one before"), "{after}");
    assert_eq!(parts(&worker), old[1], "the worker is not asked");

    let ended = on_all(&controller).expect(0);
    assert!(ended.stdout.contains(&format!("2 nodes have the hoist of {IMAGE}")), "{ended}");
    is_new(&worker, &old[1]);
    for (node, before) in all.iter().zip(&before) {
        assert_eq!(&others(node), before, "{}: nothing but guard and the endpoint", node.name);
    }
    let left =
        controller.kubectl.list(&["pods", "-n", "kube-system", "-l", "app.kubernetes.io/name=hoist-upgrade-hoist"]);
    assert!(left.is_empty(), "{left:?}");

    // What starts, or looks for edits, finds them as they should be.
    let there = all.map(parts);
    controller.cluster.started(&controller.node, &[]).expect(0);
    std::thread::sleep(Duration::from_secs(10));
    // The test's own hoist is the old one, which `start` brings to the disk; what runs goes on.
    assert_eq!(all.map(parts), there);
    assert!(controller.is_lowered(), "guard saw no reason for a bridge");

    // And the way back, by the program of before.
    controller.node.spawn([&own, "upgrade", "hoist"]).wait(LIMIT).expect(0);
    assert_eq!(programs(&controller.node), vec![sum(&controller.node, &own); 2]);
    traffic.into_iter().chain([at_address]).for_each(|traffic| nothing_failed(traffic));
}

#[test]
fn hoist_is_exchanged_where_pods_run_an_image() {
    let node = Node::plain("ui1");
    let binary = hoist().display().to_string();
    has_image(&node, &binary, OLD_IMAGE);
    let cluster = Cluster::to_render(&node, node.address);
    let declared = |image: &str| {
        format!("{}images: {{hoist: \"{image}\"}}\nendpoint: {{nodeLocal: true}}\n", declaration(&node, node.address))
    };
    let new = declared(IMAGE);
    render(&declared(OLD_IMAGE), &cluster.assets).ok();
    let controller = Controller::start(node, cluster);
    let node = &controller.node;
    has_new(node, "new");

    let refused = here(node, &[]).expect(3);
    assert!(refused.stderr.contains("--image does not say which one has the new hoist"), "{refused}");
    let refused = here(node, &["--image", IMAGE]).expect(3);
    assert!(refused.stderr.contains("is not on this machine"), "{refused}");

    has_image(node, NEW, IMAGE);
    let (before, traffic) = (parts(node), endpoint_traffic(&controller)(node));
    here(node, &["--image", IMAGE]).expect(0);
    is_new(node, &before);
    // The asset directory says the same: nothing is put back.
    render(&new, &controller.cluster.assets).ok();
    let there = programs(node);
    controller.cluster.started(node, &[]).expect(0);
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(programs(node), there);
    nothing_failed(traffic);
}

/// A controller with an endpoint on each node, and `more` in its cluster.yaml.
fn up(name: &str, more: &str) -> Controller {
    let node = Node::plain(name);
    let cluster = Cluster::to_render(&node, node.address);
    let text = format!("{}endpoint: {{nodeLocal: true}}\n{more}", declaration(&node, node.address));
    render(&text, &cluster.assets).ok();
    Controller::start(node, cluster)
}

/// Another hoist: what stands behind a program is nothing to it.
fn has_new(node: &Node, mark: &str) {
    node.sh(&format!("cp {} {NEW} && printf {mark} >> {NEW}", hoist().display()));
}

/// Has an image with this hoist, as if it had pulled it.
fn has_image(node: &Node, program: &str, image: &str) {
    node.sh(&format!("{program} image save - --name {image} | ctr -n k8s.io images import -"));
}

fn sum(node: &Node, file: &str) -> String {
    node.sh(&format!("sha256sum < {file}"))
}

/// The processes of guard and of the endpoint, by what they listen at.
fn pids(node: &Node) -> Vec<String> {
    let pid = |port: u16| {
        node.sh(&format!("ss -Htlnp sport = :{port} | sed -n 's/.*pid=\\([0-9]*\\).*/\\1/p'")).trim().to_owned()
    };
    [10270, 7443].map(pid).into_iter().filter(|pid| !pid.is_empty()).collect()
}

/// The program of each.
fn programs(node: &Node) -> Vec<String> {
    pids(node).iter().map(|pid| sum(node, &format!("/proc/{pid}/exe"))).collect()
}

/// The processes and their programs.
fn parts(node: &Node) -> Vec<(String, String)> {
    pids(node).into_iter().zip(programs(node)).collect()
}

/// All are of the new hoist, and none is the process of before.
#[track_caller]
fn is_new(node: &Node, before: &[(String, String)]) {
    let (now, new) = (parts(node), sum(node, NEW));
    assert_eq!(now.len(), before.len(), "{now:?}");
    for ((pid, program), (old, _)) in now.iter().zip(before) {
        assert!(*program == new && pid != old, "{}: {now:?} after {before:?}, new is {new}", node.name);
    }
}

/// The containers of all pods but hoist's.
fn others(node: &Node) -> Vec<(String, String)> {
    let all: Vec<_> = containers(node).into_iter().filter(|(pod, _)| !pod.starts_with("hoist-")).collect();
    assert!(!all.is_empty());
    all
}

fn endpoint_traffic(controller: &Controller) -> impl Fn(&Node) -> Traffic {
    let client = Client::new(&controller.cluster.assets, SocketAddr::from((Ipv4Addr::LOCALHOST, 7443)));
    move |node| {
        let network = File::open(format!("/proc/{}/ns/net", init_of(node))).unwrap();
        Traffic::begin_in(network, client.clone())
    }
}

#[track_caller]
fn nothing_failed(traffic: Traffic) {
    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
}

fn begin(node: &Node, more: &[&str]) -> Running {
    node.spawn([&[NEW], &HERE.split(' ').skip(1).collect::<Vec<_>>()[..], more].concat())
}

fn here(node: &Node, more: &[&str]) -> Ended {
    let ended = begin(node, more).wait(LIMIT);
    eprintln!("--- {}\n{}{}", node.name, ended.stdout, ended.stderr);
    ended
}

fn on_all(controller: &Controller) -> Ended {
    assert!(ALL.contains(IMAGE));
    let words: Vec<_> = ALL.split(' ').skip(1).collect();
    let words = words.into_iter().map(|word| match word {
        "assets" => controller.cluster.assets.clone(),
        other => other.into(),
    });
    let ended = Running::spawn(Command::new(hoist()).args(words), "").wait(LIMIT * 2);
    eprintln!("--- all nodes\n{}{}", ended.stdout, ended.stderr);
    ended
}
