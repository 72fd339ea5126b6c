//! The changes that applying would make to an object, as a unified diff. For a Secret, only the changed values are
//! named, as kubectl does.

use diffy::{DiffOptions, PatchFormatter};
use serde_json::Value;

use crate::api::apply::Name;
use crate::base::yaml;

/// Where the server keeps what no manifest says.
const OF_THE_SERVER: [&str; 6] =
    ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"];
/// hoist's own, which says from which manifest an object was applied: it changes whenever the manifest does.
const OWN: &str = "hoist/manifest-sha256";
/// kubectl's, which holds a whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// From `live`, if there is one, to `after`; empty if nothing changes.
pub(super) fn diff(name: &Name, live: Option<&Value>, after: &Value, is_coloured: bool) -> String {
    let (mut old, mut new) = (live.cloned().map(trimmed), trimmed(after.clone()));
    if name.kind == "Secret" {
        hide(old.as_mut(), &mut new);
    }
    let text = |value: Option<&Value>| value.map(yaml::to_string).unwrap_or_default();
    let (old_text, new_text) = (text(old.as_ref()), text(Some(&new)));
    if old_text == new_text {
        return String::new();
    }
    let label = |side: &str| {
        let parts = [&name.kind, &name.namespace, &name.name].map(String::as_str);
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!("{side}/{}", parts.join("/"))
    };
    let from = if old.is_some() { label("live") } else { "/dev/null".to_owned() };
    let mut options = DiffOptions::new();
    options.set_original_filename(from).set_modified_filename(label("applied"));
    let patch = options.create_patch(&old_text, &new_text);
    let formatter = PatchFormatter::new().suppress_blank_empty(false);
    let formatter = if is_coloured { formatter.with_color() } else { formatter };
    formatter.fmt_patch(&patch).to_string()
}

/// Without what the server makes.
fn trimmed(mut object: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|key, _| !OF_THE_SERVER.contains(&key.as_str()));
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(OWN);
                if annotations.is_empty() {
                    metadata.remove("annotations");
                }
            }
        }
    }
    object
}

/// Puts asterisks in the place of a Secret's values, and says which of them differ.
fn hide(mut old: Option<&mut Value>, new: &mut Value) {
    for map in ["/data", "/stringData", "/metadata/annotations"] {
        let is_secret = |key: &str| map != "/metadata/annotations" || key == LAST_APPLIED;
        let before = old.as_ref().and_then(|old| old.pointer(map)).cloned().unwrap_or_default();
        let after = new.pointer(map).cloned().unwrap_or_default();
        let mask = |value: &mut Value, other: &Value, side: &str| {
            for (key, value) in value.as_object_mut().into_iter().flatten().filter(|(key, _)| is_secret(key)) {
                let differs = other.get(key.as_str()).is_some_and(|other| other != value);
                *value = if differs { format!("*** ({side})") } else { "***".to_owned() }.into();
            }
        };
        if let Some(value) = old.as_mut().and_then(|old| old.pointer_mut(map)) {
            mask(value, &after, "before");
        }
        if let Some(value) = new.pointer_mut(map) {
            mask(value, &before, "after");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(kind: &str) -> Name {
        Name { kind: kind.into(), namespace: "demo".into(), name: "a".into() }
    }

    #[test]
    fn what_the_server_makes_is_no_change() {
        let live = json!({"kind": "ConfigMap", "metadata": {"name": "a", "uid": "1", "resourceVersion": "5",
            "annotations": {"hoist/manifest-sha256": "1"}}, "data": {"x": "1", "z": "2"}, "status": {"a": 1}});
        let mut after = json!({"kind": "ConfigMap", "metadata": {"name": "a", "uid": "2", "annotations": {"hoist/manifest-sha256": "2"}},
            "data": {"x": "1", "z": "2"}});
        assert_eq!(diff(&name("ConfigMap"), Some(&live), &after, false), "");
        after["data"]["z"] = "3".into();
        let text = diff(&name("ConfigMap"), Some(&live), &after, false);
        assert!(text.starts_with("--- live/ConfigMap/demo/a\n+++ applied/ConfigMap/demo/a\n"), "{text}");
        assert!(text.contains("-  z: \"2\"\n+  z: \"3\"\n"), "{text}");
        let text = diff(&name("ConfigMap"), None, &after, false);
        assert!(text.starts_with("--- /dev/null\n") && text.contains("+  x: \"1\"\n"), "{text}");
    }

    #[test]
    fn no_secret_value_is_shown() {
        let secret = |password: &str, applied: &str| {
            json!({"kind": "Secret", "metadata": {"annotations": {LAST_APPLIED: applied, "open": "o"}},
                "data": {"password": password, "same": "c2VjcmV0"}, "stringData": {"more": "s3cret"}})
        };
        let (live, after) = (secret("b2xk", "b2xk"), secret("bmV3", "bmV3"));
        let text = diff(&name("Secret"), Some(&live), &after, false);
        assert!(text.contains("-  password: \"*** (before)\"\n+  password: \"*** (after)\"\n"), "{text}");
        let alone = diff(&name("Secret"), None, &after, false);
        for secret in ["b2xk", "bmV3", "c2VjcmV0", "s3cret"] {
            assert!(!text.contains(secret) && !alone.contains(secret), "{text}{alone}");
        }
        assert_eq!(diff(&name("Secret"), Some(&live), &live, false), "");
    }
}
