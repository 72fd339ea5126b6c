//! A snapshot takes the place of a tenant's data: its pods end, a Job restores the snapshot, and they come again. Its nodes
//! are not touched. What is next is decided purely.

use kube::api::{DeleteParams, PostParams, PropagationPolicy};
use kube::{Client, Error};
use serde_json::Value;

use super::live;
use super::tenant::Tenant;
use super::trouble::Trouble;
use crate::api::{self, Verdict};

/// Which snapshot a Job restores.
pub const FILE: &str = "hoist.dev/restores";

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

/// The Job, if there is one. Where nothing was ever said about snapshots, it is not asked for.
///
/// # Errors
/// The API server's word.
pub async fn job(client: &Client, tenant: &Tenant) -> Result<Option<Value>, Error> {
    match tenant.spec.backup {
        Some(_) => live::get(client, "Job", &tenant.namespace, &job_name(tenant)).await,
        None => Ok(None),
    }
}

/// Deletes it with its pod.
///
/// # Errors
/// The API server's word.
pub async fn forget(client: &Client, tenant: &Tenant) -> Result<(), Error> {
    deleted(client, tenant, "Job", &job_name(tenant)).await
}

/// Deletes the CronJob of snapshots that are asked for no longer.
///
/// # Errors
/// The API server's word.
pub async fn take_no_more(client: &Client, tenant: &Tenant) -> Result<(), Error> {
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
    let component = |pod: &Value| pod["metadata"]["labels"]["component"].as_str().unwrap_or_default().to_owned();
    pods.iter().any(|pod| component(pod).starts_with("kube-"))
}

/// Whether none of a tenant's pods is there any more but those of snapshots, and none comes.
pub fn is_stopped<'a>(workloads: impl IntoIterator<Item = &'a Value>, pods: &[Value]) -> bool {
    let none_comes = |workload: &Value| {
        let number = |pointer: &str| workload.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        number("/spec/replicas") == 0
            && number("/status/replicas") == 0
            && number("/status/observedGeneration") >= number("/metadata/generation")
    };
    let is_of_snapshots = |pod: &Value| {
        let component = &pod["metadata"]["labels"]["component"];
        component == "backup" || component == "restore"
    };
    workloads.into_iter().all(none_comes) && pods.iter().all(is_of_snapshots)
}

/// What is said where the Job has failed.
pub fn failed(tenant: &Tenant) -> Trouble {
    let (namespace, name) = (&tenant.namespace, job_name(tenant));
    let file = tenant.spec.restore_from.as_deref().unwrap_or_default();
    let logs = format!("`kubectl -n {namespace} logs job/{name} --all-containers` says why");
    let message = format!(
        "the snapshot {file} could not be restored, and the tenant runs on the data that it had. {logs}. To try again, take spec.restoreFrom out and name it anew"
    );
    Trouble { reason: "RestoreFailed", message }
}

/// The last snapshot that pods say they have taken.
pub fn last(pods: &[Value]) -> Option<String> {
    let taken = pods.iter().filter(|pod| pod["metadata"]["labels"]["component"] == "backup");
    let statuses = taken.flat_map(|pod| pod["status"]["containerStatuses"].as_array().into_iter().flatten());
    let ended = statuses.map(|status| &status["state"]["terminated"]).filter(|ended| ended["exitCode"] == 0);
    ended.filter_map(|ended| ended["message"].as_str().map(str::to_owned)).max()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let pod = |component: &str| json!({"metadata": {"labels": {"component": component}}});
        assert!(is_stopped([&down], &[pod("backup"), pod("restore")]));
        assert!(!is_stopped([&down], &[pod("etcd")]));
        assert!(has_askers(&[pod("etcd"), pod("kube-apiserver")]) && !has_askers(&[pod("etcd"), pod("backup")]));
        for (pointer, value) in [("/status/observedGeneration", json!(1)), ("/spec/replicas", json!(1))] {
            let mut not = down.clone();
            *not.pointer_mut(pointer).unwrap() = value;
            assert!(!is_stopped([&down, &not], &[]), "{pointer}");
        }
    }
}
