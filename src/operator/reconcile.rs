//! One turn for one tenant: looks, decides, acts, and says in the status what came of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::addons;
use super::approvals::Approvals;
use super::conditions::{self, Condition, Facts, Seen};
use super::delete::{self, OwnImage};
use super::differs::Why;
use super::inside::{self, Applied};
use super::objects::{self, Desired};
use super::put::{self, Put};
use super::restore::{self, Next};
use super::tenant::{Addresses, Tenant};
use super::trouble::{self, Trouble};
use super::{keys, live, resource};
use crate::api::approve::Reserved;
use crate::api::{self, Verdict};
use crate::base::error::Finding;
use crate::base::time::rfc3339;
use crate::desired::config::Cluster;
use crate::desired::secrets::Tls;

/// A tenant is looked at again so long after all of it was well.
const REST: Duration = Duration::from_secs(60);
/// While it comes up, and nothing else says that something has changed.
const SOON: Duration = Duration::from_secs(1);
/// After an add-on was not applied, or not all of it.
const ADDONS: Duration = Duration::from_secs(10);
/// After something was refused.
const LATER: Duration = Duration::from_secs(15);
/// How long one turn may take: a tenant that hangs keeps no other one waiting.
const LIMIT: Duration = Duration::from_secs(60);
/// How many objects are looked at at once.
const CONCURRENT: usize = 8;
/// The workloads, by what follows the tenant's name in theirs, with the component that their pods' labels say.
const WORKLOADS: [(&str, &str); 4] = [
    ("etcd", "etcd"),
    ("apiserver", "kube-apiserver"),
    ("controller-manager", "kube-controller-manager"),
    ("scheduler", "kube-scheduler"),
];

/// What all turns share.
pub struct Context {
    /// This cluster.
    pub client: Client,
    /// Where events go.
    pub recorder: Recorder,
    /// The tenants whose kubelets are answered.
    pub approvals: Arc<Approvals>,
    /// What pods of hoist's own run.
    pub own: OwnImage,
    /// What was applied in each tenant, by its uid.
    pub applied: Mutex<BTreeMap<String, Known>>,
}

/// What was applied last in a tenant.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What each tenant has.
    inside: Option<Applied>,
    /// Its add-ons.
    addons: Option<Applied>,
}

/// What a turn came to.
struct Outcome {
    conditions: Vec<Condition>,
    facts: Facts,
    again: Duration,
}

impl Outcome {
    fn refused(trouble: Trouble, facts: Facts) -> Self {
        let again = if trouble.reason == "Failed" { SOON } else { LATER };
        Self { conditions: vec![Condition::no("Accepted", trouble.reason, trouble.message)], facts, again }
    }
}

/// A turn for `object`.
///
/// # Errors
/// The status cannot be written.
pub async fn reconcile(object: &DynamicObject, context: &Context) -> Result<Action, kube::Error> {
    let Ok(value) = serde_json::to_value(object) else { return Ok(Action::await_change()) };
    let turn = async {
        if object.metadata.deletion_timestamp.is_some() {
            return delete::turn(&context.client, &context.recorder, &context.own, object, &value).await;
        }
        if value["spec"]["paused"] == true {
            return Ok(Action::await_change());
        }
        let outcome = outcome(context, object, &value).await;
        said(context, object, &value, &outcome).await?;
        Ok(Action::requeue(outcome.again))
    };
    timeout(LIMIT, turn).await.unwrap_or_else(|_| Ok(Action::requeue(LATER)))
}

async fn outcome(context: &Context, object: &DynamicObject, value: &Value) -> Outcome {
    let refused = |reason, message: String| Outcome::refused(Trouble { reason, message }, Facts::default());
    let tenant = match Tenant::read(value) {
        Ok(tenant) => tenant,
        Err(why) => {
            return refused("InvalidSpec", format!("{why}. `kubectl explain hostedcontrolplane.spec` has the fields"));
        }
    };
    let (at, cluster) = match placed(context, object, &tenant).await {
        Ok(placed) => placed,
        Err(outcome) => return *outcome,
    };
    // Before there is a folder, and not where the operator was not let in.
    if let Err(error) = delete::hold(&context.client, &tenant, object).await {
        return Outcome::refused(trouble::of_refusal(&tenant, "the finalizer", &error), Facts::default());
    }
    come_up(context, object, value, &tenant, &at, &cluster).await
}

/// Has the Services made, from which a tenant's place follows, and the cluster that it is there.
async fn placed(
    context: &Context,
    object: &DynamicObject,
    tenant: &Tenant,
) -> Result<(Addresses, Cluster), Box<Outcome>> {
    let refused = |reason, message: String| Box::new(Outcome::refused(Trouble { reason, message }, Facts::default()));
    let services = objects::services(tenant).map_err(|error| refused("Failed", error.to_string()))?;
    let mut there = BTreeMap::new();
    for wanted in services {
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let put = put::put(&context.client, &wanted).await.map_err(|error| {
            Box::new(Outcome::refused(
                trouble::of_refusal(tenant, &format!("the Service {name}"), &error),
                Facts::default(),
            ))
        })?;
        corrected(context, object, &wanted, &put).await;
        there.insert(name, put.object);
    }
    let service = |what: &str| there.get(&format!("{}-{what}", tenant.name)).cloned().unwrap_or_default();
    let at = objects::addresses(tenant, &service("apiserver"), &service("etcd")).ok_or_else(|| {
        let why = "the Service has no address yet: a load balancer of this cluster has to give it one, as an IP address, or exposure.address has to";
        refused("NoAddress", why.to_owned())
    })?;
    let cluster = tenant.cluster(&at).map_err(|findings| {
        let text: Vec<_> = findings.iter().map(Finding::to_string).collect();
        refused("InvalidSpec", text.join("; ").replace("\n    ", ". "))
    })?;
    Ok((at, cluster))
}

async fn come_up(
    context: &Context,
    object: &DynamicObject,
    value: &Value,
    tenant: &Tenant,
    at: &Addresses,
    cluster: &Cluster,
) -> Outcome {
    let mut facts = Facts { endpoint: Some(at.outside.to_string()), ..Facts::default() };
    let tls = match hold_keys(context, tenant, cluster, &value["status"]).await {
        Ok(tls) => tls,
        Err(trouble) => return Outcome::refused(trouble, facts),
    };
    facts.ca_hash = keys::ca_hash(&tls);
    let desired = objects::desired(tenant, cluster, at, &tls);
    let snapshots = objects::snapshots(tenant, cluster, at, &tls, &context.own);
    let (Desired { mut objects, inside, kubeconfig }, snapshots) = match desired.and_then(|one| Ok((one, snapshots?))) {
        Ok(desired) => desired,
        Err(error) => {
            let message = format!("{error}. The Secret {} is not as the operator made it", keys::name(&tenant.name));
            return Outcome::refused(Trouble { reason: "KeysUnfit", message }, facts);
        }
    };
    objects.extend(snapshots);
    let mut seen = Seen::default();
    let (next, restore) = match restoring(context, tenant, &value["status"], &mut facts, &mut seen).await {
        Ok(next) => next,
        Err(trouble) => return Outcome::refused(trouble, facts),
    };
    let has_stopped = matches!(next, Next::Stop | Next::Wait | Next::Cancel);
    if has_stopped || next == Next::Done {
        // What was applied is not in the data that was restored.
        lock(&context.applied).remove(&tenant.uid);
    }
    let mut pods = Vec::new();
    if has_stopped {
        pods = match live::pods(&context.client, &tenant.namespace, &tenant.name).await {
            Ok(pods) => pods,
            Err(error) => return Outcome::refused(trouble::of_refusal(tenant, "its pods", &error), facts),
        };
        objects::stop(&mut objects, restore::has_askers(&pods));
    }
    match apply(context, object, tenant, &objects).await {
        Ok((workloads, backup)) => (seen.workloads, seen.backup) = (workloads, backup),
        Err(trouble) => return Outcome::refused(trouble, facts),
    }
    if has_stopped {
        let job =
            |file: &str| objects::restoring(tenant, cluster, at, &tls, &context.own, file, OffsetDateTime::now_utc());
        return stopped(context, tenant, (next, restore), (&seen, &pods), job, facts).await;
    }
    if seen.backup.is_none() && conditions::asked_for_snapshots(&value["status"]) {
        let done = restore::take_no_more(&context.client, tenant).await;
        if let Err(error) = done {
            return Outcome::refused(trouble::of_refusal(tenant, "the CronJob of snapshots", &error), facts);
        }
    }
    if seen.backup.is_some() {
        let pods = live::pods(&context.client, &tenant.namespace, &tenant.name).await.unwrap_or_default();
        facts.snapshot = restore::last(&pods);
    }
    if WORKLOADS.iter().any(|(name, _)| !seen.is_rolled_out(name)) {
        look_for_trouble(context, tenant, &mut seen).await;
    }
    if seen.serves("apiserver")
        && let Ok(client) = api::connect(&kubeconfig, at.api).await
    {
        let mut known = lock(&context.applied).get(&tenant.uid).cloned().unwrap_or_default();
        seen.inside = inside::turn(&client, &inside, &mut known.inside, OffsetDateTime::now_utc()).await;
        if seen.inside.is_served && seen.inside.unapplied.is_none() {
            let read = addons::read(&context.client, tenant).await;
            seen.addons = Some(addons::turn(&client, read, &mut known.addons).await);
        }
        lock(&context.applied).insert(tenant.uid.clone(), known);
        let reserved = Reserved::of(cluster, tls.get("apiserver.crt").map(Vec::as_slice).unwrap_or_default());
        let name = format!("{}/{}", tenant.namespace, tenant.name);
        context.approvals.add(&tenant.uid, &name, &client, reserved);
    }
    facts.nodes = seen.inside.nodes;
    let conditions = seen.conditions();
    let is_ready = conditions::are_met(&conditions);
    facts.version = is_ready.then(|| cluster.kubernetes_version.to_string());
    let again = match is_ready {
        false => SOON,
        true if conditions.iter().any(|condition| condition.is_so != Some(true)) => ADDONS,
        true => REST,
    };
    Outcome { conditions, facts, again }
}

/// What is next of restoring a snapshot, and the Job that does.
async fn restoring(
    context: &Context,
    tenant: &Tenant,
    status: &Value,
    facts: &mut Facts,
    seen: &mut Seen,
) -> Result<(Next, Option<Value>), Trouble> {
    let refused = |error: &kube::Error| trouble::of_refusal(tenant, "the Job that restores a snapshot", error);
    let job = restore::job(&context.client, tenant, status).await.map_err(|error| refused(&error))?;
    let (wanted, restored) = (tenant.spec.restore_from.as_deref(), status["restoredFrom"].as_str());
    let next = restore::next(wanted, restored, job.as_ref());
    match next {
        Next::Forget | Next::Cancel => {
            restore::forget(&context.client, tenant).await.map_err(|error| refused(&error))?;
        }
        Next::Done => facts.restored = wanted.map(str::to_owned),
        Next::Failed => seen.unrestored = Some(restore::failed(tenant)),
        Next::Run | Next::Stop | Next::Wait => {}
    }
    if wanted.is_none() && restored.is_some_and(|file| !file.is_empty()) {
        facts.restored = Some(String::new());
    }
    Ok((next, job))
}

/// Has the snapshot restored once the tenant's pods have ended.
async fn stopped(
    context: &Context,
    tenant: &Tenant,
    (next, restore): (Next, Option<Value>),
    (seen, pods): (&Seen, &[Value]),
    job: impl Fn(&str) -> crate::base::error::Result<Option<Value>>,
    facts: Facts,
) -> Outcome {
    let refused = |error: &kube::Error| trouble::of_refusal(tenant, "the Job that restores a snapshot", error);
    let file = tenant.spec.restore_from.as_deref().unwrap_or_default();
    let mut restoring = match restore::left(pods).join(", ") {
        left if left.is_empty() => format!("the snapshot {file} is restored, and the tenant has no pods meanwhile"),
        left => format!("the tenant's pods end, so that the snapshot {file} can be restored: {left}"),
    };
    let done = match next {
        Next::Stop if restore::is_stopped(seen.workloads.values(), pods) => match job(file) {
            Ok(Some(job)) => restore::begin(&context.client, tenant, &job).await,
            Ok(None) => Ok(()),
            Err(error) => return Outcome::refused(Trouble { reason: "Failed", message: error.to_string() }, facts),
        },
        Next::Wait => {
            let job = restore.unwrap_or_default();
            let warnings = live::warnings(&context.client, &tenant.namespace).await.unwrap_or_default();
            if let Some(found) = trouble::find(tenant, restore::RESTORE, &job, pods, &warnings) {
                restoring = format!("{restoring}. It cannot begin: {}", found.message);
            }
            match restore::is_stuck(&job, pods, Timestamp::now()) {
                true => restore::give_up(&context.client, tenant).await,
                false => Ok(()),
            }
        }
        _ => Ok(()),
    };
    if let Err(error) = done {
        return Outcome::refused(refused(&error), facts);
    }
    let conditions = vec![
        Condition::yes("Accepted", "Accepted", "the spec is accepted"),
        Condition::no("EtcdReady", "Restoring", restoring),
    ];
    Outcome { conditions, facts, again: SOON }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keys of a tenant: those that are there, and what is missing or due of the certificates. Once a tenant has had a CA, it
/// never gets another one.
async fn hold_keys(context: &Context, tenant: &Tenant, cluster: &Cluster, status: &Value) -> Result<Tls, Trouble> {
    let name = keys::name(&tenant.name);
    let there = live::get(&context.client, "Secret", &tenant.namespace, &name).await;
    let there = there.map_err(|error| trouble::of_refusal(tenant, &format!("the Secret {name}"), &error))?;
    let existing = there.as_ref().map(|secret| keys::from_data(&secret["data"])).unwrap_or_default();
    if let Some(known) = status["caCertHash"].as_str()
        && keys::ca_hash(&existing).as_deref() != Some(known)
    {
        let message = format!(
            "the Secret {name} no longer has the CA {known}, by which nodes and clients know this tenant, and no other one is made. Restore the Secret from a backup"
        );
        return Err(Trouble { reason: "KeysLost", message });
    }
    let tls = keys::issued(cluster, &existing, OffsetDateTime::now_utc()).map_err(|error| {
        let message = format!("{error}. Restore the Secret {name} from a backup");
        Trouble { reason: "KeysUnfit", message }
    })?;
    let owners: Vec<&str> = there
        .iter()
        .flat_map(|secret| secret["metadata"]["ownerReferences"].as_array().into_iter().flatten())
        .filter_map(|owner| owner["uid"].as_str())
        .collect();
    if there.is_some() && !owners.is_empty() && !owners.contains(&tenant.uid.as_str()) {
        let message = format!(
            "the Secret {name} is that of another tenant of this name, and goes with it. To take its keys over, remove metadata.ownerReferences from it"
        );
        return Err(Trouble { reason: "KeysOfAnother", message });
    }
    // One that was restored from a backup is nobody's.
    if tls != existing || owners.is_empty() {
        let wanted = objects::key_secret(tenant, &tls);
        let written = put::keys(&context.client, there.as_ref(), &wanted).await;
        written.map_err(|error| trouble::of_refusal(tenant, &format!("the Secret {name}"), &error))?;
    }
    Ok(tls)
}

/// Brings all objects to what they shall be: what pods mount first. Controllers follow the API server to another version
/// once it is there.
async fn apply(
    context: &Context,
    object: &DynamicObject,
    tenant: &Tenant,
    wanted: &[Value],
) -> Result<(BTreeMap<&'static str, Value>, Option<Value>), Trouble> {
    let is_mounted = |object: &&Value| object["kind"] == "Secret" || object["kind"] == "ConfigMap";
    let controllers = ["controller-manager", "scheduler"].map(|name| format!("{}-{name}", tenant.name));
    let is_controller = |object: &&Value| {
        object["kind"] == "Deployment" && controllers.iter().any(|name| object["metadata"]["name"] == **name)
    };
    let first: Vec<&Value> = wanted.iter().filter(is_mounted).collect();
    let second: Vec<&Value> = wanted.iter().filter(|one| !is_mounted(one) && !is_controller(one)).collect();
    let third: Vec<&Value> = wanted.iter().filter(is_controller).collect();
    let (mut workloads, mut backup) = (BTreeMap::new(), None);
    let mut api_server = Value::Null;
    for batch in [first, second, third] {
        let puts = batch.into_iter().map(|wanted| {
            let waits = is_controller(&wanted) && !conditions::is_rolled_out(&api_server);
            async move { (wanted, put_unless(context, wanted, waits).await) }
        });
        let puts: Vec<_> = futures::stream::iter(puts.collect::<Vec<_>>()).buffered(CONCURRENT).collect().await;
        for (wanted, put) in puts {
            let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
            let kind = wanted["kind"].as_str().unwrap_or_default();
            let put = put.map_err(|error| trouble::of_refusal(tenant, &format!("the {kind} {name}"), &error))?;
            corrected(context, object, wanted, &put).await;
            let suffix = name.strip_prefix(&format!("{}-", tenant.name)).unwrap_or_default();
            let is_workload = kind == "Deployment" || kind == "StatefulSet";
            if let Some((name, _)) = WORKLOADS.iter().find(|(name, _)| is_workload && *name == suffix) {
                if *name == "apiserver" {
                    api_server = put.object.clone();
                }
                workloads.insert(*name, put.object);
            } else if kind == "CronJob" {
                backup = Some(put.object);
            }
        }
    }
    Ok((workloads, backup))
}

/// As [`put::put`]; where it waits, one that runs another image is left as it is.
async fn put_unless(context: &Context, wanted: &Value, waits: bool) -> Result<Put, kube::Error> {
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if waits {
        let there =
            live::get(&context.client, text("/kind"), text("/metadata/namespace"), text("/metadata/name")).await?;
        let image = |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        if let Some(there) = there.filter(|there| image(there) != image(wanted)) {
            return Ok(Put { object: there, why: None });
        }
    }
    put::put(&context.client, wanted).await
}

async fn look_for_trouble(context: &Context, tenant: &Tenant, seen: &mut Seen) {
    let pods = live::pods(&context.client, &tenant.namespace, &tenant.name).await.unwrap_or_default();
    let warnings = live::warnings(&context.client, &tenant.namespace).await.unwrap_or_default();
    for (name, component) in WORKLOADS {
        let workload = seen.workloads.get(name).cloned().unwrap_or_default();
        if conditions::is_rolled_out(&workload) {
            continue;
        }
        if let Some(found) = trouble::find(tenant, component, &workload, &pods, &warnings) {
            seen.troubles.insert(name, found);
        }
    }
}

/// Says so where somebody had changed an object.
async fn corrected(context: &Context, object: &DynamicObject, wanted: &Value, put: &Put) {
    if put.why != Some(Why::Drifted) {
        return;
    }
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let note = format!(
        "the {} {} was changed by somebody else, and is as this object has it again",
        text("/kind"),
        text("/metadata/name")
    );
    event(context, object, EventType::Warning, "Corrected", note).await;
}

async fn event(context: &Context, object: &DynamicObject, type_: EventType, reason: &str, note: String) {
    let (reason, action) = (reason.to_owned(), "Reconcile".to_owned());
    // As much as the API takes.
    let note = Some(note.chars().take(1000).collect());
    let event = Event { type_, reason, note, action, secondary: None };
    if let Err(error) = context.recorder.publish(&event, &object.object_ref(&resource())).await {
        tracing::debug!("an event cannot be written: {error}");
    }
}

/// Writes the status where it has changed, and an event where the tenant has become ready or is no longer.
async fn said(context: &Context, object: &DynamicObject, value: &Value, outcome: &Outcome) -> Result<(), kube::Error> {
    let before = &value["status"];
    let generation = object.metadata.generation.unwrap_or_default();
    let now = rfc3339(OffsetDateTime::now_utc());
    let after = conditions::status(before, generation, &outcome.conditions, &outcome.facts, &now);
    if after == *before {
        return Ok(());
    }
    let (name, namespace) = (object.metadata.name.clone().unwrap_or_default(), object.metadata.namespace.clone());
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &namespace.clone().unwrap_or_default(), &resource());
    let patch = Patch::Merge(json!({"status": after}));
    match api.patch_status(&name, &PatchParams::default(), &patch).await {
        Ok(_) => {}
        // It was deleted meanwhile.
        Err(error) if api::verdict(&error) == Verdict::Missing => return Ok(()),
        Err(error) => return Err(error),
    }
    let ready = |status: &Value| {
        let all = status["conditions"].as_array().into_iter().flatten();
        all.filter(|one| one["type"] == conditions::READY)
            .map(|one| (one["status"].clone(), one["reason"].clone(), one["message"].clone()))
            .next()
    };
    let (old, new) = (ready(before), ready(&after));
    if let Some((status, reason, message)) = new
        && old.map(|(status, reason, _)| (status, reason)) != Some((status.clone(), reason.clone()))
    {
        let (reason, message) = (reason.as_str().unwrap_or_default(), message.as_str().unwrap_or_default());
        let on_its_way = ["Starting", "RollingOut", "NoLeader", "NotServed", "Waiting", "Restoring"].contains(&reason);
        let kind = if status == "True" || on_its_way { EventType::Normal } else { EventType::Warning };
        tracing::info!(tenant = name, namespace = namespace.unwrap_or_default(), reason, "{message}");
        event(context, object, kind, reason, message.to_owned()).await;
    }
    Ok(())
}
