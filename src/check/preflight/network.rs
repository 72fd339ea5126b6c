//! Ports, names, and the kernel settings that pod networks need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::process::Command;

use super::Facts;
use crate::base::error::Finding;
use crate::desired::config::Etcd;
use crate::desired::node_endpoint;
use crate::node::processes;

/// How long a name may take to resolve; a name server that is away costs 5 s.
const NAME_LIMIT: Duration = Duration::from_millis(600);
/// How often it is asked who holds a port, and how long after one another: a process that is ending shows no files any
/// more, and holds its port for a moment yet.
const LOOKS: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// A port of a controller that a program of somebody else's holds. `own` may hold it: names as /proc has them, of at
/// most 15 letters.
pub(super) fn port(facts: &Facts, port: u16, own: &[&str]) -> Vec<Finding> {
    let address = facts.controller.address;
    let loopback: IpAddr = if address.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    for _ in 0..LOOKS {
        let taken =
            [address, loopback].into_iter().find(|host| !facts.host.world().is_free(SocketAddr::new(*host, port)));
        let Some(host) = taken else { return Vec::new() };
        if let Some((name, pid)) = processes::listener(&facts.host.path("/proc"), host, port) {
            return held(port, own, Some((&name, &pid))).into_iter().collect();
        }
        std::thread::sleep(PAUSE);
    }
    held(port, own, None).into_iter().collect()
}

/// The same of etcd's, where this machine has one.
pub(super) fn etcd_port(facts: &Facts, number: u16) -> Vec<Finding> {
    match facts.cluster.etcd {
        Etcd::Local { .. } => port(facts, number, &["etcd"]),
        Etcd::External { .. } => Vec::new(),
    }
}

/// The same of the node's endpoint, where nodes have one.
pub(super) fn endpoint_port(facts: &Facts) -> Vec<Finding> {
    match node_endpoint::address(&facts.assets, &facts.cluster) {
        Some(address) => port(facts, address.port(), &["hoist"]),
        None => Vec::new(),
    }
}

fn held(port: u16, own: &[&str], holder: Option<(&str, &str)>) -> Option<Finding> {
    let by = match holder {
        Some((name, _)) if own.contains(&name) => return None,
        Some((name, pid)) => format!("{name} (pid {pid})"),
        None => "another process".to_owned(),
    };
    let finding = Finding::new("", format!("port {port} is held by {by}"));
    Some(finding.remedy(format!("stop it; `ss -ltnp sport = :{port}` shows it")))
}

/// A switch of the kernel's that must be 1. One that is not there belongs to a module that is not loaded.
pub(super) fn sysctl(facts: &Facts, path: &str) -> Vec<Finding> {
    let value = facts.read(path);
    if value.is_empty() || value.trim() == "1" {
        return Vec::new();
    }
    let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
    let message = format!("is {}, and pod networks need 1", value.trim());
    let remedy = format!(
        "`sysctl -w {name}=1`, and a file in /etc/sysctl.d for the next boot, unless your network plugin does it"
    );
    vec![Finding::new(path, message).remedy(remedy)]
}

pub(super) fn ipv4_forward(facts: &Facts) -> Vec<Finding> {
    if is_used(facts, IpAddr::is_ipv4) { sysctl(facts, "/proc/sys/net/ipv4/ip_forward") } else { Vec::new() }
}

pub(super) fn ipv6_forward(facts: &Facts) -> Vec<Finding> {
    if is_used(facts, IpAddr::is_ipv6) {
        sysctl(facts, "/proc/sys/net/ipv6/conf/default/forwarding")
    } else {
        Vec::new()
    }
}

/// Whether pods or Services have addresses of a family.
fn is_used(facts: &Facts, family: fn(&IpAddr) -> bool) -> bool {
    let networking = &facts.cluster.networking;
    networking.pod_subnets.iter().chain(&networking.service_subnets).any(|subnet| family(&subnet.network()))
}

/// overlay, the file system of containers.
pub(super) fn overlay(facts: &Facts) -> Vec<Finding> {
    let known = facts.read("/proc/filesystems");
    if known.is_empty() || known.lines().any(|line| line.trim_end().ends_with("overlay")) {
        return Vec::new();
    }
    vec![module("overlay", "container runtimes stack the layers of images with it")]
}

/// br_netfilter, which shows bridged packets to iptables.
pub(super) fn br_netfilter(facts: &Facts) -> Vec<Finding> {
    if facts.host.path("/proc/sys/net/bridge").is_dir() {
        return Vec::new();
    }
    vec![module("br_netfilter", "without it, packets between pods of one bridge bypass Services")]
}

fn module(name: &str, why: &str) -> Finding {
    let remedy = format!(
        "`modprobe {name}`, and a file in /etc/modules-load.d for the next boot, unless your network or runtime does not need it"
    );
    Finding::new("", format!("the kernel module {name} is not loaded: {why}")).remedy(remedy)
}

/// The machine's name, and whether the Node's can be resolved here.
pub(super) async fn hostname(facts: &Facts) -> Vec<Finding> {
    let (node, own) = (&facts.controller.name, facts.read("/proc/sys/kernel/hostname"));
    let mut findings: Vec<_> = other_name(own.trim(), node).into_iter().collect();
    let problem = match resolve(node).await {
        Some(addresses) if !addresses.is_empty() => None,
        Some(_) => Some(format!("this machine does not resolve the name {node}")),
        None => Some(format!("the name {node} was not resolved within {} ms", NAME_LIMIT.as_millis())),
    };
    let remedy = format!("add a line to /etc/hosts: {} {node}", facts.controller.address);
    findings.extend(problem.map(|problem| Finding::new("", problem).remedy(remedy)));
    findings
}

fn other_name(own: &str, node: &str) -> Option<Finding> {
    // A machine may know itself by its full name, and its Node by the first part of that.
    let same = own.is_empty() || own == node || own.split('.').next() == node.split('.').next();
    let message = format!("this machine's name is {own}, and its Node's name is {node}");
    (!same).then(|| {
        Finding::new("", message).remedy(format!("`hostnamectl set-hostname {node}`, unless that is intended"))
    })
}

/// The addresses of a name, as programs of this machine see them; `None` when there was no answer in time.
///
/// Not by a call of our own: a static binary does not do what the machine's nsswitch.conf says.
pub(super) async fn resolve(name: &str) -> Option<Vec<IpAddr>> {
    let run = Command::new("getent").args(["ahosts", name]).kill_on_drop(true).output();
    let output = tokio::time::timeout(NAME_LIMIT, run).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect())
}

/// A proxy between this machine and its own API. hoist goes past it; kubectl, and whatever has the same environment, would
/// not.
pub(super) fn proxy(facts: &Facts) -> Vec<Finding> {
    let [Some(proxy), exceptions] = &facts.proxy else { return Vec::new() };
    let exceptions = exceptions.as_deref().unwrap_or_default();
    let networking = &facts.cluster.networking;
    let services = networking.service_subnets.iter().chain(&networking.pod_subnets).map(|subnet| subnet.network());
    let through: Vec<_> = std::iter::once(facts.controller.address)
        .chain(services)
        .filter(|address| !exceptions.split(',').any(|exception| covers(exception.trim(), *address)))
        .map(|address| address.to_string())
        .collect();
    if through.is_empty() {
        return Vec::new();
    }
    let message = format!("HTTPS_PROXY is {proxy}, and connections to {} would go through it", through.join(", "));
    let remedy = "add the controllers' addresses and the subnets of pods and Services to NO_PROXY, here and for the kubelet and the runtime";
    vec![Finding::new("", message).remedy(remedy)]
}

/// Whether an entry of NO_PROXY is about this address.
fn covers(exception: &str, address: IpAddr) -> bool {
    exception == "*"
        || exception.parse() == Ok(address)
        || exception.parse::<ipnet::IpNet>().is_ok_and(|subnet| subnet.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Machine, said};
    use super::*;
    use crate::node::system;

    #[test]
    fn a_port_may_be_held_by_hoists_own() {
        assert_eq!(held(6443, &["kube-apiserver", "hoist"], Some(("hoist", "7"))), None);
        let found = held(6443, &["kube-apiserver"], Some(("nginx", "7"))).unwrap();
        assert_eq!(
            found.to_string(),
            ": port 6443 is held by nginx (pid 7)\n    stop it; `ss -ltnp sport = :6443` shows it"
        );
        assert_eq!(said(&[held(1, &[], None).unwrap()]), [": port 1 is held by another process"]);
    }

    #[test]
    fn a_port_that_somebody_listens_at() {
        let mut facts = Machine::new().facts("");
        facts.host = system::host("/".as_ref(), "/etc/kubernetes/manifests".as_ref());
        facts.controller.address = Ipv4Addr::LOCALHOST.into();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        let found = port(&facts, number, &["etcd"]);
        assert!(found[0].message.contains(&format!("(pid {})", std::process::id())), "{found:?}");
        drop(listener);
        assert!(port(&facts, number, &["etcd"]).is_empty());
    }

    #[test]
    fn a_port_that_is_given_up_while_nobody_is_found_to_hold_it() {
        let machine = Machine::new();
        let mut facts = machine.facts("");
        facts.controller.address = Ipv4Addr::LOCALHOST.into();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        assert_eq!(port(&facts, number, &[])[0].message, format!("port {number} is held by another process"));
        let ends = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 5);
            drop(listener);
        });
        assert_eq!(port(&facts, number, &[]), []);
        ends.join().unwrap();
    }

    #[test]
    fn switches_of_the_kernel() {
        let machine = Machine::new();
        let mut facts = machine.facts("");
        assert!(ipv4_forward(&facts).is_empty(), "there is no such switch");
        machine.put("/proc/sys/net/ipv4/ip_forward", "0\n");
        machine.put("/proc/sys/net/ipv6/conf/default/forwarding", "0\n");
        let found = ipv4_forward(&facts);
        assert_eq!(said(&found), ["/proc/sys/net/ipv4/ip_forward: is 0, and pod networks need 1"]);
        assert!(found[0].remedy.as_ref().unwrap().starts_with("`sysctl -w net.ipv4.ip_forward=1`"));
        assert!(ipv6_forward(&facts).is_empty(), "nobody has such an address");
        facts.cluster.networking.pod_subnets.push("fd00::/48".parse().unwrap());
        assert_eq!(ipv6_forward(&facts).len(), 1);
        machine.put("/proc/sys/net/ipv4/ip_forward", "1\n");
        assert!(ipv4_forward(&facts).is_empty());
    }

    #[test]
    fn a_proxy_must_leave_the_cluster_alone() {
        let mut facts = Machine::new().facts("");
        let mut found = |via: Option<&str>, exceptions: Option<&str>| {
            facts.proxy = [via.map(str::to_owned), exceptions.map(str::to_owned)];
            said(&proxy(&facts))
        };
        assert!(found(None, None).is_empty());
        let through =
            |addresses| [format!(": HTTPS_PROXY is http://p, and connections to {addresses} would go through it")];
        assert_eq!(found(Some("http://p"), None), through("192.0.2.10, 10.96.0.0, 10.244.0.0"));
        assert_eq!(found(Some("http://p"), Some("localhost, 10.0.0.0/8")), through("192.0.2.10"));
        assert!(found(Some("http://p"), Some("192.0.2.10,10.96.0.0/12,10.244.0.0/16")).is_empty());
        assert!(found(Some("http://p"), Some("*")).is_empty());
    }

    #[test]
    fn modules_of_the_kernel() {
        let machine = Machine::new();
        machine.put("/proc/filesystems", "nodev\ttmpfs\n\text4\n");
        assert_eq!((overlay(&machine.facts("")).len(), br_netfilter(&machine.facts("")).len()), (1, 1));
        machine.put("/proc/filesystems", "nodev\ttmpfs\nnodev\toverlay\n");
        machine.put("/proc/sys/net/bridge/bridge-nf-call-iptables", "1\n");
        assert!(overlay(&machine.facts("")).is_empty() && br_netfilter(&machine.facts("")).is_empty());
    }

    #[tokio::test]
    async fn names() {
        for (own, node) in [("c1", "c1"), ("c1.example.com", "c1"), ("c1", "c1.example.com"), ("", "c1")] {
            assert_eq!(other_name(own, node), None, "{own} {node}");
        }
        assert_eq!(
            said(&[other_name("c2", "c1").unwrap()]),
            [": this machine's name is c2, and its Node's name is c1"]
        );
        assert!(!resolve("127.0.0.1").await.unwrap().is_empty());
    }
}
