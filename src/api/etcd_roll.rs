//! How the etcd of one controller after the other gets another image: an *order*, which an upgrade gives and the guard of that
//! controller carries out.
//!
//! An order is an annotation of guard's Secret, so there is one at a time. What keeps guard from it stands in guard's Lease.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::controllers::pods_of;
use super::observe::pod_view;
use super::{failed, guard};
use crate::base::error::Result;

/// The annotation with the order.
const ORDER: &str = "hoist/etcd-order";
/// The annotation with what keeps a guard from one.
const REFUSED: &str = "hoist/etcd-refused";

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The controller.
    pub node: String,
    /// The image that its etcd is to run.
    pub image: String,
    /// Which try it is: another number is another order.
    pub number: i64,
}

/// What keeps a guard from an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The order.
    pub order: Order,
    /// Why.
    pub why: String,
}

/// The etcd of a controller, as the mirror of its static pod shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdPod {
    /// The controller.
    pub node: String,
    /// Its image.
    pub image: String,
    /// It answers its readiness probe.
    pub ready: bool,
    /// Why not.
    pub reason: String,
}

/// The order that stands, if any.
///
/// # Errors
/// The API server's word.
pub async fn order(client: &Client) -> Result<Option<Order>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let secret = api.get_metadata_opt(guard::NAME).await;
    let secret = secret.map_err(|error| failed("read the order for etcd", &error))?;
    // What somebody else has written there is no order.
    Ok(secret.and_then(|secret| serde_json::from_str(secret.annotations().get(ORDER)?).ok()))
}

/// Gives an order in the place of the one before; `None` takes that back.
///
/// # Errors
/// The API server's word.
pub async fn give(client: &Client, order: Option<&Order>) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let text = order.and_then(|order| serde_json::to_string(order).ok());
    let patch = json!({"metadata": {"annotations": {(ORDER): text}}});
    let patched = api.patch_metadata(guard::NAME, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.map(drop).map_err(|error| failed("order another etcd", &error))
}

/// What kept the guard of the node `name` from an order, the last time that something did.
///
/// # Errors
/// The API server's word.
pub async fn refused(client: &Client, name: &str) -> Result<Option<Refused>> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let name = guard::lease(name);
    let lease = api.get_metadata_opt(&name).await;
    let lease = lease.map_err(|error| failed(format!("read the Lease {name}"), &error))?;
    Ok(lease.and_then(|lease| serde_json::from_str(lease.annotations().get(REFUSED)?).ok()))
}

/// Says what keeps the guard of an order's node from it.
///
/// # Errors
/// The API server's word.
pub async fn refuse(client: &Client, refused: &Refused) -> Result<()> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let name = guard::lease(&refused.order.node);
    let text = serde_json::to_string(refused).unwrap_or_default();
    let patch = json!({"metadata": {"annotations": {(REFUSED): text}}});
    let patched = api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.map(drop).map_err(|error| failed(format!("write to the Lease {name}"), &error))
}

/// The etcd of each controller that has one of hoist's, in the order of their nodes.
///
/// # Errors
/// The API server's word.
pub async fn pods(client: &Client) -> Result<Vec<EtcdPod>> {
    let of_pod = |pod: Pod| {
        pod.labels().get("app.kubernetes.io/managed-by").filter(|by| *by == "hoist")?;
        let view = pod_view(&pod);
        let container = pod.spec?.containers.into_iter().find(|container| container.name == "etcd")?;
        Some(EtcdPod { node: view.node?, image: container.image?, ready: view.ready, reason: view.reason })
    };
    let listed = pods_of(client, "etcd", &ListParams::default()).await?;
    let mut pods: Vec<_> = listed.into_iter().filter_map(of_pod).collect();
    pods.sort_by(|one, other| one.node.cmp(&other.node));
    Ok(pods)
}
