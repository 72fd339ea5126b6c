//! The state of a node and of the leaders, for display and not for decisions.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::Api;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::explain;
use super::observe::LEASES;
use crate::base::error::{Error, Result};

/// How long a Lease lasts that does not say.
const LEASE_SECONDS: i32 = 15;

/// A condition of a Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// `Ready`, `DiskPressure` …
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, as one word.
    pub reason: String,
    /// Why, as a sentence.
    pub message: String,
}

/// Who leads, and whether that is still so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leader {
    /// The Lease, of the same name as the component.
    pub lease: String,
    /// Empty when it was released.
    pub holder: String,
    /// How long ago the holder last said so; less than nothing by a clock that is ahead.
    pub renewed_seconds_ago: Option<i64>,
    /// There is a holder, and it has said so within the time of the Lease.
    pub alive: bool,
}

/// The conditions of a Node; none where there is no such Node.
///
/// # Errors
/// The API's refusal, or none of its answers.
pub async fn conditions(client: &Client, node: &str) -> Result<Vec<Condition>> {
    let api: Api<Node> = Api::all(client.clone());
    let node = api.get_opt(node).await.map_err(|error| Error::failed("read the node", explain(&error)))?;
    let conditions = node.and_then(|node| node.status).and_then(|status| status.conditions).unwrap_or_default();
    let condition = |condition: k8s_openapi::api::core::v1::NodeCondition| Condition {
        kind: condition.type_,
        status: condition.status,
        reason: condition.reason.unwrap_or_default(),
        message: condition.message.unwrap_or_default(),
    };
    Ok(conditions.into_iter().map(condition).collect())
}

/// Who leads at the time `now`. A Lease that is not there has no holder.
///
/// # Errors
/// The API's refusal, or none of its answers.
pub async fn leaders(client: &Client, now: OffsetDateTime) -> Result<Vec<Leader>> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let mut leaders = Vec::new();
    for name in LEASES {
        let lease = api.get_opt(name).await;
        let lease = lease.map_err(|error| Error::failed(format!("read the Lease {name}"), explain(&error)))?;
        let spec = lease.and_then(|lease| lease.spec).unwrap_or_default();
        let renewed = spec.renew_time.and_then(|time| OffsetDateTime::parse(&time.0.to_string(), &Rfc3339).ok());
        let lasts = spec.lease_duration_seconds.unwrap_or(LEASE_SECONDS);
        leaders.push(leader(name, spec.holder_identity.unwrap_or_default(), renewed, lasts, now));
    }
    Ok(leaders)
}

fn leader(lease: &str, holder: String, renewed: Option<OffsetDateTime>, lasts: i32, now: OffsetDateTime) -> Leader {
    let ago = renewed.map(|renewed| (now - renewed).whole_seconds());
    let alive = !holder.is_empty() && ago.is_some_and(|ago| ago <= i64::from(lasts));
    Leader { lease: lease.to_owned(), holder, renewed_seconds_ago: ago, alive }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_lives_as_long_as_its_lease() {
        let now = OffsetDateTime::now_utc();
        let ago = |seconds| Some(now - time::Duration::seconds(seconds));
        let alive = |holder: &str, renewed| leader("x", holder.into(), renewed, 15, now).alive;
        assert!(alive("a", ago(0)) && alive("a", ago(15)) && alive("a", ago(-1)));
        assert!(!alive("a", ago(16)) && !alive("", ago(0)) && !alive("a", None));
    }
}
