//! This machine's view of etcd, of images, and of guard's copy compared with the cluster.

use std::net::SocketAddr;
use std::time::Duration;

use super::{EtcdStatus, Subject, etcd};
use crate::desired::assets::{AssetSet, cluster_id};
use crate::desired::config::version;
use crate::etcd::{alarms, members};
use crate::node::etcd_data::Data;
use crate::node::host::Host;
use crate::node::images;
use crate::node::kubelet;
use crate::plane::guard_pod;
use crate::plane::kept_copy;

/// How long etcd may take to say its alarms.
const LIMIT: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Default)]
pub(super) struct Here {
    pub(super) etcd: Option<EtcdStatus>,
    /// Each as a sentence without a full stop, with what to type.
    pub(super) problems: Vec<String>,
}

/// Looks at this machine.
pub(super) async fn look(subject: &Subject<'_>) -> Here {
    let Subject { host, cluster, controller, .. } = *subject;
    let mut here = Here::default();
    let copy = kept_copy::Copy::load(host);
    if host.world().is_root() && guard_pod::is_there(host) && !matches!(copy, Ok(Some(_))) {
        let why = copy.as_ref().err().map_or("it is not there".to_owned(), ToString::to_string);
        here.problems.push(format!(
            "guard has no copy of the bridge, and raises none: {why}; is the disk of /var/lib/hoist mounted? `hoist start` writes it anew"
        ));
    }
    let copy = copy.ok().flatten();
    // Without an asset directory guard's copy knows the same.
    let Some(assets) = subject.assets.or(copy.as_ref().map(|copy| &copy.assets)) else { return here };
    let cluster = copy.as_ref().and_then(|copy| copy.cluster().ok()).map_or(cluster.clone(), |(cluster, _)| cluster);
    let data = Data::of(host, &cluster).filter(|_| host.world().is_root());
    if let Some(data) = &data {
        let address = SocketAddr::new(cluster.loopback(), alarms::PORT);
        if let Ok(health) = host.world().etcd(address, &assets.tls(), LIMIT).await {
            let asked = members::ask(address, &[], &assets.tls(), LIMIT).await;
            let (members, problems) = etcd::members(&asked, &health, &controller.name);
            here.problems.extend(problems);
            let alarms = health.alarms.iter().map(alarms::Alarm::name).collect();
            here.etcd = Some(EtcdStatus { alarms, size: health.size, quota: health.quota, members });
        } else if !data.is_there() && (copy.is_some() || cluster_id(assets).is_some()) {
            here.problems.push(format!("etcd's data is not in {}: {}", data.name(), Data::remedy()));
        }
    }
    let Ok(socket) = kubelet::runtime_socket(host, assets) else { return here };
    let Ok(present) = images::present(&socket).await else { return here };
    let raised = copy.iter().filter_map(|copy| guard_pod::lacks(host, copy, &present).ok()).flatten();
    let mut missing: Vec<_> = images::missing_here(host, &socket).await.into_iter().flatten().chain(raised).collect();
    missing.sort();
    missing.dedup();
    here.problems.extend(missing.iter().map(|missing| format!("{missing}: {}", missing.remedy())));
    here
}

/// What differs between the cluster that answers, by its id and its minor version, and what is known of it here.
pub(super) fn compare(host: &Host, assets: Option<&AssetSet>, id: &str, version: Option<(u32, u32)>) -> Vec<String> {
    let copy = kept_copy::Copy::load(host).ok().flatten();
    let mut problems = Vec::new();
    let known = copy.as_ref().and_then(kept_copy::Copy::cluster_id).or_else(|| assets.and_then(cluster_id));
    if known.as_ref().is_some_and(|known| known != id) {
        problems.push(format!(
            "this machine serves another cluster than before: {id}, and {} was; if that is intended, `hoist start` records the new one",
            known.unwrap_or_default()
        ));
    }
    let kept = copy.and_then(|copy| version::numbers(&copy.kubernetes));
    if let (Some((major, minor, _)), Some(version)) = (kept, version)
        && (major, minor) != version
    {
        problems.push(format!(
            "guard's copy of the bridge is of Kubernetes {major}.{minor}, and the API server of {}.{}: set kubernetesVersion in cluster.yaml, `hoist render`, and `hoist upgrade apply`",
            version.0, version.1
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::files::File;
    use crate::desired::assets::CLUSTER_ID;
    use crate::node::system;

    #[test]
    fn another_cluster_and_another_version_than_guards_are_told() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        assert_eq!(compare(&host, None, "one", Some((1, 36))), [""; 0]);
        let mut assets = AssetSet::default();
        assets.files.insert(CLUSTER_ID.into(), File::public("one\n"));
        assert_eq!(compare(&host, Some(&assets), "one", None), [""; 0]);
        assert!(
            compare(&host, Some(&assets), "two", None)[0]
                .contains("this machine serves another cluster than before: two")
        );
        let copy = kept_copy::Copy {
            controller: None,
            kubernetes: "v1.36.3".into(),
            assets,
            images: Default::default(),
            asset_dir: None,
            has_more: false,
        };
        copy.store(&host).unwrap();
        assert_eq!(compare(&host, None, "one", Some((1, 36))), [""; 0]);
        let said = compare(&host, None, "two", Some((1, 37)));
        assert!(said.len() == 2 && said[1].contains("is of Kubernetes 1.36, and the API server of 1.37"), "{said:?}");
    }
}
