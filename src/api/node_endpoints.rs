//! The endpoints of nodes, and who asks them, as the API shows it.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use super::{failed, is_not_found, pages};
use crate::base::error::Result;

/// The ConfigMaps and the DaemonSets of what asks from each node, by namespace: kube-proxy and flannel.
const CONFIG_MAPS: [(&str, &str); 2] = [("kube-system", "kube-proxy"), ("kube-flannel", "kube-flannel-cfg")];
const DAEMON_SETS: [(&str, &str); 2] = [("kube-system", "kube-proxy"), ("kube-flannel", "kube-flannel-ds")];
/// What the static pods of endpoints have.
const LABEL: &str = "component=hoist-endpoint";
/// How many objects are asked for at once.
const PAGE: u32 = 50;

/// Whether kube-proxy or flannel is there and asks somewhere else than at `server`.
///
/// # Errors
/// The API server's word.
pub async fn asks_elsewhere(client: &Client, server: &str) -> Result<bool> {
    let own = format!("server: \"{server}\"");
    for (namespace, name) in CONFIG_MAPS {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let map = api.get_opt(name).await;
        let map = map.map_err(|error| failed(format!("read the ConfigMap {namespace}/{name}"), &error))?;
        let text = map.and_then(|map| map.data?.remove("kubeconfig.conf"));
        if text.is_some_and(|text| !text.contains(&own)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The Nodes that are ready and whose endpoint is not: no API server has answered through it.
///
/// # Errors
/// The API server's word.
pub async fn without(client: &Client) -> Result<BTreeSet<String>> {
    let params = ListParams::default().limit(PAGE);
    let mut nodes = BTreeSet::new();
    let api: Api<Node> = Api::all(client.clone());
    let listed = pages::each(
        params.clone(),
        async |params| api.list(params).await,
        |node| {
            let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
            if conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True") {
                nodes.insert(node.name_any());
            }
        },
    );
    listed.await.map_err(|error| failed("list the nodes", &error))?;
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let listed = pages::each(
        params.labels(LABEL),
        async |params| api.list(params).await,
        |pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            let is_ready = conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
            if let (Some(node), true) = (pod.spec.and_then(|spec| spec.node_name), is_ready) {
                nodes.remove(&node);
            }
        },
    );
    listed.await.map_err(|error| failed("list the endpoints of nodes", &error))?;
    Ok(nodes)
}

/// The first DaemonSet of what asks from each node that is not rolled out yet.
///
/// # Errors
/// The API server's word.
pub async fn rolls(client: &Client) -> Result<Option<String>> {
    for (namespace, name) in DAEMON_SETS {
        let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
        let set = match api.get(name).await {
            Err(error) if is_not_found(&error) => continue,
            set => set.map_err(|error| failed(format!("read the DaemonSet {namespace}/{name}"), &error))?,
        };
        let Some(status) = &set.status else { return Ok(Some(name.to_owned())) };
        let wanted = status.desired_number_scheduled;
        let is_seen = status.observed_generation >= set.metadata.generation;
        let is_done = status.updated_number_scheduled.unwrap_or_default() >= wanted
            && status.number_available.unwrap_or_default() >= wanted;
        if !(is_seen && is_done) {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}
