//! The steps of a boot, by what the containers themselves have logged: what bounds the figures.

use std::fs;
use std::path::PathBuf;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::support::node::{Node, disk};

/// What an API server logs when it has opened its port. It is ready later: its hooks come after that.
const API_SERVER_SERVES: &str = "Serving securely on";
const ETCD_SERVES: &str = "ready to serve client requests";

/// When each has come to it; times in seconds from the moment at which the switch was turned.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Steps {
    /// The first line of any container: so long the kubelet itself has taken.
    pub container: f64,
    pub etcd: Program,
    /// The one that the kubelet starts from a file: the bridge's, or kubeadm's.
    pub static_server: Program,
    /// hoist's alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_hosted_server: Option<Program>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// Its first line.
    pub begins: f64,
    /// It has opened its port.
    pub serves: f64,
}

/// Those of a controller that hoist has made, while its bridge still stands.
pub fn of_controller(node: &Node, since: Timestamp) -> Steps {
    let self_hosted_server = Some(api_server(node, since, "kube-apiserver-"));
    Steps { self_hosted_server, ..of_static_pods(node, since, "bridge-kube-apiserver-") }
}

/// Those of one that kubeadm has made: there the API server in the kubelet's folder is the only one.
pub fn of_kubeadm(node: &Node, since: Timestamp) -> Steps {
    of_static_pods(node, since, "kube-apiserver-")
}

fn of_static_pods(node: &Node, since: Timestamp, server: &str) -> Steps {
    Steps {
        container: Logs::of(node, "", "").first(since, ""),
        etcd: Logs::of(node, "etcd-", "etcd").program(since, ETCD_SERVES),
        static_server: api_server(node, since, server),
        self_hosted_server: None,
    }
}

fn api_server(node: &Node, since: Timestamp, pod: &str) -> Program {
    Logs::of(node, pod, "kube-apiserver").program(since, API_SERVER_SERVES)
}

/// Files of the kubelet's, each line with the time at which the runtime has read it.
struct Logs(Vec<PathBuf>);

impl Logs {
    /// Of all pods of kube-system whose names begin like that, and their containers of that name; of all, without one.
    fn of(node: &Node, pod: &str, container: &str) -> Self {
        let entries = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
        let is = |path: &PathBuf, matches: &dyn Fn(&str) -> bool| matches(&path.file_name().unwrap().to_string_lossy());
        let pods = entries(disk(node).join("var/log/pods"));
        let pods = pods.filter(|path| is(path, &|name| name.starts_with(&format!("kube-system_{pod}"))));
        let containers =
            pods.flat_map(entries).filter(|path| is(path, &|name| container.is_empty() || name == container));
        Self(containers.flat_map(entries).collect())
    }

    fn program(&self, since: Timestamp, serves: &str) -> Program {
        Program { begins: self.first(since, ""), serves: self.first(since, serves) }
    }

    /// How many seconds after that moment they had the first line with these words.
    fn first(&self, since: Timestamp, words: &str) -> f64 {
        let later = |line: &str| {
            let (at, said) = line.split_once(' ')?;
            let after = at.parse::<Timestamp>().ok()?.duration_since(since).as_secs_f64();
            (after > 0.0 && said.contains(words)).then_some(after)
        };
        let first = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default().lines().find_map(later);
        self.0.iter().filter_map(first).reduce(f64::min).unwrap_or_else(|| panic!("no {words:?} in {:?}", self.0))
    }
}
