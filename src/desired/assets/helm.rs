//! Helm's hooks, as `helm template` writes them among the other manifests. Hooks for an install or an upgrade are
//! applied like other manifests; hooks for other events are not applied.

use std::collections::BTreeMap;

use serde_json::Value;

/// The annotation that makes a manifest a hook: events with commas between them.
pub const HOOK: &str = "helm.sh/hook";
/// Where a hook comes among those of its event; the smallest number first.
const WEIGHT: &str = "helm.sh/hook-weight";

/// What Helm would do with a hook at an install or an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook<'a> {
    /// Run it before everything else, with this weight.
    Before(i64),
    /// Run it after everything else, with this weight.
    After(i64),
    /// Have it there before everything else: a CRD, as Helm 2 has them.
    Installed,
    /// Nothing: it is for these events.
    Elsewhere(&'a str),
}

/// What hook the object of a manifest is, if it is one.
pub fn hook(object: &Value) -> Option<Hook<'_>> {
    let annotation = |name: &str| object.get("metadata")?.get("annotations")?.get(name)?.as_str();
    let events = annotation(HOOK)?;
    let weight = annotation(WEIGHT).and_then(|weight| weight.trim().parse().ok()).unwrap_or_default();
    // Helm takes them in any case of letters.
    let has = |name: &str| events.split(',').any(|event| event.trim().eq_ignore_ascii_case(name));
    Some(match () {
        () if has("crd-install") => Hook::Installed,
        // What is for both is for the install: there, it comes first.
        () if has("pre-install") => Hook::Before(weight),
        () if has("post-install") => Hook::After(weight),
        () if has("pre-upgrade") => Hook::Before(weight),
        () if has("post-upgrade") => Hook::After(weight),
        () => Hook::Elsewhere(events),
    })
}

/// Whether an object with these annotations is to stay where a chart's objects are taken away.
pub fn stays(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get("helm.sh/resource-policy").is_some_and(|policy| policy.trim().eq_ignore_ascii_case("keep"))
}

/// The events that a hook is for which is not applied.
pub fn skipped(object: &Value) -> Option<&str> {
    match hook(object)? {
        Hook::Elsewhere(events) => Some(events),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hooks_by_their_events() {
        for (events, weight, expected) in [
            ("pre-install", None, Hook::Before(0)),
            ("pre-install,pre-upgrade", Some("-5"), Hook::Before(-5)),
            (" post-install , post-upgrade", Some("7"), Hook::After(7)),
            ("Pre-Install", Some(" 3 "), Hook::Before(3)),
            ("post-upgrade,pre-install", Some("x"), Hook::Before(0)),
            ("pre-upgrade", None, Hook::Before(0)),
            ("post-upgrade", None, Hook::After(0)),
            ("test,post-install", None, Hook::After(0)),
            ("crd-install", None, Hook::Installed),
            ("test", None, Hook::Elsewhere("test")),
            ("test-success", None, Hook::Elsewhere("test-success")),
            ("pre-delete,post-delete", None, Hook::Elsewhere("pre-delete,post-delete")),
            ("pre-rollback", None, Hook::Elsewhere("pre-rollback")),
            ("", None, Hook::Elsewhere("")),
        ] {
            let object = json!({"metadata": {"annotations": {HOOK: events, WEIGHT: weight}}});
            assert_eq!(hook(&object), Some(expected), "{events}");
        }
        for none in
            [json!({}), json!({"metadata": {"annotations": null}}), json!({"metadata": {"annotations": {HOOK: 1}}})]
        {
            assert_eq!(hook(&none), None, "{none}");
        }
    }
}
