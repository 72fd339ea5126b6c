//! Manifests that belong to one object of one cluster: output of `kubectl get -o yaml` that was put into an asset
//! directory as it is.

use crate::base::error::Finding;
use crate::desired::assets::{self, Parsed};

/// Each such field. In the cluster that it comes from, the object may still be as it was.
pub(super) fn check(parsed: &Parsed) -> Vec<Finding> {
    let document = &parsed.document;
    let finding = |field: &str| {
        let path = format!("metadata.{field}");
        let at = document.positions.key(&path).or_else(|| document.positions.nearest(&path));
        let why = "is that of one object of one cluster: the API server refuses the manifest anywhere else";
        let finding = Finding::new(&parsed.place, format!("{path}: {why}")).at(at.or(Some((document.line, 1))));
        finding.warning().remedy("leave the field out: `kubectl get -o yaml` writes it, and the API server sets it")
    };
    assets::exported(&document.value).into_iter().map(finding).collect()
}
