//! Objects of this cluster as they are.

use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use serde_json::Value;

use super::TENANT_LABEL;

/// The kinds of a tenant's objects, by the plural that a path has.
const KINDS: [(&str, &str, &str, &str); 10] = [
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "Event", "events"),
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Secret", "secrets"),
    ("", "v1", "Service", "services"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    ("batch", "v1", "CronJob", "cronjobs"),
    ("batch", "v1", "Job", "jobs"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
];

/// The objects of a kind in a namespace.
pub fn api(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let known = KINDS.iter().find(|(_, _, known, _)| *known == kind);
    let (group, version, kind, plural) = known.copied().unwrap_or(("", "v1", "Pod", "pods"));
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// An object; `None` where there is none.
///
/// # Errors
/// The API server's word.
pub async fn get(client: &Client, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>, Error> {
    let object = api(client, kind, namespace).get_opt(name).await?;
    Ok(object.and_then(|object| serde_json::to_value(object).ok()))
}

/// The pods of a tenant.
///
/// # Errors
/// The API server's word.
pub async fn pods(client: &Client, namespace: &str, tenant: &str) -> Result<Vec<Value>, Error> {
    list(client, "Pod", namespace, &ListParams::default().labels(&format!("{TENANT_LABEL}={tenant}"))).await
}

/// What was said lately of what goes wrong in a namespace.
///
/// # Errors
/// The API server's word.
pub async fn warnings(client: &Client, namespace: &str) -> Result<Vec<Value>, Error> {
    list(client, "Event", namespace, &ListParams::default().fields("type=Warning").limit(500)).await
}

async fn list(client: &Client, kind: &str, namespace: &str, params: &ListParams) -> Result<Vec<Value>, Error> {
    let list = api(client, kind, namespace).list(params).await?;
    Ok(list.items.into_iter().filter_map(|object| serde_json::to_value(object).ok()).collect())
}
