//! A manifest held against its Kubernetes type as k8s-openapi has it: another opinion than hoist's own tables.

use k8s_openapi::api::admissionregistration::v1 as admission;
use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core, networking::v1 as networking};
use k8s_openapi::api::{policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;

use hoist::base::yaml;

/// What is wrong with `document` as an object of its own apiVersion and kind: the path of each problem (`spec.x[0].y`)
/// and a sentence. Kinds that hoist does not render itself are the API server's to judge: nothing is said of them.
pub fn check(document: &Value) -> Vec<(String, String)> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
    let check = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => of::<core::Pod>,
        ("v1", "Namespace") => of::<core::Namespace>,
        ("v1", "Secret") => of::<core::Secret>,
        ("v1", "ConfigMap") => of::<core::ConfigMap>,
        ("v1", "Service") => of::<core::Service>,
        ("v1", "ServiceAccount") => of::<core::ServiceAccount>,
        ("apps/v1", "DaemonSet") => of::<apps::DaemonSet>,
        ("apps/v1", "Deployment") => of::<apps::Deployment>,
        ("apps/v1", "StatefulSet") => of::<apps::StatefulSet>,
        ("batch/v1", "Job") => of::<batch::Job>,
        ("batch/v1", "CronJob") => of::<batch::CronJob>,
        ("networking.k8s.io/v1", "NetworkPolicy") => of::<networking::NetworkPolicy>,
        ("policy/v1", "PodDisruptionBudget") => of::<policy::PodDisruptionBudget>,
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => of::<rbac::ClusterRole>,
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => of::<rbac::ClusterRoleBinding>,
        ("rbac.authorization.k8s.io/v1", "Role") => of::<rbac::Role>,
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => of::<rbac::RoleBinding>,
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => of::<admission::ValidatingAdmissionPolicy>,
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            of::<admission::ValidatingAdmissionPolicyBinding>
        }
        ("scheduling.k8s.io/v1", "PriorityClass") => of::<scheduling::PriorityClass>,
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => of::<apiextensions::CustomResourceDefinition>,
        _ => return Vec::new(),
    };
    check(&unfolded(document))
}

/// Where objects hold bytes in Base64, in which ends of lines mean nothing to Go, and everything to this type's reader.
const BYTES: [(&str, &str); 3] = [
    ("Secret", "/data"),
    ("ConfigMap", "/binaryData"),
    ("CustomResourceDefinition", "/spec/conversion/webhook/clientConfig"),
];

/// `document` with its Base64 in one line.
fn unfolded(document: &Value) -> Cow<'_, Value> {
    let is_folded = |value: &Value| value.as_str().is_some_and(|text| text.contains(['\n', '\r']));
    let is_here = |(kind, pointer): &(&str, &str)| {
        let map = document.pointer(pointer).and_then(Value::as_object);
        document["kind"] == *kind && map.is_some_and(|map| map.values().any(is_folded))
    };
    let Some((_, pointer)) = BYTES.into_iter().find(is_here) else { return Cow::Borrowed(document) };
    let mut document = document.clone();
    let map = document.pointer_mut(pointer).and_then(Value::as_object_mut);
    for value in map.into_iter().flat_map(|map| map.values_mut()) {
        if let Value::String(text) = value {
            text.retain(|c| !matches!(c, '\n' | '\r'));
        }
    }
    Cow::Owned(document)
}

fn of<K: DeserializeOwned>(document: &Value) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut ignored = |path: serde_ignored::Path<'_>| {
        let field = if let serde_ignored::Path::Map { key, .. } = &path { key.clone() } else { path.to_string() };
        problems.push((spelled(&path), format!("unknown field `{field}`")));
    };
    let tracked = serde_path_to_error::Deserializer::new(document, &mut track);
    // Erased: each of the hundreds of types would be compiled anew for every way of nesting the two around it.
    let ignoring = serde_ignored::Deserializer::new(tracked, &mut ignored);
    let parsed: Result<K, _> = erased_serde::deserialize(&mut <dyn erased_serde::Deserializer<'_>>::erase(ignoring));
    if let Err(error) = parsed {
        problems.push((track.path().to_string(), error.to_string()));
    }
    problems
}

/// A path as [`yaml::Positions`](hoist::base::yaml::Positions) has it.
fn spelled(path: &serde_ignored::Path<'_>) -> String {
    match path {
        serde_ignored::Path::Root => String::new(),
        serde_ignored::Path::Seq { parent, index } => yaml::item(&spelled(parent), *index),
        serde_ignored::Path::Map { parent, key } => yaml::child(&spelled(parent), key),
        serde_ignored::Path::Some { parent }
        | serde_ignored::Path::NewtypeStruct { parent }
        | serde_ignored::Path::NewtypeVariant { parent } => spelled(parent),
    }
}
