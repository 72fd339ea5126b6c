//! The loop of guard: observe, decide, act, tell; and again.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use kube::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::copy::{self, Copy};
use super::decide::{Cause, CopyState, Decision, Observed, Server, Stands, decide, hold};
use super::leases::Leases;
use super::metrics::Metrics;
use super::observer::{Addresses, Observer};
use super::{approver, install, tell};
use crate::api::observe::Required;
use crate::bridge::Bridge;
use crate::config::API_PORT;
use crate::error::{Error, Result};
use crate::files;
use crate::host::Host;
use crate::lock;
use crate::outside::Ask;
use crate::report::Reporter;
use crate::secrets::{self, COMPONENTS};
use crate::start::{HandOver, Stepped};

/// Between two looks while the self-hosted API server serves.
const AT_REST: Duration = Duration::from_secs(1);
/// Between two looks otherwise: how late a raise may be.
const ALERT: Duration = Duration::from_millis(250);
/// Between two steps of a hand-over, and when it has been waiting for long.
const STEP: Duration = Duration::from_millis(150);
const LONG_STEP: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(30);
/// After so long a hand-over is begun anew, with all that was observed in it forgotten.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(900);
/// What an API server that hangs has to say what it was doing.
const TO_QUIT: Duration = Duration::from_millis(500);
/// For how long after a raise Leases of dead holders are looked for: their own time is over then.
const LEASES_FOR: Duration = Duration::from_secs(30);
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
/// A CA that cannot be used. Whatever else goes wrong is said, and tried again.
pub async fn run(host: &Host, options: &Options, reporter: &Reporter) -> Result<()> {
    let metrics = Metrics::default();
    let served = metrics.clone().serve(options.metrics);
    let way = approver::Shared::default();
    let counts = metrics.clone();
    let mut guard = Guard::new(host, options, reporter, metrics, way.clone());
    let guarded = guard.forever();
    let approved = approver::run(host, &way, reporter, &counts);
    tokio::pin!(served, guarded, approved);
    let mut is_served = true;
    loop {
        tokio::select! {
            error = &mut served, if is_served => {
                is_served = false;
                reporter.note(&format!("no metrics are served at {}: {error}", options.metrics));
            }
            ended = &mut guarded => return ended,
            never = &mut approved => match never {},
        }
    }
}

/// What of the copy's file tells that it is another.
type Mark = Option<(SystemTime, u64)>;

struct Guard<'a> {
    host: &'a Host,
    reporter: &'a Reporter,
    metrics: Metrics,
    observer: Observer,
    teller: tell::Teller,
    copy: Option<Copy>,
    copy_state: CopyState,
    mark: Option<Mark>,
    at: Addresses,
    probe: Option<Box<dyn Ask>>,
    way: approver::Shared,
    /// Since the last raise: what was seen of Leases, and with which client.
    leases: Option<(Leases, Client)>,
    said: String,
}

impl<'a> Guard<'a> {
    fn new(host: &'a Host, options: &Options, reporter: &'a Reporter, metrics: Metrics, way: approver::Shared) -> Self {
        let now = Instant::now();
        Self {
            host,
            reporter,
            metrics,
            observer: Observer::new(now),
            teller: tell::Teller::new(&options.node_name, now),
            copy: None,
            copy_state: CopyState::Missing,
            mark: None,
            at: Addresses::unknown(),
            probe: None,
            way,
            leases: None,
            said: String::new(),
        }
    }

    async fn forever(&mut self) -> Result<()> {
        self.read_copy();
        self.notice_a_boot();
        loop {
            let observed = self.look().await?;
            let pause =
                if observed.server == Server::Ready && observed.stands == Stands::Nothing { AT_REST } else { ALERT };
            match decide(&observed) {
                Decision::Rest(why) => self.say(why),
                Decision::Raise(cause) => {
                    let is_raised = self.raise(cause);
                    // Not after another look: that takes as long as one that hangs is asked in vain.
                    let then = decide(&Observed { stands: Stands::All, ..observed.clone() });
                    if let (true, Decision::End(process)) = (is_raised, then) {
                        self.end(process).await;
                    }
                }
                Decision::End(process) => self.end(process).await,
                Decision::Lower => self.lower().await?,
                Decision::Leave => {
                    self.reporter.note("this node is no controller any more: guard and its bridge are taken away");
                    return install::remove(self.host);
                }
            }
            self.free_leases(&observed).await;
            self.talk().await;
            sleep(pause).await;
        }
    }

    /// Looks, with a copy that is read anew if it has changed.
    async fn look(&mut self) -> Result<Observed> {
        self.read_copy();
        let probe = match self.probe.take() {
            Some(probe) => probe,
            None => self.host.outside().probe(&self.ca()?)?,
        };
        let observed = self.observer.observe(self.host, &*probe, &self.at, self.copy_state).await;
        self.probe = Some(probe);
        self.metrics.set(|counts| {
            counts.raised = observed.stands != Stands::Nothing;
            counts.ready = observed.server == Server::Ready;
            counts.copy = observed.copy == CopyState::Whole;
            counts.hold = hold(observed.raises);
        });
        Ok(observed)
    }

    /// The CA that vouches for the API servers: the copy's, or the one that the kubelet believes.
    fn ca(&self) -> Result<Vec<u8>> {
        if let Some(ca) = self.copy.as_ref().and_then(|copy| copy.assets.tls().remove("ca.crt")) {
            return Ok(ca);
        }
        let path = self.host.path("/etc/kubernetes/pki/ca.crt");
        let ca = files::read_if_there(&path)?;
        ca.ok_or_else(|| {
            Error::failed("guard", format!("there is neither a copy of the bridge nor {}", path.display()))
        })
    }

    fn read_copy(&mut self) {
        let meta = std::fs::metadata(copy::path(self.host)).ok();
        let mark = meta.and_then(|meta| Some((meta.modified().ok()?, meta.len())));
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
                match approver::Way::of(&copy) {
                    Ok(way) => self.way.set(way),
                    Err(error) => self.fail(&error),
                }
                (self.copy_state, self.at, self.copy) = (CopyState::Whole, addresses, Some(copy));
                self.probe = None;
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
        let is_fresh = bridge.raised_at().is_some_and(|at| at.elapsed().is_ok_and(|age| age < FRESH));
        if bridge.standing().is_all() && is_fresh && lock::holder(self.host).is_none() {
            self.has_raised(Cause::Boot);
        }
    }

    /// Says whether it could.
    fn raise(&mut self, cause: Cause) -> bool {
        let done = lock::try_take(self.host).and_then(|_lock| {
            let copy = Copy::load(self.host)?;
            let copy = copy.ok_or_else(|| Error::failed("raise the bridge", "its copy is gone"))?;
            install::raise(self.host, &copy)
        });
        match done {
            Ok(_) => self.has_raised(cause),
            Err(error) => {
                self.fail(&error);
                return false;
            }
        }
        true
    }

    fn has_raised(&mut self, cause: Cause) {
        let now = self.host.outside().now();
        self.observer.raised(Instant::now());
        self.leases = None;
        self.metrics.set(|counts| {
            counts.last_raise = now.unix_timestamp();
            let of = Cause::ALL.iter().position(|one| *one == cause);
            of.and_then(|of| counts.raises.get_mut(of)).into_iter().for_each(|count| *count += 1);
        });
        let said = &self.observer.said;
        let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
        let text = format!("the bridge is raised: {cause}{said}");
        self.say(text.clone());
        self.teller.event(now, "BridgeRaised", text, true);
    }

    /// Ends an API server that hangs. The kubelet starts another.
    async fn end(&mut self, process: i32) {
        let process = Pid::from_raw(process);
        // Go's programs say what each of their threads was doing when they are told to quit.
        let told = kill(process, Signal::SIGQUIT);
        sleep(TO_QUIT).await;
        // One that could not do so much as that is there still, and no other has its number so soon.
        let _gone_by_itself = kill(process, Signal::SIGKILL);
        if let Err(error) = told {
            return self.fail(&Error::failed("end the API server that hangs", error));
        }
        let text = format!("the self-hosted API server (pid {process}) hung, with its port open, and was ended");
        self.say(text.clone());
        self.teller.event(self.host.outside().now(), "HungServerEnded", text, true);
    }

    /// Hands over to the self-hosted control plane, as long as it serves.
    async fn lower(&mut self) -> Result<()> {
        let Some(copy) = self.copy.clone() else { return Ok(()) };
        let (cluster, controller) = copy.cluster()?;
        let tls = copy.assets.tls();
        let kubeconfig = secrets::of_guard(&cluster, &tls)?;
        let required = COMPONENTS.map(|name| Required { namespace: "kube-system".into(), name: name.into() });
        let nothing = Default::default();
        let ca = tls.get("ca.crt").map(Vec::as_slice).unwrap_or_default();
        let host = self.host;
        let mut hand_over = HandOver::new(host, (&cluster, &controller), &kubeconfig, &required, &nothing, ca)?;
        if let Some((leases, _)) = &self.leases {
            hand_over.knows(leases.of_bridge());
        }
        let begun = Instant::now();
        while begun.elapsed() < HAND_OVER_LIMIT {
            let observed = self.look().await?;
            match decide(&observed) {
                Decision::Lower => {}
                // Lowered, and not proved yet.
                Decision::Rest(_) if observed.server == Server::Ready && observed.busy.is_none() => {}
                Decision::Raise(cause) => {
                    self.raise(cause);
                    return Ok(());
                }
                Decision::Rest(_) | Decision::End(_) | Decision::Leave => return Ok(()),
            }
            match hand_over.step(self.reporter).await {
                Ok(Stepped::Done) => {
                    let text = "the bridge is lowered: the self-hosted control plane serves".to_owned();
                    self.say(text.clone());
                    self.metrics.set(|counts| counts.lowers += 1);
                    self.teller.event(self.host.outside().now(), "BridgeLowered", text, false);
                    self.leases = None;
                    return Ok(());
                }
                Ok(Stepped::Acted) => {}
                Ok(Stepped::Waits(what)) => self.say(format!("lowering the bridge: waiting for {what}")),
                Ok(Stepped::Failed) => {
                    self.raise(Cause::Unready);
                    return Ok(());
                }
                Err(error) => self.fail(&error),
            }
            self.talk().await;
            sleep(if begun.elapsed() < LONG { STEP } else { LONG_STEP }).await;
        }
        Ok(())
    }

    /// After a raise, as soon as the API answers: takes away the Leases of those who died with the API server.
    async fn free_leases(&mut self, observed: &Observed) {
        let raised_at = Bridge::new(self.host).raised_at();
        let lately = raised_at.filter(|at| at.elapsed().is_ok_and(|age| age < LEASES_FOR));
        let (Some(raised_at), Some(copy), true) = (lately, &self.copy, self.observer.api_answers) else { return };
        if observed.stands != Stands::All || observed.busy.is_some() {
            return;
        }
        let free = async {
            if self.leases.is_none() {
                self.leases = Some((Leases::default(), tell::client(self.host, copy, self.at.node_ip).await?));
            }
            match &mut self.leases {
                Some((leases, client)) => leases.free(self.host, client, raised_at).await,
                None => Ok(Vec::new()),
            }
        };
        match free.await {
            Ok(freed) => freed
                .iter()
                .for_each(|name| self.reporter.note(&format!("the Lease {name} was a dead holder's: deleted"))),
            Err(error) => {
                self.leases = None;
                self.fail(&error);
            }
        }
    }

    /// Tells and hears what is due, while the API answers.
    async fn talk(&mut self) {
        if self.copy_state != CopyState::Whole {
            self.teller.hurry(Instant::now());
        }
        let (Some(copy), Some(probe), true) = (&self.copy, &self.probe, self.observer.api_answers) else { return };
        let address = SocketAddr::new(self.at.node_ip.ip(), API_PORT);
        match self.teller.tell(self.host, copy, address, &**probe).await {
            Ok(None) => {}
            Ok(Some(heard)) => {
                if let Some(is_controller) = heard.is_controller {
                    self.observer.role(is_controller, Instant::now());
                }
                if let Some(leaderless_for) = heard.leaderless_for {
                    self.observer.leaderless(leaderless_for);
                }
                let newer = heard.copy.or_else(|| (self.copy_state != CopyState::Whole).then(|| copy.clone()));
                if let Some(newer) = newer {
                    match newer.store(self.host) {
                        Ok(_) => self.say("the copy of the bridge is that of the cluster's Secret now".into()),
                        Err(error) => self.fail(&error),
                    }
                }
                if let Some(news) = heard.news {
                    self.say(news);
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &Error) {
        self.metrics.set(|counts| counts.errors += 1);
        self.say(error.to_string());
    }

    /// Says what was not said last.
    fn say(&mut self, text: String) {
        // Seconds that run are no news.
        let is_news = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        if is_news(&self.said) != is_news(&text) {
            self.reporter.note(&text);
            self.said = text;
        }
    }
}
