//! Approves what the kubelets of all tenants serve with, by guard's rules. A tenant that does not answer keeps no other one
//! waiting.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use tokio::time::timeout;

use crate::api::approve::Reserved;
use crate::api::approver::Approver;

/// How often one looks: only `kubectl logs` and the like need what is approved.
const PAUSE: Duration = Duration::from_secs(5);
/// How long a tenant may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How many tenants are asked at once.
const CONCURRENT: usize = 8;

/// The tenants whose API is served, by their uids.
#[derive(Default)]
pub struct Approvals(Mutex<BTreeMap<String, Entry>>);

#[derive(Clone)]
struct Entry {
    name: String,
    client: Client,
    reserved: Reserved,
}

impl Approvals {
    /// Notes a tenant whose API is served.
    pub fn add(&self, uid: &str, name: &str, client: &Client, reserved: Reserved) {
        let entry = Entry { name: name.to_owned(), client: client.clone(), reserved };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), entry);
    }

    fn now(&self, is_there: &impl Fn(&str) -> bool) -> BTreeMap<String, Entry> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|uid, _| is_there(uid));
        all.clone()
    }

    /// Approves for ever; `is_there` says whether the tenant of a uid is still declared.
    pub async fn run(&self, is_there: impl Fn(&str) -> bool) {
        let mut approvers: BTreeMap<String, Approver> = BTreeMap::new();
        loop {
            let tenants = self.now(&is_there);
            approvers.retain(|uid, _| tenants.contains_key(uid));
            for uid in tenants.keys() {
                approvers.entry(uid.clone()).or_default();
            }
            let turns = approvers.iter_mut().filter_map(|(uid, approver)| Some(turn(tenants.get(uid)?, approver)));
            futures::stream::iter(turns.collect::<Vec<_>>()).buffer_unordered(CONCURRENT).collect::<Vec<_>>().await;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn turn(tenant: &Entry, approver: &mut Approver) {
    let news = |news: crate::api::approver::News| tracing::info!(tenant = tenant.name, "{}", news.text);
    match timeout(LIMIT, approver.turn(&tenant.client, &tenant.reserved, news)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(tenant = tenant.name, "{error}"),
        Err(_) => tracing::debug!(tenant = tenant.name, "no answer in time"),
    }
}
