//! Converts a self-hosted workload into a static pod: pure. What the API gives a pod comes from the disk instead.
//! What only the API can give is refused by name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::base::error::Finding;
use crate::base::files::File;
use crate::base::yaml;
use crate::desired::config::API_PORT;
use crate::node::processes;
use crate::plane::static_plane::{Folder, StaticPod};

/// What says where a pod of the API's is to run, and as whom: a static pod is where its file is, and nobody in the API.
const OF_THE_API: [&str; 8] = [
    "affinity",
    "nodeName",
    "nodeSelector",
    "schedulerName",
    "schedulingGates",
    "serviceAccount",
    "serviceAccountName",
    "topologySpreadConstraints",
];
/// Fields of a pod that only the API can fulfil.
const REFUSED: [(&str, &str); 3] = [
    ("imagePullSecrets", "pulls its image with a Secret"),
    ("resourceClaims", "claims resources"),
    ("runtimeClassName", "is of a RuntimeClass"),
];
/// Sources of volumes that only the API can give.
const REFUSED_VOLUMES: [(&str, &str); 5] = [
    ("azureFile", "an azureFile"),
    ("csi", "of a CSI driver"),
    ("ephemeral", "a claim of its own"),
    ("glusterfs", "a glusterfs"),
    ("persistentVolumeClaim", "a PersistentVolumeClaim"),
];
const CONTAINERS: [&str; 2] = ["initContainers", "containers"];

/// A workload of the self-hosted control plane, as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The component, whose name it has.
    pub component: &'static str,
    /// DaemonSet or Deployment.
    pub kind: &'static str,
    /// Its template of pods.
    pub template: Value,
}

/// What workloads refer to, by name, in their namespace.
#[derive(Clone, Default)]
pub struct Objects {
    /// The content of Secrets.
    pub secrets: BTreeMap<String, Content>,
    /// The content of ConfigMaps.
    pub config_maps: BTreeMap<String, Content>,
    /// Service accounts whose token pods get that do not refuse it.
    pub giving_accounts: BTreeSet<String>,
}

/// What a Secret or ConfigMap holds, by key.
pub type Content = BTreeMap<String, Vec<u8>>;

/// The names of what a workload refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Secrets in its volumes.
    pub secrets: BTreeSet<String>,
    /// ConfigMaps in its volumes.
    pub config_maps: BTreeSet<String>,
    /// Its service account.
    pub account: String,
}

impl Workload {
    /// What it refers to.
    pub fn references(&self) -> References {
        let mut found = References { account: self.account().to_owned(), ..References::default() };
        for source in self.volumes().iter().flat_map(sources) {
            match source {
                Source::Secret(name, _) => drop(found.secrets.insert(name.to_owned())),
                Source::ConfigMap(name, _) => drop(found.config_maps.insert(name.to_owned())),
                Source::Other(_) => {}
            }
        }
        found
    }

    fn spec(&self) -> &Value {
        &self.template["spec"]
    }

    fn account(&self) -> &str {
        let name = self.spec().get("serviceAccountName").and_then(Value::as_str);
        name.filter(|name| !name.is_empty()).unwrap_or("default")
    }

    fn volumes(&self) -> &[Value] {
        list(self.spec(), "volumes")
    }

    fn containers(&self) -> impl Iterator<Item = &Value> {
        CONTAINERS.into_iter().flat_map(|field| list(self.spec(), field))
    }
}

/// A source of files in a volume, with its `items`, mode and `optional`.
enum Source<'a> {
    Secret(&'a str, &'a Value),
    ConfigMap(&'a str, &'a Value),
    /// A projected source of another kind.
    Other(&'a str),
}

/// The sources of a volume of Secrets and ConfigMaps; none of any other.
fn sources(volume: &Value) -> Vec<Source<'_>> {
    fn secret<'a>(source: &'a Value, name: &str) -> Source<'a> {
        Source::Secret(text(source, name), source)
    }
    fn config_map(source: &Value) -> Source<'_> {
        Source::ConfigMap(text(source, "name"), source)
    }
    if let Some(source) = present(volume, "secret") {
        return vec![secret(source, "secretName")];
    }
    if let Some(source) = present(volume, "configMap") {
        return vec![config_map(source)];
    }
    fn of_projected(source: &Value) -> Source<'_> {
        match (present(source, "secret"), present(source, "configMap")) {
            (Some(inner), _) => secret(inner, "name"),
            (None, Some(inner)) => config_map(inner),
            (None, None) => {
                Source::Other(source.as_object().and_then(|map| map.keys().next()).map_or("", String::as_str))
            }
        }
    }
    list(&volume["projected"], "sources").iter().map(of_projected).collect()
}

/// `workload` as a static pod that mounts its files from below `folder`.
///
/// # Errors
/// All that a static pod cannot have.
pub fn convert(workload: &Workload, objects: &Objects, folder: &str) -> Result<StaticPod, Vec<Finding>> {
    let mut findings = Findings { workload, found: Vec::new() };
    refuse(workload, objects, &mut findings);
    let mut volumes = Vec::new();
    let mut folders = Vec::new();
    for volume in workload.volumes() {
        let name = text(volume, "name");
        match files_of(volume, objects, &mut findings) {
            None => volumes.push(volume.clone()),
            Some(files) => {
                let owner = reader(workload, name, &mut findings);
                folders.push(Folder { volume: name.to_owned(), owner, files });
                let path = format!("{folder}/{}/{name}", workload.component);
                volumes.push(json!({"name": name, "hostPath": {"path": path, "type": "Directory"}}));
            }
        }
    }
    if !findings.found.is_empty() {
        return Err(findings.found);
    }
    let manifest = manifest(workload, volumes);
    Ok(StaticPod { component: workload.component.to_owned(), manifest: yaml::to_string(&manifest), folders })
}

fn manifest(workload: &Workload, volumes: Vec<Value>) -> Value {
    let mut spec = workload.spec().as_object().cloned().unwrap_or_default();
    OF_THE_API.iter().for_each(|field| drop(spec.shift_remove(*field)));
    for field in CONTAINERS {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        containers.filter_map(Value::as_object_mut).for_each(|container| mark(container, workload.component));
    }
    spec.insert("automountServiceAccountToken".into(), false.into());
    spec.insert("priorityClassName".into(), "system-node-critical".into());
    // In a static pod, nobody looks the class up.
    spec.insert("priority".into(), 2_000_001_000.into());
    spec.insert("volumes".into(), volumes.into());
    let template = &workload.template["metadata"];
    let mut labels = template["labels"].as_object().cloned().unwrap_or_default();
    labels.insert("app.kubernetes.io/managed-by".into(), "hoist".into());
    let mut metadata = json!({"name": workload.component, "namespace": "kube-system", "labels": labels});
    if let Some(annotations) = present(template, "annotations") {
        metadata["annotations"] = annotations.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// By this hoist tells its processes from those of the self-hosted one.
fn mark(container: &mut Map<String, Value>, component: &str) {
    let env = container.entry("env").or_insert_with(|| json!([]));
    if env.is_null() {
        *env = json!([]);
    }
    if let Some(env) = env.as_array_mut() {
        env.push(json!({"name": processes::PERMANENT, "value": component}));
    }
}

/// What of the pod itself cannot be.
fn refuse(workload: &Workload, objects: &Objects, findings: &mut Findings<'_>) {
    for (field, what) in REFUSED {
        let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty) || value == "";
        if present(workload.spec(), field).is_some_and(|value| !is_empty(value)) {
            findings.add(format!("{what} ({field})"));
        }
    }
    let account = workload.account();
    if workload.spec()["automountServiceAccountToken"] != false && objects.giving_accounts.contains(account) {
        findings.add(format!("mounts a token of the service account {account}"));
    }
    for container in workload.containers() {
        let name = text(container, "name");
        for env in list(container, "env") {
            let from = &env["valueFrom"];
            for (field, kind) in [("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")] {
                if let Some(source) = present(from, field) {
                    let (variable, source) = (text(env, "name"), text(source, "name"));
                    findings.add(format!("the container {name} takes {variable} from the {kind} {source}"));
                }
            }
        }
        for from in list(container, "envFrom") {
            for (field, kind) in [("secretRef", "Secret"), ("configMapRef", "ConfigMap")] {
                if let Some(source) = present(from, field) {
                    let source = text(source, "name");
                    findings.add(format!("the container {name} takes its environment from the {kind} {source}"));
                }
            }
        }
    }
    if workload.component == "kube-apiserver" {
        let container = workload.containers().find(|container| text(container, "name") == "kube-apiserver");
        refuse_listening(container.unwrap_or(&Value::Null), findings);
    }
}

/// The forwarder shares the API server's port while the bridge is raised: now, and at the next `start`.
fn refuse_listening(container: &Value, findings: &mut Findings<'_>) {
    let words: Vec<_> = ["command", "args"].iter().flat_map(|field| list(container, field)).collect();
    let flag = |name: &str| {
        let of = |word: &&Value| word.as_str().and_then(|word| word.strip_prefix(name)).map(str::to_owned);
        words.iter().rev().find_map(of)
    };
    if !matches!(flag("--permit-port-sharing").as_deref(), Some("" | "=true")) {
        findings.add("has no --permit-port-sharing=true: the bridge cannot serve beside it".into());
    }
    if flag("--secure-port=").is_some_and(|port| port != API_PORT.to_string()) {
        findings.add(format!("listens at another port than {API_PORT} (--secure-port)"));
    }
    if flag("--bind-address=").is_some_and(|address| !matches!(address.as_str(), "0.0.0.0" | "::")) {
        findings.add("does not listen at every address (--bind-address): the bridge could not take one over".into());
    }
}

/// The files of a volume of Secrets and ConfigMaps; `None` for one that can stay as it is.
fn files_of(volume: &Value, objects: &Objects, findings: &mut Findings<'_>) -> Option<Vec<(String, File)>> {
    let name = text(volume, "name");
    for (field, what) in REFUSED_VOLUMES {
        if present(volume, field).is_some() {
            findings.add(format!("the volume {name} is {what}"));
        }
    }
    let has_secret = |source: &Value| present(source, "secretRef").is_some();
    if volume.as_object().is_some_and(|volume| volume.values().any(has_secret)) {
        findings.add(format!("the volume {name} is mounted with a Secret"));
    }
    let sources = sources(volume);
    let is_downward = |source: &Source<'_>| matches!(source, Source::Other("downwardAPI"));
    if sources.is_empty() || sources.iter().all(is_downward) {
        return None;
    }
    let default =
        ["secret", "configMap", "projected"].iter().find_map(|field| present(volume, field)?.get("defaultMode"));
    let mut files = Vec::new();
    for source in sources {
        let (kind, object, source, content) = match source {
            Source::Secret(object, source) => ("Secret", object, source, objects.secrets.get(object)),
            Source::ConfigMap(object, source) => ("ConfigMap", object, source, objects.config_maps.get(object)),
            Source::Other(kind) => {
                findings.add(format!("the volume {name} has files of the API's in it ({kind})"));
                continue;
            }
        };
        let optional = source["optional"] == true;
        let Some(content) = content else {
            if !optional {
                findings.add(format!("the volume {name} is of the {kind} {object}, which is not there"));
            }
            continue;
        };
        let file = |content: &[u8], mode: Option<&Value>| {
            // Programs stay what they are; nobody but their reader sees any of them.
            let executable = mode.or(default).and_then(Value::as_u64).is_some_and(|mode| mode & 0o100 != 0);
            File { content: content.to_vec(), mode: if executable { 0o700 } else { 0o600 } }
        };
        if present(source, "items").is_none() {
            files.extend(content.iter().map(|(key, content)| (key.clone(), file(content, None))));
            continue;
        }
        for item in list(source, "items") {
            let (key, path) = (text(item, "key"), text(item, "path"));
            match content.get(key) {
                Some(content) if is_inside(path) => files.push((path.to_owned(), file(content, item.get("mode")))),
                Some(_) => findings.add(format!("the volume {name} has a file outside of it: {path}")),
                None if optional => {}
                None => findings.add(format!("the volume {name} needs {key} of the {kind} {object}, which has none")),
            }
        }
    }
    Some(files)
}

fn is_inside(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The user id of the containers that mount a volume: its files are theirs.
fn reader(workload: &Workload, volume: &str, findings: &mut Findings<'_>) -> u32 {
    let context = |of: &Value, field: &str| present(&of["securityContext"], field).cloned();
    let mounts = |container: &&Value| list(container, "volumeMounts").iter().any(|mount| text(mount, "name") == volume);
    let mut readers = BTreeSet::new();
    for container in workload.containers().filter(mounts) {
        let of = |field| context(container, field).or_else(|| context(workload.spec(), field));
        match of("runAsUser").and_then(|user| u32::try_from(user.as_u64()?).ok()) {
            Some(user) => drop(readers.insert(user)),
            None if of("runAsNonRoot") == Some(true.into()) => {
                let name = text(container, "name");
                findings.add(format!(
                    "the container {name} has no runAsUser that says which user reads the volume {volume}"
                ));
            }
            None => drop(readers.insert(0)),
        }
    }
    if readers.len() > 1 {
        findings.add(format!("containers of several users read the volume {volume}"));
    }
    readers.first().copied().unwrap_or(0)
}

/// What is found of one workload.
struct Findings<'a> {
    workload: &'a Workload,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, what: String) {
        let Workload { component, kind, .. } = self.workload;
        let remedy = format!(
            "a static pod cannot have that: remove it with `kubectl -n kube-system edit {}/{component}`",
            kind.to_lowercase()
        );
        self.found.push(Finding::new(format!("{kind} kube-system/{component}"), what).remedy(remedy));
    }
}

fn present<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    value.get(field).filter(|value| !value.is_null())
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
