//! One real pivot, measured for a picture: the steps as `start` tells them, who answers at which address as a process
//! in the node sees it, and what clients outside of it experience.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::events::events;
use crate::support::node::Node;
use crate::support::traffic::Traffic;
use crate::svg;
use crate::who::{Look, Server, Who};

/// How long to go on looking once `start` has ended.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// All that is drawn; times in seconds from the beginning of `start`.
pub struct Timeline {
    pub kubernetes: String,
    pub processors: usize,
    pub steps: Vec<Step>,
    /// When `start` ended, and when the looking did.
    pub done: f64,
    pub end: f64,
    pub bridge: Vec<Span<bool>>,
    pub clients: Vec<Span<Who>>,
    pub self_hosted: Vec<Span<bool>>,
    pub requests: Vec<Request>,
    pub longest_gap: f64,
}

pub struct Step {
    pub id: String,
    pub title: String,
    /// It may run more than once.
    pub spans: Vec<(f64, f64)>,
}

/// A time during which all looks saw the same.
pub struct Span<T> {
    pub from: f64,
    pub to: f64,
    /// Of an API server: whether it is ready.
    pub what: T,
}

pub struct Request {
    pub at: f64,
    pub took: f64,
    pub failed: bool,
}

/// Runs `hoist start` on a fresh node and draws what happened to `file`.
pub fn measure(file: &Path) {
    let node = Node::up("bench-timeline");
    let cluster = Cluster::render(&node);
    let own = std::env::current_exe().unwrap();
    let address = SocketAddr::new(node.address, 6443).to_string();
    let who = node.spawn([own.to_str().unwrap(), "who", &address]);
    let traffic = Traffic::begin(cluster.client());
    let ended = cluster.start(&node, &["--output=json"]).wait(START_LIMIT).expect(0);
    std::thread::sleep(AFTERWARDS);
    let (now, unix) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64());
    let record = traffic.end().unwrap();
    let looks = who.kill().stdout;

    let events = events(&ended.stdout);
    let zero = begun(&events);
    let looks: Vec<Look> = looks.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(looks.len() > 20, "nobody looked who serves: {looks:?}");
    let bridges: BTreeSet<_> = looks.iter().filter_map(|look| Some(&*look.bridge.as_ref()?.id)).collect();
    let ready = |server: &Option<Server>| server.as_ref().map(|server| server.ready);
    let spans = |look: &dyn Fn(&Look) -> Option<bool>| spans(&looks, zero, look);
    let ready_at = unix - (now - record.ready).as_secs_f64() - zero;
    let timeline = Timeline {
        kubernetes: node.kubernetes.clone(),
        processors: std::thread::available_parallelism().unwrap().get(),
        done: events.last().unwrap()["elapsedSeconds"].as_f64().unwrap(),
        end: unix - zero,
        bridge: spans(&|look| ready(&look.bridge)),
        clients: self::spans(&looks, zero, &|look| look.who(&bridges)),
        self_hosted: spans(&|look| ready(&look.self_hosted)),
        requests: record
            .exchanges
            .iter()
            .map(|exchange| Request {
                at: ready_at + exchange.at.as_secs_f64(),
                took: exchange.took.as_secs_f64(),
                failed: exchange.failure.is_some(),
            })
            .collect(),
        longest_gap: record.longest_gap().0.as_secs_f64(),
        steps: steps(&events),
    };
    std::fs::write(file, svg::draw(&timeline)).unwrap();
    println!("{record}");
    println!("{}", file.display());
}

/// When the run began, in seconds since 1970.
fn begun(events: &[Value]) -> f64 {
    let time = OffsetDateTime::parse(events[0]["time"].as_str().unwrap(), &Rfc3339).unwrap();
    time.unix_timestamp_nanos() as f64 / 1e9 - events[0]["elapsedSeconds"].as_f64().unwrap()
}

fn steps(events: &[Value]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for event in events {
        let at = event["elapsedSeconds"].as_f64().unwrap();
        let id = event["step"].as_str().unwrap_or_default();
        match event["event"].as_str().unwrap() {
            "step-started" if !steps.iter().any(|step| step.id == id) => {
                let title = event["title"].as_str().unwrap().to_owned();
                steps.push(Step { id: id.into(), title, spans: Vec::new() });
            }
            "step-done" => {
                let step = steps.iter_mut().find(|step| step.id == id).unwrap();
                step.spans.push((at - event["durationSeconds"].as_f64().unwrap(), at));
            }
            _ => {}
        }
    }
    steps
}

/// What the looks saw, put together as long as it stays the same; a time without anything has no span.
fn spans<T: PartialEq + Copy>(looks: &[Look], zero: f64, what: &dyn Fn(&Look) -> Option<T>) -> Vec<Span<T>> {
    let mut spans: Vec<Span<T>> = Vec::new();
    let mut before = None;
    for look in looks {
        let (now, at) = (what(look), look.at - zero);
        // Seen the same on both sides, it was so between them.
        if let (Some(last), true) = (spans.last_mut(), before.is_some()) {
            last.to = at;
        }
        if let (Some(what), true) = (now, now != before) {
            spans.push(Span { from: at, to: at, what });
        }
        before = now;
    }
    spans
}
