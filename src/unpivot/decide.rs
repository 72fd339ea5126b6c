//! What `unpivot` does next until the self-hosted control plane is gone and the static one is put in: a pure function of
//! what was observed. What follows is a hand-over from the bridge, and `start`'s.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::permanent;
use crate::secrets::COMPONENTS;

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
    /// Take guard away: it would raise a bridge of its own.
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
    pub statics: permanent::State,
    /// What is prepared is what the workloads are now.
    pub is_prepared: bool,
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
            return HandOver;
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
    if !seen.guard_is_away {
        return Do(Step::Prepare, Act::TakeGuardAway);
    }
    let is_gone = objects.workloads.is_empty() && objects.pods.is_empty() && seen.processes.is_empty();
    if stands && is_gone {
        return HandOver;
    }
    if !seen.bridge_stands {
        return Do(Step::Bridge, Act::Raise);
    }
    if !seen.bridge_serves {
        return Wait(Step::Bridge, format!("the bridge to take over {}: {}", seen.node_ip, seen.api_said));
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
mod tests {
    use super::*;

    fn all() -> BTreeSet<String> {
        COMPONENTS.map(str::to_owned).into()
    }

    /// A healthy self-hosted cluster.
    fn self_hosted() -> Seen {
        Seen {
            node_ip: [10, 0, 0, 1].into(),
            api_said: "ok".into(),
            objects: Some(Objects {
                workloads: COMPONENTS.into(),
                pods: vec![("kube-apiserver-x".into(), false), ("kube-scheduler-x".into(), true)],
            }),
            statics: permanent::State::default(),
            is_prepared: false,
            guard_is_away: false,
            bridge_stands: false,
            bridge_serves: false,
            processes: COMPONENTS.into(),
            has_dead_leases: false,
        }
    }

    fn act(seen: &Seen) -> Option<Act> {
        match decide(seen) {
            Decision::Do(_, act) => Some(act),
            _ => None,
        }
    }

    fn objects(seen: &mut Seen) -> &mut Objects {
        seen.objects.as_mut().unwrap()
    }

    #[test]
    fn from_self_hosted_to_static_nothing_goes_before_its_time() {
        let mut seen = self_hosted();
        assert_eq!(act(&seen), Some(Act::Prepare));
        (seen.is_prepared, seen.statics.prepared) = (true, all());
        assert_eq!(act(&seen), Some(Act::TakeGuardAway));
        seen.guard_is_away = true;
        assert_eq!(act(&seen), Some(Act::Raise));
        seen.bridge_stands = true;
        assert!(matches!(decide(&seen), Decision::Wait(Step::Bridge, _)), "it does not serve yet");
        seen.bridge_serves = true;
        assert_eq!(act(&seen), Some(Act::DeleteWorkloads));
        objects(&mut seen).workloads.clear();
        assert_eq!(act(&seen), Some(Act::DeletePods(vec!["kube-apiserver-x".into()])));
        objects(&mut seen).pods[0].1 = true;
        assert!(matches!(decide(&seen), Decision::Wait(Step::Delete, what) if what.contains("kube-apiserver-x")));
        objects(&mut seen).pods.clear();
        seen.processes = ["kube-apiserver"].into();
        assert!(
            matches!(decide(&seen), Decision::Wait(Step::Delete, what) if what == "the process kube-apiserver to end")
        );
        seen.has_dead_leases = true;
        assert_eq!(act(&seen), Some(Act::DeleteDeadLeases));
        (seen.has_dead_leases, seen.processes) = (false, BTreeSet::new());
        assert_eq!(act(&seen), Some(Act::Install(all().into_iter().collect())));
        (seen.statics.standing, seen.statics.prepared) = (all(), BTreeSet::new());
        assert_eq!(decide(&seen), Decision::HandOver);
        (seen.bridge_stands, seen.bridge_serves) = (false, false);
        assert_eq!(decide(&seen), Decision::HandOver, "a later run finds it so");
    }

    #[test]
    fn a_run_that_was_killed_is_taken_up_where_it_was() {
        // The workloads are deleted, nothing is put in; the bridge's manifests are what comes back after a power cut.
        let mut seen = self_hosted();
        (seen.objects, seen.guard_is_away) = (Some(Objects::default()), true);
        (seen.statics.prepared, seen.processes) = (all(), BTreeSet::new());
        assert_eq!(act(&seen), Some(Act::Raise));
        (seen.bridge_stands, seen.bridge_serves) = (true, true);
        assert_eq!(act(&seen), Some(Act::Install(all().into_iter().collect())));
        // Some are.
        seen.statics.standing = ["kube-apiserver".to_owned()].into();
        seen.statics.prepared.remove("kube-apiserver");
        let rest = vec!["kube-controller-manager".to_owned(), "kube-scheduler".to_owned()];
        assert_eq!(act(&seen), Some(Act::Install(rest)));
        // All are, and the bridge is gone, or its API server alone is left: that is the hand-over's.
        (seen.statics.standing, seen.statics.prepared) = (all(), BTreeSet::new());
        (seen.bridge_stands, seen.objects) = (false, None);
        assert_eq!(decide(&seen), Decision::HandOver);
    }

    #[test]
    fn nothing_is_done_by_what_is_not_known() {
        let mut seen = self_hosted();
        seen.objects = None;
        assert!(matches!(decide(&seen), Decision::Wait(Step::Prepare, _)));
        let mut seen = self_hosted();
        objects(&mut seen).workloads.remove("kube-scheduler");
        assert_eq!(decide(&seen), Decision::Missing(vec!["kube-scheduler"]));
    }

    #[test]
    fn workloads_that_came_back_beside_static_pods_go_again() {
        let mut seen = self_hosted();
        (seen.statics.standing, seen.statics.processes) = (all(), all());
        (seen.is_prepared, seen.guard_is_away) = (true, true);
        assert_eq!(act(&seen), Some(Act::Raise));
    }
}
