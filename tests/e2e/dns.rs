//! Cluster DNS on a controller and a worker: names of the cluster and of the world, from a pod, through the cache of its node
//! and by CoreDNS itself, while either is replaced and while the controller is cut off.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::cluster::{Cluster, declaration, render};
use crate::support::dns::{Asked, ask_in, never_pause};
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::{eventually, worker};

const DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));
/// CoreDNS itself, by kube-proxy.
const COREDNS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 11));
const API: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// What the world's name server of this test answers.
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// The command of the pod that asks; no other process of this machine has it.
const ASKER: [&str; 2] = ["sleep", "86398"];
const API_NAME: &str = "kubernetes.default.svc.cluster.local";
const SOON: Duration = Duration::from_secs(60);
/// guard counts the nodes once a minute, and a pod takes its time.
const SCALED: Duration = Duration::from_secs(100);
/// Half a minute after the last renewal, the Service's address is kube-proxy's.
const FALLEN_BACK: Duration = Duration::from_secs(45);

fn at(server: IpAddr) -> SocketAddr {
    SocketAddr::new(server, 53)
}

#[test]
fn dns() {
    let (node, worker) = (Node::plain("dns"), Node::plain("dns-1"));
    let cluster = Cluster::to_render(&node, node.address);
    // The world's name server is a pod of the worker's, on its network.
    let upstream = format!("upstreams: [\"{}:5354\"]", worker.address);
    render(&declaration(&node, node.address).replace("upstreams: []", &upstream), &cluster.assets).ok();
    cluster.started(&node, &[]).expect(0);
    worker::join(&worker, &cluster);
    worker::is_ready(&worker, &cluster);
    let kubectl = cluster.kubectl();
    kubectl.apply(&objects(&worker));
    kubectl.run(&["wait", "--for=condition=Ready", "--timeout=120s", "pod", "--all"]).ok();
    kubectl.run(&["-n", "kube-system", "rollout", "status", "--timeout=120s", "daemonset/node-local-dns"]).ok();

    let all = All { node: &node, worker: &worker, kubectl: &kubectl };
    all.as_many_as_the_rule_says();
    all.every_kind_of_name();
    all.a_pod_needs_no_setting();
    all.coredns_rolls();
    all.the_cache_rolls();
    all.the_world_while_the_api_is_away(&cluster);
    all.what_is_known_without_coredns();
    // It puts back what is gone.
    node.exec(cluster.command("apply", &[])).expect(0);
    all.without_the_cache();
}

/// Who asks, whom the world asks, and a headless Service of the asker.
fn objects(worker: &Node) -> String {
    let (name, image) = (&worker.name, "docker.io/library/busybox:1.36");
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: client, labels: {{app: client}}}}
spec:
  nodeName: {name}
  hostname: client
  subdomain: headless
  terminationGracePeriodSeconds: 0
  containers: [{{name: client, image: "{image}", command: {ASKER:?}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: headless}}
spec: {{clusterIP: None, selector: {{app: client}}, ports: [{{port: 80}}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: world}}
data:
  Corefile: |
    .:5354 {{
        template IN A {{
            answer "{{{{ .Name }}}} 5 IN A {WORLD}"
        }}
    }}
---
apiVersion: v1
kind: Pod
metadata: {{name: world}}
spec:
  nodeName: {name}
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
  - name: world
    image: registry.k8s.io/coredns/coredns:v1.14.6
    args: [-conf, /etc/coredns/Corefile]
    volumeMounts: [{{name: config, mountPath: /etc/coredns}}]
  volumes: [{{name: config, configMap: {{name: world}}}}]
"#
    )
}

struct All<'a> {
    node: &'a Node,
    worker: &'a Node,
    kubectl: &'a Kubectl,
}

impl All<'_> {
    /// The Deployment names no number: guard follows the rule.
    fn as_many_as_the_rule_says(&self) {
        eventually("CoreDNS has two replicas, both ready", SCALED, || {
            let coredns = self.kubectl.get(&["-n", "kube-system", "deployment", "coredns"]);
            (coredns["status"]["readyReplicas"] == 2).then_some(())
        });
    }

    /// Asked in the pod's own network.
    fn in_the_pod(&self, server: IpAddr, name: &str) -> Result<Vec<Ipv4Addr>, String> {
        ask_in(worker::pod_network(&ASKER), at(server), name)
    }

    fn every_kind_of_name(&self) {
        let pod = self.kubectl.get(&["pod", "client"])["status"]["podIP"].as_str().unwrap().parse().unwrap();
        for server in [DNS, COREDNS] {
            for (name, expected) in [
                (API_NAME, API),
                ("headless.default.svc.cluster.local", pod),
                ("client.headless.default.svc.cluster.local", pod),
                ("www.example.com", WORLD),
            ] {
                eventually(&format!("{name} at {server}"), SOON, || {
                    (self.in_the_pod(server, name) == Ok(vec![expected])).then_some(())
                });
            }
            let nobody = self.in_the_pod(server, "nobody.default.svc.cluster.local");
            assert!(nobody.as_ref().is_err_and(|why| why.contains("NXDOMAIN")), "{nobody:?}");
        }
    }

    /// By the resolver of its image, which knows what the kubelet has told it.
    fn a_pod_needs_no_setting(&self) {
        let said = self.kubectl.run(&["exec", "client", "--", "nslookup", "kubernetes.default.svc.cluster.local"]).ok();
        assert!(said.contains(&DNS.to_string()) && said.contains(&API.to_string()), "{said}");
        // It is the cache of its own node that has answered.
        let asked = || {
            let metrics = "wget -qO- http://127.0.0.1:9253/metrics | grep '^coredns_dns_requests_total' | awk '{n += $NF} END {print n}'";
            self.worker.exec(["busybox", "sh", "-c", metrics]).ok().trim().parse::<f64>().unwrap()
        };
        let before = asked();
        assert_eq!(self.in_the_pod(DNS, API_NAME), Ok(vec![API]));
        assert!(asked() > before, "{before}");
    }

    /// What two that never pause see of something: one by the cache, one by CoreDNS itself.
    fn lookups(&self, names: [&'static str; 2], during: impl FnOnce()) -> [Asked; 2] {
        let [cached, direct] = names;
        let asking = [(DNS, cached), (COREDNS, direct)];
        let asking = asking.map(|(server, name)| never_pause(worker::pod_network(&ASKER), at(server), name));
        std::thread::sleep(Duration::from_secs(1));
        during();
        std::thread::sleep(Duration::from_secs(1));
        asking.map(|asking| {
            let asked = asking.end();
            eprintln!(
                "{} lookups answered, {} not: {:?}",
                asked.took.len(),
                asked.failures.len(),
                asked.failures.first()
            );
            asked
        })
    }

    fn rolled(&self, what: &str) {
        self.kubectl.run(&["-n", "kube-system", "rollout", "restart", what]).ok();
        self.kubectl.run(&["-n", "kube-system", "rollout", "status", "--timeout=180s", what]).ok();
    }

    fn coredns_rolls(&self) {
        for asked in self.lookups([API_NAME, API_NAME], || self.rolled("deployment/coredns")) {
            assert!(asked.failures.is_empty() && asked.took.len() > 100, "{:?}", asked.failures);
        }
    }

    fn the_cache_rolls(&self) {
        let [cached, _] = self.lookups([API_NAME, API_NAME], || self.rolled("daemonset/node-local-dns"));
        assert!(cached.failures.is_empty() && cached.took.len() > 100, "{:?}", cached.failures);
    }

    /// The worker goes on while its only controller is off.
    fn the_world_while_the_api_is_away(&self, cluster: &Cluster) {
        let [cached, _] = self.lookups(["www.example.com", API_NAME], || {
            self.node.power_cut();
            std::thread::sleep(Duration::from_secs(10));
        });
        assert!(cached.failures.is_empty() && cached.took.len() > 100, "{:?}", cached.failures);
        self.node.boot();
        let client = cluster.client();
        eventually("the API is back", SOON, || crate::support::controller::is_ready(&client).then_some(()));
        worker::is_ready(self.node, cluster);
    }

    fn what_is_known_without_coredns(&self) {
        // The cache has to learn first which of CoreDNS is there again after the power cut.
        eventually("the name is known", SOON, || (self.in_the_pod(DNS, API_NAME) == Ok(vec![API])).then_some(()));
        self.kubectl.run(&["-n", "kube-system", "delete", "deployment", "coredns", "--cascade=foreground"]).ok();
        eventually("CoreDNS is gone", SOON, || self.in_the_pod(COREDNS, API_NAME).err());
        // Longer than an answer is good for, which is 30 s.
        std::thread::sleep(Duration::from_secs(31));
        assert_eq!(self.in_the_pod(DNS, API_NAME), Ok(vec![API]));
        assert_eq!(self.in_the_pod(DNS, "new.example.com"), Ok(vec![WORLD]));
    }

    /// Killed, it leaves its address to kube-proxy until it is back; taken away, for good.
    fn without_the_cache(&self) {
        self.kubectl.run(&["-n", "kube-system", "rollout", "status", "--timeout=120s", "deployment/coredns"]).ok();
        let kill = "pkill -KILL -f '^/coredns -conf /etc/node-local-dns/Corefile'";
        let [cached, _] = self.lookups([API_NAME, API_NAME], || {
            self.worker.sh(kill);
            std::thread::sleep(Duration::from_secs(5));
        });
        assert!(cached.failures.iter().all(|(at, _)| *at < Duration::from_secs(4)), "{:?}", cached.failures);
        self.kubectl.run(&["-n", "kube-system", "delete", "daemonset", "node-local-dns", "--cascade=foreground"]).ok();
        eventually("the address is CoreDNS's again", FALLEN_BACK, || self.in_the_pod(DNS, API_NAME).ok());
    }
}
