//! The copies on this machine's disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::files;
use crate::desired::certificates::{self, CertificateCopy, KeyCopy};
use crate::node::host::Host;
use crate::plane::kept_copy::{self, Copy};

/// What hoist and the kubelet keep on this machine, guard's copy aside.
pub fn on_disk(host: &Host) -> Vec<CertificateCopy> {
    read(host).iter().flat_map(|(place, holder, content)| certificates::copies(place, "", holder, content)).collect()
}

/// The keys that no certificate belongs to, likewise.
pub fn keys_on_disk(host: &Host) -> Vec<KeyCopy> {
    read(host).iter().flat_map(|(place, holder, content)| certificates::keys(place, "", holder, content)).collect()
}

/// The files that there are to look into: place, holder, content.
fn read(host: &Host) -> Vec<(String, &'static str, Vec<u8>)> {
    let mut found: Vec<(PathBuf, &str)> = Vec::new();
    let single = [
        (host.path("/etc/kubernetes/pki/ca.crt"), "kubelet"),
        (host.kubelet_kubeconfig(), "kubelet"),
        (host.kubelet_certificate(), "kubelet"),
        (host.kubelet_serving_certificate(), "kubelet"),
    ];
    found.extend(single);
    let folders = [
        (host.etcd_pki(), "etcd"),
        (host.serving_pki(), "kube-apiserver"),
        (host.bridge(), "bridge"),
        (host.permanent(), "static pods"),
    ];
    for (folder, holder) in folders {
        found.extend(files::below(&folder).into_iter().map(|path| (path, holder)));
    }
    let file = |(path, holder): (PathBuf, _)| {
        let content = std::fs::read(&path).unwrap_or_default();
        (host.inside(&path).display().to_string(), holder, content)
    };
    found.into_iter().map(file).collect()
}

/// What guard's copy has.
pub fn in_guards_copy(host: &Host, copy: &Copy) -> Vec<CertificateCopy> {
    certificates::of_assets(&place_of_copy(host), "guard", &copy.assets)
}

/// The keys of guard's copy that no certificate belongs to.
pub fn keys_in_guards_copy(host: &Host, copy: &Copy) -> Vec<KeyCopy> {
    certificates::keys_of_assets(&place_of_copy(host), "guard", &copy.assets)
}

fn place_of_copy(host: &Host) -> String {
    host.inside(&kept_copy::path(host)).display().to_string()
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
        machine.put("/etc/kubernetes/bridge/kube-apiserver/sa.pub", text("tls/sa.pub"));
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
        let keys = keys_on_disk(&machine.host());
        let said: Vec<_> = keys.iter().map(|one| format!("{} {} {}", one.name, one.holder, one.place)).collect();
        assert_eq!(said, ["service-account bridge /etc/kubernetes/bridge/kube-apiserver/sa.pub"]);
    }
}
