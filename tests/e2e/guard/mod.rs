//! What must survive on a controller that guard keeps: power cuts, edits, deletions, crashes, a full disk, an absent
//! kubelet. Each with clients that never stop asking, and with nobody who types but what is said.
//!
//! All is looked at from outside of hoist: the API as clients see it, the kubelet's folder, processes, guard's metrics.
//! `HOIST_FULL=1` lets what is waited for take the whole time that it is about: minutes instead of moments.

mod addons;
mod at_rest;
mod crashes;
mod deletions;
mod disk;
mod edits;
mod endpoint;
mod etcd;
mod keeps;
mod kubelet;
mod lost;
mod page;
mod power_cuts;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::cluster::Cluster;
use crate::support::controller::{Controller, LATER, SOON};
use crate::support::eventually;
use crate::support::node::{Node, disk, init_of};
use crate::support::traffic::{Record, Traffic};

/// Whether what takes minutes shall take them.
fn full() -> bool {
    std::env::var_os("HOIST_FULL").is_some_and(|value| value == "1")
}

/// So long by default, and so long in full.
fn long(short: u64, whole: u64) -> Duration {
    Duration::from_secs(if full() { whole } else { short })
}

/// What else these tests want of a controller.
impl Controller {
    // --- the disk ---

    /// A file of the node's own /var.
    fn var(&self, path: &str) -> PathBuf {
        disk(&self.node).join("var").join(path)
    }

    /// All that a container of the pods whose names begin like that has said, restarts included.
    fn said(&self, pods: &str, container: &str) -> String {
        let mut files = Vec::new();
        for pod in fs::read_dir(self.var("log/pods")).unwrap().map(|entry| entry.unwrap().path()) {
            if pod.file_name().is_some_and(|name| name.to_string_lossy().starts_with(pods)) {
                let logs = fs::read_dir(pod.join(container)).into_iter().flatten();
                files.extend(logs.map(|entry| entry.unwrap().path()));
            }
        }
        files.sort();
        files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect()
    }

    /// The same of guard.
    fn guard_said(&self) -> String {
        self.said(&format!("kube-system_hoist-guard-{}_", self.node.name), "guard")
    }

    // --- guard ---

    #[track_caller]
    fn metric(&self, name: &str) -> f64 {
        let metrics = eventually("guard serves its metrics", SOON, || self.metrics());
        metrics.get(name).copied().unwrap_or_else(|| panic!("{name}: {metrics:?}"))
    }

    /// How often guard has raised the bridge since it runs, whatever the cause.
    #[track_caller]
    fn raises(&self) -> f64 {
        let metrics = eventually("guard serves its metrics", SOON, || self.metrics());
        metrics.iter().filter(|(name, _)| name.starts_with("raises_total{")).map(|(_, count)| count).sum()
    }

    // --- processes ---

    /// The self-hosted API server's process, as this machine knows it.
    fn api_server(&self) -> Option<Pid> {
        let all = processes(&self.node, "kube-apiserver");
        all.into_iter().find(|process| !process.is_bridge).map(|process| process.pid)
    }

    /// The one process of a program.
    #[track_caller]
    fn process(&self, program: &str, argument: &str) -> Pid {
        let all = processes(&self.node, program);
        let all: Vec<_> = all.iter().filter(|process| process.argument == argument || argument.is_empty()).collect();
        assert_eq!(all.len(), 1, "processes of {program} {argument}: {all:?}");
        all[0].pid
    }

    #[track_caller]
    fn guard_process(&self) -> Pid {
        self.process("hoist", "guard")
    }

    // --- what clients saw ---

    /// The end of the traffic: all that it wrote and was told to be written is there.
    #[track_caller]
    pub fn nothing_is_lost(&self, traffic: Traffic) -> Record {
        let record = traffic.end().unwrap();
        eprintln!("{}", record.summary());
        // Shorter ones are single requests that were under way.
        for (at, lasted) in record.outages().into_iter().filter(|(_, lasted)| *lasted > Duration::from_millis(300)) {
            eprintln!("  away from {at:.1?} on, for {lasted:.2?}");
        }
        let there = self.kubectl.list(&["configmaps", "-n", "default"]);
        let there: Vec<_> = there.iter().filter_map(|object| object["metadata"]["name"].as_str()).collect();
        let written = record.acknowledged();
        assert!(written.len() > 20, "too few writes to show anything: {record}");
        let missing: Vec<_> = written.into_iter().filter(|name| !there.contains(name)).collect();
        assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
        record
    }

    /// The same, and no request failed.
    #[track_caller]
    pub fn nothing_failed(&self, traffic: Traffic) {
        let record = self.nothing_is_lost(traffic);
        assert_eq!(record.failures().count(), 0, "requests failed: {record}");
    }
}

/// The API was away, and never for longer than that.
#[track_caller]
fn never_away_for_longer(record: &Record, limit: Duration) {
    let longest = record.outages().into_iter().map(|(_, lasted)| lasted).max().unwrap_or_default();
    assert!(longest <= limit, "away for {longest:.1?}, and {limit:?} is the limit: {record}");
}

/// A process of a node, by its number on this machine.
#[derive(Debug)]
struct Process {
    pid: Pid,
    argument: String,
    is_bridge: bool,
}

/// The processes of a program. The control plane's pods are in the node's own network: by that they are known.
fn processes(node: &Node, program: &str) -> Vec<Process> {
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = network(&init_of(node));
    let process = |pid: String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let is_wanted = words.next()?.rsplit('/').next() == Some(program) && network(&pid) == own;
        // One that has just ended has no surroundings any more.
        let environment = fs::read(format!("/proc/{pid}/environ")).ok().filter(|text| !text.is_empty())?;
        let is_bridge = environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(b"HOIST_BRIDGE="));
        let argument = words.next().unwrap_or_default().into_owned();
        is_wanted.then(|| Process { pid: Pid::from_raw(pid.parse().unwrap()), argument, is_bridge })
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| pid.parse::<i32>().is_ok()).filter_map(process).collect()
}

/// It may have ended a moment ago.
fn signal(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

/// Where a manifest of an asset directory is.
fn manifest(cluster: &Cluster, path: &str) -> String {
    Path::new(&cluster.assets).join("manifests").join(path).display().to_string()
}
