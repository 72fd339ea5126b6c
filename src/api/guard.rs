//! guard's requests to the API: once a minute, and when it has raised or lowered the bridge.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Event, Node, ObjectReference, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use time::OffsetDateTime;

use super::observe::{CONTROL_PLANE_LABEL, pod_view};
use super::{FIELD_MANAGER, Verdict, timestamp, verdict};
use crate::base::error::Result;
use crate::desired::config::version;
use crate::desired::secrets::COMPONENTS;

/// The name of the Secret with the copy of the bridge, and of guard's DaemonSet.
pub const NAME: &str = "hoist-guard";
/// The copy's key in it.
pub const FILE: &str = "bridge.json";
/// The annotation with the copy's checksum.
pub const SUM: &str = "hoist/bridge-sha256";
/// The annotation of guard's Lease with the uid of the Node that last had the control plane's label.
const LABELLED: &str = "hoist/labelled-node-uid";
/// The annotation of guard's Lease with the name of its machine, which need not be its Node's.
const HOSTNAME: &str = "hoist/hostname";
/// The annotation of guard's Lease with the version of Kubernetes that its copy of the bridge has.
const VERSION: &str = "hoist/bridge-kubernetes";
/// The annotation of guard's Lease with a checksum of the keys that its copy on the disk has.
const KEYS: &str = "hoist/keys-sha256";
/// What events of guard's say they come from.
const COMPONENT: &str = "hoist-guard";
/// In seconds: three heartbeats.
const LEASE_SECONDS: i32 = 180;

/// Something that guard did or found, for `kubectl describe node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEvent {
    /// When.
    pub at: OffsetDateTime,
    /// One word: `BridgeRaised`, `BridgeLowered` …
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// It is a warning.
    pub is_warning: bool,
}

/// A Node, as far as it matters to guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its uid: another one is another Node, whatever its name.
    pub uid: String,
    /// It has the control plane's label.
    pub has_label: bool,
}

/// The Node `name`; `None` where there is no such Node.
///
/// # Errors
/// The API server's word.
pub async fn node(client: &Client, name: &str) -> Result<Option<NodeSeen>> {
    let api: Api<Node> = Api::all(client.clone());
    let node = api.get_metadata_opt(name).await;
    let node = node.map_err(|error| super::failed("read the node", &error))?;
    Ok(node.map(|node| NodeSeen {
        has_label: node.labels().contains_key(CONTROL_PLANE_LABEL),
        uid: node.uid().unwrap_or_default(),
    }))
}

/// The uid of the Node `name` as it was when it last had the control plane's label, by guard's Lease; `None` where that
/// does not say.
///
/// # Errors
/// The API server's word.
pub async fn labelled(client: &Client, name: &str) -> Result<Option<String>> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let name = lease(name);
    let lease = api.get_metadata_opt(&name).await;
    let lease = lease.map_err(|error| super::failed(format!("read the Lease {name}"), &error))?;
    Ok(lease.and_then(|lease| lease.annotations().get(LABELLED).cloned()))
}

/// The name of the Lease by which guard of the node `name` says that it lives.
pub fn lease(name: &str) -> String {
    format!("{NAME}-{name}")
}

/// Whether another controller than the Node `name` has the hostname of this machine, or may have it: what its guard has not
/// said may be the same. Leaders call themselves by hostnames.
///
/// # Errors
/// The API server's word.
pub async fn may_share_hostname(client: &Client, name: &str, hostname: &str) -> Result<bool> {
    let api: Api<Node> = Api::all(client.clone());
    let nodes = api.list_metadata(&ListParams::default().labels(CONTROL_PLANE_LABEL)).await;
    let nodes = nodes.map_err(|error| super::failed("list the controllers' Nodes", &error))?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    for node in nodes.items.iter().map(ResourceExt::name_any).filter(|node| node != name) {
        let lease = lease(&node);
        let said = leases.get_metadata_opt(&lease).await;
        let said = said.map_err(|error| super::failed(format!("read the Lease {lease}"), &error))?;
        if said.is_none_or(|said| said.annotations().get(HOSTNAME).is_none_or(|said| said == hostname)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What guard of the node `name` has said last of the copy on its disk: the version of Kubernetes, and a checksum of the keys;
/// `None` where it has not.
///
/// # Errors
/// The API server's word.
pub async fn kept(client: &Client, name: &str) -> Result<Kept> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let name = lease(name);
    let lease = api.get_metadata_opt(&name).await;
    let lease = lease.map_err(|error| super::failed(format!("read the Lease {name}"), &error))?;
    let said = |key: &str| lease.as_ref().and_then(|lease| lease.annotations().get(key).cloned());
    Ok(Kept { version: said(VERSION), keys: said(KEYS) })
}

/// What a guard has said of the copy on its disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The version of Kubernetes.
    pub version: Option<String>,
    /// A checksum of its keys.
    pub keys: Option<String>,
}

/// What guard's Lease says beside that it lives.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// How its machine is called.
    pub hostname: &'a str,
    /// The uid of the Node that last had the control plane's label.
    pub labelled: Option<&'a str>,
    /// The version of Kubernetes of its copy of the bridge.
    pub version: &'a str,
    /// A checksum of the keys in it.
    pub keys: &'a str,
}

/// Says that guard of the node `name` lives, and what else there is to say.
///
/// # Errors
/// The API server's word.
pub async fn heartbeat(client: &Client, name: &str, said: Said<'_>, now: OffsetDateTime) -> Result<()> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let name = lease(name);
    let said = [
        (HOSTNAME, Some(said.hostname)),
        (LABELLED, said.labelled),
        (VERSION, Some(said.version)),
        (KEYS, Some(said.keys)),
    ];
    let said = said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect();
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some("kube-system".into()),
            annotations: Some(said),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(timestamp::of(now))),
            ..LeaseSpec::default()
        }),
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patched = api.patch_metadata(&name, &params, &Patch::Apply(&lease)).await;
    patched.map_err(|error| super::failed(format!("renew the Lease {name}"), &error)).map(drop)
}

/// Makes an event about the Node `name`.
///
/// # Errors
/// The API server's word.
pub async fn record(client: &Client, name: &str, event: &NodeEvent) -> Result<()> {
    let api: Api<Event> = Api::namespaced(client.clone(), "default");
    let at = Time(timestamp::of(event.at));
    let event = Event {
        metadata: ObjectMeta {
            // As client-go names events: by what they are about, and a number that is new each time.
            name: Some(format!("{name}.{:x}", event.at.unix_timestamp_nanos())),
            namespace: Some("default".into()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            kind: Some("Node".into()),
            name: Some(name.into()),
            // Kubelets have it so, and `kubectl describe node` looks for it.
            uid: Some(name.into()),
            ..ObjectReference::default()
        },
        type_: Some(if event.is_warning { "Warning" } else { "Normal" }.into()),
        reason: Some(event.reason.into()),
        message: Some(event.message.clone()),
        first_timestamp: Some(at.clone()),
        last_timestamp: Some(at),
        count: Some(1),
        source: Some(k8s_openapi::api::core::v1::EventSource {
            component: Some(COMPONENT.into()),
            host: Some(name.into()),
        }),
        reporting_component: Some(COMPONENT.into()),
        reporting_instance: Some(name.into()),
        ..Event::default()
    };
    let made = api.create(&PostParams::default(), &event).await;
    match made {
        Ok(_) => Ok(()),
        // An earlier try came through, and its answer did not.
        Err(error) if verdict(&error) == Verdict::Stale => Ok(()),
        Err(error) => Err(super::failed("tell the node's events", &error)),
    }
}

/// The images of the ready pods of the self-hosted control plane on the node `name`, each with its component.
///
/// # Errors
/// The API server's word.
pub async fn images(client: &Client, name: &str) -> Result<Vec<(String, String)>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let params = ListParams::default().labels("tier=control-plane").fields(&format!("spec.nodeName={name}"));
    let pods = api.list(&params).await;
    let pods = pods.map_err(|error| super::failed("list the control plane's pods of this node", &error))?;
    let of_pod = |pod: Pod| {
        let view = pod_view(&pod);
        let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
        let is_it = |component: &&str| view.ready && !view.mirror && view.workload == **component;
        let component = COMPONENTS.iter().copied().find(|component| is_it(component))?;
        let container = containers.into_iter().find(|container| container.name == component)?;
        Some((component.to_owned(), container.image?))
    };
    Ok(pods.items.into_iter().filter_map(of_pod).collect())
}

/// Which version an API server says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Major and minor version, where it says them as Kubernetes does.
    pub version: Option<(u32, u32)>,
    /// It emulates an older minor version, as one does that is on trial in an upgrade.
    pub is_on_trial: bool,
}

/// Which version the API server says it is.
///
/// # Errors
/// The API server's word.
pub async fn version(client: &Client) -> Result<Told> {
    let info = client.apiserver_version().await;
    let info = info.map_err(|error| super::failed("ask the API server for its version", &error))?;
    Ok(Told {
        version: version::numbers(&info.git_version).map(|(major, minor, _)| (major, minor)),
        is_on_trial: info.emulation_minor.is_some_and(|minor| !minor.is_empty() && minor != info.minor),
    })
}

/// The checksum of the cluster's copy of the bridge; `None` where there is none.
///
/// # Errors
/// The API server's word.
pub async fn copy_sum(client: &Client) -> Result<Option<String>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let secret = api.get_metadata_opt(NAME).await;
    let secret = secret.map_err(|error| super::failed("read the cluster's copy of the bridge", &error))?;
    Ok(secret.and_then(|secret| secret.annotations().get(SUM).cloned()))
}

/// The cluster's copy of the bridge, as it is written; `None` where there is none.
///
/// # Errors
/// The API server's word.
pub async fn copy(client: &Client) -> Result<Option<Vec<u8>>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let secret = api.get_opt(NAME).await;
    let secret = secret.map_err(|error| super::failed("read the cluster's copy of the bridge", &error))?;
    let data: Option<BTreeMap<_, _>> = secret.and_then(|secret| secret.data);
    Ok(data.and_then(|mut data| data.remove(FILE)).map(|bytes| bytes.0))
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// A cluster of these controllers, each with what its guard has said of its machine, if it has a Lease.
    fn cluster(controllers: &'static [(&str, Option<Option<&str>>)]) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let metadata = |name: &str, annotations| {
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                    "metadata": {"name": name, "annotations": annotations}})
            };
            let (status, body) = match path.strip_prefix("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/")
            {
                None => {
                    assert_eq!(path, "/api/v1/nodes");
                    assert!(
                        request
                            .uri()
                            .query()
                            .unwrap()
                            .contains("labelSelector=node-role.kubernetes.io%2Fcontrol-plane")
                    );
                    let nodes: Vec<_> = controllers.iter().map(|(name, _)| metadata(name, json!({}))).collect();
                    (
                        200,
                        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": nodes}),
                    )
                }
                Some(lease) => match controllers.iter().find(|(name, _)| lease == super::lease(name)) {
                    Some((_, Some(hostname))) => {
                        let said = hostname.map(|hostname| json!({(HOSTNAME): hostname}));
                        (200, metadata(lease, said.unwrap_or_else(|| json!({}))))
                    }
                    _ => (
                        404,
                        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "reason": "NotFound", "message": "not found", "code": 404}),
                    ),
                },
            };
            let response = Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap();
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn a_hostname_is_a_machines_own_where_every_other_controller_has_said_another() {
        for (others, expected) in [
            (&[][..], false),
            (&[("c1", Some(Some("debian")))], false),
            (&[("c1", None), ("c2", Some(Some("other")))], false),
            (&[("c2", Some(Some("other"))), ("c3", Some(Some("debian")))], true),
            (&[("c2", Some(None))], true),
            (&[("c2", None)], true),
        ] {
            let found = may_share_hostname(&cluster(others), "c1", "debian").await.unwrap();
            assert_eq!(found, expected, "{others:?}");
        }
    }
}
