//! `controlPlaneEndpoint` is a further address of the controller's, as where a virtual one moves between machines: the
//! administrator's own kubeconfig, which leads there, must be able to undo a bad edit.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Controller, SOON};
use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, declaration, render};
use crate::support::controller::{NO_IMAGE, is_ready};
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::node::Node;
use crate::support::traffic::Traffic;

#[test]
fn guard_endpoint() {
    let node = Node::up("guard-endpoint");
    let endpoint = beside(node.address);
    change(&node, "add", endpoint);
    let cluster = Cluster::to_render(&node, node.address);
    let text = format!("{}controlPlaneEndpoint: {endpoint}\n", declaration(&node, node.address));
    render(&text, &cluster.assets).ok();
    let kubeconfig = std::fs::read_to_string(cluster.assets.join("auth/kubeconfig")).unwrap();
    assert!(kubeconfig.contains(&format!("https://{endpoint}:6443")), "{kubeconfig}");
    let controller = Controller::start(node, cluster);

    // kubectl asks there throughout, and so do clients.
    let client = Client::new(&controller.cluster.assets, SocketAddr::new(endpoint, 6443));
    let traffic = Traffic::begin(client.clone());
    controller.edit_badly(|| controller.set_image(NO_IMAGE));
    controller.until_raised();
    eventually("the API server from before has ended", SOON, || controller.api_server().is_none().then_some(()));
    assert!(is_ready(&client) && controller.is_served() && !controller.self_hosted_is_ready());
    controller.nothing_failed(traffic);

    // The address goes for a while, and nothing else with it.
    change(&controller.node, "del", endpoint);
    assert!(!is_ready(&client) && controller.is_served());
    change(&controller.node, "add", endpoint);
    eventually("it is back, and leads to the bridge again", SOON, || is_ready(&client).then_some(()));

    let traffic = Traffic::begin(client);
    controller.undo();
    controller.until_lowered();
    controller.nothing_failed(traffic);
    assert_serves_itself(&controller.node, &controller.cluster);
}

fn change(node: &Node, what: &str, address: IpAddr) {
    let device = format!("$(ip -o addr show | awk '$4 ~ \"^{}/\" {{print $2}}')", node.address);
    node.sh(&format!("ip addr {what} {address}/32 dev {device}"));
}

/// Another address of a node's network, which is no node's: they are given out from the other end.
fn beside(address: IpAddr) -> IpAddr {
    let IpAddr::V4(address) = address else { panic!("{address}") };
    let [a, b, c, last] = address.octets();
    Ipv4Addr::new(a, b, c, 254 - last).into()
}
