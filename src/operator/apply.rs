//! Brings the objects of a tenant to what they shall be, and says so where somebody else had changed them.

use std::collections::BTreeMap;

use futures::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource};
use serde_json::Value;

use super::differs::Why;
use super::put::{self, Put};
use super::tenant::Tenant;
use super::trouble::{self, Trouble};
use super::{live, resource};

/// How many objects are looked at at once.
const CONCURRENT: usize = 8;
/// The members of etcd, each a workload of its own. Which of them a tenant has, it says itself.
pub const MEMBERS: [&str; 3] = ["etcd", "etcd-1", "etcd-2"];
/// The workloads, by what follows the tenant's name in theirs, with the component that their pods' labels say.
const WORKLOADS: [(&str, &str); 6] = [
    (MEMBERS[0], "etcd"),
    (MEMBERS[1], "etcd"),
    (MEMBERS[2], "etcd"),
    ("apiserver", "kube-apiserver"),
    ("controller-manager", "kube-controller-manager"),
    ("scheduler", "kube-scheduler"),
];

/// What acts for a tenant.
#[derive(Clone, Copy)]
pub struct Acts<'a> {
    /// This cluster.
    pub client: &'a Client,
    /// Where events go.
    pub recorder: &'a Recorder,
    /// The tenant's object, which events are about.
    pub object: &'a DynamicObject,
}

/// Those of a tenant.
pub fn workloads_of(tenant: &Tenant) -> impl Iterator<Item = (&'static str, &'static str)> {
    let members = &MEMBERS[..tenant.members()];
    WORKLOADS.into_iter().filter(|(name, component)| *component != "etcd" || members.contains(name))
}

/// The kind of a workload.
fn kind(name: &str) -> &'static str {
    if MEMBERS.contains(&name) { "StatefulSet" } else { "Deployment" }
}

/// Which workload of a tenant an object is, by what follows the tenant's name in its own.
pub fn workload(tenant: &Tenant, object: &Value) -> Option<(&'static str, &'static str)> {
    let suffix = object["metadata"]["name"].as_str()?.strip_prefix(&*tenant.name)?.strip_prefix('-')?;
    workloads_of(tenant).find(|(name, _)| *name == suffix && object["kind"] == kind(name))
}

/// The workloads that are there.
///
/// # Errors
/// The API server's word.
pub async fn workloads(client: &Client, tenant: &Tenant) -> Result<BTreeMap<&'static str, Value>, Trouble> {
    let mut there = BTreeMap::new();
    for (name, _) in workloads_of(tenant) {
        let full = format!("{}-{name}", tenant.name);
        let one = live::get(client, kind(name), &tenant.namespace, &full).await;
        let one = one.map_err(|error| trouble::of_refusal(tenant, &format!("the {} {full}", kind(name)), &error))?;
        there.extend(one.map(|one| (name, one)));
    }
    Ok(there)
}

/// Brings all objects to what they shall be: what pods mount first. Returns the workloads, and what takes snapshots.
///
/// # Errors
/// The API server's word about the first that it refuses.
pub async fn apply(
    acts: Acts<'_>,
    tenant: &Tenant,
    wanted: &[Value],
) -> Result<(BTreeMap<&'static str, Value>, Option<Value>), Trouble> {
    let is_mounted = |object: &&Value| object["kind"] == "Secret" || object["kind"] == "ConfigMap";
    let (first, second): (Vec<&Value>, Vec<&Value>) = wanted.iter().partition(is_mounted);
    let (mut workloads, mut backup) = (BTreeMap::new(), None);
    for batch in [first, second] {
        let puts = batch.into_iter().map(async |wanted| (wanted, put::put(acts.client, wanted).await));
        let puts: Vec<_> = futures::stream::iter(puts.collect::<Vec<_>>()).buffered(CONCURRENT).collect().await;
        for (wanted, put) in puts {
            let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
            let kind = wanted["kind"].as_str().unwrap_or_default();
            let put = put.map_err(|error| trouble::of_refusal(tenant, &format!("the {kind} {name}"), &error))?;
            corrected(acts, wanted, &put).await;
            if let Some((name, _)) = workload(tenant, wanted) {
                workloads.insert(name, put.object);
            } else if kind == "CronJob" {
                backup = Some(put.object);
            }
        }
    }
    Ok((workloads, backup))
}

/// Says so where somebody had changed an object.
pub async fn corrected(acts: Acts<'_>, wanted: &Value, put: &Put) {
    if put.why != Some(Why::Drifted) {
        return;
    }
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let note = format!(
        "the {} {} was changed by somebody else, and is as this object has it again",
        text("/kind"),
        text("/metadata/name")
    );
    event(acts, EventType::Warning, "Corrected", note).await;
}

/// Writes an event about a tenant's object.
pub async fn event(acts: Acts<'_>, type_: EventType, reason: &str, note: String) {
    let (reason, action) = (reason.to_owned(), "Reconcile".to_owned());
    // As much as the API takes.
    let note = Some(note.chars().take(1000).collect());
    let event = Event { type_, reason, note, action, secondary: None };
    if let Err(error) = acts.recorder.publish(&event, &acts.object.object_ref(&resource())).await {
        tracing::debug!("an event cannot be written: {error}");
    }
}
