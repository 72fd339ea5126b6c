//! The Leases of the two that have a leader.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::http::Client;

pub const LEADERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// One of them, if the API answers and has it.
pub async fn lease(client: &Client, name: &str) -> Option<Value> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{name}");
    let Ok((200, body)) = client.get(&path).await else { return None };
    serde_json::from_slice(&body).ok()
}

/// Whether somebody has renewed both of them since then.
pub async fn are_renewed_since(client: &Client, time: Timestamp) -> bool {
    for name in LEADERS {
        let lease = lease(client, name).await.unwrap_or_default();
        let renewed = lease["spec"]["renewTime"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        if renewed.is_none_or(|renewed| renewed <= time) {
            return false;
        }
    }
    true
}
