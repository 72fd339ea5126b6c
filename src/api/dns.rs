//! The number of CoreDNS replicas: the rule in the ConfigMap kube-dns-autoscaler, which has the form of the
//! cluster-proportional-autoscaler's "linear" mode, applied to the current nodes.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde::Deserialize;
use serde_json::json;

use super::{FIELD_MANAGER, explain, is_not_found, pages};
use crate::base::error::{Error, Result};
use crate::desired::config::Autoscaler;

/// Why a number of replicas is what it is.
pub const WHY: &str = "the rule in the ConfigMap kube-dns-autoscaler asks for them";
/// The ConfigMap with the rule.
const RULE: &str = "kube-dns-autoscaler";
/// Its key, named as the mode.
const LINEAR: &str = "linear";
/// The Deployment whose replicas it is about.
const COREDNS: &str = "coredns";
/// How many Nodes are asked for at once: a list of thousands would not fit into guard's memory.
const PAGE: u32 = 50;

/// The fields of the rule that hoist follows; a user's others stay as they are.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linear {
    cores_per_replica: u32,
    nodes_per_replica: u32,
    #[serde(default = "one")]
    min: u32,
    max: Option<u32>,
}

fn one() -> u32 {
    1
}

/// Brings the number of CoreDNS's replicas to what the rule says; the new number, if that was another. Nothing is done
/// where there is no rule, no right to read it, or no CoreDNS.
///
/// # Errors
/// The API server's word, or a rule that cannot be read.
pub async fn autoscale(client: &Client) -> Result<Option<u32>> {
    let failed = |error: &kube::Error| Error::failed("scale CoreDNS", explain(error));
    let rules: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let rule = match rules.get_opt(RULE).await {
        // A cluster without hoist's DNS gives guard no right to it.
        Err(kube::Error::Api(status)) if status.code == 403 => return Ok(None),
        rule => rule.map_err(|error| failed(&error))?,
    };
    let Some(rule) = rule.and_then(|rule| rule.data?.remove(LINEAR)) else { return Ok(None) };
    let rule: Linear = serde_json::from_str(&rule)
        .map_err(|error| Error::failed(format!("read the rule in the ConfigMap {RULE}"), error))?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    let scale = match deployments.get_scale(COREDNS).await {
        Ok(scale) => scale,
        Err(error) if is_not_found(&error) => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let (nodes, cores) = size(client).await.map_err(|error| failed(&error))?;
    let Linear { cores_per_replica, nodes_per_replica, min, max } = rule;
    let wanted = Autoscaler { min, nodes_per_replica, cores_per_replica }.replicas(nodes, cores);
    let wanted = wanted.min(max.unwrap_or(u32::MAX));
    if scale.spec.and_then(|spec| spec.replicas).and_then(|now| u32::try_from(now).ok()) == Some(wanted) {
        return Ok(None);
    }
    let patch = Patch::Merge(json!({"spec": {"replicas": wanted}}));
    let params =
        PatchParams { field_manager: Some(FIELD_MANAGER.to_owned() + "-dns-autoscaler"), ..PatchParams::default() };
    deployments.patch_scale(COREDNS, &params, &patch).await.map_err(|error| failed(&error))?;
    Ok(Some(wanted))
}

/// How many nodes and cores the cluster has.
async fn size(client: &Client) -> Result<(u32, u32), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let (mut nodes, mut millicores) = (0u32, 0u64);
    let params = ListParams::default().limit(PAGE);
    pages::each(
        params,
        async |params| api.list(params).await,
        |node| {
            let capacity = node.status.and_then(|status| status.capacity);
            nodes += 1;
            millicores += capacity.and_then(|all| all.get("cpu").map(|cpu| self::millicores(&cpu.0))).unwrap_or(0);
        },
    )
    .await?;
    Ok((nodes, u32::try_from(millicores.div_ceil(1000)).unwrap_or(u32::MAX)))
}

/// A quantity of processor as a kubelet reports it: cores, or thousandths of one.
fn millicores(quantity: &str) -> u64 {
    match quantity.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().unwrap_or(0),
        None => quantity.parse::<u64>().unwrap_or(0) * 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_read_as_kubelets_write_them() {
        for (quantity, expected) in [("4", 4000), ("1500m", 1500), ("", 0), ("many", 0)] {
            assert_eq!(millicores(quantity), expected, "{quantity}");
        }
    }

    #[test]
    fn a_rule_of_the_cluster_proportional_autoscaler_is_understood() {
        let text = r#"{"coresPerReplica":256,"nodesPerReplica":16,"min":2,"max":10,"preventSinglePointFailure":true}"#;
        let rule: Linear = serde_json::from_str(text).unwrap();
        assert_eq!((rule.cores_per_replica, rule.nodes_per_replica, rule.min, rule.max), (256, 16, 2, Some(10)));
        assert!(serde_json::from_str::<Linear>("{}").is_err());
    }

    #[tokio::test]
    async fn where_guard_may_not_read_a_rule_there_is_none() {
        for (code, reason, expected) in
            [(403, "Forbidden", true), (404, "NotFound", true), (500, "InternalError", false)]
        {
            let service = tower::service_fn(move |_: http::Request<kube::client::Body>| async move {
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "reason": reason, "message": "", "code": code});
                let body = kube::client::Body::from(status.to_string().into_bytes());
                http::Response::builder().status(code).body(body)
            });
            let scaled = autoscale(&Client::new(service, "default")).await;
            assert_eq!(scaled.is_ok_and(|changed| changed.is_none()), expected, "{code}");
        }
    }
}
