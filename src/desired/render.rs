//! Renders a cluster's declaration and its PKI into the whole asset directory, in memory. Pure: no clock, disk or
//! network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::{Value, context};

use crate::base::error::{Error, Finding, Result};
use crate::base::files::File;
use crate::base::yaml;
use crate::desired::assets::AssetSet;
use crate::desired::config::{API_PORT, Arg, Cluster, Etcd, FlannelBackend, Plugin, ProxyMode, Version, url_host};
use crate::desired::kubeconfig::{Credentials, KubeConfig};
use crate::desired::kubelet_config;
use crate::desired::schema::{self, Reader};
use crate::desired::secrets::{self, COMPONENTS, Server, Tls};
use crate::desired::template;

/// What the kubelet of a controller runs with.
const KUBELET_CONFIG: &str = "kubelet/config.yaml";
/// What the kubelet of a worker runs with, and how.
pub const WORKER_CONFIG: &str = "kubelet/worker-config.yaml";
/// The unit of a worker's kubelet.
pub const WORKER_UNIT: &str = "kubelet/worker.service";
/// What is spoken of TLS 1.2: forward secrecy and authenticated encryption. Go's own list has others behind these.
const TLS_CIPHER_SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Renders the asset directory of `cluster`, whose tls/ is `tls`; `token` is the bootstrap token of its kubelets.
///
/// # Errors
/// A file that tls/ lacks, or a template that does not fit its Kubernetes type (a bug in hoist).
pub fn render(cluster: &Cluster, tls: &Tls, token: &str) -> Result<AssetSet> {
    let mut set = AssetSet::default();
    let mut add = |path: String, file: File| set.files.insert(path, file);
    add("cluster.yaml".into(), File::public(cluster.to_yaml()));
    for (path, file) in self::tls(tls).files {
        add(path, file);
    }

    let server = format!("https://{}", cluster.endpoint());
    let admin = secrets::kubeconfig(cluster, tls, &server, "kubernetes-admin", "admin")?;
    add("auth/kubeconfig".into(), File::private(admin));
    // Where nothing in the cluster signs, a token leads to no certificate.
    if !cluster.has_external_ca() {
        let ca_pem = tls.get("ca.crt").map(Vec::as_slice).unwrap_or_default();
        let (cluster_name, credentials) = (&cluster.cluster_name, Credentials::Token(token));
        let bootstrap =
            KubeConfig { cluster_name, server: &server, ca_pem, user: "kubelet-bootstrap", credentials }.to_yaml();
        add("auth/kubeconfig-kubelet".into(), File::private(bootstrap));
    }

    for component in COMPONENTS {
        let files = secrets::of_component(component, cluster, tls, Server::SelfHosted)?;
        add(format!("manifests/{component}/secret.yaml"), File::private(secrets::manifest(component, &files)));
    }

    let context = values(cluster);
    let extra_args = extra_args(cluster);
    let worker_config = kubelet_config(WORKER_CONFIG, cluster, &extra_args, &context, true)?;
    let ca_certificate = STANDARD.encode(tls.get("ca.crt").map(Vec::as_slice).unwrap_or_default());
    let context = context! { worker_config => &worker_config, ca_certificate => ca_certificate, ..context };
    for part in ["bootstrap-manifests", "manifests"] {
        for (name, source) in template::templates(part) {
            if !is_wanted(&name, cluster) {
                continue;
            }
            let path = format!("{part}/{name}");
            let mut text = template::render(&path, source, &extra_args, &context)?;
            if path == PROXY_CONFIG && !cluster.kube_proxy.config.is_empty() {
                text = overlay_proxy(&path, &text, cluster)?;
            }
            check(&path, &text, cluster.kubernetes_version)?;
            add(path, File::public(text));
        }
    }
    for part in ["kubelet", "systemd", "keepalived"] {
        for (name, source) in template::templates(part) {
            let path = format!("{part}/{name}");
            if part == "keepalived" && cluster.virtual_address().is_none() {
                continue;
            }
            let text = match &*path {
                KUBELET_CONFIG => kubelet_config(KUBELET_CONFIG, cluster, &extra_args, &context, false)?,
                WORKER_UNIT if cluster.has_external_ca() => continue,
                _ => template::render(&path, source, &extra_args, &context)?,
            };
            add(path, File::public(text));
        }
    }
    if !cluster.has_external_ca() {
        add(WORKER_CONFIG.into(), File::public(worker_config));
    }
    Ok(set)
}

/// Renders the templates of `part` (below assets/) for a hosted `cluster`, by their names. What `over` has takes the place of
/// the value that all templates have by that name.
///
/// # Errors
/// A template that does not fit its Kubernetes type (a bug in hoist).
pub fn hosted(part: &str, cluster: &Cluster, over: Value) -> Result<BTreeMap<String, String>> {
    let extra_args = extra_args(cluster);
    let context = context! { ..over, ..values(cluster) };
    let render = |(name, source): (String, &str)| {
        let path = format!("{part}/{name}");
        let text = template::render(&path, source, &extra_args, &context)?;
        check(&path, &text, cluster.kubernetes_version)?;
        Ok((name, text))
    };
    template::templates(part).into_iter().map(render).collect()
}

/// Where kube-proxy's configuration is, and the lines with its key and with the next.
const PROXY_CONFIG: &str = "manifests/kube-proxy/config-map.yaml";
const PROXY_CONFIG_KEYS: (&str, &str) = ("\n  config.conf: |\n", "  kubeconfig.conf: |\n");

/// Whether the template `name` of static pods or of manifests makes something that this cluster has.
fn is_wanted(name: &str, cluster: &Cluster) -> bool {
    match name.split_once('/').map_or(name, |(folder, _)| folder) {
        "hoist-endpoint" | "hoist-endpoint.yaml" => cluster.api_endpoint.node_local,
        "etcd.yaml" => matches!(cluster.etcd, Etcd::Local { .. }),
        "flannel" => matches!(cluster.network.plugin, Plugin::Flannel(_)),
        "kube-proxy" => cluster.kube_proxy.mode != ProxyMode::None,
        "coredns" => cluster.dns.has_coredns,
        // Only machines with a bootstrap token ask for it: without anybody who signs in the cluster that leads to nothing.
        "kubeadm" => !cluster.has_external_ca(),
        "node-local-dns" => cluster.dns.has_coredns && cluster.dns.node_local.is_some(),
        _ => true,
    }
}

/// The configuration of a controller's kubelet, or of a worker's: of the one template, with the user's fields laid over it.
fn kubelet_config(
    path: &str,
    cluster: &Cluster,
    extra_args: &BTreeMap<&str, &[Arg]>,
    context: &Value,
    is_worker: bool,
) -> Result<String> {
    let templates = template::templates("kubelet");
    let source = templates.get("config.yaml").copied().unwrap_or_default();
    let text = template::render(path, source, extra_args, &context! { is_worker => is_worker, ..context.clone() })?;
    if cluster.kubelet_config.is_empty() {
        // What is left out at the end leaves its line.
        return Ok(text.trim_end().to_owned() + "\n");
    }
    overlay(path, &text, "kubelet.config", &cluster.kubelet_config)
}

/// What of the asset directory there is while certificates are still to be signed: tls/ alone.
pub fn tls(tls: &Tls) -> AssetSet {
    let is_public = |path: &str| [".crt", ".csr", ".pub"].iter().any(|end| path.ends_with(end));
    let file = |path: &str, content: &Vec<u8>| {
        if is_public(path) { File::public(content.clone()) } else { File::private(content.clone()) }
    };
    let files = tls.iter().map(|(path, content)| (format!("tls/{path}"), file(path, content))).collect();
    AssetSet { files, is_part: true }
}

/// The flags that a user gives each component, by the component's name.
fn extra_args(cluster: &Cluster) -> BTreeMap<&'static str, &[Arg]> {
    let etcd: &[Arg] = match &cluster.etcd {
        Etcd::Local { extra_args, .. } => extra_args,
        Etcd::External { .. } => &[],
    };
    BTreeMap::from([
        ("kube-apiserver", &cluster.api_server.extra_args[..]),
        ("kube-controller-manager", &cluster.controller_manager.extra_args[..]),
        ("kube-scheduler", &cluster.scheduler.extra_args[..]),
        ("etcd", etcd),
    ])
}

/// The folder of the container runtime's socket; nothing where others have theirs there, too.
fn runtime_dir(cluster: &Cluster) -> String {
    let configuration = serde_json::Value::from(cluster.kubelet_config.clone());
    let endpoint = kubelet_config::runtime_endpoint(&configuration);
    let socket = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    let dir = socket.rsplit_once('/').map_or("", |(dir, _)| dir);
    if ["", "/run", "/var/run", "/tmp"].contains(&dir) { String::new() } else { dir.to_owned() }
}

/// What templates may name. No key is ever in it.
fn values(cluster: &Cluster) -> Value {
    let images = &cluster.images;
    let loopback = cluster.loopback();
    let joined = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let args =
        |args: &[Arg]| args.iter().map(|arg| context! { name => &arg.name, value => &arg.value }).collect::<Vec<_>>();
    let member = |c: &crate::desired::config::Controller| format!("{}=https://{}:2380", c.name, url_host(c.address));
    let (etcd_servers, etcd_data_dir) = match &cluster.etcd {
        Etcd::Local { data_dir, .. } => (format!("https://{}:2379", url_host(loopback)), data_dir.clone()),
        Etcd::External { endpoints, .. } => (endpoints.join(","), String::new()),
    };
    let extra: BTreeMap<_, _> =
        extra_args(cluster).into_iter().map(|(name, list)| (name.replace('-', "_"), args(list))).collect();
    let sets = |component, is_it: &dyn Fn(&str) -> bool| {
        extra_args(cluster).get(component).is_some_and(|list| list.iter().any(|arg| is_it(&arg.name)))
    };
    // The kubelet puts the controller's own address in: no manifest names one.
    let host_url = if loopback.is_ipv6() { "[$(HOST_IP)]" } else { "$(HOST_IP)" };
    let external = cluster.api_server.extra_args.iter().find(|arg| arg.name == "external-hostname");
    context! {
        cluster_name => &cluster.cluster_name,
        dns_domain => &cluster.networking.dns_domain,
        dns_service_address => cluster.dns_service_address().map(|address| address.to_string()),
        dns => dns(cluster),
        endpoint => cluster.endpoint().to_string(),
        etcd_data_dir => etcd_data_dir,
        runtime_dir => runtime_dir(cluster),
        // etcd refuses them where nothing older than TLS 1.3 is spoken.
        etcd_takes_cipher_suites => !sets("etcd", &|name| name == "tls-min-version"),
        hoist_asset_dir => &cluster.hoist.asset_dir,
        hoist_binary => &cluster.hoist.binary,
        etcd_initial_cluster => cluster.controllers.iter().map(member).collect::<Vec<_>>().join(","),
        etcd_servers => etcd_servers,
        extra_args => extra,
        has_external_ca => cluster.has_external_ca(),
        // As an API server at the clients' port calls itself.
        external_address => with_port(external.map_or(host_url, |arg| &arg.value)),
        host_url => host_url,
        flannel => flannel(cluster),
        further_addresses => further_addresses(cluster),
        listens_everywhere => leads_by_name(cluster),
        images => context! {
            kube_apiserver => &images.kube_apiserver,
            kube_controller_manager => &images.kube_controller_manager,
            kube_scheduler => &images.kube_scheduler,
            kube_proxy => &images.kube_proxy,
            flannel => &images.flannel,
            flannel_cni_plugin => &images.flannel_cni_plugin,
            etcd => &images.etcd,
            coredns => &images.coredns,
            pause => &images.pause,
            // What hoist's own pods run in.
            hoist => images.hoist.as_ref().unwrap_or(&images.pause),
        },
        virtual_address => cluster.api_endpoint.virtual_address.as_ref().map(|of| context! {
            address => of.address.to_string(),
            interface => &of.interface,
            router_id => of.router_id,
        }),
        // Where no image has it, the host's binary is mounted into them.
        mounts_binary => images.hoist.is_none(),
        kube_proxy => context! {
            is_auto => cluster.kube_proxy.mode == ProxyMode::Auto,
            mode => if cluster.kube_proxy.mode == ProxyMode::Iptables { "iptables" } else { "nftables" },
        },
        // Where the one image comes from that a kubelet itself needs.
        image_repository => images.pause.rsplit_once('/').map_or("registry.k8s.io", |(repository, _)| repository),
        kubernetes_version => cluster.kubernetes_version.to_string(),
        loopback => loopback.to_string(),
        loopback_url => url_host(loopback),
        pod_security => context! {
            enforce => cluster.pod_security.enforce.name(),
            audit => cluster.pod_security.audit.name(),
            warn => cluster.pod_security.warn.name(),
        },
        rotate_certificates => if cluster.has_external_ca() { "false" } else { "true" },
        pod_subnets => joined(&cluster.networking.pod_subnets),
        service_subnets => joined(&cluster.networking.service_subnets),
        node_endpoint => cluster.node_endpoint().map(|address| address.to_string()),
        endpoint_targets => endpoint_targets(cluster),
        server => cluster.server_of_nodes(),
        tls_cipher_suite_list => TLS_CIPHER_SUITES,
        tls_cipher_suites => TLS_CIPHER_SUITES.join(","),
        uses_authorization_config => sets("kube-apiserver", &|name| name == "authorization-config"),
        uses_oidc_flags => sets("kube-apiserver", &|name| name.starts_with("oidc-")),
        wildcard => if loopback.is_ipv6() { "::" } else { "0.0.0.0" },
        wildcard_url => if loopback.is_ipv6() { "[::]" } else { "0.0.0.0" },
    }
}

/// The virtual address, and that of `controlPlaneEndpoint`, if they are no controller's own: a controller may have them
/// besides, for good or for a while. At another port somebody else must listen, who passes on to this one.
fn further_addresses(cluster: &Cluster) -> Vec<String> {
    let endpoint = cluster.control_plane_endpoint.as_ref().filter(|endpoint| endpoint.port == API_PORT);
    let endpoint = endpoint.and_then(|endpoint| endpoint.host.parse().ok());
    let mut addresses: Vec<IpAddr> = endpoint.into_iter().chain(cluster.virtual_address()).collect();
    addresses.dedup();
    addresses.retain(|address| !cluster.controllers.iter().any(|controller| controller.address == *address));
    addresses.into_iter().map(|address| format!("{}:{API_PORT}", url_host(address))).collect()
}

/// The API servers that each node's endpoint knows from the start: the declared controllers', and `controlPlaneEndpoint` where
/// that is another address.
fn endpoint_targets(cluster: &Cluster) -> Vec<String> {
    let declared = cluster.controllers.iter().map(|controller| SocketAddr::new(controller.address, API_PORT));
    let mut targets: Vec<_> = declared.collect();
    if let Some(endpoint) = &cluster.control_plane_endpoint
        && let Ok(address) = endpoint.host.parse()
    {
        targets.push(SocketAddr::new(address, endpoint.port));
    }
    let mut seen = BTreeSet::new();
    targets.retain(|target| seen.insert(*target));
    targets.iter().map(ToString::to_string).collect()
}

/// Whether `controlPlaneEndpoint` is a name: it may lead to any address of a controller.
fn leads_by_name(cluster: &Cluster) -> bool {
    let endpoint = cluster.control_plane_endpoint.as_ref().filter(|endpoint| endpoint.port == API_PORT);
    endpoint.is_some_and(|endpoint| endpoint.host.parse::<IpAddr>().is_err())
}

/// A host as the API server takes it, which may have a port already.
fn with_port(host: &str) -> String {
    let host = host.parse().map_or(host.to_owned(), url_host);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host } else { format!("{host}:{API_PORT}") }
}

/// What flannel's manifests may name.
fn flannel(cluster: &Cluster) -> Value {
    let subnet = |ipv6: bool| {
        let of_family = |net: &&ipnet::IpNet| net.network().is_ipv6() == ipv6;
        cluster.networking.pod_subnets.iter().find(of_family).map(ToString::to_string).unwrap_or_default()
    };
    context! {
        backend => match cluster.network.plugin {
            Plugin::Flannel(FlannelBackend::HostGw) => "host-gw",
            _ => "vxlan",
        },
        cni_bin_dir => &cluster.network.cni_bin_dir,
        ipv4 => subnet(false),
        ipv6 => subnet(true),
    }
}

type Fields = serde_json::Map<String, serde_json::Value>;

/// What the manifests of cluster DNS say.
fn dns(cluster: &Cluster) -> Value {
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string());
    let service = cluster.dns_service_address();
    let is_ipv6 = service.is_some_and(|address| address.is_ipv6());
    let autoscaler = cluster.dns.autoscaler;
    context! {
        service => text(service),
        upstream_service => text(cluster.dns_upstream_address()),
        forward => cluster.dns.upstreams.as_ref().map_or("/etc/resolv.conf".to_owned(), |servers| servers.join(" ")),
        node_local => text(cluster.dns.node_local),
        node_local_url => cluster.dns.node_local.map(url_host),
        loopback_url => url_host(cluster.loopback()),
        host_prefix => if is_ipv6 { 128 } else { 32 },
        nft_family => if is_ipv6 { "ip6" } else { "ip" },
        nft_type => if is_ipv6 { "ipv6_addr" } else { "ipv4_addr" },
        min => autoscaler.min,
        nodes_per_replica => autoscaler.nodes_per_replica,
        cores_per_replica => autoscaler.cores_per_replica,
    }
}

/// A component's configuration with the user's fields laid over it, which cluster.yaml has at `from`.
fn overlay(path: &str, text: &str, from: &str, fields: &Fields) -> Result<String> {
    let documents = yaml::documents(path, text).map_err(Error::Input)?;
    let mut value = documents.into_iter().next().map(|document| document.value).unwrap_or_default();
    merge(&mut value, &serde_json::Value::Object(fields.clone()));
    Ok(format!("# hoist's defaults with {from} of cluster.yaml laid over them.\n{}", yaml::to_string(&value)))
}

/// The same of kube-proxy's, which is one of the texts of a ConfigMap; the others stay as they are.
fn overlay_proxy(path: &str, text: &str, cluster: &Cluster) -> Result<String> {
    const INDENT: &str = "    ";
    let (begin, end) = PROXY_CONFIG_KEYS;
    let parts = text.split_once(begin).and_then(|(head, rest)| Some((head, rest.split_once(end)?)));
    let Some((head, (config, tail))) = parts else {
        return Err(Error::failed(format!("render the template {path}"), "its keys are not where they were"));
    };
    let config: String =
        config.lines().map(|line| format!("{}\n", line.strip_prefix(INDENT).unwrap_or(line))).collect();
    let config = overlay(path, &config, "kubeProxy.config", &cluster.kube_proxy.config)?;
    let config: String = config.lines().map(|line| format!("{INDENT}{line}\n")).collect();
    Ok(format!("{head}{begin}{config}{end}{tail}"))
}

/// Lays `over` onto `base`: maps are merged, everything else is replaced.
fn merge(base: &mut serde_json::Value, over: &serde_json::Value) {
    match (base, over) {
        (serde_json::Value::Object(base), serde_json::Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(serde_json::Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

fn check(path: &str, text: &str, version: Version) -> Result<()> {
    let documents = yaml::documents(path, text).map_err(Error::Input)?;
    let problems =
        documents.iter().flat_map(|document| schema::check(&document.value, Some(version), Reader::ApiServer));
    let finding = |problem: schema::Problem| Finding::new(path, format!("{}: {}", problem.path, problem.message));
    let findings: Vec<_> = problems.map(finding).collect();
    if findings.is_empty() { Ok(()) } else { Err(Error::Input(findings)) }
}
