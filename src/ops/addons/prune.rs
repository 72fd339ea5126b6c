//! Takes away what hoist has applied of add-ons and what is in none any more: by the inventory, and only what still bears
//! hoist's field manager.

use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use crate::api;
use crate::api::inventory::{Entry, Finder, Inventory};
use crate::base::error::{Error, Result};
use crate::base::progress::{Limits, Sights};
use crate::base::report::Reporter;

const INTERVAL: Duration = Duration::from_millis(500);

/// What would be pruned of `unwanted`, in the order in which it would go, each with whether it is hoist's to take away;
/// what is not there any more is left out.
///
/// # Errors
/// The API server's word.
pub(super) async fn plan<'e>(client: &Client, unwanted: &'e Inventory) -> Result<Vec<(&'e Entry, bool)>> {
    let mut finder = Finder::new(client);
    let mut plan = Vec::new();
    for entry in unwanted.backwards() {
        if let Some(found) = finder.find(entry).await? {
            plan.push((entry, found.is_ours));
        }
    }
    Ok(plan)
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
    let mut finder = Finder::new(client);
    let mut pruned = Vec::new();
    let backwards = unwanted.backwards();
    for entries in backwards.chunk_by(|a, b| (a.holds_others(), a.rank) == (b.holds_others(), b.rank)) {
        let mut going = Vec::new();
        for entry in entries {
            match finder.find(entry).await? {
                None => {}
                Some(found) if !found.is_ours => {
                    reporter.note(&format!("left {entry}: somebody else has taken it over"));
                }
                Some(found) => {
                    finder.delete(entry, &found).await?;
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
            if let Some(found) = finder.find(entry).await? {
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
                next: "see why whoever set the finalizers does not take them off; then run `hoist apply --prune` again"
                    .into(),
            });
        }
        going = still.into_iter().map(|(entry, _)| entry).collect();
        tokio::time::sleep(INTERVAL).await;
    }
}
