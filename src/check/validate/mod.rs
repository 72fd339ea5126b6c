//! Checks whether the files of an asset directory fit together: as they are on the disk, with a user's edits, and not
//! as `render` would make them. Pure: the clock is passed in.
//!
//! ```text
//! AssetSet, Cluster ─► Inventory ─► references   every name leads somewhere
//!                                   certificates chain, key, names, usage; from when until when
//!                                   agreement    ports, subnets, names across the components
//!                                   bridge       the bridge against the self-hosted control plane
//!                                   flags        known to the version they are given to
//!                                   exported     of no other cluster's object
//!                                   schemas      kinds served, configurations read, by the version
//!                                   encryption   each API server reads what the other wrote
//!                                   sizes        of one object: the API server's limits, etcd's, guard's
//! ```
//! An *error* cannot work, whatever the cluster holds; a *warning* may be intended.

mod agreement;
mod bridge;
mod certificates;
mod contents;
mod encryption;
mod exported;
mod faults;
mod files;
mod flags;
mod inventory;
mod kubeconfigs;
mod network;
mod presented;
mod references;
mod schemas;
mod sizes;
mod trust;

use std::path::Path;

use serde_json::Value;
use time::OffsetDateTime;

use crate::base::error::{Finding, Severity};
use crate::base::yaml;
use crate::desired::assets::{AssetSet, Parsed, helm};
use crate::desired::config::{Cluster, Controller};
use contents::Contents;
use inventory::{Inventory, Object};

/// Everything that can be said of the asset directory `assets`, which messages call `dir`, in the order of its files.
///
/// Without a valid cluster.yaml nothing can be held against it: then manifests are judged by themselves only.
pub fn validate(assets: &AssetSet, dir: &Path, now: OffsetDateTime) -> Vec<Finding> {
    let (cluster, warnings) = match assets.cluster_and_warnings(dir) {
        Ok(cluster) => cluster,
        Err(error) => {
            let findings = references::input(error).into_iter().chain(assets.parsed(dir).1);
            return sorted(findings.collect());
        }
    };
    let (inventory, mut findings) = read(assets, &cluster, dir);
    findings.extend(warnings);
    findings.extend(references::check(&inventory));
    findings.extend(certificates::identity(&inventory));
    findings.extend(certificates::validity(&inventory, now));
    findings.extend(agreement::check(&inventory));
    findings.extend(network::check(&inventory));
    findings.extend(flags::check(&inventory));
    findings.extend(schemas::check(&inventory));
    findings.extend(encryption::agrees(&inventory));
    findings.extend(encryption::anonymous(&inventory));
    findings.extend(bridge::check(&inventory, &findings));
    findings.extend(sizes::check(&inventory));
    findings.extend(cluster.controllers.iter().flat_map(|own| sizes::guards_copy(assets, &cluster, own, dir)));
    sorted(findings)
}

/// What `start` refuses on `controller`: errors of references and certificates, which no cluster can make up for. Not
/// what the clock says: that is the machine's, and may be mended by the time that somebody looks.
pub fn decisive(assets: &AssetSet, cluster: &Cluster, controller: &Controller, dir: &Path) -> Vec<Finding> {
    // What others need may be kept from this one.
    let cluster = Cluster { controllers: vec![controller.clone()], ..cluster.clone() };
    let (inventory, _) = read(assets, &cluster, dir);
    let findings = references::check(&inventory).into_iter().chain(certificates::identity(&inventory));
    let findings = findings.chain(encryption::agrees(&inventory));
    let findings = findings.chain(sizes::guards_copy(assets, &cluster, controller, dir));
    sorted(findings.filter(|finding| finding.severity == Severity::Error).collect())
}

fn read<'a>(assets: &'a AssetSet, cluster: &'a Cluster, dir: &'a Path) -> (Inventory<'a>, Vec<Finding>) {
    let (parsed, mut findings) = assets.parsed(dir);
    let applied = parsed.iter().filter(|parsed| parsed.is_applied());
    findings.extend(applied.flat_map(exported::check));
    findings.extend(parsed.iter().filter_map(skipped));
    // Add-ons meet a cluster that serves: what they refer to may come from anywhere.
    let parsed = parsed.into_iter().filter(|parsed| parsed.skipped().is_none());
    let (addons, objects) = parsed.partition::<Vec<_>, _>(|parsed| parsed.path.starts_with("addons/"));
    let objects = objects.into_iter().map(Object::new).collect();
    let addons = addons.into_iter().map(Object::new).collect();
    (Inventory { dir, assets, cluster, objects, addons, contents: Contents::new(assets, cluster) }, findings)
}

/// A manifest that nothing applies.
fn skipped(parsed: &Parsed) -> Option<Finding> {
    let events = parsed.skipped()?;
    let text = |pointer: &str| parsed.document.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let path = yaml::child("metadata.annotations", helm::HOOK);
    let message = format!(
        "{} {} is not applied: it is a hook of Helm's for `{events}`, and not for an install or upgrade",
        text("/kind"),
        text("/metadata/name")
    );
    let finding = Finding::new(&*parsed.place, message).at(parsed.document.positions.nearest(&path)).warning();
    Some(finding.remedy("take the annotation out to have it applied; `helm template --no-hooks` writes none of these"))
}

/// In the order of files and lines, each once.
fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by(|a, b| (&a.place, a.position, &a.message).cmp(&(&b.place, b.position, &b.message)));
    findings.dedup();
    findings
}
