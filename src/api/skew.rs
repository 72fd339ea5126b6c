//! What a cluster says that may stand in the way of another version: its kubelets, and who asks for what will go.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::{Client, ResourceExt};

use time::OffsetDateTime;

use super::{controllers, failed, page, pages, timestamp};
use crate::base::error::{Error, Result};
use crate::desired::config::Version;
use crate::desired::config::version::numbers;

/// How many Nodes are asked for at once.
const PAGE: u32 = 250;
/// What the mirror of a static pod has: the uid of its manifest, or a hash.
const MIRRORED: &str = "kubernetes.io/config.mirror";
/// What an API server says of who asks for versions of its API that will go.
const METRIC: &str = "apiserver_requested_deprecated_apis{";

/// A Node's kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubelet {
    /// The Node.
    pub node: String,
    /// The version that it says it has.
    pub version: String,
    /// The Node is ready.
    pub ready: bool,
    /// It says that a disk is too full.
    pub disk_pressure: bool,
    /// When the kubelet said that it is ready last.
    pub heard: Option<OffsetDateTime>,
}

/// What an API server serves as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serves {
    /// Its own version.
    pub version: Version,
    /// The minor version that it emulates, where that is an older one.
    pub emulates: Option<u32>,
}

/// A version of the API that somebody has asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// Group, version and resource, as `scheduling.k8s.io/v1alpha2 podgroups`.
    pub what: String,
    /// The minor version of Kubernetes 1 that does not have it any more.
    pub gone_in: u32,
}

/// All kubelets.
///
/// # Errors
/// The API server's word.
pub async fn kubelets(client: &Client) -> Result<Vec<Kubelet>> {
    let api: Api<Node> = Api::all(client.clone());
    let params = kube::api::ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    let listed = pages::each(params, async |params| api.list(params).await, |node| found.push(kubelet(&node)));
    listed.await.map_err(|error| failed("list the nodes", &error))?;
    Ok(found)
}

/// The kubelet of one Node, as it may ask itself; `None` where there is no such Node.
///
/// # Errors
/// The API server's word.
pub async fn kubelet_of(client: &Client, node: &str) -> Result<Option<Kubelet>> {
    let api: Api<Node> = Api::all(client.clone());
    let found = api.get_opt(node).await.map_err(|error| failed(format!("read the Node {node}"), &error))?;
    Ok(found.map(|node| kubelet(&node)))
}

/// A static pod of kube-system whose manifest gives it no uid, so that a kubelet of another minor version makes it anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hashed {
    /// Its node.
    pub node: String,
    /// The name of its mirror.
    pub pod: String,
}

/// All of them, by their mirrors: where a manifest has no uid, the kubelet has put a hash in its place.
///
/// # Errors
/// The API server's word.
pub async fn hashed_static_pods(client: &Client) -> Result<Vec<Hashed>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let params = kube::api::ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    let listed =
        pages::each(params, async |params| api.list_metadata(params).await, |pod| found.extend(hashed(&pod.metadata)));
    listed.await.map_err(|error| failed("list the static pods", &error))?;
    found.sort();
    Ok(found)
}

fn hashed(pod: &ObjectMeta) -> Option<Hashed> {
    let hash = pod.annotations.as_ref()?.get(MIRRORED)?;
    let node = pod.owner_references.as_ref()?.iter().find(|owner| owner.kind == "Node")?;
    // The bridge's are there for a moment.
    let is_bridge =
        pod.labels.as_ref().and_then(|labels| labels.get("component")).is_some_and(|name| name.starts_with("bridge-"));
    // A uid is written in five parts.
    (!hash.contains('-') && !is_bridge)
        .then(|| Hashed { node: node.name.clone(), pod: pod.name.clone().unwrap_or_default() })
}

/// What the API server serves as that answers.
///
/// # Errors
/// Its word, or one that says no version.
pub async fn serves(client: &Client) -> Result<Serves> {
    const ACTION: &str = "read the API server's version";
    let text = page(client, "/version", ACTION).await?;
    serves_as(&text).ok_or_else(|| Error::failed(ACTION, format!("it says {text:?}")))
}

fn serves_as(text: &str) -> Option<Serves> {
    let info: serde_json::Value = serde_json::from_str(text).ok()?;
    let (major, minor, patch) = numbers(info["gitVersion"].as_str()?)?;
    let emulated = info["emulationMinor"].as_str().and_then(|text| text.parse().ok());
    Some(Serves { version: Version { major, minor, patch }, emulates: emulated.filter(|emulated| *emulated != minor) })
}

fn kubelet(node: &Node) -> Kubelet {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let condition = |kind: &str| conditions.into_iter().flatten().find(|condition| condition.type_ == kind);
    let ready = condition("Ready");
    Kubelet {
        node: node.name_any(),
        version: status
            .and_then(|status| status.node_info.as_ref())
            .map(|info| info.kubelet_version.clone())
            .unwrap_or_default(),
        ready: ready.is_some_and(|condition| condition.status == "True"),
        disk_pressure: condition("DiskPressure").is_some_and(|condition| condition.status == "True"),
        heard: ready.and_then(|condition| Some(timestamp::moment(condition.last_heartbeat_time.as_ref()?.0))),
    }
}

/// Which versions of the API that will go somebody has asked of the API servers for since they began, each asked at its own
/// address by a client that `connect` makes.
///
/// # Errors
/// An API server that does not say.
pub async fn deprecated(client: &Client, connect: impl AsyncFn(SocketAddr) -> Result<Client>) -> Result<Vec<Asked>> {
    let mut asked = BTreeSet::new();
    for node in controllers::list(client).await? {
        let Some(address) = node.address else { continue };
        let client = connect(SocketAddr::new(address, crate::desired::config::API_PORT)).await?;
        let text = page(&client, "/metrics", &format!("read the metrics of the API server of {}", node.name)).await?;
        asked.extend(text.lines().filter_map(asked_for));
    }
    Ok(asked.into_iter().collect())
}

/// A line of the metric.
fn asked_for(line: &str) -> Option<Asked> {
    let (labels, value) = line.strip_prefix(METRIC)?.split_once('}')?;
    let label = |name: &str| {
        let all = labels.split(',').filter_map(|label| label.split_once('='));
        all.filter(|(label, _)| *label == name).map(|(_, value)| value.trim_matches('"')).next()
    };
    if value.trim().parse::<f64>().ok()? == 0.0 {
        return None;
    }
    let gone_in = label("removed_release")?.strip_prefix("1.")?.parse().ok()?;
    let group = label("group").unwrap_or_default();
    let group = if group.is_empty() { String::new() } else { format!("{group}/") };
    Some(Asked { what: format!("{group}{} {}", label("version")?, label("resource")?), gone_in })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_pod_without_a_uid_has_a_hash_for_one() {
        let pod = |mirror: &str| {
            let metadata = serde_json::json!({"name": "etcd-c1", "annotations": {"kubernetes.io/config.mirror": mirror},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "c1", "uid": "u"}]});
            hashed(&serde_json::from_value(metadata).unwrap())
        };
        assert_eq!(pod("b1d3c393-58d8-88b5-86d0-64a92abd0f76"), None);
        let found = Hashed { node: "c1".into(), pod: "etcd-c1".into() };
        assert_eq!(pod("0f002bc778374cc39f5bd5aac8f74c64"), Some(found));
        assert_eq!(hashed(&ObjectMeta::default()), None, "no mirror");
    }

    #[test]
    fn what_an_api_server_emulates_is_another_version_than_its_own() {
        let of = |text: &str| serves_as(text).map(|serves| (serves.version.to_string(), serves.emulates));
        let own = r#"{"gitVersion": "v1.37.2", "emulationMinor": "37"}"#;
        assert_eq!(of(own), Some(("v1.37.2".into(), None)));
        assert_eq!(of(r#"{"gitVersion": "v1.34.4"}"#), Some(("v1.34.4".into(), None)));
        assert_eq!(of(r#"{"gitVersion": "v1.37.2", "emulationMinor": "36"}"#), Some(("v1.37.2".into(), Some(36))));
        assert_eq!(of("{}"), None);
    }

    #[test]
    fn a_deprecated_version_that_was_asked_for_is_read_from_its_line() {
        let line = |labels: &str, value: &str| format!("apiserver_requested_deprecated_apis{{{labels}}} {value}");
        let of = |labels: &str, value: &str| asked_for(&line(labels, value));
        assert_eq!(
            of(r#"group="autoscaling",removed_release="1.37",resource="hpas",subresource="",version="v2beta1""#, "1"),
            Some(Asked { what: "autoscaling/v2beta1 hpas".into(), gone_in: 37 })
        );
        assert_eq!(
            of(r#"group="",removed_release="1.38",resource="endpoints",subresource="",version="v1""#, "1e+00"),
            Some(Asked { what: "v1 endpoints".into(), gone_in: 38 })
        );
        // Deprecated, and nobody has said until when.
        assert_eq!(of(r#"group="",removed_release="",resource="endpoints",subresource="",version="v1""#, "1"), None);
        assert_eq!(of(r#"group="a",removed_release="1.37",resource="b",subresource="",version="v1""#, "0"), None);
        assert_eq!(asked_for("# HELP apiserver_requested_deprecated_apis [STABLE] Gauge"), None);
        assert_eq!(asked_for("apiserver_requested_deprecated_apis{"), None);
    }
}
