//! The objects of a cluster that hold certificates.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::{failed, guard, pages, self_hosted};
use crate::base::error::Result;
use crate::desired::certificates::fields;
use crate::desired::secrets::COMPONENTS;

/// An object that holds certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// As in `Secret kube-system/kube-apiserver`.
    pub place: String,
    /// The component that reads it.
    pub holder: &'static str,
    /// What it holds, by key or field.
    pub files: BTreeMap<String, Vec<u8>>,
    /// It is the control plane's own: what it holds is the cluster's.
    pub is_own: bool,
}

/// The ConfigMaps of one namespace, and who reads them.
const CONFIG_MAPS: [(&str, &str, &str); 2] = [
    ("kube-public", "cluster-info", "joining nodes"),
    ("kube-system", "extension-apiserver-authentication", "aggregated API servers"),
];
/// The ConfigMap that every namespace has.
const ROOT_CA: &str = "kube-root-ca.crt";
/// How many objects are asked for at once.
const PAGE: u32 = 100;

/// Every such object, and what could not be read.
pub async fn objects(client: &Client) -> (Vec<Object>, Vec<String>) {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for name in COMPONENTS.into_iter().chain([guard::NAME]) {
        match self_hosted::secret(client, name).await {
            Ok(Some(files)) => {
                let holder = if name == guard::NAME { "guard" } else { name };
                found.push(Object { place: format!("Secret kube-system/{name}"), holder, files, is_own: true });
            }
            Ok(None) => {}
            Err(error) => unread.push(error.to_string()),
        }
    }
    for (namespace, name, holder) in CONFIG_MAPS {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        match maps.get_opt(name).await {
            Ok(Some(map)) => {
                let place = format!("ConfigMap {namespace}/{name}");
                found.push(Object { place, holder, files: texts(map), is_own: true });
            }
            Ok(None) => {}
            Err(error) => unread.push(failed(format!("read the ConfigMap {namespace}/{name}"), &error).to_string()),
        }
    }
    match root_cas(client).await {
        Ok(objects) => found.extend(objects),
        Err(error) => unread.push(failed(format!("read the ConfigMaps {ROOT_CA}"), &error).to_string()),
    }
    let own: Vec<_> = found.iter().map(|object| object.place.clone()).collect();
    for (what, others) in [
        ("Secrets", others::<Secret>(client, "Secret", secret_files).await),
        ("ConfigMaps", others::<ConfigMap>(client, "ConfigMap", texts).await),
    ] {
        match others {
            Ok(others) => found.extend(others.into_iter().filter(|other| !own.contains(&other.place))),
            Err(error) => unread.push(failed(format!("list {what}"), &error).to_string()),
        }
    }
    for kind in [
        ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
        ApiResource::erase::<MutatingWebhookConfiguration>(&()),
        ApiResource::erase::<APIService>(&()),
        ApiResource::erase::<CustomResourceDefinition>(&()),
    ] {
        match with_bundles(client, &kind).await {
            Ok(objects) => found.extend(objects),
            Err(error) => unread.push(failed(format!("list {}", kind.plural), &error).to_string()),
        }
    }
    (found, unread)
}

/// The objects of all namespaces that hold certificates, [`ROOT_CA`] aside.
async fn others<K>(
    client: &Client,
    kind: &str,
    files: impl Fn(K) -> BTreeMap<String, Vec<u8>>,
) -> kube::Result<Vec<Object>>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let params = ListParams::default().limit(PAGE).fields(&format!("metadata.name!={ROOT_CA}"));
    let mut found = Vec::new();
    let take = |object: K| {
        let place = format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any());
        let mut files = files(object);
        files.retain(|_, content| may_hold(content));
        if !files.is_empty() {
            found.push(Object { place, holder: "pods", files, is_own: false });
        }
    };
    pages::each(params, async |params| api.list(params).await, take).await?;
    Ok(found)
}

/// Whether a file has what a certificate or a kubeconfig has.
fn may_hold(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    ["BEGIN CERTIFICATE-", "certificate-authority-data", "client-certificate-data"]
        .iter()
        .any(|word| text.contains(word))
}

/// The objects of a kind that name a CA in a `caBundle`.
async fn with_bundles(client: &Client, kind: &ApiResource) -> kube::Result<Vec<Object>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), kind);
    let mut found = Vec::new();
    let take = |object: DynamicObject| {
        let place = format!("{} {}", kind.kind, object.name_any());
        let files: BTreeMap<_, _> = fields(&object.data).into_iter().collect();
        if !files.is_empty() {
            found.push(Object { place, holder: "kube-apiserver", files, is_own: false });
        }
    };
    pages::each(ListParams::default().limit(PAGE), async |params| api.list(params).await, take).await?;
    Ok(found)
}

/// Replaces what `new` says in the Secret kube-system/`name`, if that is still what was read; names what has changed.
///
/// # Errors
/// The API server's word; a Secret that is not there has nothing to replace.
pub async fn replace(client: &Client, name: &str, new: impl Fn(&str, &[u8]) -> Option<Vec<u8>>) -> Result<Vec<String>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let there = api.get_opt(name).await;
    let Some(there) = there.map_err(|error| failed(format!("read the Secret kube-system/{name}"), &error))? else {
        return Ok(Vec::new());
    };
    let version = there.resource_version();
    let held = there.data.into_iter().flatten();
    let data: BTreeMap<_, _> = held
        .filter_map(|(key, held)| {
            let new = new(&key, &held.0)?;
            Some((key, ByteString(new)))
        })
        .collect();
    if data.is_empty() {
        return Ok(Vec::new());
    }
    let changed = data.keys().cloned().collect();
    let patch = json!({"metadata": {"resourceVersion": version}, "data": data});
    match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(changed),
        Err(error) => Err(failed(format!("write into the Secret kube-system/{name}"), &error)),
    }
}

/// The ConfigMap that each namespace has; those that say the same are one.
async fn root_cas(client: &Client) -> kube::Result<Vec<Object>> {
    let maps: Api<ConfigMap> = Api::all(client.clone());
    let all = maps.list(&ListParams::default().fields(&format!("metadata.name={ROOT_CA}"))).await?;
    let mut alike: BTreeMap<BTreeMap<String, Vec<u8>>, Vec<String>> = BTreeMap::new();
    for map in all {
        let namespace = map.namespace().unwrap_or_default();
        alike.entry(texts(map)).or_default().push(namespace);
    }
    let object = |(files, namespaces): (_, Vec<String>)| {
        let place = match &namespaces[..] {
            [one] => format!("ConfigMap {one}/{ROOT_CA}"),
            [first, others @ ..] => format!("ConfigMap {first}/{ROOT_CA} and {} alike", others.len()),
            [] => String::new(),
        };
        Object { place, holder: "pods", files, is_own: true }
    };
    Ok(alike.into_iter().map(object).collect())
}

fn secret_files(secret: Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.unwrap_or_default().into_iter().map(|(key, content)| (key, content.0)).collect()
}

fn texts(map: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    map.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes())).collect()
}
