//! hoist's own network on a controller and two workers: pods reach each other and Services across nodes, and a pod that
//! asks the API by its Service is cut off only while the API is away for everybody.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::least_privilege::{Row, nobody_may_do_more_than_it_needs};
use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT, declaration, render};
use crate::support::command::Ended;
use crate::support::http::Client;
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::traffic::{Record, Traffic};
use crate::support::{eventually, worker};

/// This machine's address on the nodes' link.
const OUTSIDE: &str = "10.10.0.1";
/// The `kubernetes` Service.
const API: ([u8; 4], u16) = ([10, 96, 0, 1], 443);
/// The command of the pod that asks; no other process of this machine has it.
const ASKER: [&str; 2] = ["sleep", "86399"];
const SOON: Duration = Duration::from_secs(60);
/// How many bytes the link between nodes takes at once.
const LINK: usize = 1500;
/// What vxlan takes of them, and what a ping takes of what is left for its own head.
const VXLAN: usize = 50;
const PING: usize = 28;
/// How much later than everybody else a pod may notice that the API is back, or away.
const LAG: Duration = Duration::from_secs(1);

/// Whose accounts make the network; what of them has no account of its own is `default`.
const WHO: [&str; 4] = [FLANNEL, KUBE_PROXY, COREDNS, "system:serviceaccount:kube-system:default"];
const FLANNEL: &str = "system:serviceaccount:kube-flannel:flannel";
const KUBE_PROXY: &str = "system:serviceaccount:kube-system:kube-proxy";
const COREDNS: &str = "system:serviceaccount:kube-system:coredns";
const ROWS: [Row; 14] = [
    (FLANNEL, "get", "nodes", "", true),
    (FLANNEL, "patch", "nodes+status", "", true),
    (FLANNEL, "patch", "nodes", "", false),
    (FLANNEL, "list", "pods", "kube-flannel", false),
    (FLANNEL, "list", "services", "default", false),
    (KUBE_PROXY, "watch", "services", "default", true),
    (KUBE_PROXY, "watch", "endpointslices.discovery.k8s.io", "default", true),
    (KUBE_PROXY, "patch", "nodes+status", "", false),
    (KUBE_PROXY, "update", "services", "default", false),
    (KUBE_PROXY, "list", "pods", "default", false),
    (COREDNS, "watch", "services", "default", true),
    (COREDNS, "list", "pods", "default", true),
    (COREDNS, "list", "configmaps", "kube-system", false),
    (COREDNS, "update", "endpointslices.discovery.k8s.io", "default", false),
];

/// Pods are found by what they run, and both tests' pods run the same.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn network() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let node = Node::plain("network");
    let cluster = Cluster::render(&node);
    let start = cluster.started(&node, &[]).expect(0);
    assert!(start.stdout.contains("packets are filtered by nftables: this kernel has it"), "{start}");
    let _workers = all_is_reached(&node, &cluster, ["network-1", "network-2"], LINK - VXLAN);
    let filter = node.sh("nft list table ip kube-proxy");
    assert!(filter.contains("service-ips"), "{filter}");
    nobody_may_do_more_than_it_needs(&cluster.kubectl(), &WHO, &ROWS);
    a_pod_is_not_cut_off(&node, &cluster);
}

/// The same where nodes need no tunnel and their kernel no nftables: as cluster.yaml says it.
#[test]
fn network_host_gw_iptables() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let node = Node::plain("net");
    let cluster = Cluster::to_render(&node, node.address);
    let other = declaration(&node, node.address).replace("kubeProxy:\n", "kubeProxy:\n  mode: iptables\n");
    let other = other + "network:\n  flannel: {backend: host-gw}\n";
    render(&other, &cluster.assets).ok();
    let start = cluster.started(&node, &[]).expect(0);
    assert!(!start.stdout.contains("packets are filtered"), "nothing was there to choose: {start}");
    let _workers = all_is_reached(&node, &cluster, ["net-1", "net-2"], LINK);
    let interfaces = node.sh("ls /sys/class/net");
    assert!(!interfaces.contains("flannel"), "{interfaces}");
    let rules = node.sh("iptables-save -t nat");
    assert!(rules.contains("-A KUBE-SERVICES "), "{rules}");
    let tables = node.sh("nft list tables");
    assert!(!tables.contains("kube-proxy"), "{tables}");
}

/// Two workers join; pods on them reach each other in every way that there is, in packets that fill the link.
fn all_is_reached(node: &Node, cluster: &Cluster, names: [&str; 2], mtu: usize) -> [Node; 2] {
    let workers = names.map(|name| worker::up(name, cluster));
    for node in std::iter::once(node).chain(&workers) {
        worker::is_ready(node, cluster);
    }
    let kubectl = cluster.kubectl();
    kubectl.apply(&pods(&workers));
    kubectl.run(&["wait", "--for=condition=Ready", "--timeout=120s", "pod", "--all"]).ok();

    let all = All { node, workers: &workers, kubectl: &kubectl };
    all.pods_reach_pods();
    all.packets_have_the_right_size(mtu);
    all.pods_reach_services();
    all.a_service_without_endpoints_refuses();
    all.a_node_port_is_on_every_node();
    all.a_host_port_is_on_its_node();
    all.the_controller_reaches_services();
    workers
}

/// Two servers, each on its worker, that say who asks them, a client beside the first, and their Services.
fn pods(workers: &[Node; 2]) -> String {
    const SERVE: &str = r##"mkdir -p /tmp/www/cgi-bin; cd /tmp/www
      printf '#!/bin/sh\nprintf "Content-type: text/plain\\r\\n\\r\\n"; echo "$REMOTE_ADDR $(hostname)"\n' > cgi-bin/who
      chmod +x cgi-bin/who; head -c 3000000 /dev/zero > large; exec httpd -f -p 8080 -h /tmp/www"##;
    let image = "docker.io/library/busybox:1.36";
    let server = |name: &str, node: &Node, port: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: server, server: {name}}}}}\nspec:\n  \
             nodeName: {}\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: server\n    image: {image}\n    \
             ports:\n    - {port}\n    command:\n    - sh\n    - -c\n    - |\n      {SERVE}\n---\n",
            node.name
        )
    };
    let service = |name: &str, selector: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {{{selector}}}\n  {more}\n---\n"
        )
    };
    [
        server("server-1", &workers[0], "{containerPort: 8080, hostPort: 18080}"),
        server("server-2", &workers[1], "{containerPort: 8080}"),
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: client}}\nspec:\n  nodeName: {}\n  \
             terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: client, image: {image}, command: {ASKER:?}}}\n---\n",
            workers[0].name
        ),
        service("both", "app: server", "type: NodePort\n  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]"),
        service(
            "second",
            "server: server-2",
            "type: NodePort\n  externalTrafficPolicy: Local\n  ports: [{port: 80, targetPort: 8080, nodePort: 30081}]",
        ),
        service("nobody", "app: nobody", "ports: [{port: 80}]"),
    ]
    .concat()
}

struct All<'a> {
    node: &'a Node,
    workers: &'a [Node; 2],
    kubectl: &'a Kubectl,
}

impl All<'_> {
    /// A command in the client's pod.
    fn client(&self, command: &[&str]) -> Ended {
        self.kubectl.run(&[&["exec", "client", "--"], command].concat())
    }

    /// A page, as the client gets it with its head, and as `filter` leaves it. By nc: wget looks up the name of a port,
    /// which a static busybox does with libraries that the image has not.
    fn get(&self, host: &str, page: &str, filter: &str) -> Ended {
        let (host, port) = host.split_once(':').unwrap_or((host, "80"));
        let script = format!(
            "printf 'GET {page} HTTP/1.0\\r\\n\\r\\n' | nc -w 20 {host} {port} >/tmp/got && {filter} </tmp/got"
        );
        self.client(&["sh", "-c", &script])
    }

    /// Who asked and who answered, as seen by the server that the client asks at `host`.
    #[track_caller]
    fn asks(&self, host: &str) -> (String, String) {
        who(&self.get(host, "/cgi-bin/who", "tail -n 1").ok())
    }

    #[track_caller]
    fn address_of(&self, pod: &str) -> String {
        self.kubectl.get(&["pod", pod])["status"]["podIP"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn service(&self, name: &str) -> String {
        self.kubectl.get(&["service", name])["spec"]["clusterIP"].as_str().unwrap().to_owned()
    }

    /// On the same node and on another, with the client's own address.
    fn pods_reach_pods(&self) {
        let client = self.address_of("client");
        for server in ["server-1", "server-2"] {
            let asked = self.asks(&format!("{}:8080", self.address_of(server)));
            assert_eq!(asked, (client.clone(), server.to_owned()));
        }
        let subnet = |address: &str| address.rsplit_once('.').unwrap().0.to_owned();
        assert_ne!(subnet(&client), subnet(&self.address_of("server-2")), "each node has a subnet of its own");
    }

    /// Both servers, also the one beside the client, and none of them sees another address than the client's.
    fn pods_reach_services(&self) {
        let (client, service) = (self.address_of("client"), self.service("both"));
        eventually("both servers have answered for their Service", SOON, || {
            let asked: Vec<_> = (0..8).map(|_| self.asks(&service)).collect();
            assert!(asked.iter().all(|(from, _)| *from == client), "{asked:?}");
            ["server-1", "server-2"].iter().all(|server| asked.iter().any(|(_, by)| by == server)).then_some(())
        });
    }

    fn a_service_without_endpoints_refuses(&self) {
        let nobody = self.service("nobody");
        let begun = Instant::now();
        let ended = self.get(&nobody, "/", "cat");
        let took = begun.elapsed();
        assert!(ended.code != Some(0) && ended.stderr.contains("Connection refused"), "{ended}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }

    /// From outside, through nodes that run a server and through one that does not.
    fn a_node_port_is_on_every_node(&self) {
        for node in std::iter::once(self.node).chain(self.workers) {
            eventually(&format!("{} answers at the node port", node.name), SOON, || {
                outside(&format!("{}:30080", node.address)).ok()
            });
        }
        // The one whose traffic stays on the node shows who really asks.
        let asked = outside(&format!("{}:30081", self.workers[1].address)).unwrap();
        assert_eq!(asked, (OUTSIDE.to_owned(), "server-2".to_owned()));
        let elsewhere = outside(&format!("{}:30081", self.workers[0].address));
        assert!(elsewhere.is_err(), "{elsewhere:?}");
    }

    fn a_host_port_is_on_its_node(&self) {
        let asked = outside(&format!("{}:18080", self.workers[0].address)).unwrap();
        assert_eq!(asked.1, "server-1");
        let elsewhere = outside(&format!("{}:18080", self.workers[1].address));
        assert!(elsewhere.is_err(), "{elsewhere:?}");
    }

    /// As the API server has to, for webhooks.
    fn the_controller_reaches_services(&self) {
        let url = format!("http://{}/cgi-bin/who", self.service("second"));
        let answer = self.node.exec(["busybox", "wget", "-qO-", &url]).ok();
        assert_eq!(who(&answer).1, "server-2");
    }

    fn packets_have_the_right_size(&self, mtu: usize) {
        let has = self.client(&["cat", "/sys/class/net/eth0/mtu"]).ok();
        assert_eq!(has.trim(), mtu.to_string());
        let server = self.address_of("server-2");
        let ping = self.client(&["ping", "-c", "2", "-W", "3", "-s", &(mtu - PING).to_string(), &server]).ok();
        assert!(ping.contains(" 0% packet loss"), "{ping}");
        let large = self.get(&format!("{server}:8080"), "/large", "wc -c").ok();
        assert!(large.trim().parse::<usize>().unwrap() > 3_000_000, "{large}");
    }
}

/// The two words of a server's answer.
fn who(answer: &str) -> (String, String) {
    let (from, by) = answer.trim().split_once(' ').unwrap_or_else(|| panic!("{answer:?}"));
    // An IPv4 address on a socket of IPv6.
    (from.trim_start_matches("[::ffff:").trim_end_matches(']').to_owned(), by.to_owned())
}

/// The same from this machine, which is no node.
fn outside(host: &str) -> Result<(String, String), String> {
    let mut wget = std::process::Command::new("busybox");
    wget.args(["wget", "-qO-", &format!("http://{host}/cgi-bin/who")]);
    let ended = crate::support::command::run(&mut wget, Duration::from_secs(5));
    if ended.code == Some(0) { Ok(who(&ended.stdout)) } else { Err(ended.stderr) }
}

/// While the control plane moves, not once; while its only controller is cut off and boots, as long as anybody else.
fn a_pod_is_not_cut_off(node: &Node, cluster: &Cluster) {
    let moved = asking(cluster, || {
        node.spawn(cluster.command("unpivot", &[])).wait(START_LIMIT).expect(0);
        cluster.started(node, &[]).expect(0);
    });
    for record in &moved {
        eprintln!("while it moved: {record}");
        assert_eq!(record.failures().count(), 0, "{record}");
    }
    let [pod, direct] = asking(cluster, || {
        node.power_cut();
        node.boot();
        let client = cluster.client();
        eventually("the API is back", SOON, || crate::support::controller::is_ready(&client).then_some(()));
        std::thread::sleep(Duration::from_secs(20));
    });
    eprintln!("while it was cut off, from a pod: {}\nand from outside: {}", pod.summary(), direct.summary());
    assert!(direct.failures().count() > 0, "nothing was cut: {direct}");
    // Each client counts from its own beginning.
    let since = |record: &Record, (at, lasted): (Duration, Duration)| (record.ready + at, record.ready + at + lasted);
    let away: Vec<_> = direct.outages().into_iter().map(|outage| since(&direct, outage)).collect();
    for outage in pod.outages() {
        let (from, to) = since(&pod, outage);
        let is_shared = away.iter().any(|(begun, ended)| *begun <= from + LAG && to <= *ended + LAG);
        assert!(is_shared, "cut off from {:?} for {:?}, and nobody else: {pod}\n{direct}", outage.0, outage.1);
    }
    // It ends when guard has lowered the bridge.
    cluster.started(node, &[]).expect(0);
    assert_serves_itself(node, cluster);
}

/// What a pod of a worker saw of the API by its Service, and what a client saw of it outside of the cluster.
fn asking(cluster: &Cluster, during: impl FnOnce()) -> [Record; 2] {
    let by_service = client_of_service(&cluster.assets);
    let both = [Traffic::begin_in(worker::pod_network(&ASKER), by_service), Traffic::begin(cluster.client())];
    std::thread::sleep(Duration::from_secs(2));
    during();
    std::thread::sleep(Duration::from_secs(3));
    both.map(|traffic| traffic.end().expect("the API was ready"))
}

fn client_of_service(assets: &Path) -> Client {
    Client::new(assets, SocketAddr::from(API))
}
