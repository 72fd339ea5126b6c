//! A controller of three is lost: by its power, its API server or its etcd, with clients that never stop: at the
//! endpoint of a worker, and in a pod there through the `kubernetes` Service.
//!
//! No test here has a clock of its own: nodes are containers of one kernel, whose time namespaces shift no date.

use std::time::{Duration, Instant};

use crate::support::controller::{LATER, is_raised, is_ready, manifests};
use crate::support::eventually;
use crate::support::leases::LEADERS;
use crate::support::losses::{cut_off, edit_etcd, lose, reboot, signal};
use crate::support::several::{Several, until_made_of};

/// How long clients may be without a success, on a machine that others use, too. What is measured is printed.
const GAP: Duration = Duration::from_secs(5);

#[test]
fn losses() {
    let several = Several::up("l", 1);
    let names: Vec<_> = several.controllers.iter().map(|node| node.name.clone()).collect();

    for node in &several.controllers {
        let what = format!("the API server of {} killed", node.name);
        let saw = several.during(&what, || signal(node, "KILL", "kube-apiserver"), || several.until_whole());
        saw.fails_no_longer_than(Duration::from_secs(1));
        saw.gap_is_no_longer_than(GAP);
    }

    let at = (several.leader() + 1) % 3;
    let node = &several.controllers[at];
    let what = format!("the etcd of {} killed, which followed", node.name);
    let saw = several.during(&what, || signal(node, "KILL", "etcd"), || several.until_whole());
    saw.fails_no_longer_than(GAP);
    saw.gap_is_no_longer_than(GAP);

    let node = &several.controllers[1];
    let what = format!("the API server of {} hung", node.name);
    let saw = several.during(&what, || signal(node, "STOP", "kube-apiserver"), || several.until_whole());
    saw.fails_no_longer_than(GAP);
    saw.gap_is_no_longer_than(GAP);

    for leads in [true, false] {
        let leader = several.leader();
        let at = if leads { leader } else { (leader + 1) % 3 };
        let node = &several.controllers[at];
        let what = format!("the etcd of {} hung, which {}", node.name, if leads { "led" } else { "followed" });
        let saw = several.during(
            &what,
            || {
                signal(node, "STOP", "etcd");
                std::thread::sleep(Duration::from_secs(25));
                signal(node, "CONT", "etcd");
            },
            || several.until_whole(),
        );
        saw.fails_no_longer_than(GAP);
        saw.gap_is_no_longer_than(GAP);
    }

    let first = several.leader();
    for at in [first, (first + 1) % 3, (first + 2) % 3] {
        let node = &several.controllers[at];
        let holders = LEADERS.map(|lease| names[several.holder(lease)].clone());
        let leads = several.leader() == at;
        // No limit for failures here: while a node boots, a busy machine may have etcd elect another leader.
        let what = format!("the power of {} cut (etcd's leader: {leads}, holders {holders:?})", node.name);
        let saw = several.during(
            &what,
            || lose(node),
            || {
                several.until_whole_but(&[&node.name]);
                node.boot();
                several.until_whole();
            },
        );
        saw.gap_is_no_longer_than(GAP);
    }
}

/// What an administrator does to one controller after the other.
#[test]
fn planned_losses() {
    let several = Several::up("lp", 1);

    let saw = several.during("the API server edited", || several.edit("--event-ttl=2h"), || several.until_whole());
    saw.nothing_failed();

    for node in &several.controllers {
        let leads = several.controllers[several.leader()].name == node.name;
        let what = format!("the etcd of {} edited, leads: {leads}", node.name);
        let edit = || edit_etcd(node, "--heartbeat-interval=70", "--heartbeat-interval=71");
        let saw = several.during(&what, edit, || several.until_whole());
        saw.nothing_failed_but_what_etcd_drops();
    }
    // Nobody is told of that one beforehand, and leadership moves 6.4 s later.
    let node = &several.controllers[several.leader()];
    let what = format!("the etcd of {} told to end, which led", node.name);
    let saw = several.during(&what, || signal(node, "TERM", "etcd"), || several.until_whole());
    saw.fails_no_longer_than(GAP * 2);
    for node in &several.controllers {
        let what = format!("{} rebooted", node.name);
        let saw = several.during(&what, || reboot(node), || several.until_whole());
        saw.nothing_failed_but_what_etcd_drops();
    }
    // The first one last: nobody is first.
    for number in [1, 2, 0] {
        let node = &several.controllers[number];
        let others: Vec<_> = several.controllers.iter().filter(|other| other.name != node.name).collect();
        let what = format!("the label taken from {}", node.name);
        let saw = several.during_at(
            &what,
            &others,
            || several.unlabel(&node.name),
            || {
                until_made_of(&several.cluster, &others);
                eventually("nothing of a controller is left", LATER, || {
                    (!manifests(node).iter().any(|name| name.starts_with("hoist-guard"))).then_some(())
                });
            },
        );
        saw.nothing_failed_but_what_etcd_drops();
        several.label(&[&node.name]);
        several.until_whole();
    }
}

/// A controller is cut off in part, and then all of them are off.
#[test]
fn partitions_and_all_off() {
    let several = Several::up("lx", 1);
    several.partitions();
    several.all_off();
}

/// The first controller is destroyed, and another machine of another name and address takes its place.
#[test]
fn the_first_controller_is_replaced() {
    let mut several = Several::up("lr", 1);
    lose(&several.controllers[0]);
    several.until_whole_but(&[&several.controllers[0].name.clone()]);
    several.replaced();
}

impl Several {
    /// The network is torn for a while, each time in another way; who is cut off raises nothing, as that would serve no
    /// better.
    #[track_caller]
    fn partitions(&self) {
        let worker = &self.workers[0];
        for (from, is_one_way) in [("the others", false), ("the worker", false), ("the others", true)] {
            let at = self.leader();
            let node = &self.controllers[at];
            let others: Vec<_> = match from {
                "the worker" => vec![worker],
                _ => self.controllers.iter().filter(|other| other.name != node.name).collect(),
            };
            let way = if is_one_way { ", hearing nothing" } else { "" };
            let what = format!("{} cut off from {from}{way}", node.name);
            let saw = self.during(
                &what,
                || {
                    cut_off(node, &others, is_one_way, true);
                    std::thread::sleep(Duration::from_secs(25));
                    assert!(!is_raised(node), "the bridge of {}", node.name);
                    cut_off(node, &others, is_one_way, false);
                },
                || self.until_whole(),
            );
            saw.gap_is_no_longer_than(GAP);
        }
    }

    /// All three are off, and two come back.
    #[track_caller]
    fn all_off(&self) {
        for away in [1, 2, 0] {
            let name = self.controllers[away].name.clone();
            let written = self.traffic(&self.workers[0]).end().unwrap();
            for node in &self.controllers {
                lose(node);
            }
            let begun = Instant::now();
            let there: Vec<_> = self.controllers.iter().filter(|node| node.name != name).collect();
            for node in there.iter().rev() {
                node.boot();
            }
            let booted = begun.elapsed();
            let client = self.client_of_endpoint();
            eventually("the API answers at the endpoint", LATER, || {
                let client = client.clone();
                self.workers[0].inside(move || is_ready(&client)).then_some(())
            });
            let answers = begun.elapsed();
            self.until_whole_but(&[&name]);
            eprintln!(
                "all off, all but {name} on again after {booted:.1?}: answers after {answers:.1?}, whole after {:.1?}",
                begun.elapsed()
            );
            self.nothing_is_lost(&written, &there);
            self.controllers[away].boot();
            self.until_whole();
        }
    }

    /// Another machine takes the first one's place.
    #[track_caller]
    fn replaced(&mut self) {
        let dead = self.controllers.remove(0);
        let begun = Instant::now();
        self.kubectl_of_any().run(&["delete", "node", &dead.name]).ok();
        until_made_of(&self.cluster, &self.controllers.iter().collect::<Vec<_>>());
        let node = self.join("lr-4");
        self.controllers.push(node);
        self.label(&[&self.controllers[2].name.clone()]);
        self.until_whole();
        eprintln!("one replaced by another machine: {:.1?}", begun.elapsed());
        let node = &self.controllers[2];
        let what = format!("the power of {} cut, which is new", node.name);
        let saw = self.during(
            &what,
            || lose(node),
            || {
                self.until_whole_but(&[&node.name]);
                node.boot();
                self.until_whole();
            },
        );
        saw.gap_is_no_longer_than(GAP);
    }
}
