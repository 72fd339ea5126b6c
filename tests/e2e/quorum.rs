//! Several controllers of which some lose etcd's data, each brought back with clients that never stop: what was acknowledged
//! is there afterwards.

use std::net::SocketAddr;
use std::time::Instant;

use crate::controllers::{members_at, worker};
use crate::support::controller::{Controller, LATER, is_ready};
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::node::{Node, disk};
use crate::support::traffic::Traffic;

const LABEL: &str = "node-role.kubernetes.io/control-plane=";

/// Three controllers, two of them made by a label.
fn three(prefix: &str) -> (Controller, Node, Node) {
    let controller = Controller::up(&format!("{prefix}-1"));
    let [second, third] = ["2", "3"].map(|number| worker(&format!("{prefix}-{number}"), &controller));
    controller.kubectl.run(&["label", "node", &second.name, &third.name, LABEL]).ok();
    controller.until_made_of(&[&controller.node, &second, &third]);
    (controller, second, third)
}

/// The id of a node's member, as another node's tells it.
fn id_of(node: &Node, at: &Node) -> Option<u64> {
    members_at(at).iter().find(|member| member.name == node.name && !member.is_learner).map(|member| member.id)
}

/// A client of one controller's API server.
fn client_of(controller: &Controller, node: &Node) -> Client {
    Client::new(&controller.cluster.assets, SocketAddr::new(node.address, 6443))
}

/// A disk is wiped while its machine is off: the controller is a member again by itself, be it one that a label made or the
/// first one, which began the cluster.
#[test]
fn a_wiped_disk_is_filled_again_from_the_others() {
    let (controller, second, third) = three("q-wipe");
    let all = [&controller.node, &second, &third];
    for (wiped, other) in [(&second, &controller.node), (&controller.node, &third)] {
        let before = id_of(wiped, other).unwrap();
        let traffic = Traffic::begin(client_of(&controller, other));
        eventually("its file system is remembered", LATER, || {
            let path = disk(wiped).join("var/lib/hoist/guard/remembered.json");
            std::fs::read_to_string(path).is_ok_and(|text| text.contains("dataMount\":\"/")).then_some(())
        });
        wiped.power_cut();
        std::fs::remove_dir_all(disk(wiped).join("var/lib/etcd/member")).unwrap();
        wiped.boot();
        let begun = Instant::now();
        if wiped.name == controller.node.name {
            // Its kubelet asks its own API server alone, and takes no other manifest up before it has reached one.
            let manifest = disk(wiped).join("private/etc-kubernetes/manifests/etcd.yaml");
            eventually("its etcd is to join", LATER, || {
                std::fs::read_to_string(&manifest).unwrap_or_default().contains("=existing").then_some(())
            });
            wiped.sh("systemctl restart kubelet");
        }
        eventually("it is another member, and votes", 2 * LATER, || {
            id_of(wiped, other).is_some_and(|id| id != before).then_some(())
        });
        eprintln!("{}: a member again {:.1?} after its boot", wiped.name, begun.elapsed());
        eventually("its API server is ready", LATER, || is_ready(&client_of(&controller, wiped)).then_some(()));
        eventually("etcd may start at the next boot", LATER, || {
            wiped.sh("test ! -e /var/lib/etcd/member/hoist-began || echo there").contains("there").then_some(())
        });
        controller.until_made_of(&all);
        controller.nothing_is_lost(traffic);
        // It starts on what it has by now.
        wiped.power_cut();
        wiped.boot();
        eventually("it serves after the next boot", LATER, || is_ready(&client_of(&controller, wiped)).then_some(()));
        controller.until_made_of(&all);
    }
}
