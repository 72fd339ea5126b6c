//! guard's loop beside its own: it renews what is due, puts it where it is read, and looks whether it is served.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use kube::Client;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};

use super::renew::{self, Done};
use crate::api::guard::{self, NodeEvent};
use crate::api::turn::Turn;
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::report::{News, Reporter, without_numbers};
use crate::desired::renewal::{self, Leaf, Observed, Plan};
use crate::node::host::Host;
use crate::node::lock;
use crate::plane::certificates::{self, Ending};
use crate::plane::kept_copy::Copy;
use crate::plane::renewal as on_disk;
use crate::plane::{guard_pod, member, requests};

/// Between two rounds, at least and at most: a sixtieth of a certificate's life.
const LEAST: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(60);
/// How long a round may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The cluster's Secrets are looked at so many rounds after each other when nothing was renewed.
const ROUNDS: u32 = 10;
/// The pauses after failures.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// How long a server may take to serve what is in its file, before an event says so.
const SERVED_WITHIN: Duration = Duration::from_secs(60);
/// Events that nobody could be told are forgotten, the oldest first.
const PENDING: usize = 32;

/// Renews for ever. What fails is said once, told to `failed`, and tried again, later each time.
pub async fn run(host: &Host, node: &str, reporter: &Reporter, failed: impl Fn()) -> Infallible {
    let seed = host.world().now().unix_timestamp().unsigned_abs();
    let mut keep = Keep {
        host,
        node,
        reporter,
        turn: Turn::of_process(&format!("{node}_certificates"), host.world().now()),
        backoff: Backoff::new(AGAIN.0, AGAIN.1, seed),
        mark: None,
        copy: None,
        rounds: 0,
        is_spread: false,
        pending: None,
        told: BTreeSet::new(),
        endings: BTreeSet::new(),
        events: VecDeque::new(),
        news: News::default(),
    };
    loop {
        let round = timeout(LIMIT, keep.round()).await;
        let pause = match round.unwrap_or_else(|_| Err(Error::failed("renew certificates", "no answer in time"))) {
            Ok(pause) => {
                keep.backoff.succeeded();
                pause
            }
            // `start` and its like; they are done soon.
            Err(Error::Locked { .. }) => LEAST,
            Err(error) => {
                failed();
                let text = error.to_string();
                keep.news.note(reporter, text.clone());
                keep.tell("CertificateRenewalFailed", text, true);
                keep.backoff.failed(error.after())
            }
        };
        sleep(pause).await;
    }
}

struct Keep<'a> {
    host: &'a Host,
    node: &'a str,
    reporter: &'a Reporter,
    turn: Turn,
    backoff: Backoff,
    mark: Option<guard_pod::Mark>,
    copy: Option<Copy>,
    /// How many rounds there were since the cluster's Secrets were looked at.
    rounds: u32,
    /// The cluster's Secrets hold what the copy does.
    is_spread: bool,
    /// Since when renewed certificates are to be seen at their listeners, which those are, and whether an event has said so.
    pending: Option<(Instant, BTreeSet<String>, bool)>,
    /// What events have said, so that each is said once.
    told: BTreeSet<String>,
    /// The CAs that events have said to end.
    endings: BTreeSet<Ending>,
    events: VecDeque<NodeEvent>,
    news: News,
}

impl Keep<'_> {
    /// One round; says how long it is until the next.
    async fn round(&mut self) -> Result<Duration> {
        let mark = guard_pod::mark(self.host);
        if self.mark != Some(mark) {
            self.copy = Copy::load(self.host)?;
            (self.mark, self.is_spread) = (Some(mark), false);
        }
        let Some(copy) = self.copy.clone().filter(|copy| !member::is_in_the_making(self.host, copy)) else {
            return Ok(MOST);
        };
        let now = self.host.world().now();
        let seen = renew::observed(&copy, now, true, false)?;
        let copy = self.take_signed(copy, &seen)?;
        let leaves = renewal::leaves(&copy.assets.tls());
        let plan = renewal::plan(&leaves, &seen);
        requests::write(self.host, &copy, &plan.await_their_ca)?;
        self.say_what_is_not_renewed(&copy, &plan);
        self.say_which_cas_end(&copy, now);
        let is_due = !plan.here.is_empty() || !plan.for_all.is_empty();
        self.rounds += 1;
        let looks = self.rounds >= ROUNDS || !self.events.is_empty();
        let client = match is_due || looks || self.pending.is_some() {
            true => renew::client(self.host, &copy).await,
            false => None,
        };
        let renewed = match is_due {
            true => {
                let seen = renew::observed(&copy, now, client.is_some(), false)?;
                renew::renew(self.host, &seen, None, client.as_ref(), &mut self.turn).await
            }
            false => Ok(Done::Renewed(BTreeSet::new())),
        };
        // Whatever came of the others, what is in guard's copy goes to where it is read.
        let copy = if is_due { Copy::load(self.host)?.unwrap_or(copy) } else { copy };
        let refreshed = on_disk::refresh(self.host, &copy);
        let is_waiting = matches!(renewed, Ok(Done::Waits));
        if let Done::Renewed(names) = renewed?
            && !names.is_empty()
        {
            self.is_renewed(names);
        }
        if let Some(error) = refreshed.failed.into_iter().next() {
            return Err(error);
        }
        if let Some(client) = &client {
            if self.rounds >= ROUNDS || (self.pending.is_some() && !self.is_spread) {
                let changed = renew::spread(client, &copy).await?;
                (self.is_spread, self.rounds) = (true, 0);
                if !changed.is_empty() {
                    self.news
                        .note(self.reporter, format!("renewed certificates are in the Secrets {}", changed.join(", ")));
                }
            }
            self.record(client).await?;
        }
        self.look_at_listeners(&copy).await?;
        let pause = (seen.lifetime / 60).clamp(LEAST, MOST);
        Ok(if self.pending.is_some() || is_waiting { LEAST } else { pause })
    }

    /// What a CA has signed whose key is elsewhere goes into guard's copy, and from there wherever renewed certificates go.
    fn take_signed(&mut self, copy: Copy, seen: &Observed) -> Result<Copy> {
        let leaves = renewal::leaves(&copy.assets.tls());
        let awaited = renewal::plan(&leaves, seen).await_their_ca;
        let (signed, misfits) = requests::signed(self.host, &copy, &awaited, seen.now);
        for misfit in misfits {
            self.tell("CertificateNotTaken", misfit.to_string(), true);
        }
        if signed.is_empty() {
            return Ok(copy);
        }
        let taken = {
            let _lock = lock::try_take(self.host)?;
            // Not the one that was read before: it may have been written since.
            requests::take(self.host, &Copy::load(self.host)?.unwrap_or(copy), &signed)?
        };
        let names = leaves.iter().filter(|leaf| signed.iter().any(|(stem, _)| *stem == leaf.stem));
        self.is_renewed(names.map(|leaf| renew::name(&taken, leaf)).collect());
        Ok(taken)
    }

    /// These are to be seen at their listeners.
    fn is_renewed(&mut self, names: BTreeSet<String>) {
        let so_far = self.pending.take().map(|(_, names, _)| names).unwrap_or_default();
        self.pending = Some((Instant::now(), names.into_iter().chain(so_far).collect(), false));
        self.is_spread = false;
    }

    /// A renewal is done when its certificates are seen on the wire.
    async fn look_at_listeners(&mut self, copy: &Copy) -> Result<()> {
        let Some((since, names, is_told)) = self.pending.clone() else { return Ok(()) };
        let (cluster, controller) = copy.cluster()?;
        let wrong = renew::not_served(self.host, cluster.loopback(), controller.address).await;
        if wrong.is_empty() && self.is_spread {
            self.pending = None;
            let names: Vec<_> = names.into_iter().collect();
            let text = format!("renewed, and served: {}", names.join(", "));
            self.reporter.note(&text);
            self.told.clear();
            self.event("CertificatesRenewed", text, false);
        } else if since.elapsed() >= SERVED_WITHIN && !is_told {
            let listed: BTreeMap<SocketAddr, String> = wrong;
            let listed: Vec<_> = listed.iter().map(|(address, why)| format!("{address} ({why})")).collect();
            let text = match listed.is_empty() {
                true => "renewed certificates are not in the cluster's Secrets yet: the API does not answer".to_owned(),
                false => format!("renewed certificates are on the disk and not served: {}", listed.join("; ")),
            };
            self.reporter.note(&text);
            self.event("CertificatesNotServed", text, true);
            self.pending = Some((since, names, true));
        }
        Ok(())
    }

    fn say_what_is_not_renewed(&mut self, copy: &Copy, plan: &Plan<'_>) {
        let names = |leaves: &[&Leaf]| {
            let names: BTreeSet<_> = leaves.iter().map(|leaf| renew::name(copy, leaf)).collect();
            let end = leaves.iter().map(|leaf| leaf.ends).min();
            Some((names.into_iter().collect::<Vec<_>>().join(", "), end?))
        };
        if let Some((names, end)) = names(&plan.await_their_ca) {
            let text = format!(
                "{names}: due for renewal, and the key of their CA is not here; the first ends {end}. Have the requests in {} signed, and put each certificate beside its request, as NAME.crt",
                self.host.inside(&requests::folder(self.host)).display()
            );
            self.tell("CertificatesAwaitTheirCA", text, true);
        }
        if let Some((names, end)) = names(&plan.end_with_their_ca) {
            let text = format!("{names}: end {end} with their CA, and a renewal would end no later");
            self.tell("CertificatesEndWithTheirCA", text, true);
        }
    }

    fn say_which_cas_end(&mut self, copy: &Copy, now: OffsetDateTime) {
        let endings = certificates::endings(&certificates::in_guards_copy(self.host, copy), now);
        for ending in certificates::unsaid(&mut self.endings, endings) {
            self.reporter.note(&ending.to_string());
            self.event("CertificateAuthorityEnds", ending.to_string(), true);
        }
    }

    /// An event, and a line of the log, that is said once.
    fn tell(&mut self, reason: &'static str, text: String, is_warning: bool) {
        if self.told.insert(format!("{reason}: {}", without_numbers(&text))) {
            self.news.note(self.reporter, text.clone());
            self.event(reason, text, is_warning);
        }
    }

    fn event(&mut self, reason: &'static str, message: String, is_warning: bool) {
        if self.events.len() == PENDING {
            self.events.pop_front();
        }
        self.events.push_back(NodeEvent { at: self.host.world().now(), reason, message, is_warning });
    }

    async fn record(&mut self, client: &Client) -> Result<()> {
        while let Some(event) = self.events.front() {
            guard::record(client, self.node, event).await?;
            self.events.pop_front();
        }
        Ok(())
    }
}
