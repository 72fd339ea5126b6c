//! The certificates that a cluster needs: CAs and leaves, with their names and usages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::ExtendedKeyUsagePurpose as Usage;

use crate::desired::config::{Cluster, Etcd};

/// A CA. Each has files `<stem>.crt` and `<stem>.key`.
#[derive(Clone, Copy)]
pub(super) struct CaPlan {
    pub stem: &'static str,
    pub common_name: &'static str,
    /// What names it in cluster.yaml.
    pub field: &'static str,
}

/// Signs what the API server serves and what it trusts.
pub(super) const CLUSTER_CA: CaPlan = CaPlan { stem: "ca", common_name: "kubernetes", field: "pki.ca" };
/// Signs what the API server shows to aggregated API servers.
pub(super) const FRONT_PROXY_CA: CaPlan =
    CaPlan { stem: "front-proxy-ca", common_name: "front-proxy-ca", field: "pki.frontProxyCA" };
/// Signs etcd's certificates and those of its clients.
pub(super) const ETCD_CA: CaPlan = CaPlan { stem: "etcd/ca", common_name: "etcd-ca", field: "pki.etcdCA" };

const SERVER: &[Usage] = &[Usage::ServerAuth];
const CLIENT: &[Usage] = &[Usage::ClientAuth];
/// etcd calls itself and its peers with the certificates that it serves.
const BOTH: &[Usage] = &[Usage::ServerAuth, Usage::ClientAuth];

/// A leaf certificate. Each has files `<stem>.crt` and `<stem>.key`.
pub(super) struct LeafPlan {
    pub stem: String,
    pub common_name: String,
    pub organization: Option<&'static str>,
    /// DNS names and IP addresses, in canonical form, each once.
    pub sans: Vec<String>,
    pub usages: &'static [Usage],
}

impl CaPlan {
    /// Whether its key is kept elsewhere: cluster.yaml names its certificate alone.
    pub fn is_external(&self, cluster: &Cluster) -> bool {
        let pki = &cluster.pki;
        let named = match self.stem {
            "ca" => &pki.ca,
            "front-proxy-ca" => &pki.front_proxy_ca,
            _ => &pki.etcd_ca,
        };
        named.as_ref().is_some_and(|files| files.key.is_none())
    }
}

impl LeafPlan {
    fn client(stem: &str, common_name: &str) -> Self {
        Self {
            stem: stem.to_owned(),
            common_name: common_name.to_owned(),
            organization: None,
            sans: Vec::new(),
            usages: CLIENT,
        }
    }

    /// What the API server shows to aggregated API servers.
    pub fn front_proxy_client() -> Self {
        Self::client("front-proxy-client", "front-proxy-client")
    }

    /// Whether a server shows it, and so must send the intermediates behind it.
    pub fn is_served(&self) -> bool {
        self.usages.contains(&Usage::ServerAuth)
    }

    /// The subject, as `inspect` writes it. The order is that of Go's library, and so kubeadm's.
    pub fn subject(&self) -> String {
        match self.organization {
            Some(organization) => format!("O={organization}, CN={}", self.common_name),
            None => format!("CN={}", self.common_name),
        }
    }
}

/// The CAs of this cluster with the leaves that each signs.
pub(super) fn plan(cluster: &Cluster) -> Vec<(CaPlan, Vec<LeafPlan>)> {
    let mut plan = vec![
        (
            CLUSTER_CA,
            vec![
                apiserver(cluster),
                // No group: a ClusterRoleBinding gives it what it needs, where system:masters could never be taken back.
                LeafPlan::client("apiserver-kubelet-client", "kube-apiserver-kubelet-client"),
                LeafPlan::client("kube-controller-manager", "system:kube-controller-manager"),
                LeafPlan::client("kube-scheduler", "system:kube-scheduler"),
                // A static pod has no service account. What it may do, a ClusterRole says.
                LeafPlan::client("guard", "hoist:guard"),
                LeafPlan { organization: Some("system:masters"), ..LeafPlan::client("admin", "kubernetes-admin") },
            ],
        ),
        (FRONT_PROXY_CA, vec![LeafPlan::front_proxy_client()]),
    ];
    let kubelets = cluster.controllers.iter().map(|controller| LeafPlan {
        organization: Some("system:nodes"),
        ..LeafPlan::client(&format!("kubelet/{}/client", controller.name), &format!("system:node:{}", controller.name))
    });
    plan[0].1.extend(kubelets);
    if matches!(cluster.etcd, Etcd::Local { .. }) {
        let mut leaves = vec![
            LeafPlan::client("apiserver-etcd-client", "kube-apiserver-etcd-client"),
            LeafPlan::client("etcd/healthcheck-client", "kube-etcd-healthcheck-client"),
        ];
        for controller in &cluster.controllers {
            let sans = with_loopback(vec![controller.name.clone(), controller.address.to_string()]);
            leaves.extend(["server", "peer"].map(|role| LeafPlan {
                stem: format!("etcd/{}/{role}", controller.name),
                common_name: controller.name.clone(),
                organization: None,
                sans: sans.clone(),
                usages: BOTH,
            }));
        }
        plan.push((ETCD_CA, leaves));
    }
    plan
}

/// The names and the extended key usages of leaves, each usage once.
pub(super) fn asked(leaves: &[LeafPlan]) -> (Vec<String>, Vec<&'static str>) {
    let names = leaves.iter().flat_map(|leaf| leaf.sans.iter().cloned()).collect();
    let mut usages: Vec<_> = leaves.iter().flat_map(|leaf| leaf.usages.iter().map(usage_name)).collect();
    usages.sort_unstable();
    usages.dedup();
    (names, usages)
}

/// One of the plan's two extended key usages, by the name that `inspect` gives it.
pub(super) fn usage_name(usage: &Usage) -> &'static str {
    match usage {
        Usage::ServerAuth => "serverAuth",
        _ => "clientAuth",
    }
}

fn apiserver(cluster: &Cluster) -> LeafPlan {
    let mut sans: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
    sans.push(format!("kubernetes.default.svc.{}", cluster.networking.dns_domain));
    for controller in &cluster.controllers {
        sans.extend([controller.name.clone(), controller.address.to_string()]);
    }
    sans.extend(cluster.api_service_addresses().iter().map(IpAddr::to_string));
    sans.extend(cluster.control_plane_endpoint.iter().map(|e| e.host.clone()));
    sans.extend(cluster.virtual_address().iter().map(IpAddr::to_string));
    sans.extend(cluster.api_server.cert_sans.iter().cloned());
    LeafPlan {
        stem: "apiserver".to_owned(),
        common_name: "kube-apiserver".to_owned(),
        organization: None,
        sans: with_loopback(sans),
        usages: SERVER,
    }
}

/// The names with localhost and both loopback addresses; each once, in canonical form.
fn with_loopback(names: Vec<String>) -> Vec<String> {
    let loopback = ["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()];
    let mut sans = Vec::new();
    for name in names.into_iter().chain(loopback) {
        let san = canonical(&name);
        if !sans.contains(&san) {
            sans.push(san);
        }
    }
    sans
}

/// A name as it is compared: addresses in their shortest form, DNS names in lower case without the root's dot
/// (Go refuses a certificate with one).
pub(super) fn canonical(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => name.trim_end_matches('.').to_ascii_lowercase(),
    }
}
