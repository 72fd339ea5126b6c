//! The single writes of `start`: each is idempotent, and none overwrites what it did not read.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::guard::{FILE as GUARD_FILE, NAME as GUARD, SUM as GUARD_SUM};
use super::observe::CONTROL_PLANE_LABEL;
use super::{FIELD_MANAGER, Verdict, explain, failed, is_not_found, refused_or_failed, verdict};
use crate::base::error::{Error, Finding, Result};
use crate::desired::config::Taint;

/// Labels a Node as control plane and gives it its taints; other labels and taints stay.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn adopt_node(client: &Client, name: &str, taints: &[Taint]) -> Result<()> {
    let failed =
        |error: kube::Error| refused_or_failed(&format!("Node {name}"), format!("label the node {name}"), &error);
    let api: Api<Node> = Api::all(client.clone());
    let node = api.get(name).await.map_err(failed)?;
    let mut all = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    for taint in taints {
        if !all.iter().any(|there| there.key == taint.key && there.effect == taint.effect) {
            all.push(k8s_openapi::api::core::v1::Taint {
                key: taint.key.clone(),
                value: taint.value.clone(),
                effect: taint.effect.clone(),
                time_added: None,
            });
        }
    }
    // Taints are one atomic list: the version makes sure that none set meanwhile is lost.
    let patch = json!({
        "metadata": { "labels": { (CONTROL_PLANE_LABEL): "" }, "resourceVersion": node.resource_version() },
        "spec": { "taints": all },
    });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    api.patch(name, &params, &Patch::Merge(&patch)).await.map_err(failed).map(drop)
}

/// Makes the Secret by which the API server knows the bootstrap token `token` (`id.secret`), until it expires.
///
/// # Errors
/// A token of another form; the API server's word.
pub async fn bootstrap_token(client: &Client, token: &str, expiration: &str) -> Result<()> {
    let action = "make the bootstrap token's Secret";
    let (id, secret) = token
        .split_once('.')
        .ok_or_else(|| Error::failed(action, "auth/kubeconfig-kubelet holds no bootstrap token"))?;
    let name = format!("bootstrap-token-{id}");
    let data = [
        ("description", "The first kubelets' way in, made by hoist start."),
        ("token-id", id),
        ("token-secret", secret),
        ("expiration", expiration),
        ("usage-bootstrap-authentication", "true"),
    ];
    let object = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some("kube-system".into()),
            ..ObjectMeta::default()
        },
        type_: Some("bootstrap.kubernetes.io/token".into()),
        string_data: Some(data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
        ..Secret::default()
    };
    let api: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(&object))
        .await
        .map_err(|error| refused_or_failed(&format!("Secret kube-system/{name}"), action, &error))
        .map(drop)
}

/// Takes away mirror pods of kube-system whose static pods are gone, without waiting for the kubelet to do it.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn delete_mirror_pods(client: &Client, names: &[String]) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    for name in names {
        match api.delete(name, &DeleteParams::default().grace_period(0)).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(super::failed(format!("take away the mirror pod {name}"), &error)),
        }
    }
    Ok(())
}

/// Deletes pods, by namespace and name, so that their workloads make them anew.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn delete_pods(client: &Client, pods: &[(String, String)]) -> Result<()> {
    for (namespace, name) in pods {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(super::failed(format!("replace the pod {namespace}/{name}"), &error)),
        }
    }
    Ok(())
}

/// Deletes the control plane's pods that the kubelet of the node `name` has refused because its Node lacked their label.
/// They never run any more, and nobody else takes them away before there are thousands. Says which.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn delete_refused_pods(client: &Client, name: &str) -> Result<Vec<String>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let fields = format!("spec.nodeName={name},status.phase=Failed");
    let params = ListParams::default().labels("tier=control-plane").fields(&fields);
    let pods = api.list(&params).await;
    let pods = pods.map_err(|error| super::failed("list the control plane's refused pods", &error))?;
    let names: Vec<_> = pods.items.iter().filter(|pod| is_refused(pod)).map(ResourceExt::name_any).collect();
    let pods: Vec<_> = names.iter().map(|name| ("kube-system".to_owned(), name.clone())).collect();
    delete_pods(client, &pods).await?;
    Ok(names)
}

/// Whether a kubelet has refused a pod for its Node's labels. (The reason is the kubelet's, from
/// pkg/kubelet/lifecycle/predicate.go: the name of the scheduler's plugin that the pod does not pass.)
fn is_refused(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let is = |field: Option<&String>, value| field.is_some_and(|text| text == value);
    is(status.and_then(|status| status.phase.as_ref()), "Failed")
        && is(status.and_then(|status| status.reason.as_ref()), "NodeAffinity")
}

/// Deletes a Lease of kube-system if it still is as it was observed.
///
/// # Errors
/// The API server's word; a Lease that has changed is left alone.
pub async fn delete_lease(client: &Client, name: &str, resource_version: &str) -> Result<()> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let preconditions = Preconditions { resource_version: Some(resource_version.into()), uid: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(verdict(&error), Verdict::Missing | Verdict::Stale) => Ok(()),
        Err(error) => Err(super::failed(format!("delete the Lease {name} of a dead holder"), &error)),
    }
}

/// Keeps guard's copy of the bridge in the cluster, in a Secret that guard alone may read; `sum` tells whether it has changed.
///
/// # Errors
/// [`Error::Refused`]; the API server's word; calling again goes on.
pub async fn guard_copy(client: &Client, copy: &str, sum: &str) -> Result<()> {
    let object = Secret {
        metadata: ObjectMeta {
            name: Some(GUARD.into()),
            namespace: Some("kube-system".into()),
            annotations: Some(BTreeMap::from([(GUARD_SUM.to_owned(), sum.to_owned())])),
            labels: Some(BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), "hoist".to_owned())])),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".into()),
        string_data: Some(BTreeMap::from([(GUARD_FILE.to_owned(), copy.to_owned())])),
        ..Secret::default()
    };
    let api: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_metadata(GUARD, &params, &Patch::Apply(&object)).await {
        Ok(_) => Ok(()),
        Err(error) if verdict(&error) == Verdict::Refused => {
            let place = format!("the Secret kube-system/{GUARD} ({} KiB)", copy.len() >> 10);
            let finding = Finding::new(place, format!("guard's copy of the bridge is refused: {}", explain(&error)));
            Err(Error::Refused(vec![finding.remedy(
                "`hoist validate` names what is too large; a quota or a webhook of kube-system may also refuse it. The copy on this controller's disk is whole, and guard uses it",
            )]))
        }
        Err(error) => Err(failed("keep guard's copy of the bridge in the cluster", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_failed_for_another_reason_is_kept_for_whoever_looks_at_it() {
        for (phase, reason, expected) in [
            ("Failed", json!("NodeAffinity"), true),
            ("Failed", json!("Evicted"), false),
            ("Failed", json!(null), false),
            ("Running", json!("NodeAffinity"), false),
        ] {
            let pod = json!({"metadata": {"name": "a"}, "status": {"phase": phase, "reason": reason}});
            assert_eq!(is_refused(&serde_json::from_value(pod).unwrap()), expected, "{phase} {reason}");
        }
    }
}
