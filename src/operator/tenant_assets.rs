//! A tenant as an asset directory in memory, for commands that take one: rendered from its object, its Services and its keys.

use kube::Client;
use serde_json::Value;

use super::tenant::Tenant;
use super::{describe, keys, live, objects};
use crate::api;
use crate::base::error::{Error, Result};
use crate::desired::assets::AssetSet;
use crate::desired::config::Cluster;
use crate::desired::pki;
use crate::desired::render;

/// That of the tenant `name`, with the cluster that it is.
///
/// # Errors
/// There is none, or it has no address or no keys yet; the API server's word.
pub async fn of(client: &Client, namespace: &str, name: &str) -> Result<(AssetSet, Cluster)> {
    let missing = |what: &str| Error::Failed {
        action: format!("use the tenant {namespace}/{name}"),
        cause: format!("it has no {what}"),
        next: Some(format!("`hoist hosting status --namespace {namespace}` shows the tenants, and what they wait for")),
    };
    let all = describe::list(client, Some(namespace)).await?;
    let object = all.into_iter().find(|tenant| tenant["metadata"]["name"] == name).ok_or_else(|| missing("object"))?;
    let tenant =
        Tenant::read(&object).map_err(|why| Error::failed(format!("use the tenant {namespace}/{name}"), why))?;
    let get = async |kind: &'static str, name: String| -> Result<Option<Value>> {
        let there = live::get(client, kind, namespace, &name).await;
        there.map_err(|error| api::failed(format!("read the {kind} {namespace}/{name}"), &error))
    };
    let service = get("Service", format!("{name}-apiserver")).await?.unwrap_or_default();
    let etcd = get("Service", format!("{name}-etcd")).await?.unwrap_or_default();
    let at = objects::addresses(&tenant, &service, &[etcd]).ok_or_else(|| missing("address yet"))?;
    let cluster = tenant.cluster(&at).map_err(Error::Input)?;
    let secret = get("Secret", keys::name(name)).await?.ok_or_else(|| missing("keys yet"))?;
    let set = render::render(&cluster, &keys::from_data(&secret["data"]), &pki::bootstrap_token(None)?)?;
    Ok((set, cluster))
}
