//! Subnets and addresses, and whether they fit together.

use std::net::IpAddr;

use ipnet::IpNet;

use super::check::Check;
use super::{API_PORT, Arg, Controller, Endpoint, Network, Networking, Plugin, defaults, raw, syntax};
use crate::base::yaml::{child, item};
use crate::desired::known_flags;

const POD_SUBNET: &str = "networking.podSubnet";
const SERVICE_SUBNET: &str = "networking.serviceSubnet";

/// kubeadm's bounds: the API server keeps a bitmap of the service subnet, of 20 bits at most.
const SERVICE_BITS: std::ops::RangeInclusive<u8> = 4..=20;

/// kubeadm's bound: the allocator of node subnets keeps a bitmap, too.
const MAX_NODE_BITS: u8 = 16;

pub(super) fn networking(check: &mut Check<'_>, raw: &raw::Networking, kcm_args: &[Arg]) -> Networking {
    let dns_domain = raw.dns_domain.as_deref().unwrap_or(defaults::DNS_DOMAIN);
    check.value("networking.dnsDomain", dns_domain, syntax::dns_domain(dns_domain), defaults::DNS_DOMAIN);
    let pods = subnets(check, POD_SUBNET, raw.pod_subnet.as_deref().unwrap_or(defaults::POD_SUBNET));
    let services = subnets(check, SERVICE_SUBNET, raw.service_subnet.as_deref().unwrap_or(defaults::SERVICE_SUBNET));

    for pod_subnet in pods.iter().filter(|_| allocates(kcm_args)) {
        node_subnets(check, *pod_subnet, kcm_args);
    }
    for subnet in &services {
        let bits = subnet.max_prefix_len() - subnet.prefix_len();
        let (size, bound) = if bits < *SERVICE_BITS.start() {
            ("small", SERVICE_BITS.start())
        } else if bits > *SERVICE_BITS.end() {
            ("large", SERVICE_BITS.end())
        } else {
            continue;
        };
        let (length, end) = (subnet.max_prefix_len() - bound, if size == "small" { "most" } else { "least" });
        let remedy = format!("its prefix must be /{length} at {end}");
        check.wrong(SERVICE_SUBNET, format!("{subnet} is too {size} for Services"), remedy);
    }
    for pod_subnet in &pods {
        for service_subnet in &services {
            if overlap(pod_subnet, service_subnet) {
                // At the one that is written; if both are, the pods' is as good as the other.
                let (path, this, other) = if check.has(POD_SUBNET) {
                    (POD_SUBNET, pod_subnet, format!("the service subnet {service_subnet}"))
                } else {
                    (SERVICE_SUBNET, service_subnet, format!("the pod subnet {pod_subnet}"))
                };
                check.wrong(path, format!("{this} overlaps {other}"), "choose another range".to_owned());
            }
        }
    }
    if !pods.is_empty() && !services.is_empty() && families(&pods) != families(&services) {
        let (pods, services) = (families_text(&pods), families_text(&services));
        let path = if check.has(POD_SUBNET) { POD_SUBNET } else { SERVICE_SUBNET };
        check.wrong(
            path,
            format!("pods have {pods} subnets and Services have {services} subnets"),
            "give podSubnet and serviceSubnet the same address families".to_owned(),
        );
    }
    Networking { pod_subnets: pods, service_subnets: services, dns_domain: dns_domain.to_owned() }
}

/// A comma-separated list: one subnet, or one of each family.
fn subnets(check: &mut Check<'_>, path: &str, text: &str) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let Ok(net) = part.parse::<IpNet>() else {
            check.wrong(path, format!("`{part}` is not a subnet"), format!("write it like {}", defaults::POD_SUBNET));
            continue;
        };
        if net.trunc() != net {
            let remedy = format!("write {}", net.trunc());
            check.wrong(path, format!("{net} is an address in a subnet, not the subnet"), remedy);
        }
        if nets.iter().any(|other| is_ipv6(other) == is_ipv6(&net)) {
            let family = family(is_ipv6(&net));
            let remedy = "write one subnet, or one of each family".to_owned();
            check.wrong(path, format!("{net} is a second {family} subnet"), remedy);
        } else {
            nets.push(net.trunc());
        }
    }
    nets
}

/// How long the prefix of each node's part of a pod subnet is.
fn node_prefix(subnet: IpNet, kcm_args: &[Arg]) -> u8 {
    let (flag, default) =
        if is_ipv6(&subnet) { ("node-cidr-mask-size-ipv6", 64) } else { ("node-cidr-mask-size-ipv4", 24) };
    let names = [flag, "node-cidr-mask-size"];
    let set = kcm_args.iter().rfind(|arg| names.contains(&arg.name.as_str())).and_then(|arg| arg.value.parse().ok());
    set.unwrap_or(default)
}

/// Whether the controller manager cuts a part of the pod subnet for each node.
pub(super) fn allocates(kcm_args: &[Arg]) -> bool {
    let said = kcm_args.iter().rfind(|arg| arg.name == "allocate-node-cidrs");
    said.is_none_or(|arg| known_flags::boolean(&arg.value) != Some(false))
}

/// Each controller's pods get a part of the pod subnet, and so do those of each worker.
pub(super) fn room(
    check: &mut Check<'_>,
    networking: &Networking,
    kcm_args: &[Arg],
    controllers: usize,
    network: Option<&Network>,
) {
    for subnet in networking.pod_subnets.iter().filter(|_| allocates(kcm_args)) {
        let node = node_prefix(*subnet, kcm_args);
        // Too large and too small ones were refused.
        let Some(bits) = node.checked_sub(subnet.prefix_len()).filter(|bits| *bits <= MAX_NODE_BITS) else { continue };
        let nodes = 1_usize << bits;
        let remedy = |least: usize| {
            let bits = u8::try_from(least.next_power_of_two().trailing_zeros()).unwrap_or(MAX_NODE_BITS);
            let flag = if is_ipv6(subnet) { "node-cidr-mask-size-ipv6" } else { "node-cidr-mask-size-ipv4" };
            format!(
                "give it a prefix of /{} at most, or give nodes less by controllerManager.extraArgs: {flag}",
                node.saturating_sub(bits)
            )
        };
        let has = format!(
            "{subnet} has room for {nodes} {}, each with a /{node} of it",
            if nodes == 1 { "node" } else { "nodes" }
        );
        if nodes < controllers {
            let message = format!("{has}, and there are {controllers} controllers");
            // A plugin of the user's may have addresses of its own.
            match network.map(|network| network.plugin) {
                Some(Plugin::None) => check.warn(POD_SUBNET, message, remedy(controllers)),
                _ => check.wrong(POD_SUBNET, message, remedy(controllers)),
            }
        } else if nodes == controllers {
            check.warn(POD_SUBNET, format!("{has}: none is left for a worker"), remedy(controllers + 1));
        }
    }
}

/// What is in every kubeconfig leads every machine to the controllers.
pub(super) fn endpoint(check: &mut Check<'_>, path: &str, endpoint: &Endpoint, networking: &Networking, remedy: &str) {
    let remedy = || remedy.to_owned();
    let host = endpoint.host.trim_end_matches('.').to_ascii_lowercase();
    let is_local_name = host == "localhost" || host.ends_with(".localhost");
    // An IPv4 address as IPv6 writes it (`::ffff:127.0.0.1`) is that address.
    let address: Option<IpAddr> = host.parse().ok().map(|address: IpAddr| address.to_canonical());
    if is_local_name || address.is_some_and(|address| address.is_loopback()) {
        // On a controller, this is the self-hosted API server alone, and elsewhere nobody. At another port there may be a
        // proxy; `hoist validate` asks about it.
        if endpoint.port == API_PORT {
            let message = format!(
                "{} is the machine itself, and an API server answers there only on a controller",
                endpoint.host
            );
            check.wrong(path, message, remedy());
        }
        return;
    }
    let Some(address) = address else { return };
    let reason = match address {
        address if address.is_unspecified() => Some("stands for any address"),
        address if address.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(address) if address.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Some("means another machine on each network: it is link-local")
        }
        _ => None,
    };
    if let Some(reason) = reason {
        return check.wrong(path, format!("{address} {reason}"), remedy());
    }
    if matches!(address, IpAddr::V4(address) if address.is_link_local()) {
        check.warn(
            path,
            format!("{address} is link-local: only machines of the same network segment reach it"),
            remedy(),
        );
    }
    let subnets = [(POD_SUBNET, &networking.pod_subnets), (SERVICE_SUBNET, &networking.service_subnets)];
    for (name, subnet) in subnets.iter().flat_map(|(name, nets)| nets.iter().map(move |net| (name, net))) {
        if subnet.contains(&address) {
            let message = format!("{address} lies in {name}, {subnet}, which exists only once the cluster does");
            check.wrong(path, message, remedy());
        }
    }
}

/// The pod subnet is cut into one subnet for each node, as large as the controller manager's flags say.
fn node_subnets(check: &mut Check<'_>, subnet: IpNet, kcm_args: &[Arg]) {
    let node = node_prefix(subnet, kcm_args);
    if subnet.prefix_len() > node {
        let remedy = format!("its prefix must be /{node} at most");
        check.wrong(POD_SUBNET, format!("{subnet} is too small: each node takes a /{node} of it"), remedy);
    } else if node - subnet.prefix_len() > MAX_NODE_BITS {
        let remedy = format!("its prefix must be /{} at least", node - MAX_NODE_BITS);
        check.wrong(POD_SUBNET, format!("{subnet} is too large: each node takes a /{node} of it"), remedy);
    }
}

/// Checks the addresses of `controllers` against one another and the subnets. `None` stands for one that was
/// refused before.
pub(super) fn controllers(check: &mut Check<'_>, controllers: &[Option<Controller>], networking: &Networking) {
    for (i, controller) in controllers.iter().enumerate() {
        let Some(Controller { address, .. }) = controller else { continue };
        let path = child(&item("controllers", i), "address");
        let reason = match address {
            address if address.is_loopback() => Some("is a loopback address"),
            address if address.is_unspecified() => Some("stands for any address"),
            address if address.is_multicast() => Some("is a multicast address"),
            IpAddr::V4(address) if address.is_broadcast() => Some("is the broadcast address"),
            _ => None,
        };
        if let Some(reason) = reason {
            let remedy = "give the address that the other nodes reach this controller at".to_owned();
            check.wrong(&path, format!("{address} {reason}"), remedy);
            continue;
        }
        let same = |other: &Option<Controller>| other.as_ref().is_some_and(|other| other.address == *address);
        if let Some(first) = controllers[..i].iter().position(same) {
            check.wrong(
                &path,
                format!("{address} is the address of {} already", item("controllers", first)),
                "give each its own".to_owned(),
            );
        }
        let subnets = [(POD_SUBNET, &networking.pod_subnets), (SERVICE_SUBNET, &networking.service_subnets)];
        for (name, subnet) in subnets.iter().flat_map(|(name, nets)| nets.iter().map(move |net| (name, net))) {
            if subnet.contains(address) {
                let remedy = "choose another range for the subnet".to_owned();
                check.wrong(&path, format!("{address} lies in {name}, {subnet}"), remedy);
            }
        }
        // The API server insists on it: it advertises this address as the first Service's endpoint.
        if let Some(first) = networking.service_subnets.first()
            && is_ipv6(first) != address.is_ipv6()
        {
            let (this, other) = (family(address.is_ipv6()), family(is_ipv6(first)));
            let remedy = format!("put an {this} subnet first in {SERVICE_SUBNET}, or give an {other} address");
            check.wrong(&path, format!("{address} is {this}, the first service subnet is {other}"), remedy);
        }
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn is_ipv6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

/// Whether there is an IPv4 and an IPv6 subnet.
fn families(nets: &[IpNet]) -> (bool, bool) {
    (nets.iter().any(|net| !is_ipv6(net)), nets.iter().any(is_ipv6))
}

fn families_text(nets: &[IpNet]) -> String {
    nets.iter().map(|net| family(is_ipv6(net))).collect::<Vec<_>>().join(" and ")
}
