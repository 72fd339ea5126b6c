//! Whether a version of Kubernetes serves a kind.

use serde_json::Value;

use super::table::API;
use crate::desired::config::Version;

/// Groups that Kubernetes had, and whose names no custom resource may have.
const GONE: [&str; 1] = ["extensions"];

/// Why an object cannot be applied, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// The field that is wrong: `apiVersion` or `kind`.
    pub field: &'static str,
    /// What is wrong with it, as the end of a sentence that begins with the field.
    pub message: String,
    /// What to do.
    pub remedy: Option<String>,
}

/// Why the API server of `version` does not serve the kind of `document`; `None` where it does, and for groups that are not
/// Kubernetes' own. `is_on` says of an apiVersion that is off by default whether it is switched on.
pub fn unserved(document: &Value, version: Version, is_on: impl Fn(&str) -> bool) -> Option<Unserved> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind, minor) = (text("apiVersion"), text("kind"), version.minor);
    let group = group(api_version);
    let is_ours = API.kinds.keys().any(|known| self::group(known) == group) || GONE.contains(&group);
    // The lists of kinds are no kinds to apply, and nothing is known of a version to come.
    if !is_ours || kind.is_empty() || kind.ends_with("List") || minor > API.newest {
        return None;
    }
    let there = |version: &str| API.kind(version, kind, Some(minor)).is_some();
    // Where this version has it and serves it unasked; the newest of them.
    let elsewhere = || {
        let stable = API.kinds.keys().filter(|other| !is_off(other) && there(other));
        stable.max_by_key(|other| (self::group(other) == group, other.len(), **other)).copied()
    };
    if there(api_version) {
        if !is_off(api_version) || is_on(api_version) {
            return None;
        }
        let remedy = match elsewhere() {
            Some(stable) => format!("write apiVersion: {stable}"),
            None => format!(
                "add {{name: runtime-config, value: {api_version}=true}} to apiServer.extraArgs of cluster.yaml"
            ),
        };
        let message = format!("{api_version} is off by default");
        return Some(Unserved { field: "apiVersion", message, remedy: Some(remedy) });
    }
    let known = API.kinds.get(api_version);
    let story = known.and_then(|kinds| kinds.get(kind)?.span.story(minor, "this cluster"));
    let use_other = elsewhere().map(|stable| format!("write apiVersion: {stable}"));
    Some(match story {
        Some(story) => {
            Unserved { field: "apiVersion", message: format!("{kind} of {api_version} {story}"), remedy: use_other }
        }
        None if known.is_some_and(|kinds| kinds.values().any(|kind| kind.span.has(Some(minor)))) => {
            let kinds = known.into_iter().flat_map(|kinds| kinds.keys()).filter(|_| use_other.is_none());
            let likeness = |name: &&&str| strsim::jaro_winkler(kind, name);
            let closest = kinds.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) > 0.85);
            let remedy = use_other.clone().or_else(|| closest.map(|name| format!("did you mean `{name}`?")));
            let field = if use_other.is_some() { "apiVersion" } else { "kind" };
            Unserved { field, message: format!("{api_version} has no {kind} to apply in Kubernetes 1.{minor}"), remedy }
        }
        None => Unserved {
            field: "apiVersion",
            message: format!("Kubernetes 1.{minor} does not serve {api_version}"),
            remedy: use_other,
        },
    })
}

/// What is in front of the version.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether it is served on request only: since 1.24 that is so of every new beta, and of every alpha
/// (`DefaultAPIResourceConfigSource` of pkg/controlplane/instance.go).
fn is_off(api_version: &str) -> bool {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    version.contains("alpha") || version.contains("beta")
}
