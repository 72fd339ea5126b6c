//! Two tenants that are made while the operator that leads is killed; what each has applied in it, and what neither reaches
//! of the other one and of the cluster that carries them.

use super::{Meta, NAMESPACE, declaration};
use crate::support::cluster::Cluster;
use crate::support::controller::{Controller, LATER};
use crate::support::eventually;
use crate::support::node::Node;

#[test]
fn hosting_of_two_tenants() {
    let node = Node::plain("hosting-t");
    let cluster = Cluster::render(&node);
    let meta = Meta { controller: Controller::start(node, cluster) };
    meta.is_installed();
    meta.the_leader_is_killed_while_tenants_come_up();
    let a = meta.comes_up("a").0;
    let b = meta.comes_up("b").0;
    meta.neither_reaches_the_other(&a, &b);
    meta.the_operator_may_no_more_than_it_needs();
    meta.add_ons_are_applied(&a);
    meta.one_command_applies(&a);
}

impl Meta {
    pub(super) fn holder(&self) -> String {
        let lease = self.kubectl().run(&[
            "-n",
            "hoist-hosting",
            "get",
            "lease",
            "hoist-operator",
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ]);
        // Its pod, and what tells one process in it from the next.
        lease.stdout.trim().split('_').next().unwrap().to_owned()
    }

    /// The other operator continues with the same keys; nothing is made twice.
    fn the_leader_is_killed_while_tenants_come_up(&self) {
        let kubectl = self.kubectl();
        let leader = eventually("an operator leads", LATER, || Some(self.holder()).filter(|name| !name.is_empty()));
        for name in ["a", "b"] {
            kubectl.apply(&declaration(self, name, ""));
        }
        let ca = eventually("the keys of a are made", LATER, || {
            let path = "jsonpath={.data.ca\\.crt}";
            let said = kubectl.run(&["-n", NAMESPACE, "get", "secret", "a-pki", "-o", path]).stdout;
            (!said.is_empty()).then_some(said)
        });
        let is_ready = |name: &str| self.condition(name, "Ready").is_some_and(|(status, ..)| status == "True");
        assert!(!is_ready("a") || !is_ready("b"), "the leader is killed while they come up");
        kubectl.run(&["-n", "hoist-hosting", "delete", "pod", &leader, "--force", "--grace-period=0"]).ok();
        for name in ["a", "b"] {
            self.is_ready(name);
        }
        let next = self.holder();
        eprintln!("{leader} led, and then {next}");
        assert_ne!(next, leader);
        let path = "jsonpath={.data.ca\\.crt}";
        assert_eq!(kubectl.run(&["-n", NAMESPACE, "get", "secret", "a-pki", "-o", path]).stdout, ca);
        let sets = kubectl.list(&["-n", NAMESPACE, "statefulsets,deployments"]);
        assert_eq!(sets.len(), 8, "four workloads for each of two");
    }
}
