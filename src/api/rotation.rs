//! What is asked and changed in the cluster while keys are rotated: who has read which file, rollouts, Secrets written anew.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::controllers::pods_of;
use super::{FIELD_MANAGER, failed, is_not_found, page, refused_or_failed, self_hosted};
use crate::base::error::{Error, Result};
use crate::base::time::rfc3339;

/// The metric of an API server with the checksum of the EncryptionConfiguration that it has read.
const ENCRYPTION_METRIC: &str = "apiserver_encryption_config_controller_last_config_info{";
/// The component that is one on each controller.
const API_SERVER: &str = "kube-apiserver";
/// The annotation with the CAs by which it trusts etcd.
const TRUSTS: &str = "hoist/etcd-cas";
/// As `kubectl rollout restart` has it.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// A component's workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its command with its flags.
    pub command: Vec<String>,
    /// What is missing until all pods are as the workload says, and ready.
    pub rollout: Option<String>,
}

/// That of `component`, as it is now.
///
/// # Errors
/// The API server's word; there is none.
pub async fn workload(client: &Client, component: &str) -> Result<Workload> {
    let kind = self_hosted::kind_of(component);
    let found = self_hosted::workload(client, kind, component).await?;
    let found = found.ok_or_else(|| Error::failed(format!("read the {kind} {component}"), "there is none"))?;
    let containers = found["spec"]["template"]["spec"]["containers"].as_array();
    let container = containers.into_iter().flatten().find(|container| container["name"] == component);
    let words = |key: &str| container.and_then(|container| container[key].as_array()).into_iter().flatten();
    let command = words("command").chain(words("args")).filter_map(|word| word.as_str().map(str::to_owned)).collect();
    let rollout = missing(kind, &found).map(|text| format!("the {kind} {component} {text}"));
    Ok(Workload { command, rollout })
}

impl Workload {
    /// The value of a flag: the last counts.
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags(name).pop()
    }

    /// All values of a flag.
    pub fn flags(&self, name: &str) -> Vec<&str> {
        let value = |arg: &'_ str| arg.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=').map(str::len);
        self.command.iter().filter_map(|arg| value(arg).map(|len| &arg[arg.len() - len..])).collect()
    }
}

fn missing(kind: &str, found: &Value) -> Option<String> {
    let (spec, status) = (&found["spec"], &found["status"]);
    let number = |key: &str| status[key].as_i64().unwrap_or_default();
    let (all, updated, ready, total) = match kind {
        "DaemonSet" => {
            let all = number("desiredNumberScheduled");
            (all, number("updatedNumberScheduled"), number("numberReady"), all)
        }
        _ => (
            spec["replicas"].as_i64().unwrap_or(1),
            number("updatedReplicas"),
            number("availableReplicas"),
            number("replicas"),
        ),
    };
    match () {
        () if status["observedGeneration"] != found["metadata"]["generation"] => {
            Some("is not rolled out: the controller manager has yet to see it".into())
        }
        () if updated < all => Some(format!("is rolled out: {updated} of {all} pods are new")),
        () if total > all => Some(format!("is rolled out: {} pods are still to go", total - all)),
        () if ready < all => Some(format!("is rolled out: {ready} of {all} pods are ready")),
        () => None,
    }
}

/// Has the pods of a component made anew, one after the other.
///
/// # Errors
/// The API server's word; calling again does it again.
pub async fn roll(client: &Client, component: &str, now: OffsetDateTime) -> Result<()> {
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {(RESTARTED_AT): rfc3339(now)}}}}});
    let (params, patch) =
        (PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }, Patch::Merge(&patch));
    let kind = self_hosted::kind_of(component);
    let rolled = match kind {
        "DaemonSet" => Api::<DaemonSet>::namespaced(client.clone(), "kube-system")
            .patch_metadata(component, &params, &patch)
            .await
            .map(drop),
        _ => Api::<Deployment>::namespaced(client.clone(), "kube-system")
            .patch_metadata(component, &params, &patch)
            .await
            .map(drop),
    };
    rolled.map_err(|error| failed(format!("roll the {kind} {component}"), &error))
}

/// The pod of the API server on a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPod {
    name: String,
    /// Its container: another one each time that it begins.
    pub container: String,
    noted: Option<String>,
}

/// What is noted at it.
#[derive(Serialize, Deserialize)]
struct Noted {
    container: String,
    cas: Vec<String>,
}

impl ServerPod {
    /// The CAs that [`note`] has noted of the container that it runs.
    pub fn noted(&self) -> Option<Vec<String>> {
        let noted: Noted = serde_json::from_str(self.noted.as_ref()?).ok()?;
        (noted.container == self.container).then_some(noted.cas)
    }
}

/// That of the controller `node`.
///
/// # Errors
/// The API server's word; there is none that runs, or more than one.
pub async fn server_pod(client: &Client, node: &str) -> Result<ServerPod> {
    let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let mut pods = pods_of(client, API_SERVER, &params).await?.into_iter();
    let (Some(pod), None) = (pods.next(), pods.next()) else {
        return Err(Error::failed(format!("find the API server's pod on {node}"), "there is not one alone"));
    };
    let noted = pod.annotations().get(TRUSTS).cloned();
    let name = pod.name_any();
    let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
    let running = statuses.into_iter().find(|status| status.name == API_SERVER && status.ready);
    match running.and_then(|status| status.container_id) {
        Some(container) => Ok(ServerPod { name, container, noted }),
        None => Err(Error::failed(format!("find the API server's pod on {node}"), "it is not ready")),
    }
}

/// Notes at a pod the CAs that its container was seen to have begun with.
///
/// # Errors
/// The API server's word.
pub async fn note(client: &Client, pod: &ServerPod, cas: &[String]) -> Result<()> {
    let noted = Noted { container: pod.container.clone(), cas: cas.to_vec() };
    let text = serde_json::to_string(&noted).unwrap_or_default();
    let patch = Patch::Merge(json!({"metadata": {"annotations": {(TRUSTS): text}}}));
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let noted = api.patch_metadata(&pod.name, &PatchParams::default(), &patch).await;
    noted.map(drop).map_err(|error| failed(format!("write to the pod {}", pod.name), &error))
}

/// The checksum of the EncryptionConfiguration that the API server of `client` has read.
///
/// # Errors
/// Why it does not say.
pub async fn encryption_sum(client: &Client) -> Result<String> {
    let action = "ask an API server which encryption configuration it has read";
    let text = page(client, "/metrics", action).await?;
    let sum = sum_in(&text).map(str::to_owned);
    sum.ok_or_else(|| Error::failed(action, "it has no such metric: Kubernetes has it since 1.34"))
}

fn sum_in(metrics: &str) -> Option<&str> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(ENCRYPTION_METRIC))?;
    let (_, rest) = line.split_once(",hash=\"").or_else(|| line.split_once("hash=\""))?;
    rest.split('"').next()
}

/// Has the Secret written again as it is, so that it is encrypted by the key that writes now. What it says stays, whatever is
/// written to it meanwhile. One that is gone needs nothing.
///
/// # Errors
/// The API server's word.
pub async fn write_again(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    match api.patch_metadata(name, &params, &Patch::Merge(json!({}))).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => {
            let place = format!("Secret {namespace}/{name}");
            Err(refused_or_failed(&place, format!("write the {place} again"), &error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_over_when_every_pod_is_new_and_ready() {
        let daemon_set = |observed, all, updated, ready| {
            json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "desiredNumberScheduled": all,
                "updatedNumberScheduled": updated, "numberReady": ready}})
        };
        let deployment = |replicas, total, updated, available| {
            json!({"metadata": {"generation": 2}, "spec": {"replicas": replicas}, "status": {"observedGeneration": 2,
                "replicas": total, "updatedReplicas": updated, "availableReplicas": available}})
        };
        for (kind, found, expected) in [
            ("DaemonSet", daemon_set(1, 3, 3, 3), Some("the controller manager has yet to see it")),
            ("DaemonSet", daemon_set(2, 3, 2, 3), Some("2 of 3 pods are new")),
            ("DaemonSet", daemon_set(2, 3, 3, 2), Some("2 of 3 pods are ready")),
            ("DaemonSet", daemon_set(2, 3, 3, 3), None),
            ("Deployment", deployment(1, 2, 0, 1), Some("0 of 1 pods are new")),
            ("Deployment", deployment(1, 2, 1, 1), Some("1 pods are still to go")),
            ("Deployment", deployment(1, 1, 1, 0), Some("0 of 1 pods are ready")),
            ("Deployment", deployment(1, 1, 1, 1), None),
        ] {
            let said = missing(kind, &found);
            assert_eq!(said.is_some(), expected.is_some(), "{found}");
            assert!(said.unwrap_or_default().ends_with(expected.unwrap_or_default()), "{found}");
        }
    }

    #[test]
    fn what_is_noted_of_a_container_says_nothing_of_the_next() {
        let noted = Noted { container: "containerd://1".into(), cas: vec!["a".into(), "b".into()] };
        let pod = |container: &str, text: &str| ServerPod {
            name: "p".into(),
            container: container.into(),
            noted: Some(text.into()),
        };
        let text = serde_json::to_string(&noted).unwrap();
        assert_eq!(pod("containerd://1", &text).noted(), Some(vec!["a".into(), "b".into()]));
        assert_eq!(pod("containerd://2", &text).noted(), None, "it has begun again, and reads anew");
        assert_eq!(pod("containerd://1", "somebody's").noted(), None);
    }

    #[test]
    fn a_flag_and_a_metric_are_read() {
        let command = ["kube-apiserver", "--a=1", "--ab=2", "--a=3=4"].map(str::to_owned).into();
        let servers = Workload { command, rollout: None };
        assert_eq!((servers.flag("a"), servers.flag("ab"), servers.flag("b")), (Some("3=4"), Some("2"), None));
        let metrics = "# HELP x\napiserver_encryption_config_controller_last_config_info{apiserver_id_hash=\"sha256:1\",hash=\"sha256:2\"} 1\n";
        assert_eq!(sum_in(metrics), Some("sha256:2"));
        assert_eq!(sum_in(""), None);
    }
}
