//! Snapshots of a tenant's etcd on a schedule, and one of them restored by an edit, while a worker of the tenant runs on.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{FOLDER, Meta, NAMESPACE, Tenant, declaration};
use crate::support::cluster::Cluster;
use crate::support::controller::{Controller, LATER};
use crate::support::node::Node;
use crate::support::{eventually, worker};

/// Where snapshots are on the controller.
const SNAPSHOTS: &str = "/var/lib/snapshots";
/// A snapshot that a user put there, first by name.
const GOLDEN: &str = "0-golden.snapshot";
/// A snapshot is taken every minute, and a busy node takes its time.
const TAKEN: Duration = Duration::from_secs(180);
/// How many writes there are before the snapshot that is restored.
const WRITES: usize = 120;

#[test]
fn hosting_snapshots() {
    let node = Node::plain("hosting-s");
    let cluster = Cluster::render(&node);
    let meta = Meta { controller: Controller::start(node, cluster) };
    meta.is_installed();
    meta.controller.node.sh(&format!("mkdir -p {SNAPSHOTS}"));
    let tenant = meta.comes_up("a").0;
    let worker = meta.worker(&tenant, "hosting-sw");
    worker::says_hello(&tenant.kubectl, &worker, "hello", LATER);
    let before = tenant.as_its_worker_is(&worker);

    let kept = tenant.writes("kept", WRITES);
    let now = meta.controller.node.sh("date -u +%Y-%m-%dt%H-%M-%Sz");
    meta.kubectl().apply(&meta.with_snapshots(""));
    let snapshot = eventually("a snapshot is taken after the writes", TAKEN, || {
        let last = meta.get("a")["status"]["lastSnapshot"].as_str()?.to_owned();
        (last.as_str() > now.trim()).then_some(last)
    });
    meta.controller.node.sh(&format!("cd $(dirname $(find {SNAPSHOTS} -name {snapshot})); cp {snapshot} {GOLDEN}"));
    let late = tenant.writes("late", 20);
    tenant.kubectl.run(&["delete", "configmap", "kept-0", "kept-1"]).ok();

    let begun = Instant::now();
    meta.kubectl().apply(&meta.with_snapshots(&format!("  restoreFrom: {snapshot}\n")));
    eventually("the snapshot is restored", TAKEN, || {
        (meta.get("a")["status"]["restoredFrom"] == *snapshot).then_some(())
    });
    meta.is_ready("a");
    eprintln!("from the edit until {snapshot} is restored and the tenant is ready: {:.1?}", begun.elapsed());
    let there = tenant.maps();
    let lost: Vec<_> = kept.iter().filter(|name| !there.contains(name)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), kept.len());
    assert!(late.iter().all(|name| !there.contains(name)), "what was written after the snapshot is gone");
    eprintln!("{} writes were acknowledged before the snapshot, and all of them are there", kept.len());
    assert_eq!(tenant.as_its_worker_is(&worker), before, "the worker, its kubelet and its pod are the same");
    worker::says_hello(&tenant.kubectl, &worker, "again", LATER);

    meta.is_restored_once(&snapshot);
    meta.is_restored_again(&tenant);
    meta.what_cannot_be_restored_is_said(&tenant);
    meta.snapshots_end();
}

/// A pod with the labels of an API server, which ends at once and stays.
fn evicted(node: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: evicted, namespace: {NAMESPACE}, labels: {{hoist.dev/tenant: a, component: kube-apiserver}}}}
spec:
  nodeName: {node}
  restartPolicy: Never
  containers: [{{name: a, image: 'docker.io/library/busybox:1.36', command: ['false']}}]
"
    )
}

impl Meta {
    fn with_snapshots(&self, more: &str) -> String {
        let backup = format!(
            "  backup: {{schedule: '* * * * *', keep: 2, localPath: {{node: {}, path: {SNAPSHOTS}}}}}\n",
            self.controller.node.name
        );
        declaration(self, "a", &format!("{backup}{more}"))
    }

    fn etcd(&self) -> String {
        let pod = self.kubectl().get(&["-n", NAMESPACE, "pod", "a-etcd-0"]);
        pod["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// Its Job is gone, and turns to come leave the data alone.
    fn is_restored_once(&self, snapshot: &str) {
        let etcd = self.etcd();
        eventually("the Job is gone", LATER, || {
            let said = self.kubectl().run(&["-n", NAMESPACE, "get", "job", "a-restore"]);
            (said.code == Some(1)).then_some(())
        });
        for number in 0..3 {
            let touch = format!("touched={number}");
            self.kubectl().run(&["-n", NAMESPACE, "annotate", "hcp", "a", "--overwrite", &touch]).ok();
            std::thread::sleep(Duration::from_secs(3));
        }
        assert_eq!(self.etcd(), etcd);
        assert_eq!(self.get("a")["status"]["restoredFrom"], snapshot);
        let count = format!("find {SNAPSHOTS} -name '20*.snapshot' | wc -l");
        eventually("no more snapshots are kept than is said", TAKEN, || {
            (self.controller.node.sh(&count).trim() == "2").then_some(())
        });
        self.controller.node.sh(&format!("test -e {SNAPSHOTS}/*/{GOLDEN}"));
    }

    /// Taken out and named anew, the same snapshot is restored another time, and what was there is kept each time. A pod that was
    /// evicted, and that nobody deletes, is not waited for.
    fn is_restored_again(&self, tenant: &Tenant) {
        self.kubectl().apply(&evicted(&self.controller.node.name));
        eventually("a pod has failed", LATER, || {
            (self.kubectl().get(&["-n", NAMESPACE, "pod", "evicted"])["status"]["phase"] == "Failed").then_some(())
        });
        for round in 0..2 {
            let late = tenant.writes(&format!("later-{round}"), 3);
            self.kubectl().apply(&self.with_snapshots(""));
            eventually("it is taken out", LATER, || (self.get("a")["status"]["restoredFrom"] == "").then_some(()));
            self.kubectl().apply(&self.with_snapshots(&format!("  restoreFrom: {GOLDEN}\n")));
            eventually("the snapshot is restored", TAKEN, || {
                (self.get("a")["status"]["restoredFrom"] == GOLDEN).then_some(())
            });
            self.is_ready("a");
            let there = tenant.maps();
            assert!(late.iter().all(|name| !there.contains(name)), "{round}: what was written since then is gone");
            let kept = self.controller.node.sh(&format!("ls -d {FOLDER}/*/before-0-golden-* | wc -l"));
            assert_eq!(kept.trim(), (round + 1).to_string(), "what was there is kept each time");
        }
        self.kubectl().run(&["-n", NAMESPACE, "delete", "pod", "evicted"]).ok();
    }

    fn what_cannot_be_restored_is_said(&self, tenant: &Tenant) {
        let there = tenant.maps();
        self.kubectl().apply(&self.with_snapshots("  restoreFrom: none.snapshot\n"));
        let said = eventually("a snapshot that is not there is said", LATER + TAKEN, || {
            self.condition("a", "SnapshotsTaken").filter(|(_, reason, _)| reason == "RestoreFailed")
        });
        assert!(said.2.contains("none.snapshot could not be restored"), "{said:?}");
        self.is_ready("a");
        assert_eq!(tenant.maps(), there, "the tenant runs on the data that it had");
        for (more, why) in [("  restoreFrom: ../x.snapshot\n", "should match"), ("  restoreFrom: x\n", "should match")]
        {
            let path = self.file("refused.yaml", &self.with_snapshots(more));
            let said = self.kubectl().run(&["apply", "--dry-run=server", "-f", &path]);
            assert!(said.code == Some(1) && said.stderr.contains(why), "{more}: {said}");
        }
        let path = self.file("refused.yaml", &declaration(self, "b", "  restoreFrom: x.snapshot\n"));
        let said = self.kubectl().run(&["apply", "--dry-run=server", "-f", &path]);
        assert!(said.code == Some(1) && said.stderr.contains("backup says where the snapshot is"), "{said}");
    }

    fn snapshots_end(&self) {
        self.kubectl().apply(&declaration(self, "a", ""));
        eventually("the CronJob is gone", LATER, || {
            let said = self.kubectl().run(&["-n", NAMESPACE, "get", "cronjob", "a-backup"]);
            (said.code == Some(1)).then_some(())
        });
        self.is_ready("a");
        let status = self.get("a")["status"].clone();
        assert_eq!(status["restoredFrom"], "", "{status}");
    }
}

impl Tenant {
    /// Writes so many ConfigMaps, each of which is acknowledged.
    fn writes(&self, name: &str, count: usize) -> Vec<String> {
        let names: Vec<_> = (0..count).map(|number| format!("{name}-{number}")).collect();
        let text: Vec<_> = names
            .iter()
            .map(|name| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\n"))
            .collect();
        self.kubectl.apply(&text.join("---\n"));
        names
    }

    fn maps(&self) -> Vec<String> {
        let all = self.kubectl.list(&["-n", "default", "configmaps"]);
        all.iter().map(|map| map["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// What must not change for a worker: its object, its kubelet, its pod's container.
    fn as_its_worker_is(&self, node: &Node) -> (Value, String, Value) {
        let object = self.kubectl.get(&["node", &node.name]);
        let pod = self.kubectl.get(&["pod", "hello"]);
        let status = &pod["status"]["containerStatuses"][0];
        (
            object["metadata"]["uid"].clone(),
            node.sh("systemctl show kubelet -p MainPID"),
            serde_json::json!([status["containerID"], status["restartCount"]]),
        )
    }
}
