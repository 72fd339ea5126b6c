//! The API's view of a cluster that is starting, read at once and reduced to what a decision needs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, Namespace, Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use super::{failed, pages};
use crate::base::error::{Error, Finding, Result};
use crate::desired::secrets::{BRIDGE_PODS, COMPONENTS};

/// Marks a Node as a controller; the kubelet may not set it itself.
pub const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";
/// How many pods a list may have at once: a large cluster has one of each DaemonSet on each node.
const PAGE: u32 = 250;
/// The two Leases whose holders lead.
pub const LEASES: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// A workload whose pod must be ready: `namespace/name` of a DaemonSet, Deployment, StatefulSet or Pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Required {
    /// Its namespace.
    pub namespace: String,
    /// The name of the workload, or of a pod without one.
    pub name: String,
}

impl std::str::FromStr for Required {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.into(), name: name.into() })
            }
            _ => Err("it must be NAMESPACE/NAME of a DaemonSet, Deployment, StatefulSet or Pod".into()),
        }
    }
}

impl std::fmt::Display for Required {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Its node, once it has one.
    pub node: Option<String>,
    /// The condition Ready.
    pub ready: bool,
    /// How often its containers were started again.
    pub restarts: i32,
    /// Why it is not ready, as far as the pod tells.
    pub reason: String,
    /// What it belongs to: the name of its DaemonSet, Deployment or StatefulSet, or its own.
    pub workload: String,
    /// The uid of the object that controls it, if one does.
    pub owner: Option<String>,
    /// Whether its workload has one pod on each node.
    pub per_node: bool,
    /// Whether it mirrors a static pod.
    pub mirror: bool,
}

/// A Lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseView {
    /// Who leads; empty when it was released.
    pub holder: String,
    /// When the holder last said so.
    pub renewed: String,
    /// How long it lasts from then on, in seconds.
    pub seconds: i32,
    /// For deleting exactly this state of it.
    pub resource_version: String,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Whether this controller's Node exists, and with the control plane's label.
    pub node: NodeView,
    /// The pods of every namespace that a required workload is in, by namespace.
    pub pods: BTreeMap<String, Vec<PodView>>,
    /// The Leases of [`LEASES`] that exist.
    pub leases: BTreeMap<String, LeaseView>,
    /// The addresses of the `kubernetes` Service.
    pub endpoints: Vec<String>,
}

/// This controller's Node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NodeView {
    /// The kubelet has not registered it.
    #[default]
    Absent,
    /// It is there without the control plane's label.
    Registered,
    /// It has the label.
    Adopted,
}

impl PodView {
    /// Whether the kubelet lets it wait before it tries again: for up to five minutes, whatever is mended meanwhile.
    pub fn backs_off(&self) -> bool {
        !self.ready && self.reason.contains("BackOff")
    }

    /// Whether somebody makes it anew when it is deleted.
    pub fn is_replaced(&self) -> bool {
        self.workload != self.name
    }
}

impl ClusterView {
    /// The pods of a required workload that matter on `node`: only its own where the workload has one on each.
    pub fn pods_of<'a>(&'a self, required: &'a Required, node: &'a str) -> impl Iterator<Item = &'a PodView> {
        let pods = self.pods.get(&required.namespace);
        let here = move |pod: &&PodView| !pod.per_node || pod.node.as_deref().is_none_or(|there| there == node);
        // A static pod counts by its own name alone.
        let is_its = |pod: &&PodView| pod.workload == required.name && (!pod.mirror || pod.name == required.name);
        pods.into_iter().flatten().filter(is_its).filter(here)
    }
}

/// The static pods that stay beside the control plane: `status` shows them.
const BESIDE: [&str; 3] = ["etcd", "hoist-guard", "hoist-endpoint"];

/// Which pods are read of kube-system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pods {
    /// Those with the control plane's label. Where these are not of all required workloads, all of them.
    ControlPlane,
    /// All of them.
    All,
}

/// Reads all that `start` decides by.
///
/// # Errors
/// The first request that failed: what is not known is never taken for absent.
pub async fn observe(client: &Client, node: &str, required: &[Required], which: Pods) -> Result<ClusterView> {
    let mut namespaces: Vec<_> = required.iter().map(|required| required.namespace.as_str()).collect();
    namespaces.push("kube-system");
    namespaces.sort_unstable();
    namespaces.dedup();
    let pods = namespaces.iter().map(|namespace| required_pods(client, namespace, required, which));
    let pods = futures::future::try_join_all(pods);
    let leases = futures::future::try_join_all(LEASES.iter().map(|name| lease(client, name)));
    let (node, pods, leases, endpoints) = futures::try_join!(node_view(client, node), pods, leases, endpoints(client))?;
    Ok(ClusterView {
        node,
        pods: namespaces.iter().map(|name| (*name).to_owned()).zip(pods).collect(),
        leases: LEASES.iter().zip(leases).filter_map(|(name, lease)| Some(((*name).to_owned(), lease?))).collect(),
        endpoints,
    })
}

async fn node_view(client: &Client, name: &str) -> Result<NodeView> {
    let api: Api<Node> = Api::all(client.clone());
    let node = api.get_opt(name).await.map_err(|error| failed("read the node", &error))?;
    Ok(match node {
        None => NodeView::Absent,
        Some(node) if node.labels().contains_key(CONTROL_PLANE_LABEL) => NodeView::Adopted,
        Some(_) => NodeView::Registered,
    })
}

/// The pods of a namespace, as far as they matter to the required workloads in it.
async fn required_pods(client: &Client, namespace: &str, required: &[Required], which: Pods) -> Result<Vec<PodView>> {
    if namespace == "kube-system" && which == Pods::ControlPlane {
        let components = COMPONENTS.into_iter().chain(BRIDGE_PODS).chain(BESIDE).collect::<Vec<_>>().join(",");
        let pods = pods_in(client, namespace, Some(&format!("component in ({components})"))).await?;
        let mut wanted = required.iter().filter(|workload| workload.namespace == namespace);
        if wanted.all(|workload| pods.iter().any(|pod| pod.workload == workload.name)) {
            return Ok(pods);
        }
    }
    pods_in(client, namespace, None).await
}

/// The pods of a namespace, page by page; only those with these labels, if any are given.
///
/// # Errors
/// The API server's word.
pub(crate) async fn pods_in(client: &Client, namespace: &str, labels: Option<&str>) -> Result<Vec<PodView>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut params = ListParams::default().limit(PAGE);
    params.label_selector = labels.map(str::to_owned);
    let mut pods = Vec::new();
    let listed = pages::each(params, async |params| api.list(params).await, |pod| pods.push(pod_view(&pod)));
    listed.await.map_err(|error| failed(format!("list the pods of {namespace}"), &error))?;
    Ok(pods)
}

/// A Lease of kube-system; `None` where there is none.
///
/// # Errors
/// The API server's word.
pub async fn lease(client: &Client, name: &str) -> Result<Option<LeaseView>> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let lease = api.get_opt(name).await.map_err(|error| failed(format!("read the Lease {name}"), &error))?;
    Ok(lease.map(|lease| {
        let resource_version = lease.resource_version().unwrap_or_default();
        let spec = lease.spec.unwrap_or_default();
        LeaseView {
            holder: spec.holder_identity.unwrap_or_default(),
            renewed: spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default(),
            seconds: spec.lease_duration_seconds.unwrap_or_default(),
            resource_version,
        }
    }))
}

/// The cluster's id: the uid of its namespace kube-system.
///
/// # Errors
/// The API server's word.
pub async fn cluster_id(client: &Client) -> Result<String> {
    let api: Api<Namespace> = Api::all(client.clone());
    let read = api.get_metadata("kube-system").await;
    let read = read.map_err(|error| failed("read the cluster's id (namespace kube-system)", &error))?;
    read.uid().ok_or_else(|| Error::failed("read the cluster's id", "the namespace kube-system has no uid"))
}

async fn endpoints(client: &Client) -> Result<Vec<String>> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let slice = api.get_opt("kubernetes").await;
    let slice = slice.map_err(|error| failed("read the addresses of the kubernetes Service", &error))?;
    Ok(slice.into_iter().flat_map(|slice| slice.endpoints).flat_map(|endpoint| endpoint.addresses).collect())
}

/// Whether `address` is among the addresses read.
pub fn publishes(endpoints: &[String], address: IpAddr) -> bool {
    endpoints.iter().any(|there| there.parse() == Ok(address))
}

pub(super) fn pod_view(pod: &Pod) -> PodView {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.clone().unwrap_or_default();
    let conditions = status.conditions.clone().unwrap_or_default();
    let ready = pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let waiting = containers.iter().find_map(container_reason);
    let pending = || conditions.iter().find(|condition| condition.status == "False" && condition.message.is_some());
    let reason = if pod.metadata.deletion_timestamp.is_some() {
        "is being deleted".into()
    } else if let Some(reason) = waiting {
        reason
    } else if let Some(condition) = pending() {
        format!("{}: {}", condition.type_, condition.message.as_deref().unwrap_or_default())
    } else {
        status.phase.clone().unwrap_or_else(|| "is not seen by a kubelet yet".into())
    };
    PodView {
        name: pod.name_any(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        ready,
        restarts: containers.iter().map(|container| container.restart_count).sum(),
        reason,
        workload: workload(pod),
        owner: pod
            .owner_references()
            .iter()
            .find(|owner| owner.controller == Some(true))
            .map(|owner| owner.uid.clone()),
        per_node: pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet"),
        mirror: pod.annotations().contains_key("kubernetes.io/config.mirror"),
    }
}

/// Why a container does not run as it should; `None` when nothing is wrong with it.
fn container_reason(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let exit = last.map(|ended| format!(" (last exit code {})", ended.exit_code)).unwrap_or_default();
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        let message = waiting.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        return Some(format!("{}: {reason}{message}{exit}", container.name));
    }
    if let Some(ended) = &state.terminated {
        return Some(format!("{}: ended with exit code {}", container.name, ended.exit_code));
    }
    (!container.ready).then(|| format!("{}: runs, and is not ready yet{exit}", container.name))
}

/// What a pod belongs to, by its owner and never by a prefix of its name.
fn workload(pod: &Pod) -> String {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) if owner.kind == "ReplicaSet" => {
            // A Deployment names its ReplicaSets by its own name and the hash that their pods carry as a label.
            let hash = pod.labels().get("pod-template-hash");
            hash.and_then(|hash| owner.name.strip_suffix(&format!("-{hash}"))).unwrap_or(&owner.name).to_owned()
        }
        Some(owner) if owner.kind != "Node" => owner.name.clone(),
        _ => pod.name_any(),
    }
}

/// The refusals among what was applied that keep a required workload from ever getting ready.
pub fn hopeless(refused: &[super::apply::Refusal], required: &[Required]) -> Vec<Finding> {
    let is_required = |refusal: &super::apply::Refusal| {
        matches!(refusal.kind.as_str(), "DaemonSet" | "Deployment" | "StatefulSet" | "Pod")
            && required.iter().any(|wanted| wanted.name == refusal.name && wanted.namespace == refusal.namespace)
    };
    refused.iter().filter(|refusal| is_required(refusal)).map(|refusal| refusal.finding.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use hyper::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, component: Option<&str>) -> Value {
        let labels = component.map(|component| json!({"component": component}));
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "kube-system", "labels": labels}})
    }

    /// An API server of these pods: it gives two at once, and writes down what it was asked.
    fn client(pods: Vec<Value>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let answer = move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().replace('+', "%20");
            log.lock().unwrap().push(query.clone());
            let by_label = query.contains("labelSelector=");
            let of: Vec<_> = pods.iter().filter(|pod| !by_label || pod["metadata"]["labels"].is_object()).collect();
            let from: usize =
                query.split("continue=").nth(1).map_or(0, |rest| rest.split('&').next().unwrap().parse().unwrap());
            let next = if from + 2 < of.len() { (from + 2).to_string() } else { String::new() };
            let items: Vec<_> = of.into_iter().skip(from).take(2).cloned().collect();
            let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"continue": next}, "items": items});
            async move { Ok::<_, std::convert::Infallible>(Response::new(Body::from(list.to_string().into_bytes()))) }
        };
        (Client::new(tower::service_fn(answer), "default"), asked)
    }

    fn required(name: &str) -> Required {
        Required { namespace: "kube-system".into(), name: name.into() }
    }

    async fn names(client: &Client, wanted: &[Required], which: Pods) -> Vec<String> {
        let pods = required_pods(client, "kube-system", wanted, which).await.unwrap();
        pods.into_iter().map(|pod| pod.name).collect()
    }

    #[tokio::test]
    async fn only_the_control_planes_pods_are_read_where_they_are_enough() {
        let others = (0..5).map(|number| pod(&format!("proxy-{number}"), None));
        let own = ["kube-apiserver", "kube-scheduler"].map(|name| pod(name, Some(name)));
        let (client, asked) = client(own.into_iter().chain(others).collect());
        let wanted = [required("kube-apiserver"), required("kube-scheduler")];
        assert_eq!(names(&client, &wanted, Pods::ControlPlane).await, ["kube-apiserver", "kube-scheduler"]);
        let asked_for = std::mem::take(&mut *asked.lock().unwrap());
        assert_eq!(asked_for.len(), 1, "{asked_for:?}");
        assert!(
            asked_for[0].to_lowercase().contains("limit=250")
                && asked_for[0].contains("labelSelector=")
                && asked_for[0].contains("etcd"),
            "{asked_for:?}"
        );
        // One whose pods have no such label is looked for among all, page by page.
        let wanted = [required("kube-apiserver"), required("proxy-4")];
        assert_eq!(names(&client, &wanted, Pods::ControlPlane).await.len(), 7);
        assert_eq!(std::mem::take(&mut *asked.lock().unwrap()).len(), 1 + 4);
        assert_eq!(names(&client, &[], Pods::All).await.len(), 7);
    }
}
