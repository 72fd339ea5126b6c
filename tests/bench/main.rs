//! How long `hoist start` takes, what it costs, and what clients see of the pivot; beside it, in the same run and on
//! the same kind of node, `kubeadm init`. Measures; asserts nothing about time. `scripts/bench` runs it.
//!
//! And how long many manifests take to apply, beside `kubectl apply`; what guard does, beside kubeadm's boot; how long a
//! user waits for an application, and what a control plane takes at rest, beside kubeadm's; what the cache of DNS
//! saves; what the endpoint takes; and what the loss of one of three controllers costs.
//! Environment: `HOIST_BIN`, the binary.

// clippy.toml allows them in #[test] functions; these files are tests throughout.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod apply;
mod cluster;
mod dns;
mod endpoint;
mod guard;
mod ha;
mod moments;
mod rest;
mod run;
mod svg;
mod table;
mod timeline;
mod watch;
mod who;

use std::path::Path;
use std::time::Instant;

use run::{UnderLoad, hoist, hoist_under_load, kubeadm};
use serde::Serialize;
use support::cluster::{declaration, render};
use support::http::runtime;
use support::node::Node;

/// Renders are short: so many of them say something.
const RENDERS: usize = 10;

/// All that was measured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    kubernetes: String,
    processors: usize,
    hoist: Vec<run::Start>,
    kubeadm: Vec<run::Start>,
    hoist_under_load: Vec<UnderLoad>,
    render_seconds: Vec<f64>,
    binary_bytes: u64,
}

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().expect("a number");
    match args[..] {
        ["start", runs] => start(number(runs)),
        ["guard", runs] => guard::measure(number(runs)),
        ["ha", runs] => ha::measure(number(runs)),
        ["cluster", runs] => cluster::measure(number(runs)),
        ["dns"] => dns::measure(),
        ["endpoint"] => endpoint::measure(),
        ["apply", runs, most] => apply::measure(number(runs), number(most)),
        ["timeline", file] => timeline::measure(Path::new(file)),
        // What the above starts as processes of their own.
        ["apply-dir", dir, kubeconfig, address] => {
            let address = address.parse().expect("an address");
            runtime().block_on(apply::apply_dir(Path::new(dir), Path::new(kubeconfig), address));
        }
        ["who", clients] => runtime().block_on(who::watch(clients.parse().expect("an address"))),
        _ => panic!("run scripts/bench, which knows what to ask for; not {args:?}"),
    }
}

/// `hoist start` beside `kubeadm init`.
fn start(runs: usize) {
    let processors = std::thread::available_parallelism().unwrap().get();
    let binary_bytes = std::fs::metadata(support::hoist()).unwrap().len();
    let (kubernetes, render_seconds) = renders();
    let mut results = Results {
        kubernetes,
        processors,
        hoist: Vec::new(),
        kubeadm: Vec::new(),
        hoist_under_load: Vec::new(),
        render_seconds,
        binary_bytes,
    };
    // In turns: what the machine is doing besides meets all of them alike.
    for number in 1..=runs {
        results.hoist.push(hoist());
        eprintln!("{number} of {runs}: hoist {}", results.hoist.last().unwrap());
        results.kubeadm.push(kubeadm());
        eprintln!("{number} of {runs}: kubeadm {}", results.kubeadm.last().unwrap());
        let under_load = hoist_under_load();
        eprintln!("{number} of {runs}: hoist under load, {}", under_load.text);
        results.hoist_under_load.push(under_load);
    }
    print!("{}", table::table(&results));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench.json");
    std::fs::write(&file, serde_json::to_string_pretty(&results).unwrap()).unwrap();
    println!("{}", file.display());
}

/// The version of Kubernetes that nodes have, and how long each of some renders into an empty folder took.
fn renders() -> (String, Vec<f64>) {
    let node = Node::up("bench-render");
    let declaration = declaration(&node, node.address);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let render = |number| {
        let begun = Instant::now();
        render(&declaration, &folder.path().join(format!("assets-{number}"))).ok();
        begun.elapsed().as_secs_f64()
    };
    (node.kubernetes.clone(), (0..RENDERS).map(render).collect())
}
