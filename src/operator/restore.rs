//! A snapshot takes the place of a tenant's data: its pods end, a Job restores the snapshot, and they come again. Its nodes
//! are not touched. What is next is decided purely.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Client, Error};
use serde_json::{Value, json};

use super::conditions::{Condition, Facts, Seen};
use super::tenant::Tenant;
use super::trouble::{self, Trouble};
use super::{conditions, live, objects, put};
use crate::api::{self, Verdict};

/// Which snapshot a Job restores.
pub const FILE: &str = "hoist.dev/restores";
/// The label of the Job's pod.
pub const RESTORE: &str = "restore";
/// How long the tenant waits for a pod that does not begin.
const PENDING: Duration = Duration::from_secs(120);

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing is to be restored, or it has been: the tenant runs.
    Run,
    /// The same, and a Job that has ended is deleted.
    Forget,
    /// A Job that is at work and no longer wanted is deleted; until it is gone, no pod of the tenant has the data.
    Cancel,
    /// The tenant's pods end; once they have, the Job is made.
    Stop,
    /// The Job is at work.
    Wait,
    /// It has restored the snapshot: the tenant runs.
    Done,
    /// It has failed, and has changed nothing: the tenant runs on its old data.
    Failed,
}

/// What is next where the snapshot `wanted` is to be restored, `restored` was, and `job` is there.
pub fn next(wanted: Option<&str>, restored: Option<&str>, job: Option<&Value>) -> Next {
    let is_to_do = wanted.is_some() && wanted != restored;
    let Some(job) = job else { return if is_to_do { Next::Stop } else { Next::Run } };
    let is = |kind: &str| {
        let all = job["status"]["conditions"].as_array().into_iter().flatten();
        all.filter(|one| one["type"] == kind).any(|one| one["status"] == "True")
    };
    let of_this = job["metadata"]["annotations"][FILE].as_str() == wanted;
    match () {
        () if !(is_to_do && of_this || is("Complete") || is("Failed")) => Next::Cancel,
        () if !is_to_do || !of_this => Next::Forget,
        () if is("Complete") => Next::Done,
        () if is("Failed") => Next::Failed,
        () => Next::Wait,
    }
}

/// The name of the Job.
pub fn job_name(tenant: &Tenant) -> String {
    format!("{}-restore", tenant.name)
}

/// The Job, if there is one. Where nothing was ever said about snapshots, by the spec or when `status` was written, it is not asked
/// for.
///
/// # Errors
/// The API server's word.
pub async fn job(client: &Client, tenant: &Tenant, status: &Value) -> Result<Option<Value>, Error> {
    let has_restored = status["restoredFrom"].as_str().is_some_and(|file| !file.is_empty());
    match tenant.spec.backup.is_some() || has_restored || conditions::asked_for_snapshots(status) {
        true => live::get(client, "Job", &tenant.namespace, &job_name(tenant)).await,
        false => Ok(None),
    }
}

/// Deletes it with its pod.
///
/// # Errors
/// The API server's word.
pub async fn forget(client: &Client, tenant: &Tenant) -> Result<(), Error> {
    deleted(client, tenant, "Job", &job_name(tenant)).await
}

/// Has the Job fail now: its pod cannot run, and the tenant waits for it. What it has not begun, it has not changed.
///
/// # Errors
/// The API server's word.
pub async fn give_up(client: &Client, tenant: &Tenant) -> Result<(), Error> {
    let soon = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 1}}));
    let api = live::api(client, "Job", &tenant.namespace);
    api.patch(&job_name(tenant), &PatchParams::default(), &soon).await.map(drop)
}

/// Whether the Job's pod has not begun after so long that nobody should wait for it.
pub fn is_stuck(job: &Value, pods: &[Value], now: Timestamp) -> bool {
    let made = job["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let age = made.and_then(|made| Duration::try_from(now.duration_since(made)).ok()).unwrap_or_default();
    let has_begun = |pod: &Value| {
        let all = ["initContainerStatuses", "containerStatuses"].map(|field| pod["status"][field].as_array());
        all.into_iter().flatten().flatten().any(|one| one["state"]["waiting"].is_null() && !one["state"].is_null())
    };
    age > PENDING && !pods.iter().filter(|pod| component(pod) == RESTORE).any(has_begun)
}

/// Deletes the CronJob of snapshots that are asked for no longer, and what its pods had to be let in by etcd.
///
/// # Errors
/// The API server's word.
pub async fn take_no_more(client: &Client, tenant: &Tenant) -> Result<(), Error> {
    put::put(client, &objects::no_snapshots(tenant)).await?;
    deleted(client, tenant, "CronJob", &format!("{}-backup", tenant.name)).await
}

async fn deleted(client: &Client, tenant: &Tenant, kind: &str, name: &str) -> Result<(), Error> {
    let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    match live::api(client, kind, &tenant.namespace).delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(error) if api::verdict(&error) == Verdict::Missing => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the Job.
///
/// # Errors
/// The API server's word.
pub async fn begin(client: &Client, tenant: &Tenant, job: &Value) -> Result<(), Error> {
    let object = serde_json::from_value(job.clone()).map_err(Error::SerdeError)?;
    live::api(client, "Job", &tenant.namespace).create(&PostParams::default(), &object).await.map(drop)
}

/// Whether a pod is there that asks etcd, or asks those that do.
pub fn has_askers(pods: &[Value]) -> bool {
    pods.iter().any(|pod| component(pod).starts_with("kube-") && !has_ended(pod))
}

/// The tenant's pods that have not ended, but for those of snapshots.
pub fn left(pods: &[Value]) -> Vec<&str> {
    let is_of_snapshots = |pod: &Value| ["backup", RESTORE].contains(&component(pod));
    let left = pods.iter().filter(|pod| !is_of_snapshots(pod) && !has_ended(pod));
    left.filter_map(|pod| pod["metadata"]["name"].as_str()).collect()
}

/// Whether none of a tenant's pods runs any more but those of snapshots, and none comes.
pub fn is_stopped<'a>(workloads: impl IntoIterator<Item = &'a Value>, pods: &[Value]) -> bool {
    let none_comes = |workload: &Value| {
        let number = |pointer: &str| workload.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        number("/spec/replicas") == 0
            && number("/status/replicas") == 0
            && number("/status/observedGeneration") >= number("/metadata/generation")
    };
    workloads.into_iter().all(none_comes) && left(pods).is_empty()
}

/// Whether a pod may still write into the tenant's data: etcd's, and the Job's.
pub fn has_data(pod: &Value) -> bool {
    ["etcd", RESTORE].contains(&component(pod)) && !has_ended(pod)
}

fn component(pod: &Value) -> &str {
    pod["metadata"]["labels"]["component"].as_str().unwrap_or_default()
}

/// Whether all its containers have ended for good. Such a pod stays where it was evicted, say, until somebody deletes it.
fn has_ended(pod: &Value) -> bool {
    pod["status"]["phase"] == "Failed" || pod["status"]["phase"] == "Succeeded"
}

/// What is said where the Job has failed.
pub fn failed(tenant: &Tenant) -> Trouble {
    let (namespace, name) = (&tenant.namespace, job_name(tenant));
    let file = tenant.spec.restore_from.as_deref().unwrap_or_default();
    let logs = format!(
        "`kubectl -n {namespace} logs job/{name} --all-containers` says why, or `kubectl -n {namespace} describe job {name}` where no pod ran"
    );
    let message = format!(
        "the snapshot {file} could not be restored, and the tenant runs on the data that it had. {logs}. To try again, take spec.restoreFrom out and name it anew"
    );
    Trouble { reason: "RestoreFailed", message }
}

/// What is next of restoring a snapshot, and the Job that does.
///
/// # Errors
/// The API server's word.
pub async fn restoring(
    client: &Client,
    tenant: &Tenant,
    status: &Value,
    facts: &mut Facts,
    seen: &mut Seen,
) -> Result<(Next, Option<Value>), Trouble> {
    let refused = |error: &kube::Error| trouble::of_refusal(tenant, "the Job that restores a snapshot", error);
    let job = job(client, tenant, status).await.map_err(|error| refused(&error))?;
    let (wanted, restored) = (tenant.spec.restore_from.as_deref(), status["restoredFrom"].as_str());
    let next = next(wanted, restored, job.as_ref());
    match next {
        Next::Forget | Next::Cancel => {
            forget(client, tenant).await.map_err(|error| refused(&error))?;
        }
        Next::Done => facts.restored = wanted.map(str::to_owned),
        Next::Failed => seen.unrestored = Some(failed(tenant)),
        Next::Run | Next::Stop | Next::Wait => {}
    }
    if wanted.is_none() && restored.is_some_and(|file| !file.is_empty()) {
        facts.restored = Some(String::new());
    }
    Ok((next, job))
}

/// Has the snapshot restored once the tenant's pods have ended.
///
/// # Errors
/// The API server's word; a template that does not fit (a bug in hoist).
pub async fn stopped(
    client: &Client,
    tenant: &Tenant,
    (next, restore): (Next, Option<Value>),
    (seen, pods): (&Seen, &[Value]),
    job: impl Fn(&str) -> crate::base::error::Result<Option<Value>>,
) -> Result<Vec<Condition>, Trouble> {
    let refused = |error: &kube::Error| trouble::of_refusal(tenant, "the Job that restores a snapshot", error);
    let file = tenant.spec.restore_from.as_deref().unwrap_or_default();
    let mut restoring = match left(pods).join(", ") {
        left if left.is_empty() => format!("the snapshot {file} is restored, and the tenant has no pods meanwhile"),
        left => format!("the tenant's pods end, so that the snapshot {file} can be restored: {left}"),
    };
    let done = match next {
        Next::Stop if is_stopped(seen.workloads.values(), pods) => match job(file) {
            Ok(Some(job)) => begin(client, tenant, &job).await,
            Ok(None) => Ok(()),
            Err(error) => return Err(Trouble { reason: "Failed", message: error.to_string() }),
        },
        Next::Wait => {
            let job = restore.unwrap_or_default();
            let warnings = live::warnings(client, &tenant.namespace).await.unwrap_or_default();
            if let Some(found) = trouble::find(tenant, RESTORE, &job, pods, &warnings) {
                restoring = format!("{restoring}. It cannot begin: {}", found.message);
            }
            match is_stuck(&job, pods, Timestamp::now()) {
                true => give_up(client, tenant).await,
                false => Ok(()),
            }
        }
        _ => Ok(()),
    };
    done.map_err(|error| refused(&error))?;
    Ok(vec![
        Condition::yes("Accepted", "Accepted", "the spec is accepted"),
        Condition::no("EtcdReady", "Restoring", restoring),
    ])
}

/// The last snapshot that pods say they have taken.
pub fn last(pods: &[Value]) -> Option<String> {
    let taken = pods.iter().filter(|pod| component(pod) == "backup");
    let statuses = taken.flat_map(|pod| pod["status"]["containerStatuses"].as_array().into_iter().flatten());
    let ended = statuses.map(|status| &status["state"]["terminated"]).filter(|ended| ended["exitCode"] == 0);
    ended.filter_map(|ended| ended["message"].as_str().map(str::to_owned)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(file: &str, condition: &str) -> Value {
        json!({"metadata": {"annotations": {FILE: file}}, "status": {"conditions": [{"type": condition, "status": "True"}]}})
    }

    #[test]
    fn a_snapshot_is_restored_once_and_the_job_is_forgotten_when_that_is_known() {
        let (x, running) = (Some("x"), json!({"metadata": {"annotations": {FILE: "x"}}}));
        assert_eq!(next(None, None, None), Next::Run);
        assert_eq!(next(x, None, None), Next::Stop);
        assert_eq!(next(x, None, Some(&running)), Next::Wait);
        assert_eq!(next(x, None, Some(&job("x", "Complete"))), Next::Done);
        assert_eq!(next(x, None, Some(&job("x", "SuccessCriteriaMet"))), Next::Wait);
        assert_eq!(next(x, x, Some(&job("x", "Complete"))), Next::Forget);
        assert_eq!(next(x, x, None), Next::Run);
        assert_eq!(next(x, None, Some(&job("x", "Failed"))), Next::Failed);
        assert_eq!(next(None, None, Some(&job("x", "Failed"))), Next::Forget);
        assert_eq!(next(Some("y"), x, Some(&job("x", "Complete"))), Next::Forget, "one that is left over");
        assert_eq!(next(Some("y"), x, None), Next::Stop);
        assert_eq!(next(Some("y"), None, Some(&running)), Next::Cancel, "two must not have the data at once");
        assert_eq!(next(None, None, Some(&running)), Next::Cancel);
    }

    #[test]
    fn the_job_comes_when_no_pod_is_left_and_none_comes() {
        let down = json!({"metadata": {"generation": 2}, "spec": {"replicas": 0}, "status": {"observedGeneration": 2}});
        let pod = |component: &str| json!({"metadata": {"name": component, "labels": {"component": component}}});
        assert!(is_stopped([&down], &[pod("backup"), pod("restore")]));
        assert!(!is_stopped([&down], &[pod("etcd")]));
        assert!(has_askers(&[pod("etcd"), pod("kube-apiserver")]) && !has_askers(&[pod("etcd"), pod("backup")]));
        let mut evicted = pod("kube-apiserver");
        evicted["status"]["phase"] = "Failed".into();
        assert!(is_stopped([&down], &[evicted.clone()]) && !has_askers(&[evicted]), "nobody deletes such a pod");
        assert_eq!(left(&[pod("etcd"), pod("backup")]), ["etcd"]);
        for (pointer, value) in [("/status/observedGeneration", json!(1)), ("/spec/replicas", json!(1))] {
            let mut not = down.clone();
            *not.pointer_mut(pointer).unwrap() = value;
            assert!(!is_stopped([&down, &not], &[]), "{pointer}");
        }
    }

    #[test]
    fn a_job_whose_pod_does_not_begin_is_not_waited_for() {
        let job = json!({"metadata": {"creationTimestamp": "2026-07-01T12:00:00Z"}});
        let pod = |state: Value| json!({"metadata": {"labels": {"component": RESTORE}}, "status": {"initContainerStatuses": [{"state": state}]}});
        let waits = pod(json!({"waiting": {"reason": "ContainerCreating"}}));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (soon, late) = (at("2026-07-01T12:02:00Z"), at("2026-07-01T12:02:01Z"));
        assert!(!is_stuck(&job, &[], soon) && is_stuck(&job, &[], late));
        assert!(
            !is_stuck(&job, std::slice::from_ref(&waits), soon) && is_stuck(&job, std::slice::from_ref(&waits), late)
        );
        assert!(!is_stuck(&job, &[pod(json!({"running": {}}))], late));
        assert!(
            !is_stuck(&job, &[waits, pod(json!({"terminated": {"exitCode": 1}}))], late),
            "a try that failed has run"
        );
    }
}
