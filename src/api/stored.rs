//! Objects in etcd that another version of Kubernetes cannot read.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};

use super::{Verdict, failed, pages, verdict};
use crate::base::error::Result;

/// How many CRDs are asked for at once.
const PAGE: u32 = 250;
/// Versions of the API whose types a minor version of Kubernetes 1 has no more, and for whose kinds it has no other version, or one that
/// objects were never written in (k8s.io/api 0.34 to 0.37: folders that are gone).
const GONE: [(&str, u32); 3] =
    [("storagemigration.k8s.io/v1alpha1", 35), ("scheduling.k8s.io/v1alpha1", 36), ("scheduling.k8s.io/v1alpha2", 37)];

/// Objects that will not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Their kind, as `kubectl get` takes it: `podgroups.v1alpha2.scheduling.k8s.io`.
    pub kind: String,
    /// The minor version of Kubernetes 1 that does not read them.
    pub gone_in: u32,
}

/// Kinds of which objects are there that no minor version from `from` (excluded) to `to` (included) can read. A version of the API that is
/// switched off hides its objects.
///
/// # Errors
/// The API server's word.
pub async fn unread(client: &Client, from: u32, to: u32) -> Result<Vec<Unread>> {
    let mut found = Vec::new();
    for (group_version, gone_in) in GONE.into_iter().filter(|(_, gone_in)| (from + 1..=to).contains(gone_in)) {
        let action = || format!("look for objects of {group_version}");
        let served = match client.list_api_group_resources(group_version).await {
            Ok(served) => served,
            Err(error) if verdict(&error) == Verdict::Missing => continue,
            Err(error) => return Err(failed(action(), &error)),
        };
        let (group, version) = group_version.split_once('/').unwrap_or_default();
        let is_listed = |verbs: &[String]| verbs.iter().any(|verb| verb == "list");
        for resource in served.resources.iter().filter(|one| is_listed(&one.verbs)) {
            let kind = GroupVersionKind::gvk(group, version, &resource.kind);
            let api: Api<DynamicObject> =
                Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, &resource.name));
            let one = api.list_metadata(&ListParams::default().limit(1)).await;
            if !one.map_err(|error| failed(action(), &error))?.items.is_empty() {
                found.push(Unread { kind: format!("{}.{version}.{group}", resource.name), gone_in });
            }
        }
    }
    Ok(found)
}

/// CRDs that say that objects are stored in a version which they do not have any more: each by its name, with these versions.
///
/// # Errors
/// The API server's word.
pub async fn lost_versions(client: &Client) -> Result<Vec<(String, Vec<String>)>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    let listed = pages::each(params, async |params| api.list(params).await, |crd| found.extend(lost(&crd)));
    listed.await.map_err(|error| failed("list the CRDs", &error))?;
    Ok(found)
}

fn lost(crd: &CustomResourceDefinition) -> Option<(String, Vec<String>)> {
    let stored = crd.status.iter().flat_map(|status| status.stored_versions.iter().flatten());
    let lost: Vec<_> =
        stored.filter(|stored| !crd.spec.versions.iter().any(|version| version.name == **stored)).cloned().collect();
    (!lost.is_empty()).then(|| (crd.name_any(), lost))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_version_that_is_stored_and_that_the_crd_has_no_more_is_lost() {
        let crd = |stored: &[&str]| -> CustomResourceDefinition {
            serde_json::from_value(json!({
                "metadata": {"name": "things.example.com"},
                "spec": {
                    "group": "example.com",
                    "names": {"kind": "Thing", "plural": "things"},
                    "scope": "Cluster",
                    "versions": [{"name": "v1", "served": true, "storage": true}, {"name": "v1beta1", "served": false, "storage": false}],
                },
                "status": {"storedVersions": stored},
            }))
            .unwrap()
        };
        assert_eq!(lost(&crd(&["v1", "v1beta1"])), None);
        assert_eq!(lost(&crd(&["v1alpha1", "v1"])), Some(("things.example.com".into(), vec!["v1alpha1".into()])));
    }
}
