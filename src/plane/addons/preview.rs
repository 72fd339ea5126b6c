//! What applying would do, by the API server's own dry run, and what pruning would take away.

use kube::Client;

use super::asset_dir::AssetDir;
use super::diff::diff;
use super::order::Order;
use super::prune;
use super::run::{Options, Summary, unwanted};
use crate::api::apply::{Applier, Change, How, LiveObject, Name, Preview, stands};
use crate::api::inventory::{self, Entry, Inventory, Jobs};
use crate::api::{ADDONS_MANAGER, FIELD_MANAGER};
use crate::base::error::{Finding, Result};
use crate::desired::assets::Manifest;

/// What would be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// A line for each object that would change, as people read it.
    pub lines: Vec<String>,
    /// All changes as a unified diff.
    pub diff: String,
    /// How many objects would be what.
    pub summary: Summary,
    /// What would be refused.
    pub refused: Vec<Finding>,
}

/// What applying all of `asset_dir` would do; nothing is changed.
///
/// # Errors
/// The API server's word.
pub async fn plan(client: &Client, asset_dir: &AssetDir<'_>, options: &Options, is_coloured: bool) -> Result<Plan> {
    let order = Order::of(asset_dir.addons)?;
    let mut plan = Plan::default();
    let all = asset_dir.manifests().unwrap_or_default().iter().chain(asset_dir.addons);
    let ran = if all.clone().any(inventory::goes) { inventory::read(client).await?.jobs } else { Jobs::default() };
    let mut set =
        Set { client, asset_dir, plan: &mut plan, ran, force_conflicts: options.force_conflicts, is_coloured };
    if let Some(manifests) = asset_dir.manifests() {
        let how = How { manager: FIELD_MANAGER, force_conflicts: true };
        set.look(how, &manifests.iter().collect::<Vec<_>>()).await?;
    }
    let how = How { manager: ADDONS_MANAGER, force_conflicts: options.force_conflicts };
    set.look(how, &order.all().collect::<Vec<_>>()).await?;
    if options.prune {
        let wanted: Inventory = order.all().map(|manifest| Entry::of(0, manifest)).collect();
        let unwanted = unwanted(inventory::read(client).await?.inventory, &wanted, asset_dir.manifests);
        for (entry, left) in prune::plan(client, &unwanted).await? {
            if let Some(left) = left {
                plan.lines.push(format!("would leave {entry}: {left}"));
            } else {
                plan.summary.pruned += 1;
                plan.lines.push(format!("would prune {entry}"));
                plan.diff.push_str(&format!("# would prune {entry}\n"));
            }
        }
    }
    Ok(plan)
}

struct Set<'a> {
    client: &'a Client,
    asset_dir: &'a AssetDir<'a>,
    plan: &'a mut Plan,
    /// Jobs that may have run and gone.
    ran: Jobs,
    force_conflicts: bool,
    is_coloured: bool,
}

impl Set<'_> {
    async fn look(&mut self, how: How, manifests: &[&Manifest]) -> Result<()> {
        let mut applier = Applier::new(self.client, how);
        self.asset_dir.crds().for_each(|crd| applier.expect(crd));
        let there = applier.look(manifests).await?;
        let ran = &self.ran;
        let stands_now = |manifest: &Manifest, there: &Option<LiveObject>| {
            stands(manifest, there) || there.is_none() && ran.hold(manifest)
        };
        let is_done = |manifest: &Manifest, there: &_| !self.force_conflicts && stands_now(manifest, there);
        let differ: Vec<_> =
            manifests.iter().copied().zip(there).filter(|(manifest, there)| !is_done(manifest, there)).collect();
        self.plan.summary.unchanged += manifests.len() - differ.len();
        let asked: Vec<_> = differ.iter().map(|(manifest, _)| *manifest).collect();
        let previews = applier.preview(&asked, |namespace| self.asset_dir.makes_namespace(namespace)).await?;
        for ((manifest, there), preview) in differ.into_iter().zip(previews) {
            let name = Name::of(manifest);
            let change = match preview {
                Preview::Refused(refusal) => {
                    self.plan.refused.push(refusal.finding);
                    continue;
                }
                Preview::Unasked => {
                    self.plan.diff.push_str(&format!("# {name}: new, in a namespace or of a kind that is new, too\n"));
                    Change::Created
                }
                Preview::Change { live, after } => {
                    let text = diff(&name, live.as_ref(), &after, self.is_coloured);
                    self.plan.diff.push_str(&text);
                    match (live, there) {
                        (None, _) => Change::Created,
                        // With --force-conflicts, what stands is asked, too.
                        (Some(_), there) if text.is_empty() && stands(manifest, &there) => Change::Unchanged,
                        (Some(_), _) => Change::Configured,
                    }
                }
            };
            self.plan.summary.count(change);
            match change {
                Change::Created => self.plan.lines.push(format!("would create {name}")),
                Change::Configured => self.plan.lines.push(format!("would configure {name}")),
                Change::Unchanged => {}
            }
        }
        Ok(())
    }
}
