//! Whether an applied object is ready, by its status: pure. Kinds that are not named here count as ready.

use serde_json::Value;

use crate::desired::assets::Manifest;

/// How an object stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Readiness {
    /// What builds on it may come.
    Ready,
    /// Not yet, for this reason.
    Waiting(String),
    /// It will not get ready by itself, for this reason.
    Failed(String),
}

use Readiness::{Failed, Ready, Waiting};

/// Whether objects of this manifest's kind are waited for.
pub(super) fn is_awaited(manifest: &Manifest) -> bool {
    matches!(
        manifest.text("/kind"),
        "Deployment" | "DaemonSet" | "StatefulSet" | "Job" | "Pod" | "CustomResourceDefinition" | "APIService"
    ) || !webhook_services(manifest).is_empty()
}

/// The Services, by namespace and name, that a webhook configuration has asked.
pub(super) fn webhook_services(manifest: &Manifest) -> Vec<(&str, &str)> {
    if !manifest.text("/kind").ends_with("WebhookConfiguration") {
        return Vec::new();
    }
    let webhooks: &[Value] = manifest.object.pointer("/webhooks").and_then(Value::as_array).map_or(&[], Vec::as_slice);
    let mut found = Vec::new();
    for webhook in webhooks {
        let service = webhook.pointer("/clientConfig/service");
        let text = |field: &str| service?.get(field)?.as_str();
        if let Some(service) = text("namespace").zip(text("name"))
            && !found.contains(&service)
        {
            found.push(service);
        }
    }
    found
}

/// How an object stands as it is now; `None` is one that is not there.
pub(super) fn judge(live: Option<&Value>) -> Readiness {
    let Some(live) = live else { return Waiting("is not there".into()) };
    let spec = |name: &str| live.pointer(&format!("/spec/{name}"));
    let is_suspended = spec("suspend") == Some(&Value::Bool(true));
    match live["kind"].as_str().unwrap_or_default() {
        "Deployment" => rolled_out(live, "updatedReplicas", "availableReplicas", wanted(live)),
        "StatefulSet" if spec("updateStrategy/type").is_some_and(|kind| kind == "OnDelete") => Ready,
        "StatefulSet" => rolled_out(live, "updatedReplicas", "availableReplicas", wanted(live)),
        "DaemonSet" if spec("updateStrategy/type").is_some_and(|kind| kind == "OnDelete") => Ready,
        "DaemonSet" => {
            let wanted = count(live, "desiredNumberScheduled");
            rolled_out(live, "updatedNumberScheduled", "numberAvailable", wanted)
        }
        "Job" if is_suspended => Ready,
        "Job" => match (condition(live, "Complete"), condition(live, "Failed")) {
            (Some((true, _)), _) => Ready,
            (_, Some((true, why))) => Failed(format!("failed: {why}")),
            _ => Waiting("is not complete".into()),
        },
        "Pod" => match (live.pointer("/status/phase").and_then(Value::as_str), condition(live, "Ready")) {
            (Some("Succeeded"), _) | (_, Some((true, _))) => Ready,
            (Some("Failed"), _) => Failed("failed".into()),
            _ => Waiting("is not ready".into()),
        },
        "CustomResourceDefinition" => match (condition(live, "Established"), condition(live, "NamesAccepted")) {
            (_, Some((false, why))) => Failed(format!("its names are not accepted: {why}")),
            (Some((true, _)), _) => Ready,
            _ => Waiting("is not established".into()),
        },
        "APIService" => match condition(live, "Available") {
            Some((true, _)) => Ready,
            Some((false, why)) => Waiting(format!("is not available: {why}")),
            None => Waiting("is not available".into()),
        },
        _ => Ready,
    }
}

/// Why an object as it is now is not ready; `None` where it is.
pub fn unready(live: Option<&Value>) -> Option<String> {
    match judge(live) {
        Ready => None,
        Waiting(why) | Failed(why) => Some(why),
    }
}

/// As `kubectl rollout status` sees it.
fn rolled_out(live: &Value, updated: &str, available: &str, wanted: i64) -> Readiness {
    let generation = live.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default();
    if count(live, "observedGeneration") < generation {
        return Waiting("has not been seen by its controller yet".into());
    }
    let partition = live.pointer("/spec/updateStrategy/rollingUpdate/partition").and_then(Value::as_i64);
    let to_update = wanted - partition.unwrap_or_default().clamp(0, wanted);
    let why = match condition(live, "Progressing") {
        Some((false, why)) => format!(" ({why})"),
        _ => String::new(),
    };
    let (updated, available) = (count(live, updated), count(live, available));
    if updated < to_update {
        return Waiting(format!("{updated} of {to_update} updated{why}"));
    }
    if live["kind"] == "Deployment" && count(live, "replicas") > updated {
        return Waiting(format!("{} old pods are still there", count(live, "replicas") - updated));
    }
    if available < wanted { Waiting(format!("{available} of {wanted} available{why}")) } else { Ready }
}

fn wanted(live: &Value) -> i64 {
    live.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

fn count(live: &Value, name: &str) -> i64 {
    live["status"][name].as_i64().unwrap_or_default()
}

/// A condition of an object: whether it holds, and why.
fn condition(live: &Value, kind: &str) -> Option<(bool, String)> {
    let conditions = live.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().filter(|text| !text.is_empty());
    let why = text("message").or(text("reason")).unwrap_or("no reason is given");
    match found["status"].as_str() {
        Some("True") => Some((true, why.to_owned())),
        Some("False") => Some((false, why.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn waiting(text: &str) -> Readiness {
        Waiting(text.into())
    }

    #[test]
    fn a_workload_is_ready_when_it_is_rolled_out() {
        let deployment = |status: Value| {
            judge(Some(
                &json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}),
            ))
        };
        assert_eq!(deployment(json!({})), waiting("has not been seen by its controller yet"));
        let seen = |updated, available, replicas| {
            deployment(
                json!({"observedGeneration": 2, "updatedReplicas": updated, "availableReplicas": available, "replicas": replicas}),
            )
        };
        assert_eq!(seen(1, 2, 3), waiting("1 of 2 updated"));
        assert_eq!(seen(2, 2, 3), waiting("1 old pods are still there"));
        assert_eq!(seen(2, 1, 2), waiting("1 of 2 available"));
        assert_eq!(seen(2, 2, 2), Ready);
        let late = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
        assert_eq!(
            deployment(json!({"observedGeneration": 2, "conditions": late})),
            waiting("0 of 2 updated (ProgressDeadlineExceeded)")
        );

        let daemonset = |kind: &str, desired, available| {
            judge(Some(&json!({"kind": "DaemonSet", "spec": {"updateStrategy": {"type": kind}},
                "status": {"desiredNumberScheduled": desired, "updatedNumberScheduled": 1, "numberAvailable": available}})))
        };
        assert_eq!(daemonset("RollingUpdate", 1, 0), waiting("0 of 1 available"));
        assert_eq!(daemonset("RollingUpdate", 0, 0), Ready, "no node wants one");
        assert_eq!(daemonset("OnDelete", 1, 0), Ready, "nobody rolls it");

        let stateful = json!({"kind": "StatefulSet", "spec": {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}},
            "status": {"updatedReplicas": 1, "availableReplicas": 3}});
        assert_eq!(judge(Some(&stateful)), Ready);
    }

    #[test]
    fn by_their_conditions() {
        let of = |kind: &str, condition: &str, status: &str| {
            let conditions = json!([{"type": condition, "status": status, "message": "so it is"}]);
            judge(Some(&json!({"kind": kind, "status": {"conditions": conditions}})))
        };
        assert_eq!(of("Job", "Complete", "True"), Ready);
        assert_eq!(of("Job", "Failed", "True"), Failed("failed: so it is".into()));
        assert_eq!(of("Job", "Suspended", "False"), waiting("is not complete"));
        assert_eq!(of("CustomResourceDefinition", "Established", "True"), Ready);
        assert_eq!(of("CustomResourceDefinition", "Established", "Unknown"), waiting("is not established"));
        assert_eq!(
            of("CustomResourceDefinition", "NamesAccepted", "False"),
            Failed("its names are not accepted: so it is".into())
        );
        assert_eq!(of("APIService", "Available", "False"), waiting("is not available: so it is"));
        assert_eq!(of("Pod", "Ready", "True"), Ready);
        assert_eq!(of("Service", "Whatever", "False"), Ready);
        assert_eq!(judge(Some(&json!({"kind": "Job", "spec": {"suspend": true}}))), Ready);
        assert_eq!(judge(Some(&json!({"kind": "Pod", "status": {"phase": "Failed"}}))), Failed("failed".into()));
        assert_eq!(judge(None), waiting("is not there"));
    }

    #[test]
    fn the_services_of_webhooks() {
        let webhook = |name: &str| json!({"clientConfig": {"service": {"namespace": "demo", "name": name}}});
        let object = json!({"kind": "ValidatingWebhookConfiguration",
            "webhooks": [webhook("a"), webhook("b"), webhook("a"), {"clientConfig": {"url": "https://x"}}]});
        let manifest = Manifest { path: String::new(), line: 1, object };
        assert_eq!(webhook_services(&manifest), [("demo", "a"), ("demo", "b")]);
        assert!(is_awaited(&manifest));
        let other = Manifest { object: json!({"kind": "ConfigMap", "webhooks": [webhook("a")]}), ..manifest };
        assert!(!is_awaited(&other));
    }
}
