//! The raw shape of `cluster.yaml`, before validation. Every field is optional here; [`super::validate`] decides
//! which are required and what the defaults are.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::base::yaml::Fields;

type Section<T> = Option<Fields<T>>;
type List<T> = Option<Vec<Fields<T>>>;

/// What says which kind of file it is; read first, so that another kind is not reported field by field.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Header {
    pub api_version: Option<Value>,
    pub kind: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Cluster {
    /// Checked in [`Header`].
    #[serde(rename = "apiVersion")]
    pub _api_version: Option<String>,
    #[serde(rename = "kind")]
    pub _kind: Option<String>,
    pub cluster_name: Option<String>,
    pub kubernetes_version: Option<String>,
    pub networking: Section<Networking>,
    pub network: Section<Network>,
    pub kube_proxy: Section<KubeProxy>,
    pub dns: Section<Dns>,
    pub control_plane_endpoint: Option<String>,
    pub endpoint: Section<Endpoint>,
    pub image_repository: Option<String>,
    pub images: Section<Images>,
    pub api_server: Section<ApiServer>,
    pub controller_manager: Section<Component>,
    pub scheduler: Section<Component>,
    pub etcd: Section<Etcd>,
    pub controllers: List<Controller>,
    pub kubelet: Section<Kubelet>,
    pub pod_security: Section<PodSecurity>,
    pub hoist: Section<Hoist>,
    pub addons: Option<Vec<String>>,
    pub pki: Section<Pki>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Networking {
    pub pod_subnet: Option<String>,
    pub service_subnet: Option<String>,
    pub dns_domain: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Images {
    #[serde(rename = "kubeAPIServer")]
    pub kube_apiserver: Option<String>,
    pub kube_controller_manager: Option<String>,
    pub kube_scheduler: Option<String>,
    pub kube_proxy: Option<String>,
    pub etcd: Option<String>,
    #[serde(rename = "coreDNS")]
    pub coredns: Option<String>,
    pub pause: Option<String>,
    pub flannel: Option<String>,
    #[serde(rename = "flannelCNIPlugin")]
    pub flannel_cni_plugin: Option<String>,
    pub hoist: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Network {
    pub plugin: Option<String>,
    pub flannel: Section<Flannel>,
    pub cni_bin_dir: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Flannel {
    pub backend: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct KubeProxy {
    pub mode: Option<String>,
    pub config: Option<Map<String, Value>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Dns {
    pub plugin: Option<String>,
    pub upstreams: Option<Vec<String>>,
    pub autoscaler: Section<Autoscaler>,
    pub node_local: Section<NodeLocal>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Autoscaler {
    pub min: Option<u64>,
    pub nodes_per_replica: Option<u64>,
    pub cores_per_replica: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NodeLocal {
    pub enabled: Option<bool>,
    pub address: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub node_local: Option<bool>,
    pub virtual_address: Option<String>,
    pub interface: Option<String>,
    #[serde(rename = "virtualRouterID")]
    pub virtual_router_id: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ApiServer {
    #[serde(rename = "certSANs")]
    pub cert_sans: Option<Vec<String>>,
    pub extra_args: List<Arg>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Component {
    pub extra_args: List<Arg>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Arg {
    pub name: Option<String>,
    pub value: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Etcd {
    pub local: Section<LocalEtcd>,
    pub external: Section<ExternalEtcd>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct LocalEtcd {
    pub data_dir: Option<String>,
    pub defragmentation: Option<bool>,
    pub extra_args: List<Arg>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ExternalEtcd {
    pub endpoints: Option<Vec<String>>,
    pub ca_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Controller {
    pub name: Option<String>,
    pub address: Option<String>,
    pub taints: List<Taint>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Taint {
    pub key: Option<String>,
    pub value: Option<String>,
    pub effect: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Kubelet {
    pub config: Option<Map<String, Value>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct PodSecurity {
    pub enforce: Option<String>,
    pub audit: Option<String>,
    pub warn: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Hoist {
    pub binary: Option<String>,
    pub asset_dir: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Pki {
    pub ca_certificate_validity_period: Option<String>,
    pub certificate_validity_period: Option<String>,
    #[serde(rename = "bootstrapTokenTTL")]
    pub bootstrap_token_ttl: Option<String>,
    pub ca: Section<KeyPair>,
    #[serde(rename = "etcdCA")]
    pub etcd_ca: Section<KeyPair>,
    #[serde(rename = "frontProxyCA")]
    pub front_proxy_ca: Section<KeyPair>,
    pub service_account_key: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyPair {
    pub certificate: Option<String>,
    pub key: Option<String>,
}
