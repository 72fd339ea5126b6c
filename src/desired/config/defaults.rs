//! The defaults of fields that are not set, and what follows from the version.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Images, Taint, Version};

pub(super) const API_VERSION: &str = "hoist/v1alpha1";
pub(super) const KIND: &str = "Cluster";
pub(super) const CLUSTER_NAME: &str = "kubernetes";
/// The version of Kubernetes where none is named.
pub const KUBERNETES_VERSION: &str = "v1.37.2";
pub(super) const IMAGE_REPOSITORY: &str = "registry.k8s.io";
/// Where flannel's images are, unless `imageRepository` has them all.
const FLANNEL_REPOSITORY: &str = "ghcr.io/flannel-io";
/// The release of flannel, and of the CNI plugin that its own manifest names.
const FLANNEL: [&str; 2] = ["flannel:v0.28.10", "flannel-cni-plugin:v1.9.1-flannel3"];
/// Where CNI plugins are in the Kubernetes project's packages, and where containerd looks by itself.
pub(super) const CNI_BIN_DIR: &str = "/opt/cni/bin";
pub(super) const POD_SUBNET: &str = "10.244.0.0/16";
pub(super) const SERVICE_SUBNET: &str = "10.96.0.0/12";
pub(super) const DNS_DOMAIN: &str = "cluster.local";
/// A cache takes the address that Kubernetes' own node-local DNS cache has.
pub(super) const NODE_LOCAL_DNS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x169, 0x254, 0x20, 0, 0, 0, 0x10))];
pub(super) const ETCD_DATA_DIR: &str = "/var/lib/etcd";
pub(super) const BINARY: &str = "/usr/local/bin/hoist";
/// Where an asset directory is on a controller, where nothing else is said.
pub const ASSET_DIR: &str = "/etc/hoist/assets";
pub(super) const CA_VALIDITY: &str = "87600h";
pub(super) const CERTIFICATE_VALIDITY: &str = "8760h";
pub(super) const BOOTSTRAP_TOKEN_TTL: &str = "24h";

/// A minor version of Kubernetes that hoist brings up, with the tags that the kubeadm of that version uses
/// (DefaultEtcdVersion, CoreDNSVersion and PauseVersion in cmd/kubeadm/app/constants).
pub(super) struct Supported {
    pub minor: u32,
    pub etcd: &'static str,
    pub coredns: &'static str,
    pub pause: &'static str,
}

/// All supported minor versions of Kubernetes 1, oldest first.
pub(super) const SUPPORTED: &[Supported] = &[
    Supported { minor: 34, etcd: "3.6.5-0", coredns: "v1.12.1", pause: "3.10.1" },
    Supported { minor: 35, etcd: "3.6.6-0", coredns: "v1.13.1", pause: "3.10.1" },
    Supported { minor: 36, etcd: "3.6.8-0", coredns: "v1.14.2", pause: "3.10.2" },
    Supported { minor: 37, etcd: "3.7.0-0", coredns: "v1.14.6", pause: "3.10.2" },
];

/// The supported minor versions of Kubernetes, written `1.37`, oldest first.
pub fn supported_versions() -> Vec<String> {
    SUPPORTED.iter().map(|supported| format!("1.{}", supported.minor)).collect()
}

/// The entry for `version`, if it is supported.
pub(super) fn supported(version: Version) -> Option<&'static Supported> {
    SUPPORTED.iter().find(|s| version.major == 1 && version.minor == s.minor)
}

/// The images of `version` in `repository`. Kubernetes' own has CoreDNS in a folder, and kubeadm expects no other to.
pub(super) fn images(repository: &str, version: Version, tags: &Supported) -> Images {
    let flannel = if repository == IMAGE_REPOSITORY { FLANNEL_REPOSITORY } else { repository };
    let [flannel, flannel_cni_plugin] = FLANNEL.map(|image| format!("{flannel}/{image}"));
    Images {
        kube_apiserver: format!("{repository}/kube-apiserver:{version}"),
        kube_controller_manager: format!("{repository}/kube-controller-manager:{version}"),
        kube_scheduler: format!("{repository}/kube-scheduler:{version}"),
        kube_proxy: format!("{repository}/kube-proxy:{version}"),
        etcd: format!("{repository}/etcd:{}", tags.etcd),
        coredns: format!(
            "{repository}{}/coredns:{}",
            if repository == IMAGE_REPOSITORY { "/coredns" } else { "" },
            tags.coredns
        ),
        pause: format!("{repository}/pause:{}", tags.pause),
        flannel,
        flannel_cni_plugin,
        hoist: None,
    }
}

/// The taints of a controller that names none.
pub(super) fn taints() -> Vec<Taint> {
    vec![Taint {
        key: "node-role.kubernetes.io/control-plane".to_owned(),
        value: None,
        effect: "NoSchedule".to_owned(),
    }]
}
