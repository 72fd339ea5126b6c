//! The hand-over from a raised bridge to what it is lowered for, as a pure function of what was observed: the bridge's controllers
//! go once their successors are ready, its API server once the other one has proved itself, and then it is proved that the
//! control plane leads and that nothing of the bridge is left. `start`, `unpivot` and guard hand over by it; what a bridge is
//! raised for, and what is done where a hand-over comes to nothing, is their own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::api::observe::{ClusterView, LEASES, LeaseView, Required, publishes};
use crate::desired::secrets::BRIDGE_PODS;
use crate::plane::bridge::State as BridgeState;
use crate::plane::static_plane;

/// So many answers in a row prove that an API server serves.
pub const PROOFS: u32 = 3;
/// How long pods must have been ready without a restart.
pub const STABLE: Duration = Duration::from_millis(300);
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

/// The steps, in their order; the first two go on side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The successors of the bridge's controllers are ready, and the bridge's are gone.
    Controllers,
    /// The other API server answers on loopback.
    ApiServer,
    /// Every required pod is ready.
    Required,
    /// The bridge's API server is gone.
    Lower,
    /// NODE_IP is served, both Leases have a living holder, nothing of the bridge is left.
    Prove,
}

/// A single thing to do. Each may be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Put NODE_IP among the addresses of the `kubernetes` Service.
    PublishEndpoint,
    /// Delete pods, by namespace and name, that wait before they are tried again, so that they are made anew at once.
    ReplacePods(Vec<(String, String)>),
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
}

/// The machine and the cluster, as they were seen this time round.
#[derive(Debug, Clone)]
pub struct Observed {
    /// This controller's address.
    pub node_ip: IpAddr,
    /// This controller's Node.
    pub node_name: String,
    /// What the bridge is lowered for.
    pub target: Target,
    /// The workloads whose pods must be ready.
    pub required: Vec<Required>,
    /// What of the bridge is on the host.
    pub bridge: BridgeState,
    /// The forwarder has NODE_IP, so that whatever else listens there may go.
    pub bridge_serves: bool,
    /// What of the permanent static control plane is on the host.
    pub statics: static_plane::State,
    /// Guard is there as it shall be, if there shall be one.
    pub has_guard: bool,
    /// The kubelet has asked for the API in vain for so long that it would not ask again for many seconds.
    pub kubelet_waits: bool,
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
    /// What is gone from the cluster of what manifests make, as far as that was looked for.
    pub missing: Vec<String>,
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
    /// Leases, by name and version, whose holder is dead.
    pub dead_leases: Vec<(String, String)>,
}

impl Observed {
    /// The control plane has proved that it serves and leads, and nothing of the bridge stands or runs: what is still waited
    /// for is no reason to keep others from mending what comes to harm.
    pub fn serves_itself(&self) -> bool {
        self.bridge.is_lowered() && self.bridge.processes.is_empty() && self.is_proved()
    }

    /// The other API server has proved that it serves, and NODE_IP answers.
    pub fn serves(&self) -> bool {
        self.self_hosted_ready >= PROOFS && self.api_ready
    }

    /// The proof has taken longer than it may, given for how long the bridge has been lowered. What only the kubelet has to
    /// tidy up is no reason to raise it again.
    pub fn is_late(&self, lowered_for: Option<Duration>) -> bool {
        let silent = !self.is_proved() && lowered_for.is_some_and(|so_long| so_long > PROVE_LIMIT);
        silent || self.leaderless_for > LEAD_LIMIT
    }

    /// Only the bridge's controllers are lowered.
    pub fn controllers_lowered(&self) -> bool {
        self.bridge.api_server && self.bridge.controllers == 0
    }

    fn is_proved(&self) -> bool {
        self.serves() && self.view.as_ref().is_some_and(|view| all_lead(&self.leases_when_gone, view))
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Do these, in this order, and observe again.
    Do(Step, Vec<Act>),
    /// Nothing but wait, for this.
    Wait(Step, String),
    /// There is no bridge to hand over from, and nothing else serves.
    Unraised,
    /// The control plane did not prove itself in time, with a part of the bridge lowered.
    Late,
    /// The control plane serves, and nothing is left to do.
    Done,
}

/// Decides; `lowered_for` says since when whoever hands over has had the bridge lowered.
pub fn decide(o: &Observed, lowered_for: Option<Duration>) -> Decision {
    use Decision::{Do, Late, Unraised, Wait};
    if o.is_late(lowered_for) {
        return Late;
    }
    if o.target == Target::SelfHosted && o.statics.is_there() {
        return Wait(Step::Controllers, "`hoist start` to take the static control plane out".into());
    }
    if o.bridge.is_lowered() {
        return match lowered_for {
            _ if o.serves() => finish(o),
            Some(_) => Wait(Step::Prove, format!("{} to answer: {}", o.node_ip, o.api_said)),
            // One answer may be chance: a cluster that is up is not touched for that.
            None if o.self_hosted_ready > 0 => {
                Wait(Step::Prove, format!("the {} API server to prove that it serves", o.target))
            }
            None => Unraised,
        };
    }
    if !o.bridge.is_raised() && !o.controllers_lowered() {
        return Unraised;
    }
    let Some(view) = o.view.as_ref().filter(|_| o.api_ready) else {
        return Wait(Step::Controllers, format!("the bridge's API server at {}: {}", o.node_ip, o.api_said));
    };
    if !publishes(&view.endpoints, o.node_ip) {
        return Do(Step::Controllers, vec![Act::PublishEndpoint]);
    }
    // Whatever kept them from running may be mended by now. Without a controller manager, nobody would replace them.
    let replaces = o.bridge.processes.contains("kube-controller-manager") || o.successors_ready_for.is_some();
    if !o.backed_off.is_empty() && replaces {
        return Do(Step::Controllers, vec![Act::ReplacePods(o.backed_off.clone())]);
    }
    if let Some(decision) = controllers(o, view) {
        return decision;
    }
    if o.self_hosted_ready < PROOFS {
        let what = format!("the {} API server: {}; {}", o.target, o.self_hosted_said, pods_said(o, view));
        return Wait(Step::ApiServer, what);
    }
    if o.others_ready_for.is_none_or(|so_long| so_long < STABLE) {
        return Wait(Step::Required, pods_said(o, view));
    }
    Do(Step::Lower, vec![Act::LowerApiServer])
}

/// Deletes the Leases of dead holders.
pub fn dead_leases(o: &Observed) -> Vec<Act> {
    let delete =
        |(name, version): &(String, String)| Act::DeleteLease { name: name.clone(), resource_version: version.clone() };
    o.dead_leases.iter().map(delete).collect()
}

/// What is left to do until the bridge's controllers are gone and no Lease is held by a dead one. It goes on beside the
/// start of the other API server, of which it takes nothing: their successors work through the bridge, too. Whether the Leases
/// move is proved at the end.
fn controllers(o: &Observed, view: &ClusterView) -> Option<Decision> {
    use Decision::{Do, Wait};
    let (lowered, gone) = (o.controllers_lowered(), o.bridge.controllers_gone());
    // Where a controller manager was deleted, the bridge's need not wait until its Lease expires; nor need the successors
    // once both of the bridge's are gone.
    if !o.dead_leases.is_empty() && (gone || !lowered) {
        return Some(Do(Step::Controllers, dead_leases(o)));
    }
    if !lowered && o.successors_ready_for.is_none_or(|so_long| so_long < STABLE) {
        return Some(Wait(Step::Controllers, pods_said(o, view)));
    }
    // From here on the disk alone does not bring the control plane up at a boot.
    if !o.has_guard {
        return Some(Do(Step::Controllers, vec![Act::InstallGuard]));
    }
    if !lowered {
        return Some(Do(Step::Controllers, vec![Act::LowerControllers]));
    }
    (!gone).then(|| Wait(Step::Controllers, "the bridge's controller manager and scheduler to end".into()))
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

/// The control plane serves and no manifest of the bridge stands: is all of it gone, and all else well?
fn finish(o: &Observed) -> Decision {
    use Decision::{Do, Wait};
    let Some(view) = &o.view else {
        return Wait(Step::Prove, format!("{} to answer", o.node_ip));
    };
    if !publishes(&view.endpoints, o.node_ip) {
        return Do(Step::Prove, vec![Act::PublishEndpoint]);
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
pub(crate) mod tests;
