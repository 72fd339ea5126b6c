//! Clients of a tenant that never stop, while what carries it is worked on: its API server's pods are deleted one by one, and
//! the meta cluster is unpivoted, started again, edited badly and without its controller.

use std::time::Duration;

use serde_json::Value;

use super::{Meta, NAMESPACE, Tenant, declaration};
use crate::support::cluster::Cluster;
use crate::support::controller::{Controller, LATER, NO_IMAGE};
use crate::support::node::Node;
use crate::support::traffic::{PREFIX, Record, Traffic};
use crate::support::{eventually, worker};

/// What the API server's pods of the tenant are found by.
const PODS: [&str; 5] = ["-n", NAMESPACE, "-l", "component=kube-apiserver,hoist.dev/tenant=a", "pods"];
/// How long `unpivot` and `start` may take on a busy machine.
const START: Duration = Duration::from_secs(600);
/// How long the controller is without power.
const DARK: Duration = Duration::from_secs(60);

#[test]
fn hosting_traffic() {
    let node = Node::plain("hosting-c");
    let cluster = Cluster::render(&node);
    let controller = Controller::start(node, cluster);
    let carrier = worker::up("hosting-cw", &controller.cluster);
    worker::is_ready(&carrier, &controller.cluster);
    let meta = Meta { controller };
    meta.is_installed();
    carrier.sh(&format!("mkdir -p {}", super::FOLDER));
    let tenant = meta.comes_up_as("a", &meta.carried_by(&carrier, 1)).0;
    let pods = meta.kubectl().list(&["-n", NAMESPACE, "-l", "hoist.dev/tenant=a", "pods"]);
    assert!(pods.iter().all(|pod| pod["spec"]["nodeName"] == *carrier.name), "the tenant's pods run on the worker");

    // One API server, and then each of two.
    meta.under_traffic(&tenant, "its only API server's pod is deleted", || meta.each_pod_is_deleted());
    meta.kubectl().apply(&meta.carried_by(&carrier, 2));
    meta.is_ready("a");
    meta.under_traffic(&tenant, "each of its two API servers' pods is deleted", || meta.each_pod_is_deleted());

    let Controller { node, cluster, .. } = &meta.controller;
    meta.under_traffic(&tenant, "the meta cluster is unpivoted and started again", || {
        node.spawn(cluster.command("unpivot", &[])).wait(START).expect(0);
        cluster.started(node, &[]).expect(0);
    });
    meta.under_traffic(&tenant, "the meta cluster's API server is edited badly", || {
        meta.controller.edit_badly(|| meta.controller.set_image(NO_IMAGE));
        eventually("guard's bridge serves the meta cluster", LATER, || {
            (meta.controller.is_raised() && meta.controller.is_served()).then_some(())
        });
        meta.controller.undo();
        meta.controller.until_lowered();
    });
    meta.under_traffic(&tenant, "the meta cluster's controller is without power", || {
        node.power_cut();
        std::thread::sleep(DARK);
        node.boot();
        meta.controller.until_lowered();
        // What the controllers of the meta cluster make of a worker that was not heard of for so long.
        std::thread::sleep(DARK);
    });
    meta.is_ready("a");
}

impl Meta {
    /// The tenant `a` on a worker of the meta cluster, which has all of it.
    fn carried_by(&self, carrier: &Node, replicas: u32) -> String {
        let own = &self.controller.node;
        let text = declaration(
            self,
            "a",
            &format!("  replicas: {replicas}\n  nodeSelector: {{kubernetes.io/hostname: {}}}\n", carrier.name),
        );
        text.replace(&format!("address: {}", own.address), &format!("address: {}", carrier.address))
            .replace(&format!("{{node: {},", own.name), &format!("{{node: {},", carrier.name))
    }

    /// None of the requests that a client of the tenant makes meanwhile fails, and none of its writes is lost.
    #[track_caller]
    pub(super) fn under_traffic(&self, tenant: &Tenant, what: &str, act: impl FnOnce()) -> Record {
        let traffic = Traffic::begin(tenant.client());
        std::thread::sleep(Duration::from_secs(2));
        act();
        std::thread::sleep(Duration::from_secs(3));
        let record = traffic.end().unwrap();
        eprintln!("{what}: {record}");
        assert!(record.exchanges.len() > 500, "{record}");
        assert_eq!(record.failures().count(), 0, "{what}: {record}");
        tenant.has_all_of(&record);
        record
    }

    /// One after the other, each once a successor serves and it is gone.
    fn each_pod_is_deleted(&self) {
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
        let is_ready = |pod: &Value| {
            let all = pod["status"]["conditions"].as_array().into_iter().flatten();
            all.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
        };
        let before: Vec<_> = self.kubectl().list(&PODS).iter().map(name).collect();
        for pod in &before {
            self.kubectl().run(&["-n", NAMESPACE, "delete", "pod", "--wait=false", pod]).ok();
            eventually("another pod serves, and the old one is gone", LATER, || {
                let now = self.kubectl().list(&PODS);
                let is_done = now.len() == before.len() && now.iter().all(|one| name(one) != *pod && is_ready(one));
                is_done.then_some(())
            });
        }
    }
}

impl Tenant {
    /// Every write that was acknowledged is there.
    #[track_caller]
    pub(super) fn has_all_of(&self, record: &Record) {
        let said = self.kubectl.run(&["get", "configmaps", "-o", "name"]).ok();
        let there: std::collections::BTreeSet<_> =
            said.lines().filter_map(|line| line.strip_prefix("configmap/")).collect();
        let acknowledged = record.acknowledged();
        assert!(acknowledged.iter().all(|name| name.starts_with(PREFIX)));
        let lost: Vec<_> = acknowledged.iter().filter(|name| !there.contains(**name)).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), acknowledged.len());
    }
}
