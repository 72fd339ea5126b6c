//! The controllers as the API shows them: Nodes with the control plane's label, and what the guard of each says of its etcd
//! data.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::guard::lease;
use super::observe::CONTROL_PLANE_LABEL;
use super::{FIELD_MANAGER, failed, is_not_found, pages, write};
use crate::base::error::Result;

/// The annotation of guard's Lease with what is in the data directory of its controller.
const REPORT: &str = "hoist/etcd-data";
/// The field manager of it: guard's heartbeat leaves it alone.
const MANAGER: &str = "hoist-members";
/// How many Nodes are asked for at once.
const PAGE: u32 = 50;
/// The components of which there is one pod for each controller that serves.
const SCALED: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// A Node with the control plane's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerNode {
    /// Its name.
    pub name: String,
    /// Its uid: another one is another Node, whatever its name.
    pub uid: String,
    /// Its first InternalIP; none before its kubelet has said so.
    pub address: Option<IpAddr>,
    /// What its guard has said last.
    pub report: Option<Report>,
}

/// What guard says of its controller's data directory. It says it anew every few seconds as long as it is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The uid of the Node that it speaks for.
    pub uid: String,
    /// Which time it says it: what does not rise is old.
    pub count: u64,
    /// Nothing is in the data directory.
    pub is_empty: bool,
}

/// All of them.
///
/// # Errors
/// The API server's word.
pub async fn list(client: &Client) -> Result<Vec<ControllerNode>> {
    let api: Api<Node> = Api::all(client.clone());
    let mut found = Vec::new();
    let params = ListParams::default().labels(CONTROL_PLANE_LABEL).limit(PAGE);
    let listed = pages::each(params, async |params| api.list(params).await, |node| found.push(of(&node))).await;
    listed.map_err(|error| failed("list the controllers", &error))?;
    for node in &mut found {
        let lease = lease_of(client, &node.name).await?;
        node.report = lease.and_then(|lease| serde_json::from_str(lease.annotations().get(REPORT)?).ok());
    }
    Ok(found)
}

/// The Lease of a node's guard, without what it is for.
async fn lease_of(client: &Client, node: &str) -> Result<Option<PartialObjectMeta<Lease>>> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let name = lease(node);
    leases.get_metadata_opt(&name).await.map_err(|error| failed(format!("read the Lease {name}"), &error))
}

/// Which of these have never been a controller of this cluster: no guard has ever said that it lives there.
///
/// # Errors
/// The API server's word: what is not known is not taken for one that never came.
pub async fn never_seen<'a>(client: &Client, names: impl Iterator<Item = &'a str>) -> Result<Vec<&'a str>> {
    let mut never = Vec::new();
    for name in names {
        never.extend(lease_of(client, name).await?.is_none().then_some(name));
    }
    Ok(never)
}

fn of(node: &Node) -> ControllerNode {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let internal = addresses.into_iter().flatten().filter(|address| address.type_ == "InternalIP");
    ControllerNode {
        name: node.name_any(),
        uid: node.uid().unwrap_or_default(),
        address: internal.filter_map(|address| address.address.parse().ok()).next(),
        report: None,
    }
}

/// Says for the Node `name` what is in its data directory; `None` takes back what was said.
///
/// # Errors
/// The API server's word.
pub async fn report(client: &Client, name: &str, report: Option<&Report>) -> Result<()> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let name = lease(name);
    let text = report.map(|report| serde_json::to_string(report).unwrap_or_default());
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some("kube-system".into()),
            annotations: text.map(|text| BTreeMap::from([(REPORT.to_owned(), text)])),
            ..ObjectMeta::default()
        },
        spec: None,
    };
    let params = PatchParams::apply(MANAGER).force();
    let patched = api.patch_metadata(&name, &params, &Patch::Apply(&lease)).await;
    patched.map_err(|error| failed(format!("report by the Lease {name}"), &error)).map(drop)
}

/// Deletes the pods of the self-hosted API server on the node `name` that wait for what it serves with: a kubelet would try
/// them again up to two minutes later.
///
/// # Errors
/// The API server's word.
pub async fn replace_waiting_api_server(client: &Client, name: &str) -> Result<()> {
    delete_pods(client, "kube-apiserver", name, |pod| {
        pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending")
    })
    .await
}

/// Deletes the pods of the self-hosted API server on the node `name` that have ended again and again, as long as their etcd had
/// no vote: a kubelet would start them up to five minutes later.
///
/// # Errors
/// The API server's word.
pub async fn replace_failing_api_server(client: &Client, name: &str) -> Result<()> {
    delete_pods(client, "kube-apiserver", name, |pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        statuses.into_iter().flatten().any(|status| {
            let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
            waiting.and_then(|waiting| waiting.reason.as_deref()) == Some("CrashLoopBackOff")
        })
    })
    .await
}

/// Deletes the pods of the controller manager and of the scheduler on the node `name`, where no API server serves them any
/// more. Their Deployments make others elsewhere.
///
/// # Errors
/// The API server's word.
pub async fn move_controllers(client: &Client, name: &str) -> Result<()> {
    for component in SCALED {
        delete_pods(client, component, name, |_| true).await?;
    }
    Ok(())
}

async fn delete_pods(client: &Client, component: &str, node: &str, which: impl Fn(&Pod) -> bool) -> Result<()> {
    let pods = pods_of(client, component, &ListParams::default().fields(&format!("spec.nodeName={node}"))).await?;
    let pods = pods.iter().filter(|pod| which(pod)).map(|pod| ("kube-system".to_owned(), pod.name_any()));
    write::delete_pods(client, &pods.collect::<Vec<_>>()).await
}

/// The pods of a component of the control plane, of those that `params` finds.
///
/// # Errors
/// The API server's word.
pub(super) async fn pods_of(client: &Client, component: &str, params: &ListParams) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let pods = api.list(&params.clone().labels(&format!("component={component}"))).await;
    pods.map(|pods| pods.items).map_err(|error| failed(format!("list the pods of {component}"), &error))
}

/// Deletes the pods of controller manager and scheduler on other nodes than `serving`, where there are more replicas than these:
/// with fewer replicas the cluster would keep as many, and perhaps those of machines that are dead, whose pods count as ready for
/// a while. Says whether there were any.
///
/// # Errors
/// The API server's word.
pub async fn delete_idle(client: &Client, serving: &[&str]) -> Result<bool> {
    let mut idle = Vec::new();
    for component in SCALED {
        let pods = pods_of(client, component, &ListParams::default()).await?;
        if pods.len() > serving.len() {
            idle.extend(pods.iter().filter(|pod| is_idle(pod, serving)).map(Pod::name_any));
        }
    }
    let idle: Vec<_> = idle.into_iter().map(|name| ("kube-system".to_owned(), name)).collect();
    write::delete_pods(client, &idle).await?;
    Ok(!idle.is_empty())
}

/// Whether a pod has a node that is not one of these, and is not being deleted.
fn is_idle(pod: &Pod, serving: &[&str]) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    pod.metadata.deletion_timestamp.is_none() && node.is_some_and(|node| !serving.contains(&node))
}

/// Brings the replicas of controller manager and scheduler to `wanted`, one for each controller that serves; says which
/// components it changed. Where there is no Deployment, nothing is done.
///
/// # Errors
/// The API server's word.
pub async fn scale(client: &Client, wanted: usize) -> Result<Vec<&'static str>> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    let params = PatchParams { field_manager: Some(format!("{FIELD_MANAGER}-controllers")), ..PatchParams::default() };
    let mut changed = Vec::new();
    for component in SCALED {
        let scale = match api.get_scale(component).await {
            Ok(scale) => scale,
            Err(error) if is_not_found(&error) => continue,
            Err(error) => return Err(failed(format!("read the scale of {component}"), &error)),
        };
        let now = scale.spec.and_then(|spec| spec.replicas).and_then(|now| usize::try_from(now).ok());
        if now == Some(wanted) {
            continue;
        }
        let patch = Patch::Merge(json!({"spec": {"replicas": wanted}}));
        api.patch_scale(component, &params, &patch)
            .await
            .map_err(|error| failed(format!("scale {component}"), &error))?;
        changed.push(component);
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_idle_on_a_node_that_does_not_serve() {
        let pod = |node: Option<&str>, deleted: Option<&str>| -> Pod {
            let value =
                json!({"metadata": {"deletionTimestamp": deleted}, "spec": {"nodeName": node, "containers": []}});
            serde_json::from_value(value).unwrap()
        };
        assert!(is_idle(&pod(Some("c2"), None), &["c1"]));
        assert!(!is_idle(&pod(Some("c1"), None), &["c1"]) && !is_idle(&pod(None, None), &["c1"]));
        assert!(!is_idle(&pod(Some("c2"), Some("2026-01-01T00:00:00Z")), &["c1"]));
    }

    #[test]
    fn a_controller_has_the_first_address_that_is_internal() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "c2", "uid": "u"},
            "status": {"addresses": [
                {"type": "ExternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "10.0.0.2"},
                {"type": "InternalIP", "address": "fd00::2"},
                {"type": "Hostname", "address": "c2"},
            ]},
        }))
        .unwrap();
        let expected = ControllerNode {
            name: "c2".into(),
            uid: "u".into(),
            address: Some(IpAddr::from([10, 0, 0, 2])),
            report: None,
        };
        assert_eq!(of(&node), expected);
        assert_eq!(of(&Node::default()).address, None, "its kubelet has not said it yet");
    }
}
