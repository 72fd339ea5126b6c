//! The objects of a tenant. Pure: `(tenant, addresses, keys) → objects`, with the templates of assets/hosting.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use minijinja::{Value as Context, context};
use serde_json::{Value, json};

use super::apply::MEMBERS;
use super::differs::marked;
use super::keys;
use super::tenant::{Addresses, Component, Tenant};
use super::{API_VERSION, KIND, TENANT_LABEL};
use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::yaml;
use crate::desired::assets::{AssetSet, Manifest};
use crate::desired::config::{API_PORT, Cluster};
use crate::desired::pki;
use crate::desired::render;
use crate::desired::secrets::{self, SecretFiles, Server, Tls};
use crate::desired::template;

/// What of the asset directory of a cluster a tenant has in itself, too.
const INSIDE: [&str; 7] = ["cluster", "coredns", "flannel", "kube-proxy", "kubeadm", "kubelet", "node-local-dns"];
/// And what its API servers may ask its kubelets for.
const API_SERVER_RBAC: &str = "manifests/kube-apiserver/rbac.yaml";
/// What kube-apiserver reads besides its flags and keys.
const API_SERVER_CONFIG: &str = "manifests/kube-apiserver/config.yaml";

/// The port of the Services of API servers.
pub const SERVICE_PORT: u16 = API_PORT;

/// The Services, from which the addresses follow.
///
/// # Errors
/// A template that does not fit (a bug in hoist).
pub fn services(tenant: &Tenant) -> Result<Vec<Value>> {
    let exposure = &tenant.spec.exposure;
    let of_tenant = context! {
        name => &tenant.name,
        exposure => &exposure.kind,
        node_port => exposure.node_port,
        load_balancer_address => exposure.address.filter(|_| exposure.kind == "LoadBalancer").map(|ip| ip.to_string()),
    };
    let mut all = Vec::new();
    let mut add = |part: &str, values: Context| {
        for (name, source) in template::templates(part) {
            let text = template::render(&name, source, &Default::default(), &values)?;
            all.extend(parsed(&name, &text)?.into_iter().map(|object| finished(tenant, object)));
        }
        Ok::<_, Error>(())
    };
    add("hosting/services", context! { tenant => of_tenant.clone() })?;
    for (number, workload) in MEMBERS.iter().take(tenant.members()).enumerate() {
        let member = context! {
            name => tenant.member(number),
            workload => format!("{}-{workload}", tenant.name),
            is_one_of_several => tenant.members() > 1,
        };
        add("hosting/member-services", context! { tenant => of_tenant.clone(), member => member })?;
    }
    Ok(all)
}

/// Where a tenant is, by its Services as they are; `None` while that is not known.
pub fn addresses(tenant: &Tenant, api: &Value, etcd: &[Value]) -> Option<Addresses> {
    let cluster_ip = |service: &Value| service["spec"]["clusterIP"].as_str()?.parse::<IpAddr>().ok();
    let inside = cluster_ip(api)?;
    let exposure = &tenant.spec.exposure;
    let outside = match exposure.kind.as_str() {
        "ClusterIP" => SocketAddr::new(inside, SERVICE_PORT),
        "NodePort" => {
            let port = api["spec"]["ports"][0]["nodePort"].as_u64()?;
            SocketAddr::new(exposure.address?, u16::try_from(port).ok()?)
        }
        _ => {
            let given = api["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().and_then(|ip| ip.parse().ok());
            SocketAddr::new(exposure.address.or(given)?, SERVICE_PORT)
        }
    };
    Some(Addresses {
        outside,
        api: SocketAddr::new(inside, SERVICE_PORT),
        etcd: etcd.iter().map(cluster_ip).collect::<Option<_>>()?,
    })
}

/// All other objects but the Secret with the keys, and what the tenant has in itself.
#[derive(Debug)]
pub struct Desired {
    /// Of this cluster, in the order in which they are applied.
    pub objects: Vec<Value>,
    /// Of the tenant.
    pub inside: Vec<Manifest>,
    /// The admin's kubeconfig.
    pub kubeconfig: String,
}

/// What follows from a tenant, its place and its keys.
///
/// # Errors
/// Keys that are not all there; a template that does not fit (a bug in hoist).
pub fn desired(tenant: &Tenant, cluster: &Cluster, at: &Addresses, tls: &Tls) -> Result<Desired> {
    // The token of a kubeconfig that nobody gets: tokens are made by `hoist token create`.
    let set = render::render(cluster, tls, &pki::bootstrap_token(None)?)?;
    let kubeconfig =
        secrets::kubeconfig(cluster, tls, &format!("https://{}", at.outside), "kubernetes-admin", "admin")?;
    let mut objects = Vec::new();
    let mut sums = Vec::new();
    for (component, files) in secret_files(tenant, cluster, at, tls)? {
        let data = keys::to_data(&files);
        sums.push((component, files::sha256(data.to_string().as_bytes())));
        objects.push(secret(tenant, component, data));
    }
    let admin = json!({"kubeconfig": keys::to_data([(&"kubeconfig".to_owned(), &kubeconfig.clone().into_bytes())])["kubeconfig"]});
    objects.push(secret(tenant, "kubeconfig", admin));

    let config = config_map(tenant, &set)?;
    sums.push(("apiserver", files::sha256(config["data"].to_string().as_bytes())));
    objects.push(config);
    let folder = tenant.folder(&keys::ca_hash(tls).unwrap_or_default());
    let wildcard = if at.api.is_ipv6() { "::" } else { "0.0.0.0" };
    // The kubelet of this cluster asks the pods at their own addresses.
    let over = context! { loopback => wildcard, ..values(tenant, at, &folder) };
    let mut texts: Vec<_> = render::hosted("hosting/tenant", cluster, over.clone())?.into_iter().collect();
    if tenant.members() > 1 {
        texts.extend(render::hosted("hosting/members", cluster, over.clone())?);
    }
    for number in 0..tenant.members() {
        let member = context! { member => member(tenant, at, number), ..over.clone() };
        texts.extend(render::hosted("hosting/member", cluster, member)?);
    }
    for (name, text) in texts {
        for object in parsed(&name, &text)? {
            objects.push(placed(tenant, object, &sums));
        }
    }
    let objects = objects.into_iter().map(|object| finished(tenant, object)).collect();
    Ok(Desired { objects, inside: inside(&values(tenant, at, &folder), cluster, &set)?, kubeconfig })
}

/// What each component of a tenant mounts.
fn secret_files(
    tenant: &Tenant,
    cluster: &Cluster,
    at: &Addresses,
    tls: &Tls,
) -> Result<Vec<(&'static str, SecretFiles)>> {
    let server = Server::Hosted(at.api);
    let of = |component: &str| secrets::of_component(component, cluster, tls, server);
    let mut all = vec![
        ("apiserver", of("kube-apiserver")?),
        ("controller-manager", of("kube-controller-manager")?),
        ("scheduler", of("kube-scheduler")?),
    ];
    for (number, workload) in MEMBERS.iter().take(tenant.members()).enumerate() {
        all.push((workload, secrets::of_etcd(&tenant.member(number), tls)?));
    }
    Ok(all)
}

/// What the template of a member may name besides.
fn member(tenant: &Tenant, at: &Addresses, number: usize) -> Context {
    let is_one_of_several = tenant.members() > 1;
    let url = |ip: &IpAddr| crate::desired::config::url_host(*ip);
    let (wildcard, loopback) = if at.api.is_ipv6() { ("[::]", "[::1]") } else { ("0.0.0.0", "127.0.0.1") };
    context! {
        name => tenant.member(number),
        names => (0..tenant.members()).map(|number| tenant.member(number)).collect::<Vec<_>>().join(","),
        workload => format!("{}-{}", tenant.name, MEMBERS[number]),
        url => at.etcd.get(number).map(url),
        // The only member has no peers.
        peers_at => if is_one_of_several { wildcard } else { loopback },
        is_one_of_several => is_one_of_several,
        grace => if is_one_of_several { 30 } else { 2 },
    }
}

/// What the templates of assets/hosting may name besides what all templates may.
fn values(tenant: &Tenant, at: &Addresses, folder: &str) -> Context {
    let etcd = &tenant.spec.etcd;
    let etcd_urls: Vec<_> = at.etcd.iter().map(|ip| crate::desired::config::url_host(*ip)).collect();
    context! {
        etcd_servers => etcd_urls.iter().map(|url| format!("https://{url}:2379")).collect::<Vec<_>>().join(","),
        external_address => at.outside.to_string(),
        tenant => context! {
            name => &tenant.name,
            address => at.outside.ip().to_string(),
            port => at.outside.port(),
            family => if at.outside.is_ipv6() { "IPv6" } else { "IPv4" },
            replicas => tenant.spec.replicas,
            etcd_url => etcd_urls.first(),
            etcd_urls => etcd_urls,
            path => etcd.local_path.as_ref().map(|local| &local.path),
            data => if etcd.local_path.is_some() { folder } else { "etcd" },
            size => etcd.volume.as_ref().map(|volume| &volume.size),
            storage_class => etcd.volume.as_ref().and_then(|volume| volume.storage_class_name.as_ref()),
        },
    }
}

fn secret(tenant: &Tenant, what: &str, data: Value) -> Value {
    let name = format!("{}-{what}", tenant.name);
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data})
}

/// The Secret with all of a tenant's keys.
pub fn key_secret(tenant: &Tenant, tls: &Tls) -> Value {
    finished(tenant, secret(tenant, "pki", keys::to_data(tls)))
}

/// What the API servers read besides flags and keys: a cluster's own, under the tenant's name.
fn config_map(tenant: &Tenant, set: &AssetSet) -> Result<Value> {
    let objects = parsed(API_SERVER_CONFIG, &set.text(API_SERVER_CONFIG)?)?;
    let data = objects.into_iter().next().map(|mut object| object["data"].take()).unwrap_or_default();
    let name = format!("{}-apiserver", tenant.name);
    Ok(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}))
}

/// A workload where the tenant's pods may run, with what its user wants of them. Pods are replaced where what they read has
/// changed.
fn placed(tenant: &Tenant, mut object: Value, sums: &[(&str, String)]) -> Value {
    if !object["spec"]["template"].is_object() {
        return object;
    }
    let spec = &tenant.spec;
    let full = object["metadata"]["name"].as_str().unwrap_or_default();
    let component = full.strip_prefix(&format!("{}-", tenant.name)).unwrap_or_default().to_owned();
    let template = &mut object["spec"]["template"];
    let member = MEMBERS.iter().position(|workload| *workload == component);
    // etcd reads renewed certificates by itself.
    let sums: Vec<&str> =
        sums.iter().filter(|(of, _)| *of == component && member.is_none()).map(|(_, sum)| &**sum).collect();
    if !sums.is_empty() {
        template["metadata"]["annotations"]["hoist.dev/reads"] = files::sha256_of_all(sums).into();
    }
    let pod = &mut template["spec"];
    let mut selector = spec.node_selector.clone();
    if let (Some(local), Some(number)) = (&spec.etcd.local_path, member) {
        selector.insert("kubernetes.io/hostname".into(), local.node(number).to_owned());
    }
    if !selector.is_empty() {
        pod["nodeSelector"] = json!(selector);
    }
    if !spec.tolerations.is_empty() {
        pod["tolerations"] = json!(spec.tolerations);
    }
    let of: Option<&Component> = match component.as_str() {
        "apiserver" => Some(&spec.api_server),
        "controller-manager" => Some(&spec.controller_manager),
        "scheduler" => Some(&spec.scheduler),
        _ => None,
    };
    if let Some(resources) = of.and_then(|component| component.resources.as_ref()) {
        pod["containers"][0]["resources"] = resources.clone();
    }
    object
}

/// An object as it is applied: in its namespace, with the tenant's label, and the tenant's own.
fn finished(tenant: &Tenant, mut object: Value) -> Value {
    let metadata = &mut object["metadata"];
    metadata["namespace"] = tenant.namespace.clone().into();
    metadata["labels"]["app.kubernetes.io/managed-by"] = "hoist".into();
    metadata["labels"][TENANT_LABEL] = tenant.name.clone().into();
    metadata["ownerReferences"] =
        json!([{"apiVersion": API_VERSION, "kind": KIND, "name": tenant.name, "uid": tenant.uid, "controller": true}]);
    marked(object)
}

/// What a tenant has in itself: what a cluster that hoist makes has, but for the control plane, and where its API is.
fn inside(values: &Context, cluster: &Cluster, set: &AssetSet) -> Result<Vec<Manifest>> {
    let mut part = AssetSet { is_part: true, ..AssetSet::default() };
    for (path, file) in &set.files {
        let folder = path.strip_prefix("manifests/").and_then(|rest| rest.split('/').next());
        if folder.is_some_and(|folder| INSIDE.contains(&folder)) || path == API_SERVER_RBAC {
            part.files.insert(path.clone(), file.clone());
        }
    }
    for (name, text) in render::hosted("hosting/inside", cluster, values.clone())? {
        part.files.insert(format!("manifests/{name}"), files::File::public(text));
    }
    let (mut manifests, _) = part.manifests(Path::new("tenant"))?;
    // Of the API server's only what its kubelets are told: it is no pod of theirs.
    manifests.retain(|manifest| manifest.path != API_SERVER_RBAC || manifest.text("/kind") == "ClusterRoleBinding");
    Ok(manifests)
}

fn parsed(name: &str, text: &str) -> Result<Vec<Value>> {
    let documents = yaml::documents(name, text).map_err(Error::Input)?;
    Ok(documents.into_iter().map(|document| document.value).collect())
}

mod snapshots;
#[cfg(test)]
mod tests;

pub use snapshots::{no_snapshots, restoring, snapshots, stop};
