//! Which objects of manifests are gone from the cluster.

use kube::Client;

use super::apply::{Applier, How, Name};
use super::{FIELD_MANAGER, guard, inventory};
use crate::base::error::Result;
use crate::desired::assets::Manifest;

/// The objects of `manifests` that are not in the cluster, in the order of their manifests; if there is to be a guard,
/// its Secret, which no manifest makes, counts among them. What goes by itself is not missed.
///
/// # Errors
/// The API server's word: what is not known is never taken for absent.
pub async fn missing(client: &Client, manifests: &[Manifest], has_guard: bool) -> Result<Vec<Name>> {
    let kept: Vec<_> = manifests.iter().filter(|manifest| !goes_by_itself(manifest)).collect();
    let there = Applier::new(client, How { manager: FIELD_MANAGER, force_conflicts: false }).look(&kept).await?;
    let gone = kept.iter().zip(there).filter(|(_, there)| there.is_none());
    let mut gone: Vec<_> = gone.map(|(manifest, _)| Name::of(manifest)).collect();
    if has_guard && guard::copy_sum(client).await?.is_none() {
        gone.push(Name { kind: "Secret".into(), namespace: "kube-system".into(), name: guard::NAME.into() });
    }
    Ok(gone)
}

/// The inventory of add-ons, if it is gone: applying them again makes it.
///
/// # Errors
/// The API server's word.
pub async fn inventory(client: &Client) -> Result<Option<Name>> {
    let name = Name { kind: "ConfigMap".into(), namespace: "kube-system".into(), name: inventory::NAME.into() };
    Ok((!inventory::is_there(client).await?).then_some(name))
}

/// Whether Kubernetes itself deletes the object after a while.
fn goes_by_itself(manifest: &Manifest) -> bool {
    match manifest.text("/kind") {
        "Job" => manifest.object.pointer("/spec/ttlSecondsAfterFinished").is_some(),
        // Its token expires.
        "Secret" => manifest.text("/type") == "bootstrap.kubernetes.io/token",
        "CertificateSigningRequest" | "Event" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_kubernetes_deletes_itself_is_not_missed() {
        let goes = |object| goes_by_itself(&Manifest { path: "a.yaml".into(), line: 1, object });
        assert!(goes(json!({"kind": "Job", "spec": {"ttlSecondsAfterFinished": 0}})));
        assert!(goes(json!({"kind": "Secret", "type": "bootstrap.kubernetes.io/token"})));
        assert!(goes(json!({"kind": "CertificateSigningRequest"})));
        for kind in ["Job", "Secret", "ClusterRoleBinding", "ServiceAccount", "ConfigMap", "Pod"] {
            assert!(!goes(json!({"kind": kind, "spec": {}})), "{kind}");
        }
    }
}
