//! The loop of guard: observe, decide, act, exchange a heartbeat; and again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kube::Client;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::decide::{
    Cause, CopyState, Decision, LEAVE_AFTER, Observed, Server, Stands, decide, hold, lacks_data, stays,
};
use super::etcd_ends::EtcdEnds;
use super::etcd_roll;
use super::heartbeat::{Heartbeat, RIGHTS};
use super::leases::Leases;
use super::metrics::Metrics;
use super::observer::{Addresses, Observer};
use super::watch::Watch;
use super::{heartbeat, keeper, leave};
use crate::api::turn::Turn;
use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::report::{News, Reporter};
use crate::base::watched::Watched;
use crate::desired::config::API_PORT;
use crate::node::host::Host;
use crate::node::lock;
use crate::node::world::Ask;
use crate::ops::certs;
use crate::ops::join;
use crate::plane::bridge::Bridge;
use crate::plane::guard_pod;
use crate::plane::kept_copy::{self, Copy};
use crate::plane::lease_holders::Clock;
use crate::plane::leaving;
use crate::plane::member;

/// Between two looks while the self-hosted API server serves.
const AT_REST: Duration = Duration::from_secs(1);
/// Between two looks otherwise, and the least between any two: how late a raise may be.
const ALERT: Duration = Duration::from_millis(250);
/// For how long after a raise Leases of dead holders are looked for: their own time is over then.
const LEASES_FOR: Duration = Duration::from_secs(30);
/// A hand-over that could not be begun is not tried again for so long.
const LOWER_AGAIN: Duration = Duration::from_secs(5);
/// How long the API must have refused guard what is its right before an event says so: while its caches are cold, an API
/// server refuses everybody.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// A bridge that stands when guard begins and is no older was raised before the kubelet started.
const FRESH: Duration = Duration::from_secs(120);

/// What guard was told.
#[derive(Debug, Clone)]
pub struct Options {
    /// This controller's Node.
    pub node_name: String,
    /// Where metrics are served.
    pub metrics: SocketAddr,
}

/// Guards until this node is no controller any more.
///
/// # Errors
/// A CA that cannot be used when it begins. Whatever else goes wrong is said, and tried again.
pub async fn run(host: &Host, options: &Options, reporter: &Reporter) -> Result<()> {
    let metrics = Metrics::default();
    let ends = EtcdEnds::new(host, reporter);
    let mut served = Box::pin(metrics.clone().serve(options.metrics, |path| ends.asked(path)));
    let way = keeper::Shared::default();
    let (counts, node) = (metrics.clone(), &options.node_name);
    let mut guard = Guard::new(host, options, reporter, metrics, way.clone());
    let mut guarded = Box::pin(guard.forever());
    // On the heap: together they are larger than a thread's stack may have room for.
    let mut beside = Box::pin(async {
        let (kept, joined) = (keeper::run(host, &way, reporter, &counts), join::run(host, node, reporter));
        let renewed = certs::run(host, node, reporter, || counts.set(|counts| counts.errors += 1));
        tokio::join!(kept, joined, renewed, etcd_roll::run(host, node, reporter))
    });
    let mut is_served = true;
    loop {
        tokio::select! {
            error = &mut served, if is_served => {
                is_served = false;
                reporter.note(&format!("no metrics are served at {}: {error}", options.metrics));
            }
            ended = &mut guarded => return ended,
            (never, ..) = &mut beside => match never {},
        }
    }
}

pub(super) struct Guard<'a> {
    pub(super) host: &'a Host,
    pub(super) node: String,
    pub(super) reporter: &'a Reporter,
    pub(super) metrics: Metrics,
    pub(super) observer: Observer,
    pub(super) heartbeat: Heartbeat,
    pub(super) copy: Option<Copy>,
    copy_state: CopyState,
    mark: Option<guard_pod::Mark>,
    /// The folders of the copy and of static pods: what changes there is looked at at once.
    folders: Watched,
    pub(super) at: Addresses,
    probe: Option<Arc<dyn Ask>>,
    /// The probe is to be made anew: the copy, and with it the CA, is another.
    is_probe_old: bool,
    pub(super) way: keeper::Shared,
    /// When other controllers may be asked again.
    pub(super) ask_others_at: Instant,
    lower_at: Instant,
    /// What the API has refused guard that is its right, and since when it refuses.
    pub(super) refused: Option<(Instant, String)>,
    /// When an event was last told that is told as long as it is so, by its reason.
    pub(super) told: BTreeMap<&'static str, Instant>,
    /// Since the last raise: what was seen of Leases, and with which client.
    pub(super) leases: Option<(Leases, Client)>,
    clock: Clock,
    watch: Watch,
    /// etcd's manifest as it was last seen.
    pub(super) etcd: Option<String>,
    /// etcd's data was not there when it was last looked for.
    lacked_data: bool,
    /// What was said of images that the copy does not follow.
    pub(super) unfollowed: BTreeSet<String>,
    /// By which one controller alone raises its bridge where every one could.
    pub(super) turn: Turn,
    news: News,
}

impl<'a> Guard<'a> {
    fn new(host: &'a Host, options: &Options, reporter: &'a Reporter, metrics: Metrics, way: keeper::Shared) -> Self {
        let now = Instant::now();
        let copy = kept_copy::path(host).parent().map(Path::to_owned);
        Self {
            host,
            node: options.node_name.clone(),
            reporter,
            metrics,
            observer: Observer::new(now),
            heartbeat: Heartbeat::new(&options.node_name, now),
            copy: None,
            copy_state: CopyState::Missing,
            mark: None,
            folders: host.world().watch(copy.into_iter().chain([host.manifests().to_owned()]).collect()),
            at: Addresses::unknown(),
            probe: None,
            is_probe_old: true,
            way,
            ask_others_at: now,
            lower_at: now,
            refused: None,
            told: BTreeMap::new(),
            leases: None,
            clock: Clock::new(host.world().now(), now),
            watch: Watch::default(),
            etcd: None,
            lacked_data: false,
            unfollowed: BTreeSet::new(),
            turn: Turn::of_process(&format!("{}_bridge", options.node_name), host.world().now()),
            news: News::default(),
        }
    }

    async fn forever(&mut self) -> Result<()> {
        if leaving::is_unmade(self.host) {
            return guard_pod::remove(self.host);
        }
        // Whoever said so has ended with guard.
        if let Err(error) = leaving::end(self.host, leaving::Why::Etcd) {
            self.fail(&error);
        }
        self.until_made().await;
        self.settle();
        // Without any CA there is nothing to go on with; the kubelet starts guard again.
        self.probe()?;
        // Whoever has the lock sees to it.
        if let Ok(_lock) = lock::try_take(self.host)
            && let Err(error) = guard_pod::sweep(self.host)
        {
            self.fail(&error);
        }
        self.notice_a_boot();
        loop {
            let observed = match self.look().await {
                Ok(observed) => observed,
                Err(error) => {
                    self.fail(&error);
                    sleep(AT_REST).await;
                    continue;
                }
            };
            let pause =
                if observed.server == Server::Ready && observed.stands == Stands::Nothing { AT_REST } else { ALERT };
            if stays(&observed) {
                self.tell_that_it_stays();
            }
            match decide(&observed) {
                Decision::Rest(why) => self.say(why),
                Decision::Raise(cause) => {
                    let is_raised = self.raise(cause).await;
                    // Not after another look: that takes as long as one that hangs is asked in vain.
                    let then = decide(&Observed { stands: Stands::All, ..observed.clone() });
                    if let (true, Decision::End(process)) = (is_raised, then) {
                        self.end(process).await;
                    }
                }
                Decision::End(process) => self.end(process).await,
                Decision::Lower if Instant::now() < self.lower_at => {}
                Decision::Lower => {
                    if let Err(error) = self.lower().await {
                        self.lower_at = Instant::now() + LOWER_AGAIN;
                        self.fail(&error);
                    }
                }
                Decision::Adopt => self.adopt().await,
                Decision::Leave => match self.leave().await {
                    Ok(()) => return Ok(()),
                    // It stays, and keeps what it kept.
                    Err(error) => {
                        self.fail(&error);
                        self.mark = None;
                        self.read_copy();
                    }
                },
            }
            self.free_leases(&observed).await;
            self.watch(&observed).await;
            self.talk(&observed, true).await;
            self.rest(pause).await;
        }
    }

    /// Until the next look, which comes sooner where something in a folder changes.
    async fn rest(&mut self, pause: Duration) {
        let soonest = Instant::now() + ALERT.min(pause);
        if timeout(pause, self.folders.changed()).await.is_ok() {
            self.settle();
            sleep_until(soonest).await;
        }
    }

    /// Waits while this controller is in the making: there is nothing to guard yet.
    async fn until_made(&mut self) {
        self.read_copy();
        let mut was_made = false;
        while self.copy.as_ref().is_some_and(|copy| member::is_in_the_making(self.host, copy)) {
            was_made = true;
            sleep(AT_REST).await;
            self.read_copy();
        }
        if was_made {
            self.observer.made(Instant::now());
        }
    }

    /// Looks, with a copy that is read anew if it has changed.
    pub(super) async fn look(&mut self) -> Result<Observed> {
        self.read_copy();
        let probe = self.probe()?;
        let mut observed = self.observer.observe(self.host, &*probe, &self.at, self.copy_state).await;
        if observed.not_controller_for.is_some_and(|so_long| so_long >= LEAVE_AFTER) {
            observed.another_serves = self.another_serves(&*probe).await;
        }
        self.metrics.set(|counts| {
            counts.raised = observed.stands != Stands::Nothing;
            counts.ready = observed.server == Server::Ready;
            counts.copy = observed.copy == CopyState::Whole;
            counts.hold = hold(observed.raises);
        });
        Ok(observed)
    }

    /// What asks API servers, by the CA of now; where that cannot be used, by the one before.
    fn probe(&mut self) -> Result<Arc<dyn Ask>> {
        if let (Some(probe), false) = (&self.probe, self.is_probe_old) {
            return Ok(probe.clone());
        }
        self.is_probe_old = false;
        let made = self.ca().and_then(|ca| self.host.world().probe(&ca));
        match (made, self.probe.clone()) {
            (Ok(made), _) => Ok(self.probe.insert(made.into()).clone()),
            (Err(error), Some(before)) => {
                self.fail(&error);
                Ok(before)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Whether another controller serves, asked now and then.
    async fn another_serves(&mut self, probe: &dyn Ask) -> Option<bool> {
        let (Some(copy), true) = (&self.copy, Instant::now() >= self.ask_others_at) else { return None };
        self.ask_others_at = Instant::now() + leave::ASK_AGAIN;
        let own = self.at.node_ip;
        let asked =
            async { leave::another_serves(&heartbeat::client(self.host, copy, own).await?, probe, own.ip()).await };
        match asked.await {
            Ok(serves) => Some(serves),
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    /// The CA that vouches for the API servers: the copy's, or the one that the kubelet believes.
    fn ca(&self) -> Result<Vec<u8>> {
        if let Some(ca) = self.copy.as_ref().and_then(|copy| copy.assets.tls().remove("ca.crt")) {
            return Ok(ca);
        }
        let path = self.host.path("/etc/kubernetes/pki/ca.crt");
        let none = || Error::failed("guard", format!("there is neither a copy of the bridge nor {}", path.display()));
        files::read_if_there(&path)?.ok_or_else(none)
    }

    fn read_copy(&mut self) {
        let may_be_another = self.folders.may_have_changed(Instant::now());
        self.folders.trouble().iter().for_each(|trouble| self.reporter.note(trouble));
        if !may_be_another && self.mark.is_some() {
            return;
        }
        let mark = guard_pod::mark(self.host);
        if self.mark == Some(mark) {
            return;
        }
        self.mark = Some(mark);
        let read = Copy::load(self.host).and_then(|copy| {
            let addresses = copy.as_ref().map(Addresses::of).transpose()?;
            Ok(copy.zip(addresses))
        });
        match read {
            Ok(Some((copy, addresses))) => {
                // As an older hoist has left it: what is not kept any more goes.
                if copy.has_more
                    && let Err(error) = lock::try_take(self.host).and_then(|_lock| copy.store(self.host))
                {
                    self.fail(&error);
                }
                match keeper::Way::of(&copy) {
                    Ok(way) => self.way.set(Some(way)),
                    Err(error) => self.fail(&error),
                }
                (self.copy_state, self.at, self.copy) = (CopyState::Whole, addresses, Some(copy));
                self.is_probe_old = true;
            }
            Ok(None) => self.copy_state = CopyState::Missing,
            // What was whole before still tells where the API is, and lets the cluster's copy be asked for.
            Err(error) => {
                self.copy_state = CopyState::Broken;
                self.fail(&error);
            }
        }
    }

    /// Whoever raised the bridge before the kubelet started could tell nobody.
    fn notice_a_boot(&mut self) {
        let bridge = Bridge::new(self.host);
        let is_fresh = bridge.raised_at().is_some_and(|at| self.is_within(at, FRESH));
        if bridge.standing().is_all() && is_fresh && lock::holder(self.host).is_none() {
            self.has_raised(Cause::Boot);
        }
    }

    /// Whether that was so lately, by this host's clock.
    fn is_within(&self, at: SystemTime, time: Duration) -> bool {
        SystemTime::from(self.host.world().now()).duration_since(at).is_ok_and(|age| age < time)
    }

    /// After a raise, as soon as the API answers: takes away the Leases of those who died with the API server.
    async fn free_leases(&mut self, observed: &Observed) {
        let is_steady = self.clock.is_steady(self.host.world().now(), Instant::now());
        let raised_at = Bridge::new(self.host).raised_at();
        let lately = raised_at.is_some_and(|at| self.is_within(at, LEASES_FOR));
        let (true, Some(copy), true) = (lately, &self.copy, self.observer.api_answers) else { return };
        if observed.stands != Stands::All || observed.busy.is_some() {
            return;
        }
        let free = async {
            if self.leases.is_none() {
                self.leases = Some((Leases::default(), heartbeat::client(self.host, copy, self.at.node_ip).await?));
            }
            match &mut self.leases {
                Some((leases, client)) => leases.free((self.host, &self.node), client, is_steady).await,
                None => Ok(Vec::new()),
            }
        };
        match free.await {
            Ok(freed) => freed
                .iter()
                .for_each(|name| self.reporter.note(&format!("the Lease {name} had a dead holder: deleted"))),
            Err(error) => {
                self.leases = None;
                self.fail(&error);
            }
        }
    }

    /// Looks at what else may keep the API away, and says what is new of it.
    async fn watch(&mut self, observed: &Observed) {
        let Some(copy) = &self.copy else { return };
        let waits = observed.stands == Stands::All && !self.observer.api_answers;
        let mut news = self.watch.look(self.host, copy, self.at.etcd, waits).await;
        let lacks = observed.lacks_data.clone().filter(|_| !self.lacked_data);
        self.lacked_data = observed.lacks_data.is_some();
        news.extend(lacks.map(|place| ("EtcdDataMissing", lacks_data(&place))));
        self.metrics.set(|counts| {
            counts.alarms = self.watch.alarms.unwrap_or_default();
            counts.missing_images = self.watch.missing.unwrap_or_default();
            counts.certificates.clone_from(&self.watch.ends);
            counts.awaited.clone_from(&self.watch.awaited);
        });
        for (reason, text) in news {
            self.reporter.note(&text);
            self.heartbeat.event(self.host.world().now(), reason, text, true);
        }
    }

    /// Tells and hears what is due, while the API answers.
    pub(super) async fn talk(&mut self, observed: &Observed, may_follow: bool) {
        if self.copy_state != CopyState::Whole {
            self.heartbeat.hurry(Instant::now());
        }
        let (Some(copy), Some(probe), true) = (&self.copy, &self.probe, self.observer.api_answers) else { return };
        let address = SocketAddr::new(self.at.node_ip.ip(), API_PORT);
        let may_put_back = self.copy_state == CopyState::Whole && observed.busy.is_none();
        match self.heartbeat.beat(self.host, copy, address, &**probe, may_put_back).await {
            Ok(None) => {}
            Ok(Some(state)) => {
                if let Some(leaderless_for) = state.leaderless_for {
                    self.observer.leaderless(leaderless_for);
                }
                let newer = state.copy.or_else(|| (self.copy_state != CopyState::Whole).then(|| copy.clone()));
                if let Some(newer) = newer {
                    match newer.store(self.host) {
                        Ok(_) => {
                            self.say("the copy of the bridge is now that of the cluster's Secret".into());
                            // Which keys it has now is waited for.
                            self.heartbeat.hurry(Instant::now());
                        }
                        Err(error) => self.fail(&error),
                    }
                }
                if let (Some(runs), true) = (&state.runs, may_follow) {
                    self.follow(runs, observed);
                }
                state.news.into_iter().for_each(|news| self.say(news));
                match state.role {
                    Some(role) => self.hear(role),
                    None => state.trouble.iter().for_each(|error| self.fail(error)),
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    pub(super) fn fail(&mut self, error: &Error) {
        self.metrics.set(|counts| counts.errors += 1);
        let text = error.to_string();
        if !text.contains(" is forbidden: User \"hoist:guard\"") {
            return self.say(text);
        }
        let now = Instant::now();
        let (since, before) = self.refused.take().map_or((now, None), |(since, before)| (since, Some(before)));
        // It is refused again and again.
        if before.as_ref() != Some(&text) {
            self.say(format!("{text}\n  next: {RIGHTS}"));
        }
        if now - since >= REFUSED_FOR {
            self.tell_as_long_as_it_is_so("RightsMissing", format!("{text}; {RIGHTS}"));
        }
        self.refused = Some((since, text));
    }

    /// Says what was not said last.
    pub(super) fn say(&mut self, text: String) {
        self.news.note(self.reporter, text);
    }
}
