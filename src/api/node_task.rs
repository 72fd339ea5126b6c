//! A pod that does something once on one node, whatever else runs there, and what has become of it.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::observe::pod_view;
use super::{Verdict, failed, verdict};
use crate::base::error::{Error, Result};

/// What has become of such a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPod {
    /// Its node.
    pub node: String,
    /// What it waits for, while it has not ended.
    pub waits: Option<String>,
    /// Why it has failed, where it has.
    pub failed: Option<String>,
}

/// The pods in kube-system that have this label of the recommended ones (`app.kubernetes.io/name`).
///
/// # Errors
/// The API server's word.
pub async fn list(client: &Client, name: &str) -> Result<Vec<TaskPod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let params = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
    let listed = api.list(&params).await.map_err(|error| failed(format!("list the pods of {name}"), &error))?;
    Ok(listed.items.iter().filter_map(seen).collect())
}

fn seen(pod: &Pod) -> Option<TaskPod> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let reason = || {
        let said = last_words(pod).or_else(|| status.and_then(|status| status.message.clone()));
        said.unwrap_or_else(|| format!("the pod {} has failed, and says nothing", pod.name_any()))
    };
    let reason_of_wait = || {
        let view = pod_view(pod);
        if ["", "Running"].contains(&&*view.reason) { "its pod, which runs".to_owned() } else { view.reason }
    };
    Some(match phase {
        "Succeeded" => TaskPod { node, waits: None, failed: None },
        "Failed" => TaskPod { node, waits: None, failed: Some(reason()) },
        _ => TaskPod { node, waits: Some(reason_of_wait()), failed: None },
    })
}

/// What the container that has failed said last.
fn last_words(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = [&status.init_container_statuses, &status.container_statuses];
    let all: Vec<&ContainerStatus> = all.into_iter().flatten().flatten().collect();
    let ended = |status: &&ContainerStatus| {
        let ended = status.state.as_ref()?.terminated.as_ref()?;
        (ended.exit_code != 0).then(|| ended.message.clone())?
    };
    all.iter().find_map(ended).map(|said| said.trim().to_owned()).filter(|said| !said.is_empty())
}

/// Makes one, and says whether it has: there may be one of that name already, which somebody else has made.
///
/// # Errors
/// The API server's word.
pub async fn make(client: &Client, pod: Value) -> Result<bool> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let pod = serde_json::from_value(pod).map_err(|error| Error::failed("make a pod", error))?;
    match api.create(&PostParams::default(), &pod).await {
        Ok(_) => Ok(true),
        Err(error) if verdict(&error) == Verdict::Stale => Ok(false),
        Err(error) => Err(failed("make a pod", &error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: Value) -> Option<TaskPod> {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": []}, "status": status});
        seen(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_has_ended_well_or_says_why_not() {
        let node = || "n".to_owned();
        assert_eq!(pod(json!({"phase": "Succeeded"})), Some(TaskPod { node: node(), waits: None, failed: None }));
        let ended = json!({"name": "a", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": {"terminated": {"exitCode": 3, "message": "error: is newer\n"}}});
        let failed = pod(json!({"phase": "Failed", "containerStatuses": [ended]})).unwrap();
        assert_eq!(failed.failed.as_deref(), Some("error: is newer"));
        let silent = pod(json!({"phase": "Failed"})).unwrap();
        assert_eq!(silent.failed.as_deref(), Some("the pod p has failed, and says nothing"));
        assert!(pod(json!({"phase": "Pending"})).unwrap().waits.is_some());
    }
}
