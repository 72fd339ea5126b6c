//! The CNI plugins that flannel needs, and whether the runtime looks for them, and for flannel's configuration, in
//! the folders where they are.

use std::path::Path;

use serde_json::Value;

use super::{Facts, disk, runtime};
use crate::base::error::Finding;
use crate::base::input;
use crate::desired::config::Plugin;

/// Those that flannel hands a pod on to, its configuration names, and every runtime calls.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];
/// Where flannel's configuration is put.
const CONFIGURATION: &str = "/etc/cni/net.d";
const FLANNELS: &str = "10-flannel.conflist";
/// The most that a runtime reads of one: containerd.
const CONFIGURATION_LIMIT: u64 = 2 << 20;

pub(super) async fn plugins(facts: &Facts) -> Vec<Finding> {
    if facts.cluster.network.plugin == Plugin::None {
        return Vec::new();
    }
    let folders = runtime::cni_bin_dirs(facts).await;
    if let Some(elsewhere) = elsewhere(facts, &folders) {
        return vec![elsewhere];
    }
    missing(facts).into_iter().chain(not_run(facts)).collect()
}

/// Plugins that are where the runtime could not run them.
fn not_run(facts: &Facts) -> Option<Finding> {
    let folder = &facts.cluster.network.cni_bin_dir;
    let point = disk::noexec(facts, folder)?;
    let message =
        format!("is on {point}, which is mounted noexec: the container runtime cannot run a CNI plugin there");
    Some(Finding::new(folder.as_str(), message).remedy(disk::exec(&point)))
}

/// Other configurations than flannel's, where the runtime takes them first.
pub(super) async fn configuration(facts: &Facts) -> Vec<Finding> {
    if facts.cluster.network.plugin == Plugin::None {
        return Vec::new();
    }
    let told = runtime::cni_conf_dir(facts).await;
    match told.filter(|told| facts.host.resolve(Path::new(told)) != facts.host.resolve(Path::new(CONFIGURATION))) {
        Some(elsewhere) => {
            let message = format!(
                "the container runtime looks for the CNI configuration in {elsewhere}, and flannel's is put into {CONFIGURATION}"
            );
            let remedy = format!(
                "use one folder for both, on every node: conf_dir = \"{CONFIGURATION}\" of the CRI plugin's cni in containerd's configuration"
            );
            vec![Finding::new("", message).remedy(remedy)]
        }
        None => before_flannels(facts),
    }
}

/// What a runtime reads before flannel's configuration: it takes the first in the order of names (libcni's ConfFiles,
/// containerd's go-cni), and stops at one that it cannot read.
fn before_flannels(facts: &Facts) -> Vec<Finding> {
    let folder = facts.host.path(CONFIGURATION);
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_read = |name: &String| {
        let end = Path::new(name).extension().and_then(|end| end.to_str());
        end.is_some_and(|end| ["conf", "conflist", "json"].contains(&end)) && !folder.join(name).is_dir()
    };
    let mut names: Vec<_> = names.filter(|name| is_read(name) && name.as_str() < FLANNELS).collect();
    names.sort();
    let finding = |name: String| {
        let place = format!("{CONFIGURATION}/{name}");
        let message = match network(&folder.join(&name)) {
            Some(network) => format!(
                "is the configuration of the network {network}, and comes before flannel's {FLANNELS}: the container runtime takes the first one, and pods of this node do not get flannel's network"
            ),
            None => format!(
                "is not a CNI configuration, and comes before flannel's {FLANNELS}: the container runtime stops at it, and pods get no network"
            ),
        };
        let remedy = format!(
            "`mv {place} {place}.off`, on every node that has one: only files that end in .conf, .conflist or .json are read; or keep that network (network.plugin: none)"
        );
        Finding::new(place, message).remedy(remedy)
    };
    names.into_iter().map(finding).collect()
}

/// The name of the network that a file configures, if it configures one.
fn network(file: &Path) -> Option<String> {
    let configuration: Value = serde_json::from_slice(&input::read(file, CONFIGURATION_LIMIT).ok()?).ok()?;
    let has_plugin = match configuration.get("plugins") {
        Some(plugins) => plugins.as_array().is_some_and(|plugins| !plugins.is_empty()),
        None => configuration.get("type").is_some_and(Value::is_string),
    };
    let name = configuration.get("name")?.as_str()?;
    has_plugin.then(|| name.to_owned())
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
        "use one folder for both, on every node: network.cniBinDir: {first} in cluster.yaml, or the runtime's configuration (containerd's: bin_dir of its CRI plugin's cni)"
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
    let remedy = "install them, on every node: kubernetes-cni of pkgs.k8s.io has them in /opt/cni/bin, Debian's containernetworking-plugins in /usr/lib/cni (then network.cniBinDir in cluster.yaml says so); or bring your own network (network.plugin: none)";
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
    fn plugins_must_be_where_they_can_be_run() {
        let machine = Machine::new();
        assert_eq!(not_run(&machine.facts("")), None);
        machine.mounts(&[("/", "rw"), ("/opt", "rw,nosuid,nodev,noexec")]);
        let found = not_run(&machine.facts("")).unwrap();
        assert_eq!(
            said(&[found]),
            ["/opt/cni/bin: is on /opt, which is mounted noexec: the container runtime cannot run a CNI plugin there"]
        );
    }

    #[tokio::test]
    async fn no_other_configuration_comes_before_flannels() {
        let machine = Machine::new();
        let mut facts = machine.facts("");
        for passed in
            ["10-flannel.conflist", "87-podman-bridge.conflist", "100-crio-bridge.conf", "05-old.conflist.off"]
        {
            machine.put(&format!("/etc/cni/net.d/{passed}"), r#"{"name": "n", "plugins": [{"type": "bridge"}]}"#);
        }
        machine.put("/etc/cni/net.d/00-folder.conf/x", "");
        assert!(configuration(&facts).await.is_empty());

        machine
            .put("/etc/cni/net.d/10-containerd-net.conflist", r#"{"name": "c-net", "plugins": [{"type": "bridge"}]}"#);
        machine.put("/etc/cni/net.d/05-old.conf", r#"{"name": "old", "type": "bridge"}"#);
        for (name, torn) in
            [("06-torn.json", "{"), ("07-list.conf", r#"{"name": "l", "list": []}"#), ("08.conflist", "")]
        {
            machine.put(&format!("/etc/cni/net.d/{name}"), torn);
        }
        let found = configuration(&facts).await;
        let begins: Vec<_> =
            said(&found).iter().map(|text| text.split(", and comes").next().unwrap().to_owned()).collect();
        let expected = [
            "/etc/cni/net.d/05-old.conf: is the configuration of the network old",
            "/etc/cni/net.d/06-torn.json: is not a CNI configuration",
            "/etc/cni/net.d/07-list.conf: is not a CNI configuration",
            "/etc/cni/net.d/08.conflist: is not a CNI configuration",
            "/etc/cni/net.d/10-containerd-net.conflist: is the configuration of the network c-net",
        ];
        assert_eq!(begins, expected);
        let remedy = found[0].remedy.as_ref().unwrap();
        assert!(remedy.starts_with("`mv /etc/cni/net.d/05-old.conf /etc/cni/net.d/05-old.conf.off`"), "{remedy}");
        facts.cluster.network.plugin = Plugin::None;
        assert!(configuration(&facts).await.is_empty(), "it is the user's business");
    }

    #[tokio::test]
    async fn the_runtime_must_look_where_flannels_configuration_is_put() {
        let machine = Machine::new();
        machine.put("/etc/cni/net.d/x", "");
        std::os::unix::fs::symlink("net.d", machine.host().path("/etc/cni/same")).unwrap();
        for (folder, finds) in [("/etc/cni/net.d", 0), ("/etc/cni/same/", 0), ("/etc/containerd/net.d", 1)] {
            let facts = machine.facts("");
            facts.runtime.set(Ok(shown(folder))).unwrap();
            let found = said(&configuration(&facts).await);
            assert_eq!(found.len(), finds, "{found:?}");
        }
    }

    fn shown(cni_conf_dir: &str) -> crate::node::cri::Runtime {
        crate::node::cri::Runtime {
            name: "containerd 2.0.0".into(),
            not_ready: None,
            told_driver: None,
            own_driver: None,
            cni_bin_dirs: Vec::new(),
            cni_conf_dir: Some(cni_conf_dir.into()),
        }
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
