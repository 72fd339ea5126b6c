//! The CNI plugins that flannel works with, and whether the runtime looks for them in the same place.

use super::{Facts, runtime};
use crate::config::Plugin;
use crate::error::Finding;

/// Those that flannel hands a pod on to, its configuration names, and every runtime calls.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

pub(super) async fn plugins(facts: &Facts) -> Vec<Finding> {
    if facts.cluster.network.plugin == Plugin::None {
        return Vec::new();
    }
    let folders = runtime::cni_bin_dirs(facts).await;
    if let Some(elsewhere) = elsewhere(facts, &folders) {
        return vec![elsewhere];
    }
    missing(facts).into_iter().collect()
}

/// The runtime would not find what flannel puts into its folder.
fn elsewhere(facts: &Facts, folders: &[String]) -> Option<Finding> {
    let folder = &facts.cluster.network.cni_bin_dir;
    let same = |other: &String| other.trim_end_matches('/') == folder;
    let first = folders.first().filter(|_| !folders.iter().any(same))?;
    let message = format!(
        "the container runtime looks for CNI plugins in {}, and flannel's is put into {folder}",
        folders.join(", ")
    );
    let remedy = format!(
        "make them one, on every node: network.cniBinDir: {first} in cluster.yaml, or the runtime's configuration (containerd's: bin_dir of its CRI plugin's cni)"
    );
    Some(Finding::new("", message).remedy(remedy))
}

fn missing(facts: &Facts) -> Option<Finding> {
    let folder = &facts.cluster.network.cni_bin_dir;
    let host = facts.host.path(folder);
    // A link may lead to where only the host itself looks.
    let is_missing = |name: &&str| std::fs::symlink_metadata(host.join(name)).is_err();
    let missing: Vec<_> = PLUGINS.into_iter().filter(is_missing).collect();
    if missing.is_empty() {
        return None;
    }
    let message = format!("lacks the CNI plugins {}, and without them pods get no network", missing.join(", "));
    let remedy = "install them, as on every node: kubernetes-cni of pkgs.k8s.io has them in /opt/cni/bin, Debian's containernetworking-plugins in /usr/lib/cni (then network.cniBinDir in cluster.yaml says so); or bring your own network (network.plugin: none)";
    Some(Finding::new(folder.as_str(), message).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Machine, said};
    use super::*;

    #[tokio::test]
    async fn plugins_must_be_there_for_flannel() {
        let machine = Machine::new();
        machine.put("/opt/cni/bin/bridge", "");
        machine.put("/opt/cni/bin/portmap", "");
        let mut facts = machine.facts("");
        let lacks = "/opt/cni/bin: lacks the CNI plugins host-local, loopback, and without them pods get no network";
        assert_eq!(said(&plugins(&facts).await), [lacks]);
        facts.cluster.network.plugin = Plugin::None;
        assert!(plugins(&facts).await.is_empty(), "they are the user's business");

        for plugin in PLUGINS {
            machine.put(&format!("/usr/lib/cni/{plugin}"), "");
        }
        let mut facts = machine.facts("");
        facts.cluster.network.cni_bin_dir = "/usr/lib/cni".into();
        assert!(plugins(&facts).await.is_empty());
    }

    #[test]
    fn the_runtime_must_look_where_flannel_puts_its_own() {
        let facts = Machine::new().facts("");
        let found = |folders: &[&str]| elsewhere(&facts, &folders.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(found(&[]), None, "it does not say");
        assert_eq!(found(&["/usr/lib/cni", "/opt/cni/bin/"]), None);
        let finding = found(&["/usr/lib/cni"]).unwrap();
        assert!(finding.message.ends_with("in /usr/lib/cni, and flannel's is put into /opt/cni/bin"), "{finding}");
        assert!(finding.remedy.unwrap().contains("network.cniBinDir: /usr/lib/cni"));
    }
}
