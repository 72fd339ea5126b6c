//! Cluster DNS: the number of servers, their upstreams, and the cache of each node.

use std::net::{IpAddr, SocketAddr};

use super::check::Check;
use super::{Networking, defaults, nth, raw};
use crate::base::yaml::{child, item};

/// Cluster DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// hoist brings CoreDNS; otherwise cluster DNS is the user's to bring, at the same address.
    pub has_coredns: bool,
    /// Whom CoreDNS asks for names outside of the cluster, as `address` or `address:port`; nobody, where the list is empty;
    /// the name servers of the node's resolv.conf, where there is none.
    pub upstreams: Option<Vec<String>>,
    /// How many replicas of CoreDNS there are.
    pub autoscaler: Autoscaler,
    /// The address of the cache on each node beside the DNS Service's own; `None`: there is no cache.
    pub node_local: Option<IpAddr>,
}

/// One replica for so many nodes, or so many cores of them, whichever asks for more: the "linear" rule of the
/// cluster-proportional-autoscaler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autoscaler {
    /// The fewest.
    pub min: u32,
    /// Nodes for each replica.
    pub nodes_per_replica: u32,
    /// Cores for each replica.
    pub cores_per_replica: u32,
}

impl Autoscaler {
    /// How many replicas a cluster of so many nodes, with so many cores in all, has.
    pub fn replicas(&self, nodes: u32, cores: u32) -> u32 {
        nodes.div_ceil(self.nodes_per_replica.max(1)).max(cores.div_ceil(self.cores_per_replica.max(1))).max(self.min)
    }
}

/// Two, so that one may fail; the rest as in Kubernetes' own manifest of the autoscaler.
const AUTOSCALER: Autoscaler = Autoscaler { min: 2, nodes_per_replica: 16, cores_per_replica: 256 };

/// What brings cluster DNS.
pub(super) const COREDNS: &str = "coredns";
/// Nothing of hoist's.
pub(super) const NONE: &str = "none";

pub(super) fn dns(check: &mut Check<'_>, raw: Option<&raw::Dns>, networking: &Networking) -> Dns {
    let none = raw::Dns::default();
    let raw = raw.unwrap_or(&none);
    let upstreams = raw.upstreams.clone();
    for (i, upstream) in upstreams.iter().flatten().enumerate() {
        let is_address = upstream.parse::<IpAddr>().is_ok() || upstream.parse::<SocketAddr>().is_ok();
        let result = if is_address { Ok(()) } else { Err("is not an address, or address and port".to_owned()) };
        check.value(&item("dns.upstreams", i), upstream, result, "192.0.2.53 or 192.0.2.53:5353");
    }
    let node_local = node_local(check, raw.node_local.as_deref(), networking);
    let plugin = raw.plugin.as_deref().unwrap_or(COREDNS);
    for (i, upstream) in upstreams.iter().flatten().enumerate().filter(|_| plugin == COREDNS) {
        self::upstream(check, &item("dns.upstreams", i), upstream, node_local, networking);
    }
    if ![COREDNS, NONE].contains(&plugin) {
        check.wrong("dns.plugin", format!("`{plugin}` is not known"), format!("known: {COREDNS}, {NONE}"));
    }
    Dns {
        has_coredns: plugin == COREDNS,
        upstreams,
        autoscaler: autoscaler(check, raw.autoscaler.as_deref()),
        node_local,
    }
}

/// Who is asked for what cluster DNS does not know is not cluster DNS.
fn upstream(check: &mut Check<'_>, path: &str, text: &str, node_local: Option<IpAddr>, networking: &Networking) {
    const OTHER: &str = "name the servers that your machines ask, or leave dns.upstreams out: then they are those of each node's resolv.conf";
    let with_port = text.parse::<SocketAddr>().ok();
    let Some(address) = text.parse().ok().or(with_port.map(|address| address.ip())) else { return };
    let port = with_port.map_or(53, |address| address.port());
    let own = |n| networking.service_subnets.iter().any(|net| nth(net, n) == Some(address));
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let wrong = match address {
        _ if own(10) || own(11) => Some("is cluster DNS itself, which would ask itself"),
        _ if node_local == Some(address) => Some("is the cache of each node, which would ask itself"),
        _ if own(1) => Some("is the API's address, where no DNS answers"),
        _ if address.is_unspecified() || address.is_multicast() || is_broadcast => Some("is the address of no server"),
        _ if address.is_loopback() && port == 53 && node_local.is_none() => {
            Some("is each pod of CoreDNS itself, which would ask itself")
        }
        _ => None,
    };
    if let Some(why) = wrong {
        check.wrong(path, format!("{text} {why}"), OTHER.to_owned());
    } else if let Some(net) = networking.service_subnets.iter().find(|net| net.contains(&address)) {
        let message =
            format!("{text} lies in the service subnet {net}: no other name resolves until that Service is there");
        check.warn(path, message, OTHER.to_owned());
    } else if let Some(net) = networking.pod_subnets.iter().find(|net| net.contains(&address)) {
        let message = format!("{text} lies in the pod subnet {net}: no other name resolves until that pod is there");
        check.warn(path, message, OTHER.to_owned());
    } else if address.is_loopback() {
        check.warn(path, format!("{text} is each pod of CoreDNS itself, where nothing else answers"), OTHER.to_owned());
    }
}

fn autoscaler(check: &mut Check<'_>, raw: Option<&raw::Autoscaler>) -> Autoscaler {
    let none = raw::Autoscaler::default();
    let raw = raw.unwrap_or(&none);
    let mut number = |name: &str, value: Option<u64>, default: u32| {
        let Some(value) = value else { return default };
        let result = u32::try_from(value).ok().filter(|n| (1..=100_000).contains(n));
        let result = result.ok_or_else(|| "is not between 1 and 100000".to_owned());
        check.value(&child("dns.autoscaler", name), &value.to_string(), result, &default.to_string()).unwrap_or(default)
    };
    Autoscaler {
        min: number("min", raw.min, AUTOSCALER.min),
        nodes_per_replica: number("nodesPerReplica", raw.nodes_per_replica, AUTOSCALER.nodes_per_replica),
        cores_per_replica: number("coresPerReplica", raw.cores_per_replica, AUTOSCALER.cores_per_replica),
    }
}

/// The cache's address is of the family of the DNS Service's, and nobody else's.
fn node_local(check: &mut Check<'_>, raw: Option<&raw::NodeLocal>, networking: &Networking) -> Option<IpAddr> {
    const PATH: &str = "dns.nodeLocal.address";
    let is_ipv6 = networking.service_subnets.first().is_some_and(|net| net.addr().is_ipv6());
    let default = defaults::NODE_LOCAL_DNS[usize::from(is_ipv6)];
    let raw_address = raw.and_then(|raw| raw.address.as_deref());
    let address = match raw_address {
        None => default,
        Some(text) => {
            let parsed = text.parse().map_err(|_| "is not an IP address".to_owned());
            check.value(PATH, text, parsed, &default.to_string()).unwrap_or(default)
        }
    };
    let example = format!("an address of the nodes' own like {default}");
    if address.is_ipv6() != is_ipv6 {
        let family = if is_ipv6 { "IPv6" } else { "IPv4" };
        let message = format!("{address} is not of the family of the service subnet, {family}");
        check.wrong(PATH, message, format!("give {example}"));
    }
    let nets = networking.pod_subnets.iter().chain(&networking.service_subnets);
    if let Some(net) = nets.into_iter().find(|net| net.contains(&address)) {
        check.wrong(PATH, format!("{address} lies in {net}, from which others get theirs"), format!("give {example}"));
    }
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        check.wrong(PATH, format!("{address} is not an address that pods can ask"), format!("give {example}"));
    }
    raw.and_then(|raw| raw.enabled).unwrap_or(true).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::AUTOSCALER;

    #[test]
    fn replicas_follow_whichever_asks_for_more() {
        let table = [(1, 2, 2), (32, 64, 2), (33, 64, 3), (3, 768, 3), (3, 769, 4), (5000, 20_000, 313), (0, 0, 2)];
        for (nodes, cores, replicas) in table {
            assert_eq!(AUTOSCALER.replicas(nodes, cores), replicas, "{nodes} nodes, {cores} cores");
        }
    }
}
