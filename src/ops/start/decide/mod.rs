//! What `start` does next: a pure function of what was observed. The first row of the protocol (see [`Step`]) that is
//! not fulfilled decides. Between two calls, nothing is remembered except what [`Observed`] holds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::api::observe::{ClusterView, LEASES, LeaseView, NodeView, Required, publishes};
use crate::desired::secrets::BRIDGE_PODS;
use crate::plane::bridge::State as BridgeState;
use crate::plane::static_plane;

/// So many answers in a row prove that an API server serves.
const PROOFS: u32 = 3;
/// How long the required pods must have been ready without a restart.
const STABLE: Duration = Duration::from_millis(300);
/// How long the self-hosted control plane may take to prove itself once the bridge is lowered, before it is raised again.
pub const PROVE_LIMIT: Duration = Duration::from_secs(30);
/// The same of its controllers, while the bridge still serves the API: a crash that the API does not show yet takes a
/// restart, and then the Lease of a dead holder that nobody knows for one lasts 15 s.
pub const LEAD_LIMIT: Duration = Duration::from_secs(60);

/// What the bridge is lowered for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Target {
    /// The self-hosted control plane.
    #[default]
    SelfHosted,
    /// Static pods for good.
    Static,
}

impl Target {
    /// The workloads of some components: of a static pod, its mirror on `node`.
    pub fn workloads<'a>(self, components: impl IntoIterator<Item = &'a str>, node: &str) -> Vec<Required> {
        let name = |component: &str| match self {
            Self::SelfHosted => component.to_owned(),
            Self::Static => format!("{component}-{node}"),
        };
        let required = |component| Required { namespace: "kube-system".into(), name: name(component) };
        components.into_iter().map(required).collect()
    }

    /// What such a control plane is.
    pub fn name(self) -> &'static str {
        match self {
            Self::SelfHosted => "self-hosted",
            Self::Static => "static",
        }
    }

    /// The command that sees it through.
    pub fn command(self) -> &'static str {
        match self {
            Self::SelfHosted => "hoist start",
            Self::Static => "hoist unpivot",
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

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
    /// Put NODE_IP among the addresses of the `kubernetes` Service.
    PublishEndpoint,
    /// Label and taint the Node.
    AdoptNode,
    /// Delete pods, by namespace and name, that wait before they are tried again, so that they are made anew at once.
    ReplacePods(Vec<(String, String)>),
    /// Keep guard's copy of the bridge in the cluster.
    KeepCopy,
    /// Put guard and its copy of the bridge on the disk.
    InstallGuard,
    /// Lower the bridge's controller manager and scheduler.
    LowerControllers,
    /// Delete a Lease whose holder is gone, if it still is as it was seen.
    DeleteLease {
        /// Its name.
        name: String,
        /// The state of it that was seen.
        resource_version: String,
    },
    /// Lower the bridge's API server.
    LowerApiServer,
    /// Take away what the API still shows of static pods whose processes are gone.
    DeleteMirrorPods(Vec<String>),
    /// Remove the bridge's secrets from the disk.
    CleanUp,
    /// Take the permanent static control plane out: the bridge serves in its place.
    RemoveStatic,
    /// The self-hosted API server failed the proof: raise the bridge again and give up.
    RaiseAndFail,
}

/// What was observed, this time round.
#[derive(Debug, Clone)]
pub struct Observed {
    /// This controller's address.
    pub node_ip: IpAddr,
    /// This controller's Node.
    pub node_name: String,
    /// The workloads whose pods must be ready.
    pub required: Vec<Required>,
    /// What of the bridge is on the host.
    pub bridge: BridgeState,
    /// Guard is there as it shall be, if there shall be one.
    pub has_guard: bool,
    /// This run has kept guard's copy in the cluster, if there shall be a guard.
    pub kept_copy: bool,
    /// This run has raised it: all stands that this takes, and the kubelet runs with it.
    pub has_raised: bool,
    /// Whatever serves, it must be raised first: something may be missing that shows in no answer.
    pub raises_first: bool,
    /// What is gone from the cluster of what manifests make.
    pub missing: Vec<String>,
    /// This run has made the bootstrap token's Secret.
    pub made_token: bool,
    /// The kubelet has asked for the API in vain for so long that it would not ask again for many seconds.
    pub kubelet_waits: bool,
    /// This run has applied the manifests.
    pub applied: bool,
    /// NODE_IP answered /readyz with 200.
    pub api_ready: bool,
    /// What NODE_IP answered.
    pub api_said: String,
    /// How often in a row the loopback address answered /readyz with 200.
    pub self_hosted_ready: u32,
    /// What the loopback address answered.
    pub self_hosted_said: String,
    /// What the API showed; `None` when it could not be read.
    pub view: Option<ClusterView>,
    /// Required pods that an earlier run left behind, by namespace and name: the kubelet waits before it tries them again.
    pub backed_off: Vec<(String, String)>,
    /// Since when every required pod is ready, none of them having restarted.
    pub required_ready_for: Option<Duration>,
    /// Since when the required pods but the API server's are: its own answers tell more, and sooner.
    pub others_ready_for: Option<Duration>,
    /// Since when a pod of each of the bridge's successors is ready: controller manager and scheduler.
    pub successors_ready_for: Option<Duration>,
    /// For how long, with the bridge's controllers lowered, no successor has been proved to lead.
    pub leaderless_for: Duration,
    /// The Leases as they were when the bridge's controllers were first seen gone.
    pub leases_when_gone: BTreeMap<String, LeaseView>,
    /// Since when this run has had the bridge lowered.
    pub lowered_for: Option<Duration>,
    /// What the bridge is lowered for.
    pub target: Target,
    /// What of the permanent static control plane is on the host.
    pub statics: static_plane::State,
    /// The forwarder has NODE_IP, so that whatever else listens there may go.
    pub bridge_serves: bool,
    /// Leases, by name and version, whose holder is dead.
    pub dead_leases: Vec<(String, String)>,
}

impl Observed {
    /// The self-hosted control plane has proved that it serves and leads, and nothing of the bridge stands or runs: what
    /// this run still waits for is no reason to keep others from mending what comes to harm.
    pub fn serves_itself(&self) -> bool {
        self.bridge.is_lowered() && self.bridge.processes.is_empty() && self.is_proved()
    }

    /// The proof has taken longer than it may. What only the kubelet has to tidy up is no reason to raise the bridge.
    fn is_late(&self) -> bool {
        let silent = !self.is_proved() && self.lowered_for.is_some_and(|so_long| so_long > PROVE_LIMIT);
        silent || self.leaderless_for > LEAD_LIMIT
    }

    fn is_proved(&self) -> bool {
        let leads = self.view.as_ref().is_some_and(|view| all_lead(&self.leases_when_gone, view));
        self.self_hosted_ready >= PROOFS && self.api_ready && leads
    }
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
pub fn decide(o: &Observed) -> Decision {
    use Decision::{Do, Wait};
    let self_hosted = o.self_hosted_ready >= PROOFS;
    if o.is_late() {
        return Do(Step::Prove, vec![Act::RaiseAndFail]);
    }
    if o.raises_first && !o.has_raised {
        return Do(Step::Install, vec![Act::Raise]);
    }
    if o.target == Target::SelfHosted && o.statics.is_there() {
        return take_over(o);
    }
    if o.bridge.is_lowered() {
        return match o.lowered_for {
            _ if self_hosted && o.api_ready => finish(o),
            Some(_) => Wait(Step::Prove, format!("{} to answer: {}", o.node_ip, o.api_said)),
            // One answer may be chance: a cluster that is up is not touched for that.
            None if o.self_hosted_ready > 0 => {
                Wait(Step::Prove, format!("the {} API server to prove that it serves", o.target))
            }
            None => Do(Step::Install, vec![Act::Raise]),
        };
    }
    let controllers_lowered = o.bridge.api_server && o.bridge.controllers == 0;
    if !o.bridge.is_raised() && !controllers_lowered {
        return Do(Step::Install, vec![Act::Raise]);
    }
    let Some(view) = o.view.as_ref().filter(|_| o.api_ready) else {
        // An earlier run may have been killed while it raised it, or its files may have been corrected since.
        if !o.has_raised {
            return Do(Step::Install, vec![Act::Raise]);
        }
        return Wait(Step::Api, format!("the bridge's API server at {}: {}", o.node_ip, o.api_said));
    };
    let mut acts = Vec::new();
    if !o.applied || !o.missing.is_empty() {
        acts.push(Act::Apply);
    }
    if !o.kept_copy {
        acts.push(Act::KeepCopy);
    }
    // Once, at the beginning: that is taken for over when the node is adopted.
    if !o.made_token && view.node != NodeView::Adopted {
        acts.push(Act::BootstrapToken);
    }
    if !publishes(&view.endpoints, o.node_ip) {
        acts.push(Act::PublishEndpoint);
    }
    if view.node == NodeView::Registered {
        acts.push(Act::AdoptNode);
    }
    if o.kubelet_waits && o.applied {
        acts.push(Act::RestartKubelet);
    }
    if !acts.is_empty() {
        return Do(if o.applied { Step::Node } else { Step::Apply }, acts);
    }
    if view.node == NodeView::Absent {
        return Wait(Step::Node, format!("the kubelet to register the node {}", o.node_name));
    }
    // Whatever kept them from running may be mended by now. Without a controller manager, nobody would replace them.
    let replaces = o.bridge.processes.contains("kube-controller-manager") || o.successors_ready_for.is_some();
    if !o.backed_off.is_empty() && replaces {
        return Do(Step::HandOver, vec![Act::ReplacePods(o.backed_off.clone())]);
    }
    // Where a controller manager was deleted, the bridge's need not wait until its Lease expires; nor need the successors
    // once both of the bridge's are gone.
    let ends = controllers_lowered && !o.bridge.controllers_gone();
    if !o.dead_leases.is_empty() && !ends {
        return Do(Step::HandOver, dead_leases(o));
    }
    if let Some(decision) = hand_over(o, view, controllers_lowered) {
        return decision;
    }
    if !self_hosted {
        let what = format!("the {} API server: {}; {}", o.target, o.self_hosted_said, pods_said(o, view));
        return Wait(Step::SelfHosted, what);
    }
    if o.others_ready_for.is_none_or(|so_long| so_long < STABLE) {
        return Wait(Step::Required, pods_said(o, view));
    }
    Do(Step::Lower, vec![Act::LowerApiServer])
}

/// The way back from static pods: the bridge serves in their place, and then they go. Both API servers would listen on
/// the wildcard otherwise, and take each other's connections.
fn take_over(o: &Observed) -> Decision {
    use Decision::{Do, Wait};
    if !o.statics.standing.is_empty() {
        return match (o.bridge_serves, o.has_raised && o.bridge.is_raised()) {
            (true, _) => Do(Step::Api, vec![Act::RemoveStatic]),
            (false, true) => Wait(Step::Api, format!("the bridge to take over {} from the static pods", o.node_ip)),
            (false, false) => Do(Step::Install, vec![Act::Raise]),
        };
    }
    // The bridge's controllers need not wait until it expires.
    if !o.dead_leases.is_empty() {
        return Do(Step::Api, dead_leases(o));
    }
    let running: Vec<_> = o.statics.processes.iter().map(String::as_str).collect();
    Wait(Step::Api, format!("the static {} to end", running.join(", ")))
}

/// Deletes the Leases of dead holders.
pub fn dead_leases(o: &Observed) -> Vec<Act> {
    let delete =
        |(name, version): &(String, String)| Act::DeleteLease { name: name.clone(), resource_version: version.clone() };
    o.dead_leases.iter().map(delete).collect()
}

/// What is left to do until the bridge's controllers are gone. It goes on beside the
/// start of the self-hosted API server, of which it takes nothing: their successors work through the bridge, too.
/// Whether the Leases move is proved at the end.
fn hand_over(o: &Observed, view: &ClusterView, lowered: bool) -> Option<Decision> {
    if !lowered && o.successors_ready_for.is_none_or(|so_long| so_long < STABLE) {
        return Some(Decision::Wait(Step::HandOver, pods_said(o, view)));
    }
    // From here on the disk alone does not bring the control plane up at a boot.
    if !o.has_guard {
        return Some(Decision::Do(Step::HandOver, vec![Act::InstallGuard]));
    }
    if !lowered {
        return Some(Decision::Do(Step::HandOver, vec![Act::LowerControllers]));
    }
    if !o.bridge.controllers_gone() {
        let what = "the bridge's controller manager and scheduler to end".into();
        return Some(Decision::Wait(Step::HandOver, what));
    }
    None
}

/// Whether somebody who lives holds the Lease `name`: it was renewed after the bridge's controllers were gone.
fn has_moved(when_gone: &BTreeMap<String, LeaseView>, view: &ClusterView, name: &str) -> bool {
    let renewed_since = |lease: &LeaseView| when_gone.get(name).is_none_or(|then| then.renewed != lease.renewed);
    view.leases.get(name).is_some_and(|lease| !lease.holder.is_empty() && renewed_since(lease))
}

/// Whether both Leases have a living holder, given what they were when the bridge's controllers were gone.
pub fn all_lead(when_gone: &BTreeMap<String, LeaseView>, view: &ClusterView) -> bool {
    LEASES.into_iter().all(|name| has_moved(when_gone, view, name))
}

/// The self-hosted control plane serves and no manifest of the bridge stands: is all of it gone, and all else well?
fn finish(o: &Observed) -> Decision {
    use Decision::{Do, Wait};
    let Some(view) = &o.view else {
        return Wait(Step::Prove, format!("{} to answer", o.node_ip));
    };
    if !publishes(&view.endpoints, o.node_ip) {
        return Do(Step::Prove, vec![Act::PublishEndpoint]);
    }
    if !o.has_guard {
        // In a cluster that was brought up without it, its rights and its Secret come first.
        let apply = (!o.applied).then_some(Act::Apply);
        let keep = (!o.kept_copy).then_some(Act::KeepCopy);
        return Do(Step::Prove, apply.into_iter().chain(keep).chain([Act::InstallGuard]).collect());
    }
    if !o.missing.is_empty() && !o.applied {
        let keep = (!o.kept_copy).then_some(Act::KeepCopy);
        return Do(Step::Prove, [Act::Apply].into_iter().chain(keep).collect());
    }
    // Without its label no self-hosted API server comes to it, and the one that is there goes.
    if o.target == Target::SelfHosted && view.node == NodeView::Registered {
        return Do(Step::Prove, vec![Act::AdoptNode]);
    }
    if o.required_ready_for.is_none_or(|so_long| so_long < STABLE) {
        return Wait(Step::Prove, pods_said(o, view));
    }
    if let Some(name) = LEASES.into_iter().find(|name| !has_moved(&o.leases_when_gone, view, name)) {
        return Wait(Step::Prove, format!("a leader to take the Lease {name}"));
    }
    if let Some(component) = o.bridge.processes.first() {
        return Wait(Step::Prove, format!("the bridge's {component} to end"));
    }
    // The kubelet does it, too, a second or two later.
    let names = BRIDGE_PODS.map(|pod| format!("{pod}-{}", o.node_name));
    let mirrors: Vec<_> = view.pods.values().flatten().filter(|pod| pod.mirror && names.contains(&pod.name)).collect();
    if !mirrors.is_empty() {
        return Do(Step::Prove, vec![Act::DeleteMirrorPods(mirrors.iter().map(|pod| pod.name.clone()).collect())]);
    }
    // An `unpivot` that was given up has left keys on the disk.
    if o.bridge.files || (o.target == Target::SelfHosted && o.statics.files) {
        return Do(Step::Prove, vec![Act::CleanUp]);
    }
    Decision::Done
}

/// Whether each required workload has a ready pod: for a pod that every controller has, the one of this node.
pub fn all_ready(view: &ClusterView, node: &str, required: &[Required]) -> bool {
    required.iter().all(|workload| view.pods_of(workload, node).any(|pod| pod.ready))
}

/// The required pods that are not ready, each with its reason.
fn pods_said(o: &Observed, view: &ClusterView) -> String {
    let unready = o.required.iter().filter(|workload| !view.pods_of(workload, &o.node_name).any(|pod| pod.ready));
    let said: Vec<_> = unready
        .map(|workload| match view.pods_of(workload, &o.node_name).next() {
            None => format!("{workload} has no pod yet"),
            Some(pod) => format!("{}/{}: {}", workload.namespace, pod.name, pod.reason),
        })
        .collect();
    if said.is_empty() { "the required pods to stay ready".into() } else { said.join("; ") }
}

#[cfg(test)]
pub(super) mod tests;
