//! What only hoist makes, taken away by hand: guard keeps it, or `hoist status` names it and `hoist start` puts it back. And the
//! last controller stays one.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Controller, LATER, SOON};
use crate::serving::assert_serves_itself;
use crate::support::command::Ended;
use crate::support::eventually;

const LABEL: &str = "node-role.kubernetes.io/control-plane";
/// Longer than guard would wait before it leaves.
const LONGER: Duration = Duration::from_secs(70);
/// "Within seconds", on a busy machine.
const SECONDS: Duration = Duration::from_secs(20);

impl Controller {
    fn hoist(&self, command: &str) -> Ended {
        self.node.exec(self.cluster.command(command, &[]))
    }

    fn has_event(&self, reason: &str) -> bool {
        let events = self.kubectl.list(&["events", "--field-selector", "involvedObject.kind=Node"]);
        events.iter().any(|event| event["reason"] == reason)
    }

    fn has_label(&self) -> bool {
        let node = self.kubectl.get(&["node", &self.node.name]);
        node["metadata"]["labels"].get(LABEL).is_some()
    }

    /// The addresses of the `kubernetes` Service: the slice's, and the legacy object's.
    fn addresses(&self) -> [Vec<String>; 2] {
        let object = |kind: &str| {
            let ended = self.kubectl.run(&["get", "-n", "default", kind, "kubernetes", "-o", "json"]);
            serde_json::from_str::<Value>(&ended.stdout).unwrap_or_default()
        };
        let texts = |values: Vec<Value>| values.iter().filter_map(|ip| Some(ip.as_str()?.to_owned())).collect();
        let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let slice = each(&object("endpointslice")["endpoints"]);
        let slice = slice.iter().flat_map(|endpoint| each(&endpoint["addresses"])).collect();
        let legacy = each(&object("endpoints")["subsets"]);
        let legacy = legacy.iter().flat_map(|subset| each(&subset["addresses"])).map(|one| one["ip"].clone()).collect();
        [texts(slice), texts(legacy)]
    }
}

/// What a command has shown has each of these.
#[track_caller]
fn shows(ended: &Ended, texts: &[&str]) {
    for text in texts {
        assert!(ended.stdout.contains(text) || ended.stderr.contains(text), "{text:?} is not shown: {ended}");
    }
}

#[test]
fn guard_stays_on_the_last_controller() {
    let controller = Controller::up("guard-last");
    let kubectl = &controller.kubectl;
    let node = format!("node/{}", controller.node.name);
    let traffic = controller.traffic();

    kubectl.run(&["label", &node, &format!("{LABEL}-")]).ok();
    let begun = Instant::now();
    // Without it, the DaemonSet has no pod here.
    controller.until_raised();
    kubectl.run(&["delete", "secret", "-n", "kube-system", "hoist-guard"]).ok();
    its_addresses_return(&controller);
    eventually("guard says that it stays", LATER, || controller.has_event("GuardStays").then_some(()));
    eventually("the Secret is back", LATER, || {
        (kubectl.run(&["get", "secret", "-n", "kube-system", "hoist-guard"]).code == Some(0)).then_some(())
    });
    std::thread::sleep(LONGER.saturating_sub(begun.elapsed()));
    assert!(controller.is_raised() && controller.is_served() && controller.metrics().is_some());
    assert!(!controller.has_label(), "an admin is not fought with");
    let command = format!("kubectl label node {} {LABEL}=", controller.node.name);
    shows(&controller.hoist("status").expect(1), &["the node has no label", &command]);

    kubectl.run(&["label", &node, &format!("{LABEL}=")]).ok();
    controller.until_lowered();
    controller.nothing_failed(traffic);
    what_is_gone_is_named_and_put_back(&controller);
    assert_serves_itself(&controller.node, &controller.cluster);
}

/// Deleted or emptied, or the legacy object alone: they are there again in seconds.
fn its_addresses_return(controller: &Controller) {
    let kubectl = &controller.kubectl;
    let own = controller.node.address.to_string();
    let whole = [vec![own.clone()], vec![own]];
    assert_eq!(controller.addresses(), whole);
    for act in [
        &["delete", "endpointslice", "-n", "default", "kubernetes"][..],
        &["patch", "endpointslice", "-n", "default", "kubernetes", "--type=merge", "-p", r#"{"endpoints":[]}"#],
        &["delete", "endpoints", "-n", "default", "kubernetes"],
    ] {
        kubectl.run(act).ok();
        eventually("the addresses are back", SECONDS, || (controller.addresses() == whole).then_some(()));
    }
}

fn what_is_gone_is_named_and_put_back(controller: &Controller) {
    let kubectl = &controller.kubectl;
    let gone = [
        ["clusterrolebinding", "hoist:guard", "ClusterRoleBinding hoist:guard is gone"],
        ["serviceaccount", "kube-scheduler", "ServiceAccount kube-system/kube-scheduler is gone"],
        ["configmap", "kubeadm-config", "ConfigMap kube-system/kubeadm-config is gone"],
    ];
    for [kind, name, _] in gone {
        kubectl.run(&["delete", kind, "-n", "kube-system", name]).ok();
    }
    shows(&controller.hoist("status").expect(1), &gone.map(|[.., said]| said));
    eventually("guard says what gives it its rights again", SOON, || {
        controller
            .guard_said()
            .contains("kubectl apply --server-side -f assets/manifests/hoist-guard/rbac.yaml")
            .then_some(())
    });
    let started = controller.cluster.started(&controller.node, &[]).expect(0);
    shows(&started, &["ClusterRoleBinding hoist:guard was not there"]);
    for [kind, name, _] in gone {
        kubectl.run(&["get", kind, "-n", "kube-system", name]).ok();
    }
    eventually("the cluster is healthy", SOON, || (controller.hoist("status").code == Some(0)).then_some(()));
}

/// A kubelet may not give its Node that label. Nobody else is there to do it.
#[test]
fn guard_gives_a_node_that_was_made_anew_its_label() {
    let controller = Controller::up("guard-anew");
    let kubectl = &controller.kubectl;
    let lease = format!("hoist-guard-{}", controller.node.name);
    eventually("guard's Lease knows the Node", SOON, || {
        let lease = kubectl.get(&["lease", "-n", "kube-system", &lease]);
        lease["metadata"]["annotations"].get("hoist/labelled-node-uid").map(drop)
    });
    let uid = |node: &Value| node["metadata"]["uid"].clone();
    let before = uid(&kubectl.get(&["node", &controller.node.name]));
    kubectl.run(&["delete", "node", &controller.node.name]).ok();
    controller.node.power_cut();
    controller.node.boot();

    let node = eventually("the Node has its label again", LATER, || {
        let ended = kubectl.run(&["get", "node", &controller.node.name, "-o", "json"]);
        let node: Value = serde_json::from_str(&ended.stdout).ok()?;
        node["metadata"]["labels"].get(LABEL).is_some().then_some(node)
    });
    assert_ne!(uid(&node), before, "it is another Node");
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    assert!(taints.iter().any(|taint| taint["key"] == LABEL && taint["effect"] == "NoSchedule"), "{taints:?}");
    controller.until_lowered();
    eventually("the node's events tell it", SOON, || controller.has_event("LabelRestored").then_some(()));
    // Pods of the Node that is gone are deleted by the controller manager, when it is there again.
    eventually("each component has one pod", LATER, || {
        let one = |component: &&str| {
            let labels = format!("component={component}");
            kubectl.list(&["pods", "-n", "kube-system", "-l", &labels]).len() == 1
        };
        ["kube-apiserver", "kube-controller-manager", "kube-scheduler"].iter().all(one).then_some(())
    });
    assert_serves_itself(&controller.node, &controller.cluster);
}
