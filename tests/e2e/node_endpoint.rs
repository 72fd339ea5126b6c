//! The endpoint on every node: what a node's own clients ask stays when controllers come and go, the first one for good
//! included.

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, declaration, render};
use crate::support::command::run;
use crate::support::controller::{Controller, LATER, SOON};
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::{eventually, hoist, worker};

const LABEL: &str = "node-role.kubernetes.io/control-plane";
const ENDPOINT: &str = "https://127.0.0.1:7443";
/// What a node's clients go by.
const KUBECONFIGS: &str = "cd /etc/kubernetes; sha256sum kubelet.conf $(ls bootstrap-kubelet.conf 2>/dev/null || true)";
/// What asks from each node, as `ss` names it.
const CLIENTS: [&str; 3] = ["flanneld", "kube-proxy", "kubelet"];

/// A declaration with an endpoint on each node.
fn declared(node: &Node, node_local: bool) -> String {
    format!("{}endpoint: {{nodeLocal: {node_local}}}\n", declaration(node, node.address))
}

/// A cluster of one controller with or without endpoints.
fn up(name: &str, node_local: bool) -> Controller {
    let node = Node::plain(name);
    let cluster = Cluster::to_render(&node, node.address);
    render(&declared(&node, node_local), &cluster.assets).ok();
    let begun = Instant::now();
    let controller = Controller::start(node, cluster);
    eprintln!("with endpoints: {node_local}: up after {:.1?}", begun.elapsed());
    controller
}

/// A worker that joined through its own endpoint.
pub fn joined(name: &str, controller: &Controller) -> Node {
    let node = Node::plain(name);
    worker::unpack(&node, &controller.cluster);
    node.sh("systemctl enable --now kubelet");
    let begun = Instant::now();
    worker::is_ready(&node, &controller.cluster);
    eprintln!("{} is ready after {:.1?}", node.name, begun.elapsed());
    node
}

/// kubectl by the API server of this node.
fn kubectl_by(controller: &Controller, address: IpAddr) -> Kubectl {
    let kubeconfig = std::fs::read_to_string(controller.cluster.assets.join("auth/kubeconfig")).unwrap();
    let path = controller.cluster.assets.with_extension(format!("{address}.kubeconfig"));
    std::fs::write(&path, kubeconfig.replace(&controller.cluster.address.to_string(), &address.to_string())).unwrap();
    Kubectl::new(&controller.node.kubernetes, &path)
}

/// A new pod runs there, and its logs are read.
#[track_caller]
fn runs_pods(kubectl: &Kubectl, node: &Node, name: &str) {
    worker::says_hello(kubectl, node, name, Duration::from_secs(110));
    eventually("its logs are read", SOON, || kubectl.run(&["logs", name]).stdout.contains("hello").then_some(()));
    kubectl.run(&["delete", "pod", name, "--wait=false"]).ok();
}

/// Its kubelet renews its Lease, again and again.
#[track_caller]
fn is_renewed(kubectl: &Kubectl, node: &Node) {
    let renewed = || {
        let args = ["get", "lease", "-n", "kube-node-lease", &node.name, "-o", "jsonpath={.spec.renewTime}"];
        kubectl.run(&args).stdout
    };
    for _ in 0..2 {
        let before = renewed();
        eventually("the worker's Lease is renewed", SOON, || {
            let now = renewed();
            (!now.is_empty() && now != before).then_some(())
        });
    }
}

#[track_caller]
fn is_ready(kubectl: &Kubectl, name: &str) {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    eventually(&format!("{name} is ready"), LATER, || {
        (kubectl.run(&["get", "node", name, "-o", path]).stdout == "True").then_some(())
    });
}

/// The static pod of the node's endpoint is ready: an API server has answered through it.
#[track_caller]
fn has_endpoint(kubectl: &Kubectl, node: &Node) {
    let args = ["wait", "-n", "kube-system", "--for=condition=Ready", "--timeout=60s"];
    eventually("the endpoint's mirror pod is there", SOON, || {
        let name = format!("pod/hoist-endpoint-{}", node.name);
        (kubectl.run(&["get", "-n", "kube-system", &name]).code == Some(0)).then_some(())
    });
    kubectl.run(&[&args[..], &[&format!("pod/hoist-endpoint-{}", node.name)]].concat()).ok();
}

/// kube-proxy and flannel are rolled out as they are declared.
#[track_caller]
fn network_is_rolled_out(kubectl: &Kubectl) {
    for (namespace, name) in [("kube-system", "kube-proxy"), ("kube-flannel", "kube-flannel-ds")] {
        let set = format!("daemonset/{name}");
        kubectl.run(&["rollout", "status", "-n", namespace, "--timeout=110s", &set]).ok();
    }
}

/// The node's own clients ask at its endpoint, or elsewhere, and nowhere else.
#[track_caller]
fn clients_ask(node: &Node, at_endpoint: bool) {
    let connected = |port: u16| {
        let said = node.sh(&format!("ss -Htnp state established '( dport = :{port} )'"));
        CLIENTS.into_iter().filter(|client| said.contains(&format!("((\"{client}\""))).collect::<Vec<_>>()
    };
    let (here, elsewhere) = if at_endpoint { (7443, 6443) } else { (6443, 7443) };
    eventually(&format!("the clients of {} ask at port {here}", node.name), SOON, || {
        (connected(here) == CLIENTS && connected(elsewhere).is_empty()).then_some(())
    });
}

#[test]
fn node_endpoint() {
    let controller = up("ne-1", true);
    let kubectl = &controller.kubectl;
    has_endpoint(kubectl, &controller.node);
    let [second, third, node] = ["ne-2", "ne-3", "ne-w"].map(|name| joined(name, &controller));
    let all = [&controller.node, &second, &third, &node];
    for node in all {
        has_endpoint(kubectl, node);
        assert!(node.sh("cat /etc/kubernetes/kubelet.conf").contains(ENDPOINT), "{}", node.name);
    }
    network_is_rolled_out(kubectl);
    all.into_iter().for_each(|node| clients_ask(node, true));
    runs_pods(kubectl, &node, "before");
    let maps = ["configmaps", "-A", "-l", "app.kubernetes.io/managed-by=hoist", "-o", "jsonpath={.items[*].data}"];
    let seen = |kubectl: &Kubectl, nodes: &[&Node]| {
        let files: Vec<_> = nodes.iter().map(|node| node.sh(KUBECONFIGS)).collect();
        (files, kubectl.run(&[&["get"], &maps[..]].concat()).ok())
    };
    let before = seen(kubectl, &all);

    let begun = Instant::now();
    kubectl.run(&["label", "node", &second.name, &third.name, &format!("{LABEL}=")]).ok();
    controller.until_made_of(&[&controller.node, &second, &third]);
    eprintln!("from one controller to three: {:.1?}", begun.elapsed());
    assert!(seen(kubectl, &all) == before, "no kubeconfig has changed");
    let known = "cat /var/lib/hoist/endpoint/targets";
    eventually("the worker's endpoint has learned of all three", SOON, || {
        let text = node.sh(known);
        let addresses = [&controller.node, &second, &third].map(|node| format!("{}:6443", node.address));
        addresses.iter().all(|address| text.contains(address)).then_some(())
    });

    // For good: the controller through which all of them have joined.
    let other = kubectl_by(&controller, second.address);
    controller.node.power_cut();
    let begun = Instant::now();
    is_renewed(&other, &node);
    eprintln!("the worker's Lease was renewed twice in {:.1?} after the first controller's power cut", begun.elapsed());
    std::thread::sleep(Duration::from_secs(60).saturating_sub(begun.elapsed()));
    is_ready(&other, &node.name);
    let name = controller.node.name.clone();
    eventually("the first one is missed", LATER, || {
        let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        (other.run(&["get", "node", &name, "-o", path]).stdout == "Unknown").then_some(())
    });
    other.run(&["delete", "node", &name]).ok();
    runs_pods(&other, &node, "without-the-first");

    // A boot that never meets the first one.
    node.power_cut();
    node.boot();
    let begun = Instant::now();
    is_renewed(&other, &node);
    is_ready(&other, &node.name);
    eprintln!("a worker that boots without the first controller is back after {:.1?}", begun.elapsed());
    has_endpoint(&other, &node);
    runs_pods(&other, &node, "after-the-boot");
    let left = [&second, &third, &node];
    assert!(seen(&other, &left).0 == before.0[1..], "no kubeconfig has changed");
    left.into_iter().for_each(|node| clients_ask(node, true));

    // One that is a controller no more is a worker as before.
    other.run(&["label", "node", &third.name, &format!("{LABEL}-")]).ok();
    eventually("the third is a worker again", LATER, || {
        third.sh("ls /etc/kubernetes/manifests").lines().eq(["hoist-endpoint.yaml"]).then_some(())
    });
    third.sh("systemctl restart kubelet");
    is_renewed(&other, &third);
    has_endpoint(&other, &third);
    runs_pods(&other, &third, "a-worker-again");
    assert!(seen(&other, &left).0 == before.0[1..], "no kubeconfig has changed");
    one_more_is_made(&other, &second, &node);
    assert!(seen(&other, &left).0 == before.0[1..], "no kubeconfig has changed");
}

/// What its guard is told names the first controller, which is gone: it finds the API by the endpoint of its node.
fn one_more_is_made(kubectl: &Kubectl, second: &Node, node: &Node) {
    // The one that left may have had the only scheduler.
    eventually("the scheduler is there again", LATER, || {
        let ready =
            ["get", "deployment", "-n", "kube-system", "kube-scheduler", "-o", "jsonpath={.status.readyReplicas}"];
        (kubectl.run(&ready).stdout == "1").then_some(())
    });
    let begun = Instant::now();
    kubectl.run(&["label", "node", &node.name, &format!("{LABEL}=")]).ok();
    let mut wanted = [second.address.to_string(), node.address.to_string()];
    wanted.sort();
    eventually("a worker becomes a controller without the first one", LATER, || {
        let slice =
            ["get", "endpointslice", "-n", "default", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[0]}"];
        let mut published: Vec<_> = kubectl.run(&slice).stdout.split_whitespace().map(str::to_owned).collect();
        published.sort();
        (published == wanted).then_some(())
    });
    eprintln!("a controller is made without the first one in {:.1?}", begun.elapsed());
}

/// What docs/endpoint.md has for a kubelet that is to ask at `server`.
fn lead(node: &Node, server: &str) {
    if server == ENDPOINT {
        node.sh(
            "for i in $(seq 50); do curl -sfk https://127.0.0.1:7443/readyz >/dev/null && exit; sleep 1; done; exit 1",
        );
    }
    node.sh(&format!(
        "cd /etc/kubernetes
        sed -i 's#^    server: .*#    server: {server}#' kubelet.conf $(ls bootstrap-kubelet.conf 2>/dev/null || true)
        systemctl restart kubelet"
    ));
}

/// kubeadm, with what docs/endpoint.md says of it.
fn joins_by_kubeadm(controller: &Controller, node: &Node) {
    let cluster = &controller.cluster;
    let mut command = Command::new(hoist());
    command.args(["token", "create", "--print-join", "--asset-dir"]).arg(&cluster.assets);
    let printed = run(&mut command, SOON).ok();
    let line = printed.lines().find(|line| line.starts_with("kubeadm join ")).unwrap();
    let manifest = cluster.assets.join("bootstrap-manifests/hoist-endpoint.yaml");
    node.sh(&format!(
        "rm -rf /etc/systemd/system/kubelet.service /etc/systemd/system/kubelet.service.d /etc/default/kubelet /etc/sysconfig/kubelet
        systemctl daemon-reload
        mkdir -p /etc/kubernetes/manifests /var/lib/hoist/bin
        cp {} /var/lib/hoist/bin/hoist
        cp {} /etc/kubernetes/manifests/",
        hoist().display(),
        manifest.display()
    ));
    // Of a test node, more is not as kubeadm likes it than this folder.
    let join = format!("timeout 100 {line} --node-name {} --ignore-preflight-errors=all", node.name);
    let joined = node.spawn(["sh", "-c", &join]).wait(LATER);
    assert_eq!(joined.code, Some(0), "{joined}");
    lead(node, ENDPOINT);
    is_ready(&controller.kubectl, &node.name);
    has_endpoint(&controller.kubectl, node);
    clients_ask(node, true);
    runs_pods(&controller.kubectl, node, "by-kubeadm");
}

/// On and off again in a cluster that runs, and the clients of the API notice nothing.
#[test]
fn node_endpoint_switch() {
    let controller = up("ne-s1", false);
    let (kubectl, cluster, own) = (&controller.kubectl, &controller.cluster, &controller.node);
    let node = joined("ne-s2", &controller);
    let kubelets = || {
        let server = "sed -n 's/^ *server: *//p' /etc/kubernetes/kubelet.conf | tr -d '\"'";
        [own, &node].map(|node| node.sh(server).trim().to_owned())
    };
    let direct = format!("https://{}:6443", cluster.address);
    assert_eq!(kubelets(), [direct.as_str(); 2]);
    let proxy = || kubectl.run(&["get", "configmap", "-n", "kube-system", "kube-proxy", "-o", "jsonpath={.data}"]).ok();
    let traffic = controller.traffic();

    render(&declared(own, true), &cluster.assets).ok();
    let begun = Instant::now();
    let mut start = cluster.start(own, &[]);
    let waits = format!("it does not answer on {}", node.name);
    eventually("start waits for the worker", SOON, || start.said().contains(&waits).then_some(()));
    std::thread::sleep(Duration::from_secs(5));
    assert!(!start.has_ended() && kubelets() == [direct.as_str(); 2] && proxy().contains(&direct));
    worker::unpack(&node, cluster);
    node.sh("systemctl restart kubelet");
    lead(&node, ENDPOINT);
    start.wait(LATER).expect(0);
    eprintln!("switched on in {:.1?}", begun.elapsed());
    assert_eq!(kubelets(), [ENDPOINT; 2]);
    assert!(proxy().contains(ENDPOINT));
    network_is_rolled_out(kubectl);
    [own, &node].into_iter().for_each(|node| clients_ask(node, true));
    runs_pods(kubectl, &node, "switched-on");
    cluster.started(own, &[]).expect(0);
    let third = Node::plain("ne-s3");
    joins_by_kubeadm(&controller, &third);

    render(&declared(own, false), &cluster.assets).ok();
    let begun = Instant::now();
    cluster.started(own, &[]).expect(0);
    eprintln!("switched off in {:.1?}", begun.elapsed());
    assert!(!controller.manifests().contains(&"hoist-endpoint.yaml".to_owned()));
    for node in [&node, &third] {
        lead(node, &direct);
        node.sh("rm /etc/kubernetes/manifests/hoist-endpoint.yaml");
    }
    for node in [own, &node, &third] {
        eventually("nobody listens any more", SOON, || node.sh("ss -Htln sport = :7443").is_empty().then_some(()));
        is_renewed(kubectl, node);
        clients_ask(node, false);
    }
    network_is_rolled_out(kubectl);
    runs_pods(kubectl, &node, "switched-off");
    runs_pods(kubectl, &third, "off-by-kubeadm");
    assert_eq!(kubelets(), [direct.as_str(); 2]);
    controller.nothing_failed(traffic);
}

/// The only controller, after power cuts: its endpoint is one more process at a boot, and holds nothing up.
#[test]
fn node_endpoint_boot() {
    const BOOTS: usize = 3;
    let best = |node_local: bool| {
        let controller = up("ne-b1", node_local);
        let boot = |_| {
            controller.until_lowered();
            controller.node.power_cut();
            controller.node.boot();
            let begun = Instant::now();
            eventually("the API is served", LATER, || controller.is_served().then_some(()));
            let served = begun.elapsed();
            is_renewed(&controller.kubectl, &controller.node);
            let renewed = begun.elapsed();
            controller.until_lowered();
            eprintln!(
                "with endpoints: {node_local}: served {served:.1?} after the boot, the kubelet's Lease renewed twice after {renewed:.1?}, the bridge lowered after {:.1?}",
                begun.elapsed()
            );
            served
        };
        let best = (0..BOOTS).map(boot).min().unwrap();
        if node_local {
            has_endpoint(&controller.kubectl, &controller.node);
            clients_ask(&controller.node, true);
        }
        best
    };
    let (without, with) = (best(false), best(true));
    // What a busy machine adds to the best of a few; a kubelet that waits for somebody in vain takes longer.
    assert!(with < without + Duration::from_secs(5), "{with:.1?} with it, {without:.1?} without");
}
