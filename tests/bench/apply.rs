//! How long it takes to apply many manifests: hoist's apply beside `kubectl apply --server-side -f DIR`, each as a
//! process of its own, in turns, against the same API server.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hoist::api;
use hoist::base::files::File;
use hoist::desired::assets::{self, AssetSet};
use serde::Serialize;

use crate::run::steps;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::command::Running;
use crate::support::node::{Node, processor_time};

/// How many manifests.
const COUNTS: [usize; 4] = [10, 100, 1_000, 5_000];
const LIMIT: Duration = Duration::from_secs(900);
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// All that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    /// `hoist start` with as many manifests as the most of [`COUNTS`] beside its own.
    start: Start,
    applies: Vec<Apply>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    manifests: usize,
    exit: f64,
    apply_step: f64,
    peak_memory_bytes: u64,
}

/// One count, once; times in seconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Apply {
    manifests: usize,
    hoist: f64,
    hoist_peak_memory_bytes: u64,
    /// Processor time of all that runs in the node meanwhile: API server, etcd, controllers.
    hoist_server: f64,
    /// The same once more: nothing has changed.
    hoist_again: f64,
    kubectl: f64,
    kubectl_peak_memory_bytes: u64,
    kubectl_server: f64,
}

/// Measures each count `runs` times, and prints a table; says in which file all of it is.
pub fn measure(runs: usize, most: usize) {
    let node = Node::up("bench-apply");
    let cluster = Cluster::render(&node);
    let start = start(&node, &cluster, most);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut applies = Vec::new();
    for manifests in COUNTS.into_iter().filter(|count| *count <= most) {
        for run in 1..=runs {
            let dir = |who: &str| {
                let dir = folder.path().join(format!("{who}-{manifests}-{run}"));
                write(&dir.join("manifests"), manifests, &format!("{who}-{manifests}-{run}"));
                dir
            };
            let (theirs, ours) = (dir("kubectl"), dir("hoist"));
            let kubectl = |dir: &Path| {
                // What it has learnt of an older cluster at this address helps neither: the cluster is new.
                let (cache, dir) = (dir.join("cache"), dir.join("manifests"));
                let args =
                    ["--cache-dir", cache.to_str().unwrap(), "apply", "--server-side", "-f", dir.to_str().unwrap()];
                done(&node, cluster.kubectl().spawn(&args))
            };
            let hoist = |dir: &Path| {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg("apply-dir").arg(dir).arg(cluster.assets.join("auth/kubeconfig"));
                done(&node, Running::spawn(command.arg(SocketAddr::new(cluster.address, 6443).to_string()), ""))
            };
            // Whoever is second finds the API server warmer, so that they take turns at it.
            let (kubectl, (hoist_first, hoist_again)) = if run % 2 == 1 {
                (kubectl(&theirs), (hoist(&ours), hoist(&ours)))
            } else {
                let hoist = (hoist(&ours), hoist(&ours));
                (kubectl(&theirs), hoist)
            };
            let apply = Apply {
                manifests,
                hoist: hoist_first.took,
                hoist_peak_memory_bytes: hoist_first.peak_memory,
                hoist_server: hoist_first.server,
                hoist_again: hoist_again.took,
                kubectl: kubectl.took,
                kubectl_peak_memory_bytes: kubectl.peak_memory,
                kubectl_server: kubectl.server,
            };
            eprintln!("{manifests}, {run} of {runs}: hoist {:.2} s, kubectl {:.2} s", apply.hoist, apply.kubectl);
            applies.push(apply);
        }
    }
    let results = Results { start, applies };
    print!("{}", table(&results));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-apply.json");
    std::fs::write(&file, serde_json::to_string_pretty(&results).unwrap()).unwrap();
    println!("{}", file.display());
}

/// What one command took.
struct Done {
    took: f64,
    peak_memory: u64,
    server: f64,
}

fn done(node: &Node, running: Running) -> Done {
    let before = processor_time(node).unwrap();
    let (ended, peak_memory) = running.wait_measuring(LIMIT);
    let server = processor_time(node).unwrap() - before;
    let took = ended.took.as_secs_f64();
    ended.ok();
    Done { took, peak_memory, server }
}

fn start(node: &Node, cluster: &Cluster, manifests: usize) -> Start {
    write(&cluster.assets.join("manifests/many"), manifests, "start");
    let (ended, peak_memory_bytes) = cluster.start(node, &["--output=json"]).wait_measuring(START_LIMIT);
    let exit = ended.took.as_secs_f64();
    let apply_step = steps(&ended.ok())["apply"];
    eprintln!("start with {manifests} manifests more: {exit:.1} s, {apply_step:.1} s of them to apply");
    Start { manifests, exit, apply_step, peak_memory_bytes }
}

/// Writes `count` manifests, a file each: ConfigMaps for the most part, and three other kinds, in namespaces that are
/// among them.
fn write(dir: &Path, count: usize, prefix: &str) {
    std::fs::create_dir_all(dir).unwrap();
    let namespaces = (count / 100).clamp(1, 20);
    for number in 0..count {
        let (name, text) = if number < namespaces {
            let name = format!("{prefix}-{number}");
            (format!("00-{name}"), format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n"))
        } else {
            let metadata = format!("metadata:\n  name: many-{number}\n  namespace: {prefix}-{}\n", number % namespaces);
            // Not by the remainder alone, by which the namespaces go.
            let text = match number / namespaces % 10 {
                0 => format!("apiVersion: v1\nkind: Secret\n{metadata}stringData:\n  password: not-{number}\n"),
                1 => format!("apiVersion: v1\nkind: ServiceAccount\n{metadata}automountServiceAccountToken: false\n"),
                2 => format!(
                    "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n{metadata}rules:\n- apiGroups: [\"\"]\n  resources: [pods]\n  verbs: [get, list, watch]\n"
                ),
                _ => format!(
                    "apiVersion: v1\nkind: ConfigMap\n{metadata}  labels:\n    app: many\ndata:\n  number: \"{number}\"\n  config.ini: |\n    [server]\n    address = 0.0.0.0\n    port = 8080\n    workers = 4\n"
                ),
            };
            (format!("many-{number:05}"), text)
        };
        std::fs::write(dir.join(format!("{name}.yaml")), text).unwrap();
    }
}

/// What `start` does with manifests, alone: reads those of `dir`, connects, applies. Runs as a process of its own.
pub async fn apply_dir(dir: &Path, kubeconfig: &Path, address: SocketAddr) {
    let files = assets::existing(dir, "manifests").unwrap();
    let files = files.into_iter().map(|(path, content)| (format!("manifests/{path}"), File::public(content)));
    let (manifests, _) = AssetSet { files: files.collect(), ..AssetSet::default() }.manifests(dir).unwrap();
    let client = api::connect(&std::fs::read_to_string(kubeconfig).unwrap(), address).await.unwrap();
    let outcome = api::apply::apply(&client, &manifests, false).await.unwrap();
    assert!(outcome.refused.is_empty(), "{:?}", outcome.refused);
    assert_eq!(outcome.applied, manifests.len());
}

fn table(results: &Results) -> String {
    let mut text = String::from("\napplying manifests, s (ms for each)\n\n");
    let _ = writeln!(
        text,
        "{:>9}  {:16}{:16}{:>8}  {:16}{:24}peak memory of hoist / kubectl, MiB",
        "manifests", "hoist", "kubectl", "kubectl/", "hoist, nothing", "processors of the node,"
    );
    let _ = writeln!(text, "{:>9}  {:16}{:16}{:>8}  {:16}ms each", "", "", "", "hoist", "to change");
    for apply in &results.applies {
        let milliseconds = |seconds: f64| seconds * 1000.0 / apply.manifests as f64;
        let each = |seconds: f64| format!("{seconds:.2} ({:.1})", milliseconds(seconds));
        let _ = writeln!(
            text,
            "{:>9}  {:16}{:16}{:>8.1}  {:<16.2}{:24}{:.0} / {:.0}",
            apply.manifests,
            each(apply.hoist),
            each(apply.kubectl),
            apply.kubectl / apply.hoist,
            apply.hoist_again,
            format!("{:.2} / {:.2}", milliseconds(apply.hoist_server), milliseconds(apply.kubectl_server)),
            apply.hoist_peak_memory_bytes as f64 / MEBIBYTE,
            apply.kubectl_peak_memory_bytes as f64 / MEBIBYTE,
        );
    }
    let Start { manifests, exit, apply_step, peak_memory_bytes } = &results.start;
    let _ = writeln!(
        text,
        "\nhoist start with {manifests} manifests more: {exit:.1} s, {apply_step:.1} s of them to apply; peak memory {:.1} MiB",
        *peak_memory_bytes as f64 / MEBIBYTE
    );
    text + &wanted(results)
}

/// What is wanted of the medians, and whether it was reached.
fn wanted(results: &Results) -> String {
    let medians = |of: fn(&Apply) -> f64| {
        COUNTS.into_iter().filter_map(move |count| {
            let mut values: Vec<_> = results.applies.iter().filter(|apply| apply.manifests == count).map(of).collect();
            values.sort_by(f64::total_cmp);
            Some((count, f64::midpoint(*values.get(values.len().checked_sub(1)? / 2)?, *values.get(values.len() / 2)?)))
        })
    };
    let mut text = format!("\n{:44}{:>10}{:>10}\n", "wanted", "", "measured");
    let mut row = |what: &str, limit: &str, measured: f64, reached: bool| {
        let verdict = if reached { "" } else { "  NOT REACHED" };
        let _ = writeln!(text, "{what:44}{limit:>10}{measured:>10.2}{verdict}");
    };
    for (count, ratio) in medians(|apply| apply.kubectl / apply.hoist) {
        row(&format!("kubectl's time / hoist's, {count} manifests"), ">= 3", ratio, ratio >= 3.0);
    }
    // The first few pay for the connection.
    let each: Vec<_> =
        medians(|apply| apply.hoist / apply.manifests as f64).filter(|(count, _)| *count >= 100).collect();
    if let [(few, first), .., (many, last)] = each[..] {
        let growth = last / first;
        row(&format!("time for each of {many} / of {few}"), "<= 1.2", growth, growth <= 1.2);
    }
    text
}
