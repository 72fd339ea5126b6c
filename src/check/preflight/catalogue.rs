//! Every check, in display order. Users type the names, so the names are stable; they are kubeadm's if kubeadm has
//! the check.

use Severity::{Error, Warning};

use super::{
    Check, clock, cni, disk, drop_ins, etcd, firewall, kubelet, leftovers, machine, members, network, runtime,
    virtual_address,
};
use crate::base::error::Severity;

/// In the place of a name: every check.
pub const ALL: &str = "all";

/// All of them.
pub const CHECKS: &[Check] = &[
    Check::reads("IsPrivilegedUser", "hoist runs as root", Error, machine::root),
    Check::reads("NumCPU", "there are at least 2 processors", Error, machine::processors),
    Check::reads("Mem", "there are at least 1700 MB of memory", Error, machine::memory),
    Check::reads("Swap", "swap is off, or the kubelet may run with it", Error, machine::swap),
    Check::reads("SystemVerification", "the machine has the cgroups that the kubelet needs", Error, machine::cgroups),
    Check::reads("Clock", "the clock is within the validity of every certificate", Error, clock::clock),
    Check::reads("DiskSpace", "there is room for etcd, images, volumes and logs", Error, disk::space),
    Check::reads("DirWritable", "hoist can write to its folders", Error, disk::writable),
    Check::reads("DirExecutable", "hoist's binary can be run at its place", Warning, disk::executable),
    Check::reads("StaticBinary", "hoist's binary runs in an image without libraries", Error, machine::own_binary),
    Check::reads("SELinux", "SELinux enforces nothing", Warning, machine::selinux),
    Check::asks("Hostname", "the Node's name is this machine's name, and resolves", Warning, |facts| {
        Box::pin(network::hostname(facts))
    }),
    Check::asks("Service-Kubelet", "systemd can run a kubelet", Error, |facts| Box::pin(kubelet::service(facts))),
    Check::reads("KubeletCommand", "systemd runs the kubelet as hoist says", Error, drop_ins::command),
    Check::asks("KubeletVersion", "the kubelet's version fits the API server's", Error, |facts| {
        Box::pin(kubelet::version(facts))
    }),
    Check::asks("CRI", "a container runtime answers", Error, |facts| Box::pin(runtime::answers(facts))),
    Check::asks("ContainerRuntimeVersion", "the runtime tells the kubelet its cgroup driver", Warning, |facts| {
        Box::pin(runtime::tells_its_driver(facts))
    }),
    Check::asks("CgroupDriver", "the kubelet and the runtime have one cgroup driver", Error, |facts| {
        Box::pin(runtime::driver(facts))
    }),
    Check::asks("CNIPlugins", "flannel finds the CNI plugins that it works with", Error, |facts| {
        Box::pin(cni::plugins(facts))
    }),
    Check::asks("CNIConfiguration", "the runtime takes flannel's configuration first", Warning, |facts| {
        Box::pin(cni::configuration(facts))
    }),
    Check::reads("Port-2379", "etcd can listen for clients", Error, |facts| network::etcd_port(facts, 2379)),
    Check::reads("Port-2380", "etcd can listen for its peers", Error, |facts| network::etcd_port(facts, 2380)),
    Check::reads("Port-2381", "etcd can listen for its probes", Error, |facts| network::etcd_port(facts, 2381)),
    Check::reads("Port-6443", "the API server and the forwarder can listen", Error, |facts| {
        network::port(facts, 6443, &["kube-apiserver", "hoist"])
    }),
    Check::reads("Port-6444", "the bridge's API server can listen", Error, |facts| {
        network::port(facts, 6444, &["kube-apiserver"])
    }),
    Check::reads("Port-7443", "the endpoint of this node can listen", Error, network::endpoint_port),
    Check::reads("Port-10250", "the kubelet can listen", Error, |facts| network::port(facts, 10250, &["kubelet"])),
    Check::reads("Port-10257", "the controller manager can listen", Error, |facts| {
        network::port(facts, 10257, &["kube-controller"])
    }),
    Check::reads("Port-10259", "the scheduler can listen", Error, |facts| {
        network::port(facts, 10259, &["kube-scheduler"])
    }),
    Check::reads("Port-10267", "the bridge's controller manager can listen", Error, |facts| {
        network::port(facts, 10267, &["kube-controller"])
    }),
    Check::reads("Port-10269", "the bridge's scheduler can listen", Error, |facts| {
        network::port(facts, 10269, &["kube-scheduler"])
    }),
    Check::reads(
        "FileAvailable--etc-kubernetes-manifests",
        "no other control plane's static pods are there",
        Error,
        leftovers::static_pods,
    ),
    Check::reads("FileAvailable--etc-kubernetes-pki-ca.crt", "no other cluster's CA is there", Error, leftovers::ca),
    Check::reads(
        "FileAvailable--etc-kubernetes-kubelet.conf",
        "the kubelet belongs to no other cluster",
        Error,
        leftovers::kubelet_kubeconfig,
    ),
    Check::reads(
        "KubeletClientCertificate",
        "the kubelet's certificate, if it has one, is this cluster's",
        Error,
        leftovers::kubelet_certificate,
    ),
    Check::asks(
        "DirAvailable--var-lib-etcd",
        "the folder of etcd's data holds this cluster's data, if it has begun, and no other's",
        Error,
        |facts| Box::pin(members::data(facts)),
    ),
    Check::reads("Keepalived", "keepalived has the virtual address", Warning, virtual_address::keepalived),
    Check::asks("ExternalEtcdVersion", "an external etcd answers, and is new enough", Error, |facts| {
        Box::pin(etcd::external(facts))
    }),
    Check::asks("EtcdMembers", "etcd, where it is up already, has a member for this machine", Error, |facts| {
        Box::pin(members::has_one(facts))
    }),
    Check::reads(
        "FileAvailable--etc-kubernetes-admin.conf",
        "no other cluster's kubeconfigs are there",
        Warning,
        leftovers::kubeadms_kubeconfigs,
    ),
    Check::reads("PodNetworkLeftovers", "nothing is left of an earlier pod network", Warning, leftovers::pod_network),
    Check::reads("FileExisting-mount", "the kubelet can mount volumes", Error, |facts| {
        machine::program(facts, "mount", "the kubelet mounts every Secret with it")
    }),
    Check::reads("FileExisting-losetup", "the kubelet can serve block volumes", Warning, |facts| {
        machine::program(facts, "losetup", "the kubelet serves block volumes with it")
    }),
    Check::reads("FileExisting-ip", "network plugins have ip", Warning, |facts| {
        machine::program(facts, "ip", "network plugins use it")
    }),
    Check::reads("FileExisting-iptables", "network plugins have iptables", Warning, |facts| {
        machine::program(facts, "iptables", "the plugins portmap and bridge, and many networks, use it")
    }),
    Check::reads("FileExisting-conntrack", "network plugins have conntrack", Warning, |facts| {
        machine::program(facts, "conntrack", "kube-proxy before 1.32 and many networks use it")
    }),
    Check::reads("FileExisting-nsenter", "storage plugins have nsenter", Warning, |facts| {
        machine::program(facts, "nsenter", "many storage plugins use it")
    }),
    Check::reads("KernelModule-overlay", "the kernel has overlay", Warning, network::overlay),
    Check::reads(
        "KernelModule-br_netfilter",
        "the kernel shows bridged packets to iptables",
        Warning,
        network::br_netfilter,
    ),
    Check::reads(
        "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables",
        "iptables sees bridged packets",
        Warning,
        |facts| network::sysctl(facts, "/proc/sys/net/bridge/bridge-nf-call-iptables"),
    ),
    Check::reads(
        "FileContent--proc-sys-net-ipv4-ip_forward",
        "IPv4 packets are forwarded, if pods have IPv4 addresses",
        Warning,
        network::ipv4_forward,
    ),
    Check::reads(
        "FileContent--proc-sys-net-ipv6-conf-default-forwarding",
        "IPv6 packets are forwarded, if pods have IPv6 addresses",
        Warning,
        network::ipv6_forward,
    ),
    Check::reads("HTTPProxy", "no proxy stands between this machine and its cluster", Warning, network::proxy),
    Check::asks("Firewalld", "firewalld does not run", Warning, |facts| Box::pin(firewall::firewalld(facts))),
    Check::asks("FirewallForward", "no firewall drops what pods send to each other", Warning, |facts| {
        Box::pin(firewall::forward(facts))
    }),
    Check::asks("FirewallInput", "no firewall blocks other machines", Warning, |facts| {
        Box::pin(firewall::input(facts))
    }),
];

/// A name that is this much like another (Jaro and Winkler's measure) may be meant by it.
const NEAR: f64 = 0.8;

/// The check that a user means, whatever its case, as kubeadm takes it.
///
/// # Errors
/// A name that none has, with the nearest.
pub fn known(name: &str) -> Result<&'static str, String> {
    let mut names = CHECKS.iter().map(|check| check.name);
    if let Some(found) = names.clone().find(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(found);
    }
    let likeness = |known: &&str| strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase());
    let nearest = names.by_ref().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default();
    let is_near = likeness(&nearest) > NEAR;
    let meant = if is_near { format!("; did you mean {nearest}?") } else { ".".to_owned() };
    Err(format!("there is no such check{meant} `hoist preflight --list` shows all"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Scripts have them in their command lines.
    #[test]
    fn names_are_what_they_were() {
        insta::assert_snapshot!(CHECKS.iter().map(|check| check.name).collect::<Vec<_>>().join("\n"));
        let distinct: BTreeSet<_> = CHECKS.iter().map(|check| check.name.to_lowercase()).collect();
        assert_eq!(distinct.len(), CHECKS.len());
        assert!(!distinct.contains(ALL));
    }

    #[test]
    fn a_name_is_found_in_any_case_and_the_nearest_is_named() {
        assert_eq!(known("swap"), Ok("Swap"));
        assert_eq!(known("Port-6443"), Ok("Port-6443"));
        for (typed, meant) in
            [("Swp", "Swap"), ("port6443", "Port-6443"), ("numcpus", "NumCPU"), ("Hostnam", "Hostname")]
        {
            assert!(known(typed).unwrap_err().contains(&format!("did you mean {meant}?")), "{:?}", known(typed));
        }
        assert_eq!(known("Foo").unwrap_err(), "there is no such check. `hoist preflight --list` shows all");
    }
}
