//! Observes afresh in each round, and remembers only what takes time: answers in a row, since when, the holders of
//! Leases.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use super::memory::{Mode, Run};
use crate::api::missing::missing;
use crate::api::observe::{ClusterView, LEASES, LeaseView, PodView, Pods, Required, observe};
use crate::api::owners;
use crate::base::error::{Error, Result};
use crate::base::probe::Answer;
use crate::desired::config::API_PORT;
use crate::node::host::Host;
use crate::node::kubelet;
use crate::node::processes;
use crate::node::world::Ask;
use crate::plane::bridge::{Bridge, State};
use crate::plane::guard_pod;
use crate::plane::hand_over::{Observed, Target, all_lead, all_ready};
use crate::plane::lease_holders::Holders;
use crate::plane::static_plane::Permanent;

/// How long one question to an API server may take.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// For so long a kubelet that has just been started asks for the API at intervals that are short, or end at the
/// forwarder, which lets it wait. Its reflectors go up to 30 s, its registration to 7 s.
const KUBELET_PATIENCE: Duration = Duration::from_secs(8);

/// While nothing has changed for so long (the first), the API is read no more often than this (the second).
const PACES: [(Duration, Duration); 3] = [
    (Duration::from_secs(60), Duration::from_secs(1)),
    (Duration::from_secs(10), Duration::from_millis(500)),
    (Duration::ZERO, Duration::ZERO),
];

/// What was read of the API last, with what the machine and the API servers were like then.
struct Read {
    view: ClusterView,
    missing: Vec<String>,
    beside: (State, bool, bool),
    at: Instant,
    /// Since when it has been the same, but for renewals of Leases.
    since: Instant,
}

/// What only time can tell. All of it can be lost: a new run begins without.
pub(super) struct Observer {
    probe: Box<dyn Ask>,
    client: Option<Client>,
    self_hosted_ready: u32,
    required: Steady,
    others: Steady,
    successors: Steady,
    leaderless_since: Option<Instant>,
    pub(super) holders: Holders,
    dead_leases: Vec<(String, String)>,
    /// Guard's copy when all of guard was last seen to be as it shall be.
    guard_seen: Option<guard_pod::Mark>,
    leases_when_gone: Option<BTreeMap<String, LeaseView>>,
    lowered_since: Option<Instant>,
    /// When NODE_IP was first ready.
    api_since: Option<Instant>,
    /// The required pods that were not ready when this run first saw them, by namespace and name.
    inherited: Option<BTreeSet<(String, String)>>,
    last: Option<Read>,
    is_stale: bool,
    /// Something has answered at NODE_IP in the course of this run.
    pub(super) seen_api: bool,
    /// What is gone of the manifests' objects of a cluster that is up: looked at once.
    missing: Option<Vec<String>>,
    /// Why the API could not be read, the last time it could not.
    pub(super) trouble: Option<String>,
}

impl Observer {
    pub(super) fn new(host: &Host, ca_pem: &[u8]) -> Result<Self> {
        Ok(Self {
            probe: host.world().probe(ca_pem)?,
            client: None,
            self_hosted_ready: 0,
            required: Steady::default(),
            others: Steady::default(),
            successors: Steady::default(),
            leaderless_since: None,
            holders: Holders::default(),
            dead_leases: Vec::new(),
            guard_seen: None,
            leases_when_gone: None,
            lowered_since: None,
            api_since: None,
            inherited: None,
            last: None,
            is_stale: false,
            seen_api: false,
            missing: None,
            trouble: None,
        })
    }

    /// The client, for acts; there is one once the API has answered.
    pub(super) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Whether the API was read earlier than in the last round: then nothing may be done by what it showed.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Reads the API in the next round, whatever has been the same for how long.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// For how long this run has had the bridge lowered.
    pub(super) fn lowered_for(&self) -> Option<Duration> {
        self.lowered_since.map(|since| since.elapsed())
    }

    /// What NODE_IP answers, now.
    pub(super) async fn asks(&self, run: &Run<'_>) -> Answer {
        let node_ip = SocketAddr::new(run.fixed.controller.address, API_PORT);
        self.probe.get(node_ip, "/readyz", ASK_LIMIT).await
    }

    /// Who serves, now, in words.
    pub(super) async fn served(&self, run: &Run<'_>) -> String {
        match (self.asks(run).await, Bridge::new(run.fixed.host).state().is_lowered()) {
            (answer, true) if answer.is_ready() => "the cluster serves itself".to_owned(),
            (answer, false) if answer.is_ready() => "the bridge serves the API".to_owned(),
            (answer, _) => format!("the API is NOT served: {} answers {answer}", run.fixed.controller.address),
        }
    }

    pub(super) async fn observe(&mut self, run: &Run<'_>, now: Instant) -> Result<Observed> {
        let node_ip = SocketAddr::new(run.fixed.controller.address, API_PORT);
        let loopback = SocketAddr::new(run.fixed.cluster.loopback(), API_PORT);
        let bridge = Bridge::new(run.fixed.host).state();
        self.is_stale = false;
        let (api, self_hosted) =
            tokio::join!(self.probe.get(node_ip, "/readyz", ASK_LIMIT), self.probe.get(loopback, "/readyz", ASK_LIMIT));
        // Nothing can be decided by that: neither that the API is there nor that it is gone.
        if let Some(lack @ Answer::NotAsked(_)) = [&api, &self_hosted].into_iter().find(|answer| not_asked(answer)) {
            return Err(lacking(lack));
        }
        self.seen_api |= api.is_answered();
        let beside = (bridge.clone(), api.is_ready(), self_hosted.is_ready());
        let read = match &api {
            Answer::Http { .. } => self.read_at_pace(run, node_ip, beside, now).await?,
            _ => {
                self.last = None;
                None
            }
        };
        let (view, missing) = read.unzip();
        let missing = missing.unwrap_or_default();

        self.self_hosted_ready = if self_hosted.is_ready() { self.self_hosted_ready + 1 } else { 0 };
        let node = &run.fixed.controller.name;
        let steady = |pods: &mut Steady, workloads: &[Required]| {
            view.as_ref().and_then(|view| pods.note(view, node, workloads, now))
        };
        let required_ready_for = steady(&mut self.required, run.fixed.required);
        let api_server = run.fixed.target.workloads(["kube-apiserver"], node);
        let others: Vec<_> =
            run.fixed.required.iter().filter(|workload| !api_server.contains(workload)).cloned().collect();
        let others_ready_for = steady(&mut self.others, &others);
        let successors_ready_for = steady(&mut self.successors, &run.fixed.target.workloads(LEASES, node));
        if let Some(view) = &view {
            self.judge_holders(run, view).await;
            if !bridge.controllers_gone() {
                self.leases_when_gone = None;
            } else if self.leases_when_gone.is_none() {
                self.leases_when_gone = Some(view.leases.clone());
            }
        }
        let leads = |view: &ClusterView| self.leases_when_gone.as_ref().is_some_and(|then| all_lead(then, view));
        let well = successors_ready_for.is_some() && view.as_ref().is_some_and(leads);
        let lowered = bridge.api_server && bridge.controllers == 0;
        // While the API cannot be read, nothing is known of leaders.
        self.leaderless_since =
            if well || !lowered || view.is_none() { None } else { self.leaderless_since.or(Some(now)) };
        if !bridge.is_lowered() || !run.has_lowered {
            self.lowered_since = None;
        } else if self.lowered_since.is_none() {
            self.lowered_since = Some(now);
        }
        let backed_off = view.as_ref().map(|view| self.backed_off(run, view)).unwrap_or_default();
        let forwards = bridge.processes.contains("forwarder");
        if api.is_ready() && self.api_since.is_none() {
            self.api_since = Some(now);
        }
        Ok(Observed {
            node_ip: run.fixed.controller.address,
            node_name: run.fixed.controller.name.clone(),
            required: run.fixed.required.to_vec(),
            bridge,
            has_guard: self.has_guard(run),
            missing: missing.into_iter().filter(|name| !run.is_refused(name)).collect(),
            kubelet_waits: self.kubelet_waits(run),
            api_ready: api.is_ready(),
            api_said: api.to_string(),
            self_hosted_ready: self.self_hosted_ready,
            self_hosted_said: self_hosted.to_string(),
            view,
            backed_off: if run.has_replaced { Vec::new() } else { backed_off },
            required_ready_for,
            others_ready_for,
            successors_ready_for,
            leaderless_for: self.leaderless_since.map_or(Duration::ZERO, |since| now - since),
            leases_when_gone: self.leases_when_gone.clone().unwrap_or_default(),
            target: run.fixed.target,
            statics: Permanent::new(run.fixed.host).state(),
            bridge_serves: api.is_ready() && forwards && processes::listens_at(&run.fixed.host.path("/proc"), node_ip),
            dead_leases: self.dead_leases.clone(),
        })
    }

    /// Whether guard is there as it shall be. Its copy is read again only when it is another file.
    fn has_guard(&mut self, run: &Run<'_>) -> bool {
        let Some(copy) = &run.guard else { return true };
        let mark = guard_pod::mark(run.fixed.host);
        let stood = self.guard_seen.as_ref() == Some(&mark) && guard_pod::is_there(run.fixed.host);
        // What did not stand is looked at anew: it may have lacked something else than its copy.
        let stands = stood || guard_pod::stands(run.fixed.host, copy, run.fixed.binary);
        self.guard_seen = stands.then_some(mark);
        stands
    }

    /// Whether the kubelet has asked for the API in vain for longer than it takes to ask in long intervals.
    fn kubelet_waits(&self, run: &Run<'_>) -> bool {
        let is_new = |api_since: Instant| run.kubelet_since.is_some_and(|since| api_since < since + KUBELET_PATIENCE);
        let may_restart = run.raised == Some(true) && !run.kubelet_knows && kubelet::is_systemd(run.fixed.host);
        may_restart && !self.api_since.is_none_or(is_new)
    }

    /// What the API shows: read now, but where nothing has changed for so long that once in a while is enough.
    async fn read_at_pace(
        &mut self,
        run: &Run<'_>,
        address: SocketAddr,
        beside: (State, bool, bool),
        now: Instant,
    ) -> Result<Option<(ClusterView, Vec<String>)>> {
        if let Some(last) =
            self.last.as_ref().filter(|last| last.beside == beside && now - last.at < pace(now - last.since))
        {
            self.is_stale = true;
            return Ok(Some((last.view.clone(), last.missing.clone())));
        }
        let before = self.last.take();
        let Some((view, missing)) = self.read(run, address, beside.0.is_lowered()).await? else { return Ok(None) };
        let is_same =
            |last: &Read| last.beside == beside && last.missing == missing && still(&last.view) == still(&view);
        let since = before.filter(is_same).map_or(now, |last| last.since);
        self.last = Some(Read { view: view.clone(), missing: missing.clone(), beside, at: now, since });
        Ok(Some((view, missing)))
    }

    /// Reads the API; a failure is kept for whoever explains, and the connection made anew.
    async fn read(
        &mut self,
        run: &Run<'_>,
        address: SocketAddr,
        is_lowered: bool,
    ) -> Result<Option<(ClusterView, Vec<String>)>> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(run.fixed.host.world().connect(run.fixed.kubeconfig, address).await?).clone(),
        };
        // Those that go are told by more than their labels.
        let which = if run.fixed.target == Target::Static { Pods::All } else { Pods::ControlPlane };
        let look = async {
            let mut view = observe(&client, &run.fixed.controller.name, run.fixed.required, which).await?;
            // A pod outlives for a while what it belongs to, and then it proves nothing.
            let missing = match run.fixed.mode {
                Mode::Recover { .. } => owners::check(&client, run.fixed.manifests, &mut view).await?,
                // What this run applies is there. What an earlier one has applied may be gone.
                Mode::Start if run.applied || !is_lowered => Vec::new(),
                Mode::Start => match &self.missing {
                    Some(missing) => missing.clone(),
                    None => {
                        let gone = missing(&client, run.fixed.manifests, run.guard.is_some()).await?;
                        gone.iter().map(ToString::to_string).collect()
                    }
                },
            };
            Ok::<_, Error>((view, missing))
        };
        match look.await {
            Ok(read) => {
                if is_lowered && !run.applied {
                    self.missing = Some(read.1.clone());
                }
                self.trouble = None;
                Ok(Some(read))
            }
            Err(error) => {
                self.trouble = Some(error.to_string());
                self.client = None;
                Ok(None)
            }
        }
    }

    /// The required pods that an earlier run left behind unready and that the kubelet does not try now.
    fn backed_off(&mut self, run: &Run<'_>, view: &ClusterView) -> Vec<(String, String)> {
        let pods = || {
            let of_workload =
                |workload| view.pods_of(workload, &run.fixed.controller.name).map(|pod| (&workload.namespace, pod));
            run.fixed.required.iter().flat_map(of_workload).filter(|(_, pod)| !pod.ready)
        };
        let key = |(namespace, pod): (&String, &PodView)| (namespace.clone(), pod.name.clone());
        let inherited = self.inherited.get_or_insert_with(|| pods().map(key).collect());
        let waits = pods().filter(|(_, pod)| pod.backs_off() && pod.is_replaced());
        waits.map(key).filter(|pod| inherited.contains(pod)).collect()
    }

    /// Which Leases have dead holders. A run sees the processes of its time come: it needs no dates.
    async fn judge_holders(&mut self, run: &Run<'_>, view: &ClusterView) {
        self.dead_leases.clear();
        let Some(client) = &self.client else { return };
        let here = (run.fixed.host, run.fixed.controller.name.as_str());
        match self.holders.dead(here, client, &view.leases, false).await {
            Ok(dead) => self.dead_leases = dead,
            // Whoever leads next waits until they expire.
            Err(error) => tracing::debug!(%error, "no Lease's holder is known to be dead"),
        }
    }
}

fn not_asked(answer: &Answer) -> bool {
    matches!(answer, Answer::NotAsked(_))
}

/// The error of a run whose machine is out of what it takes to ask.
fn lacking(answer: &Answer) -> Error {
    Error::Failed {
        action: "ask the API server whether it is ready".into(),
        cause: answer.to_string(),
        next: Some(
            "give this machine what it lacks (`ulimit -n`, `free`, `ss -s`), and run the same command again".into(),
        ),
    }
}

/// How often the API is read that has shown the same for so long.
fn pace(unchanged_for: Duration) -> Duration {
    PACES.into_iter().find(|(from, _)| unchanged_for >= *from).map_or(Duration::ZERO, |(_, pace)| pace)
}

/// What was read, without what changes while nothing happens.
fn still(view: &ClusterView) -> ClusterView {
    let mut still = view.clone();
    for lease in still.leases.values_mut() {
        (lease.renewed, lease.resource_version) = (String::new(), String::new());
    }
    still
}

/// Since when all of some workloads have been ready, with the same count of restarts.
#[derive(Default)]
struct Steady(Option<(Instant, i32)>);

impl Steady {
    fn note(&mut self, view: &ClusterView, node: &str, workloads: &[Required], now: Instant) -> Option<Duration> {
        let restarts = workloads.iter().flat_map(|workload| view.pods_of(workload, node)).map(|pod| pod.restarts).sum();
        self.0 = match self.0 {
            _ if !all_ready(view, node, workloads) => None,
            Some((since, before)) if before == restarts => Some((since, before)),
            _ => Some((now, restarts)),
        };
        self.0.map(|(since, _)| now - since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_changed_for_long_is_read_less_often() {
        let at = |seconds| pace(Duration::from_secs(seconds)).as_millis();
        assert_eq!([0, 9, 10, 59, 60, 3600].map(at), [0, 0, 500, 500, 1000, 1000]);
    }

    #[test]
    fn a_lease_that_is_renewed_is_no_change_and_one_that_moves_is() {
        let view = |holder: &str, renewed: &str| {
            let lease = LeaseView {
                holder: holder.into(),
                renewed: renewed.into(),
                resource_version: renewed.into(),
                ..LeaseView::default()
            };
            ClusterView { leases: BTreeMap::from([("kube-scheduler".into(), lease)]), ..ClusterView::default() }
        };
        assert!(still(&view("a", "1")) == still(&view("a", "2")));
        assert!(still(&view("a", "1")) != still(&view("b", "1")));
    }
}
