//! What guard does for a controller, in figures: its power is cut and it boots, beside a node of kubeadm's; its API
//! server is edited well and badly; its control plane goes back to static pods, and is self-hosted again.

mod boot;
mod clients;
mod steps;
mod table;

use std::path::Path;
use std::time::Duration;

use boot::Boot;
use clients::Experience;
use serde::Serialize;

use crate::run::{kubeadm_client, kubeadm_on};
use crate::support::cluster::START_LIMIT;
use crate::support::controller::{Controller, NO_IMAGE};
use crate::support::node::Node;

/// How long nothing happens before something is done: what came before must not be measured with it.
const AT_REST: Duration = Duration::from_secs(5);
/// How long a bad edit stands.
const STANDS: Duration = Duration::from_secs(5);

/// All that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    kubernetes: String,
    processors: usize,
    hoist: Vec<Guarded>,
    kubeadm: Vec<Boot>,
}

/// One controller, from one thing to the next.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Guarded {
    boot: Boot,
    good_edit: Experience,
    bad_edit: Experience,
    unpivot: Experience,
    start_again: Experience,
}

/// Measures both kinds in turns, and prints a table; says in which file all of it is.
pub fn measure(runs: usize) {
    let processors = std::thread::available_parallelism().unwrap().get();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-guard.json");
    let mut results = Results { kubernetes: String::new(), processors, hoist: Vec::new(), kubeadm: Vec::new() };
    for number in 1..=runs {
        let told = format!("{number} of {runs}");
        let (guarded, kubernetes) = hoist(number, &told);
        results.hoist.push(guarded);
        results.kubernetes = kubernetes;
        let boot = kubeadm();
        eprintln!("{told}: kubeadm, power cut: {boot}");
        results.kubeadm.push(boot);
        // After each: a run takes minutes, and the next one may fail.
        std::fs::write(&file, serde_json::to_string_pretty(&results).unwrap()).unwrap();
    }
    print!("{}", table::table(&results));
    println!("{}", file.display());
}

/// All of it on one node.
fn hoist(number: usize, told: &str) -> (Guarded, String) {
    let controller = Controller::up("bench-guard");
    let (cluster, node) = (&controller.cluster, &controller.node);
    is_at_rest(&controller);
    let boot = boot::of_controller(&controller);
    eprintln!("{told}: hoist, power cut: {boot}");

    let under_traffic = |what: &str, act: &dyn Fn()| {
        is_at_rest(&controller);
        let experience = clients::during(&controller, act);
        eprintln!("{told}: hoist, {what}: {}", experience.text);
        experience
    };
    let good_edit = under_traffic("a new flag", &|| {
        controller.add_flag("--event-ttl=2h");
        controller.rolled_out();
        controller.until_lowered();
    });
    // In turns: the one never starts, the other ends at once.
    let no_image: (&str, &dyn Fn()) = ("no such image", &|| controller.set_image(NO_IMAGE));
    let no_flag: (&str, &dyn Fn()) = ("no such flag", &|| controller.add_flag("--no-such-flag"));
    let (what, edit) = if number % 2 == 1 { no_image } else { no_flag };
    let bad_edit = under_traffic(what, &|| {
        controller.edit_badly(edit);
        std::thread::sleep(STANDS);
        controller.undo();
        controller.until_lowered();
    });
    let unpivot = under_traffic("unpivot", &|| {
        node.spawn(cluster.command("unpivot", &[])).wait(START_LIMIT).ok();
    });
    // There is no guard now that could be waited for.
    std::thread::sleep(AT_REST);
    let start_again = clients::during(&controller, &|| {
        cluster.started(node, &[]).ok();
    });
    eprintln!("{told}: hoist, start again: {}", start_again.text);
    (Guarded { boot, good_edit, bad_edit, unpivot, start_again }, node.kubernetes.clone())
}

/// Waits until all is self-hosted, and nothing is under way.
fn is_at_rest(controller: &Controller) {
    controller.until_lowered();
    controller.has_guard();
    controller.control_plane_is_rolled_out();
    std::thread::sleep(AT_REST);
}

/// A control plane that `kubeadm init` has made loses its power, too.
fn kubeadm() -> Boot {
    let node = Node::up("bench-kubeadm");
    kubeadm_on(&node);
    std::thread::sleep(AT_REST);
    boot::of_kubeadm(&node, kubeadm_client(&node)().unwrap())
}
