//! What the loss of a controller costs, with three of them: one controller becomes three; each is lost in each way, and comes
//! back; the API server is edited. The clients ask at the endpoint of a worker.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::support::leases::LEADERS;
use crate::support::losses::{Saw, lose, reboot, signal};
use crate::support::node::Node;
use crate::support::several::Several;
use crate::table::{Spread, head};

/// All that was measured.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    kubernetes: String,
    processors: usize,
    one_to_three: Vec<f64>,
    losses: Vec<Loss>,
}

/// What clients saw of one event; times in seconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Loss {
    what: String,
    requests: usize,
    failed: usize,
    /// How long after the event the last request was sent that failed.
    fails_until: f64,
    longest_gap: f64,
    /// Until all three controllers served by themselves and both leaders led.
    whole: f64,
}

impl Loss {
    fn of(what: &str, saw: &Saw) -> Self {
        Self {
            what: what.to_owned(),
            requests: saw.record.exchanges.len(),
            failed: saw.record.failures().count(),
            fails_until: saw.record.fails_until(saw.at).as_secs_f64(),
            longest_gap: saw.gap().as_secs_f64(),
            whole: saw.whole.as_secs_f64(),
        }
    }
}

/// Measures, and prints a table; says in which file all of it is.
pub fn measure(runs: usize) {
    let processors = std::thread::available_parallelism().unwrap().get();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-ha.json");
    let mut results = Results { processors, ..Results::default() };
    for number in 1..=runs {
        let several = Several::one("bench-ha", 1);
        results.kubernetes = several.controllers[0].kubernetes.clone();
        let begun = Instant::now();
        several.make_three();
        results.one_to_three.push(begun.elapsed().as_secs_f64());
        each_loss(&several, &mut results.losses);
        eprintln!("{number} of {runs}");
        // After each: a run takes minutes, and the next one may fail.
        std::fs::write(&file, serde_json::to_string_pretty(&results).unwrap()).unwrap();
    }
    print!("{}", table(&results, runs));
    println!("{}", file.display());
}

fn each_loss(several: &Several, losses: &mut Vec<Loss>) {
    let mut measure = |what: &str, act: &dyn Fn(), until: &dyn Fn()| {
        losses.push(Loss::of(what, &several.during(what, act, until)));
    };
    let whole = || several.until_whole();
    measure("API server edited, three in turn", &|| several.edit("--event-ttl=2h"), &whole);
    for (index, node) in several.controllers.iter().enumerate() {
        let leads = || if several.leader() == index { "leader" } else { "follower" };
        measure("API server killed", &|| signal(node, "KILL", "kube-apiserver"), &whole);
        measure("API server hung", &|| signal(node, "STOP", "kube-apiserver"), &whole);
        measure(&format!("etcd stopped, {}", leads()), &|| signal(node, "TERM", "etcd"), &whole);
        measure(&format!("etcd killed, {}", leads()), &|| signal(node, "KILL", "etcd"), &whole);
        measure(&format!("reboot, etcd's {}", leads()), &|| reboot(node), &whole);
        measure(&format!("power cut, etcd's {}", leads()), &|| lose(node), &|| back(several, node));
    }
    let holder = &several.controllers[several.holder(LEADERS[0])];
    measure("power cut, controller manager's leader", &|| lose(holder), &|| back(several, holder));
}

/// The others lead and serve, and then it is switched on again.
fn back(several: &Several, node: &Node) {
    several.until_whole_but(&[&node.name]);
    node.boot();
    several.until_whole();
}

fn table(results: &Results, runs: usize) -> String {
    let Results { kubernetes, processors, one_to_three, losses } = results;
    let mut text = head(kubernetes, *processors, runs);
    text.push_str(&format!("{:42}{}\n\n", "one controller to three, s", Spread::of(one_to_three.iter().copied())));
    text.push_str(&format!(
        "{:42}{:>4}  {:22}{:22}{:22}{}\n",
        "", "", "failed requests", "last failure sent, s", "longest gap, s", "whole again, s"
    ));
    let mut kinds: Vec<&str> = Vec::new();
    for loss in losses {
        if !kinds.contains(&loss.what.as_str()) {
            kinds.push(&loss.what);
        }
    }
    for kind in kinds {
        let of_kind: Vec<_> = losses.iter().filter(|loss| loss.what == kind).collect();
        let spread = |of: fn(&Loss) -> f64| Spread::of(of_kind.iter().map(|loss| of(loss))).to_string();
        text.push_str(&format!(
            "{kind:42}{:>4}  {:22}{:22}{:22}{}\n",
            of_kind.len(),
            spread(|loss| loss.failed as f64),
            spread(|loss| loss.fails_until),
            spread(|loss| loss.longest_gap),
            spread(|loss| loss.whole),
        ));
    }
    text
}
