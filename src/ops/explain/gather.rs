//! Reads what may explain a pod that is not ready: the pod, its workload, its Node, the events about them, its logs. What
//! cannot be read is left out: this is an explanation, and must not fail for its own reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Node, Pod};
use kube::api::{Api, DynamicObject, ListParams, LogParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::causes::{NOT_LOOKED_AT, NOT_TAKEN_UP, Subject, WANTS_NO_POD};
use super::logs::{Log, PodLogs};
use super::{Context, LINES, LOOKED_THROUGH, Trouble};
use crate::api::observe::{ClusterView, PodView, Required};
use crate::base::report::without_numbers;
use crate::desired::secrets::BRIDGE_PODS;
use crate::node::kubelet;

/// How long one question to the API may take.
const ASK_LIMIT: Duration = Duration::from_secs(3);
/// How many lines of the kubelet's journal.
const JOURNAL_LINES: usize = 200;
/// The static pods without which no API is served.
const STATIC_PODS: [&str; 2] = [BRIDGE_PODS[0], "etcd"];

/// What is wrong with this machine, whatever its pods say: nothing of them gets on while it is.
pub(super) fn of_this_machine(context: &Context<'_>, found: &[String]) -> Vec<(Trouble, Subject)> {
    let trouble = |state: &String| {
        let (who, pod) = (format!("this machine ({})", context.node), "etcd");
        let trouble = Trouble { who, states: vec![state.clone()], ..Trouble::default() };
        (trouble, context.static_subject(pod, pod))
    };
    found.iter().map(trouble).collect()
}

/// The answer, if there is one in time.
async fn asked<T>(question: impl Future<Output = kube::Result<T>>) -> Option<T> {
    tokio::time::timeout(ASK_LIMIT, question).await.ok()?.ok()
}

/// Every required workload that is not ready.
pub(super) async fn workloads(
    context: &Context<'_>,
    client: &Client,
    view: &ClusterView,
    pod_logs: &PodLogs,
) -> Vec<(Trouble, Subject)> {
    let mut found = Vec::new();
    let mut events = BTreeMap::new();
    for required in context.required {
        let pods: Vec<_> = view.pods_of(required, context.node).collect();
        if pods.iter().any(|pod| pod.ready) {
            continue;
        }
        if !events.contains_key(&required.namespace) {
            let api: Api<Event> = Api::namespaced(client.clone(), &required.namespace);
            let list = asked(api.list(&ListParams::default().limit(1000))).await;
            events.insert(required.namespace.clone(), list.map(|list| list.items).unwrap_or_default());
        }
        let events = &events[&required.namespace];
        let workload = workload(client, required).await;
        if pods.is_empty() {
            let trouble = without_pod(context, client, required, &workload, events, pod_logs).await;
            found.push((trouble, context.subject(required, workload.kind, "", &required.name)));
        }
        for pod in pods {
            let (trouble, container) = of_pod(context, client, required, pod, events, pod_logs).await;
            found.push((trouble, context.subject(required, workload.kind, &pod.name, &container)));
        }
    }
    found
}

/// What a required name turned out to be.
#[derive(Default)]
struct Workload {
    kind: &'static str,
    /// A controller manager has seen it as it is.
    is_seen: bool,
    /// How many pods it wants.
    wants: i64,
    node_selector: BTreeMap<String, String>,
    tolerations: Vec<Value>,
}

async fn workload(client: &Client, required: &Required) -> Workload {
    for kind in ["DaemonSet", "Deployment", "StatefulSet"] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &required.namespace, &resource);
        if let Some(Some(found)) = asked(api.get_opt(&required.name)).await {
            return as_workload(kind, &found);
        }
    }
    Workload::default()
}

fn as_workload(kind: &'static str, object: &DynamicObject) -> Workload {
    let at = |pointer| object.data.pointer(pointer);
    let number = |pointer| at(pointer).and_then(Value::as_i64);
    let selector = at("/spec/template/spec/nodeSelector").and_then(Value::as_object).into_iter().flatten();
    Workload {
        kind,
        is_seen: number("/status/observedGeneration") >= object.metadata.generation,
        wants: match kind {
            "DaemonSet" => number("/status/desiredNumberScheduled").unwrap_or(0),
            _ => number("/spec/replicas").unwrap_or(1),
        },
        node_selector: selector.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
        tolerations: at("/spec/template/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default(),
    }
}

/// A workload that has no pod: the events about it say why, or nothing does.
async fn without_pod(
    context: &Context<'_>,
    client: &Client,
    required: &Required,
    workload: &Workload,
    events: &[Event],
    pod_logs: &PodLogs,
) -> Trouble {
    let state = match workload.kind {
        "" => format!("there is no DaemonSet, Deployment, StatefulSet or Pod {required}"),
        kind if !workload.is_seen => format!("the {kind} {NOT_TAKEN_UP}"),
        "DaemonSet" if workload.wants == 0 => {
            let node = asked(Api::<Node>::all(client.clone()).get_opt(context.node)).await.flatten();
            format!("the DaemonSet {WANTS_NO_POD}{}", unfit(workload, context.node, node.as_ref()))
        }
        kind if workload.wants == 0 => format!("the {kind} wants no pod: its replicas are 0"),
        kind => format!("the {kind} wants {}, and has no pod", counted(workload.wants)),
    };
    let mut trouble = Trouble { who: required.to_string(), states: vec![state], ..Trouble::default() };
    // Of the workload, and of the ReplicaSets of a Deployment.
    let about = |event: &Event| {
        let name = event.involved_object.name.as_deref().unwrap_or_default();
        let is_set = event.involved_object.kind.as_deref() == Some("ReplicaSet");
        name == required.name || is_set && name.rsplit_once('-').is_some_and(|(stem, _)| stem == required.name)
    };
    trouble.events = told_events(events.iter().filter(|event| about(event)));
    let prefix = format!("{}-", required.name);
    if let Some(pod) = pod_logs.last_of(&required.namespace, &prefix) {
        for log in pod_logs.of_pod(context.host, &required.namespace, pod) {
            add_log(&mut trouble, log, &format!(" of {pod}, which is gone"), true);
        }
    }
    trouble
}

/// Why the Node is none for the DaemonSet.
fn unfit(workload: &Workload, name: &str, node: Option<&Node>) -> String {
    let Some(node) = node else { return format!("there is no node {name}") };
    let lacks: Vec<_> = workload
        .node_selector
        .iter()
        .filter(|(key, value)| node.labels().get(*key) != Some(value))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if !lacks.is_empty() {
        return format!("its nodeSelector asks for the label {}, which {name} does not have", lacks.join(" and "));
    }
    let tolerates = |key: &str| {
        workload.tolerations.iter().any(|toleration| {
            let wanted = toleration.get("key").and_then(Value::as_str);
            wanted.is_none_or(|wanted| wanted == key)
        })
    };
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let hard = taints.iter().filter(|taint| taint.effect != "PreferNoSchedule" && !tolerates(&taint.key));
    let taints: Vec<_> = hard.map(|taint| taint.key.as_str()).collect();
    if taints.is_empty() {
        "its nodeSelector, affinity or tolerations leave every node out".into()
    } else {
        format!("it does not tolerate the taint {} of {name}", taints.join(" and "))
    }
}

fn counted(pods: i64) -> String {
    if pods == 1 { "1 pod".into() } else { format!("{pods} pods") }
}

/// A pod that is not ready, and the container of it that is to blame.
async fn of_pod(
    context: &Context<'_>,
    client: &Client,
    required: &Required,
    view: &PodView,
    events: &[Event],
    pod_logs: &PodLogs,
) -> (Trouble, String) {
    let namespace = &required.namespace;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = asked(api.get_opt(&view.name)).await.flatten().unwrap_or_default();
    let place = view.node.as_ref().map_or_else(|| ", on no node yet".into(), |node| format!(" on {node}"));
    let mut trouble = Trouble { who: format!("{namespace}/{}{place}", view.name), ..Trouble::default() };
    let status = pod.status.unwrap_or_default();
    let containers =
        [status.init_container_statuses, status.container_statuses].map(Option::unwrap_or_default).concat();
    let bad: Vec<_> = containers.iter().filter(|container| is_bad(container)).collect();
    trouble.states = bad.iter().map(|container| container_state(container)).collect();
    let conditions = status.conditions.unwrap_or_default();
    let unscheduled =
        conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        trouble.states.push(format!("Pending: {}", condition.message.as_deref().unwrap_or("it has no node yet")));
    }
    if let Some(message) = status.message {
        trouble.states.push(format!("{}: {message}", status.reason.unwrap_or_default()));
    }
    if trouble.states.is_empty() && view.node.is_none() {
        trouble.states.push(NOT_LOOKED_AT.into());
    }
    if trouble.states.is_empty() {
        trouble.states.push(view.reason.clone());
    }
    let runs: BTreeSet<_> = bad
        .iter()
        .filter(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
        .map(|container| container.name.as_str())
        .collect();
    let mut logs = Vec::new();
    if view.node.as_deref() == Some(context.node) {
        logs = pod_logs.of_pod(context.host, namespace, &view.name);
    }
    if logs.is_empty() {
        for container in &bad {
            logs.push(log_by_api(&api, &view.name, container).await);
        }
    }
    logs.retain(|log| bad.iter().any(|container| container.name == log.container));
    for log in logs {
        let running = runs.contains(log.container.as_str());
        add_log(&mut trouble, log, "", !running);
    }
    let about = |event: &&Event| event.involved_object.name.as_deref() == Some(view.name.as_str());
    trouble.events = told_events(events.iter().filter(about));
    let container = bad.first().map_or_else(|| required.name.clone(), |container| container.name.clone());
    (trouble, container)
}

fn is_bad(container: &ContainerStatus) -> bool {
    let state = container.state.as_ref();
    let ended_well = state.and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0);
    !container.ready && !ended_well
}

async fn log_by_api(api: &Api<Pod>, pod: &str, container: &ContainerStatus) -> Log {
    let mut log = Log { container: container.name.clone(), ..Log::default() };
    for previous in [true, false] {
        if previous && container.restart_count == 0 {
            continue;
        }
        let params = LogParams {
            container: Some(container.name.clone()),
            tail_lines: i64::try_from(LOOKED_THROUGH).ok(),
            previous,
            ..LogParams::default()
        };
        let text = asked(api.logs(pod, &params)).await.unwrap_or_default();
        let lines = text.lines().map(str::to_owned).collect();
        if previous { log.previous = lines } else { log.current = lines }
    }
    log
}

/// Adds the log of the run that failed: the last one if that has ended, or else the one before it, too.
fn add_log(trouble: &mut Trouble, log: Log, of: &str, has_ended: bool) {
    let Log { container, previous, current } = log;
    if !previous.is_empty() && (!has_ended || current.is_empty()) {
        trouble.logs.push((format!("the last lines of {container}{of} before it was restarted"), previous));
    }
    if !current.is_empty() {
        trouble.logs.push((format!("the last lines of {container}{of}"), current));
    }
}

/// What a container is in, how often it was restarted, how it last ended.
fn container_state(container: &ContainerStatus) -> String {
    let mut text = format!("container {}: {}", container.name, state(container.state.as_ref()));
    if container.restart_count > 0 {
        let times =
            if container.restart_count == 1 { "once".into() } else { format!("{} times", container.restart_count) };
        text.push_str(&format!("; restarted {times}"));
    }
    if let Some(last) = container.last_state.as_ref().filter(|last| last.terminated.is_some()) {
        text.push_str(&format!("; the last time it {}", state(Some(last))));
    }
    text
}

fn state(state: Option<&ContainerState>) -> String {
    let with = |reason: Option<&str>, message: Option<&str>| match (reason, message) {
        (Some(reason), Some(message)) => format!("{reason}: {message}"),
        (reason, message) => reason.or(message).unwrap_or_default().to_owned(),
    };
    let Some(state) = state else { return "not seen by a kubelet yet".into() };
    if let Some(waiting) = &state.waiting {
        return with(waiting.reason.as_deref().or(Some("waiting")), waiting.message.as_deref());
    }
    match &state.terminated {
        Some(ended) => {
            let why = with(ended.reason.as_deref(), ended.message.as_deref());
            format!("ended with exit code {} ({why})", ended.exit_code)
        }
        None => "runs, and is not ready".into(),
    }
}

/// Warnings, the newest first; where there are none, what else was said last.
fn told_events<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<String> {
    let mut events: Vec<_> = events.map(|event| (last_seen(event), event)).collect();
    events.sort_by(|a, b| b.0.cmp(&a.0));
    let is_warning = |event: &Event| event.type_.as_deref() == Some("Warning");
    let has_warnings = events.iter().any(|(_, event)| is_warning(event));
    let mut told: Vec<String> = Vec::new();
    for (_, event) in events.into_iter().filter(|(_, event)| !has_warnings || is_warning(event)) {
        let times = event.count.filter(|count| *count > 1).map(|count| format!(" (×{count})")).unwrap_or_default();
        let text =
            format!("{}: {}", event.reason.as_deref().unwrap_or("event"), event.message.as_deref().unwrap_or_default());
        if told.len() < LINES && !told.iter().any(|there| without_numbers(there).starts_with(&without_numbers(&text))) {
            told.push(text + &times);
        }
    }
    told
}

/// When an event last was, as text that sorts like the time.
fn last_seen(event: &Event) -> String {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let precise = series.or(event.event_time.as_ref()).map(|time| time.0.to_string());
    let coarse = event.last_timestamp.as_ref().or(event.first_timestamp.as_ref()).map(|time| time.0.to_string());
    coarse.max(precise).unwrap_or_default()
}

/// etcd and the bridge's API server, by what this host has of them, where the API does not answer.
pub(super) async fn static_pods(context: &Context<'_>, pod_logs: &PodLogs) -> Vec<(Trouble, Subject)> {
    let journal = kubelet::last_lines(context.host, JOURNAL_LINES).await;
    let mut found = Vec::new();
    for pod in STATIC_PODS {
        if !context.host.manifests().join(format!("{pod}.yaml")).exists() {
            continue;
        }
        let name = format!("{pod}-{}", context.node);
        let mut trouble = Trouble { who: format!("the static pod {pod} on {}", context.node), ..Trouble::default() };
        let logs = pod_logs.of_pod(context.host, "kube-system", &name);
        if logs.is_empty() {
            trouble.states.push("no container of it has run here".into());
        }
        // The forwarder only waits for the API server.
        for log in logs.into_iter().filter(|log| log.container != "forwarder") {
            add_log(&mut trouble, log, "", false);
        }
        trouble.maybe = pod == "etcd";
        trouble.hidden = journal.iter().rev().filter(|line| line.contains(&name)).cloned().collect();
        if let Some(line) = trouble.hidden.iter().find(|line| line.contains("Error syncing pod")) {
            trouble.states.push(format!("the kubelet says: {line}"));
        }
        let container = if pod == "etcd" { "etcd" } else { "kube-apiserver" };
        found.push((trouble, context.static_subject(pod, container)));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, reason: &str, message: &str, last: &str, count: i32) -> Event {
        serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {}, "type": kind, "reason": reason, "message": message,
            "lastTimestamp": last, "count": count,
        }))
        .unwrap()
    }

    #[test]
    fn warnings_are_told_the_newest_first_and_each_once() {
        let events = [
            event("Warning", "Failed", "read udp [::1]:49840: refused", "2026-11-21T12:00:01Z", 1),
            event("Normal", "Pulling", "Pulling image", "2026-11-21T12:00:05Z", 1),
            event("Warning", "BackOff", "Back-off", "2026-11-21T12:00:03Z", 8),
            event("Warning", "Failed", "read udp [::1]:57427: refused", "2026-11-21T12:00:02Z", 1),
        ];
        let told = told_events(events.iter());
        assert_eq!(told, ["BackOff: Back-off (×8)", "Failed: read udp [::1]:57427: refused"]);
        assert_eq!(told_events(events[1..2].iter()), ["Pulling: Pulling image"], "better than nothing");
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"]
            .map(|text| event("Warning", "Failed", text, "2026-11-21T12:00:01Z", 1))
            .into();
        assert_eq!(told_events(many.iter()).len(), LINES);
    }

    #[test]
    fn a_container_is_told_with_its_state_its_restarts_and_its_last_end() {
        let container = |state, last, restarts| {
            let status = json!({
                "name": "a", "image": "", "imageID": "", "ready": false, "restartCount": restarts,
                "state": state, "lastState": last,
            });
            container_state(&serde_json::from_value(status).unwrap())
        };
        let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
        assert_eq!(
            container(waiting, ended, 2),
            "container a: CrashLoopBackOff: back-off 10s; restarted 2 times; the last time it ended with exit code 137 (OOMKilled)"
        );
        assert_eq!(container(json!({"running": {}}), json!({}), 0), "container a: runs, and is not ready");
    }

    #[test]
    fn a_workload_is_read_from_whatever_kind_it_is() {
        let object = |value: Value| serde_json::from_value::<DynamicObject>(value).unwrap();
        let daemon_set = object(json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "a", "generation": 2},
            "spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}]}}},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 3},
        }));
        let read = as_workload("DaemonSet", &daemon_set);
        assert!(!read.is_seen && read.wants == 3 && read.node_selector["disk"] == "ssd" && read.tolerations.len() == 1);
        let deployment = object(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "generation": 1},
            "spec": {"replicas": 0}, "status": {"observedGeneration": 1},
        }));
        let read = as_workload("Deployment", &deployment);
        assert!(read.is_seen && read.wants == 0 && read.node_selector.is_empty());
    }

    #[test]
    fn why_a_node_is_none_for_a_daemon_set() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "c1", "labels": {"disk": "hdd", "os": "linux"}},
            "spec": {"taints": [
                {"key": "control-plane", "effect": "NoSchedule"}, {"key": "soft", "effect": "PreferNoSchedule"},
            ]},
        }))
        .unwrap();
        let selector = |pairs: &[(&str, &str)]| Workload {
            node_selector: pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..Workload::default()
        };
        assert_eq!(
            unfit(&selector(&[("disk", "ssd"), ("os", "linux")]), "c1", Some(&node)),
            "its nodeSelector asks for the label disk=ssd, which c1 does not have"
        );
        let mut fits = selector(&[("os", "linux")]);
        assert_eq!(unfit(&fits, "c1", Some(&node)), "it does not tolerate the taint control-plane of c1");
        fits.tolerations = vec![json!({"operator": "Exists"})];
        assert!(unfit(&fits, "c1", Some(&node)).contains("leave every node out"));
        assert_eq!(unfit(&fits, "c1", None), "there is no node c1");
    }
}
