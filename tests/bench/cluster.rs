//! How long a user waits for an application, and an operator for a worker; and what the control plane takes at rest, beside
//! kubeadm's on the same kind of node.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::moments::{kubelet_started, until};
use crate::rest::{PROGRAMS, Rest, at_rest};
use crate::run::kubeadm_on;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::controller::Controller;
use crate::support::http::{Client, runtime};
use crate::support::node::{Node, inside};
use crate::support::{dns, worker};
use crate::table::{MEBIBYTE, Spread, columns, compared, head};

/// The DNS Service.
const DNS: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 10), 53);
/// The command of the pod that asks; no other process of this machine has it.
const ASKER: [&str; 2] = ["sleep", "86396"];
const SERVICE: &str = "web.default.svc.cluster.local";

/// All that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    kubernetes: String,
    processors: usize,
    applications: Vec<Application>,
    hoist: Vec<Rest>,
    kubeadm: Vec<Rest>,
}

/// An application on a worker, and another worker that comes later; times in seconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Application {
    /// From the beginning of `start` on.
    start_exit: f64,
    first_worker_ready: f64,
    /// One of its pods answered another one, by the name of its Service.
    answered: f64,
    /// A second worker, from its switch on: it is ready; and the same from its kubelet on.
    worker_booted_ready: f64,
    worker_kubelet_ready: f64,
}

/// One of them.
type Seconds = fn(&Application) -> f64;

/// Measures them in turns, and prints a table; says in which file all of it is.
pub fn measure(runs: usize) {
    let processors = std::thread::available_parallelism().unwrap().get();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-cluster.json");
    let mut results =
        Results { kubernetes: String::new(), processors, applications: vec![], hoist: vec![], kubeadm: vec![] };
    for number in 1..=runs {
        let (application, kubernetes) = application();
        eprintln!("{number} of {runs}: {application:.2?}");
        results.applications.push(application);
        results.kubernetes = kubernetes;
        let controller = Controller::up("bench-hoist");
        controller.until_lowered();
        results.hoist.push(at_rest(&controller.node));
        drop(controller);
        eprintln!("{number} of {runs}: hoist at rest: {:.3?}", results.hoist.last().unwrap());
        let node = Node::up("bench-kubeadm");
        kubeadm_on(&node);
        results.kubeadm.push(at_rest(&node));
        eprintln!("{number} of {runs}: kubeadm at rest: {:.3?}", results.kubeadm.last().unwrap());
        // After each: a run takes minutes, and the next one may fail.
        std::fs::write(&file, serde_json::to_string_pretty(&results).unwrap()).unwrap();
    }
    print!("{}", table(&results));
    println!("{}", file.display());
}

/// The controller is empty, and the worker's kubelet waits for it.
fn application() -> (Application, String) {
    let node = Node::plain("bench-user");
    let cluster = Cluster::render(&node);
    let [first, second] = ["bench-user-1", "bench-user-2"].map(Node::plain);
    worker::join(&first, &cluster);
    std::fs::create_dir_all(cluster.assets.join("addons")).unwrap();
    std::fs::write(cluster.assets.join("addons/web.yaml"), objects(&first)).unwrap();
    let start = cluster.start(&node, &[]);
    let begun = start.begun();
    let ready = std::thread::spawn({
        let (client, name) = (cluster.client(), first.name.clone());
        move || is_ready(&client, &name, begun)
    });
    let asker = std::thread::spawn(move || answered(worker::pod_network(&ASKER), begun));
    let start_exit = start.wait(START_LIMIT).expect(0).took.as_secs_f64();
    let (first_worker_ready, answered) = (ready.join().unwrap(), asker.join().unwrap());

    // What is on its disk when it is switched on is what a first boot finds.
    worker::join_at_boot(&second, &cluster);
    second.power_cut();
    let (switched, since) = (Instant::now(), SystemTime::now());
    second.boot();
    let worker_booted_ready = is_ready(&cluster.client(), &second.name, switched);
    let worker_kubelet_ready = worker_booted_ready - kubelet_started(&second, since);
    let application =
        Application { start_exit, first_worker_ready, answered, worker_booted_ready, worker_kubelet_ready };
    (application, node.kubernetes.clone())
}

/// A server, whoever asks it, and its Service.
fn objects(worker: &Node) -> String {
    let image = "docker.io/library/busybox:1.36";
    let (node, name) = (&worker.name, "metadata: {name");
    format!(
        "apiVersion: v1\nkind: Pod\n{name}: web, labels: {{app: web}}}}\nspec:\n  nodeName: {node}\n  containers:\n  - \
         {{name: web, image: \"{image}\", command: [httpd, -f, -p, \"8080\", -h, /etc]}}\n---\n\
         apiVersion: v1\nkind: Pod\n{name}: asker}}\nspec:\n  nodeName: {node}\n  containers:\n  - \
         {{name: asker, image: \"{image}\", command: {ASKER:?}}}\n---\n\
         apiVersion: v1\nkind: Service\n{name}: web}}\nspec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
    )
}

/// When the server's page was had, from inside of the network of the one who asks.
fn answered(network: File, begun: Instant) -> f64 {
    inside(network, move || runtime().block_on(until(begun, async || page().is_some())))
}

fn page() -> Option<String> {
    let address = *dns::ask(SocketAddr::from(DNS), SERVICE).ok()?.first()?;
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::new(IpAddr::V4(address), 80), Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(b"GET /passwd HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    page.lines().next()?.contains(" 200 ").then_some(page)
}

/// When the API said for the first time that a node is ready.
fn is_ready(client: &Client, name: &str, begun: Instant) -> f64 {
    let path = format!("/api/v1/nodes/{name}");
    let says_so = async || {
        let Ok((200, body)) = client.get(&path).await else { return false };
        let node: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let conditions = node["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
    };
    runtime().block_on(until(begun, says_so))
}

fn table(results: &Results) -> String {
    let Results { kubernetes, processors, applications, hoist, kubeadm } = results;
    let runs = applications.len();
    let mut text = head(kubernetes, *processors, runs);
    let times: [(&str, Seconds); 5] = [
        ("start to its exit, s", |it| it.start_exit),
        ("start to a waiting worker ready, s", |it| it.first_worker_ready),
        ("start to a Service's answer, s", |it| it.answered),
        ("worker's switch to ready, s", |it| it.worker_booted_ready),
        ("worker's kubelet to ready, s", |it| it.worker_kubelet_ready),
    ];
    for (what, of) in times {
        text.push_str(&format!("{what:42}{}\n", Spread::of(applications.iter().map(of))));
    }
    text.push_str(&format!("\n{}", columns(42, "control plane at rest")));
    let mut compare = |what: &str, of: &dyn Fn(&Rest) -> f64| {
        text.push_str(&compared(42, what, hoist.iter().map(of), kubeadm.iter().map(of)));
    };
    for program in PROGRAMS {
        compare(&format!("{program}, MiB"), &|rest| {
            rest.bytes.get(program).copied().unwrap_or_default() as f64 / MEBIBYTE
        });
    }
    compare("all of them, MiB", &|rest| rest.all_bytes() / MEBIBYTE);
    for program in PROGRAMS {
        compare(&format!("{program}, % of a processor"), &|rest| {
            rest.share.get(program).copied().unwrap_or_default() * 100.0
        });
    }
    compare("all of them, % of a processor", &|rest| rest.all_share() * 100.0);
    compare("the whole node, % of a processor", &|rest| rest.node_share * 100.0);
    text
}
