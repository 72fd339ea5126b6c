//! Controllers in the making, with whatever takes part in it killed; and a machine that is installed anew.

use std::time::{Duration, Instant};

use crate::support::controller::{Controller, LATER};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::random::Random;
use crate::support::several::{LABEL, candidate, candidate_at, members};

/// Between two kills at most: a member joins within some 15 s.
const PAUSE: Duration = Duration::from_secs(6);
/// As many kills there are at least before both are made.
const LEAST: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Killed {
    Guard,
    Etcd,
    Kubelet,
    Power,
}

/// Kills it on a node, without a word before.
fn kill(node: &Node, killed: Killed) {
    let processes = |name: &str| {
        node.sh(&format!(
            "for file in $(grep -lsx {name} /proc/[0-9]*/comm); do pid=${{file#/proc/}}; kill -9 \"${{pid%/comm}}\" || true; done"
        ))
    };
    match killed {
        Killed::Guard => drop(processes("hoist")),
        Killed::Etcd => drop(processes("etcd")),
        Killed::Kubelet => drop(processes("kubelet")),
        Killed::Power => {
            node.power_cut();
            node.boot();
        }
    }
}

/// The node whose member is being added, or the next one whose is to be.
fn joining<'a>(first: &Node, candidates: &'a [Node; 2]) -> Option<&'a Node> {
    let members = members(first);
    let votes = |node: &Node| members.iter().any(|member| member.name == node.name && !member.is_learner);
    let has_begun = |node: &Node| node.sh("ls /etc/kubernetes/manifests").contains("etcd.yaml");
    let mut left: Vec<_> = candidates.iter().filter(|node| !votes(node)).collect();
    left.sort_by_key(|node| !has_begun(node));
    left.into_iter().next()
}

/// Both sides of a join are killed while three are made of one, at random moments: it converges, and nothing that was
/// acknowledged is lost. Then the system of one is lost, and its Node stays.
#[test]
fn joins_that_are_killed_converge_and_a_machine_made_anew_is_a_controller_again() {
    let controller = Controller::up("joins-1");
    let candidates = ["joins-2", "joins-3"].map(|name| candidate(name, &controller.cluster));
    let mut random = Random::seeded("HOIST_CRASH_SEED");
    let traffic = controller.traffic();
    let names = candidates.each_ref().map(|node| &*node.name);
    controller.kubectl.run(&["label", "node", names[0], names[1], &format!("{LABEL}=")]).ok();

    let plan = [
        (Killed::Guard, true),
        (Killed::Power, true),
        (Killed::Guard, false),
        (Killed::Etcd, true),
        (Killed::Kubelet, true),
        (Killed::Etcd, false),
        (Killed::Power, true),
        (Killed::Power, false),
    ];
    let mut kills = 0;
    for (killed, is_joiners) in plan {
        std::thread::sleep(random.up_to(PAUSE));
        // The voters say who it is as soon as they have a majority again.
        let joiner = eventually("the voters tell the members", LATER, || {
            (!members(&controller.node).is_empty()).then(|| joining(&controller.node, &candidates))
        });
        let Some(joiner) = joiner else { break };
        let node = if is_joiners { joiner } else { &controller.node };
        eprintln!("{killed:?} of {} while {} joins", node.name, joiner.name);
        kill(node, killed);
        kills += 1;
    }
    assert!(kills >= LEAST, "{kills} kills");
    let [second, third] = candidates;
    controller.until_made_of(&[&controller.node, &second, &third]);
    controller.nothing_is_lost(traffic);

    let (name, address) = ("joins-3", third.address);
    let id_of =
        |name: &str| members(&controller.node).iter().find(|member| member.name == name).map(|member| member.id);
    let before = id_of(&third.name).unwrap();
    let traffic = controller.traffic();
    drop(third);
    let begun = Instant::now();
    let third = candidate_at(name, address, &controller.cluster);
    eventually("its old member is removed, and it is one anew", LATER, || {
        id_of(&third.name).is_some_and(|id| id != before).then_some(())
    });
    controller.until_made_of(&[&controller.node, &second, &third]);
    eprintln!("a machine made anew is a controller again {:.1?} after its last one ended", begun.elapsed());
    controller.nothing_is_lost(traffic);
}
