//! A virtual address in front of three controllers, moved by Debian's own keepalived with the configuration that hoist renders.
//! Clients that never stop ask there, each time on a new connection.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::controllers::{LABEL, worker};
use crate::support::cluster::{Cluster, declaration, render};
use crate::support::command::run;
use crate::support::controller::{Controller, LATER, NO_IMAGE, SOON};
use crate::support::node::{EXEC_LIMIT, Node};
use crate::support::{eventually, unpacked};

/// No node's: they have those from .11 on.
const ADDRESS: [u8; 4] = [10, 10, 0, 6];
/// A power cut takes the address for less than that, also on a busy machine whose etcd has to elect a leader. What it takes is
/// printed.
const POWER_CUT: Duration = Duration::from_secs(15);

#[test]
fn a_virtual_address_moves_between_controllers() {
    let address = IpAddr::from(ADDRESS);
    let node = Node::up("va-1");
    let cluster = Cluster::to_render(&node, address);
    let text =
        format!("{}endpoint: {{virtualAddress: {address}, interface: eth0}}\n", declaration(&node, node.address));
    render(&text, &cluster.assets).ok();
    let kubeconfig = std::fs::read_to_string(cluster.assets.join("auth/kubeconfig")).unwrap();
    assert!(kubeconfig.contains(&format!("https://{address}:6443")), "{kubeconfig}");
    keepalived(&node, &cluster);
    let controller = Controller::start(node, cluster);
    let [second, third] = ["va-2", "va-3"].map(|name| worker(name, &controller));
    // A worker that has keepalived never has the address.
    [&second, &third].iter().for_each(|node| keepalived(node, &controller.cluster));
    let all = [&controller.node, &second, &third];
    assert_eq!(holder(&all).unwrap().name, controller.node.name);

    let traffic = controller.traffic();
    let label = format!("{LABEL}=");
    controller.kubectl.run(&["label", "node", &second.name, &third.name, &label]).ok();
    controller.until_made_of(&all);
    assert_eq!(holder(&all).unwrap().name, controller.node.name, "none takes it from another that serves");
    controller.nothing_failed(traffic);

    only_the_bridge_serves_at_its_holder(&controller, &all);
    let lost = the_power_of_its_holder_is_cut(&controller, &all);
    lost.boot();
    controller.until_made_of(&all);
    its_holder_is_unmade(&controller, &all);
}

/// Installs Debian's keepalived on a node, with what the asset directory has for it.
fn keepalived(node: &Node, cluster: &Cluster) {
    let package = cluster.assets.with_extension("keepalived");
    if !package.exists() {
        run(std::process::Command::new("cp").arg("-a").arg(unpacked("keepalived")).arg(&package), EXEC_LIMIT).ok();
    }
    let (package, assets) = (package.display(), cluster.assets.display());
    node.sh(&format!(
        "cp -a {package}/usr/. /usr/; cp -a {package}/lib/. /usr/lib/; cp -a {package}/etc/. /etc/
        cp {assets}/keepalived/keepalived.conf /etc/keepalived/keepalived.conf
        keepalived --config-test
        systemctl daemon-reload; systemctl enable --quiet keepalived; systemctl start keepalived"
    ));
}

fn has_it(node: &Node) -> bool {
    let address = IpAddr::from(ADDRESS);
    node.exec(["ip", "-brief", "address", "show", "eth0"]).stdout.contains(&format!(" {address}/32"))
}

/// The one node that has the address, if it is one.
fn holder<'a>(nodes: &[&'a Node]) -> Option<&'a Node> {
    let having: Vec<_> = nodes.iter().filter(|node| has_it(node)).collect();
    assert!(having.len() <= 1, "{:?} have it", having.iter().map(|node| &node.name).collect::<Vec<_>>());
    having.first().map(|node| **node)
}

fn others<'a>(nodes: &[&'a Node], one: &Node) -> Vec<&'a Node> {
    nodes.iter().filter(|node| node.name != one.name).copied().collect()
}

/// Its API server ends in good order, and the next one does not start: the bridge serves there, and the address stays.
fn only_the_bridge_serves_at_its_holder(controller: &Controller, all: &[&Node]) {
    let name = &controller.node.name;
    let traffic = controller.traffic();
    controller.set_image(NO_IMAGE);
    let pods = ["-n", "kube-system", "pods", "-l", "component=kube-apiserver", "--field-selector"];
    let selector = format!("spec.nodeName={name}");
    controller.kubectl.run(&[&["delete", "--wait=false"], &pods[..], &[&selector]].concat()).ok();
    controller.until_raised();
    eventually("the API server from before has ended", LATER, || {
        let refused = controller.node.exec(["curl", "-sk", "--max-time", "2", "https://127.0.0.1:6443/readyz"]);
        (refused.code == Some(7)).then_some(())
    });
    for _ in 0..20 {
        assert!(controller.is_served());
        assert_eq!(holder(all).unwrap().name, *name, "the bridge serves there");
        std::thread::sleep(Duration::from_millis(100));
    }
    controller.undo();
    controller.until_lowered();
    controller.until_made_of(all);
    assert_eq!(holder(all).unwrap().name, *name);
    controller.nothing_failed(traffic);
}

/// Has keepalived of the first controller let go, which must be there to be asked afterwards; the node that has it then.
fn moved_from_the_first<'a>(controller: &Controller, all: &[&'a Node]) -> &'a Node {
    if has_it(&controller.node) {
        controller.node.sh("systemctl stop keepalived");
        eventually("another one has it", SOON, || holder(all).map(drop));
        controller.node.sh("systemctl start keepalived");
    }
    std::thread::sleep(Duration::from_secs(4));
    let holder = holder(all).unwrap();
    assert_ne!(holder.name, controller.node.name, "none takes it from another that serves");
    holder
}

fn the_power_of_its_holder_is_cut<'a>(controller: &Controller, all: &[&'a Node]) -> &'a Node {
    let lost = moved_from_the_first(controller, all);
    let traffic = controller.traffic();
    lost.power_cut();
    let cut = Instant::now();
    let others = others(all, lost);
    eventually("another one has it", SOON, || holder(&others).map(drop));
    eprintln!("the address was elsewhere {:.2?} after the power was cut, or sooner", cut.elapsed());
    std::thread::sleep(Duration::from_secs(5));
    let record = controller.nothing_is_lost(traffic);
    let (gap, _) = record.longest_gap();
    eprintln!("the longest time without a success at the address: {gap:.2?}");
    assert!(gap < POWER_CUT, "{record}");
    lost
}

/// The label is taken from the node that has it: nobody notices.
fn its_holder_is_unmade(controller: &Controller, all: &[&Node]) {
    let unmade = moved_from_the_first(controller, all);
    let traffic = controller.traffic();
    controller.kubectl.run(&["label", "node", &unmade.name, &format!("{LABEL}-")]).ok();
    let others = others(all, unmade);
    controller.until_made_of(&others);
    let now = holder(all).unwrap();
    assert_ne!(now.name, unmade.name);
    eventually("it is no controller any more", LATER, || {
        unmade.sh("ls /etc/kubernetes/manifests").is_empty().then_some(())
    });
    assert_eq!(holder(all).unwrap().name, now.name);
    controller.nothing_failed(traffic);
}
