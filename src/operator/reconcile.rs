//! One turn for one tenant: looks, decides, acts, and says in the status what came of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{EventType, Recorder};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::apply::{Acts, MEMBERS, corrected, event, workloads_of};
use super::approvals::Approvals;
use super::conditions::{self, Condition, Facts, Seen};
use super::delete::{self, OwnImage};
use super::inside::{self, Applied};
use super::objects::{self, Desired};
use super::put;
use super::restore::{self, Next};
use super::tenant::{Addresses, Tenant};
use super::trouble::{self, Trouble};
use super::upgrade::{self, Observed, Plan};
use super::{addons, apply, keys, live, members, resource};
use crate::api::approve::Reserved;
use crate::api::{self, Verdict};
use crate::base::error::Finding;
use crate::base::time::rfc3339;
use crate::desired::assets::Manifest;
use crate::desired::config::{Cluster, Version};
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

impl Context {
    fn acts<'a>(&'a self, object: &'a DynamicObject) -> Acts<'a> {
        Acts { client: &self.client, recorder: &self.recorder, object }
    }
}

/// What was applied last in a tenant.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What each tenant has.
    inside: Option<Applied>,
    /// Its add-ons.
    addons: Option<Applied>,
    /// The version that is committed.
    committed: Option<Version>,
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
        corrected(context.acts(object), &wanted, &put).await;
        there.insert(name, put.object);
    }
    let service = |what: &str| there.get(&format!("{}-{what}", tenant.name)).cloned().unwrap_or_default();
    let members: Vec<_> = MEMBERS.iter().take(tenant.members()).map(|member| service(member)).collect();
    let at = objects::addresses(tenant, &service("apiserver"), &members).ok_or_else(|| {
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
    let (mut objects, plan) = match versions(context, value, tenant, at, cluster, &tls).await {
        Ok(planned) => planned,
        Err(trouble) => return Outcome::refused(trouble, facts),
    };
    facts.committed = Some(plan.committed().to_string());
    let snapshots = match objects::snapshots(tenant, cluster, at, &tls, &context.own) {
        Ok(snapshots) => snapshots,
        Err(error) => return Outcome::refused(unfit(tenant, &error), facts),
    };
    objects.extend(snapshots);
    let mut seen = Seen::default();
    let (next, restore) =
        match restore::restoring(&context.client, tenant, &value["status"], &mut facts, &mut seen).await {
            Ok(next) => next,
            Err(trouble) => return Outcome::refused(trouble, facts),
        };
    let has_stopped = matches!(next, Next::Stop | Next::Wait | Next::Cancel);
    if has_stopped || next == Next::Done {
        // What was applied is not in the data that was restored.
        if let Some(known) = lock(&context.applied).get_mut(&tenant.uid) {
            (known.inside, known.addons) = (None, None);
        }
    }
    let mut pods = Vec::new();
    if has_stopped {
        pods = match live::pods(&context.client, &tenant.namespace, &tenant.name).await {
            Ok(pods) => pods,
            Err(error) => return Outcome::refused(trouble::of_refusal(tenant, "its pods", &error), facts),
        };
        objects::stop(&mut objects, restore::has_askers(&pods));
    }
    let held = members::hold(tenant, &mut objects, &plan.there, at, &tls).await;
    match apply::apply(context.acts(object), tenant, &objects).await {
        Ok((workloads, backup)) => (seen.workloads, seen.backup) = (workloads, backup),
        Err(trouble) => return Outcome::refused(trouble, facts),
    }
    seen.workloads.extend(held.workloads);
    seen.held = held.waits;
    if has_stopped {
        let job =
            |file: &str| objects::restoring(tenant, cluster, at, &tls, &context.own, file, OffsetDateTime::now_utc());
        let told = restore::stopped(&context.client, tenant, (next, restore), (&seen, &pods), job).await;
        return match told {
            Ok(conditions) => Outcome { conditions, facts, again: SOON },
            Err(trouble) => Outcome::refused(trouble, facts),
        };
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
    if workloads_of(tenant).any(|(name, _)| !seen.is_rolled_out(name)) {
        look_for_trouble(context, tenant, &mut seen).await;
    }
    seen.upgrade = Some(plan.said());
    if seen.serves("apiserver")
        && let Ok(client) = api::connect(&plan.kubeconfig, at.api).await
    {
        let mut known = lock(&context.applied).get(&tenant.uid).cloned().unwrap_or_default();
        seen.inside = inside::turn(&client, &plan.inside, &mut known.inside, OffsetDateTime::now_utc()).await;
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

fn unfit(tenant: &Tenant, error: &crate::base::error::Error) -> Trouble {
    let message = format!("{error}. The Secret {} is not as the operator made it", keys::name(&tenant.name));
    Trouble { reason: "KeysUnfit", message }
}

/// The objects of a tenant whose parts may be of two versions, and what is next of its upgrade.
async fn versions(
    context: &Context,
    value: &Value,
    tenant: &Tenant,
    at: &Addresses,
    cluster: &Cluster,
    tls: &Tls,
) -> Result<(Vec<Value>, Planned), Trouble> {
    let there = apply::workloads(&context.client, tenant).await?;
    let wanted = cluster.kubernetes_version;
    let known = lock(&context.applied).get(&tenant.uid).and_then(|known| known.committed);
    // What was read may be older than what this operator has written.
    let committed = upgrade::committed_of(&value["status"], &there, wanted);
    let committed = known.map_or(committed, |known| known.max(committed));
    upgrade::refused(value, committed, wanted)?;
    let desired = |version| {
        let tenant = tenant.of_version(version);
        let cluster = tenant.cluster(at).map_err(|findings| upgrade::unknown(version, &findings))?;
        objects::desired(&tenant, &cluster, at, tls).map_err(|error| unfit(&tenant, &error))
    };
    let Desired { objects, inside, kubeconfig } = desired(wanted)?;
    let tried = upgrade::Tried { tenant, at, kubeconfig: &kubeconfig };
    let done = value["status"]["version"].as_str().and_then(Version::read);
    let seen = upgrade::look(&context.client, &tried, &there, (committed, wanted, done)).await;
    let seen = seen.map_err(|error| trouble::of_refusal(tenant, "its pods", &error))?;
    let plan = upgrade::decide(&seen);
    let mut shaped = Vec::new();
    for object in objects {
        let Some((name, component)) = apply::workload(tenant, &object) else {
            shaped.push(object);
            continue;
        };
        let shape = plan.shape(name);
        let of_version = match shape.version == wanted {
            true => Some(object),
            false => {
                let others = desired(shape.version)?.objects;
                others.into_iter().find(|other| apply::workload(tenant, other).is_some_and(|(of, _)| of == name))
            }
        };
        shaped.extend(of_version.map(|workload| upgrade::shaped(workload, component, shape)));
    }
    let inside = if plan.inside == wanted { inside } else { desired(plan.inside)?.inside };
    Ok((shaped, Planned { plan, seen, there, inside, kubeconfig }))
}

/// What is next of a tenant's upgrade, with what is in the tenant meanwhile.
struct Planned {
    plan: Plan,
    seen: Observed,
    /// The workloads as they were before this turn.
    there: BTreeMap<&'static str, Value>,
    inside: Vec<Manifest>,
    kubeconfig: String,
}

impl Planned {
    /// What is committed at the end of this turn.
    fn committed(&self) -> Version {
        if self.plan.commits { self.seen.wanted } else { self.seen.committed }
    }

    fn said(&self) -> Condition {
        upgrade::condition(&self.seen, &self.plan)
    }
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

async fn look_for_trouble(context: &Context, tenant: &Tenant, seen: &mut Seen) {
    let pods = live::pods(&context.client, &tenant.namespace, &tenant.name).await.unwrap_or_default();
    let warnings = live::warnings(&context.client, &tenant.namespace).await.unwrap_or_default();
    for (name, component) in workloads_of(tenant) {
        let workload = seen.workloads.get(name).cloned().unwrap_or_default();
        if conditions::is_rolled_out(&workload) {
            continue;
        }
        // A member of several has trouble of its own.
        let of_member = format!("{}-{name}-0", tenant.name);
        let is_its = |pod: &&Value| !MEMBERS.contains(&name) || pod["metadata"]["name"] == *of_member;
        let pods: Vec<Value> = pods.iter().filter(is_its).cloned().collect();
        if let Some(found) = trouble::find(tenant, component, &workload, &pods, &warnings) {
            seen.troubles.insert(name, found);
        }
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
        Ok(_) => {
            let uid = object.metadata.uid.clone().unwrap_or_default();
            let committed = after["committedVersion"].as_str().and_then(Version::read);
            lock(&context.applied).entry(uid).or_default().committed = committed;
        }
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
        let on_its_way = conditions::ON_ITS_WAY.contains(&reason);
        let kind = if status == "True" || on_its_way { EventType::Normal } else { EventType::Warning };
        tracing::info!(tenant = name, namespace = namespace.unwrap_or_default(), reason, "{message}");
        event(context.acts(object), kind, reason, message.to_owned()).await;
    }
    Ok(())
}
