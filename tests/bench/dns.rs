//! Lookups with and without the cache of each node, from a pod of a worker: how long they take, and how many of them the
//! cache answers by itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::support::cluster::Cluster;
use crate::support::dns::{ask, ask_in};
use crate::support::node::{Node, inside};
use crate::support::{eventually, worker};
use crate::table::Spread;

/// The DNS Service, which is the cache on each node; and CoreDNS itself, by kube-proxy.
const WAYS: [(&str, Ipv4Addr); 2] =
    [("with the cache", Ipv4Addr::new(10, 96, 0, 10)), ("without", Ipv4Addr::new(10, 96, 0, 11))];
/// The command of the pod that asks; no other process of this machine has it.
const ASKER: [&str; 2] = ["sleep", "86397"];
/// How many Services are asked for, in turns, and how often in all.
const SERVICES: usize = 100;
const LOOKUPS: usize = 5000;
const SOON: Duration = Duration::from_secs(120);

/// What one way came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Way {
    way: String,
    seconds: Vec<f64>,
    failed: usize,
    /// Of the cache's own counters; none where it was not asked.
    hit_ratio: Option<f64>,
}

/// Brings a controller and a worker up, asks, and prints a table; says in which file all of it is.
pub fn measure() {
    let node = Node::plain("bench-dns");
    let cluster = Cluster::render(&node);
    cluster.started(&node, &[]).ok();
    let worker = worker::up("bench-dns-1", &cluster);
    worker::is_ready(&worker, &cluster);
    let kubectl = cluster.kubectl();
    kubectl.apply(&objects(&worker));
    kubectl.run(&["wait", "--for=condition=Ready", "--timeout=120s", "pod", "--all"]).ok();
    kubectl.run(&["-n", "kube-system", "rollout", "status", "--timeout=120s", "daemonset/node-local-dns"]).ok();
    let ways: Vec<_> = WAYS.iter().map(|(way, server)| asked(way, IpAddr::V4(*server), &worker)).collect();
    println!("\n{LOOKUPS} lookups of {SERVICES} Services, one after the other, from a pod of a worker");
    println!("{:24}{:>14}{:>14}{:>14}{:>10}{:>12}", "", "median, ms", "99 of 100", "longest", "failed", "hits");
    for way in &ways {
        let mut all = way.seconds.clone();
        all.sort_by(f64::total_cmp);
        let of = |part: usize| all[(all.len() * part / 100).min(all.len() - 1)] * 1000.0;
        let hits = way.hit_ratio.map_or("-".into(), |ratio| format!("{:.1} %", ratio * 100.0));
        let median = Spread::of(all.iter().copied()).median * 1000.0;
        println!("{:24}{median:>14.3}{:>14.3}{:>14.3}{:>10}{hits:>12}", way.way, of(99), of(100), way.failed);
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-dns.json");
    std::fs::write(&file, serde_json::to_string_pretty(&ways).unwrap()).unwrap();
    println!("{}", file.display());
}

fn objects(worker: &Node) -> String {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: client}}\nspec:\n  nodeName: {}\n  containers:\n  - {{name: client, \
         image: \"docker.io/library/busybox:1.36\", command: {ASKER:?}}}\n",
        worker.name
    );
    let service =
        |n| format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}}}\nspec: {{ports: [{{port: 80}}]}}\n");
    pod + &(0..SERVICES).map(service).collect::<String>()
}

fn asked(way: &str, server: IpAddr, worker: &Node) -> Way {
    let server = SocketAddr::new(server, 53);
    let name = |n: usize| format!("s{}.default.svc.cluster.local", n % SERVICES);
    // The last one made is known.
    eventually("the Services have names", SOON, || {
        ask_in(worker::pod_network(&ASKER), server, &name(SERVICES - 1)).ok()
    });
    let before = counters(worker);
    let (mut seconds, mut failed) = (Vec::new(), 0);
    let network = worker::pod_network(&ASKER);
    let names: Vec<_> = (0..LOOKUPS).map(name).collect();
    let answers = inside(network, move || {
        let ask = |name: &String| {
            let begun = Instant::now();
            (ask(server, name), begun.elapsed())
        };
        names.iter().map(ask).collect::<Vec<_>>()
    });
    for (answer, took) in answers {
        seconds.push(took.as_secs_f64());
        failed += usize::from(answer.is_err());
    }
    let after = counters(worker);
    let (hits, requests) = (after.0 - before.0, after.1 - before.1);
    let hit_ratio = (requests >= LOOKUPS as f64).then(|| hits / requests);
    Way { way: way.to_owned(), seconds, failed, hit_ratio }
}

/// How many lookups the cache of a node has answered by itself, and how many it was asked.
fn counters(node: &Node) -> (f64, f64) {
    let text = node.exec(["busybox", "wget", "-qO-", "http://127.0.0.1:9253/metrics"]).ok();
    let sum = |name: &str| {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    (sum("coredns_cache_hits_total"), sum("coredns_cache_requests_total"))
}
