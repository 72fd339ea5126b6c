//! Several controllers of one cluster, any of which may be away, and workers beside them.

use std::cell::{OnceCell, RefCell};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::cluster::{Cluster, declaration, render};
use super::command::Ended;
use super::controller::{LATER, is_lowered, is_ready, page};
use super::http::{Client, runtime};
use super::kubectl::Kubectl;
use super::node::{EXEC_LIMIT, Node, init_of};
use super::traffic::{PREFIX, Pace, Traffic};
use super::{eventually, hoist, leases, worker};

pub const LABEL: &str = "node-role.kubernetes.io/control-plane";
/// Where a node's endpoint listens, and where it says what it thinks of the API servers.
const ENDPOINT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 7443);
const METRICS: u16 = 7480;
/// Nodes that have a network of pods of their own have no kube-proxy elsewhere. How many connections the kernel tracks cannot be
/// set in a network namespace.
const NO_PROXY: &str = "kubeProxy: {mode: none}";
const PROXY: &str = "kubeProxy: {config: {conntrack: {maxPerCore: 0}}}";
/// The `kubernetes` Service.
const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 1), 443);
const ETCDCTL: &str = "etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt \
    --cert=/etc/kubernetes/pki/etcd/server.crt --key=/etc/kubernetes/pki/etcd/server.key --command-timeout=3s";

/// One of etcd's members, as etcdctl shows it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub name: String,
    pub id: u64,
    pub is_learner: bool,
}

/// etcdctl at a controller's own member.
pub fn etcdctl(node: &Node, args: &str) -> Ended {
    node.exec(["sh", "-c", &format!("{ETCDCTL} {args}")])
}

/// The members as a controller's own tells them.
pub fn members(node: &Node) -> Vec<Member> {
    let told: Value = serde_json::from_str(&etcdctl(node, "member list --write-out=json").stdout).unwrap_or_default();
    let member = |member: &Value| Member {
        name: member["name"].as_str().unwrap_or_default().to_owned(),
        id: member["ID"].as_u64().unwrap_or_default(),
        is_learner: member["isLearner"] == true,
    };
    let mut members: Vec<_> = told["members"].as_array().into_iter().flatten().map(member).collect();
    members.sort();
    members
}

/// The addresses of the `kubernetes` Service that are ready.
pub fn published(kubectl: &Kubectl) -> Vec<String> {
    let told = kubectl.run(&["get", "endpointslice", "-n", "default", "kubernetes", "-o", "json"]);
    let slice: Value = serde_json::from_str(&told.stdout).unwrap_or_default();
    let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
    let ready = endpoints.iter().filter(|one| one["conditions"]["ready"] != false);
    let mut published: Vec<_> = ready.filter_map(|one| one["addresses"][0].as_str().map(str::to_owned)).collect();
    published.sort_unstable();
    published
}

/// Whether these and no others are voters, published, and answer with a certificate for their own address. The first one is
/// asked.
fn is_made_of(cluster: &Cluster, kubectl: &Kubectl, nodes: &[&Node]) -> Result<(), String> {
    let mut names: Vec<_> = nodes.iter().map(|node| node.name.clone()).collect();
    names.sort();
    let members = members(nodes[0]);
    let voters: Vec<_> = members.iter().map(|member| member.name.clone()).collect();
    if voters != names || members.iter().any(|member| member.is_learner) {
        return Err(format!("members: {members:?}"));
    }
    let published = published(kubectl);
    let mut addresses: Vec<_> = nodes.iter().map(|node| node.address.to_string()).collect();
    addresses.sort();
    if published != addresses {
        return Err(format!("published: {published:?}"));
    }
    for node in nodes {
        if !is_ready(&Client::new(&cluster.assets, SocketAddr::new(node.address, 6443))) {
            return Err(format!("{} is not ready", node.name));
        }
    }
    Ok(())
}

#[track_caller]
pub fn until_made_of(cluster: &Cluster, nodes: &[&Node]) {
    let kubectl = cluster.kubectl_at(nodes[0].address);
    until(&format!("{} controllers", nodes.len()), || is_made_of(cluster, &kubectl, nodes));
}

/// Waits until nothing is said to be missing, and shows what is.
#[track_caller]
fn until(what: &str, mut missing: impl FnMut() -> Result<(), String>) {
    let (mut last, begun) = (String::new(), Instant::now());
    while begun.elapsed() < LATER {
        match missing() {
            Ok(()) => return,
            Err(why) if why != last => {
                eprintln!("  {what}, {:.1?}: {why}", begun.elapsed());
                last = why;
            }
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    panic!("{what}: not within {LATER:?}: {last}");
}

/// A worker that may become a controller: hoist's binary is there.
pub fn candidate(name: &str, cluster: &Cluster) -> Node {
    make_candidate(Node::up(name), cluster)
}

/// The same at this address.
pub fn candidate_at(name: &str, address: IpAddr, cluster: &Cluster) -> Node {
    make_candidate(Node::up_at(name, address), cluster)
}

/// Makes one of a node that is on.
pub fn make_candidate(node: Node, cluster: &Cluster) -> Node {
    bring_hoist(&node);
    worker::join(&node, cluster);
    worker::is_ready(&node, cluster);
    node
}

fn bring_hoist(node: &Node) {
    node.sh(&format!("mkdir -p /var/lib/hoist/bin && cp {} /var/lib/hoist/bin/hoist", hoist().display()));
}

/// The endpoint of each node, as hoist renders it, says what it thinks of the API servers.
fn with_metrics(assets: &Path) {
    let path = assets.join("bootstrap-manifests/hoist-endpoint.yaml");
    let rendered = std::fs::read_to_string(&path).unwrap();
    let flag = "    - --prefer=";
    let more = format!("    - --metrics-bind-address=127.0.0.1:{METRICS}\n    - --log-level=info\n{flag}");
    assert!(rendered.contains(flag), "{rendered}");
    std::fs::write(&path, rendered.replacen(flag, &more, 1)).unwrap();
}

/// Three controllers, one that `start` made and two by a label, and workers.
pub struct Several {
    pub cluster: Cluster,
    pub controllers: Vec<Node>,
    pub workers: Vec<Node>,
    /// The network of a pod on the first worker, once there is one.
    pod: OnceCell<File>,
    /// What was not as it should be: a test goes on after that, and fails in the end.
    pub complaints: Complaints,
}

pub type Complaints = Rc<RefCell<Vec<String>>>;

impl Drop for Several {
    fn drop(&mut self) {
        let complaints = self.complaints.take();
        assert!(std::thread::panicking() || complaints.is_empty(), "{}", complaints.join("\n"));
    }
}

impl Several {
    /// Brings them up: nodes NAME-1, -2 and -3, and workers NAME-w1 and so on, with an endpoint on each.
    #[track_caller]
    pub fn up(name: &str, workers: usize) -> Self {
        let several = Self::one(name, workers);
        several.make_three();
        several
    }

    /// The same with one controller, and two workers that may become controllers.
    #[track_caller]
    pub fn one(name: &str, workers: usize) -> Self {
        let first = Node::up(&format!("{name}-1"));
        let cluster = Cluster::to_render(&first, first.address);
        render(&Self::declaration(&first), &cluster.assets).ok();
        Self::of(name, first, cluster, workers)
    }

    /// What declares the first controller.
    pub fn declaration(first: &Node) -> String {
        let declared = format!("{}endpoint: {{nodeLocal: true}}\n", declaration(first, first.address));
        // Pods ask the API by its Service.
        declared.replace(NO_PROXY, PROXY)
    }

    /// The same with a first controller and its cluster as it was rendered.
    #[track_caller]
    pub fn of(name: &str, first: Node, cluster: Cluster, workers: usize) -> Self {
        with_metrics(&cluster.assets);
        cluster.started(&first, &[]).expect(0);
        let mut several = Self {
            cluster,
            controllers: vec![first],
            workers: Vec::new(),
            pod: OnceCell::new(),
            complaints: Rc::default(),
        };
        for number in [2, 3] {
            let node = several.join(&format!("{name}-{number}"));
            several.controllers.push(node);
        }
        for number in 1..=workers {
            let node = several.join(&format!("{name}-w{number}"));
            several.workers.push(node);
        }
        several
    }

    /// Gives the label to those that may become controllers, and waits until they are.
    #[track_caller]
    pub fn make_three(&self) {
        let names: Vec<_> = self.controllers[1..].iter().map(|node| node.name.as_str()).collect();
        self.label(&names);
        self.until_whole();
        self.until_known();
    }

    /// A node that joins as a worker through its own endpoint, and may become a controller.
    #[track_caller]
    pub fn join(&self, name: &str) -> Node {
        let node = Node::of_version(name, &self.controllers[0].kubernetes);
        let there = self.controllers.iter().find(|node| is_ready(&self.client(node)));
        let known = there.unwrap_or_else(|| panic!("no API server is ready for {name} to join")).address;
        if known != self.cluster.address {
            // The one that is declared is gone: docs/controllers.md.
            let [declared, another] = [self.cluster.address, known].map(|address| format!("{address}:6443"));
            for file in ["auth/kubeconfig", "bootstrap-manifests/hoist-endpoint.yaml"] {
                let path = self.cluster.assets.join(file);
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(text.contains(&declared), "{text}");
                std::fs::write(&path, text.replacen(&declared, &another, 1)).unwrap();
            }
        }
        worker::unpack(&node, &self.cluster);
        node.sh("systemctl enable --now kubelet");
        let kubectl = self.cluster.kubectl_at(known);
        eventually(&format!("{} is ready", node.name), LATER, || {
            let args = ["get", "node", &node.name, "-o", r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#];
            (kubectl.run(&args).stdout == "True").then_some(())
        });
        node
    }

    /// Makes controllers of workers.
    #[track_caller]
    pub fn label(&self, names: &[&str]) {
        let label = format!("{LABEL}=");
        self.kubectl_of_any().run(&[&["label", "node"], names, &[&label]].concat()).ok();
    }

    // --- the endpoint ---

    /// Every worker's endpoint thinks well of every controller.
    #[track_caller]
    pub fn until_known(&self) {
        for worker in &self.workers {
            until(&format!("the endpoint of {}", worker.name), || {
                let metrics = worker.inside(|| page(SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS)), "/metrics"));
                let metrics = metrics.map_err(|error| error.to_string())?;
                let is_good = |node: &&Node| {
                    let good = format!("target=\"{}:6443\",state=\"good\"}} 1", node.address);
                    !metrics.contains(&good)
                };
                match self.controllers.iter().find(is_good) {
                    None => Ok(()),
                    Some(node) => Err(format!("{} is not good", node.name)),
                }
            });
        }
    }

    pub fn client_of_endpoint(&self) -> Client {
        Client::new(&self.cluster.assets, SocketAddr::from(ENDPOINT))
    }

    /// What a worker's endpoint has said.
    pub fn endpoint_said(&self, worker: &Node) -> String {
        worker.sh("cat /var/log/pods/kube-system_hoist-endpoint-*/endpoint/*.log")
    }

    /// Clients at the endpoint of a worker, at work before anything happens.
    pub fn traffic(&self, worker: &Node) -> Traffic {
        let network = File::open(format!("/proc/{}/ns/net", init_of(worker))).unwrap();
        let traffic = Traffic::paced_in(network, self.client_of_endpoint(), Pace::BOTH);
        std::thread::sleep(Duration::from_secs(3));
        traffic
    }

    /// A client in a pod on the first worker, which asks the `kubernetes` Service.
    pub fn traffic_of_pod(&self) -> Traffic {
        let network = self.pod.get_or_init(|| {
            let node = &self.workers[0].name;
            let script = format!("sleep infinity; echo {node}");
            self.kubectl_of_any().apply(&format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: client}}, spec: {{nodeName: {node}, terminationGracePeriodSeconds: 0,
                  containers: [{{name: client, image: 'docker.io/library/busybox:1.36', command: [sh, -c, '{script}']}}]}}}}"
            ));
            worker::pod_network(&["sh", "-c", &script])
        });
        let client = Client::new(&self.cluster.assets, SocketAddr::from(SERVICE));
        Traffic::paced_in(network.try_clone().unwrap(), client, Pace::BESIDE)
    }

    // --- the API ---

    pub fn client(&self, node: &Node) -> Client {
        Client::new(&self.cluster.assets, SocketAddr::new(node.address, 6443))
    }

    /// kubectl at this controller.
    pub fn kubectl(&self, node: &Node) -> Kubectl {
        self.cluster.kubectl_at(node.address)
    }

    /// kubectl at the first controller whose API server is ready.
    #[track_caller]
    pub fn kubectl_of_any(&self) -> Kubectl {
        eventually("an API server is ready", EXEC_LIMIT, || {
            self.controllers.iter().find(|node| is_ready(&self.client(node))).map(|node| self.kubectl(node))
        })
    }

    // --- the whole ---

    /// Every controller votes, is published and serves by itself, and both leaders lead.
    #[track_caller]
    pub fn until_whole(&self) {
        self.until_whole_but(&[]);
    }

    /// The same of all but those that are away: their members and Nodes stay.
    #[track_caller]
    pub fn until_whole_but(&self, away: &[&str]) {
        let there: Vec<_> = self.controllers.iter().filter(|node| !away.contains(&node.name.as_str())).collect();
        let kubectl = self.kubectl(there[0]);
        let since = Timestamp::now();
        until("whole", || {
            let members = members(there[0]);
            if members.len() != self.controllers.len() || members.iter().any(|member| member.is_learner) {
                return Err(format!("members: {members:?}"));
            }
            let published = published(&kubectl);
            let mut addresses: Vec<_> = there.iter().map(|node| node.address.to_string()).collect();
            addresses.sort();
            if published != addresses {
                return Err(format!("published: {published:?}"));
            }
            for node in &there {
                let loopback = Client::new(&self.cluster.assets, SocketAddr::from((Ipv4Addr::LOCALHOST, 6443)));
                if !node.inside(move || is_ready(&loopback)) {
                    return Err(format!("the self-hosted API server of {} is not ready", node.name));
                }
                if !is_lowered(node) {
                    return Err(format!("{} has a bridge", node.name));
                }
            }
            match runtime().block_on(leases::are_renewed_since(&self.client(there[0]), since)) {
                true => Ok(()),
                false => Err("a leader does not lead".into()),
            }
        });
    }

    /// How often the members have seen a leader come, each since it runs; those that are away count as none.
    pub fn elections(&self) -> Vec<u64> {
        let seen = |node: &Node| {
            let metrics = node.exec(["sh", "-c", "curl -s --max-time 2 http://127.0.0.1:2381/metrics"]).stdout;
            let line = metrics.lines().find_map(|line| line.strip_prefix("etcd_server_leader_changes_seen_total "));
            line.and_then(|count| count.parse().ok()).unwrap_or_default()
        };
        self.controllers.iter().map(seen).collect()
    }

    /// The controller whose etcd leads.
    #[track_caller]
    pub fn leader(&self) -> usize {
        eventually("etcd has a leader", EXEC_LIMIT, || {
            self.controllers.iter().position(|node| {
                let told = etcdctl(node, "endpoint status --write-out=json").stdout;
                let told: Value = serde_json::from_str(&told).unwrap_or_default();
                let status = &told[0]["Status"];
                status["leader"].is_number() && status["leader"] == status["header"]["member_id"]
            })
        })
    }

    /// The controller whose process holds a Lease.
    #[track_caller]
    pub fn holder(&self, lease: &str) -> usize {
        eventually("a Lease has a holder", EXEC_LIMIT, || {
            self.controllers.iter().find_map(|node| {
                let lease = runtime().block_on(leases::lease(&self.client(node), lease))?;
                let holder = lease["spec"]["holderIdentity"].as_str()?.to_owned();
                self.controllers.iter().position(|node| holder.starts_with(&format!("{}_", node.name)))
            })
        })
    }

    /// What of these ConfigMaps a member lacks, as it knows them itself.
    pub fn lacks(&self, node: &Node, names: &[String]) -> Vec<String> {
        let prefix = format!("/registry/configmaps/default/{PREFIX}");
        let told = etcdctl(node, &format!("get --prefix {prefix} --keys-only --consistency=s")).stdout;
        let there: std::collections::BTreeSet<_> = told.lines().filter_map(|line| line.rsplit('/').next()).collect();
        names.iter().filter(|name| !there.contains(name.as_str())).cloned().collect()
    }
}
