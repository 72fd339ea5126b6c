//! Settings that several components must share: subnets, names, the endpoints of etcd, who is let in.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::files::KUBELET_CA;
use super::flags;
use super::inventory::{Inventory, Object, Running, items};
use super::presented::KUBELET_CONFIG;
use crate::api::observe::CONTROL_PLANE_LABEL;
use crate::base::error::Finding;
use crate::base::yaml::{self, child};
use crate::desired::config::Etcd as EtcdConfig;
use crate::desired::known_flags::Program::{ApiServer, ControllerManager, Etcd, Scheduler};

pub(super) fn check(inventory: &Inventory<'_>) -> Vec<Finding> {
    let running = inventory.running();
    let mut findings = Vec::new();
    for run in &running {
        match run.program {
            ApiServer => {
                findings.extend(subnets(inventory, run));
                findings.extend(issuer(inventory, run));
                findings.extend(advertised(inventory, run));
                findings.extend(fixed(run, &API_SERVER));
                findings.extend(authorization(inventory, run));
                findings.extend(admission(run));
                findings.extend(etcd_servers(inventory, run, &running));
            }
            ControllerManager => {
                findings.extend(subnets(inventory, run));
                findings.extend(fixed(run, &LEADERS));
                findings.extend(controllers(run));
            }
            Scheduler => findings.extend(fixed(run, &LEADERS)),
            Etcd => findings.extend(member(inventory, run)),
            _ => {}
        }
        findings.extend(schedulable(run));
    }
    match inventory.kubelet_config() {
        Some(kubelet) => findings.extend(self::kubelet(inventory, &kubelet)),
        None => findings.extend(unreadable(inventory)),
    }
    findings.extend(unit(inventory));
    findings
}

/// Flags that must have one of these values, `""` standing for its absence, and why.
type Fixed = (&'static str, &'static [&'static str], &'static str);

const API_SERVER: [Fixed; 4] = [
    ("anonymous-auth", &["", "true"], "kubelets and hoist ask /readyz and /livez without credentials"),
    ("allow-privileged", &["true"], "network plugins and kube-proxy are privileged pods"),
    ("enable-bootstrap-token-auth", &["true"], "a kubelet gets its first certificate with a bootstrap token"),
    ("endpoint-reconciler-type", &["none"], "hoist keeps the endpoints of the `kubernetes` Service right"),
];

const LEADERS: [Fixed; 4] = [
    ("leader-elect", &["", "true"], "hoist follows leadership from the bridge to the self-hosted cluster"),
    ("leader-elect-resource-lock", &["", "leases"], "hoist follows leadership by this Lease"),
    (
        "leader-elect-resource-name",
        &["", "kube-controller-manager", "kube-scheduler"],
        "hoist follows leadership by this Lease",
    ),
    ("leader-elect-resource-namespace", &["", "kube-system"], "hoist follows leadership by this Lease"),
];

fn fixed(run: &Running<'_>, rules: &[Fixed]) -> Vec<Finding> {
    let wrong = rules.iter().filter(|(name, allowed, _)| !allowed.contains(&run.value(name).unwrap_or_default()));
    let finding = |(name, allowed, why): &Fixed| {
        let found = run.value(name).map_or("is not set".to_owned(), |value| format!("is {value}"));
        let wanted = allowed.iter().rfind(|value| !value.is_empty()).map(|value| format!("write --{name}={value}"));
        let finding = run.finding(name, format!("{found}, but {why}"));
        // Nothing of hoist's own is privileged.
        let finding = if *name == "allow-privileged" { finding.warning() } else { finding };
        finding.remedy(wanted.unwrap_or_else(|| "remove it".to_owned()))
    };
    wrong.map(finding).collect()
}

/// Each API server advertises the address of its own node.
fn advertised(inventory: &Inventory<'_>, run: &Running<'_>) -> Option<Finding> {
    const NAME: &str = "advertise-address";
    let remedy = "write --advertise-address=$(HOST_IP), with HOST_IP from status.hostIP";
    let Some(value) = run.value(NAME) else {
        return Some(
            run.finding(NAME, "is not set: on a machine with several addresses it could be any of them")
                .remedy(remedy)
                .warning(),
        );
    };
    let wrong = inventory
        .cluster
        .controllers
        .iter()
        .find(|controller| run.on(NAME, controller).is_some_and(|value| value.parse() != Ok(controller.address)))?;
    let message = format!("is {value}, and the controller {} is {}", wrong.name, wrong.address);
    // A variable that is not there was reported.
    Some(run.finding(NAME, message).remedy(remedy))
}

/// hoist's rights are RBAC's, and a kubelet's those of a node.
fn authorization(inventory: &Inventory<'_>, run: &Running<'_>) -> Option<Finding> {
    const FILE: &str = "authorization-config";
    if run.arg(FILE).is_some() {
        if run.arg("authorization-mode").is_some() {
            let message = "cannot be set beside --authorization-mode: the API server would exit";
            return Some(run.finding(FILE, message).remedy("remove one of the two"));
        }
        // The bridge reads the same file.
        if run.is_bridge() {
            return None;
        }
        let source = inventory.content(run, FILE, inventory.cluster.controllers.first()?)?;
        let document = yaml::documents("", std::str::from_utf8(&source.bytes).ok()?).ok()?.into_iter().next()?;
        let authorizers = document.value.get("authorizers").and_then(Value::as_array);
        let has = |mode: &str| authorizers.into_iter().flatten().any(|authorizer| authorizer["type"] == mode);
        let missing: Vec<_> = ["Node", "RBAC"].into_iter().filter(|mode| !has(mode)).collect();
        return (!missing.is_empty()).then(|| {
            let missing = missing.join(" and ");
            let message =
                format!("has no authorizer {missing}, by which kubelets and hoist's objects get their rights");
            source
                .finding(message)
                .remedy("add to authorizers: - {type: Node, name: node} and - {type: RBAC, name: rbac}")
        });
    }
    let modes: Vec<_> = run.value("authorization-mode").unwrap_or_default().split(',').collect();
    let missing: Vec<_> = ["Node", "RBAC"].into_iter().filter(|mode| !modes.contains(mode)).collect();
    (!missing.is_empty()).then(|| {
        let message =
            format!("lacks {}, by which kubelets and hoist's objects get their rights", missing.join(" and "));
        run.finding("authorization-mode", message).remedy("write --authorization-mode=Node,RBAC")
    })
}

/// A kubelet changes what is its own node's.
fn admission(run: &Running<'_>) -> Option<Finding> {
    const NAME: &str = "enable-admission-plugins";
    let has =
        |name: &str| run.value(name).is_some_and(|list| list.split(',').any(|plugin| plugin == "NodeRestriction"));
    if run.arg("admission-control").is_some() {
        if run.arg(NAME).is_none() && run.arg("disable-admission-plugins").is_none() {
            return None;
        }
        let message = "cannot be set beside --enable-admission-plugins and --disable-admission-plugins: the API server would exit";
        return Some(
            run.finding("admission-control", message).remedy("remove it, and name its plugins in the other two"),
        );
    }
    if has("disable-admission-plugins") && has(NAME) {
        let message = "has NodeRestriction, and so has --disable-admission-plugins: the API server would exit";
        return Some(run.finding(NAME, message).remedy("take it out of one of the two"));
    }
    (!has(NAME)).then(|| {
        let message = "lacks NodeRestriction: every kubelet could change the other nodes and their pods";
        run.finding(NAME, message).remedy("unless that is meant, add NodeRestriction").warning()
    })
}

/// Both make the cluster's own objects: the tokens by which nodes join.
fn controllers(run: &Running<'_>) -> Option<Finding> {
    let named: Vec<_> = run.value("controllers").unwrap_or("*").split(',').collect();
    let missing: Vec<_> =
        ["bootstrapsigner", "tokencleaner"].into_iter().filter(|name| !named.contains(name)).collect();
    (!missing.is_empty()).then(|| {
        let message = format!("lacks {}: an expired bootstrap token would stay", missing.join(" and "));
        run.finding("controllers", message).remedy("write --controllers=*,bootstrapsigner,tokencleaner").warning()
    })
}

fn parse(text: &str) -> Option<Vec<IpNet>> {
    text.split(',').map(|part| part.trim().parse().ok()).collect()
}

/// Subnets are those of cluster.yaml: certificates and the cluster's DNS address are made from them.
fn subnets(inventory: &Inventory<'_>, run: &Running<'_>) -> Vec<Finding> {
    let networking = &inventory.cluster.networking;
    let rules = [
        ("service-cluster-ip-range", "networking.serviceSubnet", &networking.service_subnets, true),
        ("cluster-cidr", "networking.podSubnet", &networking.pod_subnets, run.program == ControllerManager),
    ];
    let mut findings = Vec::new();
    for (name, field, wanted, is_needed) in rules {
        let joined = wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match run.value(name) {
            None if is_needed => {
                let finding = run.finding(name, format!("is not set, and {field} of cluster.yaml is {joined}"));
                findings.push(finding.remedy(format!("write --{name}={joined}")));
            }
            Some(value) if parse(value).as_ref() != Some(wanted) => {
                let finding = run.finding(name, format!("is {value}, and {field} of cluster.yaml is {joined}"));
                let remedy =
                    "to change it, set it in cluster.yaml and run `hoist render` again: certificates follow it";
                findings.push(finding.remedy(remedy));
            }
            _ => {}
        }
    }
    findings
}

fn issuer(inventory: &Inventory<'_>, run: &Running<'_>) -> Option<Finding> {
    let value = run.value("service-account-issuer");
    let Some(value) = value else {
        let finding = run.finding("service-account-issuer", "is not set, and the API server does not start without it");
        let domain = &inventory.cluster.networking.dns_domain;
        return Some(finding.remedy(format!("add --service-account-issuer=https://kubernetes.default.svc.{domain}")));
    };
    let domain = value.strip_prefix("https://kubernetes.default.svc.")?;
    let wanted = &inventory.cluster.networking.dns_domain;
    (domain != wanted).then(|| {
        let message = format!("is {value}, and networking.dnsDomain of cluster.yaml is {wanted}");
        run.finding("service-account-issuer", message).remedy("write the cluster's own domain").warning()
    })
}

/// Each of the API server's etcd URLs is one that etcd listens on.
fn etcd_servers(inventory: &Inventory<'_>, run: &Running<'_>, all: &[Running<'_>]) -> Vec<Finding> {
    let Some(servers) = run.value("etcd-servers") else {
        let finding = run.finding("etcd-servers", "is not set, and the API server does not start without it");
        let urls = match &inventory.cluster.etcd {
            EtcdConfig::External { endpoints, .. } => endpoints.join(","),
            EtcdConfig::Local { .. } => "https://127.0.0.1:2379".to_owned(),
        };
        return vec![finding.remedy(format!("add --etcd-servers={urls}"))];
    };
    let mut findings: Vec<Finding> = Vec::new();
    let mut add = |finding: Finding| {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    };
    let known: Vec<String> = match &inventory.cluster.etcd {
        EtcdConfig::External { endpoints, .. } => endpoints.clone(),
        EtcdConfig::Local { .. } => {
            let listening = all.iter().filter(|run| run.program == Etcd);
            let urls = listening.flat_map(|run| {
                let on = |controller| run.on("listen-client-urls", controller).unwrap_or_default();
                inventory.cluster.controllers.iter().map(on).collect::<Vec<_>>()
            });
            urls.flat_map(|urls| urls.split(',').map(str::to_owned).collect::<Vec<_>>()).collect()
        }
    };
    for controller in &inventory.cluster.controllers {
        let Some(servers) = run.on("etcd-servers", controller) else { continue };
        for url in servers.split(',').filter(|url| !known.is_empty() && !known.iter().any(|known| known == url)) {
            add(match &inventory.cluster.etcd {
                EtcdConfig::External { .. } => run
                    .finding("etcd-servers", format!("{url} is none of etcd.external.endpoints of cluster.yaml"))
                    .remedy("correct the one that is wrong")
                    .warning(),
                EtcdConfig::Local { .. } => run
                    .finding(
                        "etcd-servers",
                        format!("etcd does not listen on {url}, which is not in its --listen-client-urls"),
                    )
                    .remedy("name one of these, or add it to etcd's"),
            });
        }
    }
    if servers.contains("https://") {
        for name in ["etcd-cafile", "etcd-certfile", "etcd-keyfile"].into_iter().filter(|name| run.arg(name).is_none())
        {
            add(run.finding(name, "is not set, and etcd asks for a certificate").remedy("name the file in the Secret"));
        }
    }
    findings
}

/// etcd on each controller is the member that the others know.
fn member(inventory: &Inventory<'_>, run: &Running<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let mut add = |finding: Finding| {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    };
    for controller in &inventory.cluster.controllers {
        // A file of its own makes etcd ignore all flags; and what is made elsewhere cannot be judged.
        let unknown = |name: &&str| run.arg(name).is_some() && run.on(name, controller).is_none();
        let looked_at =
            ["name", "initial-advertise-peer-urls", "initial-cluster", "listen-peer-urls", "listen-client-urls"];
        if run.arg("config-file").is_some() || looked_at.iter().any(unknown) {
            return findings;
        }
        let on = |name: &str| run.on(name, controller).unwrap_or_default();
        let (name, peers, cluster) = (on("name"), on("initial-advertise-peer-urls"), on("initial-cluster"));
        let members: Vec<_> = cluster.split(',').filter_map(|member| member.split_once('=')).collect();
        if !peers.split(',').all(|url| members.contains(&(&*name, url))) {
            let message = format!("lacks {name}={peers}, the etcd of the controller {}", controller.name);
            add(run.finding("initial-cluster", message).remedy("name each controller with its peer URL"));
        }
        for (advertised, listened) in
            [("advertise-client-urls", "listen-client-urls"), ("initial-advertise-peer-urls", "listen-peer-urls")]
        {
            let listening = on(listened);
            let hears = |url: &str| {
                let port = url.rsplit(':').next().unwrap_or_default();
                listening.split(',').any(|at| {
                    at == url || at.ends_with(&format!("//0.0.0.0:{port}")) || at.ends_with(&format!("//[::]:{port}"))
                })
            };
            for url in on(advertised).split(',').filter(|url| !url.is_empty() && !hears(url)) {
                let message = format!("{url} is not in --{listened}, so nothing answers there");
                add(run.finding(advertised, message).remedy("give both the same port and address"));
            }
        }
        let spoken = ["listen-client-urls", "listen-peer-urls"];
        for name in spoken.into_iter().filter(|name| on(name).split(',').any(|url| url.starts_with("http://"))) {
            add(run.finding(name, "is not encrypted: anybody could read every Secret").remedy("write https://"));
        }
    }
    for name in ["client-cert-auth", "peer-client-cert-auth"] {
        if run.value(name) != Some("true") {
            add(run.finding(name, "is not true: anybody could write to etcd").remedy(format!("write --{name}=true")));
        }
    }
    findings
}

/// The control plane's pods come to the controllers, which `start` gives one label of its own.
fn schedulable(run: &Running<'_>) -> Option<Finding> {
    let selector = run.pod.spec.get("nodeSelector")?.as_object()?;
    let is_given = |key: &str, value: &Value| match key {
        CONTROL_PLANE_LABEL => value == "",
        _ => key.starts_with("kubernetes.io/"),
    };
    let wrong = selector.iter().find(|(key, value)| !is_given(key, value))?;
    let path = child(&child(run.pod.path, "nodeSelector"), wrong.0);
    let finding =
        run.pod.object.finding(&path, "hoist start gives a controller no such label: the pod may stay Pending");
    Some(finding.remedy(format!("select by {CONTROL_PLANE_LABEL}: \"\", or label the node yourself")).warning())
}

/// What is wrong with a configuration of the kubelet that is there and says nothing.
fn unreadable(inventory: &Inventory<'_>) -> Vec<Finding> {
    let Ok(text) = inventory.assets.text(KUBELET_CONFIG) else { return Vec::new() };
    let place = inventory.place(KUBELET_CONFIG);
    let remedy = |finding: Finding| finding.remedy("`hoist render --replace kubelet/config.yaml` restores hoist's own");
    match yaml::documents(&place, &text) {
        Ok(_) => vec![remedy(Finding::new(place, "is empty"))],
        Err(findings) => findings.into_iter().map(remedy).collect(),
    }
}

/// The kubelet's configuration goes with the cluster's.
fn kubelet(inventory: &Inventory<'_>, kubelet: &Object) -> Vec<Finding> {
    let value = kubelet.value();
    let networking = &inventory.cluster.networking;
    let mut findings = Vec::new();
    for (path, address) in items("", value, "clusterDNS") {
        let parsed = address.as_str().and_then(|text| text.parse::<IpAddr>().ok());
        let is_service =
            parsed.is_some_and(|address| networking.service_subnets.iter().any(|net| net.contains(&address)));
        if !is_service {
            let message = format!("{} lies in no service subnet of cluster.yaml", address.as_str().unwrap_or("it"));
            // A DNS server on each node's own address is no mistake.
            let finding = kubelet.finding(&path, message).remedy("write the address of the cluster's DNS Service");
            findings.push(if parsed.is_some() { finding.warning() } else { finding });
        }
    }
    if let Some(domain) = value.get("clusterDomain").and_then(Value::as_str)
        && domain != networking.dns_domain
    {
        let message = format!("is {domain}, and networking.dnsDomain of cluster.yaml is {}", networking.dns_domain);
        findings.push(kubelet.finding("clusterDomain", message).remedy("set it in cluster.yaml and render again"));
    }
    let rules: [(&str, &str, Value, &str); 3] = [
        (
            "/rotateCertificates",
            "rotateCertificates",
            // Where nothing in the cluster signs, whoever holds the CA renews it.
            (!inventory.cluster.has_external_ca()).into(),
            "the place of the CA's key decides what renews its certificate",
        ),
        (
            "/authentication/x509/clientCAFile",
            "authentication.x509.clientCAFile",
            KUBELET_CA.into(),
            "hoist start puts the cluster's CA there",
        ),
        (
            "/authentication/webhook/enabled",
            "authentication.webhook.enabled",
            true.into(),
            "metrics and tests call the kubelet with a token",
        ),
    ];
    let serving = (
        "/serverTLSBootstrap",
        "serverTLSBootstrap",
        true.into(),
        "the API server accepts no self-signed certificate of the kubelet: logs and exec would fail",
    );
    let signs = !inventory.cluster.has_external_ca() && value.get("tlsCertFile").is_none();
    for (pointer, path, wanted, why) in rules.into_iter().chain(signs.then_some(serving)) {
        let found = value.pointer(pointer);
        if found != Some(&wanted) {
            let is = found.map_or("is not set".to_owned(), |found| format!("is {found}"));
            let finding = kubelet.finding(path, format!("{is}, and should be {wanted}: {why}"));
            let finding = finding.remedy(format!("write {path}: {wanted}"));
            let stands = !["authentication.webhook.enabled", "serverTLSBootstrap"].contains(&path);
            findings.push(if stands { finding } else { finding.warning() });
        }
    }
    findings
}

/// What `start` writes for the kubelet of each controller, its unit reads.
fn unit(inventory: &Inventory<'_>) -> Vec<Finding> {
    const WANTED: [(&str, &str); 5] = [
        ("bootstrap-kubeconfig", "/etc/kubernetes/bootstrap-kubelet.conf"),
        ("config", "/var/lib/kubelet/config.yaml"),
        ("hostname-override", "${NODE_NAME}"),
        ("kubeconfig", "/etc/kubernetes/kubelet.conf"),
        ("node-ip", "${NODE_IP}"),
    ];
    let mut findings = Vec::new();
    let Some(args) = flags::of_unit(inventory) else {
        if inventory.assets.files.contains_key(flags::UNIT) {
            let finding = Finding::new(inventory.place(flags::UNIT), "has no ExecStart= that runs a kubelet");
            findings.push(finding.remedy("`hoist render --replace kubelet/kubelet.service` restores hoist's own"));
        }
        return findings;
    };
    for (name, wanted) in WANTED {
        let arg = args.iter().rfind(|arg| arg.name == name);
        if arg.is_none_or(|arg| arg.value != wanted) {
            let is = arg.map_or("is not set".to_owned(), |arg| format!("is {}", arg.value));
            let message = format!("--{name}: {is}, and hoist start gives the kubelet {wanted}");
            let finding = Finding::new(inventory.place(flags::UNIT), message);
            findings.push(finding.at(arg.and_then(flags::position)).remedy(format!("write --{name}={wanted}")));
        }
    }
    findings
}
