//! A controller that serves itself and has guard, looked at from outside of hoist: the API as clients see it, the
//! kubelet's folder, guard's metrics.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::cluster::Cluster;
use super::eventually;
use super::http::{Client, runtime};
use super::kubectl::Kubectl;
use super::node::{Node, disk};
use super::traffic::Traffic;

pub const METRICS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 10270);
const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 6443);
/// How long what comes by itself may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);
pub const LATER: Duration = Duration::from_secs(180);
/// An image of an API server that does not exist.
pub const NO_IMAGE: &str = "registry.k8s.io/kube-apiserver:v0.0.0";

pub struct Controller {
    pub node: Node,
    pub cluster: Cluster,
    pub kubectl: Kubectl,
}

impl Controller {
    /// Brings one up.
    pub fn up(name: &str) -> Self {
        let node = Node::up(name);
        let cluster = Cluster::render(&node);
        Self::start(node, cluster)
    }

    /// The same of a node and a cluster that were made ready.
    #[track_caller]
    pub fn start(node: Node, cluster: Cluster) -> Self {
        cluster.started(&node, &[]).expect(0);
        let controller = Self { kubectl: cluster.kubectl(), node, cluster };
        controller.has_guard();
        controller
    }

    #[track_caller]
    pub fn has_guard(&self) {
        eventually("guard serves its metrics", SOON, || self.metrics());
    }

    /// Clients, at work before anything happens.
    pub fn traffic(&self) -> Traffic {
        let traffic = Traffic::begin(self.cluster.client());
        std::thread::sleep(Duration::from_secs(2));
        traffic
    }

    // --- the API ---

    /// Whether it answers where clients ask.
    pub fn is_served(&self) -> bool {
        is_ready(&self.cluster.client())
    }

    /// A client of this controller's self-hosted API server and no other; it works inside of the node.
    pub fn self_hosted(&self) -> Client {
        Client::new(&self.cluster.assets, SocketAddr::from(LOOPBACK))
    }

    /// Whether this controller's self-hosted API server says that it is ready.
    pub fn self_hosted_is_ready(&self) -> bool {
        let client = self.self_hosted();
        self.node.inside(move || is_ready(&client))
    }

    // --- the disk ---

    /// What the kubelet's folder holds.
    pub fn manifests(&self) -> Vec<String> {
        manifests(&self.node)
    }

    /// Whether the bridge's API server stands in it.
    pub fn is_raised(&self) -> bool {
        is_raised(&self.node)
    }

    /// Whether nothing of the bridge is left, but for what guard keeps.
    pub fn is_lowered(&self) -> bool {
        is_lowered(&self.node)
    }

    #[track_caller]
    pub fn until_raised(&self) {
        eventually("the bridge is raised", SOON, || self.is_raised().then_some(()));
    }

    #[track_caller]
    pub fn until_self_hosted(&self) {
        eventually("the self-hosted API server is ready", LATER, || self.self_hosted_is_ready().then_some(()));
    }

    /// The cluster serves itself again, and by itself.
    #[track_caller]
    pub fn until_lowered(&self) {
        self.until_self_hosted();
        eventually("the bridge is lowered", LATER, || self.is_lowered().then_some(()));
    }

    // --- guard ---

    /// What guard counts, by its name without the prefix; `None` while it serves none.
    pub fn metrics(&self) -> Option<BTreeMap<String, f64>> {
        let text = self.node.inside(|| page(SocketAddr::from(METRICS), "/metrics")).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200"), "{text}");
        let metric = |line: &str| {
            let (name, value) = line.strip_prefix("hoist_guard_")?.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().unwrap()))
        };
        let metrics: BTreeMap<_, _> = body.lines().filter_map(metric).collect();
        assert!(metrics.contains_key("bridge_raised"), "{text}");
        Some(metrics)
    }

    // --- objects ---

    /// The DaemonSet of the API server.
    #[track_caller]
    pub fn daemon_set(&self) -> Value {
        self.kubectl.get(&["-n", "kube-system", "daemonset", "kube-apiserver"])
    }

    /// `kubectl patch` of the command in it.
    #[track_caller]
    pub fn edit_command(&self, edit: impl FnOnce(&mut Vec<String>)) {
        let command = &self.daemon_set()["spec"]["template"]["spec"]["containers"][0]["command"];
        let mut command: Vec<String> = serde_json::from_value(command.clone()).unwrap();
        edit(&mut command);
        let path = "/spec/template/spec/containers/0/command";
        let patch = serde_json::json!([{"op": "replace", "path": path, "value": command}]).to_string();
        let args = ["patch", "-n", "kube-system", "daemonset/kube-apiserver", "--type=json", "-p", &patch];
        self.kubectl.run(&args).ok();
    }

    /// Another flag in its command.
    #[track_caller]
    pub fn add_flag(&self, flag: &str) {
        self.edit_command(|command| command.push(flag.into()));
    }

    #[track_caller]
    pub fn set_image(&self, image: &str) {
        let container = format!("kube-apiserver={image}");
        self.kubectl.run(&["set", "image", "-n", "kube-system", "daemonset/kube-apiserver", &container]).ok();
    }

    /// Makes a bad edit; there is a pod of it then, which is not ready.
    #[track_caller]
    pub fn edit_badly(&self, edit: impl FnOnce()) {
        let before = self.daemon_set()["metadata"]["generation"].as_u64().unwrap();
        edit();
        eventually("the edited pod is there, and not ready", SOON, || {
            let set = self.daemon_set();
            let status = &set["status"];
            let is_seen = status["observedGeneration"].as_u64().is_some_and(|generation| generation > before);
            (is_seen && status["updatedNumberScheduled"] == 1 && status["numberUnavailable"] == 1).then_some(())
        });
    }

    /// `kubectl rollout undo`, until what was there before serves again.
    #[track_caller]
    pub fn undo(&self) {
        self.kubectl.run(&["rollout", "undo", "-n", "kube-system", "daemonset/kube-apiserver"]).ok();
        self.rolled_out();
        self.until_self_hosted();
    }

    #[track_caller]
    pub fn rolled_out(&self) {
        let args = ["rollout", "status", "-n", "kube-system", "--timeout=110s", "daemonset/kube-apiserver"];
        self.kubectl.run(&args).ok();
    }

    /// Every pod of the self-hosted control plane is as it shall be.
    #[track_caller]
    pub fn control_plane_is_rolled_out(&self) {
        for name in ["daemonset/kube-apiserver", "deployment/kube-controller-manager", "deployment/kube-scheduler"] {
            self.kubectl.run(&["rollout", "status", "-n", "kube-system", "--timeout=110s", name]).ok();
        }
    }
}

/// What the kubelet's folder of a node holds.
pub fn manifests(node: &Node) -> Vec<String> {
    let dir = disk(node).join("private/etc-kubernetes/manifests");
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Whether the bridge's API server stands in it.
pub fn is_raised(node: &Node) -> bool {
    manifests(node).iter().any(|name| name == "bridge-kube-apiserver.yaml")
}

/// Whether nothing of the bridge is left on a node, but for what guard keeps.
pub fn is_lowered(node: &Node) -> bool {
    let keys = disk(node).join("private/etc-kubernetes/bridge");
    !manifests(node).iter().any(|name| name.starts_with("bridge-")) && !keys.exists()
}

pub fn is_ready(client: &Client) -> bool {
    matches!(runtime().block_on(client.get("/readyz")), Ok((200, _)))
}

/// A page over plain HTTP, its head included.
pub fn page(address: SocketAddr, path: &str) -> std::io::Result<String> {
    const LIMIT: Duration = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
