//! What a tenant has in itself: it is applied through the tenant's own API, as `start` does it in a cluster of its own.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::conditions::Inside;
use crate::api::{self, apply, health};
use crate::base::error::Result;
use crate::base::files;
use crate::desired::assets::Manifest;

/// How long what was applied is taken to stand: a tenant's admin may change it, as in any cluster, or delete it.
const STANDS: Duration = Duration::from_secs(600);

/// What was applied last.
#[derive(Debug, Clone)]
pub struct Applied {
    sum: String,
    at: Instant,
}

impl Applied {
    /// Manifests with this sum, now.
    pub fn now(sum: String) -> Self {
        Self { sum, at: Instant::now() }
    }

    /// Whether `last` is manifests with this sum, and not long ago.
    pub fn stands(last: Option<&Self>, sum: &str) -> bool {
        last.is_some_and(|last| last.sum == sum && last.at.elapsed() < STANDS)
    }
}

/// The sum of all that manifests say.
pub fn sum(manifests: &[Manifest]) -> String {
    let sums: Vec<_> = manifests.iter().map(Manifest::sum).collect();
    files::sha256_of_all(sums.iter().map(String::as_str))
}

/// Applies what is not there, and looks. `applied` is what was applied last.
pub async fn turn(
    client: &Client,
    manifests: &[Manifest],
    applied: &mut Option<Applied>,
    now: OffsetDateTime,
) -> Inside {
    if !api::is_served(client).await {
        return Inside::default();
    }
    let mut inside = Inside { is_served: true, ..Inside::default() };
    let sum = sum(manifests);
    if !Applied::stands(applied.as_ref(), &sum) {
        match apply::apply(client, manifests, false).await {
            Ok(outcome) if outcome.refused.is_empty() => *applied = Some(Applied::now(sum)),
            Ok(outcome) => {
                let first = outcome.refused.first().map(|refusal| refusal.finding.to_string()).unwrap_or_default();
                let count = outcome.refused.len();
                inside.unapplied = Some(format!("the tenant's API server refuses {count} objects: {first}"));
            }
            Err(error) => inside.unapplied = Some(format!("{error}. It is tried again")),
        }
    }
    match health::leaders(client, now).await {
        Ok(leaders) => {
            let dead = leaders.into_iter().filter(|leader| !leader.alive);
            inside.leaderless = dead.map(|leader| leader.lease).collect();
        }
        Err(error) => inside.leaderless = vec![error.to_string()],
    }
    inside.nodes = nodes(client).await.ok();
    inside
}

async fn nodes(client: &Client) -> Result<usize> {
    let api: Api<Node> = Api::all(client.clone());
    let list = api.list_metadata(&ListParams::default()).await;
    Ok(list.map_err(|error| api::failed("list the tenant's nodes", &error))?.items.len())
}
