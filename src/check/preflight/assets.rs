//! Files that the asset directory lacks. This is not a check of the machine: the remedy is elsewhere.

use crate::base::error::{Error, Finding};
use crate::desired::assets::AssetSet;
use crate::desired::config::{Cluster, Controller, Etcd};
use crate::desired::pki::ENCRYPTION;
use crate::desired::secrets::{self, COMPONENTS, Server};
use crate::plane::bridge::{Bridge, GUARD};
use crate::plane::guard_pod;

/// Files of the asset directory that `start` needs on this controller and that are not there.
pub(crate) fn missing_files(assets: &AssetSet, cluster: &Cluster, controller: &Controller) -> Vec<Finding> {
    let tls = assets.tls();
    let local = matches!(cluster.etcd, Etcd::Local { .. });
    let of_components = COMPONENTS.map(|name| secrets::of_component(name, cluster, &tls, Server::Bridge).map(drop));
    let of_etcd = local.then(|| secrets::of_etcd(&controller.name, &tls).map(drop));
    // Without guard's manifest there shall be no guard.
    let wanted = |name: &&str| *name != GUARD && (local || *name != "etcd.yaml");
    let manifests = Bridge::manifest_names().into_iter().filter(wanted);
    let of_guard = guard_pod::is_wanted(assets).then(|| secrets::of_guard(cluster, &tls).map(drop));
    let of_kubelet = secrets::of_kubelet(&controller.name, &tls).map(drop);
    let texts = ["auth/kubeconfig", "auth/kubeconfig-kubelet", "kubelet/config.yaml", "kubelet/kubelet.service"]
        .into_iter()
        // Where nothing in the cluster signs, a token leads to no certificate.
        .filter(|path| !cluster.has_external_ca() || *path != "auth/kubeconfig-kubelet")
        .map(str::to_owned)
        .chain(manifests.map(|name| format!("bootstrap-manifests/{name}")))
        .map(|path| assets.text(&path).map(drop));

    let of_encryption = encryption(assets);

    let mut findings = Vec::from_iter(of_encryption);
    for result in of_components.into_iter().chain([of_kubelet]).chain(of_etcd).chain(of_guard).chain(texts) {
        if let Err(Error::Input(found)) = result {
            findings.extend(found.into_iter().filter(|finding| !findings.contains(finding)).collect::<Vec<_>>());
        }
    }
    findings
}

/// What the API servers are told to encrypt with, where it is not there. An older hoist rendered none.
fn encryption(assets: &AssetSet) -> Option<Finding> {
    let path = format!("tls/{ENCRYPTION}");
    let is_told = |name: &str| {
        assets.text(name).is_ok_and(|text| text.contains(&format!("/etc/kubernetes/secrets/{ENCRYPTION}")))
    };
    let is_missing = !assets.files.contains_key(&path) && is_told("bootstrap-manifests/bridge-kube-apiserver.yaml");
    is_missing.then(|| {
        Finding::new(path, "the asset directory lacks this file")
            .remedy("put it back, from a backup or from where `hoist render` wrote it: the cluster's Secrets are encrypted by it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::preflight::testing::cluster;

    /// Files of an asset directory without which `start` can do its work on the first controller.
    const SPARE: [&str; 11] = [
        "cluster.yaml",
        "manifests/",
        "kubelet/worker",
        // Without it there shall be no guard.
        "bootstrap-manifests/hoist-guard.yaml",
        "systemd/",
        "tls/admin.",
        "tls/front-proxy-ca.key",
        "tls/etcd/ca.key",
        "tls/etcd/c2/",
        "tls/kubelet/c2/",
        "tls/etcd/healthcheck-client.",
    ];

    #[test]
    fn every_file_that_start_needs_is_missed() {
        let cluster = cluster("");
        let now = time::OffsetDateTime::now_utc();
        let pki = crate::desired::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
        let whole = crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
        let missing = |assets: &AssetSet| -> Vec<String> {
            let found = missing_files(assets, &cluster, &cluster.controllers[0]);
            assert!(
                found.iter().all(|finding| finding.remedy.as_ref().is_some_and(|text| text.contains("hoist render")))
            );
            found.into_iter().map(|finding| finding.place).collect()
        };
        assert_eq!(missing(&whole), [""; 0]);
        for path in whole.files.keys() {
            let mut assets = whole.clone();
            assets.files.remove(path);
            let is_spare = SPARE.iter().any(|spare| path.starts_with(spare));
            let expected: &[&String] = if is_spare { &[] } else { &[path] };
            assert_eq!(missing(&assets).iter().collect::<Vec<_>>(), expected, "{path}");
        }
        assert_eq!(missing(&AssetSet::default()).len(), 32, "all at once");
    }

    #[test]
    fn with_a_ca_elsewhere_the_kubelets_certificate_is_needed_and_no_token() {
        let now = time::OffsetDateTime::now_utc();
        let mut tls =
            crate::desired::pki::issue(&cluster(""), &Default::default(), &Default::default(), now).unwrap().files;
        tls.remove("ca.key");
        let of_kubelet = ["kubelet/c1/client.crt", "kubelet/c1/client.key"];
        tls.extend(of_kubelet.map(|path| (path.to_owned(), b"PEM".to_vec())));
        let cluster = cluster("pki: {ca: {certificate: ca.crt}}\n");
        let missing = |assets: &AssetSet| -> Vec<String> {
            missing_files(assets, &cluster, &cluster.controllers[0]).into_iter().map(|finding| finding.place).collect()
        };
        let mut assets = crate::desired::render::render(&cluster, &tls, "abcdef.0123456789abcdef").unwrap();
        assert!(!assets.files.contains_key("auth/kubeconfig-kubelet"));
        assert_eq!(missing(&assets), [""; 0]);
        for path in of_kubelet {
            assets.files.remove(&format!("tls/{path}"));
        }
        assert_eq!(missing(&assets), of_kubelet.map(|path| format!("tls/{path}")));
    }
}
