//! The state of a node and of the leaders, for display and not for decisions.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::Api;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::observe::LEASES;
use super::{explain, timestamp};
use crate::base::error::{Error, Result};

/// How long a Lease lasts that does not say.
const LEASE_SECONDS: i32 = 15;
/// For how long a renewal is watched for: a leader renews every 2 s.
const WATCH: Duration = Duration::from_secs(5);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

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
    /// There is a holder, and it has said so within the time of the Lease, or was seen to.
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

/// Who leads; `now` is this machine's date. A Lease that is not there has no holder. Where its date is far from `now`, one of
/// two clocks may be wrong, and whether it is renewed is watched for a moment instead, as client-go's candidates do.
///
/// # Errors
/// The API's refusal, or none of its answers.
pub async fn leaders(client: &Client, now: OffsetDateTime) -> Result<Vec<Leader>> {
    let begun = Instant::now();
    let first = read(client).await?;
    let mut leaders: Vec<_> = LEASES.into_iter().zip(&first).map(|(name, spec)| leader(name, spec, now)).collect();
    let is_open = |leaders: &[Leader]| leaders.iter().any(|leader| !leader.alive && !leader.holder.is_empty());
    while is_open(&leaders) && begun.elapsed() < WATCH {
        sleep(INTERVAL).await;
        for ((leader, then), seen) in leaders.iter_mut().zip(&first).zip(read(client).await?) {
            let is_held = seen.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty());
            if !leader.alive && is_held && seen.renew_time != then.renew_time {
                leader.holder = seen.holder_identity.unwrap_or_default();
                leader.alive = true;
            }
        }
    }
    Ok(leaders)
}

async fn read(client: &Client) -> Result<Vec<LeaseSpec>> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let mut read = Vec::new();
    for name in LEASES {
        let lease = api.get_opt(name).await;
        let lease = lease.map_err(|error| Error::failed(format!("read the Lease {name}"), explain(&error)))?;
        read.push(lease.and_then(|lease| lease.spec).unwrap_or_default());
    }
    Ok(read)
}

/// What a Lease says by its dates.
fn leader(lease: &str, spec: &LeaseSpec, now: OffsetDateTime) -> Leader {
    let renewed = spec.renew_time.as_ref().map(|time| timestamp::moment(time.0));
    let lasts = i64::from(spec.lease_duration_seconds.unwrap_or(LEASE_SECONDS));
    let holder = spec.holder_identity.clone().unwrap_or_default();
    let ago = renewed.map(|renewed| (now - renewed).whole_seconds());
    let alive = !holder.is_empty() && ago.is_some_and(|ago| (-lasts..=lasts).contains(&ago));
    Leader { lease: lease.to_owned(), holder, renewed_seconds_ago: ago, alive }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_leader_lives_as_long_as_its_lease() {
        let now = OffsetDateTime::now_utc();
        let ago = |seconds| Some(now - time::Duration::seconds(seconds));
        let alive = |holder: &str, renewed: Option<OffsetDateTime>| {
            let renew_time = renewed.map(|at| MicroTime(timestamp::of(at)));
            let holder_identity = Some(holder.to_owned());
            let spec =
                LeaseSpec { holder_identity, renew_time, lease_duration_seconds: Some(15), ..LeaseSpec::default() };
            leader("x", &spec, now).alive
        };
        assert!(alive("a", ago(0)) && alive("a", ago(15)) && alive("a", ago(-1)));
        assert!(!alive("a", ago(16)) && !alive("", ago(0)) && !alive("a", None));
        assert!(!alive("a", ago(-16)), "one of two clocks is wrong");
    }

    /// A cluster whose leaders have another clock; they renew every 2 s, or not at all.
    fn cluster(renews: bool) -> Client {
        let begun = Instant::now();
        let service = tower::service_fn(move |_: Request<Body>| {
            let renewals = if renews { begun.elapsed().as_secs() / 2 } else { 0 };
            let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "x"},
                "spec": {"holderIdentity": "c1_x", "leaseDurationSeconds": 15,
                    "renewTime": format!("2001-01-01T00:00:{:02}.000000Z", renewals * 2)}});
            async move { Ok::<_, std::convert::Infallible>(Response::new(Body::from(lease.to_string().into_bytes()))) }
        });
        Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn who_renews_leads_whatever_the_clocks_say() {
        let now = OffsetDateTime::now_utc();
        for renews in [true, false] {
            let begun = Instant::now();
            let leaders = leaders(&cluster(renews), now).await.unwrap();
            assert!(leaders.iter().all(|leader| leader.alive == renews && leader.holder == "c1_x"), "{leaders:?}");
            assert!(begun.elapsed() <= if renews { Duration::from_secs(3) } else { WATCH + INTERVAL });
        }
    }
}
