//! A component of the control plane as an upgrade sees it: its workload, and which of its pods run what the workload says.

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams, LogParams};
use serde_json::Value;

use super::controllers::pods_of;
use super::failed;
use super::observe::{PodView, pod_view};
use super::self_hosted::{self, kind_of};
use crate::base::error::{Error, Result};
use crate::desired::upgrade;

/// How many lines of a log are read.
const LINES: i64 = 5;

/// A component's workload and its pods.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// The workload, as the API server has it.
    pub live: Value,
    /// Its pods, each with whether it runs the program that the workload says.
    pub pods: Vec<(PodView, bool)>,
}

/// The one of `component` in kube-system; `None` where there is no such workload.
///
/// # Errors
/// The API server's word.
pub async fn read(client: &Client, component: &str) -> Result<Option<Rollout>> {
    let Some(live) = self_hosted::workload(client, kind_of(component), component).await? else { return Ok(None) };
    let template = &live["spec"]["template"]["spec"];
    let mut pods = Vec::new();
    for pod in &pods_of(client, component, &ListParams::default()).await? {
        let view = pod_view(pod);
        // The bridge's have the same label.
        if view.mirror || view.workload != component {
            continue;
        }
        let spec = serde_json::to_value(&pod.spec).map_err(|error| Error::failed("read a pod", error))?;
        pods.push((view, upgrade::is_same_program(&spec, template, component)));
    }
    pods.sort_by(|(one, _), (other, _)| (&one.node, &one.name).cmp(&(&other.node, &other.name)));
    Ok(Some(Rollout { live, pods }))
}

/// The nodes on which a bridge stands, as the mirror pods of its API server say, which is lowered last.
///
/// # Errors
/// The API server's word.
pub async fn bridges(client: &Client) -> Result<Vec<String>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let params = ListParams::default().labels("component=bridge-kube-apiserver");
    let pods = api.list(&params).await.map_err(|error| failed("list the bridges", &error))?;
    Ok(pods.items.into_iter().filter_map(|pod| pod.spec?.node_name).collect())
}

/// The last lines that the container of a component wrote, of the run before where it runs anew; none where the kubelet does not
/// say.
pub async fn last_lines(client: &Client, pod: &str, component: &str) -> Vec<String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    for previous in [true, false] {
        let params =
            LogParams { container: Some(component.into()), previous, tail_lines: Some(LINES), ..LogParams::default() };
        if let Ok(text) = api.logs(pod, &params).await
            && !text.trim().is_empty()
        {
            return text.lines().map(str::to_owned).collect();
        }
    }
    Vec::new()
}
