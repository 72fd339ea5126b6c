//! The copies on this machine's disk.

use std::collections::BTreeMap;
use std::path::Path;

use super::copy::{self, CertificateCopy};
use crate::base::files;
use crate::desired::assets::AssetSet;
use crate::node::host::Host;
use crate::plane::kept_copy::{self, Copy};

/// What hoist and the kubelet keep on this machine, guard's copy aside.
pub fn on_disk(host: &Host) -> Vec<CertificateCopy> {
    let mut found = Vec::new();
    let single = [
        (host.path("/etc/kubernetes/pki/ca.crt"), "kubelet"),
        (host.kubelet_kubeconfig(), "kubelet"),
        (host.kubelet_certificate(), "kubelet"),
        (host.kubelet_serving_certificate(), "kubelet"),
    ];
    for (path, holder) in single {
        found.extend(file(host, &path, holder));
    }
    let folders = [
        (host.etcd_pki(), "etcd"),
        (host.serving_pki(), "kube-apiserver"),
        (host.bridge(), "bridge"),
        (host.permanent(), "static pods"),
    ];
    for (folder, holder) in folders {
        for path in files::below(&folder) {
            found.extend(file(host, &path, holder));
        }
    }
    found
}

/// What guard's copy has.
pub fn in_guards_copy(host: &Host, copy: &Copy) -> Vec<CertificateCopy> {
    let place = host.inside(&kept_copy::path(host)).display().to_string();
    of_assets(&place, "guard", &copy.assets)
}

/// What the parts of an asset directory have that are no manifests: each manifest holds what tls/ has.
pub fn of_assets(place: &str, holder: &str, assets: &AssetSet) -> Vec<CertificateCopy> {
    let ours = assets.files.iter().filter(|(path, _)| path.starts_with("tls/") || path.starts_with("auth/"));
    ours.flat_map(|(path, file)| copy::copies(place, path, holder, &file.content)).collect()
}

/// The first end of the copies of each certificate that guard sees, in seconds since 1970, by its name.
pub fn ends(host: &Host, copy: &Copy) -> BTreeMap<String, i64> {
    let mut ends = BTreeMap::new();
    for one in on_disk(host).into_iter().chain(in_guards_copy(host, copy)) {
        let end = one.info.not_after.unix_timestamp();
        ends.entry(one.name).and_modify(|first: &mut i64| *first = end.min(*first)).or_insert(end);
    }
    ends
}

fn file(host: &Host, path: &Path, holder: &str) -> Vec<CertificateCopy> {
    let content = std::fs::read(path).unwrap_or_default();
    copy::copies(&host.inside(path).display().to_string(), "", holder, &content)
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::check::preflight::testing::{Machine, cluster, tls};
    use crate::desired::secrets;

    #[test]
    fn what_a_controllers_disk_holds() {
        let assets = tls(OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap());
        let machine = Machine::new();
        let text = |path: &str| assets.text(path).unwrap();
        // The kubelet keeps certificate and key in one file.
        machine.put(Host::KUBELET_CERTIFICATE, text("tls/kubelet/c1/client.key") + &text("tls/kubelet/c1/client.crt"));
        machine.put("/etc/kubernetes/pki/etcd/server.crt", text("tls/etcd/c1/server.crt"));
        machine.put("/etc/kubernetes/pki/etcd/server.key", text("tls/etcd/c1/server.key"));
        let config = secrets::kubeconfig(&cluster(""), &assets.tls(), "https://x:1", "u", "kube-scheduler").unwrap();
        machine.put("/etc/kubernetes/bridge/kube-scheduler/kubeconfig", config);
        let found = on_disk(&machine.host());
        let said: Vec<_> = found.iter().map(|one| format!("{} {} {}", one.name, one.holder, one.place)).collect();
        assert_eq!(
            said,
            [
                "kubelet-client kubelet /var/lib/kubelet/pki/kubelet-client-current.pem",
                "etcd-server etcd /etc/kubernetes/pki/etcd/server.crt",
                "scheduler.conf bridge /etc/kubernetes/bridge/kube-scheduler/kubeconfig",
                "ca bridge /etc/kubernetes/bridge/kube-scheduler/kubeconfig",
            ]
        );
    }
}
