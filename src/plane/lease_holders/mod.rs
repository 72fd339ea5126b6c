//! Whether the holder of a Lease is dead: the one proof, for all that delete Leases. A Lease that is deleted while its holder
//! lives gives two leaders.
//!
//! A controller manager and a scheduler call themselves HOSTNAME_UUID, with a UUID that is new in each process (client-go's
//! leader election; `Run` of cmd/kube-controller-manager/app, `NewSchedulerConfiguration` of cmd/kube-scheduler/app). So a
//! holder is one process from its first renewal to its end, and it is dead if it was a process of this machine and none of
//! those that run here is it. A process is not the holder
//!
//! - by sight: that holder was seen to hold the Lease when the process was not there yet;
//! - by term: the Lease lasts for another time than those of the process do;
//! - by date: it began after the last renewal. Both are dates of this machine's clock, which may be set: they count only
//!   where the caller vouches for the clock, and once the Lease was seen to stay as it is for longer than the bridge's
//!   controllers take to renew one.
//!
//! A holder of another machine is never judged: the candidates take its Lease when it has expired, by their own clocks. Two
//! machines may have one hostname, though their Nodes have two names: where another controller has this machine's, or may
//! have it, none is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::api::guard;
use crate::api::observe::LeaseView;
use crate::base::error::{Error, Result};
use crate::node::host::Host;
use crate::node::processes::{self, Component};

/// A Lease that the bridge's controllers hold is renewed twice within it.
const STILL: Duration = Duration::from_secs(1);
/// How exactly it is known when a process began.
const MARGIN: Duration = Duration::from_secs(1);
/// What the dates of two looks may differ by from the time between them, in a clock that was not set.
const STEADY: Duration = Duration::from_millis(500);
/// For so long after the clock was set no date counts: what was renewed before is as old as that then.
const SETTLED: Duration = Duration::from_secs(120);
/// How long a Lease lasts of a process that is not told (`--leader-elect-lease-duration`), in seconds.
const DEFAULT_TERM: i32 = 15;

/// A process that may hold a Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    /// Its number, and when it began by the kernel's clock: this process and no other.
    id: Id,
    /// How long its Leases last, in seconds; `None` where its command does not say.
    term: Option<i32>,
    /// The date at which it began, where one may go by dates.
    since: Option<SystemTime>,
}

type Id = (i32, Option<u64>);

/// The processes on this host that may hold the Lease `name`. To be asked after the Lease was read: a holder that lives is
/// among them. `is_steady` says whether one may go by dates ([`Clock`]).
///
/// # Errors
/// A /proc that cannot be read.
fn candidates(host: &Host, name: &str, is_steady: bool) -> Result<Vec<Candidate>> {
    let proc = host.path("/proc");
    let candidate = |component: Component| Candidate {
        id: (component.pid, component.process.map(|process| process.began)),
        term: term(&component),
        since: component.process.filter(|_| is_steady).map(|process| (host.world().now() - process.age).into()),
    };
    let found = processes::of(&proc, name).map_err(|error| Error::io("read", &proc, error))?;
    Ok(found.into_iter().map(candidate).collect())
}

/// How long the Leases of a process last, by its command; a scheduler's configuration may say otherwise.
fn term(component: &Component) -> Option<i32> {
    match component.flag("leader-elect-lease-duration") {
        _ if component.flag("config").is_some() => None,
        None => Some(DEFAULT_TERM),
        Some(text) => text.strip_suffix('s')?.parse().ok(),
    }
}

/// The holders of Leases, as they were seen.
#[derive(Debug, Clone, Default)]
pub struct Holders {
    seen: BTreeMap<String, Sight>,
    /// Whether this machine's name is that of no other controller, once that was asked.
    is_alone: Option<bool>,
}

/// A holder, in the course of several looks.
#[derive(Debug, Clone)]
struct Sight {
    lease: LeaseView,
    /// Since when the Lease is as it is.
    since: Instant,
    /// The processes that were there at each look: no other can be the holder.
    may_be: BTreeSet<Id>,
    /// The proof held when it was last looked at.
    is_dead: bool,
    /// It has renewed its Lease since the proof held: whoever it is, it is no process that is seen here.
    is_elsewhere: bool,
}

impl Holders {
    /// Which of these Leases, just read by `client`, have dead holders, by name and version. `node` is this machine's Node;
    /// `is_steady` says whether one may go by dates ([`Clock`]).
    ///
    /// # Errors
    /// A /proc that cannot be read; the API server's word on the other controllers.
    pub async fn dead(
        &mut self,
        (host, node): (&Host, &str),
        client: &Client,
        leases: &BTreeMap<String, LeaseView>,
        is_steady: bool,
    ) -> Result<Vec<(String, String)>> {
        let hostname = host.world().hostname();
        let mut dead = Vec::new();
        for (name, lease) in leases {
            let here = candidates(host, name, is_steady)?;
            if self.note(name, lease, &hostname, &here, Instant::now()) {
                dead.push((name.clone(), lease.resource_version.clone()));
            }
        }
        if dead.is_empty() {
            return Ok(dead);
        }
        let is_alone = match self.is_alone {
            Some(is_alone) => is_alone,
            None => *self.is_alone.insert(!guard::may_share_hostname(client, node, &hostname).await?),
        };
        Ok(if is_alone { dead } else { Vec::new() })
    }

    /// Notes how the Lease `name` was read, and which processes ran on the machine `hostname` after that; says whether its
    /// holder is dead.
    fn note(&mut self, name: &str, lease: &LeaseView, hostname: &str, here: &[Candidate], now: Instant) -> bool {
        // The UUID has no such sign in it; a machine's name may.
        if lease.holder.rsplit_once('_').is_none_or(|(machine, _)| machine != hostname) {
            self.seen.remove(name);
            return false;
        }
        let may_be: BTreeSet<Id> =
            here.iter().filter(|process| is_of_its_term(process, lease)).map(|one| one.id).collect();
        let fresh = Sight { lease: lease.clone(), since: now, may_be, is_dead: false, is_elsewhere: false };
        let sight = self.seen.entry(name.to_owned()).or_insert_with(|| fresh.clone());
        if sight.lease.holder != lease.holder {
            *sight = fresh;
        } else {
            sight.may_be.retain(|id| fresh.may_be.contains(id));
            sight.is_elsewhere |= sight.is_dead && sight.lease.renewed != lease.renewed;
            if sight.lease != *lease {
                (sight.lease, sight.since) = (fresh.lease, now);
            }
        }
        let is_still = now - sight.since >= STILL;
        let mut left = here.iter().filter(|process| sight.may_be.contains(&process.id));
        sight.is_dead = !sight.is_elsewhere && left.all(|process| is_still && began_after(process, lease));
        sight.is_dead
    }
}

/// Whether the Lease lasts as long as those of the process, as far as that is known.
fn is_of_its_term(process: &Candidate, lease: &LeaseView) -> bool {
    process.term.is_none_or(|term| term == lease.seconds)
}

/// Whether the process began after the Lease was last renewed, by dates.
fn began_after(process: &Candidate, lease: &LeaseView) -> bool {
    let renewed = lease.renewed.parse::<Timestamp>().ok();
    let began = process.since.and_then(|since| Timestamp::try_from(since - MARGIN).ok());
    began.zip(renewed).is_some_and(|(began, renewed)| renewed < began)
}

/// Whether this machine's clock was set, as seen by whoever has been there for long.
#[derive(Debug, Clone)]
pub struct Clock {
    /// The date, and when it was that.
    seen: (OffsetDateTime, Instant),
    set: Option<Instant>,
}

impl Clock {
    /// From now on, when it is `date`.
    pub fn new(date: OffsetDateTime, now: Instant) -> Self {
        Self { seen: (date, now), set: None }
    }

    /// Notes the date; says whether one may go by dates.
    pub fn is_steady(&mut self, date: OffsetDateTime, now: Instant) -> bool {
        let (seen, at) = std::mem::replace(&mut self.seen, (date, now));
        let expected = seen + (now - at);
        if (date - expected).unsigned_abs() > STEADY {
            self.set = Some(now);
        }
        self.set.is_none_or(|set| now - set > SETTLED)
    }
}

#[cfg(test)]
mod tests;
