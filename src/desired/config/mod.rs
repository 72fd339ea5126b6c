//! The cluster as its user declares it. `cluster.yaml` is read, completed with defaults and checked here; no other
//! module checks it again. The result is [`Cluster`].

mod check;
mod defaults;
mod dns;
mod endpoint;
mod flags;
mod network;
mod networking;
mod pod_security;
mod raw;
mod syntax;
mod validate;
pub mod version;
mod write;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;

use crate::base::error::{Error, Finding, Result};
use crate::base::input::{self, CONFIG_LIMIT};
use crate::base::yaml;

pub use defaults::{ASSET_DIR, KUBERNETES_VERSION, supported_versions};
pub use dns::{Autoscaler, Dns};
pub use endpoint::{ApiEndpoint, VirtualAddress};
pub use pod_security::{Level, PodSecurity};
pub use syntax::{duration, image, subdomain};
pub use version::Rendered;

/// The commented example: every field, with its default where it has one.
pub const DEFAULT: &str = include_str!("../../../assets/cluster.yaml");

/// What a configuration file says.
#[derive(Debug)]
pub struct Loaded {
    /// The cluster.
    pub cluster: Cluster,
    /// Whether the file names a version of Kubernetes.
    pub names_version: bool,
    /// What of it may not be meant.
    pub warnings: Vec<Finding>,
}

/// Reads the configuration file at `path`, or standard input if that is `-`. Relative paths in it begin at its folder.
/// Where it names no version of Kubernetes, it means that of what is `rendered` already, if there is such a thing.
///
/// # Errors
/// A file that cannot be read; all that is wrong with it.
pub fn load(path: &Path, rendered: Rendered) -> Result<Loaded> {
    let is_stream = path == Path::new("-") || is_handed_over(path);
    let place = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let bytes = match is_stream {
        true if path == Path::new("-") => input::read_stream(&place, std::io::stdin(), CONFIG_LIMIT),
        true => match std::fs::File::open(path) {
            Ok(file) => input::read_stream(&place, file, CONFIG_LIMIT),
            Err(error) => return Err(Error::io("read", path, error)),
        },
        false => input::read(path, CONFIG_LIMIT),
    };
    let bytes = bytes.map_err(|unread| match unread.is_missing(path) {
        true => {
            Error::Input(vec![unread.finding.remedy("`hoist config default > cluster.yaml` makes one to begin with")])
        }
        false => unread.into_error(path),
    })?;
    let text = input::text(&place, &bytes).map_err(|finding| Error::Input(vec![finding]))?;
    let folder = if is_stream { Path::new("-") } else { path };
    let absolute = std::path::absolute(folder).map_err(|e| Error::io("find the folder of", path, e))?;
    parse_again(&place, text, absolute.parent().unwrap_or(Path::new("/")), rendered)
}

/// Whether the path is one that a shell makes of `<(command)`: a pipe that has its writer.
fn is_handed_over(path: &Path) -> bool {
    path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd") || path == Path::new("/dev/stdin")
}

/// The cluster that `text` describes. `place` names it in findings; relative paths in it begin at `base_dir`.
///
/// A file of the right shape has all its violations reported at once, and one of the wrong shape all its misfits:
/// with fields missing or misunderstood, what the rest says cannot be judged.
pub fn parse(place: &str, text: &str, base_dir: &Path) -> Result<Cluster> {
    parse_and_warn(place, text, base_dir).map(|(cluster, _)| cluster)
}

/// The same, with what of it may not be meant.
///
/// # Errors
/// As [`parse`].
pub fn parse_and_warn(place: &str, text: &str, base_dir: &Path) -> Result<(Cluster, Vec<Finding>)> {
    parse_again(place, text, base_dir, Rendered::Never).map(|loaded| (loaded.cluster, loaded.warnings))
}

/// The same for what is rendered into a directory that may have been rendered before.
fn parse_again(place: &str, text: &str, base_dir: &Path, rendered: Rendered) -> Result<Loaded> {
    let read = || {
        let (header, positions) = yaml::parse_one::<raw::Header>(place, text)?;
        check_header(place, &header, &positions)?;
        let (raw, positions) = yaml::parse_one::<raw::Cluster>(place, text)?;
        let check = check::Check { place, positions: &positions, base_dir, findings: Vec::new() };
        let (cluster, warnings) = validate::validate(&raw, rendered, check)?;
        Ok(Loaded { cluster, names_version: raw.kubernetes_version.is_some(), warnings })
    };
    read().map_err(Error::Input)
}

fn check_header(place: &str, header: &raw::Header, positions: &yaml::Positions) -> Result<(), Vec<Finding>> {
    let fields = [("apiVersion", &header.api_version, defaults::API_VERSION), ("kind", &header.kind, defaults::KIND)];
    let wrong = fields.into_iter().filter(|(_, value, expected)| value.as_ref().is_none_or(|v| v != expected));
    let findings: Vec<_> = wrong
        .map(|(name, value, expected)| {
            let message = match value {
                Some(value) => format!("{name}: {value} is not known"),
                None => format!("{name}: it is required"),
            };
            Finding::new(place, message).at(positions.nearest(name)).remedy(format!("write {name}: {expected}"))
        })
        .collect();
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

/// A cluster whose every value is known and consistent.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// The name kubeconfigs give it.
    pub cluster_name: String,
    /// The version of Kubernetes to run.
    pub kubernetes_version: Version,
    /// Subnets and the DNS domain.
    pub networking: Networking,
    /// What connects pods.
    pub network: Network,
    /// What gives Services their addresses.
    pub kube_proxy: KubeProxy,
    /// Cluster DNS.
    pub dns: Dns,
    /// `host` or `host:port` that clients use; `None` means the virtual address, or else that of the first controller.
    pub control_plane_endpoint: Option<Endpoint>,
    /// How clients reach the API where there are several API servers.
    pub api_endpoint: ApiEndpoint,
    /// Every image a rendered manifest names.
    pub images: Images,
    /// What the user changes of the API server.
    pub api_server: ApiServer,
    /// What the user changes of the controller manager.
    pub controller_manager: Component,
    /// What the user changes of the scheduler.
    pub scheduler: Component,
    /// Where the cluster's state is kept.
    pub etcd: Etcd,
    /// The controllers; never empty.
    pub controllers: Vec<Controller>,
    /// KubeletConfiguration fields laid over hoist's defaults.
    pub kubelet_config: serde_json::Map<String, serde_json::Value>,
    /// What pods may be where their namespace does not say.
    pub pod_security: PodSecurity,
    /// Where hoist itself is on a controller.
    pub hoist: HoistPaths,
    /// What is copied to addons/: folders and files on the machine that renders.
    pub addons: Vec<String>,
    /// Lifetimes and existing CA files.
    pub pki: PkiConfig,
}

/// A version of Kubernetes, written `v1.37.2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1.
    pub major: u32,
    /// The minor version.
    pub minor: u32,
    /// The patch version.
    pub patch: u32,
}

/// Subnets and the DNS domain. One subnet of a kind, or two of different families for dual stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networking {
    /// Where pods get their addresses from.
    pub pod_subnets: Vec<IpNet>,
    /// Where Services get their addresses from.
    pub service_subnets: Vec<IpNet>,
    /// `cluster.local`, usually.
    pub dns_domain: String,
}

/// What connects pods across nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The network plugin.
    pub plugin: Plugin,
    /// Where the container runtime of every node looks for CNI plugins.
    pub cni_bin_dir: String,
}

/// The network plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// flannel, and how it gets packets to other nodes.
    Flannel(FlannelBackend),
    /// One that the user brings.
    None,
}

/// How flannel gets packets to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlannelBackend {
    /// In VXLAN, whatever is between the nodes.
    Vxlan,
    /// By routes: all nodes share a link.
    HostGw,
}

/// kube-proxy on every node.
#[derive(Debug, Clone, PartialEq)]
pub struct KubeProxy {
    /// How it does its work, if it is there.
    pub mode: ProxyMode,
    /// KubeProxyConfiguration fields laid over hoist's defaults.
    pub config: serde_json::Map<String, serde_json::Value>,
}

/// What kube-proxy, and flannel with it, filters packets by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// nftables where the controller's kernel has it, iptables otherwise: `start` chooses.
    Auto,
    /// nftables.
    Nftables,
    /// iptables.
    Iptables,
    /// There is no kube-proxy: the network plugin does its work.
    None,
}

/// A host name or address with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A DNS name or an IP address (without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Full image references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// kube-apiserver.
    pub kube_apiserver: String,
    /// kube-controller-manager.
    pub kube_controller_manager: String,
    /// kube-scheduler.
    pub kube_scheduler: String,
    /// kube-proxy.
    pub kube_proxy: String,
    /// etcd.
    pub etcd: String,
    /// CoreDNS, as cluster DNS and as the cache of each node.
    pub coredns: String,
    /// pause, into which hoist's own binary is mounted where `hoist` names no image.
    pub pause: String,
    /// flannel.
    pub flannel: String,
    /// flannel's CNI plugin.
    pub flannel_cni_plugin: String,
    /// hoist itself, for its own pods; without it they run the host's binary in the image of pause.
    pub hoist: Option<String>,
}

/// A flag, as kubeadm's `extraArgs` name it: no leading dashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// The flag's name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What a user changes of a component.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Component {
    /// Flags that replace hoist's of the same name, or are added.
    pub extra_args: Vec<Arg>,
}

/// What a user changes of the API server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiServer {
    /// Flags that replace hoist's of the same name, or are added.
    pub extra_args: Vec<Arg>,
    /// Further names and addresses of its serving certificate.
    pub cert_sans: Vec<String>,
}

/// Where the cluster's state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Etcd {
    /// A static pod on each controller.
    Local {
        /// The data directory on the host.
        data_dir: String,
        /// Whether guard defragments a member of several when much of its database can be given back.
        defragmentation: bool,
        /// Flags that replace hoist's of the same name, or are added.
        extra_args: Vec<Arg>,
    },
    /// A cluster that somebody else runs.
    External {
        /// Client URLs.
        endpoints: Vec<String>,
        /// The CA of its serving certificates: a file on the machine that renders.
        ca_file: String,
        /// The client certificate.
        cert_file: String,
        /// The client certificate's key.
        key_file: String,
    },
}

/// A controller (control-plane node).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// Its Node's name.
    pub name: String,
    /// The address that clients and other controllers reach it at: NODE_IP.
    pub address: IpAddr,
    /// Taints that `start` gives the Node, in the API's own form; by default the control plane's NoSchedule.
    pub taints: Vec<Taint>,
}

/// A taint of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, often none.
    pub value: Option<String>,
    /// NoSchedule, PreferNoSchedule or NoExecute.
    pub effect: String,
}

/// Where hoist itself is on a controller, as its unit and the first-boot files name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoistPaths {
    /// The binary.
    pub binary: String,
    /// The asset directory.
    pub asset_dir: String,
}

/// Lifetimes and existing CA files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PkiConfig {
    /// How long a CA certificate is valid that hoist makes.
    pub ca_validity: std::time::Duration,
    /// How long a leaf certificate is valid.
    pub certificate_validity: std::time::Duration,
    /// How long the bootstrap token in auth/kubeconfig-kubelet may be used.
    pub bootstrap_token_ttl: std::time::Duration,
    /// An existing cluster CA.
    pub ca: Option<KeyPairFiles>,
    /// An existing etcd CA.
    pub etcd_ca: Option<KeyPairFiles>,
    /// An existing front-proxy CA.
    pub front_proxy_ca: Option<KeyPairFiles>,
    /// An existing service-account signing key (PEM, private).
    pub service_account_key: Option<String>,
}

/// An existing CA: paths of PEM files on the machine that renders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPairFiles {
    /// The certificate.
    pub certificate: String,
    /// Its private key; without one, the CA signs elsewhere.
    pub key: Option<String>,
}

/// Where every API server answers, bridge's forwarder and self-hosted one alike.
pub const API_PORT: u16 = 6443;

/// Where the endpoint of a node answers, at its loopback address.
pub const ENDPOINT_PORT: u16 = 7443;

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The loopback address of the family that `address` is of.
pub fn loopback_beside(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

impl Cluster {
    /// The whole configuration as a `cluster.yaml` with every default filled in, which parses to the same cluster.
    pub fn to_yaml(&self) -> String {
        write::write(self)
    }

    /// Every image that the cluster's nodes pull for what is rendered, in the order of their names.
    pub fn images(&self) -> BTreeSet<&str> {
        let Images { kube_apiserver, kube_controller_manager, kube_scheduler, pause, .. } = &self.images;
        let mut images: BTreeSet<&str> = BTreeSet::from([
            kube_apiserver.as_str(),
            kube_controller_manager.as_str(),
            kube_scheduler.as_str(),
            pause.as_str(),
        ]);
        images.extend(self.images.hoist.as_deref());
        if matches!(self.etcd, Etcd::Local { .. }) {
            images.insert(&self.images.etcd);
        }
        if self.kube_proxy.mode != ProxyMode::None {
            images.insert(&self.images.kube_proxy);
        }
        if matches!(self.network.plugin, Plugin::Flannel(_)) {
            images.extend([self.images.flannel.as_str(), self.images.flannel_cni_plugin.as_str()]);
        }
        if self.dns.has_coredns {
            images.insert(&self.images.coredns);
            // What gives a node the addresses of its cache.
            images.extend(self.dns.node_local.is_some().then_some(self.images.flannel.as_str()));
        }
        images
    }

    /// The first address of the first service subnet: the `kubernetes` Service, one for each family.
    pub fn api_service_addresses(&self) -> Vec<IpAddr> {
        self.networking.service_subnets.iter().filter_map(|net| nth(net, 1)).collect()
    }

    /// The tenth address of the first service subnet: cluster DNS, as kubeadm has it.
    pub fn dns_service_address(&self) -> Option<IpAddr> {
        self.networking.service_subnets.first().and_then(|net| nth(net, 10))
    }

    /// The eleventh address: where the caches of the nodes reach CoreDNS itself.
    pub fn dns_upstream_address(&self) -> Option<IpAddr> {
        self.networking.service_subnets.first().and_then(|net| nth(net, 11))
    }

    /// The loopback address of the family that the controllers' addresses are of.
    pub fn loopback(&self) -> IpAddr {
        loopback_beside(self.controllers.first().map_or(Ipv4Addr::UNSPECIFIED.into(), |c| c.address))
    }

    /// Whether the key of the cluster's CA is kept elsewhere, so that nothing in the cluster can sign.
    pub fn has_external_ca(&self) -> bool {
        self.pki.ca.as_ref().is_some_and(|ca| ca.key.is_none())
    }
}

/// An address as a URL has it.
pub fn url_host(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

/// The address `n` after the network's own.
fn nth(net: &IpNet, n: u8) -> Option<IpAddr> {
    let address = match net.network() {
        IpAddr::V4(a) => IpAddr::V4(u32::from(a).checked_add(n.into())?.into()),
        IpAddr::V6(a) => IpAddr::V6(u128::from(a).checked_add(n.into())?.into()),
    };
    net.contains(&address).then_some(address)
}

#[cfg(test)]
mod tests;
