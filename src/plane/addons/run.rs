//! The loop over ranks: apply, retry what may be retried, wait until it is ready.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use serde::Serialize;
use tokio::time::Instant;

use super::order::{Order, addon};
use super::prune;
use super::ready::Readiness;
use super::wait;
use super::wait::unanswered;
use crate::api::apply::{Answer, Applied, Applier, Change, How, LiveObject, Name, stands};
use crate::api::inventory::{self, Entry, Inventory, Jobs};
use crate::api::{self, ADDONS_MANAGER};
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Finding, Result};
use crate::base::progress::{Limits, Sights};
use crate::base::report::Reporter;
use crate::desired::assets::Manifest;

/// Between two looks, and before the first of several tries.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest pause, but for chance, between two tries.
const LONG_INTERVAL: Duration = Duration::from_secs(4);
/// The id of the step, as events name it.
const STEP: &str = "addons";

/// How add-ons are applied.
#[derive(Debug, Clone)]
pub struct Options {
    /// Over others' fields, and whether or not they were applied from the same manifests before.
    pub force_conflicts: bool,
    /// What hoist applied before and is in no add-on any more is taken away.
    pub prune: bool,
    /// What is applied last is waited for, too.
    pub wait: bool,
    /// Each object that changes is told.
    pub tell_each: bool,
    /// How long it may go without any progress.
    pub progress_timeout: Duration,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Objects that were not there.
    pub created: usize,
    /// Objects that differed.
    pub configured: usize,
    /// Objects that stand as they should.
    pub unchanged: usize,
    /// Objects that were taken away.
    pub pruned: usize,
}

impl Summary {
    /// Counts one more.
    pub fn count(&mut self, change: Change) {
        *match change {
            Change::Created => &mut self.created,
            Change::Configured => &mut self.configured,
            Change::Unchanged => &mut self.unchanged,
        } += 1;
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { created, configured, unchanged, pruned } = self;
        let counts = [(created, "created"), (configured, "configured"), (pruned, "pruned"), (unchanged, "unchanged")];
        let said = counts.iter().filter(|(count, what)| **count > 0 || *what == "unchanged");
        f.write_str(&said.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", "))
    }
}

/// Applies add-ons. `others` are what hoist applies beside them: that is never pruned.
///
/// # Errors
/// [`Error::Refused`] if any object was refused, [`Error::TimedOut`] if any did not get ready; all that does not depend on
/// it was applied.
pub async fn apply(
    client: &Client,
    order: &Order<'_>,
    others: &[Manifest],
    options: &Options,
    reporter: &Reporter,
) -> Result<Summary> {
    let wanted: Inventory =
        order.0.iter().flat_map(|(rank, all)| all.iter().map(|manifest| Entry::of(*rank, manifest))).collect();
    if wanted.is_empty() && !options.prune {
        return Ok(Summary::default());
    }
    reporter.start(STEP, "apply the add-ons");
    let limits = Limits { begun: Instant::now(), total: options.timeout, progress: options.progress_timeout };
    let mut run = Run {
        applier: Applier::new(client, How { manager: ADDONS_MANAGER, force_conflicts: options.force_conflicts }),
        client,
        order,
        options,
        reporter,
        limits,
        backoff: Backoff::new(INTERVAL, LONG_INTERVAL, u64::from(std::process::id())),
        failed: BTreeSet::new(),
        refused: Vec::new(),
        late: Vec::new(),
        summary: Summary::default(),
    };
    // Before anything is applied: what is in the cluster by hoist is known, whatever becomes of this run.
    let applied = match run.enter(&wanted).await {
        Ok(()) => run.ranks().await,
        failed => failed,
    };
    if let Err(error) = applied {
        return Err(run.ended_by(error));
    }
    let Run { refused, late, mut summary, .. } = run;
    let result = verdict(client, refused, late).await;
    if options.prune {
        match &result {
            Ok(()) => summary.pruned = take_away(client, &wanted, others, limits, reporter).await?,
            Err(_) => reporter.note("nothing was pruned: all wanted objects must be applied and ready first"),
        }
    }
    match &result {
        Ok(()) => reporter.done(STEP),
        Err(error) => reporter.fail(STEP, error.to_string().lines().next().unwrap_or_default()),
    }
    reporter.note(&format!("add-ons: {summary}"));
    result.map(|()| summary)
}

async fn take_away(
    client: &Client,
    wanted: &Inventory,
    others: &[Manifest],
    limits: Limits,
    reporter: &Reporter,
) -> Result<usize> {
    let kept = prune::tried(client, limits, reporter, STEP, async || inventory::read(client).await).await?;
    let unwanted = unwanted(kept.inventory, wanted, others);
    let pruned = prune::prune(client, &unwanted, limits, reporter, STEP).await?;
    let forget =
        |kept: &mut inventory::StoredInventory| kept.inventory = std::mem::take(&mut kept.inventory).without(&unwanted);
    prune::tried(client, limits, reporter, STEP, async || inventory::update(client, forget).await).await?;
    Ok(pruned.len())
}

/// What of an inventory nothing wants any more.
pub(super) fn unwanted(kept: Inventory, wanted: &Inventory, others: &[Manifest]) -> Inventory {
    let others: Inventory = others.iter().map(|manifest| Entry::of(0, manifest)).collect();
    kept.without(wanted).without(&others)
}

/// The error of what went wrong, if anything did.
async fn verdict(client: &Client, mut refused: Vec<Finding>, late: Vec<Late>) -> Result<()> {
    if refused.is_empty() && late.is_empty() {
        return Ok(());
    }
    if !refused.is_empty() {
        refused.extend(
            late.into_iter()
                .map(|late| Finding::new(late.path, format!("{} did not get ready: {}", late.name, late.why))),
        );
        return Err(Error::Refused(refused));
    }
    let first = &late[0];
    let api_served = api::is_served(client).await;
    Err(Error::TimedOut {
        waiting_for: format!("{} of {}: {}", first.name, first.path, first.why),
        api_served,
        next: match api_served {
            true => format!(
                "`kubectl describe {}` says more; once it gets ready, or is corrected, run the same command again to continue",
                first.name.kubectl()
            ),
            false => "`hoist status` on a controller says why; then run the same command again to continue".to_owned(),
        },
        details: late.iter().flat_map(|late| late.details.iter().cloned()).collect(),
    })
}

/// What did not get ready in time.
struct Late {
    path: String,
    name: Name,
    why: String,
    details: Vec<String>,
}

struct Run<'a> {
    applier: Applier<'a>,
    client: &'a Client,
    order: &'a Order<'a>,
    options: &'a Options,
    reporter: &'a Reporter,
    limits: Limits,
    backoff: Backoff,
    /// The add-ons whose later ranks are held back.
    failed: BTreeSet<String>,
    refused: Vec<Finding>,
    late: Vec<Late>,
    summary: Summary,
}

impl Run<'_> {
    /// Enters what is wanted into the inventory, however long the API takes to do it.
    async fn enter(&mut self, wanted: &Inventory) -> Result<()> {
        loop {
            let enter = |kept: &mut inventory::StoredInventory| {
                kept.inventory = std::mem::take(&mut kept.inventory).and(wanted.clone());
            };
            match inventory::update(self.client, enter).await {
                // Where something is to be done about it, time alone does not help.
                Err(error @ (Error::Failed { next: None, .. } | Error::Later { .. })) => self.again(error).await?,
                done => return done,
            }
        }
    }

    /// The error that ends the run, with what had gone wrong before.
    fn ended_by(self, mut error: Error) -> Error {
        if let Error::TimedOut { details, .. } = &mut error {
            details.extend(self.refused.iter().map(|finding| format!("refused: {finding}")));
            details.extend(self.late.iter().map(|late| format!("{} did not get ready: {}", late.name, late.why)));
        }
        self.reporter.fail(STEP, error.to_string().lines().next().unwrap_or_default());
        error
    }

    /// Pauses before what has failed is tried again, unless time is up.
    async fn again(&mut self, error: Error) -> Result<()> {
        if self.limits.are_over(self.limits.begun.elapsed()) {
            return Err(unanswered(self.client, error).await);
        }
        self.pause(&error.to_string(), error.after()).await;
        Ok(())
    }

    async fn ranks(&mut self) -> Result<()> {
        self.order.crds().for_each(|crd| self.applier.expect(crd));
        let all: Vec<_> = self.order.all().collect();
        let there = self.look(&all).await?;
        let looked = Instant::now();
        let ran = self.jobs(&all).await?;
        let unnoted: Vec<_> = all
            .iter()
            .zip(&there)
            .filter(|(manifest, there)| inventory::goes(manifest) && stands(manifest, there) && !ran.hold(manifest))
            .map(|(manifest, _)| *manifest)
            .collect();
        // A run that was killed has applied them, and not noted it.
        if !unnoted.is_empty() {
            self.remember(&unnoted).await?;
        }
        let to_do: Vec<_> = all
            .into_iter()
            .zip(there)
            .map(|(manifest, there)| {
                let stands = stands(manifest, &there) || there.is_none() && ran.hold(manifest);
                let is_done = !self.options.force_conflicts && stands;
                (manifest, there, is_done)
            })
            .collect();
        let mut rest = &to_do[..];
        for (rank, manifests) in &self.order.0 {
            let (now, later) = rest.split_at(manifests.len());
            rest = later;
            self.summary.unchanged += now.iter().filter(|(_, _, is_done)| *is_done).count();
            let (held, wanted): (Vec<_>, Vec<_>) = now
                .iter()
                .filter(|(_, _, is_done)| !is_done)
                .map(|(manifest, there, _)| (*manifest, there.clone()))
                .partition(|(manifest, _)| self.failed.contains(addon(manifest)));
            self.hold_back(*rank, held.into_iter().map(|(manifest, _)| manifest));
            let wanted = match looked.elapsed() > LONG_INTERVAL {
                true => self.look_again(wanted, &ran).await?,
                false => wanted,
            };
            self.apply(*rank, wanted).await?;
            // What nothing is to come after need not be ready.
            let is_to_come =
                |(manifest, _, is_done): &(&Manifest, _, bool)| !is_done && !self.failed.contains(addon(manifest));
            if self.options.wait || later.iter().any(is_to_come) {
                self.wait(*rank, manifests).await?;
            }
        }
        Ok(())
    }

    /// What of `wanted` is still to be applied: another run of hoist may have done it while this one waited.
    async fn look_again<'m>(
        &mut self,
        wanted: Vec<(&'m Manifest, Option<LiveObject>)>,
        ran: &Jobs,
    ) -> Result<Vec<(&'m Manifest, Option<LiveObject>)>> {
        let manifests: Vec<_> = wanted.into_iter().map(|(manifest, _)| manifest).collect();
        let there = self.look(&manifests).await?;
        let is_there = |manifest: &Manifest, there: &Option<LiveObject>| {
            stands(manifest, there) || there.is_none() && ran.hold(manifest)
        };
        let stands = |(manifest, there): &(&Manifest, _)| !self.options.force_conflicts && is_there(manifest, there);
        let (done, wanted): (Vec<_>, Vec<_>) = manifests.into_iter().zip(there).partition(stands);
        self.summary.unchanged += done.len();
        Ok(wanted)
    }

    /// What is there, however long the API takes to say it.
    async fn look(&mut self, manifests: &[&Manifest]) -> Result<Vec<Option<LiveObject>>> {
        loop {
            match self.applier.look(manifests).await {
                Err(error) => self.again(error).await?,
                there => {
                    self.backoff.succeeded();
                    return there;
                }
            }
        }
    }

    /// The Jobs that may have run and gone, however long the API takes to say it.
    async fn jobs(&mut self, manifests: &[&Manifest]) -> Result<Jobs> {
        if !manifests.iter().any(|manifest| inventory::goes(manifest)) {
            return Ok(Jobs::default());
        }
        loop {
            match inventory::read(self.client).await {
                Err(error) => self.again(error).await?,
                Ok(kept) => return Ok(kept.jobs),
            }
        }
    }

    /// Notes that Jobs were applied which take themselves away, before they can.
    async fn remember(&mut self, jobs: &[&Manifest]) -> Result<()> {
        loop {
            let noted = inventory::update(self.client, |kept| jobs.iter().for_each(|job| kept.jobs.note(job))).await;
            match noted {
                Err(error) => self.again(error).await?,
                Ok(()) => return Ok(()),
            }
        }
    }

    fn hold_back<'m>(&mut self, rank: u32, manifests: impl Iterator<Item = &'m Manifest>) {
        for manifest in manifests {
            let (name, addon) = (Name::of(manifest), addon(manifest));
            let text = format!("{name}, of rank {rank}, is held back: an earlier rank of the add-on {addon} failed");
            self.reporter.note(&text);
        }
    }

    /// Applies all of a rank, again and again what may be applied a moment later.
    async fn apply(&mut self, rank: u32, mut wanted: Vec<(&Manifest, Option<LiveObject>)>) -> Result<()> {
        let mut sights = Sights::new(Instant::now());
        while !wanted.is_empty() {
            let answers = match self.applier.apply(&wanted).await {
                Ok(answers) => answers,
                // Nothing was applied: the API server does not even say what it serves.
                Err(error) => {
                    if self.limits.are_over(sights.note([], Instant::now())) {
                        return Err(unanswered(self.client, error).await);
                    }
                    self.pause(&error.to_string(), error.after()).await;
                    continue;
                }
            };
            let (mut again, mut jobs) = (Vec::new(), Vec::new());
            let before = wanted.len();
            for ((manifest, there), answer) in wanted.into_iter().zip(answers) {
                match answer {
                    Answer::Applied(applied) => {
                        self.note(&applied);
                        jobs.extend(Some(manifest).filter(|manifest| inventory::goes(manifest)));
                    }
                    Answer::Refused(refusal) => self.refuse(manifest, refusal.finding),
                    Answer::Failed(error) => again.push((manifest, there, error)),
                }
            }
            if !jobs.is_empty() {
                self.remember(&jobs).await?;
            }
            let said: Vec<_> = again.iter().map(|(manifest, _, _)| Name::of(manifest).to_string()).collect();
            // Fewer that fail are progress; another reason for failing is none.
            let is_over = self.limits.are_over(sights.note([said.join(" ")], Instant::now()));
            if again.len() < before {
                self.backoff.succeeded();
            }
            // It has refused nothing if it does not answer.
            if is_over && !again.is_empty() && !api::is_served(self.client).await {
                let (_, _, error) = again.swap_remove(0);
                return Err(unanswered(self.client, error).await);
            }
            if let Some((manifest, _, error)) = again.first().filter(|_| !is_over) {
                let what = format!("the API server to take {} (rank {rank}): {error}", Name::of(manifest));
                let after = again.iter().filter_map(|(_, _, error)| error.after()).max();
                self.pause(&what, after).await;
            }
            wanted = Vec::new();
            for (manifest, there, error) in again {
                match is_over {
                    false => wanted.push((manifest, there)),
                    true => {
                        let finding = Finding::new(&manifest.path, format!("{}: {error}", Name::of(manifest)));
                        self.refuse(manifest, finding.at(Some((manifest.line, 1))));
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until all of a rank is ready.
    async fn wait(&mut self, rank: u32, manifests: &[&Manifest]) -> Result<()> {
        let mut sights = Sights::new(Instant::now());
        let mut awaited: Vec<_> = manifests.iter().copied().filter(|manifest| wait::is_awaited(manifest)).collect();
        loop {
            awaited.retain(|manifest| !self.failed.contains(addon(manifest)));
            let looks =
                awaited.iter().map(|manifest| wait::look(self.client, &self.applier, self.order, rank, manifest));
            let seen = futures::future::join_all(looks).await;
            let mut waiting = Vec::new();
            for (manifest, seen) in awaited.iter().copied().zip(seen) {
                match seen {
                    Ok(seen) if seen.readiness == Readiness::Ready => {}
                    Ok(seen) => waiting.push((manifest, seen)),
                    // The API server may be away for a moment.
                    Err(error) => waiting.push((manifest, wait::Seen::unknown(&error))),
                }
            }
            let Some((first, seen)) = waiting.first() else { return Ok(()) };
            self.reporter.waiting(STEP, &format!("{} (rank {rank}): {}", Name::of(first), seen.why()));
            let stuck_for = sights.note(waiting.iter().flat_map(|(_, seen)| seen.sights.clone()), Instant::now());
            let is_over = self.limits.are_over(stuck_for);
            for (manifest, seen) in &waiting {
                if is_over || matches!(seen.readiness, Readiness::Failed(_)) {
                    self.failed.insert(addon(manifest).to_owned());
                    let (path, name) = (manifest.path.clone(), Name::of(manifest));
                    self.late.push(Late { path, name, why: seen.why(), details: seen.details() });
                }
            }
            awaited = waiting.into_iter().map(|(manifest, _)| manifest).collect();
            tokio::time::sleep(INTERVAL).await;
        }
    }

    fn note(&mut self, applied: &Applied) {
        self.summary.count(applied.change);
        let what = match applied.change {
            Change::Created => "created",
            Change::Configured => "configured",
            Change::Unchanged => return,
        };
        if self.options.tell_each {
            self.reporter.note(&format!("{what} {}", applied.name));
        }
    }

    fn refuse(&mut self, manifest: &Manifest, finding: Finding) {
        self.reporter.note(&format!("refused: {finding}"));
        self.failed.insert(addon(manifest).to_owned());
        self.refused.push(finding);
    }

    async fn pause(&mut self, what: &str, after: Option<Duration>) {
        self.reporter.waiting(STEP, what);
        let pause = self.backoff.failed(after);
        // To the limit, and no longer.
        let left = self.limits.total.saturating_sub(self.limits.begun.elapsed()).saturating_add(INTERVAL);
        tokio::time::sleep(pause.min(left)).await;
    }
}
