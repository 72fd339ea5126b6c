//! `start` is killed at any moment, and run again.

use std::time::Duration;

use crate::serving::assert_serves_itself;
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::node::Node;

const KILLS: usize = 3;
/// A run from nothing takes longer than all of these together may, so that there is always something left to do.
const LONGEST: f64 = 7.0;

#[test]
fn crash() {
    let node = Node::up("crash");
    let cluster = Cluster::render(&node);
    for number in 1..=KILLS {
        let moment = Duration::from_secs_f64(LONGEST * random());
        let mut start = cluster.start(&node, &[]);
        std::thread::sleep(moment.saturating_sub(start.begun().elapsed()));
        let ended = start.has_ended();
        let killed = start.kill();
        eprintln!("kill {number} after {moment:.3?}{}: {killed}", if ended { ", too late" } else { "" });
        assert!(!ended || killed.code == Some(0), "{killed}");
        // scripts/node passes the signal on; a second start must not meet the first.
        eventually("the killed start is gone", Duration::from_secs(5), || {
            (node.exec(["pgrep", "-f", "start --asset-dir"]).code == Some(1)).then_some(())
        });
    }
    let start = cluster.started(&node, &[]).expect(0);
    eprintln!("{start}");
    assert_serves_itself(&node, &cluster);
}

/// From 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).unwrap();
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}
