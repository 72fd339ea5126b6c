//! guard's exchange with the cluster while the API answers: events about its Node, and a heartbeat once a minute. By
//! the heartbeat guard learns whether this node is a controller, whether leaders renew their Leases, and whether the
//! cluster's copy of the bridge differs from its own, or is gone.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use kube::Client;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};

use super::decide::{Role, role};
use super::observer::{ASK_LIMIT, WITHOUT_ETCD};
use crate::api::guard as api;
use crate::api::observe::{LEASES, LeaseView, lease};
use crate::api::{dns, write};
use crate::base::error::{Error, Result};
use crate::desired::secrets;
use crate::node::host::Host;
use crate::node::world::Ask;
use crate::plane::kept_copy::Copy;

/// What gives guard its rights again.
pub(super) const RIGHTS: &str = "guard's rights in the cluster are gone: `hoist start` with the asset directory restores them, or `kubectl apply --server-side -f assets/manifests/hoist-guard/rbac.yaml`";

/// Between two heartbeats.
const MINUTE: Duration = Duration::from_secs(60);
/// After one that failed.
const AGAIN: Duration = Duration::from_secs(5);
/// For so long it has not answered: more than a round of guard's takes, whatever it does in it.
const AWAY: Duration = Duration::from_secs(20);
/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How much of that counting the nodes of a large cluster may.
const SCALE_LIMIT: Duration = Duration::from_secs(5);
/// When it takes longer than this, it is asked again and again whether anybody listens.
const LISTENS: Duration = Duration::from_secs(1);
/// Events that nobody could be told are forgotten, the oldest first.
const PENDING: usize = 32;

/// What a heartbeat has found of the cluster.
#[derive(Default)]
pub struct ClusterState {
    /// What this controller's Node says of it; `None` where that could not be read.
    pub role: Option<Role>,
    /// Why it could not.
    pub trouble: Option<Error>,
    /// For how long a Lease of the control plane has not been renewed; `None` where that was not asked.
    pub leaderless_for: Option<Duration>,
    /// The cluster's copy of the bridge, if it is another than the one here.
    pub copy: Option<Copy>,
    /// What the self-hosted control plane of this controller runs.
    pub runs: Option<Runs>,
    /// What there is to say: of CoreDNS's replicas, of a Secret that was gone.
    pub news: Vec<String>,
}

/// What the self-hosted control plane of a controller runs.
#[derive(Debug, PartialEq, Eq)]
pub struct Runs {
    /// The images of its ready pods, each with its component.
    pub images: Vec<(String, String)>,
    /// The minor version that the API server says it is.
    pub version: (u32, u32),
}

/// The exchange with the cluster: when it is due, and what events are left to record.
pub struct Heartbeat {
    node: String,
    pending: VecDeque<api::NodeEvent>,
    due: Instant,
    /// When to look at the Node, where that is sooner.
    look: Instant,
    /// The last exchange came to nothing: it is not tried again before its time.
    has_failed: bool,
    /// When the API was last known to answer.
    answered_at: Instant,
    renewals: Renewals,
    /// The sums of the cluster's copy and of this one, where they say the same all the same.
    compared: Option<(String, String)>,
}

/// The Leases as they were last seen to change, by this machine's clock alone: no other's needs to agree with it.
#[derive(Default)]
struct Renewals(BTreeMap<&'static str, (Option<LeaseView>, Instant)>);

impl Renewals {
    /// Notes how a Lease is now; says for how long it has been so.
    fn note(&mut self, name: &'static str, seen: Option<LeaseView>, now: Instant) -> Duration {
        match self.0.get(name) {
            Some((before, since)) if *before == seen => now - *since,
            _ => {
                self.0.insert(name, (seen, now));
                Duration::ZERO
            }
        }
    }
}

impl Heartbeat {
    /// Nothing yet but a first heartbeat.
    pub fn new(node: &str, now: Instant) -> Self {
        Self {
            node: node.to_owned(),
            pending: VecDeque::new(),
            due: now,
            look: now,
            has_failed: false,
            answered_at: now,
            renewals: Renewals::default(),
            compared: None,
        }
    }

    /// Asks before its time: what is here is not as it should be.
    pub fn hurry(&mut self, now: Instant) {
        self.due = self.due.min(now + AGAIN);
    }

    /// The API answers. While it did not, nobody could renew a Lease: now that it does again, each has its time to.
    fn api_answers(&mut self, now: Instant) {
        if now - self.answered_at > AWAY {
            self.renewals = Renewals::default();
        }
        self.answered_at = now;
    }

    /// Keeps an event until the API answers.
    pub fn event(&mut self, at: OffsetDateTime, reason: &'static str, message: String, is_warning: bool) {
        if self.pending.len() == PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(api::NodeEvent { at, reason, message, is_warning });
    }

    /// Records and reads what is due; `None` when nothing was. To be called whenever the API answers; when it falls silent
    /// meanwhile, that is soon noticed. A Secret that is gone is put back from `copy` if guard `may_put_back` any: it is
    /// whole, and nobody else is at work here who may have taken it away.
    ///
    /// # Errors
    /// Why that could not be: it is tried again.
    pub async fn beat(
        &mut self,
        host: &Host,
        copy: &Copy,
        address: SocketAddr,
        probe: &dyn Ask,
        may_put_back: bool,
    ) -> Result<Option<ClusterState>> {
        self.api_answers(Instant::now());
        if Instant::now() < self.due.min(self.look) && (self.pending.is_empty() || self.has_failed) {
            return Ok(None);
        }
        // Another client each time: one at rest would keep its connections, and its memory.
        let exchange = async {
            let client = client(host, copy, address).await?;
            self.exchange(host, &client, copy, may_put_back).await
        };
        let fail = |why: &str| Err(Error::failed("tell the API of this node", why));
        let state = tokio::select! {
            state = timeout(LIMIT, exchange) => state.unwrap_or_else(|_| fail("no answer in time")),
            () = falls_silent(probe, address) => fail("it does not answer any more"),
        };
        self.has_failed = state.is_err();
        if let Err(error) = &state {
            // Not before the moment that the API server names.
            let next = Instant::now() + AGAIN.max(error.after().unwrap_or_default());
            (self.due, self.look) = (next, next);
        }
        state.map(Some)
    }

    /// For how long a Lease of the control plane has not been renewed; that of the two that is older. It is read anew.
    ///
    /// # Errors
    /// The API server's word.
    pub async fn leaderless_for(&mut self, client: &Client) -> Result<Duration> {
        let mut unchanged_for = Duration::ZERO;
        for name in LEASES {
            let seen = lease(client, name).await?;
            unchanged_for = unchanged_for.max(self.renewals.note(name, seen, Instant::now()));
        }
        Ok(unchanged_for)
    }

    async fn exchange(
        &mut self,
        host: &Host,
        client: &Client,
        copy: &Copy,
        may_put_back: bool,
    ) -> Result<ClusterState> {
        while let Some(event) = self.pending.front() {
            api::record(client, &self.node, event).await?;
            self.pending.pop_front();
        }
        let mut state = ClusterState::default();
        // What else there is to read is read where the Node cannot be read, too.
        let labelled = match self.role(client).await {
            Ok((role, labelled)) => {
                state.role = Some(role);
                labelled
            }
            Err(error) => {
                state.trouble = Some(error);
                api::labelled(client, &self.node).await?
            }
        };
        let is_well = state.role == Some(Role::Controller);
        self.look = Instant::now() + if is_well { MINUTE } else { AGAIN };
        if Instant::now() < self.due {
            return Ok(state);
        }
        let world = host.world();
        let said = api::Said {
            hostname: &world.hostname(),
            labelled: labelled.as_deref(),
            version: &copy.kubernetes,
            keys: &copy.keys_sum(),
        };
        api::heartbeat(client, &self.node, said, world.now()).await?;
        state.leaderless_for = Some(self.leaderless_for(client).await?);
        let (sum, own) = (api::copy_sum(client).await?, copy.shared().sum());
        match sum {
            Some(sum) if sum != own && self.compared.as_ref() != Some(&(sum.clone(), own.clone())) => {
                if let Some(text) = api::copy(client).await? {
                    let shared = Copy::of_secret(&text)?;
                    // An older hoist's may say the same and more.
                    // What was renewed here, and is not in the cluster's yet, stays.
                    let (theirs, _) = shared.completed(copy).with_newer(copy);
                    state.copy = Some(theirs).filter(|state| state != copy);
                    self.compared = state.copy.is_none().then_some((sum, own));
                }
            }
            None if may_put_back => {
                let shared = copy.shared();
                write::guard_copy(client, &shared.to_json(), &own).await?;
                state
                    .news
                    .push("the Secret kube-system/hoist-guard was gone: it is restored from the copy here".into());
            }
            _ => {}
        }
        let told = api::version(client).await?;
        // What is on trial is not followed: the bridge is still that of the old version.
        if let Some(version) = told.version.filter(|_| !told.is_on_trial) {
            state.runs = Some(Runs { images: api::images(client, &self.node).await?, version });
        }
        // What becomes of it, and how long it takes, is no reason to have the heart beat faster.
        let scaled = timeout(SCALE_LIMIT, dns::autoscale(client)).await;
        state.news.extend(match scaled.unwrap_or_else(|_| Err(Error::failed("scale CoreDNS", "no answer in time"))) {
            Ok(replicas) => replicas.map(|replicas| format!("CoreDNS has {replicas} replicas now: {}", dns::WHY)),
            Err(error) => Some(error.to_string()),
        });
        // An upgrade waits for what guard says of its copy.
        let has_more = told.is_on_trial || state.copy.is_some();
        self.due = Instant::now() + if has_more { AGAIN } else { MINUTE };
        Ok(state)
    }

    /// What the Node says of it, and the uid of the Node that last had the label.
    async fn role(&self, client: &Client) -> Result<(Role, Option<String>)> {
        let node = api::node(client, &self.node).await?;
        let labelled = match &node {
            Some(node) if node.has_label => Some(node.uid.clone()),
            _ => api::labelled(client, &self.node).await?,
        };
        Ok((role(node.as_ref(), labelled.as_deref()), labelled))
    }
}

/// Ends when nobody answers at `address`.
async fn falls_silent(probe: &dyn Ask, address: SocketAddr) {
    loop {
        sleep(LISTENS).await;
        if probe.get(address, WITHOUT_ETCD, ASK_LIMIT).await.is_missed() {
            return;
        }
    }
}

/// A client with guard's own certificate.
///
/// # Errors
/// A copy that lacks it.
pub async fn client(host: &Host, copy: &Copy, address: SocketAddr) -> Result<Client> {
    let (cluster, _) = copy.cluster()?;
    let kubeconfig = secrets::of_guard(&cluster, &copy.assets.tls())?;
    host.world().connect(&kubeconfig, address).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;

    use futures::future::BoxFuture;

    use super::*;
    use crate::base::probe::Answer;

    #[test]
    fn a_lease_is_as_old_as_its_last_change_that_was_seen() {
        let [name, other] = LEASES;
        let begun = Instant::now();
        let view = |renewed: &str| Some(LeaseView { renewed: renewed.into(), ..LeaseView::default() });
        let mut renewals = Renewals::default();
        // What it says of the time may be another machine's clock.
        assert_eq!(renewals.note(name, view("1970"), begun), Duration::ZERO);
        assert_eq!(renewals.note(name, view("1970"), begun + MINUTE), MINUTE);
        assert_eq!(renewals.note(name, view("1971"), begun + MINUTE * 2), Duration::ZERO);
        assert_eq!(renewals.note(name, None, begun + MINUTE * 3), Duration::ZERO);
        assert_eq!(renewals.note(name, None, begun + MINUTE * 4), MINUTE);
        assert_eq!(renewals.note(other, None, begun + MINUTE * 4), Duration::ZERO);
    }

    /// Answers that often, and then never.
    struct Answers(AtomicU32);

    impl Ask for Answers {
        fn get<'a>(&'a self, _: SocketAddr, _: &'a str, limit: Duration) -> BoxFuture<'a, Answer> {
            let is_left = self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
            Box::pin(async move {
                if is_left {
                    return Answer::Http { status: 200, body: String::new() };
                }
                sleep(limit).await;
                Answer::TimedOut
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_listens_no_more_is_not_told_to_the_end() {
        let begun = Instant::now();
        falls_silent(&Answers(4.into()), SocketAddr::from(([127, 0, 0, 1], 1))).await;
        assert_eq!(begun.elapsed(), LISTENS * 5 + ASK_LIMIT);
    }

    #[test]
    fn while_the_api_is_away_no_lease_gets_older() {
        let begun = Instant::now();
        let mut heartbeat = Heartbeat::new("c1", begun);
        let note = |heartbeat: &mut Heartbeat, at| heartbeat.renewals.note(LEASES[0], Some(LeaseView::default()), at);
        note(&mut heartbeat, begun);
        heartbeat.api_answers(begun + AWAY);
        heartbeat.api_answers(begun + AWAY * 2);
        assert_eq!(note(&mut heartbeat, begun + AWAY * 2), AWAY * 2, "a look in vain is no outage");
        // etcd's quorum went with another node, and is back: whoever led renews now.
        let back = begun + AWAY * 2 + MINUTE;
        heartbeat.api_answers(back);
        assert_eq!(note(&mut heartbeat, back), Duration::ZERO);
    }
}
