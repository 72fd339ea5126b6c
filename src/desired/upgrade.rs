//! The forms that a component's workload takes while its version changes. Pure.
//!
//! A component on *trial* runs the new program and emulates the old minor version: it serves, and stores, what the old one
//! knows, so that the old program can take over again. A DaemonSet that is *held* replaces a pod only when somebody deletes it.

use serde_json::{Value, json};

use crate::desired::assets::Manifest;
use crate::desired::config::Version;

/// The flag by which a program emulates an older minor version. It takes no patch version (Kubernetes 1.36.3: "patch version
/// not allowed").
pub const EMULATION: &str = "--emulated-version";

/// The minor version that is emulated instead of a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emulated {
    /// 1.
    pub major: u32,
    /// The minor version.
    pub minor: u32,
}

impl std::fmt::Display for Emulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl From<Version> for Emulated {
    fn from(version: Version) -> Self {
        Self { major: version.major, minor: version.minor }
    }
}

impl Emulated {
    /// What a program of `new` emulates on trial where `old` is committed; `None` where the minor version stays.
    pub fn on_the_way(old: Version, new: Version) -> Option<Self> {
        (old.minor != new.minor).then_some(Self::from(old))
    }
}

/// What an API server's answer to /version, as JSON, does not say as it should: it runs `wanted`, and emulates an older
/// minor version if it is on trial.
pub fn says_otherwise(info: &Value, wanted: Version, is_trial: bool) -> Option<String> {
    let version = info["gitVersion"].as_str().unwrap_or_default();
    if !wanted.is(version) {
        return Some(format!("is {version}, and not {wanted} yet"));
    }
    let emulated = info["emulationMinor"].as_str().filter(|text| !text.is_empty());
    let emulates = emulated.is_some_and(|text| *text != wanted.minor.to_string());
    match (emulates, is_trial) {
        (false, true) => Some(format!("is {version}, and emulates no older version")),
        (true, false) => Some(format!("is {version}, and emulates 1.{} still", emulated.unwrap_or_default())),
        _ => None,
    }
}

/// A workload's manifest on trial: its program emulates `old`.
pub fn on_trial(manifest: &Manifest, old: Emulated) -> Manifest {
    let mut manifest = manifest.clone();
    let name = manifest.text("/metadata/name").to_owned();
    emulate(&mut manifest.object, &name, old);
    manifest
}

/// Has the program of a component in a workload emulate `old`.
pub fn emulate(workload: &mut Value, component: &str, old: Emulated) {
    if let Some(command) = command_mut(workload, component) {
        command.push(format!("{EMULATION}={old}").into());
    }
}

/// A DaemonSet's manifest that replaces a pod when somebody deletes it, and not before.
pub fn held(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    if let Some(spec) = manifest.object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("updateStrategy".into(), json!({"type": "OnDelete"}));
    }
    manifest
}

/// Whether a DaemonSet is held.
pub fn is_held(object: &Value) -> bool {
    object.pointer("/spec/updateStrategy/type").is_some_and(|kind| kind == "OnDelete")
}

/// The container of a component in the spec of a pod.
pub fn container<'a>(pod_spec: &'a Value, component: &str) -> Option<&'a Value> {
    pod_spec["containers"].as_array()?.iter().find(|container| container["name"] == component)
}

/// The image of a component in the spec of a pod.
pub fn image<'a>(pod_spec: &'a Value, component: &str) -> Option<&'a str> {
    container(pod_spec, component)?["image"].as_str()
}

/// Whether the container of a component emulates a version.
pub fn emulates(pod_spec: &Value, component: &str) -> bool {
    let words = container(pod_spec, component).into_iter().flat_map(|container| {
        ["command", "args"].into_iter().filter_map(|field| container[field].as_array()).flatten()
    });
    words.filter_map(Value::as_str).any(|word| word == EMULATION || word.starts_with(&format!("{EMULATION}=")))
}

/// Whether two specs of pods have the same program of a component, with the same arguments.
pub fn is_same_program(one: &Value, other: &Value, component: &str) -> bool {
    let program = |spec: &Value| {
        let container = container(spec, component)?;
        Some(["image", "command", "args"].map(|field| container[field].clone()))
    };
    program(one) == program(other)
}

fn command_mut<'a>(object: &'a mut Value, component: &str) -> Option<&'a mut Vec<Value>> {
    let containers = object.pointer_mut("/spec/template/spec/containers")?.as_array_mut()?;
    containers.iter_mut().find(|container| container["name"] == component)?.get_mut("command")?.as_array_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let object = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "kube-apiserver"},
            "spec": {"template": {"spec": {"containers": [
                {"name": "beside", "image": "b:1", "command": ["b"]},
                {"name": "kube-apiserver", "image": "a:1", "command": ["kube-apiserver", "--v=2"]},
            ]}}, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}}});
        Manifest { path: "manifests/kube-apiserver/daemonset.yaml".into(), line: 1, object }
    }

    #[test]
    fn a_program_on_trial_differs_by_the_flag_alone() {
        let (own, trial) = (manifest(), on_trial(&manifest(), Emulated { major: 1, minor: 36 }));
        let spec = |manifest: &Manifest| manifest.object["spec"]["template"]["spec"].clone();
        let command = container(&spec(&trial), "kube-apiserver").unwrap()["command"].clone();
        assert_eq!(command, json!(["kube-apiserver", "--v=2", "--emulated-version=1.36"]));
        assert!(emulates(&spec(&trial), "kube-apiserver") && !emulates(&spec(&own), "kube-apiserver"));
        assert!(!is_same_program(&spec(&own), &spec(&trial), "kube-apiserver"));
        assert!(is_same_program(&spec(&own), &spec(&trial), "beside"));
        assert_eq!(image(&spec(&trial), "kube-apiserver"), Some("a:1"));
        assert_ne!(own.sum(), trial.sum());
    }

    #[test]
    fn a_held_workload_has_the_same_pods() {
        let (own, held) = (manifest(), held(&manifest()));
        assert!(is_held(&held.object) && !is_held(&own.object));
        assert_eq!(held.object["spec"]["template"], own.object["spec"]["template"]);
        // Nothing of the other strategy is left, which the API server would refuse.
        assert_eq!(held.object["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    }

    #[test]
    fn a_flag_in_two_words_or_among_the_arguments_is_seen() {
        for words in [json!(["--emulated-version", "1.36"]), json!(["--emulated-version=kube=1.36"])] {
            let spec = json!({"containers": [{"name": "a", "command": ["a"], "args": words}]});
            assert!(emulates(&spec, "a"));
        }
        let spec = json!({"containers": [{"name": "a", "command": ["a", "--emulated-version-forward-compatible"]}]});
        assert!(!emulates(&spec, "a"));
    }
}
