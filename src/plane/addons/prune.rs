//! Removes objects that hoist applied from add-ons and that no add-on has any more: those in the inventory that still
//! have hoist's field manager.

use std::fmt;
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use super::wait::unanswered;
use crate::api;
use crate::api::inventory::{Entry, Finder, Found, Inventory};
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::progress::{Limits, Sights};
use crate::base::report::Reporter;

const INTERVAL: Duration = Duration::from_millis(500);
/// The longest pause, but for chance, before what has failed is tried again.
const LONG_INTERVAL: Duration = Duration::from_secs(4);

/// Why something is not taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    TakenOver,
    Stays,
    HoldsWhatStays,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TakenOver => "somebody else has taken it over",
            Self::Stays => "it says helm.sh/resource-policy: keep",
            Self::HoldsWhatStays => "something in it says helm.sh/resource-policy: keep",
        })
    }
}

/// What stays so far: what holds it stays, too.
#[derive(Default)]
struct Staying<'e>(Vec<&'e Entry>);

impl<'e> Staying<'e> {
    fn judge(&mut self, entry: &'e Entry, found: &Found) -> Option<Left> {
        let left = if !found.is_ours {
            Some(Left::TakenOver)
        } else if found.stays {
            Some(Left::Stays)
        } else {
            self.0.iter().any(|stays| entry.holds(stays)).then_some(Left::HoldsWhatStays)
        };
        if matches!(left, Some(Left::Stays | Left::HoldsWhatStays)) {
            self.0.push(entry);
        }
        left
    }
}

/// What would be pruned of `unwanted`, in the order in which it would go, each with why it is left, if it is; what is not
/// there any more is left out.
///
/// # Errors
/// The API server's word.
pub(super) async fn plan<'e>(client: &Client, unwanted: &'e Inventory) -> Result<Vec<(&'e Entry, Option<Left>)>> {
    let (mut finder, mut staying) = (Finder::new(client), Staying::default());
    let mut plan = Vec::new();
    for entry in unwanted.backwards() {
        if let Some(found) = finder.find(entry).await? {
            plan.push((entry, staying.judge(entry, &found)));
        }
    }
    Ok(plan)
}

/// Does `what` until the API does it, or time is up. What it refuses for good ends it at once.
///
/// # Errors
/// That; [`Error::TimedOut`].
pub(super) async fn tried<T>(
    client: &Client,
    limits: Limits,
    reporter: &Reporter,
    step: &str,
    mut what: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let begun = Instant::now();
    let mut backoff = Backoff::new(INTERVAL, LONG_INTERVAL, u64::from(std::process::id()));
    loop {
        match what().await {
            // Where something is to be done about it, time alone does not help.
            Err(error @ (Error::Failed { next: None, .. } | Error::Later { .. })) => {
                if limits.are_over(begun.elapsed()) {
                    return Err(unanswered(client, error).await);
                }
                reporter.waiting(step, &error.to_string());
                tokio::time::sleep(backoff.failed(error.after())).await;
            }
            done => return done,
        }
    }
}

/// Takes `unwanted` away, rank by rank, each rank when the one after it is gone. Returns what was taken away.
///
/// # Errors
/// The API server's word; something that does not go within the limits.
pub(super) async fn prune(
    client: &Client,
    unwanted: &Inventory,
    limits: Limits,
    reporter: &Reporter,
    step: &str,
) -> Result<Vec<Entry>> {
    let (mut finder, mut staying) = (Finder::new(client), Staying::default());
    let mut pruned = Vec::new();
    let backwards = unwanted.backwards();
    for entries in backwards.chunk_by(|a, b| (a.holds_others(), a.rank) == (b.holds_others(), b.rank)) {
        let mut going = Vec::new();
        for entry in entries {
            let found = tried(client, limits, reporter, step, async || finder.find(entry).await).await?;
            let left = found.as_ref().and_then(|found| staying.judge(entry, found));
            match (found, left) {
                (None, _) => {}
                (Some(_), Some(left)) => reporter.note(&format!("left {entry}: {left}")),
                (Some(found), None) => {
                    tried(client, limits, reporter, step, async || finder.delete(entry, &found).await).await?;
                    reporter.note(&format!("pruned {entry}"));
                    going.push(*entry);
                    pruned.push((*entry).clone());
                }
            }
        }
        gone(client, &mut finder, going, limits, reporter, step).await?;
    }
    Ok(pruned)
}

/// Waits until all of `going` are gone.
async fn gone(
    client: &Client,
    finder: &mut Finder<'_>,
    mut going: Vec<&Entry>,
    limits: Limits,
    reporter: &Reporter,
    step: &str,
) -> Result<()> {
    let mut sights = Sights::new(Instant::now());
    loop {
        let mut still = Vec::new();
        for entry in going {
            let found = tried(client, limits, reporter, step, async || finder.find(entry).await).await?;
            if let Some(found) = found {
                still.push((entry, found.finalizers));
            }
        }
        let say = |(entry, finalizers): &(&Entry, Vec<String>)| match finalizers.is_empty() {
            true => format!("{entry} to go"),
            false => format!("{entry} to go: its finalizers are {}", finalizers.join(", ")),
        };
        let Some(first) = still.first().map(say) else { return Ok(()) };
        reporter.waiting(step, &first);
        let stuck_for = sights.note(still.iter().map(say), Instant::now());
        if limits.are_over(stuck_for) {
            return Err(Error::TimedOut {
                waiting_for: first,
                api_served: api::is_served(client).await,
                details: still.iter().map(say).collect(),
                next: "find out why the owner of the finalizers does not remove them; then run `hoist apply --prune` again"
                    .into(),
            });
        }
        going = still.into_iter().map(|(entry, _)| entry).collect();
        tokio::time::sleep(INTERVAL).await;
    }
}
