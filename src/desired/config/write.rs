//! A [`Cluster`] as `cluster.yaml` again, with every value filled in.

use serde_json::{Map, Value, json};

use super::{
    ApiEndpoint, Arg, Autoscaler, Cluster, Controller, Dns, Etcd, KeyPairFiles, Network, Plugin, Taint, defaults, dns,
    network, syntax,
};
use crate::base::yaml;

const HEADER: &str = "# The resolved configuration, written by hoist render: every default is filled in.\n";

pub(super) fn write(cluster: &Cluster) -> String {
    format!("{HEADER}{}", yaml::to_string(&value(cluster)))
}

fn value(cluster: &Cluster) -> Value {
    let Cluster { networking, images, pki, .. } = cluster;
    let mut out = json!({
        "apiVersion": defaults::API_VERSION,
        "kind": defaults::KIND,
        "clusterName": cluster.cluster_name,
        "kubernetesVersion": cluster.kubernetes_version.to_string(),
        "networking": {
            "podSubnet": comma_separated(&networking.pod_subnets),
            "serviceSubnet": comma_separated(&networking.service_subnets),
            "dnsDomain": networking.dns_domain,
        },
        "network": pod_network(&cluster.network),
        "kubeProxy": { "mode": network::name(&network::MODES, cluster.kube_proxy.mode), "config": cluster.kube_proxy.config },
        "dns": dns(&cluster.dns),
        "controlPlaneEndpoint": cluster.control_plane_endpoint.as_ref().map(ToString::to_string),
        "endpoint": endpoint(&cluster.api_endpoint),
        "controllers": cluster.controllers.iter().map(controller).collect::<Vec<_>>(),
        "images": {
            "kubeAPIServer": images.kube_apiserver,
            "kubeControllerManager": images.kube_controller_manager,
            "kubeScheduler": images.kube_scheduler,
            "kubeProxy": images.kube_proxy,
            "etcd": images.etcd,
            "coreDNS": images.coredns,
            "pause": images.pause,
            "flannel": images.flannel,
            "flannelCNIPlugin": images.flannel_cni_plugin,
            "hoist": images.hoist,
        },
        "apiServer": {
            "certSANs": cluster.api_server.cert_sans,
            "extraArgs": args(&cluster.api_server.extra_args),
        },
        "controllerManager": { "extraArgs": args(&cluster.controller_manager.extra_args) },
        "scheduler": { "extraArgs": args(&cluster.scheduler.extra_args) },
        "etcd": etcd(&cluster.etcd),
        "kubelet": { "config": cluster.kubelet_config },
        "podSecurity": {
            "enforce": cluster.pod_security.enforce.name(),
            "audit": cluster.pod_security.audit.name(),
            "warn": cluster.pod_security.warn.name(),
        },
        "hoist": { "binary": cluster.hoist.binary, "assetDir": cluster.hoist.asset_dir },
        "addons": cluster.addons,
        "pki": {
            "caCertificateValidityPeriod": syntax::write_duration(pki.ca_validity),
            "certificateValidityPeriod": syntax::write_duration(pki.certificate_validity),
            "bootstrapTokenTTL": syntax::write_duration(pki.bootstrap_token_ttl),
            "ca": pki.ca.as_ref().map(key_pair),
            "etcdCA": pki.etcd_ca.as_ref().map(key_pair),
            "frontProxyCA": pki.front_proxy_ca.as_ref().map(key_pair),
            "serviceAccountKey": pki.service_account_key,
        },
    });
    if let Some(map) = out.as_object_mut() {
        if cluster.addons.is_empty() {
            map.remove("addons");
        }
        leave_out_nulls(map);
        if let Some(images) = map.get_mut("images").and_then(Value::as_object_mut) {
            leave_out_nulls(images);
        }
        if let Some(pki) = map.get_mut("pki").and_then(Value::as_object_mut) {
            leave_out_nulls(pki);
        }
    }
    out
}

/// Only of hoist's own maps: in `kubelet.config` a null may mean something.
fn leave_out_nulls(map: &mut Map<String, Value>) {
    map.retain(|_, value| !value.is_null());
}

fn comma_separated(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn args(args: &[Arg]) -> Vec<Value> {
    args.iter().map(|arg| json!({"name": arg.name, "value": arg.value})).collect()
}

fn controller(controller: &Controller) -> Value {
    let taints: Vec<_> = controller.taints.iter().map(taint).collect();
    json!({"name": controller.name, "address": controller.address, "taints": taints})
}

fn taint(taint: &Taint) -> Value {
    match &taint.value {
        Some(value) => json!({"key": taint.key, "value": value, "effect": taint.effect}),
        None => json!({"key": taint.key, "effect": taint.effect}),
    }
}

fn pod_network(network: &Network) -> Value {
    let mut out = json!({ "plugin": "none", "cniBinDir": network.cni_bin_dir });
    if let Plugin::Flannel(backend) = network.plugin {
        out["plugin"] = "flannel".into();
        out["flannel"] = json!({ "backend": network::name(&network::BACKENDS, backend) });
    }
    out
}

/// Nothing, where nothing is set.
fn endpoint(endpoint: &ApiEndpoint) -> Value {
    let mut out = json!({"nodeLocal": endpoint.node_local});
    if let Some(of) = &endpoint.virtual_address {
        out["virtualAddress"] = json!(of.address);
        out["interface"] = json!(of.interface);
        out["virtualRouterID"] = json!(of.router_id);
    }
    out
}

fn dns(dns: &Dns) -> Value {
    let Autoscaler { min, nodes_per_replica, cores_per_replica } = dns.autoscaler;
    let node_local = match dns.node_local {
        Some(address) => json!({"enabled": true, "address": address}),
        None => json!({"enabled": false}),
    };
    let mut out = json!({
        "plugin": if dns.has_coredns { dns::COREDNS } else { dns::NONE },
        "autoscaler": {"min": min, "nodesPerReplica": nodes_per_replica, "coresPerReplica": cores_per_replica},
        "nodeLocal": node_local,
    });
    // None at all is another thing than an empty list.
    if let Some(upstreams) = &dns.upstreams {
        out["upstreams"] = json!(upstreams);
    }
    out
}

fn etcd(etcd: &Etcd) -> Value {
    match etcd {
        Etcd::Local { data_dir, defragmentation, extra_args } => json!({
            "local": {"dataDir": data_dir, "defragmentation": defragmentation, "extraArgs": args(extra_args)}
        }),
        Etcd::External { endpoints, ca_file, cert_file, key_file } => json!({
            "external": {"endpoints": endpoints, "caFile": ca_file, "certFile": cert_file, "keyFile": key_file}
        }),
    }
}

fn key_pair(files: &KeyPairFiles) -> Value {
    match &files.key {
        Some(key) => json!({"certificate": files.certificate, "key": key}),
        None => json!({"certificate": files.certificate}),
    }
}
