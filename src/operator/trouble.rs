//! Why a tenant's pods do not come, and what to do about it. Pure.

use serde_json::Value;

use super::tenant::Tenant;
use crate::api::{self, Verdict};

/// What is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// In one word.
    pub reason: &'static str,
    /// Cause and remedy.
    pub message: String,
}

fn trouble(reason: &'static str, message: impl Into<String>) -> Trouble {
    Trouble { reason, message: message.into() }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What keeps the pods of `component` (as their label says) from being ready: `workload` is its StatefulSet or Deployment.
pub fn find(tenant: &Tenant, component: &str, workload: &Value, pods: &[Value], warnings: &[Value]) -> Option<Trouble> {
    let own: Vec<&Value> = pods.iter().filter(|pod| pod["metadata"]["labels"]["component"] == component).collect();
    let failure = workload["status"]["conditions"].as_array().into_iter().flatten();
    let mut failure = failure.filter(|one| one["type"] == "ReplicaFailure" && one["status"] == "True");
    if let Some(message) = failure.next().map(|one| text(one, "/message")) {
        return Some(not_made(message));
    }
    let said = |name: &str, reason: &str| {
        let mut about: Vec<&Value> = warnings
            .iter()
            .filter(|event| event["involvedObject"]["name"] == name && event["reason"] == reason)
            .collect();
        about.sort_by_key(|event| text(event, "/lastTimestamp").to_owned());
        about.last().map(|event| text(event, "/message"))
    };
    if own.is_empty() {
        return said(text(workload, "/metadata/name"), "FailedCreate").map(not_made);
    }
    let of_pods =
        own.into_iter().find_map(|pod| of_pod(tenant, pod, &|reason| said(text(pod, "/metadata/name"), reason)));
    of_pods.or_else(|| not_ready(tenant, workload))
}

/// Pods that run, and do not become ready in the time that their Deployment gives them.
fn not_ready(tenant: &Tenant, workload: &Value) -> Option<Trouble> {
    let mut all = workload["status"]["conditions"].as_array().into_iter().flatten();
    let late = all.find(|one| one["type"] == "Progressing" && one["reason"] == "ProgressDeadlineExceeded")?;
    let (namespace, name) = (&tenant.namespace, text(workload, "/metadata/name"));
    let remedy = format!("`kubectl -n {namespace} logs deployment/{name}` says why");
    Some(trouble("NotReady", format!("{}. {remedy}", text(late, "/message"))))
}

/// Pods that are not let in.
fn not_made(message: &str) -> Trouble {
    if message.contains("exceeded quota") {
        return trouble(
            "QuotaExceeded",
            format!("{message}. Raise the ResourceQuota of the namespace, or make room in it"),
        );
    }
    if message.contains("violates PodSecurity") {
        let remedy = "Label the namespace pod-security.kubernetes.io/enforce=privileged (etcd.localPath needs it), or use etcd.volume";
        return trouble("PodsRefused", format!("{message}. {remedy}"));
    }
    trouble("PodsRefused", format!("{message}. What refuses them is named there"))
}

fn of_pod<'a>(tenant: &Tenant, pod: &Value, said: &dyn Fn(&str) -> Option<&'a str>) -> Option<Trouble> {
    let (namespace, name) = (&tenant.namespace, text(pod, "/metadata/name"));
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut unscheduled = conditions.filter(|one| one["type"] == "PodScheduled" && one["status"] == "False");
    if let Some(message) = unscheduled.next().map(|one| text(one, "/message")) {
        let remedy = "spec.nodeSelector, spec.tolerations and etcd say where it may run";
        return Some(trouble("Unschedulable", format!("the pod {name} fits no node: {message}. {remedy}")));
    }
    for status in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
        let (reason, message) = (text(status, "/state/waiting/reason"), text(status, "/state/waiting/message"));
        let image = text(status, "/image");
        match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                let remedy = "Push it, or correct spec.images, spec.imageRepository or spec.kubernetesVersion";
                return Some(trouble("ImageNotPulled", format!("{image} cannot be pulled: {message}. {remedy}")));
            }
            "CrashLoopBackOff" => {
                let remedy = format!("`kubectl -n {namespace} logs {name} --previous` says why");
                return Some(trouble("Crashes", format!("the pod {name} ends again and again. {remedy}")));
            }
            "CreateContainerError" | "CreateContainerConfigError" | "RunContainerError" => {
                let remedy = format!("`kubectl -n {namespace} describe pod {name}` has more");
                return Some(trouble("NotStarted", format!("the pod {name} does not start: {message}. {remedy}")));
            }
            _ => {}
        }
        if reason == "ContainerCreating"
            && let Some(message) = said("FailedMount")
        {
            let remedy = match &tenant.spec.etcd.local_path {
                Some(local) if message.contains("hostPath") => {
                    let node = text(pod, "/spec/nodeName");
                    let node = if node.is_empty() { local.node(0) } else { node };
                    format!("Make the folder {} on the node {node}, or have its disk mounted", local.path)
                }
                _ => format!("`kubectl -n {namespace} describe pod {name}` has more"),
            };
            return Some(trouble("NotMounted", format!("the pod {name} waits for a volume: {message}. {remedy}")));
        }
    }
    None
}

/// What the API server's refusal of an object means.
pub fn of_refusal(tenant: &Tenant, what: &str, error: &kube::Error) -> Trouble {
    let message = api::explain(error);
    let namespace = &tenant.namespace;
    let again = || trouble("Failed", format!("cannot write {what}: {message}. It is tried again"));
    match api::verdict(error) {
        Verdict::Again(_) | Verdict::Stale => again(),
        _ if message.contains("provided port is already allocated")
            || message.contains("provided port is not in the valid range") =>
        {
            let remedy = "Name another one in exposure.nodePort of a new object, or leave it out";
            trouble("NodePortTaken", format!("{message}. {remedy}"))
        }
        _ if message.contains("exceeded quota") => not_made(&message),
        _ if message.contains("because it is being terminated") => trouble(
            "NamespaceTerminating",
            format!("the namespace {namespace} is being deleted, and this tenant with it"),
        ),
        _ if message.contains("hoist-operator") && message.contains("cannot") => {
            let remedy = format!("`hoist hosting install --tenant-namespace {namespace}` lets it work there");
            trouble("Forbidden", format!("the operator may not act in the namespace {namespace}: {message}. {remedy}"))
        }
        _ => trouble("Refused", format!("the API server refuses {what}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tenant::tests::object;
    use super::*;

    fn tenant() -> Tenant {
        Tenant::read(&object(&json!({}))).unwrap()
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({"metadata": {"name": "a-etcd-0", "labels": {"component": "etcd"}}, "status": {"containerStatuses": [
            {"image": "r.io/etcd:1", "state": {"waiting": {"reason": reason, "message": message}}}]}})
    }

    #[test]
    fn what_is_in_the_way_is_named_with_its_remedy() {
        let quota = json!({"involvedObject": {"name": "a-etcd"}, "reason": "FailedCreate", "lastTimestamp": "2",
            "message": "create Pod a-etcd-0 in StatefulSet a-etcd failed error: pods \"a-etcd-0\" is forbidden: exceeded quota: q"});
        let mount = json!({"involvedObject": {"name": "a-etcd-0"}, "reason": "FailedMount", "lastTimestamp": "1",
            "message": "MountVolume.SetUp failed for volume \"data\" : hostPath type check failed: /srv/tenants is not a directory"});
        let pending = json!({"metadata": {"name": "a-etcd-0", "labels": {"component": "etcd"}}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]}});
        let set = json!({"metadata": {"name": "a-etcd"}});
        let warnings = [quota, mount];
        for (pods, reason, remedy) in [
            (vec![], "QuotaExceeded", "Raise the ResourceQuota"),
            (vec![waiting("ImagePullBackOff", "not found")], "ImageNotPulled", "Push it, or correct spec.images"),
            (vec![waiting("CrashLoopBackOff", "")], "Crashes", "kubectl -n n logs a-etcd-0 --previous"),
            (vec![waiting("ContainerCreating", "")], "NotMounted", "Make the folder /srv/tenants on the node w1"),
            (vec![pending], "Unschedulable", "spec.nodeSelector"),
        ] {
            let found = find(&tenant(), "etcd", &set, &pods, &warnings).unwrap();
            assert_eq!(found.reason, reason);
            assert!(found.message.contains(remedy), "{found:?}");
        }
        let other = [json!({"metadata": {"name": "a-scheduler-x", "labels": {"component": "kube-scheduler"}}})];
        let late = json!({"metadata": {"name": "a-scheduler"}, "status": {"conditions": [{"type": "Progressing", "status": "False",
            "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet \"a-scheduler-1\" has timed out progressing."}]}});
        let found = find(&tenant(), "kube-scheduler", &late, &other, &warnings).unwrap();
        assert!(found.reason == "NotReady" && found.message.contains("logs deployment/a-scheduler"), "{found:?}");
        assert_eq!(find(&tenant(), "kube-scheduler", &set, &other, &warnings), None, "it is on its way");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let status = |code: u16, message: &str| {
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code});
            kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
        };
        for (code, message, reason) in [
            (
                422,
                "Service \"a-apiserver\" is invalid: spec.ports[0].nodePort: Invalid value: 30443: provided port is already allocated",
                "NodePortTaken",
            ),
            (403, "secrets \"a-pki\" is forbidden: exceeded quota: q", "QuotaExceeded"),
            (
                403,
                "secrets is forbidden: User \"system:serviceaccount:hoist-hosting:hoist-operator\" cannot create resource",
                "Forbidden",
            ),
            (
                403,
                "secrets \"a\" is forbidden: unable to create new content in namespace n because it is being terminated",
                "NamespaceTerminating",
            ),
            (422, "StatefulSet is invalid", "Refused"),
            (503, "later", "Failed"),
        ] {
            assert_eq!(of_refusal(&tenant(), "the Service a", &status(code, message)).reason, reason, "{message}");
        }
    }
}
