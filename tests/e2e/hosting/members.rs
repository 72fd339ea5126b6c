//! A tenant whose etcd has three members on three nodes, under clients that never stop: the leader's pod is deleted, every member
//! is replaced for an edit, a node loses its power, and the tenant goes and leaves nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{FOLDER, Meta, NAMESPACE, Tenant, declaration};
use crate::support::cluster::Cluster;
use crate::support::controller::{Controller, LATER, SOON};
use crate::support::node::Node;
use crate::support::traffic::Traffic;
use crate::support::{eventually, worker};

/// What the pods of the tenant's etcd are found by.
const MEMBERS: [&str; 5] = ["-n", NAMESPACE, "-l", "component=etcd,hoist.dev/tenant=a", "pods"];
/// For so long at most, a client that never stops has no answer while members are replaced, on a busy machine.
const GAP: Duration = Duration::from_secs(3);
/// How long all members may take to be replaced.
const ROLLED: Duration = Duration::from_secs(300);
/// How long a node is without power.
const DARK: Duration = Duration::from_secs(30);

#[test]
fn hosting_members() {
    let node = Node::plain("hosting-m");
    let cluster = Cluster::render(&node);
    let controller = Controller::start(node, cluster);
    let workers = ["hosting-m1", "hosting-m2"].map(|name| worker::up(name, &controller.cluster));
    let meta = Meta { controller };
    for worker in &workers {
        worker::is_ready(worker, &meta.controller.cluster);
    }
    meta.is_installed();
    let nodes = [&meta.controller.node, &workers[0], &workers[1]];
    for node in &nodes[1..] {
        node.sh(&format!("mkdir -p {FOLDER} /var/lib/hoist/bin"));
        node.sh(&format!("cp {} /var/lib/hoist/bin/hoist", crate::support::hoist().display()));
    }
    let before = meta.objects();
    meta.what_cannot_be_is_refused();
    let tenant = meta.comes_up_as("a", &meta.with_members(&nodes, "")).0;
    tenant.leads();
    let members = meta.members();
    let on: Vec<_> = members.values().map(|pod| pod["spec"]["nodeName"].as_str().unwrap()).collect();
    assert_eq!(on, nodes.map(|node| &*node.name), "a node for each member");
    let said = meta.condition("a", "EtcdReady").unwrap();
    assert_eq!(said.2, "all 3 members of etcd are ready");

    let leader = meta.leader();
    meta.no_request_fails(&tenant, &format!("{leader}, which leads etcd, is deleted"), || {
        let old = members[&leader]["metadata"]["uid"].clone();
        meta.kubectl().run(&["-n", NAMESPACE, "delete", "pod", "--wait=false", &leader]).ok();
        eventually("it is there again", LATER, || {
            let now = meta.members();
            let pod = now.get(&leader)?;
            (pod["metadata"]["uid"] != old && now.values().all(is_ready)).then_some(())
        });
    });
    meta.is_ready("a");

    meta.no_request_fails(&tenant, "every member of etcd is replaced for an edit", || {
        meta.kubectl().apply(&meta.with_members(&nodes, ", extraArgs: [{name: snapshot-count, value: '9999'}]"));
        meta.are_replaced_one_by_one();
    });
    meta.is_ready("a");
    meta.an_edit_that_breaks_a_member_stops_there(&tenant, &nodes);
    // One that carries nothing but a member: what else would go with it is no matter of etcd's.
    let servers = meta.kubectl().list(&["-n", NAMESPACE, "-l", "component=kube-apiserver,hoist.dev/tenant=a", "pods"]);
    let carries = |node: &&Node| servers.iter().any(|pod| pod["spec"]["nodeName"] == *node.name);
    meta.outlives_a_node(&tenant, workers.iter().find(|node| !carries(node)).unwrap());
    meta.deletion_of_members_leaves_nothing(&before, &nodes);
}

fn is_ready(pod: &Value) -> bool {
    let mut all = pod["status"]["conditions"].as_array().into_iter().flatten();
    all.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

impl Meta {
    /// The tenant `a`, with a member on each of three nodes.
    fn with_members(&self, nodes: &[&Node; 3], more: &str) -> String {
        let text = declaration(self, "a", "");
        let one = format!("etcd: {{localPath: {{node: {}, path: {FOLDER}}}}}", self.controller.node.name);
        assert!(text.contains(&one), "{text}");
        let names = nodes.map(|node| &*node.name).join(", ");
        text.replace(&one, &format!("etcd: {{replicas: 3, localPath: {{nodes: [{names}], path: {FOLDER}}}{more}}}"))
    }

    fn what_cannot_be_is_refused(&self) {
        let own = &self.controller.node.name;
        let good = self.with_members(&[&self.controller.node; 3], "");
        let good = good.replace(&format!("[{own}, {own}, {own}]"), "[n1, n2, n3]");
        for (from, to, why) in [
            ("nodes: [n1, n2, n3]", "nodes: [n1, n2, n1]", "two members on one node are lost with it"),
            ("nodes: [n1, n2, n3]", "node: n1", "three of them, for three"),
            ("replicas: 3", "replicas: 2", "two members outlive no more than one"),
            ("replicas: 3", "replicas: 1", "write localPath.node for one member"),
            ("spec:\n", "spec:\n  restoreFrom: x.snapshot\n", "a snapshot is restored with one member"),
        ] {
            assert!(good.contains(from), "{good}");
            let text = good.replacen(from, to, 1);
            let said = self.kubectl().run(&["apply", "--dry-run=server", "-f", &self.file("refused.yaml", &text)]);
            assert!(said.code == Some(1) && said.stderr.contains(why), "{to}: {said}");
        }
    }

    /// The pods of etcd by their names.
    fn members(&self) -> BTreeMap<String, Value> {
        let all = self.kubectl().list(&MEMBERS);
        all.into_iter().map(|pod| (pod["metadata"]["name"].as_str().unwrap().to_owned(), pod)).collect()
    }

    /// The pod of the member that leads, as each says itself.
    fn leader(&self) -> String {
        eventually("a member of etcd says that it leads", SOON, || {
            let leads = |pod: &&Value| {
                let url = format!("http://{}:2381/metrics", pod["status"]["podIP"].as_str().unwrap_or_default());
                let said = self.controller.node.sh(&format!("curl -s -m 5 {url} || true"));
                said.lines().any(|line| line == "etcd_server_is_leader 1")
            };
            let members = self.members();
            members.values().find(leads).map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        })
    }

    /// Nothing fails meanwhile but what etcd itself drops where leadership moves, while a write is on its way to the leader: one
    /// of the client's. No acknowledged write is lost.
    #[track_caller]
    fn no_request_fails(&self, tenant: &Tenant, what: &str, act: impl FnOnce()) {
        let traffic = Traffic::begin(tenant.client());
        std::thread::sleep(Duration::from_secs(2));
        act();
        // As long as it takes etcd to say that it has dropped a write.
        std::thread::sleep(Duration::from_secs(10));
        let record = traffic.end().unwrap();
        eprintln!("{what}: {record}");
        assert!(record.exchanges.len() > 500, "{record}");
        assert!(record.fails_by_etcd_alone(), "{record}");
        assert!(record.longest_gap().0 < GAP, "{record}");
        tenant.has_all_of(&record);
    }

    /// Never are two members away.
    fn are_replaced_one_by_one(&self) {
        let old = self.members();
        let begun = Instant::now();
        let mut order: Vec<String> = Vec::new();
        eventually("every member is another pod, and ready", ROLLED, || {
            let now = self.members();
            let away: Vec<_> = old.keys().filter(|name| now.get(*name).is_none_or(|pod| !is_ready(pod))).collect();
            assert!(away.len() <= 1, "two members are away at once: {away:?}");
            for name in old.keys() {
                let is_new = now.get(name).is_some_and(|pod| pod["metadata"]["uid"] != old[name]["metadata"]["uid"]);
                if is_new && !order.contains(name) {
                    eprintln!("{:.1?}: {name} is replaced", begun.elapsed());
                    order.push(name.clone());
                }
            }
            (order.len() == 3 && now.len() == 3 && now.values().all(is_ready)).then_some(())
        });
        eprintln!("replaced in {:.1?}: {}", begun.elapsed(), order.join(", "));
    }

    /// The other two members stay as they are and serve, and the edit back brings the third one again.
    fn an_edit_that_breaks_a_member_stops_there(&self, tenant: &Tenant, nodes: &[&Node; 3]) {
        let before = self.members();
        self.no_request_fails(tenant, "an edit that no member can run with is made, and undone", || {
            let good = self.with_members(nodes, ", extraArgs: [{name: snapshot-count, value: '9999'}]");
            self.kubectl().apply(&good.replace("  dns:", "  images: {etcd: registry.k8s.io/etcd:none}\n  dns:"));
            let said = eventually("it is said which member does not come", LATER, || {
                self.condition("a", "EtcdReady").filter(|(_, reason, _)| reason == "ImageNotPulled")
            });
            eprintln!("{}", said.2);
            assert!(said.2.starts_with("2 of 3 members of etcd are ready: they serve. Not ready: a-etcd"), "{said:?}");
            let shown = self.hoist(&["hosting", "status", "a"]);
            assert!(shown.code == Some(1) && shown.stdout.contains("2 of 3 members"), "{shown}");
            let now = self.members();
            let uid = |pod: &Value| pod["metadata"]["uid"].clone();
            let same = before.iter().filter(|(name, pod)| now.get(*name).is_some_and(|now| uid(now) == uid(pod)));
            assert_eq!(same.count(), 2, "the other two are not touched");
            self.kubectl().apply(&good);
            eventually("all members are ready again", ROLLED, || {
                let now = self.members();
                (now.len() == 3 && now.values().all(is_ready)).then_some(())
            });
        });
        self.is_ready("a");
    }

    /// Requests go on with two members. What an API server had open with the third one is measured, and bounded by no promise.
    fn outlives_a_node(&self, tenant: &Tenant, node: &Node) {
        let traffic = Traffic::begin(tenant.client());
        std::thread::sleep(Duration::from_secs(2));
        node.power_cut();
        std::thread::sleep(DARK);
        let made = tenant.kubectl.run(&["create", "configmap", "without-a-node", "--from-literal=by=admin"]);
        node.boot();
        eventually("all members are ready again", ROLLED, || {
            let now = self.members();
            (now.len() == 3 && now.values().all(is_ready)).then_some(())
        });
        let record = traffic.end().unwrap();
        eprintln!(
            "a member's node is without power for {DARK:?}: {record}; {} failed, the longest gap: {:?}",
            record.failures().count(),
            record.longest_gap()
        );
        assert!(made.code == Some(0), "{made}");
        tenant.has_all_of(&record);
        self.is_ready("a");
    }

    fn deletion_of_members_leaves_nothing(&self, before: &std::collections::BTreeSet<String>, nodes: &[&Node; 3]) {
        for node in nodes {
            assert!(node.sh(&format!("ls {FOLDER}")).starts_with("tenants.a."), "{}", node.name);
        }
        self.kubectl().run(&["-n", NAMESPACE, "delete", "hcp", "a", "--timeout=170s"]).ok();
        eventually("nothing of the tenant is left", LATER, || {
            let left: Vec<_> = self.objects().difference(before).cloned().collect();
            left.is_empty().then_some(())
        });
        for node in nodes {
            assert_eq!(node.sh(&format!("ls -A {FOLDER}")), "", "{}", node.name);
        }
    }
}
