//! The acts of an upgrade. Each may be done twice.

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::api::apply::apply;
use crate::api::etcd_roll::{self, Order};
use crate::api::{self_hosted, write};
use crate::base::error::{Error, Result};
use crate::desired::assets::Manifest;
use crate::plane::kept_copy::Copy;

use super::decide::Act;
use super::releases::{Releases, Subject};

/// The DaemonSet that has each controller pull the new images.
pub(super) const PULL: &str = "hoist-upgrade-images";

/// Does it.
///
/// # Errors
/// What the API server refuses, or its word; doing it again goes on.
pub(super) async fn act(subject: &Subject, releases: &Releases, what: &Act) -> Result<()> {
    let client = &subject.client;
    match what {
        Act::Pull => {
            let mut images: Vec<_> =
                releases.images().into_iter().filter_map(|(name, (_, new))| Some((name, new?))).collect();
            images.extend(Releases::etcd(subject).map(|image| ("etcd", image)));
            let manifest = pull(&images, &subject.input.cluster().images.pause);
            apply(client, &[manifest], true).await?.accepted().map(drop)
        }
        Act::EndPull => self_hosted::delete_daemon_set(client, PULL).await,
        Act::Apply { component, form, is_held } => {
            let (beside, workload) = releases.manifests(component, *form, *is_held);
            apply(client, &beside, false).await?.accepted()?;
            let workload =
                workload.ok_or_else(|| Error::failed(format!("apply {component}"), "there is no manifest"))?;
            apply(client, &[workload], true).await?.accepted().map(drop)
        }
        Act::Replace { pod, .. } => write::delete_pods(client, &[("kube-system".to_owned(), pod.clone())]).await,
        Act::Commit => {
            let cluster = subject.input.cluster();
            let controller = cluster.controllers.first();
            let controller =
                controller.ok_or_else(|| Error::failed("commit", "cluster.yaml declares no controller"))?;
            let copy = Copy::new(subject.input.assets(), cluster, controller).shared();
            // What was renewed in the cluster since the asset directory was rendered stays.
            let (copy, _) = copy.with_newer(&releases.copy);
            write::guard_copy(client, &copy.to_json(), &copy.sum()).await
        }
        Act::OrderEtcd(node) => {
            let image = Releases::etcd(subject).unwrap_or_default().to_owned();
            let number = OffsetDateTime::now_utc().unix_timestamp();
            etcd_roll::give(client, Some(&Order { node: node.clone(), image, number })).await
        }
        Act::EndEtcd => etcd_roll::give(client, None).await,
        Act::ApplyRest => apply(client, subject.input.manifests(), false).await?.accepted().map(drop),
    }
}

/// A DaemonSet whose pods have pulled these images, each with the program that is named, once they are ready: each program has
/// said its version there.
fn pull(images: &[(&str, &str)], pause: &str) -> Manifest {
    let labels = json!({"app.kubernetes.io/name": PULL, "app.kubernetes.io/managed-by": "hoist"});
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true});
    let ask = |(name, image): &(&str, &str)| json!({"name": name, "image": image, "command": [name, "--version"], "securityContext": security});
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": PULL, "namespace": "kube-system", "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": PULL}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": false,
                    "hostNetwork": true,
                    "initContainers": images.iter().map(ask).collect::<Vec<Value>>(),
                    "containers": [{"name": "pause", "image": pause, "securityContext": security}],
                    "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
                    "priorityClassName": "system-node-critical",
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "terminationGracePeriodSeconds": 1,
                    "tolerations": [{"operator": "Exists"}],
                },
            },
        },
    });
    Manifest { path: format!("{PULL}.yaml"), line: 1, object }
}
