//! One run of each kind, on a fresh node.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use serde::Serialize;
use serde_json::Value;

use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::command::Running;
use crate::support::http::Client;
use crate::support::node::{Node, disk};
use crate::support::repository;
use crate::support::traffic::Traffic;
use crate::watch::Watch;

/// How long after its beginning a run may be watched.
const WATCH_LIMIT: Duration = Duration::from_secs(300);
/// How long clients go on after `start` has ended.
const AFTERWARDS: Duration = Duration::from_secs(10);
/// How long after the lowering has begun clients may notice it: the forwarder closes its listener at once.
const PIVOT: Duration = Duration::from_secs(5);

/// One bringing-up of a control plane; times in seconds from the command's start.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// The first time that /readyz at the node's address was 200 and the administrator's credentials were let in.
    pub api_ready: f64,
    /// Both Leases are held by those who hold them in the end: for hoist, by the self-hosted control plane.
    pub leaders: f64,
    /// The command has ended.
    pub exit: f64,
    pub peak_memory_bytes: u64,
    /// What hoist says that each step took, by its id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub steps: BTreeMap<String, f64>,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api_ready, leaders, exit, .. } = self;
        write!(f, "API ready after {api_ready:.1} s, both leaders {leaders:.1} s, exit {exit:.1} s")
    }
}

/// What clients saw of a start.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnderLoad {
    pub requests: usize,
    pub failed: usize,
    /// The longest time between two successes, of all the time and of the seconds after the bridge was lowered.
    pub longest_gap: f64,
    pub longest_gap_at_pivot: f64,
    pub exit: f64,
    #[serde(skip)]
    pub text: String,
}

/// `hoist start`.
pub fn hoist() -> Start {
    let node = Node::up("bench-hoist");
    let cluster = Cluster::render(&node);
    let client = cluster.client();
    measure(node.spawn(cluster.start_command(&["--output=json"])), move || Some(client.clone()))
}

/// `kubeadm init`, with what hoist start does as well: no preflight checks that take long, no add-ons.
pub fn kubeadm() -> Start {
    kubeadm_on(&Node::up("bench-kubeadm"))
}

/// The same on a node that outlives it.
pub fn kubeadm_on(node: &Node) -> Start {
    let template = std::fs::read_to_string(repository().join("tests/kubeadm.yaml")).unwrap();
    let config = template
        .replace("NODE_NAME", &node.name)
        .replace("NODE_IP", &node.address.to_string())
        .replace("KUBERNETES_VERSION", &format!("v{}", node.kubernetes));
    node.sh(&format!("systemctl enable kubelet\ncat >/root/kubeadm.yaml <<'END'\n{config}\nEND"));
    let command =
        "kubeadm init --config=/root/kubeadm.yaml --skip-phases=preflight,addon --ignore-preflight-errors=all";
    measure(node.spawn(command.split(' ')), kubeadm_client(node))
}

/// Makes a client as soon as kubeadm has written the administrator's credentials.
pub fn kubeadm_client(node: &Node) -> impl FnMut() -> Option<Client> + use<> {
    let credentials = disk(node).join("private/etc-kubernetes/super-admin.conf");
    let address = SocketAddr::new(node.address, 6443);
    move || {
        // Half a file is no file: kubeadm may be writing it.
        let text = std::fs::read_to_string(&credentials).ok()?;
        let config: Value = serde_yaml::from_str(&text).ok()?;
        let decode =
            |pointer: &str| base64::engine::general_purpose::STANDARD.decode(config.pointer(pointer)?.as_str()?).ok();
        let ca = decode("/clusters/0/cluster/certificate-authority-data")?;
        let certificate = decode("/users/0/user/client-certificate-data")?;
        let key = decode("/users/0/user/client-key-data")?;
        Some(Client::with_certificate(&ca, &certificate, &key, address))
    }
}

/// Watches a command to its end and until there are leaders.
fn measure(running: Running, connect: impl FnMut() -> Option<Client> + Send + 'static) -> Start {
    let watch = Watch::begin(connect, WATCH_LIMIT);
    let (ended, peak_memory_bytes) = running.wait_measuring(START_LIMIT);
    let seen = watch.end();
    let exit = ended.took.as_secs_f64();
    let stdout = ended.ok();
    let seconds = |time: Option<Duration>, what: &str| {
        time.unwrap_or_else(|| panic!("{what}: not within {WATCH_LIMIT:?}")).as_secs_f64()
    };
    Start {
        api_ready: seconds(seen.api_ready, "the API is ready"),
        leaders: seconds(seen.leaders(), "both Leases are held"),
        exit,
        peak_memory_bytes,
        steps: steps(&stdout),
    }
}

/// The steps' durations in the events of `--output=json`.
pub fn steps(stdout: &str) -> BTreeMap<String, f64> {
    let events = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let done = events.filter(|event| event["event"] == "step-done");
    done.filter_map(|event| Some((event["step"].as_str()?.to_owned(), event["durationSeconds"].as_f64()?))).collect()
}

/// `hoist start` with clients at work. A run of its own: they take time from what they watch.
pub fn hoist_under_load() -> UnderLoad {
    let node = Node::up("bench-load");
    let cluster = Cluster::render(&node);
    let traffic = Traffic::begin(cluster.client());
    let start = cluster.start(&node, &["--output=json"]);
    let begun = start.begun();
    let ended = start.wait(START_LIMIT).expect(0);
    std::thread::sleep(AFTERWARDS);
    let record = traffic.end().unwrap();
    let lowered = (begun + lowered(&ended.stdout)).saturating_duration_since(record.ready);
    UnderLoad {
        requests: record.exchanges.len(),
        failed: record.failures().count(),
        longest_gap: record.longest_gap().0.as_secs_f64(),
        longest_gap_at_pivot: record.longest_gap_within(lowered..lowered + PIVOT).0.as_secs_f64(),
        exit: ended.took.as_secs_f64(),
        text: record.to_string(),
    }
}

/// When `start` says that it began to lower the bridge.
fn lowered(stdout: &str) -> Duration {
    let events = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut begins = events.filter(|event| event["event"] == "step-started" && event["step"] == "lower");
    Duration::from_secs_f64(begins.next().unwrap()["elapsedSeconds"].as_f64().unwrap())
}
