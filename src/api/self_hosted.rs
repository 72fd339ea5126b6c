//! The self-hosted control plane as objects: reading what it is made of, and deleting it.

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::Value;

use super::apply::MANIFEST_SUM;
use super::{failed, guard, is_not_found};
use crate::base::error::{Error, Result};
use crate::desired::server_config;

const NAMESPACE: &str = "kube-system";
/// The name of guard's roles and their bindings.
const GUARD_ROLE: &str = "hoist:guard";
/// The name of the policy that says who may make a controller of a node.
const CONTROLLERS_POLICY: &str = "hoist-controllers";

/// The control plane's components, each with the kind of its workload.
const WORKLOADS: [(&str, &str); 3] =
    [("kube-apiserver", "DaemonSet"), ("kube-controller-manager", "Deployment"), ("kube-scheduler", "Deployment")];

/// A workload's component, its kind, and its template of pods with every field that the API server has.
pub type Workload = (&'static str, &'static str, Value);

/// The kind of the workload of a component.
pub fn kind_of(component: &str) -> &'static str {
    WORKLOADS.iter().find(|(name, _)| *name == component).map_or("Deployment", |(_, kind)| kind)
}

/// The workloads that are there.
///
/// # Errors
/// The first request that failed: what is not known is never taken for absent.
pub async fn workloads(client: &Client) -> Result<Vec<Workload>> {
    let mut found = Vec::new();
    for (component, kind) in WORKLOADS {
        let object = workload(client, kind, component).await?;
        found.extend(object.map(|object| (component, kind, object["spec"]["template"].clone())));
    }
    Ok(found)
}

/// A DaemonSet or a Deployment of kube-system, as it is on the wire: no field that this hoist does not know is lost. `None` if
/// there is no such workload.
///
/// # Errors
/// The API server's refusal, or none of its answers.
pub async fn workload(client: &Client, kind: &str, name: &str) -> Result<Option<Value>> {
    let resource = match kind {
        "DaemonSet" => ApiResource::erase::<DaemonSet>(&()),
        _ => ApiResource::erase::<Deployment>(&()),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let action = || format!("read the {kind} {name}");
    let object = api.get_opt(name).await.map_err(|error| failed(action(), &error))?;
    object.map(|object| serde_json::to_value(object).map_err(|error| Error::failed(action(), error))).transpose()
}

/// Deletes a DaemonSet, and its pods.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn delete_daemon_set(client: &Client, name: &str) -> Result<()> {
    delete::<DaemonSet>(client, "DaemonSet", name).await
}

/// The content of a Secret, by key; `None` if there is no such Secret.
///
/// # Errors
/// The API server's refusal, or none of its answers.
pub async fn secret(client: &Client, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    let found = get::<Secret>(client, "Secret", name).await?;
    Ok(found.map(|secret| secret.data.unwrap_or_default().into_iter().map(|(key, data)| (key, data.0)).collect()))
}

/// The same of a ConfigMap.
///
/// # Errors
/// The same.
pub async fn config_map(client: &Client, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    let found = get::<ConfigMap>(client, "ConfigMap", name).await?;
    Ok(found.map(|map| {
        let text = map.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
        text.chain(map.binary_data.unwrap_or_default().into_iter().map(|(key, data)| (key, data.0))).collect()
    }))
}

/// Whether pods of the service account get a token of it unless they refuse.
///
/// # Errors
/// The API server's refusal, or none of its answers.
pub async fn gives_token(client: &Client, account: &str) -> Result<bool> {
    let account = get::<ServiceAccount>(client, "service account", account).await?;
    Ok(account.is_some_and(|account| account.automount_service_account_token != Some(false)))
}

async fn get<K>(client: &Client, kind: &str, name: &str) -> Result<Option<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    api.get_opt(name).await.map_err(|error| failed(format!("read the {kind} {name}"), &error))
}

/// Deletes the workloads, and what would make their pods anew. The pods are another matter.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn delete_workloads(client: &Client) -> Result<()> {
    let replica_sets: Api<ReplicaSet> = Api::namespaced(client.clone(), NAMESPACE);
    let listed = replica_sets.list(&ListParams::default()).await;
    let listed = listed.map_err(|error| failed("list the ReplicaSets of kube-system", &error))?;
    for (component, kind) in WORKLOADS {
        match kind {
            "DaemonSet" => delete::<DaemonSet>(client, kind, component).await?,
            _ => delete::<Deployment>(client, kind, component).await?,
        }
    }
    let is_owned = |set: &&ReplicaSet| {
        let owns = |name: &str| WORKLOADS.iter().any(|(component, kind)| *kind == "Deployment" && *component == name);
        set.owner_references().iter().any(|owner| owner.kind == "Deployment" && owns(&owner.name))
    };
    // After their Deployments, which would make them anew; and not left to a controller manager that is going, too.
    for set in listed.items.iter().filter(is_owned) {
        delete::<ReplicaSet>(client, "ReplicaSet", &set.name_any()).await?;
    }
    Ok(())
}

/// Deletes what only the self-hosted control plane needed, as far as hoist has applied it.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn delete_leftovers(client: &Client) -> Result<()> {
    for (component, _) in WORKLOADS {
        delete_applied::<PodDisruptionBudget>(client, "PodDisruptionBudget", component).await?;
        delete_applied::<Secret>(client, "Secret", component).await?;
        delete_applied::<ServiceAccount>(client, "service account", component).await?;
    }
    delete_applied::<ConfigMap>(client, "ConfigMap", server_config::NAME).await
}

/// Deletes guard's objects: what brings it to the nodes first; that of the controller `node` that it says it lives by,
/// too.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn delete_guard(client: &Client, node: &str) -> Result<()> {
    delete::<DaemonSet>(client, "DaemonSet", guard::NAME).await?;
    delete::<Secret>(client, "Secret", guard::NAME).await?;
    delete::<ServiceAccount>(client, "service account", guard::NAME).await?;
    delete::<Lease>(client, "Lease", &guard::lease(node)).await?;
    for namespace in [NAMESPACE, "default"] {
        let roles: Api<Role> = Api::namespaced(client.clone(), namespace);
        let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
        delete_by(&bindings, "RoleBinding", GUARD_ROLE).await?;
        delete_by(&roles, "Role", GUARD_ROLE).await?;
    }
    delete_by(&Api::<ClusterRoleBinding>::all(client.clone()), "ClusterRoleBinding", GUARD_ROLE).await?;
    delete_by(&Api::<ClusterRole>::all(client.clone()), "ClusterRole", GUARD_ROLE).await?;
    // Last: they limit those rights.
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    for name in [guard::NAME, CONTROLLERS_POLICY] {
        delete_by(&bindings, "ValidatingAdmissionPolicyBinding", name).await?;
        delete_by(&policies, "ValidatingAdmissionPolicy", name).await?;
    }
    Ok(())
}

/// Deletes an object that hoist has applied; another of that name stays.
async fn delete_applied<K>(client: &Client, kind: &str, name: &str) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    match get::<K>(client, kind, name).await? {
        Some(object) if object.annotations().contains_key(MANIFEST_SUM) => delete::<K>(client, kind, name).await,
        _ => Ok(()),
    }
}

async fn delete<K>(client: &Client, kind: &str, name: &str) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    delete_by(&Api::<K>::namespaced(client.clone(), NAMESPACE), kind, name).await
}

async fn delete_by<K>(api: &Api<K>, kind: &str, name: &str) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(failed(format!("delete the {kind} {name}"), &error)),
    }
}
