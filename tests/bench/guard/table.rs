//! The results as a table.

use super::boot::Boot;
use super::clients::Experience;
use super::{Guarded, Results};
use crate::table::{Spread, columns, compared, head, verdicts};

/// A figure of a boot; `NAN` where there is none.
type Figure = fn(&Boot) -> f64;
type Done = fn(&Guarded) -> &Experience;

const BOOT: [(&str, Figure); 4] = [
    ("API ready", |boot| boot.api_ready),
    ("self-hosted ready", |boot| boot.self_hosted_ready.unwrap_or(f64::NAN)),
    ("both leaders", |boot| boot.leaders),
    ("bridge lowered", |boot| boot.lowered.unwrap_or(f64::NAN)),
];
/// What has to happen one after another until then, in that order.
const STEPS: [(&str, Figure); 7] = [
    ("first container", |boot| boot.steps.container),
    ("etcd begins", |boot| boot.steps.etcd.begins),
    ("etcd serves", |boot| boot.steps.etcd.serves),
    ("static API server begins", |boot| boot.steps.static_server.begins),
    ("static API server's port", |boot| boot.steps.static_server.serves),
    ("self-hosted one begins", |boot| boot.steps.self_hosted_server.map_or(f64::NAN, |server| server.begins)),
    ("self-hosted one's port", |boot| boot.steps.self_hosted_server.map_or(f64::NAN, |server| server.serves)),
];
const DONE: [(&str, Done); 4] = [
    ("good edit", |run| &run.good_edit),
    ("bad edit", |run| &run.bad_edit),
    ("unpivot", |run| &run.unpivot),
    ("start again", |run| &run.start_again),
];

pub fn table(results: &Results) -> String {
    let Results { kubernetes, processors, hoist, kubeadm } = results;
    let runs = hoist.len();
    let mut text = head(kubernetes, *processors, runs) + &columns(34, "power cut and boot");
    let mut compare = |what: &str, of: &dyn Fn(&Boot) -> f64| {
        text.push_str(&compared(34, what, hoist.iter().map(|run| of(&run.boot)), kubeadm.iter().map(of)));
    };
    compare("switch to kubelet, s", &|boot| boot.kubelet);
    for (what, of) in BOOT {
        compare(&format!("switch to {what}, s"), &of);
    }
    for (what, of) in BOOT.into_iter().chain(STEPS) {
        compare(&format!("kubelet to {what}, s"), &|boot| of(boot) - boot.kubelet);
    }
    text.push_str("\nclients that never retry\n");
    for (what, done) in DONE {
        let mut line = |figure: &str, of: &dyn Fn(&Experience) -> f64| {
            let spread = Spread::of(hoist.iter().map(|run| of(done(run))));
            text.push_str(&format!("{:34}{spread}\n", format!("{what}: {figure}")));
        };
        line("done, s", &|seen| seen.took);
        line("requests", &|seen| seen.requests as f64);
        line("failed requests", &|seen| seen.failed as f64);
        line("longest gap, ms", &|seen| seen.longest_gap * 1000.0);
        // The client sends every 20 ms; where it could not, the gap is not the API's.
        line("between sends, ms", &|seen| seen.longest_pause * 1000.0);
    }
    text + &wanted(results)
}

/// What is wanted of the medians (of failures and gaps: of the worst), and whether it was reached.
fn wanted(Results { hoist, kubeadm, .. }: &Results) -> String {
    let ours = |of: Figure| Spread::of(hoist.iter().map(|run| of(&run.boot) - run.boot.kubelet)).median;
    let theirs = |of: Figure| Spread::of(kubeadm.iter().map(|boot| of(boot) - boot.kubelet)).median;
    let worst = |of: &dyn Fn(&Guarded) -> f64| Spread::of(hoist.iter().map(of)).most;
    let [(_, api_ready), (_, self_hosted), (_, leaders), _] = BOOT;
    let mut rows = vec![
        ("boot: API ready, s", ours(api_ready), 2.0),
        ("boot: self-hosted API server, s", ours(self_hosted), 7.0),
        ("boot: both leaders, s", ours(leaders), 8.0),
        ("boot: both leaders / kubeadm's", ours(leaders) / theirs(leaders), 0.4),
        ("bad edit: longest gap, s", worst(&|run| run.bad_edit.longest_gap), 5.0),
    ];
    let gapless: [(&str, &str, Done); 3] = [
        ("good edit: failed requests", "good edit: longest gap, ms", |run| &run.good_edit),
        ("unpivot: failed requests", "unpivot: longest gap, ms", |run| &run.unpivot),
        ("start again: failed requests", "start again: longest gap, ms", |run| &run.start_again),
    ];
    for (failed, gap, done) in gapless {
        rows.push((failed, worst(&|run| done(run).failed as f64), 0.0));
        rows.push((gap, worst(&|run| done(run).longest_gap * 1000.0), 100.0));
    }
    verdicts(&rows)
}
