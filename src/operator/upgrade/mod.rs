//! A tenant's way to another version of Kubernetes, decided purely: what each of its parts runs next, and whether the new
//! version is committed. `status.committedVersion` is the only thing that is remembered; all else is seen afresh each turn.
//!
//! | | committed is older than wanted | committed is what is wanted |
//! |---|---|---|
//! | 1 | API servers run the new version, on trial | controllers that are newer than wanted go back |
//! | 2 | controllers run the new version, on trial | API servers run the wanted version, and emulate nothing |
//! | 3 | both lead, and no API server of before is left: commit | then the controllers |
//! | 4 | | then etcd |
//! | 5 | | then what is in the tenant |
//!
//! Each row waits for what comes before it to be rolled out and to have said itself which version it is. Until the commit, the
//! spec may name the committed version again: that is the undo.

use serde_json::Value;

use super::conditions::{Condition, UPGRADED};
use super::trouble::Trouble;
use crate::base::error::Finding;
use crate::desired::config::Version;
use crate::desired::upgrade::{EMULATION, Emulated};

mod look;
#[cfg(test)]
mod tests;

pub use look::{RUNS, Tried, committed_of, look, shaped};

/// What a workload runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The version of its program.
    pub version: Version,
    /// What that emulates.
    pub emulates: Option<Emulated>,
}

impl Shape {
    /// A program that emulates nothing.
    pub fn plain(version: Version) -> Self {
        Self { version, emulates: None }
    }
}

/// A workload as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it runs; `None` where it is not there yet.
    pub runs: Option<Shape>,
    /// What it waits for before it counts as done: its roll-out, or its own word.
    pub waits: Option<String>,
}

/// What all depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The version of which data may have been written: no older one can read them.
    pub committed: Version,
    /// What the spec names.
    pub wanted: Version,
    /// What every part ran when all was well for the last time.
    pub done: Option<Version>,
    /// The API servers.
    pub api_servers: Part,
    /// The controller manager and the scheduler.
    pub controllers: [Part; 2],
    /// etcd's version is that of the Kubernetes it comes with.
    pub etcd: Part,
    /// An API server of before is there still, if only to end what it has begun.
    pub old_server: Option<String>,
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// API servers are replaced.
    ApiServers,
    /// Controller manager and scheduler are.
    Controllers,
    /// etcd is.
    Etcd,
    /// All is what it shall be, but for what is in the tenant.
    Inside,
}

/// What each part runs next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The API servers.
    pub api_servers: Shape,
    /// The controller manager and the scheduler.
    pub controllers: [Shape; 2],
    /// etcd.
    pub etcd: Version,
    /// What is in the tenant.
    pub inside: Version,
    /// The new version has proved itself.
    pub commits: bool,
    /// The first step that is not done, and what it waits for.
    pub waits: Option<(Step, String)>,
}

impl Plan {
    /// What a workload runs next, by what follows the tenant's name in its own.
    pub fn shape(&self, workload: &str) -> Shape {
        match workload {
            "apiserver" => self.api_servers,
            "controller-manager" => self.controllers[0],
            "scheduler" => self.controllers[1],
            _ => Shape::plain(self.etcd),
        }
    }
}

/// What is said of a tenant's version.
pub fn condition(seen: &Observed, plan: &Plan) -> Condition {
    let Observed { committed, wanted, done, .. } = seen;
    let waits = plan.waits.as_ref().map(|(_, what)| format!(": it waits for {what}")).unwrap_or_default();
    if committed != wanted {
        let emulates = plan.api_servers.emulates.map(|old| format!(", and emulates {old}")).unwrap_or_default();
        let way_back = format!("Until it is committed, spec.kubernetesVersion: {committed} leads back");
        return Condition::no(UPGRADED, "Trying", format!("{wanted} is tried{emulates}{waits}. {way_back}"));
    }
    match done {
        Some(done) if done != wanted && plan.waits.is_some() => {
            Condition::no(UPGRADED, "Committed", format!("{wanted} is committed{waits}"))
        }
        None if plan.waits.is_some() => {
            Condition::no(UPGRADED, "Starting", format!("{wanted} comes up for the first time{waits}"))
        }
        // A part that is being replaced by the same version says so itself.
        _ if [plan.api_servers, plan.controllers[0], plan.controllers[1]]
            .iter()
            .any(|one| *one != Shape::plain(*wanted)) =>
        {
            Condition::no(
                UPGRADED,
                "GoingBack",
                format!("a newer version was given up, and {wanted} comes back{waits}"),
            )
        }
        _ => Condition::yes(UPGRADED, "Current", format!("every part is of {wanted}")),
    }
}

/// Why a version cannot be gone to, which the CRD's rules have not kept out.
///
/// # Errors
/// The reason.
pub fn refused(object: &Value, committed: Version, wanted: Version) -> Result<(), Trouble> {
    let refused = |message| Err(Trouble { reason: "InvalidSpec", message });
    if wanted < committed {
        return refused(format!(
            "spec.kubernetesVersion: {wanted} cannot read what {committed} has written. Name {committed}, or a later one"
        ));
    }
    if wanted.minor > committed.minor + 1 {
        return refused(format!(
            "spec.kubernetesVersion: between {committed} and {wanted} no minor version may be skipped. Name one of 1.{}",
            committed.minor + 1
        ));
    }
    let flag = EMULATION.trim_start_matches('-');
    for component in ["apiServer", "controllerManager", "scheduler"] {
        let mut args = object["spec"][component]["extraArgs"].as_array().into_iter().flatten();
        if wanted != committed && args.any(|arg| arg["name"] == flag) {
            return refused(format!(
                "spec.{component}.extraArgs: {flag} is set by the operator while the version changes. Take it out"
            ));
        }
    }
    Ok(())
}

/// Why a tenant's parts of another version than the spec's cannot be made.
pub fn unknown(version: Version, findings: &[Finding]) -> Trouble {
    let text: Vec<_> = findings.iter().map(Finding::to_string).collect();
    let message = format!("with {version}, which runs: {}", text.join("; ").replace("\n    ", ". "));
    Trouble { reason: "InvalidSpec", message }
}

/// Decides.
pub fn decide(seen: &Observed) -> Plan {
    if seen.committed == seen.wanted { committed(seen) } else { tried(seen) }
}

/// What a part runs, or would have run before this version.
fn or(part: &Part, shape: Shape) -> Shape {
    part.runs.unwrap_or(shape)
}

fn waits(step: Step, what: &str, part: &Part, shape: Shape) -> Option<(Step, String)> {
    if part.runs != Some(shape) {
        return Some((step, format!("{what} to be replaced")));
    }
    part.waits.as_ref().map(|why| (step, format!("{what}: {why}")))
}

const SERVERS: &str = "kube-apiserver";
const CONTROLLERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

fn controllers_wait(seen: &Observed, shape: Shape) -> Option<(Step, String)> {
    let all = seen.controllers.iter().zip(CONTROLLERS);
    all.into_iter().find_map(|(part, what)| waits(Step::Controllers, what, part, shape))
}

/// The new version is on trial.
fn tried(seen: &Observed) -> Plan {
    let old = Shape::plain(seen.committed);
    let trial = Shape { version: seen.wanted, emulates: Emulated::on_the_way(seen.committed, seen.wanted) };
    let inside = seen.done.unwrap_or(seen.committed);
    let stay = || [or(&seen.controllers[0], old), or(&seen.controllers[1], old)];
    let etcd = or(&seen.etcd, old).version;
    let plan = |controllers, commits, waits| Plan { api_servers: trial, controllers, etcd, inside, commits, waits };
    if let Some(what) = waits(Step::ApiServers, SERVERS, &seen.api_servers, trial) {
        return plan(stay(), false, Some(what));
    }
    let what = controllers_wait(seen, trial).or_else(|| {
        seen.old_server.as_ref().map(|pod| (Step::ApiServers, format!("{pod}, which serves no more, to end")))
    });
    plan([trial; 2], what.is_none(), what)
}

/// No way leads back.
fn committed(seen: &Observed) -> Plan {
    let new = Shape::plain(seen.wanted);
    let inside = seen.done.unwrap_or(seen.wanted);
    let plan = |api_servers, controllers, etcd, inside, waits| Plan {
        api_servers,
        controllers,
        etcd,
        inside,
        commits: false,
        waits,
    };
    let etcd = or(&seen.etcd, new).version;
    // A trial that was given up: no controller is newer than the API server that it asks. Where that one does not serve, there
    // is nothing to wait for.
    let is_newer = |part: &Part| part.runs.is_some_and(|runs| runs.version > seen.wanted);
    let are_newer = seen.controllers.iter().any(is_newer);
    let is_back = !are_newer && (seen.api_servers.waits.is_some() || controllers_wait(seen, new).is_none());
    if is_newer(&seen.api_servers) && !is_back {
        let what = controllers_wait(seen, new);
        return plan(or(&seen.api_servers, new), [new; 2], etcd, inside, what);
    }
    if let Some(what) = waits(Step::ApiServers, SERVERS, &seen.api_servers, new) {
        let stay = [or(&seen.controllers[0], new), or(&seen.controllers[1], new)];
        return plan(new, stay, etcd, inside, Some(what));
    }
    if let Some(what) = controllers_wait(seen, new) {
        return plan(new, [new; 2], etcd, inside, Some(what));
    }
    if let Some(what) = waits(Step::Etcd, "etcd", &seen.etcd, new) {
        return plan(new, [new; 2], seen.wanted, inside, Some(what));
    }
    plan(new, [new; 2], seen.wanted, seen.wanted, None)
}
