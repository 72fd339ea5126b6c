//! All that an asset directory has applied: manifests/, and then addons/.

use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use super::order::Order;
use super::run::{Options, Summary, apply};
use super::wait::unanswered;
use crate::api;
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Finding, Result};
use crate::base::progress::Limits;
use crate::base::report::Reporter;
use crate::desired::assets::Manifest;

/// Before the first of several tries, and the longest pause, but for chance, before a later one.
const INTERVAL: Duration = Duration::from_secs(1);
const LONG_INTERVAL: Duration = Duration::from_secs(4);
const STEP: &str = "apply";

/// What there is to apply.
#[derive(Debug, Clone, Copy)]
pub struct AssetDir<'a> {
    /// The objects of manifests/.
    pub manifests: &'a [Manifest],
    /// Those of addons/.
    pub addons: &'a [Manifest],
    /// Those of manifests/ are left alone.
    pub addons_only: bool,
}

impl<'a> AssetDir<'a> {
    /// Those of manifests/, if they are to be applied.
    pub(super) fn manifests(&self) -> Option<&'a [Manifest]> {
        (!self.addons_only).then_some(self.manifests)
    }

    fn all(&self) -> impl Iterator<Item = &'a Manifest> {
        self.manifests.iter().chain(self.addons)
    }

    pub(super) fn crds(&self) -> impl Iterator<Item = &'a Manifest> {
        self.all().filter(|manifest| manifest.text("/kind") == "CustomResourceDefinition")
    }

    pub(super) fn makes_namespace(&self, name: &str) -> bool {
        self.all().any(|manifest| manifest.text("/kind") == "Namespace" && manifest.text("/metadata/name") == name)
    }
}

/// Applies all of it to a cluster that serves.
///
/// # Errors
/// As [`apply`]; what is refused of manifests/ holds back no add-on.
pub async fn apply_asset_dir(
    client: &Client,
    asset_dir: &AssetDir<'_>,
    options: &Options,
    reporter: &Reporter,
) -> Result<Summary> {
    let order = Order::of(asset_dir.addons)?;
    let mut summary = Summary::default();
    let refused = match asset_dir.manifests() {
        Some(manifests) => control_plane(client, manifests, options, reporter, &mut summary).await?,
        None => Vec::new(),
    };
    match apply(client, &order, asset_dir.manifests, options, reporter).await {
        Ok(addons) if refused.is_empty() => {
            let Summary { created, configured, unchanged, pruned } = addons;
            summary.created += created;
            summary.configured += configured;
            summary.unchanged += unchanged;
            summary.pruned += pruned;
            Ok(summary)
        }
        Ok(_) => Err(Error::Refused(refused)),
        Err(Error::Refused(more)) => Err(Error::Refused([refused, more].concat())),
        Err(error) => Err(error),
    }
}

/// Applies manifests/, and returns what was refused.
async fn control_plane(
    client: &Client,
    manifests: &[Manifest],
    options: &Options,
    reporter: &Reporter,
    summary: &mut Summary,
) -> Result<Vec<Finding>> {
    reporter.start(STEP, "apply manifests/");
    let limits = Limits { begun: Instant::now(), total: options.timeout, progress: options.progress_timeout };
    let mut backoff = Backoff::new(INTERVAL, LONG_INTERVAL, u64::from(std::process::id()));
    let outcome = loop {
        match api::apply::apply(client, manifests, options.force_conflicts).await {
            Ok(outcome) => break outcome,
            Err(error) if limits.are_over(limits.begun.elapsed()) => {
                reporter.fail(STEP, &error.to_string());
                return Err(unanswered(client, error).await);
            }
            Err(error) => {
                reporter.waiting(STEP, &error.to_string());
                tokio::time::sleep(backoff.failed(error.after())).await;
            }
        }
    };
    for applied in &outcome.changes {
        summary.count(applied.change);
        if options.tell_each {
            reporter.note(&format!("applied {}", applied.name));
        }
    }
    summary.unchanged += outcome.applied - outcome.changes.len();
    for refusal in &outcome.refused {
        reporter.note(&format!("refused: {}", refusal.finding));
    }
    match outcome.refused.first() {
        None => reporter.done(STEP),
        Some(first) => reporter.fail(STEP, &first.finding.to_string()),
    }
    Ok(outcome.refused.into_iter().map(|refusal| refusal.finding).collect())
}
