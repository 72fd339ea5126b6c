//! What a deletion leaves: everything that a tenant owns goes with its object, but for the folder of its data on a node. A
//! finalizer holds the object until that is gone, too.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Error, Resource};
use minijinja::context;
use serde_json::{Value, json};

use super::apply::MEMBERS;
use super::tenant::Tenant;
use super::{NAMESPACE, TENANT_LABEL, live, resource, restore};
use crate::api::{self, Verdict};
use crate::base::yaml;
use crate::desired::template;

/// The finalizer.
const FINALIZER: &str = "hoist.dev/etcd-data";
const SOON: Duration = Duration::from_secs(1);
/// How long it may take: a node that is gone takes its disk along.
const LIMIT: Duration = Duration::from_secs(180);

/// What pods run that do hoist's own work for a tenant: delete its folder, take and restore snapshots.
#[derive(Debug, Clone)]
pub struct OwnImage {
    /// Its image.
    pub image: String,
    /// The image has no hoist: the node's own is mounted.
    pub mounts_binary: bool,
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// etcd is told to end, and what restores a snapshot.
    End,
    /// They are ending.
    Wait,
    /// The folder is deleted.
    Clean,
    /// It is gone.
    Release,
    /// It is not, and there is no more waiting.
    GiveUp,
}

/// Has the finalizer on the object of a tenant that has a folder.
///
/// # Errors
/// The API server's word.
pub async fn hold(client: &Client, tenant: &Tenant, object: &DynamicObject) -> Result<(), Error> {
    let finalizers = object.metadata.finalizers.clone().unwrap_or_default();
    if tenant.spec.etcd.local_path.is_none() || finalizers.iter().any(|one| one == FINALIZER) {
        return Ok(());
    }
    let mut all = finalizers;
    all.push(FINALIZER.into());
    finalizers_are(client, object, &all).await
}

async fn finalizers_are(client: &Client, object: &DynamicObject, all: &[String]) -> Result<(), Error> {
    let (name, namespace) = named(object);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource());
    // As it was read: somebody else may add one, too.
    let metadata = json!({"finalizers": all, "resourceVersion": object.metadata.resource_version});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    match api.patch_metadata(&name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(api::verdict(&error), Verdict::Missing | Verdict::Stale) => Ok(()),
        Err(error) => Err(error),
    }
}

fn named(object: &DynamicObject) -> (String, String) {
    (object.metadata.name.clone().unwrap_or_default(), object.metadata.namespace.clone().unwrap_or_default())
}

/// A turn for an object that is being deleted.
///
/// # Errors
/// The API server's word; it is tried again.
pub async fn turn(
    client: &Client,
    recorder: &Recorder,
    own: &OwnImage,
    object: &DynamicObject,
    value: &Value,
) -> Result<Action, Error> {
    let finalizers = object.metadata.finalizers.clone().unwrap_or_default();
    if !finalizers.iter().any(|one| one == FINALIZER) {
        return Ok(Action::await_change());
    }
    let others: Vec<_> = finalizers.into_iter().filter(|one| one != FINALIZER).collect();
    // Without keys it has never had data.
    let (Ok(tenant), Some(hash)) = (Tenant::read(value), value["status"]["caCertHash"].as_str()) else {
        finalizers_are(client, object, &others).await?;
        return Ok(Action::await_change());
    };
    let folder = tenant.folder(hash);
    let namespace = &tenant.namespace;
    let members = &MEMBERS[..tenant.members()];
    // Whoever has the data: etcd, and a Job that restores a snapshot.
    let mut has_owner = live::get(client, "Job", namespace, &restore::job_name(&tenant)).await?.is_some();
    for member in members {
        let set = format!("{}-{member}", tenant.name);
        has_owner |= live::get(client, "StatefulSet", namespace, &set).await?.is_some();
    }
    let pods = live::pods(client, namespace, &tenant.name).await?;
    let has_user = pods.iter().any(restore::has_data);
    let since = object.metadata.deletion_timestamp.as_ref().map(|time| Timestamp::now().duration_since(time.0));
    let waited = since.and_then(|since| Duration::try_from(since).ok()).unwrap_or_default();
    let mut cleaners = Vec::new();
    for number in 0..members.len() {
        let name = cleaner(&tenant, number);
        let pod = live::get(client, "Pod", NAMESPACE, &name).await?;
        cleaners.push((name, pod.map(|pod| pod["status"]["phase"].as_str().unwrap_or_default().to_owned())));
    }
    let is_pending = |phase: &Option<String>| phase.as_deref() == Some("Pending");
    let warnings = match cleaners.iter().any(|(_, phase)| is_pending(phase)) {
        true => live::warnings(client, NAMESPACE).await?,
        false => Vec::new(),
    };
    // Nothing can be deleted where the folder of all is not: the tenant never ran, or its disk is not mounted.
    let next = |(name, phase): &(String, Option<String>)| {
        let is_nowhere = is_pending(phase) && is_nowhere(&warnings, name);
        next(has_owner, has_user, phase.as_deref(), waited, is_nowhere)
    };
    let nexts: Vec<_> = cleaners.iter().map(next).collect();
    if nexts.contains(&Next::End) {
        restore::forget(client, &tenant).await?;
        for member in members {
            let background = Some(PropagationPolicy::Background);
            let params = DeleteParams { propagation_policy: background, ..DeleteParams::default() };
            let set = format!("{}-{member}", tenant.name);
            gone(live::api(client, "StatefulSet", namespace).delete(&set, &params).await)?;
        }
    }
    for (number, _) in nexts.iter().enumerate().filter(|(_, next)| **next == Next::Clean) {
        let pod = pod_of(&tenant, own, number, &folder);
        let object = serde_json::from_value(pod).map_err(Error::SerdeError)?;
        live::api(client, "Pod", NAMESPACE).create(&PostParams::default(), &object).await?;
    }
    // The object goes once all folders have, or cannot.
    if nexts.iter().all(|next| [Next::Release, Next::GiveUp].contains(next)) {
        for (number, next) in nexts.iter().enumerate() {
            if *next == Next::GiveUp
                && let Some(local) = &tenant.spec.etcd.local_path
            {
                let (node, path) = (local.node(number), &local.path);
                let note =
                    format!("the folder {path}/{folder} on the node {node} could not be deleted: delete it there");
                left(recorder, object, note).await;
            }
            let now = DeleteParams::default().grace_period(0);
            gone(live::api(client, "Pod", NAMESPACE).delete(&cleaners[number].0, &now).await)?;
        }
        finalizers_are(client, object, &others).await?;
    }
    Ok(Action::requeue(SOON))
}

/// Whether the node has told of the pod `cleaner` that there is no such folder.
fn is_nowhere(warnings: &[Value], cleaner: &str) -> bool {
    let says =
        |event: &Value| event["message"].as_str().is_some_and(|text| text.contains("hostPath type check failed"));
    warnings.iter().any(|event| event["involvedObject"]["name"] == cleaner && says(event))
}

fn next(has_owner: bool, has_user: bool, cleaner: Option<&str>, waited: Duration, is_nowhere: bool) -> Next {
    match cleaner {
        Some("Succeeded") => Next::Release,
        _ if waited > LIMIT || is_nowhere => Next::GiveUp,
        // Its limit of time says when it has failed for good.
        Some(_) => Next::Wait,
        None if has_owner => Next::End,
        None if has_user => Next::Wait,
        None => Next::Clean,
    }
}

fn gone<T>(deleted: Result<T, Error>) -> Result<(), Error> {
    match deleted {
        Ok(_) => Ok(()),
        Err(error) if api::verdict(&error) == Verdict::Missing => Ok(()),
        Err(error) => Err(error),
    }
}

async fn left(recorder: &Recorder, object: &DynamicObject, note: String) {
    tracing::warn!("{note}");
    let (reason, action) = ("DataLeft".to_owned(), "Delete".to_owned());
    let event = Event { type_: EventType::Warning, reason, note: Some(note), action, secondary: None };
    // It is in the log, too.
    let _ = recorder.publish(&event, &object.object_ref(&resource())).await;
}

/// What the pod is called that deletes the folder of a member.
fn cleaner(tenant: &Tenant, number: usize) -> String {
    match number {
        0 => format!("{}-clean", tenant.name),
        _ => format!("{}-clean-{number}", tenant.name),
    }
}

/// The pod that deletes a member's folder, on its node.
fn pod_of(tenant: &Tenant, own: &OwnImage, number: usize, folder: &str) -> Value {
    let local = tenant.spec.etcd.local_path.as_ref();
    let values = context! {
        image => &own.image,
        mounts_binary => own.mounts_binary,
        name => cleaner(tenant, number),
        node => local.map(|local| local.node(number)),
        path => local.map(|local| &local.path),
        folder => folder,
    };
    let source = template::asset("hosting/clean.yaml").unwrap_or_default();
    let text = template::render("hosting/clean.yaml", source, &Default::default(), &values).unwrap_or_default();
    let documents = yaml::documents("hosting/clean.yaml", &text).unwrap_or_default();
    let mut pod = documents.into_iter().next().map(|document| document.value).unwrap_or_default();
    pod["metadata"]["namespace"] = NAMESPACE.into();
    pod["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "hoist", TENANT_LABEL: tenant.name});
    pod
}

#[cfg(test)]
mod tests {
    use super::super::tenant::tests::{object, of_three};
    use super::*;

    #[test]
    fn etcd_ends_before_its_folder_is_deleted_and_a_lost_node_is_not_waited_for_for_ever() {
        let next = |set, member, cleaner, seconds| next(set, member, cleaner, Duration::from_secs(seconds), false);
        assert_eq!(next(true, true, None, 0), Next::End);
        assert_eq!(next(false, true, None, 5), Next::Wait);
        assert_eq!(next(false, false, None, 6), Next::Clean);
        assert_eq!(next(false, false, Some("Pending"), 7), Next::Wait);
        assert_eq!(next(false, false, Some("Failed"), 7), Next::Wait);
        assert_eq!(next(false, false, Some("Succeeded"), 8), Next::Release);
        assert_eq!(next(false, true, None, 181), Next::GiveUp);
        assert_eq!(super::next(false, false, Some("Pending"), Duration::from_secs(9), true), Next::GiveUp);
        let event = json!({"involvedObject": {"name": "a-clean"}, "message":
            "MountVolume.SetUp failed for volume \"data\" : hostPath type check failed: /srv/x is not a directory"});
        assert!(is_nowhere(std::slice::from_ref(&event), "a-clean") && !is_nowhere(&[event], "b-clean"));
    }

    #[test]
    fn the_folder_of_this_tenant_alone_is_deleted_on_its_node() {
        let tenant = Tenant::read(&object(&json!({}))).unwrap();
        let own = OwnImage { image: "r.io/hoist:1".into(), mounts_binary: false };
        let pod = pod_of(&tenant, &own, 0, "n.a.0a1b2c3d");
        assert_eq!(pod["spec"]["nodeName"], "w1");
        let command = &pod["spec"]["containers"][0]["command"];
        assert_eq!(command, &json!(["/hoist", "hosting", "clean", "--root=/data", "--folder=n.a.0a1b2c3d"]));
        assert_eq!(
            pod["spec"]["volumes"],
            json!([{"name": "data", "hostPath": {"path": "/srv/tenants", "type": "Directory"}}])
        );
        let (three, _) = of_three(&json!({}));
        let on = |number: usize| {
            let pod = pod_of(&three, &own, number, "x");
            ["/metadata/name", "/spec/nodeName"].map(|at| pod.pointer(at).unwrap().as_str().unwrap().to_owned())
        };
        assert_eq!([on(0), on(2)], [["a-clean", "w1"], ["a-clean-2", "w3"]]);
    }
}
