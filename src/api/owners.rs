//! The owners of pods, and whether they still exist. A pod lives for a while after its DaemonSet or Deployment was
//! deleted: it serves and is ready, and it will end.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::core::Resource;
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::failed;
use super::observe::ClusterView;
use crate::base::error::Result;
use crate::desired::assets::Manifest;

/// The kinds whose pods may be required.
const KINDS: [&str; 3] = ["DaemonSet", "Deployment", "StatefulSet"];

/// The workloads of one namespace.
#[derive(Debug, Default)]
struct Workloads {
    /// Kind and name of each.
    names: BTreeSet<(&'static str, String)>,
    /// The uids of all that may control a pod, and is not going to be deleted for what it belongs to.
    alive: BTreeSet<String>,
}

/// The workloads among `manifests` that are gone from the cluster, in the namespaces that `view` is of. In the view, a pod
/// of one that is gone is not ready any more, whatever it says.
///
/// # Errors
/// The first request that failed.
pub async fn check(client: &Client, manifests: &[Manifest], view: &mut ClusterView) -> Result<Vec<String>> {
    let namespaces: Vec<_> = view.pods.keys().cloned().collect();
    let lists = namespaces.iter().map(|namespace| workloads(client, namespace));
    let found = futures::future::try_join_all(lists).await?;
    let found: BTreeMap<_, _> = namespaces.into_iter().zip(found).collect();
    Ok(judge(&found, manifests, view))
}

fn judge(found: &BTreeMap<String, Workloads>, manifests: &[Manifest], view: &mut ClusterView) -> Vec<String> {
    for (namespace, workloads) in found {
        let pods = view.pods.get_mut(namespace).into_iter().flatten();
        for pod in pods.filter(|pod| !pod.mirror) {
            if pod.owner.as_ref().is_some_and(|owner| !workloads.alive.contains(owner)) {
                pod.ready = false;
                pod.reason = "what it belongs to was deleted".into();
            }
        }
    }
    let mut missing = Vec::new();
    for manifest in manifests {
        let text = |pointer| manifest.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let namespace = match text("/metadata/namespace") {
            "" => "default",
            namespace => namespace,
        };
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let Some(kind) = KINDS.into_iter().find(|known| *known == kind) else { continue };
        let is_missing = |workloads: &Workloads| !workloads.names.contains(&(kind, name.to_owned()));
        if found.get(namespace).is_some_and(is_missing) {
            missing.push(format!("{kind} {namespace}/{name}"));
        }
    }
    missing
}

async fn workloads(client: &Client, namespace: &str) -> Result<Workloads> {
    let (daemon_sets, deployments, stateful_sets, replica_sets) = futures::try_join!(
        list::<DaemonSet>(client, namespace),
        list::<Deployment>(client, namespace),
        list::<StatefulSet>(client, namespace),
        list::<ReplicaSet>(client, namespace),
    )?;
    let mut workloads = Workloads::default();
    let lists = [(KINDS[0], names(daemon_sets)), (KINDS[1], names(deployments)), (KINDS[2], names(stateful_sets))];
    for (kind, list) in lists {
        for (name, uid) in list {
            workloads.names.insert((kind, name));
            workloads.alive.insert(uid);
        }
    }
    for set in replica_sets.iter().filter(|set| set.metadata.deletion_timestamp.is_none()) {
        let owner = set.owner_references().iter().find(|owner| owner.controller == Some(true));
        if owner.is_none_or(|owner| workloads.alive.contains(&owner.uid)) {
            workloads.alive.extend(set.uid());
        }
    }
    Ok(workloads)
}

/// Name and uid of those that are not being deleted.
fn names<K>(list: Vec<PartialObjectMeta<K>>) -> Vec<(String, String)>
where
    PartialObjectMeta<K>: ResourceExt,
{
    let stays = list.into_iter().filter(|object| object.meta().deletion_timestamp.is_none());
    stays.map(|object| (object.name_any(), object.uid().unwrap_or_default())).collect()
}

async fn list<K>(client: &Client, namespace: &str) -> Result<Vec<PartialObjectMeta<K>>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let list = api.list_metadata(&ListParams::default()).await;
    let action = || format!("list the {} of {namespace}", K::plural(&()));
    Ok(list.map_err(|error| failed(action(), &error))?.items)
}

#[cfg(test)]
mod tests {
    use super::super::observe::PodView;
    use super::*;

    fn manifest(kind: &str, namespace: &str, name: &str) -> Manifest {
        let object = serde_json::json!({"kind": kind, "metadata": {"name": name, "namespace": namespace}});
        Manifest { path: "m.yaml".into(), line: 1, object }
    }

    fn pod(name: &str, owner: Option<&str>, mirror: bool) -> PodView {
        PodView {
            name: name.into(),
            node: None,
            ready: true,
            restarts: 0,
            reason: String::new(),
            workload: name.into(),
            owner: owner.map(str::to_owned),
            per_node: false,
            mirror,
        }
    }

    #[test]
    fn a_pod_of_what_was_deleted_is_not_ready_and_what_was_deleted_is_missing() {
        let there = Workloads {
            names: BTreeSet::from([("Deployment", "a".to_owned()), ("DaemonSet", "b".to_owned())]),
            alive: BTreeSet::from(["rs-a".to_owned(), "b".to_owned()]),
        };
        let found = BTreeMap::from([("kube-system".to_owned(), there)]);
        let manifests = [
            manifest("Deployment", "kube-system", "a"),
            manifest("Deployment", "kube-system", "b"),
            manifest("DaemonSet", "kube-system", "c"),
            manifest("ConfigMap", "kube-system", "d"),
            // Of this namespace nothing is known.
            manifest("Deployment", "user", "e"),
        ];
        let pods = vec![
            pod("a", Some("rs-a"), false),
            pod("old-a", Some("rs-of-a-deleted-one"), false),
            pod("etcd-c1", Some("node"), true),
            pod("alone", None, false),
        ];
        let mut view = ClusterView { pods: BTreeMap::from([("kube-system".to_owned(), pods)]), ..Default::default() };
        let missing = judge(&found, &manifests, &mut view);
        assert_eq!(missing, ["Deployment kube-system/b", "DaemonSet kube-system/c"]);
        let ready: Vec<_> = view.pods["kube-system"].iter().map(|pod| (&*pod.name, pod.ready)).collect();
        assert_eq!(ready, [("a", true), ("old-a", false), ("etcd-c1", true), ("alone", true)]);
    }
}
