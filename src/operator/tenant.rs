//! A tenant as its object declares it, and the cluster that this makes. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::base::error::{Error, Finding};
use crate::base::yaml;
use crate::desired::config::{self, Cluster, Controller, Version};

/// The fields that mean what they mean in cluster.yaml, and are handed to its reader.
const SHARED: [&str; 8] =
    ["dns", "imageRepository", "images", "kubeProxy", "kubelet", "kubernetesVersion", "network", "networking"];
/// The components, whose flags and certificates' names are cluster.yaml's, too.
const COMPONENTS: [&str; 3] = ["apiServer", "controllerManager", "scheduler"];

/// What is wanted of this cluster, and means nothing in cluster.yaml.
#[cfg(test)]
const OWN: [&str; 9] =
    ["addons", "backup", "etcd", "exposure", "nodeSelector", "paused", "replicas", "restoreFrom", "tolerations"];

/// All fields of a spec.
#[cfg(test)]
pub(super) fn fields() -> Vec<&'static str> {
    SHARED.into_iter().chain(COMPONENTS).chain(OWN).collect()
}

/// A tenant.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its object's uid.
    pub uid: String,
    /// What is wanted of this cluster.
    pub spec: Spec,
    /// The whole spec, of which [`Tenant::cluster`] reads the rest.
    whole: Map<String, Value>,
}

/// What is wanted of this cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The version of Kubernetes.
    pub kubernetes_version: String,
    /// Whether all is left as it is.
    #[serde(default)]
    pub paused: bool,
    /// How many API servers there are.
    #[serde(default = "one")]
    pub replicas: u32,
    /// How it is reached.
    pub exposure: Exposure,
    /// Where its data is.
    pub etcd: EtcdSpec,
    /// What is applied in it besides what a cluster has.
    #[serde(default)]
    pub addons: Vec<Addon>,
    /// How snapshots of its etcd are taken.
    pub backup: Option<Backup>,
    /// The snapshot that takes the place of its data.
    pub restore_from: Option<String>,
    /// Where its pods may run.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// What taints they put up with.
    #[serde(default)]
    pub tolerations: Vec<Value>,
    /// What is wanted of the API server's pods.
    #[serde(default)]
    pub api_server: Component,
    /// What is wanted of the controller manager's.
    #[serde(default)]
    pub controller_manager: Component,
    /// What is wanted of the scheduler's.
    #[serde(default)]
    pub scheduler: Component,
}

/// How snapshots are taken.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// When, as a CronJob has it.
    pub schedule: String,
    /// How many are kept.
    #[serde(default = "seven")]
    pub keep: u32,
    /// In a folder of a node.
    pub local_path: Option<LocalPath>,
    /// In a volume that is claimed.
    pub claim_name: Option<String>,
}

/// An object of the tenant's namespace, with manifests in it.
#[derive(Debug, Clone, Deserialize)]
pub struct Addon {
    /// ConfigMap or Secret.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// How a tenant is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// The type of the Service.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address in kubeconfigs.
    pub address: Option<IpAddr>,
    /// The port of the nodes.
    pub node_port: Option<u16>,
}

/// Where a tenant's data is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdSpec {
    /// How many members there are: 1 or 3.
    #[serde(default = "one")]
    pub replicas: u32,
    /// In a folder of a node, or of one for each member.
    pub local_path: Option<DataPath>,
    /// In a volume.
    pub volume: Option<Volume>,
}

/// A folder of the node of each member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DataPath {
    /// The Node of the only member.
    node: Option<String>,
    /// The Nodes of several members, in their order.
    #[serde(default)]
    nodes: Vec<String>,
    /// The folder.
    pub path: String,
}

impl DataPath {
    /// The Node of the member with this number.
    pub fn node(&self, number: usize) -> &str {
        let named = self.nodes.get(number).or_else(|| self.node.as_ref().filter(|_| number == 0));
        named.map(String::as_str).unwrap_or_default()
    }
}

/// A folder of a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LocalPath {
    /// The Node.
    pub node: String,
    /// The folder.
    pub path: String,
}

/// A volume that is claimed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// How large.
    pub size: String,
    /// Of which class.
    pub storage_class_name: Option<String>,
}

/// What is wanted of a component's pods.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Component {
    /// Requests and limits.
    #[serde(default)]
    pub resources: Option<Value>,
}

/// Where a tenant is, as its Services say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Where its nodes and clients reach its API servers.
    pub outside: SocketAddr,
    /// Where this cluster's pods do.
    pub api: SocketAddr,
    /// Where its API servers, and its members of etcd each other, reach each member.
    pub etcd: Vec<IpAddr>,
}

fn one() -> u32 {
    1
}

fn seven() -> u32 {
    7
}

/// What the rules of the CRD keep out, and those of an older CRD do not.
fn checked(spec: &Spec) -> Result<(), String> {
    let EtcdSpec { replicas, local_path, .. } = &spec.etcd;
    if ![1, 3].contains(replicas) {
        return Err(format!("spec.etcd.replicas: {replicas} members are not to be had. Write 1 or 3"));
    }
    let count = if *replicas == 3 { 3 } else { 1 };
    let has_nodes = |local: &DataPath| (0..count).all(|number| !local.node(number).is_empty());
    if local_path.as_ref().is_some_and(|local| !has_nodes(local)) {
        return Err("spec.etcd.localPath: write node for one member, or three nodes for three".into());
    }
    if count > 1 && spec.restore_from.is_some() {
        return Err("spec.restoreFrom: a snapshot is restored with one member of etcd. Take restoreFrom out".into());
    }
    Ok(())
}

impl Tenant {
    /// That of an object as the API shows it.
    ///
    /// # Errors
    /// What is missing or misunderstood: an object that is older than its CRD, or of a newer one.
    pub fn read(object: &Value) -> Result<Self, String> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let whole = object["spec"].as_object().cloned().unwrap_or_default();
        let spec: Spec =
            serde_json::from_value(Value::Object(whole.clone())).map_err(|error| format!("spec: {error}"))?;
        checked(&spec)?;
        let (namespace, name, uid) = (text("/metadata/namespace"), text("/metadata/name"), text("/metadata/uid"));
        Ok(Self { namespace, name, uid, spec, whole })
    }

    /// How many members its etcd has.
    pub fn members(&self) -> usize {
        if self.spec.etcd.replicas == 3 { 3 } else { 1 }
    }

    /// What the member with this number calls itself.
    pub fn member(&self, number: usize) -> String {
        format!("{}-etcd-{number}", self.name)
    }

    /// Its folder in the local path. Data belongs to keys: a later tenant of the same name, which has other ones, never begins
    /// with data that was left.
    pub fn folder(&self, ca_hash: &str) -> String {
        let hash = ca_hash.rsplit(':').next().unwrap_or_default();
        format!("{}.{}.{}", self.namespace, self.name, hash.get(..8).unwrap_or(hash))
    }

    /// The same in another version of Kubernetes.
    #[must_use]
    pub fn of_version(&self, version: Version) -> Self {
        let mut other = self.clone();
        other.spec.kubernetes_version = version.to_string();
        other.whole.insert("kubernetesVersion".into(), version.to_string().into());
        other
    }

    /// The cluster that it is, where it is at `at`.
    ///
    /// # Errors
    /// All that is wrong with the spec, by its fields.
    pub fn cluster(&self, at: &Addresses) -> Result<Cluster, Vec<Finding>> {
        let mut text = json!({
            "apiVersion": "hoist/v1alpha1",
            "kind": "Cluster",
            "clusterName": self.name,
            "controlPlaneEndpoint": at.outside.to_string(),
            "controllers": [{"name": self.name, "address": at.outside.ip().to_string()}],
        });
        for field in SHARED {
            if let Some(value) = self.whole.get(field) {
                text[field] = value.clone();
            }
        }
        let pick = |value: Option<&Value>, fields: &[&str]| {
            let field = |name: &&str| Some(((*name).to_owned(), value?.get(*name)?.clone()));
            Value::Object(fields.iter().filter_map(field).collect())
        };
        for component in COMPONENTS {
            text[component] = pick(self.whole.get(component), &["certSANs", "extraArgs"]);
        }
        text["etcd"] = json!({"local": pick(self.whole.get("etcd"), &["extraArgs"])});
        let cluster = config::parse("spec", &yaml::to_string(&text), Path::new("/"));
        let mut cluster = cluster.map_err(|error| match error {
            // The lines are those of a text that nobody has seen.
            Error::Input(findings) => findings.into_iter().map(|finding| finding.at(None)).collect(),
            other => vec![Finding::new("spec", other.to_string())],
        })?;
        // What its member and its API servers are known by within this cluster.
        let member = |(number, address): (usize, &IpAddr)| Controller {
            name: self.member(number),
            address: *address,
            taints: Vec::new(),
        };
        cluster.controllers = at.etcd.iter().enumerate().map(member).collect();
        let service = format!("{}-apiserver.{}.svc", self.name, self.namespace);
        cluster.api_server.cert_sans.extend([at.api.ip().to_string(), service]);
        Ok(cluster)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn object(more: &Value) -> Value {
        let mut object = json!({
            "apiVersion": super::super::API_VERSION, "kind": super::super::KIND,
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": 3},
            "spec": {
                "kubernetesVersion": "v1.37.2",
                "exposure": {"type": "NodePort", "address": "192.0.2.7"},
                "etcd": {"localPath": {"node": "w1", "path": "/srv/tenants"}},
                "networking": {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12", "dnsDomain": "cluster.local"},
                "kubeProxy": {"mode": "iptables"},
            },
        });
        for (name, value) in more.as_object().unwrap() {
            object["spec"][name] = value.clone();
        }
        object
    }

    pub fn addresses() -> Addresses {
        Addresses {
            outside: "192.0.2.7:30443".parse().unwrap(),
            api: "10.96.5.5:6443".parse().unwrap(),
            etcd: vec!["10.96.5.6".parse().unwrap()],
        }
    }

    /// A tenant with three members, and where it is.
    pub fn of_three(more: &Value) -> (Tenant, Addresses) {
        let mut object = object(more);
        if object["spec"]["etcd"]["volume"].is_null() {
            object["spec"]["etcd"] = json!({"localPath": {"nodes": ["w1", "w2", "w3"], "path": "/srv/tenants"}});
        }
        object["spec"]["etcd"]["replicas"] = json!(3);
        let etcd = ["10.96.5.6", "10.96.5.7", "10.96.5.8"].map(|ip| ip.parse().unwrap()).to_vec();
        (Tenant::read(&object).unwrap(), Addresses { etcd, ..addresses() })
    }

    #[test]
    fn a_tenant_is_a_cluster_at_its_own_address() {
        let tenant = Tenant::read(&object(&json!({"apiServer": {"certSANs": ["api.example.com"],
            "resources": {"requests": {"cpu": "1"}}}})))
        .unwrap();
        let cluster = tenant.cluster(&addresses()).unwrap();
        assert_eq!(cluster.endpoint().to_string(), "192.0.2.7:30443");
        assert_eq!(cluster.cluster_name, "a");
        assert_eq!(cluster.kubernetes_version.to_string(), "v1.37.2");
        assert_eq!(cluster.controllers[0].name, "a-etcd-0");
        assert_eq!(cluster.api_server.cert_sans, ["api.example.com", "10.96.5.5", "a-apiserver.n.svc"]);
    }

    /// Each is refused by its own field, and no line of a text is named that nobody has written.
    #[test]
    fn what_is_wrong_with_a_spec_is_said_by_its_fields() {
        for (more, field) in [
            (json!({"kubernetesVersion": "v1.12.0"}), "kubernetesVersion"),
            (json!({"networking": {"podSubnet": "10.96.0.0/16"}}), "networking"),
            (json!({"networking": {"serviceSubnet": "192.0.2.0/24"}}), "192.0.2.7"),
            (json!({"apiServer": {"extraArgs": [{"name": "no-such-flag", "value": "1"}]}}), "apiServer.extraArgs[0]"),
            (json!({"images": {"etcd": "UPPER CASE"}}), "images.etcd"),
        ] {
            let tenant = Tenant::read(&object(&more)).unwrap();
            let findings = tenant.cluster(&addresses()).unwrap_err();
            let text = findings[0].to_string();
            assert!(text.starts_with("spec: ") && text.contains(field), "{text}");
            assert!(findings[0].remedy.is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let mut object = self::object(&json!({}));
        object["spec"]["exposure"]["address"] = json!("nowhere");
        let error = Tenant::read(&object).unwrap_err();
        assert!(error.starts_with("spec: ") && error.contains("IP address"), "{error}");
        let local = json!({"node": "w1", "path": "/srv"});
        for (etcd, more, why) in [
            (json!({"replicas": 2, "localPath": local}), json!({}), "Write 1 or 3"),
            (json!({"replicas": 3, "localPath": local}), json!({}), "three nodes for three"),
            (json!({"replicas": 1, "localPath": {"path": "/srv"}}), json!({}), "node for one member"),
            (json!({"replicas": 3, "volume": {"size": "1Gi"}}), json!({"restoreFrom": "x.snapshot"}), "one member"),
        ] {
            let mut object = self::object(&more);
            object["spec"]["etcd"] = etcd;
            let error = Tenant::read(&object).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
