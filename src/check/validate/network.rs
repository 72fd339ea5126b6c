//! The listeners on a controller: the two API servers and the forwarder share one address, every other program has a
//! port of its own, and probes ask the port on which their program answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use super::files::Resolved;
use super::inventory::{Inventory, Pod, Running, flags, items, text};
use crate::base::error::Finding;
use crate::base::yaml::child;
use crate::desired::config::{API_PORT, Controller};
use crate::desired::known_flags::Program::{self, ApiServer, ControllerManager, Etcd, Kubelet, Scheduler};
use crate::desired::secrets::BRIDGE_PORT;

pub(super) fn check(inventory: &Inventory<'_>) -> Vec<Finding> {
    let running = inventory.running();
    let mut findings = Vec::new();
    for run in &running {
        findings.extend(probes(inventory, run));
        if run.program == ApiServer {
            findings.extend(api_server(inventory, run));
        }
        if let (ControllerManager | Scheduler, Some(master)) = (run.program, run.value("master")) {
            findings.extend(target(run, master));
        }
        if run.pod.spec.get("hostNetwork") != Some(&true.into()) {
            let path = child(run.pod.path, "hostNetwork");
            let finding =
                run.pod.object.finding(&path, "is not true: the control plane runs where there is no pod network");
            findings.push(finding.remedy("write hostNetwork: true"));
        }
    }
    findings.extend(collisions(&running));
    for pod in inventory.pods().filter(|pod| pod.object.is_static()) {
        findings.extend(forwarder(inventory, pod, &running));
    }
    findings
}

/// The port of a program that has one of its own.
fn port(run: &Running<'_>) -> u16 {
    let default = match run.program {
        ApiServer => API_PORT,
        ControllerManager => 10257,
        Scheduler => 10259,
        Etcd | Kubelet => 0,
    };
    run.value("secure-port").map_or(default, |port| port.parse().unwrap_or(0))
}

/// The API servers share an address as the bridge needs it.
fn api_server(inventory: &Inventory<'_>, run: &Running<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let loopback = inventory.cluster.loopback();
    let (own_port, bind) = if run.is_bridge() {
        (BRIDGE_PORT, loopback.to_string())
    } else {
        (API_PORT, if loopback.is_ipv6() { "::".to_owned() } else { "0.0.0.0".to_owned() })
    };
    let who = if run.is_bridge() { "the bridge's API server" } else { "the self-hosted API server" };
    if port(run) != own_port {
        let message = format!("{who} must listen on {own_port}: hoist and the forwarder look for it there");
        findings.push(run.finding("secure-port", message).remedy(format!("write --secure-port={own_port}")));
    }
    // The API server's default is the wildcard.
    let bound = run.value("bind-address").unwrap_or(if run.is_bridge() { "the wildcard" } else { &bind });
    // On Linux the IPv6 wildcard is IPv4's, too.
    let is_wildcard = !run.is_bridge() && bound == "::";
    if bound != bind && !is_wildcard {
        let message = format!("is {bound}, but {who} must listen on {bind}: so the two share an address");
        findings.push(run.finding("bind-address", message).remedy(format!("write --bind-address={bind}")));
    }
    if !run.is_bridge() && run.value("permit-port-sharing") != Some("true") {
        let message = "is not true: the self-hosted API server could not listen beside the forwarder";
        findings.push(run.finding("permit-port-sharing", message).remedy("write --permit-port-sharing=true"));
    }
    findings
}

/// The self-hosted controllers talk to the address that bridge and self-hosted API server share.
fn target(run: &Running<'_>, master: &str) -> Option<Finding> {
    let is_good = master.starts_with("https://") && master.rsplit(':').next() == Some(&API_PORT.to_string());
    (!is_good).then(|| {
        let message = format!("{master} is not where the API servers answer, https://…:{API_PORT}");
        run.finding("master", message).remedy(format!("write --master=https://$(HOST_IP):{API_PORT}"))
    })
}

/// Probes ask the port and by the scheme that the program answers.
fn probes(inventory: &Inventory<'_>, run: &Running<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = run.container.get(name).and_then(|probe| probe.get("httpGet")) else { continue };
        let path = child(&child(&run.path, name), "httpGet");
        let asked = probe.get("port").and_then(Value::as_u64).unwrap_or_default();
        let is_https = text(probe, "scheme") == Some("HTTPS");
        findings.extend(asked_elsewhere(inventory, run, probe, &path));
        let answers: Vec<(u16, bool)> = match run.program {
            // The ports are the same on every controller.
            Etcd => etcd_ports(run, inventory.cluster.controllers.first()),
            _ => vec![(port(run), true)],
        };
        let listening = || answers.iter().map(|(port, _)| port.to_string()).collect::<Vec<_>>().join(", ");
        let Some((port, secure)) = answers.iter().find(|(port, _)| u64::from(*port) == asked) else {
            if probe.get("port").is_some_and(Value::is_u64) && !answers.is_empty() {
                let message = format!("is {asked}, and {} listens on {}", run.program.name(), listening());
                let finding = run.pod.object.finding(&child(&path, "port"), message);
                findings.push(finding.remedy("probe the port that it listens on, or the kubelet kills it"));
            }
            continue;
        };
        if is_https != *secure {
            let scheme = if *secure { "HTTPS" } else { "HTTP" };
            let finding = run.pod.object.finding(&child(&path, "scheme"), format!("port {port} speaks {scheme}"));
            findings.push(finding.remedy(format!("write scheme: {scheme}")));
        }
    }
    findings
}

/// The address that a probe asks is one that the program listens on, on every controller; etcd says in URLs where that is.
fn asked_elsewhere(inventory: &Inventory<'_>, run: &Running<'_>, probe: &Value, path: &str) -> Option<Finding> {
    inventory.cluster.controllers.iter().find_map(|controller| {
        let host = text(probe, "host").map_or_else(|| controller.address.to_string(), str::to_owned);
        let bound = run.on("bind-address", controller)?;
        let listens = bound == host || ["0.0.0.0", "::"].contains(&&*bound) || run.program == Etcd;
        (!listens).then(|| {
            let message = format!("is {host}, and {} listens on {bound} on {}", run.program.name(), controller.name);
            let finding = run.pod.object.finding(&child(path, "host"), message);
            finding.remedy("probe the address that it listens on, or the kubelet kills it")
        })
    })
}

/// Where etcd answers probes, and whether it asks for TLS there.
fn etcd_ports(run: &Running<'_>, controller: Option<&Controller>) -> Vec<(u16, bool)> {
    let Some(controller) = controller else { return Vec::new() };
    let urls = ["listen-metrics-urls", "listen-client-urls", "listen-client-http-urls"];
    let urls = urls.iter().filter_map(|name| run.on(name, controller)).collect::<Vec<_>>().join(",");
    let answer = |url: &str| Some((url.rsplit(':').next()?.parse().ok()?, url.starts_with("https://")));
    urls.split(',').filter_map(answer).collect()
}

/// Two programs of one host do not listen on one port; but those that share it on purpose do.
fn collisions(running: &[Running<'_>]) -> Vec<Finding> {
    let mut first: BTreeMap<u16, &Running<'_>> = BTreeMap::new();
    let mut findings = Vec::new();
    for run in running.iter().filter(|run| !matches!(run.program, Etcd | Kubelet)) {
        let port = port(run);
        if let Some(other) = first.get(&port).filter(|_| port != 0) {
            let (name, place) = (other.program.name(), other.pod.object.place());
            let finding = run.finding("secure-port", format!("{port} is the port of {name} in {place}, too"));
            findings.push(finding.remedy("give one of them another port, and its probes, too"));
        } else {
            first.insert(port, run);
        }
    }
    findings
}

/// What is wrong on a controller with where a forwarder leads from and to.
fn leads(inventory: &Inventory<'_>, run: &Running<'_>, controller: &Controller, target: SocketAddr) -> Vec<Finding> {
    let mut findings = Vec::new();
    let listen = SocketAddr::new(controller.address, API_PORT);
    let rules = [
        ("listen", listen, "is where clients connect"),
        ("target", target, "is where the bridge's API server listens"),
    ];
    for (name, wanted, why) in rules {
        // It may listen at further addresses: controlPlaneEndpoint may be another one of this machine.
        let found = run.all_on(name, controller);
        if !found.iter().any(|found| found.parse() == Ok(wanted)) {
            let found = run.value(name).unwrap_or("not set");
            let finding = run.finding(name, format!("is {found}, but {wanted} {why} on {}", controller.name));
            findings.push(finding.remedy("`hoist render --replace` with this file restores hoist's own"));
        }
    }
    if let Some(Resolved::Missing(why)) =
        run.on("ca-file", controller).map(|path| inventory.resolve(run, &path, controller))
    {
        let message = format!("there will be no file {}: {why}", run.value("ca-file").unwrap_or_default());
        findings.push(run.finding("ca-file", message).remedy("correct the path"));
    }
    findings
}

/// The forwarder listens where clients connect, and passes them to the bridge's API server, on every controller.
fn forwarder(inventory: &Inventory<'_>, pod: Pod<'_>, running: &[Running<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, container) in pod.containers() {
        let words = items(&path, container, "command");
        if !words.get(1).is_some_and(|(_, word)| *word == "forward") {
            continue;
        }
        let words = words.into_iter().skip(2).map(|(path, word)| (path, word.as_str().unwrap_or_default().to_owned()));
        // Any program's will do: the forwarder has no flag without a value.
        let (args, strays) = flags(Program::ApiServer, words.collect());
        let run = Running { pod, path, container, program: Program::ApiServer, args, strays };
        let loopback = SocketAddr::new(inventory.cluster.loopback(), BRIDGE_PORT);
        let leads = |controller: &Controller| leads(inventory, &run, controller, loopback);
        // One place is wrong in one way, on however many.
        findings.extend(
            inventory.cluster.controllers.iter().map(leads).find(|found| !found.is_empty()).unwrap_or_default(),
        );
        for other in running.iter().filter(|other| other.program == ApiServer && !other.is_bridge()) {
            findings.extend(one_user(&run, other));
        }
    }
    findings
}

/// Linux lets two programs share a port only if one user runs both.
fn one_user(forwarder: &Running<'_>, api_server: &Running<'_>) -> Option<Finding> {
    let user = |run: &Running<'_>| {
        let of = |value: &Value| value.pointer("/securityContext/runAsUser").and_then(Value::as_u64);
        // Images of Kubernetes run as root where nothing is said.
        of(run.container).or_else(|| of(run.pod.spec)).unwrap_or(0)
    };
    let (a, b) = (user(forwarder), user(api_server));
    (a != b).then(|| {
        let path = child(&child(&api_server.path, "securityContext"), "runAsUser");
        let place = forwarder.pod.object.place();
        let message =
            format!("is {b}, and the forwarder's is {a} ({place}): only one user's programs may share a port");
        api_server.pod.object.finding(&path, message).remedy("give both the same user")
    })
}
