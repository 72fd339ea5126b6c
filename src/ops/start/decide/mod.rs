//! What `start` does next: a pure function of what was observed, and of what its run remembers. The first row of the protocol
//! (see [`Step`]) that is not fulfilled decides. The second half of the rows is [`hand_over`]'s.

use std::time::Duration;

use crate::api::observe::{NodeView, publishes};
use crate::plane::hand_over::{self, Observed, Target, dead_leases};

/// The rows of the protocol, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// etcd and the bridge stand on the disk.
    Install,
    /// NODE_IP answers.
    Api,
    /// The manifests are applied.
    Apply,
    /// The kubelet is registered, and its Node a controller's.
    Node,
    /// The self-hosted controller manager and scheduler are ready, and the bridge's are gone.
    HandOver,
    /// The self-hosted API server answers on loopback.
    SelfHosted,
    /// Every required pod is ready.
    Required,
    /// The bridge's API server is gone.
    Lower,
    /// NODE_IP is served by the self-hosted API server, both Leases have a living holder, nothing of the bridge is left.
    Prove,
}

/// A single thing to do. Each may be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Put etcd and the bridge where the kubelet finds them.
    Raise,
    /// Let further kubelets in with the bootstrap token.
    BootstrapToken,
    /// Apply the manifests.
    Apply,
    /// Start the kubelet anew: it has asked in vain so often that it would not ask again for many seconds.
    RestartKubelet,
    /// Label and taint the Node.
    AdoptNode,
    /// Keep guard's copy of the bridge in the cluster.
    KeepCopy,
    /// Take the permanent static control plane out: the bridge serves in its place.
    RemoveStatic,
    /// One of the hand-over's.
    HandOver(hand_over::Act),
    /// The self-hosted API server failed the proof: raise the bridge again and give up.
    RaiseAndFail,
}

/// What a run remembers of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Whatever serves, it must raise the bridge first: something may be missing that shows in no answer.
    pub raises_first: bool,
    /// It has raised it: all stands that this takes, and the kubelet runs with it.
    pub has_raised: bool,
    /// It has applied the manifests.
    pub applied: bool,
    /// It has made the bootstrap token's Secret.
    pub made_token: bool,
    /// It has kept guard's copy in the cluster, if there shall be a guard.
    pub kept_copy: bool,
    /// Since when it has had the bridge lowered.
    pub lowered_for: Option<Duration>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Do these, in this order, and observe again.
    Do(Step, Vec<Act>),
    /// Nothing but wait, for this.
    Wait(Step, String),
    /// Everything is as it should be.
    Done,
}

/// Decides.
pub fn decide(o: &Observed, run: &Memory) -> Decision {
    use Decision::{Do, Wait};
    if o.is_late(run.lowered_for) {
        return Do(Step::Prove, vec![Act::RaiseAndFail]);
    }
    if run.raises_first && !run.has_raised {
        return Do(Step::Install, vec![Act::Raise]);
    }
    if o.target == Target::SelfHosted && o.statics.is_there() {
        return take_over(o, run);
    }
    if o.bridge.is_lowered() {
        let lacks = if o.serves() { complete(o, run) } else { None };
        return lacks.unwrap_or_else(|| hand_over(o, run));
    }
    if !o.bridge.is_raised() && !o.controllers_lowered() {
        return Do(Step::Install, vec![Act::Raise]);
    }
    let Some(view) = o.view.as_ref().filter(|_| o.api_ready) else {
        // An earlier run may have been killed while it raised it, or its files may have been corrected since.
        if !run.has_raised {
            return Do(Step::Install, vec![Act::Raise]);
        }
        return Wait(Step::Api, format!("the bridge's API server at {}: {}", o.node_ip, o.api_said));
    };
    let mut acts = Vec::new();
    if !run.applied || !o.missing.is_empty() {
        acts.push(Act::Apply);
    }
    if !run.kept_copy {
        acts.push(Act::KeepCopy);
    }
    // Once, at the beginning: that is taken for over when the node is adopted.
    if !run.made_token && view.node != NodeView::Adopted {
        acts.push(Act::BootstrapToken);
    }
    if !publishes(&view.endpoints, o.node_ip) {
        acts.push(Act::HandOver(hand_over::Act::PublishEndpoint));
    }
    if view.node == NodeView::Registered {
        acts.push(Act::AdoptNode);
    }
    if o.kubelet_waits && run.applied {
        acts.push(Act::RestartKubelet);
    }
    if !acts.is_empty() {
        return Do(if run.applied { Step::Node } else { Step::Apply }, acts);
    }
    if view.node == NodeView::Absent {
        return Wait(Step::Node, format!("the kubelet to register the node {}", o.node_name));
    }
    hand_over(o, run)
}

/// What the hand-over does next.
fn hand_over(o: &Observed, run: &Memory) -> Decision {
    let step = |step| match step {
        hand_over::Step::Controllers => Step::HandOver,
        hand_over::Step::ApiServer => Step::SelfHosted,
        hand_over::Step::Required => Step::Required,
        hand_over::Step::Lower => Step::Lower,
        hand_over::Step::Prove => Step::Prove,
    };
    match hand_over::decide(o, run.lowered_for) {
        hand_over::Decision::Do(at, acts) => Decision::Do(step(at), acts.into_iter().map(Act::HandOver).collect()),
        hand_over::Decision::Wait(at, what) => Decision::Wait(step(at), what),
        hand_over::Decision::Unraised => Decision::Do(Step::Install, vec![Act::Raise]),
        hand_over::Decision::Late => Decision::Do(Step::Prove, vec![Act::RaiseAndFail]),
        hand_over::Decision::Done => Decision::Done,
    }
}

/// The way back from static pods: the bridge serves in their place, and then they go. Both API servers would listen on
/// the wildcard otherwise, and take each other's connections.
fn take_over(o: &Observed, run: &Memory) -> Decision {
    use Decision::{Do, Wait};
    if !o.statics.standing.is_empty() {
        return match (o.bridge_serves, run.has_raised && o.bridge.is_raised()) {
            (true, _) => Do(Step::Api, vec![Act::RemoveStatic]),
            (false, true) => Wait(Step::Api, format!("the bridge to take over {} from the static pods", o.node_ip)),
            (false, false) => Do(Step::Install, vec![Act::Raise]),
        };
    }
    // The bridge's controllers need not wait until it expires.
    if !o.dead_leases.is_empty() {
        return Do(Step::Api, dead_leases(o).into_iter().map(Act::HandOver).collect());
    }
    let running: Vec<_> = o.statics.processes.iter().map(String::as_str).collect();
    Wait(Step::Api, format!("the static {} to end", running.join(", ")))
}

/// What a cluster that serves itself lacks of what manifests make, and of guard; `None` where it lacks nothing, or cannot be
/// read, or its address comes first.
fn complete(o: &Observed, run: &Memory) -> Option<Decision> {
    let view = o.view.as_ref().filter(|view| publishes(&view.endpoints, o.node_ip))?;
    let apply = (!run.applied).then_some(Act::Apply);
    let keep = (!run.kept_copy).then_some(Act::KeepCopy);
    let acts: Vec<_> = if !o.has_guard {
        // In a cluster that was brought up without it, its rights and its Secret come first.
        apply.into_iter().chain(keep).chain([Act::HandOver(hand_over::Act::InstallGuard)]).collect()
    } else if !o.missing.is_empty() && !run.applied {
        apply.into_iter().chain(keep).collect()
    } else if o.target == Target::SelfHosted && view.node == NodeView::Registered {
        // Without its label no self-hosted API server comes to it, and the one that is there goes.
        vec![Act::AdoptNode]
    } else {
        return None;
    };
    Some(Decision::Do(Step::Prove, acts))
}

#[cfg(test)]
mod tests;
