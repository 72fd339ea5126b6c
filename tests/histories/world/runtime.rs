//! Pods on this machine: the kubelet that starts and ends their containers, the folder of static pods that it reads,
//! what it tells the API. Containers outlive their kubelet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hoist::node::processes::PERMANENT;
use serde_json::{Value, json};

use super::process::{End, Program};
use super::store::key;
use super::{IP, NODE, World};

pub const MANIFESTS: &str = "etc/kubernetes/manifests";
/// The files that hoist puts there.
const STATIC: [&str; 8] = [
    "bridge-kube-apiserver.yaml",
    "bridge-kube-controller-manager.yaml",
    "bridge-kube-scheduler.yaml",
    "etcd.yaml",
    "kube-apiserver.yaml",
    "kube-controller-manager.yaml",
    "kube-scheduler.yaml",
    GUARD,
];
const GUARD: &str = "hoist-guard.yaml";

#[derive(Debug, Clone)]
pub struct Container {
    program: Program,
    /// Its HOIST_BRIDGE and its HOIST_STATIC.
    marks: (Option<String>, Option<String>),
    pid: Option<u32>,
    restarts: u64,
    next: Duration,
}

#[derive(Debug, Clone)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub is_static: bool,
    /// Files and folders of the host that it mounts.
    pub mounts: Arc<Vec<PathBuf>>,
    secrets: Arc<Vec<String>>,
    pub containers: Vec<Container>,
    started: bool,
    next: Duration,
    pub wanted: bool,
    /// What was last told of it.
    reported: Option<(bool, u64, bool)>,
}

/// A kubelet's process.
#[derive(Debug, Clone)]
pub struct Kubelet {
    /// What it was started with: the files as they were then.
    pub with: String,
    /// When it next asks for what it has asked for in vain.
    asks: Duration,
    gap: Duration,
}

/// A file of the folder as it was last read: its stamp, its pod's id, its pod.
type Read = ((i64, i64, u64, u64), String, Value);

#[derive(Debug, Default)]
pub struct Runtime {
    pub pods: BTreeMap<String, Pod>,
    read: BTreeMap<String, Read>,
    /// The store's version when its pods were last read.
    read_at: u64,
    reported_at: u64,
    /// Mirror pods to be deleted, and when.
    mirrors: Vec<(Duration, String)>,
}

impl World {
    /// What a kubelet reads when it starts; `None` when it cannot start with that.
    pub fn kubelet_files(&self) -> Option<String> {
        let read = |path: &str| fs::read_to_string(self.root.join(path)).ok();
        let config = read("var/lib/kubelet/config.yaml")?;
        let env = read("etc/kubernetes/kubelet.env")?;
        // Without either it would end at once.
        self.is_certified().then_some(())?;
        assert!(config.contains("staticPodPath: /etc/kubernetes/manifests"), "{config}");
        Some(format!("{}\n{config}\n{env}", self.unit.runs_with()))
    }

    pub fn is_certified(&self) -> bool {
        ["etc/kubernetes/kubelet.conf", "var/lib/kubelet/pki/kubelet-client-current.pem"]
            .iter()
            .all(|path| self.root.join(path).exists())
    }

    pub fn start_kubelet(&mut self) {
        let Some(with) = self.kubelet_files() else { return };
        self.say("the kubelet begins".into());
        self.kubelet =
            Some(Kubelet { with, asks: self.now + self.random.millis(200, 900), gap: Duration::from_secs(1) });
    }

    /// One turn of the kubelet.
    pub fn tick_kubelet(&mut self) {
        let Some(mut kubelet) = self.kubelet.take() else { return };
        self.read_folder();
        let reaches = self.node_ip_serves();
        if self.now >= kubelet.asks {
            if reaches {
                self.register();
            }
            kubelet.gap = if reaches { Duration::from_secs(5) } else { (kubelet.gap * 2).min(Duration::from_secs(10)) };
            kubelet.asks = self.now + kubelet.gap;
        }
        let registered = self.store.has("nodes", "", NODE);
        self.kubelet = Some(kubelet);
        if registered && reaches {
            self.read_pods();
        }
        self.run_pods();
        if registered && reaches {
            self.report();
        }
    }

    /// Reads the folder as it is now: whatever is in it is started, whatever is not there any more is ended.
    fn read_folder(&mut self) {
        let mut wanted = BTreeSet::new();
        let dir = self.root.join(MANIFESTS);
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let Ok(meta) = entry.metadata() else { continue };
            let stamp = (meta.mtime(), meta.mtime_nsec(), meta.ino(), meta.size());
            if self.runtime.read.get(&name).is_none_or(|(before, ..)| *before != stamp) {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                match serde_yaml::from_str::<Value>(&text) {
                    Ok(pod) if STATIC.contains(&&*name) && pod["spec"]["containers"].is_array() => {
                        let id = format!("{name} {:x}", digest(&pod));
                        self.runtime.read.insert(name.clone(), (stamp, id, pod));
                    }
                    _ => {
                        self.wrong(format!("the kubelet sees {name}, which is no static pod of hoist's: {text:?}"));
                        continue;
                    }
                }
            }
            let id = self.runtime.read[&name].1.clone();
            if !self.runtime.pods.contains_key(&id) {
                self.say(format!("the kubelet sees {name}"));
                let delay = self.random.millis(100, 900);
                let pod = self.runtime.read[&name].2.clone();
                self.runtime.pods.insert(id.clone(), self.pod(&pod, true, delay));
            }
            wanted.insert(id);
        }
        let ended: Vec<_> = self
            .runtime
            .pods
            .iter()
            .filter(|(id, pod)| pod.is_static && pod.wanted && !wanted.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ended {
            self.end_pod(&id);
        }
        for id in wanted {
            // One that came back before it was gone is ended first; then it is new.
            if self.runtime.pods.get(&id).is_some_and(|pod| !pod.wanted) && !self.lives(&id) {
                self.runtime.pods.remove(&id);
            }
        }
    }

    /// The kernel dates files by its own clock: manifests get the date of this world.
    pub fn date_manifests(&mut self) {
        let date = std::time::SystemTime::from(self.date());
        for entry in fs::read_dir(self.root.join(MANIFESTS)).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if self.dated.insert(meta.ino())
                && let Ok(file) = fs::File::options().write(true).open(entry.path())
            {
                file.set_modified(date).unwrap();
            }
        }
    }

    fn pod(&self, object: &Value, is_static: bool, delay: Duration) -> Pod {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let spec = &object["spec"];
        let container = |container: &Value| {
            let words = [list(&container["command"]), list(&container["args"])].concat();
            let first = words.first().map(text).unwrap_or_default();
            let program = match first.rsplit('/').next().unwrap_or_default() {
                "etcd" => Program::Etcd,
                "kube-apiserver" => Program::ApiServer,
                "kube-controller-manager" => Program::ControllerManager,
                "kube-scheduler" => Program::Scheduler,
                "hoist" if words.get(1).is_some_and(|word| word == "forward") => Program::Forwarder,
                _ => Program::Other,
            };
            let variables = list(&container["env"]);
            let mark = |name| variables.iter().find(|env| env["name"] == name).map(|env| text(&env["value"]));
            Container {
                program,
                marks: (mark("HOIST_BRIDGE"), mark(PERMANENT)),
                pid: None,
                restarts: 0,
                next: Duration::ZERO,
            }
        };
        let volumes = list(&spec["volumes"]);
        let host_path = |volume: &Value| volume["hostPath"]["path"].as_str().map(str::to_owned);
        Pod {
            namespace: object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned(),
            name: text(&object["metadata"]["name"]) + if is_static { "-c1" } else { "" },
            is_static,
            // Guard has whole folders mounted, for what comes and goes in them.
            mounts: volumes
                .iter()
                .filter(|_| object["metadata"]["name"] != "hoist-guard")
                .filter_map(host_path)
                .map(|path| self.root.join(path.trim_start_matches('/')))
                .collect::<Vec<_>>()
                .into(),
            secrets: volumes
                .iter()
                .filter_map(|volume| volume["secret"]["secretName"].as_str().map(str::to_owned))
                .collect::<Vec<_>>()
                .into(),
            containers: list(&spec["containers"]).iter().map(container).collect(),
            started: false,
            next: self.now + delay,
            wanted: true,
            reported: None,
        }
    }

    pub fn lives(&self, id: &str) -> bool {
        let lives = |container: &Container| container.pid.is_some_and(|pid| self.processes.contains_key(&pid));
        self.runtime.pods.get(id).is_some_and(|pod| pod.containers.iter().any(lives))
    }

    fn end_pod(&mut self, id: &str) {
        let Some(pod) = self.runtime.pods.get_mut(id) else { return };
        pod.wanted = false;
        let pids: Vec<_> = pod.containers.iter().filter_map(|container| container.pid).collect();
        self.say(format!("the kubelet ends {id}"));
        self.judge_end(&pids);
        for pid in pids {
            self.terminate(pid);
        }
    }

    /// Starts, starts again and buries containers.
    fn run_pods(&mut self) {
        let ids: Vec<_> = self.runtime.pods.keys().cloned().collect();
        for id in ids {
            let Some(mut pod) = self.runtime.pods.get(&id).cloned() else { continue };
            for container in &mut pod.containers {
                let is_gone = container.pid.is_some_and(|pid| !self.processes.contains_key(&pid));
                if is_gone {
                    container.pid = None;
                    container.restarts += 1;
                    let least = if container.restarts > 1 { 3000 } else { 300 };
                    container.next = self.now + self.random.millis(least, least * 2);
                }
            }
            if !pod.wanted && pod.containers.iter().all(|container| container.pid.is_none()) {
                self.runtime.pods.remove(&id);
                if pod.is_static {
                    let late = self.now + self.random.millis(300, 3000);
                    self.runtime.mirrors.push((late, pod.name));
                } else if self.node_ip_serves() {
                    self.store.remove(&key("pods", &pod.namespace, &pod.name));
                }
                continue;
            }
            if pod.wanted && !pod.started && self.now >= pod.next {
                let twin = self.runtime.pods.iter().any(|(other, there)| *other != id && there.name == pod.name);
                let mounts = pod.mounts.iter().all(|path| path.exists());
                let secrets = pod.secrets.iter().all(|name| self.store.has("secrets", &pod.namespace, name));
                pod.started = mounts && secrets && !twin;
                if pod.started && pod.is_static {
                    self.judge_start(&pod);
                }
                if !pod.started {
                    pod.next = self.now + self.random.millis(500, 2000);
                }
            }
            if pod.wanted && pod.started {
                for container in &mut pod.containers {
                    if container.pid.is_none() && self.now >= container.next {
                        container.pid = Some(self.spawn(container.program, container.marks.clone(), &id));
                    }
                }
            }
            self.runtime.pods.insert(id, pod);
        }
    }

    /// A static pod that starts must find all that is meant for it.
    fn judge_start(&mut self, pod: &Pod) {
        let all = self.secrets.clone();
        let below = |path: &PathBuf| pod.mounts.iter().any(|mount| path.starts_with(mount));
        for (path, content) in all.iter().filter(|(path, _)| below(path)) {
            if fs::read(path).ok().as_ref() != Some(content) {
                self.wrong(format!("{} starts, and {} is missing or another", pod.name, path.display()));
            }
        }
    }

    /// Takes over the API's pods of this node.
    fn read_pods(&mut self) {
        if self.runtime.read_at == self.store.version_of("pods") {
            return;
        }
        self.runtime.read_at = self.store.version_of("pods");
        let here: Vec<_> = self
            .store
            .list("pods", "")
            .map(|(_, pod)| pod)
            .filter(|pod| pod["spec"]["nodeName"] == NODE)
            .filter(|pod| !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string())
            .cloned()
            .collect();
        let mut wanted = BTreeSet::new();
        for object in here {
            let id = object["metadata"]["uid"].as_str().unwrap().to_owned();
            if !self.runtime.pods.contains_key(&id) {
                let delay = self.pace.pod(&mut self.random);
                self.runtime.pods.insert(id.clone(), self.pod(&object, false, delay));
            }
            wanted.insert(id);
        }
        let gone: Vec<_> = self
            .runtime
            .pods
            .iter()
            .filter(|(id, pod)| !pod.is_static && pod.wanted && !wanted.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.end_pod(&id);
        }
    }

    /// Tells the API how the pods are, and makes and deletes the mirrors of static ones.
    fn report(&mut self) {
        let ids: Vec<_> = self.runtime.pods.keys().cloned().collect();
        for id in ids {
            let Some(pod) = self.runtime.pods.get(&id).cloned() else { continue };
            let at = key("pods", &pod.namespace, &pod.name);
            if pod.is_static {
                let ready = pod.started && pod.containers.iter().all(|container| self.container_ready(container));
                let news = Some((ready, 0, pod.started));
                if pod.started && pod.wanted && (news != pod.reported || self.store.get(&at).is_none()) {
                    let word = if ready { "True" } else { "False" };
                    self.store.put(
                        at,
                        json!({"apiVersion": "v1", "kind": "Pod",
                        "metadata": {"annotations": {"kubernetes.io/config.mirror": id},
                            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": "n", "controller": true}]},
                        "spec": {"nodeName": NODE, "containers": []},
                        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": word}]}}),
                    );
                    self.runtime.pods.entry(id).and_modify(|pod| pod.reported = news);
                }
                continue;
            }
            let runs = pod.containers.iter().all(|container| container.pid.is_some());
            let ready = runs && pod.containers.iter().all(|container| self.container_ready(container));
            let restarts = pod.containers.iter().map(|container| container.restarts).sum();
            let news = Some((ready, restarts, runs));
            let Some(mut object) = self.store.get(&at).filter(|_| news != pod.reported).cloned() else { continue };
            let word = |yes: bool| if yes { "True" } else { "False" };
            let state = match (runs, pod.started, restarts) {
                (true, ..) => json!({"running": {}}),
                (_, true, 1..) => json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                _ => json!({"waiting": {"reason": "ContainerCreating"}}),
            };
            object["status"] = json!({
                "phase": if runs { "Running" } else { "Pending" },
                "conditions": [{"type": "Ready", "status": word(ready)}],
                "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": ready,
                    "restartCount": restarts, "state": state}],
            });
            self.store.put(at, object);
            self.runtime.pods.entry(id).and_modify(|pod| pod.reported = news);
        }
        let (due, later): (Vec<_>, _) =
            std::mem::take(&mut self.runtime.mirrors).into_iter().partition(|(at, _)| *at <= self.now);
        self.runtime.mirrors = later;
        for (_, name) in due {
            if !self.runtime.pods.values().any(|pod| pod.is_static && pod.name == name) {
                self.store.remove(&key("pods", "kube-system", &name));
            }
        }
        if self.runtime.reported_at == self.store.version_of("pods") {
            return;
        }
        self.runtime.reported_at = self.store.version_of("pods");
        // What a kubelet that was started anew finds of pods that it does not know.
        let lost: Vec<_> = self
            .store
            .list("pods", "")
            .filter(|(at, pod)| {
                pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string()
                    && !self.runtime.pods.values().any(|there| there.is_static && there.name == at.2)
                    && !self.runtime.mirrors.iter().any(|(_, name)| *name == at.2)
            })
            .map(|(at, _)| at.2.clone())
            .collect();
        for name in lost {
            self.runtime.mirrors.push((self.now + Duration::from_secs(1), name));
        }
    }

    fn container_ready(&self, container: &Container) -> bool {
        let Some(process) = container.pid.and_then(|pid| self.processes.get(&pid)) else { return false };
        match process.program {
            Program::ApiServer => self.is_ready(process),
            _ => process.ends.is_none() && process.ready_at.is_some_and(|at| at <= self.now),
        }
    }

    fn register(&mut self) {
        if !self.store.has("nodes", "", NODE) {
            self.say("the kubelet registers its node".into());
            let node = json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"labels": {"kubernetes.io/hostname": NODE}},
                "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]},
                "status": {"addresses": [{"type": "InternalIP", "address": IP}]}});
            self.store.put(key("nodes", "", NODE), node);
        }
    }

    /// Ends everything, as a power cut does: what was brought to the disk stays.
    pub fn cut_power(&mut self) {
        self.say("the power is cut".into());
        let root = self.root.display().to_string();
        for lost in self.disk.lose() {
            self.say(format!("lost: {}", lost.replace(&root, "")));
        }
        let pids: Vec<_> = self.processes.keys().copied().collect();
        for pid in pids {
            self.bury(pid, End::Taken);
        }
        self.kubelet = None;
        self.runtime = Runtime::default();
        fs::remove_dir_all(self.root.join("run")).unwrap();
        self.make_run();
    }
}

fn digest(value: &Value) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}
