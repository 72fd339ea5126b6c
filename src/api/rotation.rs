//! What is asked and changed in the cluster while keys are rotated: who has read which file, rollouts, Secrets written anew.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use time::OffsetDateTime;

use super::{FIELD_MANAGER, failed, is_not_found, refused_or_failed};
use crate::base::error::{Error, Result};
use crate::base::time::rfc3339;

/// The metric of an API server with the checksum of the EncryptionConfiguration that it has read.
const ENCRYPTION_METRIC: &str = "apiserver_encryption_config_controller_last_config_info{";
/// As `kubectl rollout restart` has it.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// The DaemonSet of the API servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServers {
    /// Their command with its flags.
    pub command: Vec<String>,
    /// What is missing until all pods are as the DaemonSet says, and ready.
    pub rollout: Option<String>,
}

/// It, as it is now.
///
/// # Errors
/// The API server's word; there is none.
pub async fn api_servers(client: &Client, name: &str) -> Result<ApiServers> {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), "kube-system");
    let found = api.get(name).await.map_err(|error| failed(format!("read the DaemonSet {name}"), &error))?;
    let generation = found.metadata.generation;
    let spec = found.spec.and_then(|spec| spec.template.spec);
    let container = spec.into_iter().flat_map(|spec| spec.containers).find(|container| container.name == name);
    let command =
        container.map(|container| [container.command, container.args].into_iter().flatten().flatten().collect());
    let rollout = missing(generation, &found.status.unwrap_or_default());
    Ok(ApiServers {
        command: command.unwrap_or_default(),
        rollout: rollout.map(|text| format!("the DaemonSet {name} {text}")),
    })
}

impl ApiServers {
    /// The value of a flag.
    pub fn flag(&self, name: &str) -> Option<&str> {
        let value = |arg: &'_ str| arg.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=').map(str::len);
        self.command.iter().rev().find_map(|arg| value(arg).map(|len| &arg[arg.len() - len..]))
    }
}

fn missing(generation: Option<i64>, status: &DaemonSetStatus) -> Option<String> {
    let (all, updated) = (status.desired_number_scheduled, status.updated_number_scheduled.unwrap_or_default());
    match () {
        () if status.observed_generation != generation => {
            Some("is not rolled out: the controller manager has yet to see it".into())
        }
        () if updated < all => Some(format!("is rolled out: {updated} of {all} pods are new")),
        () if status.number_ready < all => {
            Some(format!("is rolled out: {} of {all} pods are ready", status.number_ready))
        }
        () => None,
    }
}

/// Has the pods of the DaemonSet `name` made anew, one after the other.
///
/// # Errors
/// The API server's word; calling again does it again.
pub async fn roll(client: &Client, name: &str, now: OffsetDateTime) -> Result<()> {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), "kube-system");
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {(RESTARTED_AT): rfc3339(now)}}}}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let rolled = api.patch(name, &params, &Patch::Merge(&patch)).await;
    rolled.map(drop).map_err(|error| failed(format!("roll the DaemonSet {name}"), &error))
}

/// The checksum of the EncryptionConfiguration that the API server of `client` has read.
///
/// # Errors
/// Why it does not say.
pub async fn encryption_sum(client: &Client) -> Result<String> {
    let action = "ask an API server which encryption configuration it has read";
    let request = hyper::Request::get("/metrics").body(Vec::new()).map_err(|error| Error::failed(action, error))?;
    let text = client.request_text(request).await.map_err(|error| failed(action, &error))?;
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
        let status = |observed, all, updated, ready| DaemonSetStatus {
            observed_generation: Some(observed),
            desired_number_scheduled: all,
            updated_number_scheduled: Some(updated),
            number_ready: ready,
            ..DaemonSetStatus::default()
        };
        for (status, expected) in [
            (status(1, 3, 3, 3), Some("the controller manager has yet to see it")),
            (status(2, 3, 2, 3), Some("2 of 3 pods are new")),
            (status(2, 3, 3, 2), Some("2 of 3 pods are ready")),
            (status(2, 3, 3, 3), None),
        ] {
            let said = missing(Some(2), &status);
            assert_eq!(said.is_some(), expected.is_some(), "{status:?}");
            assert!(said.unwrap_or_default().ends_with(expected.unwrap_or_default()));
        }
    }

    #[test]
    fn a_flag_and_a_metric_are_read() {
        let command = ["kube-apiserver", "--a=1", "--ab=2", "--a=3=4"].map(str::to_owned).into();
        let servers = ApiServers { command, rollout: None };
        assert_eq!((servers.flag("a"), servers.flag("ab"), servers.flag("b")), (Some("3=4"), Some("2"), None));
        let metrics = "# HELP x\napiserver_encryption_config_controller_last_config_info{apiserver_id_hash=\"sha256:1\",hash=\"sha256:2\"} 1\n";
        assert_eq!(sum_in(metrics), Some("sha256:2"));
        assert_eq!(sum_in(""), None);
    }
}
