//! The single writes of `start`: each is idempotent, and none overwrites what it did not read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Node, Pod, Secret};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::guard::{FILE as GUARD_FILE, NAME as GUARD, SUM as GUARD_SUM};
use super::observe::CONTROL_PLANE_LABEL;
use super::{FIELD_MANAGER, Verdict, is_not_found, refused_or_failed, verdict};
use crate::config::{API_PORT, Taint};
use crate::error::{Error, Result};

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

/// Puts `address` among the addresses of the `kubernetes` Service, which no API server keeps (they run with the
/// endpoint reconciler `none`), and leaves the others there.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn publish_endpoint(client: &Client, address: IpAddr) -> Result<()> {
    let failed = |error: kube::Error| super::failed("publish the address of the kubernetes Service", &error);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let there = slices.get_opt("kubernetes").await.map_err(failed)?;
    let mut addresses: Vec<String> =
        there.iter().flat_map(|slice| &slice.endpoints).flat_map(|endpoint| endpoint.addresses.clone()).collect();
    addresses.push(address.to_string());
    addresses.sort();
    addresses.dedup();
    let ready = EndpointConditions { ready: Some(true), ..EndpointConditions::default() };
    let labels = |key: &str, value: &str| Some(BTreeMap::from([(key.to_owned(), value.to_owned())]));
    let named = |name: &str, labels, version| ObjectMeta {
        name: Some(name.into()),
        namespace: Some("default".into()),
        labels,
        resource_version: version,
        ..ObjectMeta::default()
    };
    let slice = EndpointSlice {
        metadata: named(
            "kubernetes",
            labels("kubernetes.io/service-name", "kubernetes"),
            there.as_ref().and_then(ResourceExt::resource_version),
        ),
        address_type: if address.is_ipv6() { "IPv6" } else { "IPv4" }.into(),
        endpoints: addresses
            .iter()
            .map(|address| Endpoint {
                addresses: vec![address.clone()],
                conditions: Some(ready.clone()),
                ..Endpoint::default()
            })
            .collect(),
        ports: Some(vec![SlicePort {
            name: Some("https".into()),
            port: Some(API_PORT.into()),
            protocol: Some("TCP".into()),
            app_protocol: None,
        }]),
    };
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), "default");
    let known = endpoints.get_opt("kubernetes").await.map_err(failed)?;
    let object = Endpoints {
        // Without the label a controller would mirror it into a second slice.
        metadata: named(
            "kubernetes",
            labels("endpointslice.kubernetes.io/skip-mirror", "true"),
            known.as_ref().and_then(ResourceExt::resource_version),
        ),
        subsets: Some(vec![EndpointSubset {
            addresses: Some(
                addresses.iter().map(|ip| EndpointAddress { ip: ip.clone(), ..EndpointAddress::default() }).collect(),
            ),
            ports: Some(vec![EndpointPort {
                name: Some("https".into()),
                port: API_PORT.into(),
                protocol: Some("TCP".into()),
                app_protocol: None,
            }]),
            not_ready_addresses: None,
        }]),
    };
    match known {
        Some(_) => endpoints.replace("kubernetes", &params, &object).await.map_err(failed)?,
        None => endpoints.create(&params, &object).await.map_err(failed)?,
    };
    // Last, for by the slice is told whether all of this is done.
    match there {
        Some(_) => slices.replace("kubernetes", &params, &slice).await.map_err(failed)?,
        None => slices.create(&params, &slice).await.map_err(failed)?,
    };
    Ok(())
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
/// The API server's word; calling again goes on.
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
    api.patch_metadata(GUARD, &params, &Patch::Apply(&object))
        .await
        .map_err(|error| {
            refused_or_failed(
                &format!("Secret kube-system/{GUARD}"),
                "keep guard's copy of the bridge in the cluster",
                &error,
            )
        })
        .map(drop)
}
