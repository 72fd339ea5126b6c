//! Validates the raw shape into a [`Cluster`]. Pure; it reports all violations at once.

use std::path::Path;
use std::time::Duration;

use super::check::Check;
use super::flags;
use super::{
    API_PORT, ApiServer, Cluster, Component, Controller, Endpoint, Etcd, HoistPaths, Images, PkiConfig, Rendered,
    Taint, Version, defaults, dns, endpoint, network, networking, pod_security, raw, syntax,
};
use crate::base::error::{Finding, Severity};
use crate::base::yaml::{Fields, child, item};
use crate::desired::known_flags::Program;

/// The cluster that `raw` describes, with what may be meant, or everything that is wrong with it; in the order of the file.
pub(super) fn validate(
    raw: &raw::Cluster,
    rendered: Rendered,
    mut check: Check<'_>,
) -> Result<(Cluster, Vec<Finding>), Vec<Finding>> {
    let c = &mut check;
    let cluster_name = cluster_name(c, raw);
    let kubernetes_version = kubernetes_version(c, raw, rendered);
    let images = images(c, raw, kubernetes_version);
    let control_plane_endpoint = control_plane_endpoint(c, raw);
    let api_server = api_server(c, kubernetes_version, raw.api_server.as_deref());
    let mut component = |path, program, raw| component(c, path, program, kubernetes_version, raw);
    let controller_manager =
        component("controllerManager", Program::ControllerManager, raw.controller_manager.as_deref());
    let scheduler = component("scheduler", Program::Scheduler, raw.scheduler.as_deref());
    let etcd = etcd(c, kubernetes_version, raw.etcd.as_deref());
    let networking = {
        let none = raw::Networking::default();
        let raw = raw.networking.as_deref().unwrap_or(&none);
        networking::networking(c, raw, &controller_manager.extra_args)
    };
    let network = network::network(c, raw.network.as_deref(), &controller_manager.extra_args);
    let kube_proxy = network::kube_proxy(c, kubernetes_version, raw.kube_proxy.as_deref());
    let dns = dns::dns(c, raw.dns.as_deref(), &networking);
    let controllers = controllers(c, raw.controllers.as_deref().unwrap_or_default());
    networking::controllers(c, &controllers, &networking);
    networking::room(c, &networking, &controller_manager.extra_args, controllers.len(), network.as_ref());
    if let Some(endpoint) = &control_plane_endpoint {
        const REMEDY: &str = "give the address or name at which other machines reach the controllers: it may be a second address of a controller's";
        networking::endpoint(c, "controlPlaneEndpoint", endpoint, &networking, REMEDY);
    }
    let api_endpoint = endpoint::endpoint(c, raw.endpoint.as_deref(), &controllers, &networking, images.as_ref());
    let kubelet_config = raw.kubelet.as_ref().and_then(|kubelet| kubelet.config.clone()).unwrap_or_default();
    flags::kubelet_config(c, "kubelet.config", kubernetes_version, &kubelet_config, !dns.has_coredns);
    let pod_security = pod_security::pod_security(c, raw.pod_security.as_deref());
    let hoist = hoist(c, raw.hoist.as_deref());
    let addons = addons(c, raw.addons.as_deref().unwrap_or_default());
    let pki = pki(c, raw.pki.as_deref());

    let Check { mut findings, .. } = check;
    findings.sort_by_key(|finding| finding.position);
    let is_good = findings.iter().all(|finding| finding.severity == Severity::Warning);
    match (kubernetes_version, images, etcd, network, kube_proxy, pki) {
        (Some(kubernetes_version), Some(images), Some(etcd), Some(network), Some(kube_proxy), Some(pki)) if is_good => {
            let cluster = Cluster {
                cluster_name,
                kubernetes_version,
                networking,
                network,
                kube_proxy,
                dns,
                control_plane_endpoint,
                api_endpoint,
                images,
                api_server,
                controller_manager,
                scheduler,
                etcd,
                controllers: controllers.into_iter().flatten().collect(),
                kubelet_config,
                pod_security,
                hoist,
                addons,
                pki,
            };
            Ok((cluster, findings))
        }
        _ => Err(findings),
    }
}

fn cluster_name(check: &mut Check<'_>, raw: &raw::Cluster) -> String {
    let name = raw.cluster_name.as_deref().unwrap_or(defaults::CLUSTER_NAME);
    // Kubernetes itself is not particular; kubeconfigs and log lines are easier with a name in one piece.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b)) {
        let message = format!("`{}` is not made of letters, digits, `-`, `_`, `.` and `@`", name);
        check.wrong("clusterName", message, "write it like kubernetes".to_owned());
    }
    name.to_owned()
}

fn kubernetes_version(check: &mut Check<'_>, raw: &raw::Cluster, rendered: Rendered) -> Option<Version> {
    const PATH: &str = "kubernetesVersion";
    let text = match raw.kubernetes_version.clone().map_or_else(|| rendered.unnamed(), Ok) {
        Ok(text) => text,
        Err((message, remedy)) => {
            check.wrong(PATH, message, remedy);
            return None;
        }
    };
    let version = check.value(PATH, &text, syntax::version(&text), defaults::KUBERNETES_VERSION)?;
    if defaults::supported(version).is_none() {
        let all = defaults::supported_versions();
        check.wrong(PATH, format!("{version} is not supported"), format!("supported: {}", all.join(", ")));
        return None;
    }
    Some(version)
}

fn images(check: &mut Check<'_>, raw: &raw::Cluster, version: Option<Version>) -> Option<Images> {
    let repository = raw.image_repository.as_deref().unwrap_or(defaults::IMAGE_REPOSITORY);
    check.value("imageRepository", repository, syntax::image_repository(repository), "registry.example.com/kubernetes");
    let mut overridden = |name: &str, image: Option<&String>| {
        let image = image?;
        check
            .value(&child("images", name), image, syntax::image(image), "registry.k8s.io/pause:3.10")
            .map(|()| image.clone())
    };
    let none = raw::Images::default();
    let raw = raw.images.as_deref().unwrap_or(&none);
    let apiserver = overridden("kubeAPIServer", raw.kube_apiserver.as_ref());
    let controller_manager = overridden("kubeControllerManager", raw.kube_controller_manager.as_ref());
    let scheduler = overridden("kubeScheduler", raw.kube_scheduler.as_ref());
    let kube_proxy = overridden("kubeProxy", raw.kube_proxy.as_ref());
    let etcd = overridden("etcd", raw.etcd.as_ref());
    let coredns = overridden("coreDNS", raw.coredns.as_ref());
    let pause = overridden("pause", raw.pause.as_ref());
    let flannel = overridden("flannel", raw.flannel.as_ref());
    let flannel_cni_plugin = overridden("flannelCNIPlugin", raw.flannel_cni_plugin.as_ref());
    let hoist = overridden("hoist", raw.hoist.as_ref());

    let version = version?;
    let stock = defaults::images(repository, version, defaults::supported(version)?);
    Some(Images {
        kube_apiserver: apiserver.unwrap_or(stock.kube_apiserver),
        kube_controller_manager: controller_manager.unwrap_or(stock.kube_controller_manager),
        kube_scheduler: scheduler.unwrap_or(stock.kube_scheduler),
        kube_proxy: kube_proxy.unwrap_or(stock.kube_proxy),
        etcd: etcd.unwrap_or(stock.etcd),
        coredns: coredns.unwrap_or(stock.coredns),
        pause: pause.unwrap_or(stock.pause),
        flannel: flannel.unwrap_or(stock.flannel),
        flannel_cni_plugin: flannel_cni_plugin.unwrap_or(stock.flannel_cni_plugin),
        hoist,
    })
}

fn control_plane_endpoint(check: &mut Check<'_>, raw: &raw::Cluster) -> Option<Endpoint> {
    const PATH: &str = "controlPlaneEndpoint";
    let text = raw.control_plane_endpoint.as_deref()?;
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let message = format!("`{text}` is a URL, not a host or host:port");
        check.wrong(PATH, message, format!("write it like {host}; without a port, it is {API_PORT}"));
        return None;
    }
    check.value(PATH, text, syntax::endpoint(text), "api.example.com or 10.0.0.5:6443")
}

fn api_server(check: &mut Check<'_>, version: Option<Version>, raw: Option<&raw::ApiServer>) -> ApiServer {
    let Some(raw) = raw else { return ApiServer::default() };
    let cert_sans = raw.cert_sans.clone().unwrap_or_default();
    for (i, san) in cert_sans.iter().enumerate() {
        check.value(&item("apiServer.certSANs", i), san, syntax::alternative_name(san), "api.example.com or 10.0.0.5");
    }
    let path = "apiServer.extraArgs";
    let extra_args = flags::extra_args(check, path, Program::ApiServer, version, raw.extra_args.as_ref());
    flags::together(check, path, &extra_args);
    ApiServer { extra_args, cert_sans }
}

fn component(
    check: &mut Check<'_>,
    path: &str,
    program: Program,
    version: Option<Version>,
    raw: Option<&raw::Component>,
) -> Component {
    let raw = raw.and_then(|raw| raw.extra_args.as_ref());
    Component { extra_args: flags::extra_args(check, &child(path, "extraArgs"), program, version, raw) }
}

fn etcd(check: &mut Check<'_>, version: Option<Version>, raw: Option<&raw::Etcd>) -> Option<Etcd> {
    let (local, external) = raw.map_or((None, None), |raw| (raw.local.as_deref(), raw.external.as_deref()));
    if local.is_some() && external.is_some() {
        check.wrong("etcd", "both `local` and `external` are given", "remove one of them".to_owned());
    }
    if let Some(raw) = external {
        return external_etcd(check, raw);
    }
    let data_dir = local.and_then(|raw| raw.data_dir.as_deref()).unwrap_or(defaults::ETCD_DATA_DIR);
    let parts: Vec<_> = Path::new(data_dir).components().skip(1).collect();
    let plain = parts.iter().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !data_dir.starts_with('/') || parts.is_empty() || !plain {
        let remedy = "give an absolute path on the controllers, without `..`".to_owned();
        check.wrong("etcd.local.dataDir", format!("`{data_dir}` cannot be etcd's data directory"), remedy);
    }
    let extra_args = local.and_then(|raw| raw.extra_args.as_ref());
    let extra_args = flags::extra_args(check, "etcd.local.extraArgs", Program::Etcd, version, extra_args);
    let defragmentation = local.and_then(|raw| raw.defragmentation).unwrap_or(true);
    Some(Etcd::Local { data_dir: data_dir.to_owned(), defragmentation, extra_args })
}

fn external_etcd(check: &mut Check<'_>, raw: &raw::ExternalEtcd) -> Option<Etcd> {
    const PATH: &str = "etcd.external";
    let endpoints = raw.endpoints.clone().unwrap_or_default();
    if endpoints.is_empty() {
        let remedy = "give at least one URL like https://10.0.0.5:2379".to_owned();
        check.wrong("etcd.external.endpoints", "it is required", remedy);
    }
    for (i, url) in endpoints.iter().enumerate() {
        check.value(&item("etcd.external.endpoints", i), url, syntax::https_url(url), "https://10.0.0.5:2379");
    }
    let ca_file = check.file(PATH, "caFile", raw.ca_file.as_deref());
    let cert_file = check.file(PATH, "certFile", raw.cert_file.as_deref());
    let key_file = check.file(PATH, "keyFile", raw.key_file.as_deref());
    Some(Etcd::External { endpoints, ca_file: ca_file?, cert_file: cert_file?, key_file: key_file? })
}

/// One for each in the file; `None` for one whose name or address is no good.
fn controllers(check: &mut Check<'_>, raw: &[Fields<raw::Controller>]) -> Vec<Option<Controller>> {
    if raw.is_empty() {
        let remedy = "give the name and address of at least one controller".to_owned();
        check.wrong("controllers", "it is required", remedy);
    }
    let mut names: Vec<&str> = Vec::new();
    let mut controllers = Vec::new();
    for (i, raw) in raw.iter().enumerate() {
        let path = item("controllers", i);
        let name = check.required(&path, "name", raw.name.as_deref());
        if let Some(name) = name {
            let path = child(&path, "name");
            check.value(&path, name, syntax::node_name(name), "controller-1");
            if names.contains(&name) {
                check.wrong(
                    &path,
                    format!("`{name}` is the name of another controller already"),
                    "give each its own".to_owned(),
                );
            }
            names.push(name);
        }
        let address = check.required(&path, "address", raw.address.as_deref()).and_then(|address| {
            let parsed = address.parse().map_err(|_| "is not an IP address".to_owned());
            check.value(&child(&path, "address"), address, parsed, "10.0.0.11")
        });
        let taints = taints(check, &child(&path, "taints"), raw.taints.as_ref());
        controllers.push(match (name, address) {
            (Some(name), Some(address)) => Some(Controller { name: name.to_owned(), address, taints }),
            _ => None,
        });
    }
    controllers
}

fn taints(check: &mut Check<'_>, path: &str, raw: Option<&Vec<Fields<raw::Taint>>>) -> Vec<Taint> {
    let Some(raw) = raw else { return defaults::taints() };
    let mut taints: Vec<Taint> = Vec::new();
    for (i, raw) in raw.iter().enumerate() {
        let path = item(path, i);
        let key = check.required(&path, "key", raw.key.as_deref());
        let effect = check.required(&path, "effect", raw.effect.as_deref());
        if let Some(key) = key {
            check.value(&child(&path, "key"), key, syntax::qualified_name(key), "example.com/dedicated");
        }
        if let Some(value) = &raw.value {
            check.value(&child(&path, "value"), value, syntax::label_value(value), "control-plane");
        }
        if let Some(effect) = effect
            && !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)
        {
            let remedy = "known: NoSchedule, PreferNoSchedule, NoExecute".to_owned();
            check.wrong(&child(&path, "effect"), format!("`{effect}` is not the effect of a taint"), remedy);
        }
        if let (Some(key), Some(effect)) = (key, effect) {
            if taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
                check.wrong(
                    &path,
                    format!("a taint `{key}` of effect {effect} is there already"),
                    "remove it".to_owned(),
                );
            }
            taints.push(Taint { key: key.to_owned(), value: raw.value.clone(), effect: effect.to_owned() });
        }
    }
    taints
}

fn hoist(check: &mut Check<'_>, raw: Option<&raw::Hoist>) -> HoistPaths {
    let mut path = |name: &str, value: Option<&String>, default: &str| {
        let value = value.map_or(default, String::as_str);
        check.value(&child("hoist", name), value, syntax::unit_path(value), default);
        value.to_owned()
    };
    HoistPaths {
        binary: path("binary", raw.and_then(|raw| raw.binary.as_ref()), defaults::BINARY),
        asset_dir: path("assetDir", raw.and_then(|raw| raw.asset_dir.as_ref()), defaults::ASSET_DIR),
    }
}

/// Each comes to addons/ by the last part of its path, which must therefore be its own.
fn addons(check: &mut Check<'_>, raw: &[String]) -> Vec<String> {
    let mut addons: Vec<String> = Vec::new();
    for (i, value) in raw.iter().enumerate() {
        let path = item("addons", i);
        let Some(absolute) = check.absolute(&path, value, "addons/ingress") else { continue };
        let name = |path: &str| Path::new(path).file_name().map(std::ffi::OsStr::to_owned);
        match name(&absolute) {
            own if value.is_empty() || own.as_ref().is_none_or(|own| own.to_string_lossy().starts_with('.')) => {
                let message = format!("`{value}` has no name that could stand in addons/");
                check.wrong(&path, message, "name a folder of manifests, or a manifest".to_owned());
            }
            own if addons.iter().any(|there| name(there) == own) => {
                let message = format!("`{value}` has the name of another add-on already");
                check.wrong(&path, message, "rename one of them".to_owned());
            }
            _ => addons.push(absolute),
        }
    }
    addons
}

fn pki(check: &mut Check<'_>, raw: Option<&raw::Pki>) -> Option<PkiConfig> {
    let none = raw::Pki::default();
    let raw = raw.unwrap_or(&none);
    let mut duration = |name: &str, text: Option<&str>, default: &str| -> Option<Duration> {
        let text = text.unwrap_or(default);
        check.value(&child("pki", name), text, syntax::duration(text), "8760h")
    };
    let ca_validity =
        duration("caCertificateValidityPeriod", raw.ca_certificate_validity_period.as_deref(), defaults::CA_VALIDITY);
    let certificate_validity = duration(
        "certificateValidityPeriod",
        raw.certificate_validity_period.as_deref(),
        defaults::CERTIFICATE_VALIDITY,
    );
    let bootstrap_token_ttl =
        duration("bootstrapTokenTTL", raw.bootstrap_token_ttl.as_deref(), defaults::BOOTSTRAP_TOKEN_TTL);
    if let (Some(ca), Some(certificate)) = (ca_validity, certificate_validity)
        && certificate > ca
    {
        let path = "pki.certificateValidityPeriod";
        let path = if check.has(path) { path } else { "pki.caCertificateValidityPeriod" };
        let (certificate, ca) = (syntax::write_duration(certificate), syntax::write_duration(ca));
        let message = format!("certificates would be valid for {certificate}, their CA only for {ca}");
        check.wrong(path, message, "give the CA the longer validity".to_owned());
    }
    let ca = check.files("pki.ca", raw.ca.as_ref());
    let etcd_ca = check.files("pki.etcdCA", raw.etcd_ca.as_ref());
    let front_proxy_ca = check.files("pki.frontProxyCA", raw.front_proxy_ca.as_ref());
    let service_account_key = match &raw.service_account_key {
        Some(key) => Some(check.file("pki", "serviceAccountKey", Some(key))?),
        None => None,
    };
    Some(PkiConfig {
        ca_validity: ca_validity?,
        certificate_validity: certificate_validity?,
        bootstrap_token_ttl: bootstrap_token_ttl?,
        ca,
        etcd_ca,
        front_proxy_ca,
        service_account_key,
    })
}
