//! The state of an object that hoist waits for: whether it is ready, and which of its pods is not, and why.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::Value;

use super::order::{Order, namespace_of};
use super::ready::{self, Readiness};
use crate::api::apply::Applier;
use crate::api::observe::{PodView, pods_in};
use crate::api::{self, explain};
use crate::base::error::{Error, Result};
use crate::base::progress::kind;
use crate::desired::assets::Manifest;

pub(super) use ready::is_awaited;

/// What is seen of an object.
pub(super) struct Seen {
    /// How it stands.
    pub readiness: Readiness,
    /// Its pods that are not ready.
    pods: Vec<PodView>,
    /// What counts as progress when it is new.
    pub sights: Vec<String>,
}

impl Seen {
    /// Nothing could be read.
    pub(super) fn unknown(error: &Error) -> Self {
        Self { readiness: Readiness::Waiting(error.to_string()), pods: Vec::new(), sights: Vec::new() }
    }

    /// Why it is not ready, in a line, with the first of its pods that is not.
    pub(super) fn why(&self) -> String {
        let why = match &self.readiness {
            Readiness::Ready => String::new(),
            Readiness::Waiting(why) | Readiness::Failed(why) => why.clone(),
        };
        match self.pods.first() {
            Some(pod) => format!("{why}; pod {}: {}", pod.name, pod.reason),
            None => why,
        }
    }

    /// A line for each of its pods that is not ready.
    pub(super) fn details(&self) -> Vec<String> {
        let line = |pod: &PodView| {
            let node = pod.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
            format!("pod {}{node}: {}", pod.name, pod.reason)
        };
        self.pods.iter().map(line).collect()
    }
}

/// Looks at the object of `manifest`, whose rank is `rank`.
///
/// # Errors
/// The API server's word.
pub(super) async fn look(
    client: &Client,
    applier: &Applier<'_>,
    order: &Order<'_>,
    rank: u32,
    manifest: &Manifest,
) -> Result<Seen> {
    let services = ready::webhook_services(manifest);
    for service in services.into_iter().filter(|service| !order.is_served_after(rank, *service)) {
        if !has_endpoints(client, service).await? {
            let (namespace, name) = service;
            let why = format!("the Service {namespace}/{name} has no ready endpoint");
            return Ok(Seen { sights: vec![why.clone()], readiness: Readiness::Waiting(why), pods: Vec::new() });
        }
    }
    let live = applier.get(manifest).await?;
    let readiness = match &live {
        // It was there when it was applied, and has been taken away since: by its time to live, once it had finished.
        None if manifest.text("/kind") == "Job" => Readiness::Ready,
        live => ready::judge(live.as_ref()),
    };
    let makes_pods = matches!(manifest.text("/kind"), "Deployment" | "DaemonSet" | "StatefulSet" | "Job" | "Pod");
    let pods = match readiness {
        Readiness::Ready => Vec::new(),
        _ if makes_pods => pods_in(client, namespace_of(manifest), labels(live.as_ref()).as_deref()).await?,
        _ => Vec::new(),
    };
    let name = manifest.text("/metadata/name");
    let (ready, mut not): (Vec<_>, Vec<_>) =
        pods.into_iter().filter(|pod| pod.workload == name).partition(|pod| pod.ready);
    not.sort_by(|a, b| a.name.cmp(&b.name));
    let of = format!("{} {name}", manifest.text("/kind"));
    let mut sights: Vec<_> = not.iter().map(|pod| format!("{of} {}", kind(&pod.reason))).collect();
    sights.push(format!("{of}: {} ready, {}", ready.len(), generation(live.as_ref())));
    Ok(Seen { readiness, pods: not, sights })
}

/// What selects a workload's pods, where that is labels alone.
fn labels(live: Option<&Value>) -> Option<String> {
    let selector = live?.pointer("/spec/selector").filter(|selector| selector.get("matchExpressions").is_none())?;
    let labels = selector.get("matchLabels")?.as_object()?.iter();
    let labels: Option<Vec<_>> = labels.map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
    labels.map(|labels| labels.join(",")).filter(|labels| !labels.is_empty())
}

fn generation(live: Option<&Value>) -> String {
    let seen = live.and_then(|live| live.pointer("/status/observedGeneration"));
    seen.map_or_else(|| "not seen".to_owned(), |generation| format!("seen {generation}"))
}

async fn has_endpoints(client: &Client, (namespace, name): (&str, &str)) -> Result<bool> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let slices = api.list(&ListParams::default().labels(&format!("kubernetes.io/service-name={name}"))).await;
    let slices = slices.map_err(|error| {
        Error::failed(format!("read the endpoints of the Service {namespace}/{name}"), explain(&error))
    })?;
    let mut endpoints = slices.items.into_iter().flat_map(|slice| slice.endpoints);
    // By the API, one that does not say is ready.
    Ok(endpoints.any(|endpoint| endpoint.conditions.is_none_or(|conditions| conditions.ready != Some(false))))
}

/// The error of a run whose time is up while the API server did not do what it was asked: with whether it is served now.
pub(super) async fn unanswered(client: &Client, error: Error) -> Error {
    if !error.is_passing() {
        return error;
    }
    Error::TimedOut {
        waiting_for: format!("the API server to do what it was asked: {error}"),
        api_served: api::is_served(client).await,
        details: Vec::new(),
        next: "`hoist status` on a controller says what is wrong; then run the same command again to continue".into(),
    }
}
