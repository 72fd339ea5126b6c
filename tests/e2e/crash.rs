//! `start` is killed, or the power cut, at moments spread over all of its steps; and run again. Whatever the moment, it
//! ends with the same cluster: with the keys that were rendered, with nothing applied twice, and no client has noticed.
//!
//! The moments are random within their steps. `HOIST_CRASH_SEED=N`, as a run prints it, makes the same ones.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::serving::assert_serves_itself;
use crate::support::beside::Beside;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::command::Running;
use crate::support::eventually;
use crate::support::node::{Node, disk, init_of};
use crate::support::random::Random;
use crate::support::traffic::Traffic;

/// The steps as `start` shows them, in their order; at how many moments it is killed in each, and how long after the
/// step's beginning at most.
const KILLS: [(&str, usize, f64); 9] = [
    ("install", 3, 0.6),
    ("api", 3, 3.0),
    ("apply", 2, 0.3),
    ("node", 2, 2.0),
    ("hand-over", 4, 7.0),
    ("self-hosted", 2, 3.0),
    ("required-pods", 1, 0.5),
    ("lower", 1, 0.1),
    ("prove", 3, 2.5),
];
/// In so many bring-ups: each is killed in steps from the first to the last.
const BRING_UPS: usize = 3;
/// A cut takes a boot, and what it had reached in memory.
const CUTS: [(&str, usize, f64); 5] =
    [("install", 1, 0.6), ("api", 1, 3.0), ("hand-over", 1, 7.0), ("self-hosted", 1, 3.0), ("prove", 1, 2.5)];

#[test]
fn crash() {
    let moments = moments(&KILLS);
    assert!(moments.len() >= 20, "{}", moments.len());
    for bring_up in 0..BRING_UPS {
        let node = Node::up(&format!("crash-{bring_up}"));
        let cluster = Cluster::render(&node);
        let (keys, guard, traffic) = (keys(&cluster), Guard::begin(&node), Traffic::begin(cluster.client()));
        for moment in moments.iter().skip(bring_up).step_by(BRING_UPS) {
            kill(&node, &cluster, moment);
        }
        let start = cluster.start(&node, &[]).wait(START_LIMIT);
        let (record, looks) = (traffic.end(), guard.end());
        eprintln!("{start}");
        let record = record.unwrap_or_else(|| panic!("the API was never ready: {start}"));
        eprintln!("{record}\n{looks}");
        start.expect(0);
        assert_eq!(record.failures().count(), 0, "the API was away: {record}");
        assert!(looks.processes > 100 && looks.bereft.is_empty(), "a live pod lost its secrets: {looks}");
        assert_converged(&node, &cluster, &keys);
    }
}

#[test]
fn power_cuts() {
    let node = Node::up("cuts");
    let cluster = Cluster::render(&node);
    let keys = keys(&cluster);
    for moment in moments(&CUTS) {
        let mut start = cluster.start(&node, &[]);
        let ended = reach(&mut start, &moment);
        node.power_cut();
        eprintln!("cut {moment}{}", if ended { ", when start had ended" } else { "" });
        drop(start);
        node.boot();
    }
    let start = cluster.started(&node, &[]).expect(0);
    eprintln!("{start}");
    assert_converged(&node, &cluster, &keys);
}

/// When something is done to a run.
struct Moment {
    step: &'static str,
    after: Duration,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3?} into the step {}", self.after, self.step)
    }
}

/// Moments in the order of their steps; within a step, each is in a part of its own.
fn moments(steps: &[(&'static str, usize, f64)]) -> Vec<Moment> {
    let mut random = Random::seeded("HOIST_CRASH_SEED");
    let mut moments = Vec::new();
    for (step, count, longest) in steps {
        for part in 0..*count {
            let after = longest * (part as f64 + random.part()) / *count as f64;
            moments.push(Moment { step, after: Duration::from_secs_f64(after) });
        }
    }
    moments
}

/// Waits for the moment, and says whether the run ended before it. A run that goes on where another was killed may
/// begin at a later step: then the moment is as long after that one's beginning.
fn reach(start: &mut Running, moment: &Moment) -> bool {
    let place = |step: &str| KILLS.iter().position(|(name, ..)| *name == step);
    let wanted = place(moment.step).unwrap();
    loop {
        let said = start.said();
        let steps = said.lines().filter_map(|line| line.split_once("] ")?.1.split_once(':').map(|(step, _)| step));
        if steps.filter_map(place).any(|step| step >= wanted) {
            break;
        }
        if start.has_ended() {
            return true;
        }
        assert!(start.begun().elapsed() < START_LIMIT, "{}: never: {said}", moment.step);
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(moment.after);
    start.has_ended()
}

fn kill(node: &Node, cluster: &Cluster, moment: &Moment) {
    let mut start = cluster.start(node, &[]);
    let ended = reach(&mut start, moment);
    let killed = start.kill();
    let last = killed.stdout.lines().last().unwrap_or_default();
    eprintln!("kill {moment}{}: {last}", if ended { ", too late" } else { "" });
    assert!(!ended || killed.code == Some(0), "{killed}");
    // scripts/node passes the signal on; a second start must not meet the first.
    eventually("the killed start is gone", Duration::from_secs(5), || {
        (node.exec(["pgrep", "-f", "start --asset-dir"]).code == Some(1)).then_some(())
    });
}

/// What must hold whatever happened on the way.
fn assert_converged(node: &Node, cluster: &Cluster, rendered: &BTreeMap<String, Vec<u8>>) {
    assert_serves_itself(node, cluster);
    assert!(keys(cluster) == *rendered, "a key of the asset directory has changed");
    // Compared with what was rendered, so no matter when one would have changed.
    let pki = disk(node).join("private/etc-kubernetes/pki");
    let tls = cluster.assets.join("tls");
    let read = |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(read(&pki.join("ca.crt")) == read(&tls.join("ca.crt")), "another CA is on the node");
    for (name, origin) in [
        ("ca.crt", "etcd/ca.crt".to_owned()),
        ("server.key", format!("etcd/{}/server.key", node.name)),
        ("peer.key", format!("etcd/{}/peer.key", node.name)),
    ] {
        assert!(read(&pki.join("etcd").join(name)) == read(&tls.join(&origin)), "{origin} on the node is another one");
    }
    assert_applied_once(cluster);
}

/// Every object of manifests/ is as it was made: a second apply would show in its generation or its managers.
fn assert_applied_once(cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    let kinds = "daemonsets,deployments,secrets,serviceaccounts,poddisruptionbudgets,roles,rolebindings";
    let mut objects = kubectl.list(&["--show-managed-fields", "-n", "kube-system", kinds]);
    objects.extend(kubectl.list(&["--show-managed-fields", "clusterroles,clusterrolebindings"]));
    let mut count = 0;
    for object in &objects {
        let metadata = &object["metadata"];
        if metadata["annotations"]["hoist/manifest-sha256"].is_null() {
            continue;
        }
        count += 1;
        let name = format!("{} {}", object["kind"], metadata["name"]);
        let generation = metadata["generation"].as_u64();
        assert!(generation.is_none_or(|generation| generation == 1), "{name} was changed: {metadata}");
        let managers = metadata["managedFields"].as_array().unwrap();
        let applied: Vec<_> = managers.iter().filter(|entry| entry["manager"] == "hoist").collect();
        assert_eq!(applied.len(), 1, "{name}: {managers:?}");
        let seconds =
            |time: &Value| time.as_str().unwrap().parse::<k8s_openapi::jiff::Timestamp>().unwrap().as_second();
        let later = seconds(&applied[0]["time"]) - seconds(&metadata["creationTimestamp"]);
        assert!(later <= 1, "{name} was applied again, {later} s after it was made: {managers:?}");
        if object["kind"] == "Secret" {
            let path = cluster.assets.join(format!("manifests/{}/secret.yaml", metadata["name"].as_str().unwrap()));
            let text = std::fs::read_to_string(&path).unwrap();
            let rendered: Value = serde_yaml::from_str(&text).unwrap();
            assert!(object["data"] == rendered["data"], "{name} is not as rendered");
        }
    }
    assert!(count >= 14, "only {count} objects that hoist has applied were found");
}

/// Every file of the asset directory that holds a key, or was made with one.
fn keys(cluster: &Cluster) -> BTreeMap<String, Vec<u8>> {
    fn collect(dir: &Path, keys: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, keys);
            // `start` notes there which cluster it has brought up.
            } else if !path.ends_with("cluster-id") {
                keys.insert(path.display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut keys = BTreeMap::new();
    collect(&cluster.assets, &mut keys);
    assert!(keys.keys().any(|path| path.ends_with("tls/ca.key")));
    keys
}

/// Looks, all the time, whether every process of the bridge and of the self-hosted control plane has its secrets.
struct Guard(Beside<Looks>);

/// What it saw.
#[derive(Default)]
struct Looks {
    /// How many processes it has looked at, each as often as it did.
    processes: usize,
    /// Those that had lost theirs.
    bereft: Vec<String>,
}

impl fmt::Display for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "looked {} times at a process of the control plane; without its secrets: {:?}",
            self.processes, self.bereft
        )
    }
}

impl Guard {
    fn begin(node: &Node) -> Self {
        const INTERVAL: Duration = Duration::from_millis(50);
        // The control plane's pods are in the node's own network: by that a process is known to be of this node.
        let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let own = network(&init_of(node)).unwrap();
        Self(Beside::begin(move |told| {
            let mut looks = Looks::default();
            let begun = Instant::now();
            while !told.to_stop() {
                let pids = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
                for pid in pids.filter_map(|name| name.into_string().ok()).filter(|pid| pid.parse::<u32>().is_ok()) {
                    let Some(program) = control_plane_program(&pid) else { continue };
                    if network(&pid).as_ref() != Some(&own) {
                        continue;
                    }
                    looks.processes += 1;
                    // In its own view of the file system: gone from the host, it is gone here, too.
                    let secret = format!("/proc/{pid}/root/etc/kubernetes/secrets/ca.crt");
                    let lost =
                        std::fs::metadata(&secret).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
                    if lost && control_plane_program(&pid).as_ref() == Some(&program) {
                        looks.bereft.push(format!("{program}, pid {pid}, after {:.1?}", begun.elapsed()));
                    }
                }
                std::thread::sleep(INTERVAL);
            }
            looks
        }))
    }

    fn end(self) -> Looks {
        self.0.end()
    }
}

/// What of the control plane a process is; `None` for all others, and for one that has ended.
fn control_plane_program(pid: &str) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next()?.rsplit('/').next()?.to_owned();
    match program.as_str() {
        "kube-apiserver" | "kube-controller-manager" | "kube-scheduler" => Some(program),
        "hoist" if words.next()? == "forward" => Some("forwarder".into()),
        _ => None,
    }
}
