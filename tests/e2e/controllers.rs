//! Several controllers: made by a label on workers that joined by a token, unmade by taking it away. Real etcd members on
//! real nodes, with clients that never stop.

use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, START_LIMIT, declaration, render};
use crate::support::controller::{Controller, LATER, SOON};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::several::{self, LABEL, Member};

impl Controller {
    #[track_caller]
    pub fn until_made_of(&self, nodes: &[&Node]) {
        several::until_made_of(&self.cluster, nodes);
    }

    /// The addresses of the `kubernetes` Service that are ready.
    pub fn published(&self) -> Vec<String> {
        several::published(&self.kubectl)
    }
}

/// Three that are declared together and started without any order: one cluster, and not three.
#[test]
fn declared_controllers_start_in_any_order() {
    let nodes = ["declared-1", "declared-2", "declared-3"].map(Node::up);
    let [first, second, third] = &nodes;
    let cluster = Cluster::to_render(first, first.address);
    let mut text = declaration(first, first.address);
    let own = format!("- name: {}\n  address: {}\n", first.name, first.address);
    let others: String =
        [second, third].map(|node| format!("- name: {}\n  address: {}\n", node.name, node.address)).concat();
    assert_eq!(text.matches(&own).count(), 1);
    text = text.replace(&own, &(own.clone() + &others));
    render(&text, &cluster.assets).ok();

    // Of three members one alone has no majority: it waits for the next.
    let begun = Instant::now();
    let one = cluster.start(second, &[]);
    std::thread::sleep(Duration::from_secs(10));
    let two = cluster.start(first, &[]);
    two.wait(START_LIMIT).expect(0);
    one.wait(START_LIMIT).expect(0);
    eprintln!("two of three serve after {:.1?}", begun.elapsed());
    let [first, second, third] = nodes;
    let controller = Controller { kubectl: cluster.kubectl(), node: first, cluster };
    controller.has_guard();
    // For long enough that a member that is no controller would be removed, if it were to be.
    std::thread::sleep(Duration::from_secs(30));
    let names = |members: Vec<Member>| members.into_iter().map(|member| member.name).collect::<Vec<_>>();
    assert_eq!(names(several::members(&controller.node)), ["e2e-declared-1", "e2e-declared-2", "e2e-declared-3"]);

    let traffic = controller.traffic();
    controller.cluster.started(&third, &[]).expect(0);
    controller.until_made_of(&[&controller.node, &second, &third]);
    for component in ["kube-controller-manager", "kube-scheduler"] {
        eventually("each controller has its pod", LATER, || {
            let deployment = controller.kubectl.get(&["deployment", "-n", "kube-system", component]);
            (deployment["status"]["readyReplicas"] == 3).then_some(())
        });
    }
    controller.nothing_failed(traffic);
}

#[test]
fn a_label_makes_three_controllers_of_one_and_one_of_three() {
    let controller = Controller::up("many-1");
    let [second, third] = ["many-2", "many-3"].map(|name| several::candidate(name, &controller.cluster));
    let kubectl = &controller.kubectl;
    let kubeconfigs =
        |nodes: &[&Node]| -> Vec<_> { nodes.iter().map(|node| node.sh("cat /etc/kubernetes/kubelet.conf")).collect() };
    let before = kubeconfigs(&[&second, &third]);
    let traffic = controller.traffic();

    let begun = Instant::now();
    kubectl.run(&["label", "node", &second.name, &third.name, &format!("{LABEL}=")]).ok();
    controller.until_made_of(&[&controller.node, &second, &third]);
    eprintln!("from one controller to three: {:.1?}", begun.elapsed());
    for component in ["kube-controller-manager", "kube-scheduler"] {
        eventually("each controller has its pod", LATER, || {
            let pods = kubectl.list(&["pods", "-n", "kube-system", "-l", &format!("component={component}")]);
            let ready = pods.iter().filter(|pod| pod["status"]["containerStatuses"][0]["ready"] == true);
            let mut nodes: Vec<_> = ready.filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
            nodes.sort_unstable();
            (nodes == [&controller.node.name, &second.name, &third.name]).then_some(())
        });
    }
    assert!(kubeconfigs(&[&second, &third]) == before, "nobody's kubeconfig has changed");
    let there = "stat -c '%a %n' /etc/kubernetes/manifests/hoist-guard.yaml /var/lib/hoist/guard/bridge.json";
    let expected = "600 /etc/kubernetes/manifests/hoist-guard.yaml\n600 /var/lib/hoist/guard/bridge.json\n";
    assert_eq!(second.sh(there), expected);
    // Nothing of the first controller's alone is there.
    let copy = second.sh("cat /var/lib/hoist/guard/bridge.json");
    assert!(copy.contains("tls/ca.key") && !copy.contains("tls/etcd/e2e-many-1/"), "{} bytes", copy.len());
    controller.nothing_failed(traffic);

    a_dead_one_is_removed_by_deleting_its_node(&controller, &second, &third);

    let traffic = controller.traffic();
    kubectl.run(&["label", "node", &second.name, &format!("{LABEL}-")]).ok();
    controller.until_made_of(&[&controller.node]);
    eventually("nothing of a controller is left on its disk", LATER, || {
        let all = second.sh(
            "find /etc/kubernetes/manifests /etc/kubernetes/bridge /etc/kubernetes/pki/etcd /etc/kubernetes/pki/apiserver \
             /var/lib/etcd /var/lib/hoist/* 2>/dev/null || true",
        );
        let is_left = |path: &&str| !["/etc/kubernetes/manifests", "/var/lib/etcd"].contains(path);
        (!all.lines().any(|path| is_left(&path))).then_some(())
    });
    assert!(kubeconfigs(&[&second]) == before[..1], "nobody's kubeconfig has changed");
    // The first one minds it not.
    controller.has_guard();
    assert!(controller.is_lowered());
    controller.nothing_failed(traffic);
}

/// No power, for good. Whoever asks the `kubernetes` Service is not sent there for long.
fn a_dead_one_is_removed_by_deleting_its_node(controller: &Controller, second: &Node, third: &Node) {
    let traffic = controller.traffic();
    third.power_cut();
    let begun = Instant::now();
    eventually("its address is gone", SOON, || {
        let published = several::published(&controller.kubectl);
        (published.len() == 2 && !published.contains(&third.address.to_string())).then_some(())
    });
    eprintln!("its address was gone after {:.1?}", begun.elapsed());
    controller.kubectl.run(&["delete", "node", &third.name]).ok();
    controller.until_made_of(&[&controller.node, second]);
    // etcd may have had an election.
    controller.nothing_is_lost(traffic);
}
