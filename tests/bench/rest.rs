//! What a control plane takes while nobody asks it for anything: each of its programs, by name.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::support::node::{Node, processor_time};
use crate::support::process::{memory, processor_seconds};

/// What makes a control plane, and the one who keeps it; the kubelet and the container runtime are each node's.
pub const PROGRAMS: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "hoist"];
/// What its beginning has left to do is done by then.
const SETTLED: Duration = Duration::from_secs(60);
const WATCHED: Duration = Duration::from_secs(60);

/// What each program took.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rest {
    /// Of memory: pages that several share count in parts.
    pub bytes: BTreeMap<String, u64>,
    /// Of one processor.
    pub share: BTreeMap<String, f64>,
    /// All that runs on the node, of one processor.
    pub node_share: f64,
}

impl Rest {
    pub fn all_bytes(&self) -> f64 {
        self.bytes.values().sum::<u64>() as f64
    }

    pub fn all_share(&self) -> f64 {
        self.share.values().sum()
    }
}

/// Waits until the node has nothing left to do, and watches it.
pub fn at_rest(node: &Node) -> Rest {
    std::thread::sleep(SETTLED);
    let (begun, all, seconds) = (Instant::now(), processor_time(node).unwrap(), sums(node, processor_seconds));
    std::thread::sleep(WATCHED);
    let watched = begun.elapsed().as_secs_f64();
    let share = sums(node, processor_seconds).into_iter().map(|(program, after)| {
        let before = seconds.get(&program).copied().unwrap_or_default();
        (program, (after - before) / watched)
    });
    Rest {
        share: share.collect(),
        bytes: sums(node, |process| memory(process, "smaps_rollup", "Pss:")),
        node_share: (processor_time(node).unwrap() - all) / watched,
    }
}

/// Adds up something of the processes of each program on a node.
fn sums<T: Default + AddAssign>(node: &Node, of: fn(&Path) -> Option<T>) -> BTreeMap<String, T> {
    let cgroup = format!("/hoist-{}/", node.name);
    let mut sums = BTreeMap::<String, T>::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
        let read = |name: &str| std::fs::read(process.join(name)).unwrap_or_default();
        let (line, groups) = (read("cmdline"), read("cgroup"));
        let program = line.split(|byte| *byte == 0).next().and_then(|first| first.rsplit(|byte| *byte == b'/').next());
        let program = String::from_utf8_lossy(program.unwrap_or_default()).into_owned();
        let is_on_node = String::from_utf8_lossy(&groups).contains(&cgroup);
        if !is_on_node || !PROGRAMS.contains(&program.as_str()) {
            continue;
        }
        // One that has ended meanwhile takes nothing.
        *sums.entry(program).or_default() += of(&process).unwrap_or_default();
    }
    sums
}
