//! What the controller managers and schedulers of the machine do: one of each leads, by its Lease; pods are made for
//! workloads and get their node.

use std::time::Duration;

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::process::{End, Process, Program};
use super::store::{Key, key};
use super::{NODE, World};

const LEASES: &str = "leases.coordination.k8s.io";
/// The hash of every Deployment's template.
const HASH: &str = "6b5d8f7c9";
/// How long a Lease lasts without being renewed.
const LASTS: Duration = Duration::from_secs(15);
/// How long one of the bridge's lasts, in seconds, by its manifests' flags.
const BRIDGES_LEASE: i32 = 13;
/// How long a leader goes on trying to renew its own.
const RENEWS: Duration = Duration::from_secs(10);

fn lease_of(program: Program) -> Option<&'static str> {
    match program {
        Program::ControllerManager => Some("kube-controller-manager"),
        Program::Scheduler => Some("kube-scheduler"),
        _ => None,
    }
}

/// What controls an object.
fn owner(kind: &str, name: &str, uid: &Value) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}])
}

/// A pod's specification with what matters in this world: it is read many thousand times.
fn short(spec: &Value) -> Value {
    let words = |container: &Value| {
        let first: Vec<_> = container["command"].get(0).into_iter().collect();
        json!({"name": container["name"], "command": first})
    };
    let containers: Vec<_> = spec["containers"].as_array().into_iter().flatten().map(words).collect();
    json!({"containers": containers, "nodeSelector": spec["nodeSelector"], "volumes": spec["volumes"]})
}

impl World {
    /// Whether this process reaches the API server that it talks to.
    fn reaches(&self, process: &Process) -> bool {
        if process.is_bridge() {
            return self.one(Program::ApiServer, true).is_some_and(|server| self.serves(server));
        }
        self.node_ip_serves()
    }

    pub fn holder(&self, lease: &str) -> String {
        let object = self.store.get(&key(LEASES, "kube-system", lease));
        object.and_then(|object| object["spec"]["holderIdentity"].as_str()).unwrap_or_default().to_owned()
    }

    fn write_lease(&mut self, lease: &str, holder: &str, is_bridges: bool) {
        let renewed = self.date().format(&Rfc3339).unwrap();
        let object = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {},
            "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": if is_bridges { BRIDGES_LEASE } else { 15 }}});
        self.store.put(key(LEASES, "kube-system", lease), object);
    }

    pub fn release_lease(&mut self, process: &Process) {
        if let Some(lease) = lease_of(process.program)
            && self.reaches(process)
            && self.holder(lease) == process.identity
        {
            self.say(format!("{} gives the Lease {lease} back", process.pid));
            self.write_lease(lease, "", process.is_bridge());
        }
    }

    /// Hoist may delete a Lease only of a holder that is gone.
    pub fn judge_lease(&mut self, object: &Value) {
        let holder = object["spec"]["holderIdentity"].as_str().unwrap_or_default();
        self.say(format!("hoist deletes the Lease of {holder}"));
        if self.processes.values().any(|process| process.identity == holder) {
            self.wrong(format!("the Lease of {holder}, who lives, is deleted"));
        }
    }

    /// Candidates take Leases, and leaders keep theirs.
    pub fn tick_leases(&mut self) {
        if !self.store.has("namespaces", "", "kube-system") {
            return;
        }
        let ready =
            |p: &&Process| p.ready_at.is_some_and(|at| at <= self.now) && self.now >= p.next && p.ends.is_none();
        let candidates: Vec<_> = self.processes.values().filter(ready).cloned().collect();
        for mut process in candidates {
            let Some(lease) = lease_of(process.program) else { continue };
            process.next = self.now + Duration::from_millis(if process.is_bridge() { 500 } else { 2000 });
            if self.reaches(&process) {
                let at = key(LEASES, "kube-system", lease);
                let now = self.store.get(&at).map(|object| object["metadata"]["resourceVersion"].to_string());
                let now = now.unwrap_or_default();
                let holder = self.holder(lease);
                if now != process.seen.0 {
                    process.seen = (now, self.now);
                }
                let is_over = self.now >= process.seen.1 + LASTS;
                if holder.is_empty() || holder == process.identity || is_over {
                    if holder != process.identity {
                        self.say(format!("{} takes the Lease {lease}", process.pid));
                    }
                    self.write_lease(lease, &process.identity, process.is_bridge());
                    process.seen = (String::new(), self.now);
                }
            } else if process.seen.0.is_empty() && self.now > process.seen.1 + RENEWS {
                // A leader that cannot renew ends.
                self.bury(process.pid, End::Taken);
                continue;
            }
            self.processes.insert(process.pid, process);
        }
    }

    /// The process that leads, if it can do anything.
    fn leads(&self, program: Program) -> bool {
        let holder = lease_of(program).map(|lease| self.holder(lease)).unwrap_or_default();
        self.processes.values().any(|p| p.identity == holder && p.ends.is_none() && self.reaches(p))
    }

    /// What leaders do.
    pub fn tick_controllers(&mut self) {
        // Leaders renew their Leases, so that whatever they could not do is done soon.
        if self.controlled_at == self.store.version() {
            return;
        }
        self.controlled_at = self.store.version();
        if self.leads(Program::ControllerManager) {
            self.collect_garbage();
            self.make_pods();
        }
        if self.leads(Program::Scheduler) {
            self.bind_pods();
        }
    }

    /// ReplicaSets and pods whose owners are gone.
    fn collect_garbage(&mut self) {
        for (resource, owners) in
            [("replicasets.apps", &["deployments.apps"][..]), ("pods", &["daemonsets.apps", "replicasets.apps"])]
        {
            let owned = |uid: &Value| {
                let mut all = owners.iter().flat_map(|owners| self.store.list(owners, ""));
                all.any(|(_, owner)| owner["metadata"]["uid"] == *uid)
            };
            let is_orphan = |object: &Value| {
                let owner = &object["metadata"]["ownerReferences"][0];
                !owner.is_null() && owner["kind"] != "Node" && !owned(&owner["uid"])
            };
            let gone = self.store.list(resource, "").filter(|(_, object)| is_orphan(object));
            for at in gone.map(|(at, _)| at.clone()).collect::<Vec<_>>() {
                self.say(format!("{} {} is garbage", at.0, at.2));
                self.store.remove(&at);
            }
        }
    }

    /// The uid of a Deployment's ReplicaSet. No template changes here.
    fn replica_set(&mut self, deployment: &Key, uid: &Value) -> (String, Value) {
        let name = format!("{}-{HASH}", deployment.2);
        let at = key("replicasets.apps", &deployment.1, &name);
        let set = match self.store.get(&at) {
            Some(set) => set.clone(),
            None => {
                let owners = owner("Deployment", &deployment.2, uid);
                let set =
                    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"ownerReferences": owners}});
                self.store.put(at, set)
            }
        };
        (name, set["metadata"]["uid"].clone())
    }

    fn make_pods(&mut self) {
        let on_node = |selector: &Value, node: &Value| {
            let wanted = selector.as_object().cloned().unwrap_or_default();
            wanted.iter().all(|(name, value)| node["metadata"]["labels"].get(name) == Some(value))
        };
        let node = self.store.get(&key("nodes", "", NODE));
        let mut wanted = Vec::new();
        for (at, object) in self.store.list("daemonsets.apps", "") {
            let template = &object["spec"]["template"];
            if node.is_some_and(|node| on_node(&template["spec"]["nodeSelector"], node)) {
                wanted.push((at.clone(), "DaemonSet", template.clone(), object["metadata"]["uid"].clone()));
            }
        }
        for (at, object) in self.store.list("deployments.apps", "") {
            wanted.push((
                at.clone(),
                "ReplicaSet",
                object["spec"]["template"].clone(),
                object["metadata"]["uid"].clone(),
            ));
        }
        for (at, kind, template, uid) in wanted {
            let (controller, uid) =
                if kind == "ReplicaSet" { self.replica_set(&at, &uid) } else { (at.2.clone(), uid) };
            let is_own = |pod: &Value| pod["metadata"]["ownerReferences"][0]["uid"] == uid;
            if self.store.list("pods", &at.1).any(|(_, pod)| is_own(pod)) {
                continue;
            }
            let name = format!("{controller}-{:05x}", self.random.below(1 << 20));
            let mut metadata = template["metadata"].clone();
            metadata["ownerReferences"] = owner(kind, &controller, &uid);
            if kind == "ReplicaSet" {
                metadata["labels"]["pod-template-hash"] = HASH.into();
            }
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": short(&template["spec"]),
                "status": {"phase": "Pending"}});
            self.store.put(key("pods", &at.1, &name), pod);
        }
    }

    fn bind_pods(&mut self) {
        let Some(node) = self.store.get(&key("nodes", "", NODE)).cloned() else { return };
        let unbound: Vec<_> = self
            .store
            .list("pods", "")
            .filter(|(_, pod)| pod["spec"]["nodeName"].is_null())
            .map(|(at, pod)| (at.clone(), pod.clone()))
            .collect();
        for (at, mut pod) in unbound {
            let selector = pod["spec"]["nodeSelector"].as_object().cloned().unwrap_or_default();
            if selector.iter().all(|(name, value)| node["metadata"]["labels"].get(name) == Some(value)) {
                pod["spec"]["nodeName"] = NODE.into();
                self.store.put(at, pod);
            }
        }
    }

    /// What an API server makes by itself, moments after its start.
    pub fn tick_api(&mut self) {
        let ready = self.processes.values().any(|p| p.program == Program::ApiServer && self.serves(p));
        if !ready || self.store.has("namespaces", "", "kube-node-lease") {
            return;
        }
        let since = *self.api_since.get_or_insert(self.now);
        if self.now < since + self.pace.namespaces {
            return;
        }
        for name in ["default", "kube-public", "kube-system", "kube-node-lease"] {
            if !self.store.has("namespaces", "", name) {
                self.store
                    .put(key("namespaces", "", name), json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {}}));
            }
        }
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"clusterIP": "10.96.0.1"}});
        self.store.put(key("services", "default", "kubernetes"), service);
    }
}
