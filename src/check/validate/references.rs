//! Every reference by name resolves. A reference that only a running cluster can resolve is a warning: another tool
//! may make the object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::files::Resolved;
use super::inventory::{Inventory, Object, Pod, Running, items, text};
use crate::base::error::{Error, Finding};
use crate::base::yaml::child;
use crate::check::preflight;
use crate::desired::config::Etcd;
use crate::desired::known_flags::Program;

/// Namespaces that Kubernetes makes.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Priority classes that Kubernetes makes.
const PRIORITIES: [&str; 2] = ["system-node-critical", "system-cluster-critical"];
/// Roles that Kubernetes makes, beside those that begin with `system:`.
const ROLES: [&str; 4] = ["cluster-admin", "admin", "edit", "view"];
/// ConfigMaps that Kubernetes makes: one in every namespace, one in kube-system.
const CONFIG_MAPS: [&str; 2] = ["kube-root-ca.crt", "extension-apiserver-authentication"];
/// Made by `hoist start`, of the asset directory itself.
const GUARDS_SECRET: &str = "hoist-guard";

pub(super) fn check(inventory: &Inventory<'_>) -> Vec<Finding> {
    let mut findings = missing_files(inventory);
    findings.extend(duplicates(inventory));
    findings.extend(bindings(inventory));
    for object in &inventory.objects {
        findings.extend(namespace(inventory, object));
        findings.extend(roles(inventory, object));
        findings.extend(selector(inventory, object));
    }
    for pod in inventory.pods() {
        let mut check = PodCheck { inventory, pod, findings: Vec::new() };
        check.volumes();
        check.environment();
        check.names();
        findings.append(&mut check.findings);
    }
    for running in &inventory.running() {
        findings.extend(files(inventory, running));
    }
    findings
}

/// What `start` needs of the asset directory on any of the controllers.
fn missing_files(inventory: &Inventory<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for controller in &inventory.cluster.controllers {
        for mut finding in preflight::missing_files(inventory.assets, inventory.cluster, controller) {
            finding.place = inventory.place(&finding.place);
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    findings
}

/// Static pods of one name; of what is applied, they are refused before.
fn duplicates(inventory: &Inventory<'_>) -> Vec<Finding> {
    let mut first: BTreeMap<_, &Object> = BTreeMap::new();
    let mut findings = Vec::new();
    for object in inventory.objects.iter().filter(|object| object.is_static() && !object.name().is_empty()) {
        let key = (object.api_group(), object.kind(), object.namespace(), object.name());
        if let Some(other) = first.get(&key) {
            let line = other.position("").map_or(1, |(line, _)| line);
            let message = format!("{} {} is in {}:{line}, too", object.kind(), object.name(), other.place());
            let finding = object.finding("metadata.name", message).remedy("keep one of them");
            findings.push(finding.warning());
        } else {
            first.insert(key, object);
        }
    }
    findings
}

fn namespace(inventory: &Inventory<'_>, object: &Object) -> Option<Finding> {
    let name = text(object.value().get("metadata")?, "namespace")?;
    let is_there = NAMESPACES.contains(&name) || inventory.cluster_object("Namespace", name).is_some();
    (!is_there).then(|| {
        object
            .finding("metadata.namespace", format!("no manifest makes the namespace {name}"))
            .remedy("add a Namespace, unless the cluster has it")
            .warning()
    })
}

fn roles(inventory: &Inventory<'_>, object: &Object) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !matches!(object.kind(), "ClusterRoleBinding" | "RoleBinding") {
        return findings;
    }
    if let Some(role) = object.value().get("roleRef") {
        let (kind, name) = (text(role, "kind").unwrap_or_default(), text(role, "name").unwrap_or_default());
        let is_there = match kind {
            "ClusterRole" => {
                name.starts_with("system:") || ROLES.contains(&name) || inventory.cluster_object(kind, name).is_some()
            }
            _ => inventory.object(kind, object.namespace(), name).is_some(),
        };
        if !is_there {
            findings.push(not_made(object, "roleRef.name", kind, name));
        }
    }
    for (path, subject) in items("", object.value(), "subjects") {
        let name = text(subject, "name").unwrap_or_default();
        let namespace = text(subject, "namespace").unwrap_or(object.namespace());
        if text(subject, "kind") == Some("ServiceAccount") && !has_account(inventory, namespace, name) {
            findings.push(not_made(object, &child(&path, "name"), "ServiceAccount", name));
        }
    }
    findings
}

/// Roles that nodes and the API server have by hoist's manifests only, and what they need them for.
const BOUND: [(&str, &str); 4] = [
    ("system:kubelet-api-admin", "the API server asks kubelets for logs and exec"),
    ("system:node-bootstrapper", "a new kubelet asks for its first certificate"),
    ("system:certificates.k8s.io:certificatesigningrequests:nodeclient", "a new kubelet gets its first certificate"),
    ("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "a kubelet renews its certificate"),
];

fn bindings(inventory: &Inventory<'_>) -> Vec<Finding> {
    let role = |object: &Object| object.value().pointer("/roleRef/name").and_then(Value::as_str).map(str::to_owned);
    let bound: Vec<_> = inventory.objects.iter().filter_map(role).collect();
    let unbound = BOUND.into_iter().filter(|(role, _)| !bound.iter().any(|bound| bound == role));
    let finding = |(role, why): (&str, &str)| {
        Finding::new(inventory.place("manifests"), format!("no manifest binds the ClusterRole {role}, by which {why}"))
            .remedy("`hoist render --replace FILE` restores what was removed, unless the cluster has such a binding")
            .warning()
    };
    unbound.map(finding).collect()
}

fn not_made(object: &Object, path: &str, kind: &str, name: &str) -> Finding {
    let finding = object.finding(path, format!("no manifest makes the {kind} {name}"));
    finding.remedy("correct the name, or add a manifest, unless the cluster has it").warning()
}

/// Those of kube-system are also made by the controller manager, for its controllers.
fn has_account(inventory: &Inventory<'_>, namespace: &str, name: &str) -> bool {
    name == "default"
        || (namespace == "kube-system" && name.ends_with("-controller"))
        || inventory.object("ServiceAccount", namespace, name).is_some()
}

/// A selector finds the pods that it is for.
fn selector(inventory: &Inventory<'_>, object: &Object) -> Option<Finding> {
    let selector = object.value().pointer("/spec/selector")?.as_object()?;
    match object.kind() {
        "DaemonSet" | "Deployment" | "StatefulSet" | "ReplicaSet" => {
            let wanted = selector.get("matchLabels")?.as_object()?;
            let labels = object.pod()?.labels();
            (!selects(wanted, labels)).then(|| {
                object
                    .finding("spec.selector.matchLabels", "does not select the pods of the object's own template")
                    .remedy("give spec.template.metadata.labels the same labels")
            })
        }
        kind @ ("PodDisruptionBudget" | "Service") => {
            let wanted = if kind == "Service" { selector } else { selector.get("matchLabels")?.as_object()? };
            let here = inventory.pods().filter(|pod| pod.object.namespace() == object.namespace());
            let found = here.into_iter().any(|pod| selects(wanted, pod.labels()));
            (!found && !wanted.is_empty()).then(|| {
                object
                    .finding("spec.selector", "selects no pod that a manifest makes")
                    .remedy("correct the labels, unless other pods have them")
                    .warning()
            })
        }
        _ => None,
    }
}

fn selects(wanted: &Map<String, Value>, labels: Option<&Map<String, Value>>) -> bool {
    wanted.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// What the pods of one object refer to.
struct PodCheck<'a> {
    inventory: &'a Inventory<'a>,
    pod: Pod<'a>,
    findings: Vec<Finding>,
}

impl PodCheck<'_> {
    /// A finding that stops the control plane, and that may be meant in any other pod.
    fn add(&mut self, finding: Finding) {
        let is_ours = self.pod.object.is_static()
            || (self.pod.object.namespace() == "kube-system"
                && ["kube-apiserver", "kube-controller-manager", "kube-scheduler"].contains(&self.pod.object.name()));
        self.findings.push(if is_ours { finding } else { finding.warning() });
    }

    /// The Secret or ConfigMap `name` with these keys, which the field at `path` refers to.
    fn source(&mut self, path: &str, kind: &str, source: &Value, name: Option<&str>, keys: &[(String, String)]) {
        let Some(name) = name else { return };
        let object = self.pod.object;
        if object.is_static() {
            let finding = object.finding(path, format!("a static pod cannot use a {kind}"));
            self.findings.push(finding.remedy("mount a file of the host instead"));
            return;
        }
        if source.get("optional") == Some(&true.into()) {
            return;
        }
        let Some(found) = self.inventory.object(kind, object.namespace(), name) else {
            let is_made = match kind {
                "ConfigMap" => CONFIG_MAPS.contains(&name),
                _ => name == GUARDS_SECRET && object.namespace() == "kube-system",
            };
            if !is_made {
                let message = format!("no manifest makes the {kind} {name} of {}", object.namespace());
                let remedy = "correct the name, or add a manifest; `hoist render` writes those of the control plane";
                self.add(object.finding(path, message).remedy(remedy));
            }
            return;
        };
        for (path, key) in keys {
            let fields = ["data", "stringData", "binaryData"];
            if !fields.iter().any(|field| found.value().get(field).is_some_and(|data| data.get(key).is_some())) {
                let message = format!("the {kind} {name} ({}) has no key {key}", found.place());
                self.add(object.finding(path, message).remedy("correct the key, or add it"));
            }
        }
    }

    fn volumes(&mut self) {
        let (pod, object) = (self.pod, self.pod.object);
        for (path, volume) in items(pod.path, pod.spec, "volumes") {
            let projected = child(&path, "projected");
            let sources = volume.get("projected").map(|value| items(&projected, value, "sources"));
            for (path, holder) in [(path.clone(), volume)].into_iter().chain(sources.into_iter().flatten()) {
                for (field, kind) in [("secret", "Secret"), ("configMap", "ConfigMap")] {
                    let Some(source) = holder.get(field) else { continue };
                    let path = child(&path, field);
                    let (field, name) = match text(source, "secretName") {
                        Some(name) => ("secretName", Some(name)),
                        None => ("name", text(source, "name")),
                    };
                    let keys = items(&path, source, "items").into_iter();
                    let keys: Vec<_> = keys
                        .filter_map(|(path, item)| Some((child(&path, "key"), text(item, "key")?.into())))
                        .collect();
                    self.source(&child(&path, field), kind, source, name, &keys);
                }
            }
            if let Some(host) = volume.pointer("/hostPath/path").and_then(Value::as_str)
                && !self.inventory.is_made(host)
            {
                let message = format!("hoist start puts no {host} on a controller");
                let path = child(&child(&path, "hostPath"), "path");
                self.findings.push(object.finding(&path, message).remedy("correct the path"));
            }
        }
        for (path, container) in pod.containers() {
            for (path, mount) in items(&path, container, "volumeMounts") {
                let Some(name) = text(mount, "name") else { continue };
                let claims = object.value().pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
                let is_claimed = claims
                    .into_iter()
                    .flatten()
                    .any(|claim| claim.pointer("/metadata/name").and_then(Value::as_str) == Some(name));
                if pod.volume(name).is_none() && !is_claimed {
                    let finding = object.finding(&child(&path, "name"), format!("the pod has no volume {name}"));
                    self.findings.push(finding.remedy("add it to the volumes, or remove the mount"));
                }
            }
        }
    }

    fn environment(&mut self) {
        for (path, container) in self.pod.containers() {
            for (path, entry) in items(&path, container, "env") {
                for (field, kind) in [("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")] {
                    let Some(source) = entry.get("valueFrom").and_then(|from| from.get(field)) else { continue };
                    let path = child(&child(&path, "valueFrom"), field);
                    let key = text(source, "key").map(|key| (child(&path, "key"), key.to_owned()));
                    let keys: Vec<_> = key.into_iter().collect();
                    self.source(&child(&path, "name"), kind, source, text(source, "name"), &keys);
                }
            }
            for (path, entry) in items(&path, container, "envFrom") {
                for (field, kind) in [("secretRef", "Secret"), ("configMapRef", "ConfigMap")] {
                    let Some(source) = entry.get(field) else { continue };
                    self.source(&child(&child(&path, field), "name"), kind, source, text(source, "name"), &[]);
                }
            }
        }
    }

    /// Service account, priority class, image pull secrets.
    fn names(&mut self) {
        let (pod, object, inventory) = (self.pod, self.pod.object, self.inventory);
        let path = child(pod.path, "serviceAccountName");
        match text(pod.spec, "serviceAccountName") {
            Some(_) if object.is_static() => {
                let finding = object.finding(&path, "a static pod cannot have a service account");
                self.findings.push(finding.remedy("remove it"));
            }
            Some(name) if !has_account(inventory, object.namespace(), name) => {
                let message = format!("no manifest makes the ServiceAccount {name} of {}", object.namespace());
                self.add(object.finding(&path, message).remedy("correct the name, or add a manifest"));
            }
            _ => {}
        }
        if let Some(name) = text(pod.spec, "priorityClassName")
            && !PRIORITIES.contains(&name)
            && inventory.cluster_object("PriorityClass", name).is_none()
        {
            let path = child(pod.path, "priorityClassName");
            let finding = object.finding(&path, format!("no manifest makes the PriorityClass {name}"));
            self.add(finding.remedy(format!("add one, or use {}", PRIORITIES.join(" or "))));
        }
        for (path, entry) in items(pod.path, pod.spec, "imagePullSecrets") {
            let name = text(entry, "name").unwrap_or_default();
            if !object.is_static() && inventory.object("Secret", object.namespace(), name).is_none() {
                let message = format!("no manifest makes the Secret {name} of {}", object.namespace());
                let finding = object.finding(&child(&path, "name"), message);
                self.findings.push(finding.remedy("correct the name, unless the cluster has it").warning());
            }
        }
    }
}

/// Files and variables that the command of a program of the control plane names.
fn files(inventory: &Inventory<'_>, running: &Running<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for arg in &running.args {
        let mut add = |finding: Finding| {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        };
        for controller in &inventory.cluster.controllers {
            let value = match running.expand(&arg.value, controller) {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                Err(variable) => {
                    let message = format!("{variable} is not an environment variable of the container");
                    add(running.finding(&arg.name, message).remedy("add it to env, or correct the name"));
                    continue;
                }
            };
            if !reads_file(&arg.name) || !value.starts_with('/') {
                continue;
            }
            if let Resolved::Missing(why) = inventory.resolve(running, &value, controller) {
                add(running
                    .finding(&arg.name, format!("there will be no file {value}: {why}"))
                    .remedy("correct the path, or mount a volume that has the file"));
            }
        }
    }
    // etcd's member must be one of the cluster's.
    let is_member = running.program == Program::Etcd && matches!(inventory.cluster.etcd, Etcd::External { .. });
    if is_member {
        let path = child(&running.path, "command");
        let finding = running.pod.object.finding(&path, "runs etcd, while cluster.yaml says that it is external");
        findings.push(finding.remedy("remove the manifest, or etcd.external").warning());
    }
    findings
}

/// Whether a flag names a file that must be there already.
fn reads_file(name: &str) -> bool {
    const ENDS: [&str; 8] =
        ["file", "kubeconfig", "-config", "-certificate", "-key", "-authority", "-cafile", "-certfile"];
    name == "config" || name == "kubeconfig" || ENDS.iter().any(|end| name.ends_with(end))
}

/// The files in an error about the input.
pub(super) fn input(error: Error) -> Vec<Finding> {
    match error {
        Error::Input(findings) | Error::Preflight(findings) => findings,
        other => vec![Finding::new("asset directory", other.to_string())],
    }
}
