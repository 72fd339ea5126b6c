//! What takes a tenant's snapshots, and what restores one.

use minijinja::context;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{finished, parsed, secret, values};
use crate::base::error::Result;
use crate::desired::config::Cluster;
use crate::desired::render;
use crate::desired::secrets::Tls;
use crate::operator::delete::OwnImage;
use crate::operator::keys;
use crate::operator::restore;
use crate::operator::tenant::{Addresses, Tenant};

/// What etcd asks a client for.
const CLIENT: [&str; 3] = ["apiserver-etcd-client.crt", "apiserver-etcd-client.key", "etcd/ca.crt"];
/// How far revisions go on beyond those of a snapshot: so many for each second since 1970, as with `hoist recover`.
const REVISIONS_PER_SECOND: i64 = 1000;

/// What a snapshot takes: a Secret and a CronJob; nothing where the tenant wants none.
///
/// # Errors
/// A template that does not fit (a bug in hoist).
pub fn snapshots(tenant: &Tenant, cluster: &Cluster, at: &Addresses, tls: &Tls, own: &OwnImage) -> Result<Vec<Value>> {
    let Some(backup) = &tenant.spec.backup else { return Ok(Vec::new()) };
    let client: Tls = tls
        .iter()
        .filter(|(path, _)| CLIENT.contains(&&***path))
        .map(|(path, file)| (path.clone(), file.clone()))
        .collect();
    let folder = tenant.folder(&keys::ca_hash(tls).unwrap_or_default());
    let over = context! {
        own => own_values(own),
        backup => context! { schedule => &backup.schedule, keep => backup.keep, folder => &folder },
        ..values(tenant, at, &folder)
    };
    let mut objects = vec![finished(tenant, secret(tenant, "backup", keys::to_data(&client)))];
    for (name, text) in render::hosted("hosting/backup", cluster, over)? {
        for mut object in parsed(&name, &text)? {
            pod(
                tenant,
                &mut object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
                own,
                backup.local_path.is_some(),
            );
            objects.push(finished(tenant, object));
        }
    }
    Ok(objects)
}

/// The Secret of a tenant that wants no snapshots any more: nobody is let in by it.
pub fn no_snapshots(tenant: &Tenant) -> Value {
    finished(tenant, secret(tenant, "backup", json!({})))
}

/// The Job that restores the snapshot `file`; none where the tenant has no place for snapshots.
///
/// # Errors
/// A template that does not fit (a bug in hoist).
pub fn restoring(
    tenant: &Tenant,
    cluster: &Cluster,
    at: &Addresses,
    tls: &Tls,
    own: &OwnImage,
    file: &str,
    now: OffsetDateTime,
) -> Result<Option<Value>> {
    let folder = tenant.folder(&keys::ca_hash(tls).unwrap_or_default());
    let seconds = now.unix_timestamp().max(1);
    let over = context! {
        own => own_values(own),
        backup => context! { folder => &folder },
        restore => context! {
            file => file,
            bump_revision => seconds * REVISIONS_PER_SECOND,
            token => format!("hoist-{seconds}"),
        },
        ..values(tenant, at, &folder)
    };
    let mut made = None;
    for (name, text) in render::hosted("hosting/restore", cluster, over)? {
        for mut object in parsed(&name, &text)? {
            object["metadata"]["annotations"][restore::FILE] = file.into();
            let spec = &mut object["spec"]["template"]["spec"];
            let has_node = tenant.spec.etcd.local_path.is_some()
                || tenant.spec.backup.as_ref().is_some_and(|backup| backup.local_path.is_some());
            pod(tenant, spec, own, has_node);
            // It is where the data is.
            if let Some(local) = &tenant.spec.etcd.local_path {
                spec["nodeSelector"]["kubernetes.io/hostname"] = local.node(0).into();
            }
            made = Some(finished(tenant, object));
        }
    }
    Ok(made.filter(|_| tenant.spec.backup.is_some()))
}

/// Workloads without pods, and no snapshots. API servers that have lost etcd take long to end: it is kept for as long as
/// `keeps_etcd` says.
pub fn stop(objects: &mut [Value], keeps_etcd: bool) {
    for object in objects {
        match object["kind"].as_str().unwrap_or_default() {
            "StatefulSet" if keeps_etcd => continue,
            "Deployment" | "StatefulSet" => object["spec"]["replicas"] = 0.into(),
            "CronJob" => object["spec"]["suspend"] = true.into(),
            _ => continue,
        }
        *object = super::marked(object.clone());
    }
}

fn own_values(own: &OwnImage) -> minijinja::Value {
    context! { image => &own.image, mounts_binary => own.mounts_binary }
}

/// A pod where the tenant's may run, and where the snapshots are; `has_node` says whether its node is named.
fn pod(tenant: &Tenant, spec: &mut Value, own: &OwnImage, has_node: bool) {
    const CONTROLLER: &str = "node-role.kubernetes.io/control-plane";
    let mut selector = json!(tenant.spec.node_selector);
    let Some(backup) = &tenant.spec.backup else { return };
    let mut tolerations: Vec<_> = tenant.spec.tolerations.iter().map(|one| json!(one)).collect();
    if own.mounts_binary && !has_node {
        // Controllers have the binary, and workers need not.
        selector[CONTROLLER] = "".into();
        tolerations.push(json!({"key": CONTROLLER, "operator": "Exists", "effect": "NoSchedule"}));
    }
    let volume = match (&backup.local_path, &backup.claim_name) {
        (Some(local), _) => {
            selector["kubernetes.io/hostname"] = local.node.clone().into();
            json!({"name": "backup", "hostPath": {"path": local.path, "type": "Directory"}})
        }
        (None, claim) => json!({"name": "backup", "persistentVolumeClaim": {"claimName": claim}}),
    };
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.push(volume);
    }
    if selector.as_object().is_some_and(|selector| !selector.is_empty()) {
        spec["nodeSelector"] = selector;
    }
    if !tolerations.is_empty() {
        spec["tolerations"] = tolerations.into();
    }
}
