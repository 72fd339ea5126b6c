//! Remains of an earlier cluster. Files that this cluster wrote in an earlier run do not count.

use super::Facts;
use crate::base::error::Finding;
use crate::base::input;
use crate::base::yaml;
use crate::desired::node_endpoint;
use crate::desired::pki;
use crate::node::kubelet;
use crate::node::static_pods::StaticPods;
use crate::plane::bridge::Bridge;

const REMOVE: &str =
    "if it is left from an earlier cluster, remove that first (`kubeadm reset`), or move the file away";
/// Interfaces that networks of pods make, and that outlive their pods.
const INTERFACES: [&str; 7] =
    ["cilium_host", "cni0", "flannel.1", "kube-bridge", "kube-ipvs0", "vxlan.calico", "weave"];

pub(super) fn static_pods(facts: &Facts) -> Vec<Finding> {
    let pods = StaticPods::new(facts.host.manifests());
    let names: Vec<_> = Bridge::manifest_names().into_iter().chain([node_endpoint::NAME]).collect();
    pods.foreign(&names).unwrap_or_else(|error| vec![Finding::new("", error.to_string())])
}

/// The CA that the kubelet believes, if it is not this cluster's.
pub(super) fn ca(facts: &Facts) -> Vec<Finding> {
    let path = facts.host.path("/etc/kubernetes/pki/ca.crt");
    let Ok(there) = std::fs::read(&path) else { return Vec::new() };
    if is_ours(facts, &there) {
        return Vec::new();
    }
    vec![Finding::new(path.display().to_string(), "is another cluster's CA").remedy(REMOVE)]
}

/// The kubelet's way into another cluster: it would go there.
pub(super) fn kubelet_kubeconfig(facts: &Facts) -> Vec<Finding> {
    kubeconfig(facts, "kubelet.conf").into_iter().collect()
}

/// kubeadm's kubeconfigs of another cluster: nothing of hoist's reads them, but people and scripts may.
pub(super) fn kubeadms_kubeconfigs(facts: &Facts) -> Vec<Finding> {
    let names = ["admin.conf", "controller-manager.conf", "scheduler.conf", "super-admin.conf"];
    names.into_iter().filter_map(|name| kubeconfig(facts, name)).collect()
}

fn kubeconfig(facts: &Facts, name: &str) -> Option<Finding> {
    let path = facts.host.path("/etc/kubernetes").join(name);
    let text = std::fs::read_to_string(&path).ok()?;
    let place = path.display().to_string();
    let Some(ca) = ca_of(facts, &text) else {
        return Some(Finding::new(place, "is not a kubeconfig that names a CA").remedy(REMOVE));
    };
    (!is_ours(facts, &ca)).then(|| Finding::new(place, "is of a cluster with another CA").remedy(REMOVE))
}

/// The CA certificates that a kubeconfig's first cluster is checked against.
fn ca_of(facts: &Facts, kubeconfig: &str) -> Option<Vec<u8>> {
    let document = yaml::documents("", kubeconfig).ok()?.into_iter().next()?;
    let cluster = document.value.pointer("/clusters/0/cluster")?;
    let text = |field| cluster.get(field).and_then(serde_json::Value::as_str);
    match text("certificate-authority-data") {
        Some(data) => input::base64(data),
        None => std::fs::read(facts.host.path(text("certificate-authority")?)).ok(),
    }
}

/// Whether one of these certificates is among the CA's of this cluster.
fn is_ours(facts: &Facts, pem: &[u8]) -> bool {
    let blocks = |pem: &[u8]| pem::parse_many(pem).unwrap_or_default();
    let ours = facts.assets.tls().remove("ca.crt").map(|ca| blocks(&ca)).unwrap_or_default();
    blocks(pem).iter().any(|there| ours.iter().any(|own| own.contents() == there.contents()))
}

/// A kubelet keeps to the certificate that it has; `start` replaces one that has expired, or is none.
pub(super) fn kubelet_certificate(facts: &Facts) -> Vec<Finding> {
    if !kubelet::has_certificate(&facts.host, facts.now) {
        return Vec::new();
    }
    let path = facts.host.kubelet_certificate();
    let Ok(pem) = std::fs::read(&path) else { return Vec::new() };
    let ca = facts.assets.tls().remove("ca.crt").unwrap_or_default();
    let Err(reason) = pki::vouches_for_client(&ca, &pem, facts.now) else { return Vec::new() };
    let message = format!("the API server would not let this kubelet in: {reason}");
    let remedy = format!(
        "`rm {} {}` makes room for one of this cluster",
        path.display(),
        facts.host.kubelet_kubeconfig().display()
    );
    vec![Finding::new(path.display().to_string(), message).remedy(remedy)]
}

/// Addresses and interfaces of pods that are no more. A node of this cluster may have them.
pub(super) fn pod_network(facts: &Facts) -> Vec<Finding> {
    if kubelet::has_certificate(&facts.host, facts.now) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for network in names_in(facts, "/var/lib/cni/networks") {
        let folder = format!("/var/lib/cni/networks/{network}");
        // last_reserved_ip.0 and lock stay for ever; the others bear the address of a pod.
        let addresses = names_in(facts, &folder).into_iter().filter(|name| name.parse::<std::net::IpAddr>().is_ok());
        let count = addresses.count();
        if count > 0 {
            let message = format!("keeps {count} addresses for pods of an earlier cluster");
            findings.push(Finding::new(&folder, message).remedy(format!("`rm -r {folder}` frees them")));
        }
    }
    for name in names_in(facts, "/sys/class/net").into_iter().filter(|name| INTERFACES.contains(&name.as_str())) {
        let remedy = format!("`ip link delete {name}`, if no network plugin still uses it");
        findings
            .push(Finding::new("", format!("the interface {name} is left from an earlier pod network")).remedy(remedy));
    }
    findings
}

fn names_in(facts: &Facts, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(facts.host.path(folder)).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::super::testing::{Machine, now, said, tls};
    use super::*;
    use crate::desired::assets::AssetSet;

    fn text(assets: &AssetSet, path: &str) -> String {
        assets.text(path).unwrap()
    }

    fn with_ca(ca: &str) -> String {
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ca);
        format!("kind: Config\nclusters:\n- name: k\n  cluster: {{certificate-authority-data: {data}}}\n")
    }

    /// A machine on which a kubelet of `assets` has run.
    fn joined(assets: &AssetSet) -> Machine {
        let machine = Machine::new();
        machine.put("/etc/kubernetes/pki/ca.crt", text(assets, "tls/ca.crt"));
        machine.put("/etc/kubernetes/kubelet.conf", with_ca(&text(assets, "tls/ca.crt")));
        // Any client certificate of the CA, with its key behind it, as the kubelet keeps them.
        let (crt, key) = (text(assets, "tls/kube-scheduler.crt"), text(assets, "tls/kube-scheduler.key"));
        machine.put("/var/lib/kubelet/pki/kubelet-client-current.pem", crt + &key);
        machine
    }

    #[test]
    fn what_is_of_this_cluster_is_no_leftover() {
        let machine = joined(&tls(now()));
        let mut facts = machine.facts("");
        facts.assets = tls(now());
        // Keys are random: this is another cluster's.
        let checks = [ca, kubelet_kubeconfig, kubelet_certificate];
        assert_eq!(checks.map(|check| check(&facts).len()), [1, 1, 1]);
        assert!(kubelet_certificate(&facts)[0].message.ends_with("let this kubelet in: another CA has issued it"));

        let own = tls(now());
        let machine = joined(&own);
        let mut facts = machine.facts("");
        facts.assets = own.clone();
        assert_eq!(checks.map(|check| check(&facts).len()), [0, 0, 0]);
        let by_file = "clusters:\n- {name: k, cluster: {certificate-authority: /etc/kubernetes/pki/ca.crt}}\n";
        machine.put("/etc/kubernetes/kubelet.conf", by_file);
        assert!(kubelet_kubeconfig(&facts).is_empty());
        machine.put("/etc/kubernetes/kubelet.conf", "kind: Config\n");
        assert!(said(&kubelet_kubeconfig(&facts))[0].ends_with("is not a kubeconfig that names a CA"));
        facts.now = now() + Duration::days(400);
        assert!(kubelet_certificate(&facts).is_empty(), "start replaces one that has expired");
        facts.now = now() - Duration::days(400);
        assert!(kubelet_certificate(&facts)[0].message.ends_with(": it is not valid yet"));
        machine.put("/var/lib/kubelet/pki/kubelet-client-current.pem", "");
        assert!(kubelet_certificate(&facts).is_empty(), "and one that is none");

        let empty = Machine::new();
        let facts = empty.facts("");
        assert_eq!(checks.map(|check| check(&facts).len()), [0, 0, 0]);
    }

    #[test]
    fn kubeconfigs_of_kubeadm() {
        let machine = Machine::new();
        let mut facts = machine.facts("");
        facts.assets = tls(now());
        machine.put("/etc/kubernetes/admin.conf", with_ca(&text(&facts.assets, "tls/ca.crt")));
        assert!(kubeadms_kubeconfigs(&facts).is_empty());
        machine.put("/etc/kubernetes/scheduler.conf", with_ca(&text(&tls(now()), "tls/ca.crt")));
        let found = kubeadms_kubeconfigs(&facts);
        assert!(found.len() == 1 && found[0].place.ends_with("scheduler.conf"), "{found:?}");
    }

    #[test]
    fn the_network_of_pods_that_are_no_more() {
        let machine = Machine::new();
        machine.put("/var/lib/cni/networks/pods/last_reserved_ip.0", "10.244.0.3");
        machine.put("/sys/class/net/eth0/mtu", "");
        assert!(pod_network(&machine.facts("")).is_empty());
        machine.put("/var/lib/cni/networks/pods/10.244.0.2", "");
        machine.put("/sys/class/net/cni0/mtu", "");
        let found = said(&pod_network(&machine.facts("")));
        assert_eq!(found[0], "/var/lib/cni/networks/pods: keeps 1 addresses for pods of an earlier cluster");
        assert_eq!(found[1], ": the interface cni0 is left from an earlier pod network");

        machine.put("/etc/kubernetes/kubelet.conf", "");
        machine.put("/var/lib/kubelet/pki/kubelet-client-current.pem", text(&tls(now()), "tls/kube-scheduler.crt"));
        assert!(pod_network(&machine.facts("")).is_empty(), "the pods are of this cluster");
    }
}
