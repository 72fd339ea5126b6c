//! A cluster on a node: its cluster.yaml, its asset directory, and `hoist` at work on them.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::command::{Ended, Running, run};
use super::hoist;
use super::http::Client;
use super::kubectl::Kubectl;
use super::node::Node;

/// How long `start` may take: it is told less, so that it is hoist that gives up and says why.
pub const START_LIMIT: Duration = Duration::from_secs(200);
const TIMEOUT: &str = "--timeout=180s";
const RENDER_LIMIT: Duration = Duration::from_secs(60);

/// What a kubelet needs where cgroups are v1 and the disk is shared with all that runs on this machine: without the
/// first it does not start, limits on the node as a whole cannot be set in a cgroup namespace, and a full disk or a busy
/// machine of the developer's must not evict the control plane.
const KUBELET: &str = "kubelet:
  config:
    failCgroupV1: false
    enforceNodeAllocatable: []
    localStorageCapacityIsolation: false
    evictionHard:
      memory.available: 0%
      nodefs.available: 0%
      nodefs.inodesFree: 0%
      imagefs.available: 0%
      imagefs.inodesFree: 0%
    imageGCHighThresholdPercent: 100
";

/// What Debian's containerd does there. containerd 2 says so itself, by RuntimeConfig, and hoist's default for a real host
/// does not matter.
const CGROUP_DRIVER: &str = "    cgroupDriver: cgroupfs\n";

/// Where the nodes have a network of pods of their own.
const NO_NETWORK: &str = "network: {plugin: none}
kubeProxy: {mode: none}
dns: {plugin: none}
";
/// hoist's own network. How many connections the kernel tracks cannot be set in a network namespace; and there is no name
/// server that the nodes reach.
const NETWORK: &str = "dns: {upstreams: []}
kubeProxy:
  config:
    conntrack: {maxPerCore: 0}
";

/// The cluster of one controller.
pub struct Cluster {
    pub assets: PathBuf,
    pub address: IpAddr,
    kubernetes: String,
}

impl Cluster {
    /// Renders an asset directory for this node.
    pub fn render(node: &Node) -> Self {
        Self::render_at(node, node.address)
    }

    /// The same with an address that the node need not have.
    pub fn render_at(node: &Node, address: IpAddr) -> Self {
        let cluster = Self::to_render(node, address);
        render(&declaration(node, address), &cluster.assets).ok();
        cluster
    }

    /// One whose asset directory is still to be rendered.
    pub fn to_render(node: &Node, address: IpAddr) -> Self {
        Self { assets: assets(&node.name), address, kubernetes: node.kubernetes.clone() }
    }

    /// `hoist render --first-boot=FORMAT` of the same declaration: the path of the one controller's file.
    pub fn first_boot(&self, node: &Node, format: &str, end: &str) -> PathBuf {
        let mut command = Command::new(hoist());
        command.arg("render").arg("--config").arg(self.assets.with_extension("yaml"));
        command.arg("--asset-dir").arg(&self.assets).arg(format!("--first-boot={format}"));
        run(&mut command, RENDER_LIMIT).ok();
        self.assets.join(format!("first-boot/{}.{end}", node.name))
    }

    /// `hoist start` in the node, at work.
    pub fn start(&self, node: &Node, args: &[&str]) -> Running {
        node.spawn(self.start_command(args))
    }

    /// The same, to its end.
    pub fn started(&self, node: &Node, args: &[&str]) -> Ended {
        self.start(node, args).wait(START_LIMIT)
    }

    /// A command of hoist's about this cluster.
    pub fn command(&self, name: &str, args: &[&str]) -> Vec<String> {
        let paths = [&hoist(), Path::new(name), Path::new("--asset-dir"), &self.assets];
        let command = paths.iter().map(|path| path.display().to_string());
        command.chain(args.iter().map(|arg| (*arg).to_owned())).collect()
    }

    /// The command that does it.
    pub fn start_command(&self, args: &[&str]) -> Vec<String> {
        let mut command = self.command("start", args);
        if !args.iter().any(|arg| arg.starts_with("--timeout")) {
            command.push(TIMEOUT.into());
        }
        command
    }

    /// Puts a manifest of the user's among the rendered ones.
    pub fn add_manifest(&self, name: &str, text: &str) {
        std::fs::write(self.assets.join("manifests").join(name), text).unwrap();
    }

    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubernetes, &self.assets.join("auth/kubeconfig"))
    }

    /// kubectl at the API server of this address.
    pub fn kubectl_at(&self, address: IpAddr) -> Kubectl {
        let kubeconfig = std::fs::read_to_string(self.assets.join("auth/kubeconfig")).unwrap();
        let server = |line: &str| match line.trim_start().strip_prefix("server: ") {
            Some(_) => format!(
                "{}server: https://{}",
                &line[..line.len() - line.trim_start().len()],
                SocketAddr::new(address, 6443)
            ),
            None => line.to_owned(),
        };
        let text: Vec<_> = kubeconfig.lines().map(server).collect();
        let path = self.assets.with_extension(format!("{address}.kubeconfig"));
        std::fs::write(&path, text.join("\n")).unwrap();
        Kubectl::new(&self.kubernetes, &path)
    }

    pub fn client(&self) -> Client {
        Client::new(&self.assets, SocketAddr::new(self.address, 6443))
    }
}

/// Where a node's asset directory is: in cargo's folder for tests' files, as a node has a /tmp of its own.
fn assets(node: &str) -> PathBuf {
    let assets = Path::new(env!("CARGO_TARGET_TMPDIR")).join(node);
    if assets.exists() {
        std::fs::remove_dir_all(&assets).unwrap();
    }
    assets
}

/// A cluster.yaml for this node.
pub fn declaration(node: &Node, address: IpAddr) -> String {
    let (name, version) = (&node.name, &node.kubernetes);
    let network = if node.has_pod_network { NO_NETWORK } else { NETWORK };
    let driver = if node.runtime == "containerd" { CGROUP_DRIVER } else { "" };
    format!(
        "apiVersion: hoist/v1alpha1\nkind: Cluster\nkubernetesVersion: v{version}\ncontrollers:\n- name: {name}\n  address: {address}\n{network}{KUBELET}{driver}"
    )
}

/// `hoist render`.
pub fn render(declaration: &str, assets: &Path) -> Ended {
    let file = assets.with_extension("yaml");
    std::fs::create_dir_all(assets.parent().unwrap()).unwrap();
    std::fs::write(&file, declaration).unwrap();
    let mut command = Command::new(hoist());
    command.arg("render").arg("--config").arg(&file).arg("--asset-dir").arg(assets);
    run(&mut command, RENDER_LIMIT)
}
