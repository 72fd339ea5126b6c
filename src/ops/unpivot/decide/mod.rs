//! What `unpivot` does next until the self-hosted control plane is gone and the static one is put in: a pure function
//! of what was observed. The hand-over from the bridge that follows is `start`'s.
//!
//! ```text
//! prepare ─► disable hoist.service ─► raise ─► the bridge serves ─► take guard away ─► delete the self-hosted ─► put the static in
//! ```
//! Whatever would undo the work is removed before the work begins, and nothing that serves is removed before the
//! bridge serves in its place. So after a power cut at any moment, the next boot brings up something that serves, and
//! nothing pivots again.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::desired::secrets::COMPONENTS;
use crate::plane::static_plane;

/// The steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// All that the static pods need is on the disk, beside.
    Prepare,
    /// The bridge serves the API.
    Bridge,
    /// The self-hosted control plane is gone.
    Delete,
    /// The static one is in the kubelet's folder.
    Install,
}

/// A single thing to do. Each may be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Write what the workloads become, and what they mount, where the kubelet does not look.
    Prepare,
    /// Keep hoist's own unit from running `start`: at the next boot, or again after one that has failed.
    DisableUnit,
    /// Take guard away: it would lower the bridge once this run has ended, or raise one of its own.
    TakeGuardAway,
    /// Raise the bridge.
    Raise,
    /// Delete the workloads.
    DeleteWorkloads,
    /// Delete the Leases of dead holders.
    DeleteDeadLeases,
    /// Delete these pods, which nobody makes anew.
    DeletePods(Vec<String>),
    /// Put these components' manifests in.
    Install(Vec<String>),
}

/// What was observed, this time round.
#[derive(Debug, Clone)]
pub struct Seen {
    /// This controller's address.
    pub node_ip: IpAddr,
    /// What NODE_IP answered.
    pub api_said: String,
    /// What the API showed; `None` when it could not be read.
    pub objects: Option<Objects>,
    /// What of the static control plane is on the host.
    pub statics: static_plane::State,
    /// What is prepared is what the workloads are now.
    pub is_prepared: bool,
    /// This run has seen to it that hoist's own unit runs nothing.
    pub unit_is_off: bool,
    /// This run has taken guard away.
    pub guard_is_away: bool,
    /// All of the bridge's manifests stand.
    pub bridge_stands: bool,
    /// The forwarder has NODE_IP, so that whatever else listens there may go.
    pub bridge_serves: bool,
    /// Components of which a process runs that is neither the bridge's nor a static pod's.
    pub processes: BTreeSet<&'static str>,
    /// Leases whose holders are dead are there.
    pub has_dead_leases: bool,
}

impl Seen {
    /// Nothing shows that an earlier run has taken something away.
    pub fn is_untouched(&self) -> bool {
        let is_whole = |objects: &Objects| objects.workloads.len() == COMPONENTS.len();
        self.statics.standing.is_empty() && self.objects.as_ref().is_none_or(is_whole)
    }
}

/// The self-hosted control plane, as the API shows it.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Components whose workloads are there.
    pub workloads: BTreeSet<&'static str>,
    /// Their pods, and whether they are being deleted already.
    pub pods: Vec<(String, bool)>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Do it, and observe again.
    Do(Step, Act),
    /// Nothing but wait, for this.
    Wait(Step, String),
    /// These components are neither self-hosted nor static pods: nothing can be made of that.
    Missing(Vec<&'static str>),
    /// The static control plane is put in, and nothing is left to run beside it.
    HandOver,
}

/// Decides.
pub fn decide(seen: &Seen) -> Decision {
    use Decision::{Do, HandOver, Missing, Wait};
    let stands = seen.statics.stands() && seen.statics.prepared.is_empty();
    let Some(objects) = &seen.objects else {
        // A static control plane that does not serve yet needs the bridge, which the hand-over raises.
        if stands && seen.processes.is_empty() {
            return if seen.unit_is_off { HandOver } else { Do(Step::Prepare, Act::DisableUnit) };
        }
        return Wait(Step::Prepare, format!("{} to answer: {}", seen.node_ip, seen.api_said));
    };
    let known = |component: &str| {
        objects.workloads.contains(component)
            || seen.statics.prepared.contains(component)
            || seen.statics.standing.contains(component)
    };
    let missing: Vec<_> = COMPONENTS.into_iter().filter(|component| !known(component)).collect();
    if !missing.is_empty() {
        return Missing(missing);
    }
    if !objects.workloads.is_empty() && !seen.is_prepared {
        return Do(Step::Prepare, Act::Prepare);
    }
    if !seen.unit_is_off {
        return Do(Step::Prepare, Act::DisableUnit);
    }
    let is_gone = objects.workloads.is_empty() && objects.pods.is_empty() && seen.processes.is_empty();
    if stands && is_gone {
        return if seen.guard_is_away { HandOver } else { Do(Step::Install, Act::TakeGuardAway) };
    }
    if !seen.bridge_stands {
        return Do(Step::Bridge, Act::Raise);
    }
    if !seen.bridge_serves {
        return Wait(Step::Bridge, format!("the bridge to take over {}: {}", seen.node_ip, seen.api_said));
    }
    // Until here guard has rested, as this run holds the lock. Were it killed by now, guard would lower the bridge again,
    // and all would be as before.
    if !seen.guard_is_away {
        return Do(Step::Bridge, Act::TakeGuardAway);
    }
    if !objects.workloads.is_empty() {
        return Do(Step::Delete, Act::DeleteWorkloads);
    }
    // The bridge's controllers lead meanwhile.
    if seen.has_dead_leases {
        return Do(Step::Delete, Act::DeleteDeadLeases);
    }
    let alive: Vec<_> = objects.pods.iter().filter(|(_, ends)| !ends).map(|(name, _)| name.clone()).collect();
    if !alive.is_empty() {
        return Do(Step::Delete, Act::DeletePods(alive));
    }
    if !is_gone {
        let pods = objects.pods.iter().map(|(name, _)| format!("the pod {name}"));
        let processes = seen.processes.iter().map(|component| format!("the process {component}"));
        return Wait(Step::Delete, format!("{} to end", pods.chain(processes).collect::<Vec<_>>().join(", ")));
    }
    Do(Step::Install, Act::Install(seen.statics.prepared.iter().cloned().collect()))
}

#[cfg(test)]
mod tests;
