//! The types that Kubernetes' components read, in each supported version. Documents are checked against them, so that
//! hoist names a mistyped field in its file, before an API server refuses it or a kubelet exits. Pure.
//!
//! ```text
//! assets/schemas ─► table ─► walk     a value against its type, by `scalars`
//!                       └──► kinds    whether a version serves a kind
//! ```
//! `scripts/known-schemas` writes the tables: the API's from Kubernetes' own OpenAPI documents, those of the
//! configurations from its Go types. A value that its component accepts is never refused.

mod kinds;
mod scalars;
mod table;
mod walk;

use serde_json::Value;

use crate::desired::config::Version;
pub use kinds::{Unserved, unserved};
use table::{API, CONFIG, Shape};
use walk::{At, Walk};

/// Who reads a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The API server, to which it is applied.
    ApiServer,
    /// The kubelet, as a static pod: it takes two items with one key.
    Kubelet,
}

/// A configuration of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Config {
    /// KubeletConfiguration.
    Kubelet,
    /// KubeProxyConfiguration.
    KubeProxy,
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it is, as [`yaml::Positions`](crate::base::yaml::Positions) has it.
    pub path: String,
    /// What is wrong, as the end of a sentence that begins with the path.
    pub message: String,
    /// What to do about it, if that can be told.
    pub remedy: Option<String>,
    /// Whether it is a field that the version does not have.
    pub is_unknown: bool,
}

/// What is wrong with `document` as an object of its own apiVersion and kind in `version`, or in any version if that is not
/// known. Of kinds that Kubernetes does not have nothing is said.
pub fn check(document: &Value, version: Option<Version>, reader: Reader) -> Vec<Problem> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
    let Some(of) = API.kind(text("apiVersion"), text("kind"), version.map(|version| version.minor)) else {
        return Vec::new();
    };
    let mut walk = Walk::new(&API, version.map(|version| version.minor), "this cluster", reader == Reader::ApiServer);
    walk.value(&Shape::Type(of), document, At::ROOT);
    walk.problems
}

/// What is wrong with `fields`, some or all of a configuration of `version`, which stand at the path `at`.
pub fn check_config(config: Config, fields: &Value, version: Version, at: &str) -> Vec<Problem> {
    let (api_version, kind, program) = match config {
        Config::Kubelet => ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration", "the kubelet"),
        Config::KubeProxy => ("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration", "kube-proxy"),
    };
    let Some(of) = CONFIG.kind(api_version, kind, Some(version.minor)) else { return Vec::new() };
    let mut walk = Walk::new(&CONFIG, Some(version.minor), program, false);
    walk.value(&Shape::Type(of), fields, At::Path(at));
    walk.problems
}

#[cfg(test)]
mod tests;
