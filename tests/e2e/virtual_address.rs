//! A virtual address in front of several controllers, moved by Debian's own keepalived with the configuration that hoist renders.
//! Clients that never stop ask there, each time on a new connection.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, declaration, render};
use crate::support::controller::{Controller, LATER, NO_IMAGE, SOON};
use crate::support::eventually;
use crate::support::keepalived::{self, others};
use crate::support::node::Node;
use crate::support::several::{LABEL, candidate};

/// No nodes': they have those from .11 on.
const ADDRESSES: [[u8; 4]; 2] = [[10, 10, 0, 6], [10, 10, 0, 7]];
/// A power cut takes the address for less than that, also on a busy machine whose etcd has to elect a leader. What it takes is
/// printed.
const POWER_CUT: Duration = Duration::from_secs(15);

#[test]
fn a_virtual_address_moves_between_controllers() {
    let controller = first("va-1", ADDRESSES[0].into());
    let [second, third] = ["va-2", "va-3"].map(|name| candidate(name, &controller.cluster));
    // A worker that has keepalived never has the address.
    [&second, &third].iter().for_each(|node| keepalived::of_controllers(node, &controller.cluster.assets));
    let all = [&controller.node, &second, &third];
    assert_eq!(controller.holder(&all).unwrap().name, controller.node.name);

    let traffic = controller.traffic();
    let label = format!("{LABEL}=");
    controller.kubectl.run(&["label", "node", &second.name, &third.name, &label]).ok();
    controller.until_made_of(&all);
    controller.nothing_is_lost(traffic);

    controller.give(&all, &controller.node);
    controller.only_the_bridge_serves(&all);
    controller.give(&all, &second);
    controller.power_is_cut(&all, &second);
    second.boot();
    controller.until_made_of(&all);
    controller.has_one_holder(&all);
}

/// The label is taken from the node that has it: nobody notices.
#[test]
fn a_controller_that_is_unmade_lets_the_virtual_address_go() {
    let controller = first("va-4", ADDRESSES[1].into());
    let second = candidate("va-5", &controller.cluster);
    keepalived::of_controllers(&second, &controller.cluster.assets);
    let all = [&controller.node, &second];
    controller.kubectl.run(&["label", "node", &second.name, &format!("{LABEL}=")]).ok();
    controller.until_made_of(&all);
    controller.give(&all, &second);

    let traffic = controller.traffic();
    controller.kubectl.run(&["label", "node", &second.name, &format!("{LABEL}-")]).ok();
    controller.until_made_of(&[&controller.node]);
    assert_eq!(controller.holder(&all).unwrap().name, controller.node.name);
    eventually("it is no controller any more", LATER, || {
        second.sh("ls /etc/kubernetes/manifests").is_empty().then_some(())
    });
    controller.nothing_failed(traffic);
}

/// A controller whose clients ask at the virtual address.
fn first(name: &str, address: IpAddr) -> Controller {
    let node = Node::up(name);
    let cluster = Cluster::to_render(&node, address);
    let section = format!("endpoint: {{virtualAddress: {address}, interface: eth0}}\n");
    render(&format!("{}{section}", declaration(&node, node.address)), &cluster.assets).ok();
    let kubeconfig = std::fs::read_to_string(cluster.assets.join("auth/kubeconfig")).unwrap();
    assert!(kubeconfig.contains(&format!("https://{address}:6443")), "{kubeconfig}");
    keepalived::of_controllers(&node, &cluster.assets);
    Controller::start(node, cluster)
}

impl Controller {
    /// The one node that has the address, if it is one.
    fn holder<'a>(&self, nodes: &[&'a Node]) -> Option<&'a Node> {
        keepalived::holder(nodes, self.cluster.address)
    }

    #[track_caller]
    fn has_one_holder(&self, nodes: &[&Node]) {
        eventually("one has it", SOON, || self.holder(nodes).map(drop));
    }

    /// Has keepalived of the others let go of it for a moment.
    fn give(&self, all: &[&Node], to: &Node) {
        for node in others(all, to) {
            node.sh("systemctl stop keepalived");
        }
        eventually("it has the address", SOON, || keepalived::has(to, self.cluster.address).then_some(()));
        for node in others(all, to) {
            node.sh("systemctl start keepalived");
        }
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(self.holder(all).unwrap().name, to.name, "none takes it from another that serves");
    }

    /// The API server of its holder ends in good order, and the next one does not start: the address stays.
    fn only_the_bridge_serves(&self, all: &[&Node]) {
        let name = &self.node.name;
        let traffic = self.traffic();
        self.set_image(NO_IMAGE);
        let pods = ["-n", "kube-system", "pods", "-l", "component=kube-apiserver", "--field-selector"];
        let selector = format!("spec.nodeName={name}");
        self.kubectl.run(&[&["delete", "--wait=false"], &pods[..], &[&selector]].concat()).ok();
        self.until_raised();
        eventually("the API server from before has ended", LATER, || {
            let refused = self.node.exec(["curl", "-sk", "--max-time", "2", "https://127.0.0.1:6443/readyz"]);
            (refused.code == Some(7)).then_some(())
        });
        for _ in 0..20 {
            assert!(self.is_served());
            assert_eq!(self.holder(all).unwrap().name, *name, "the bridge serves there");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.undo();
        self.until_lowered();
        self.until_made_of(all);
        assert_eq!(self.holder(all).unwrap().name, *name);
        self.nothing_failed(traffic);
    }

    fn power_is_cut(&self, all: &[&Node], lost: &Node) {
        let traffic = self.traffic();
        lost.power_cut();
        let cut = Instant::now();
        self.has_one_holder(&others(all, lost));
        eprintln!("the address was elsewhere {:.2?} after the power was cut, or sooner", cut.elapsed());
        std::thread::sleep(Duration::from_secs(5));
        let record = self.nothing_is_lost(traffic);
        let (gap, _) = record.longest_gap();
        eprintln!("the longest time without a success at the address: {gap:.2?}");
        assert!(gap < POWER_CUT, "{record}");
    }
}
