//! The content of an asset directory, with its places: the objects, their pods, and the programs that these run.

use std::path::Path;

use serde_json::Value;

use super::contents::Contents;
use crate::base::error::Finding;
use crate::base::yaml::{self, child, item};
use crate::desired::assets::{AssetSet, Parsed};
use crate::desired::config::{Cluster, Controller, Version, version};
use crate::desired::known_flags::{self, Program};

/// An asset directory, read and parsed.
pub(super) struct Inventory<'a> {
    /// The asset directory, as messages name it.
    pub dir: &'a Path,
    pub assets: &'a AssetSet,
    pub cluster: &'a Cluster,
    /// Every object of manifests/ and bootstrap-manifests/.
    pub objects: Vec<Object>,
    /// Every object of addons/.
    pub addons: Vec<Object>,
    /// What the components' files hold, by where they come from.
    pub contents: Contents,
}

/// One object, and where everything in it stands.
pub(super) struct Object(pub Parsed);

impl Object {
    pub fn new(parsed: Parsed) -> Self {
        Self(parsed)
    }

    /// A file that is not a manifest, as one.
    pub fn of_file(dir: &Path, path: &str, text: &str) -> Option<Self> {
        let place = dir.join(path).display().to_string();
        let document = yaml::documents(&place, text).ok()?.into_iter().next()?;
        Some(Self(Parsed { path: path.to_owned(), place, document }))
    }

    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// The file, below the asset directory.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    pub fn value(&self) -> &Value {
        &self.0.document.value
    }

    fn text(&self, pointer: &str) -> &str {
        self.value().pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub fn api_group(&self) -> &str {
        self.text("/apiVersion").rsplit_once('/').map_or("", |(group, _)| group)
    }

    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// Its namespace; `default` where it names none, as a kind that has namespaces would.
    pub fn namespace(&self) -> &str {
        match self.text("/metadata/namespace") {
            "" => "default",
            namespace => namespace,
        }
    }

    pub fn is_static(&self) -> bool {
        self.0.path.starts_with("bootstrap-manifests/")
    }

    pub fn position(&self, path: &str) -> Option<yaml::Position> {
        self.0.document.positions.nearest(path).or(Some((self.0.document.line, 1)))
    }

    /// Where the key of the value at `path` is.
    pub fn key(&self, path: &str) -> Option<yaml::Position> {
        self.0.document.positions.key(path).or_else(|| self.position(path))
    }

    /// A finding about the value at `path`, which the message names.
    pub fn finding(&self, path: &str, message: impl AsRef<str>) -> Finding {
        Finding::new(self.place(), format!("{path}: {}", message.as_ref())).at(self.position(path))
    }

    /// Where its pods' specification is, for a kind that makes pods.
    fn pod_path(&self) -> Option<&'static str> {
        match self.kind() {
            "Pod" => Some("spec"),
            "DaemonSet" | "Deployment" | "StatefulSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
                Some("spec.template.spec")
            }
            "CronJob" => Some("spec.jobTemplate.spec.template.spec"),
            _ => None,
        }
    }

    /// Its pods, where it makes any.
    pub fn pod(&self) -> Option<Pod<'_>> {
        let path = self.pod_path()?;
        let mut spec = self.value();
        for key in path.split('.') {
            spec = spec.get(key)?;
        }
        Some(Pod { object: self, path, spec })
    }
}

/// The pods of one object.
#[derive(Clone, Copy)]
pub(super) struct Pod<'a> {
    pub object: &'a Object,
    pub path: &'static str,
    pub spec: &'a Value,
}

/// The items of the list `key` of `value`, each with its path, `value` being at `path`.
pub(super) fn items<'v>(path: &str, value: &'v Value, key: &str) -> Vec<(String, &'v Value)> {
    let list = value.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let path = child(path, key);
    list.iter().enumerate().map(|(i, value)| (item(&path, i), value)).collect()
}

/// The text of the field `key`.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

impl<'a> Pod<'a> {
    pub fn containers(&self) -> Vec<(String, &'a Value)> {
        [items(self.path, self.spec, "initContainers"), items(self.path, self.spec, "containers")].concat()
    }

    /// The labels of the pods.
    pub fn labels(&self) -> Option<&'a serde_json::Map<String, Value>> {
        let mut holder = self.object.value();
        for key in self.path.split('.').take(self.path.split('.').count() - 1) {
            holder = holder.get(key)?;
        }
        holder.pointer("/metadata/labels").and_then(Value::as_object)
    }

    /// The programs of the control plane that it runs.
    fn running(&self) -> Vec<Running<'a>> {
        let containers = self.containers().into_iter();
        containers.filter_map(|(path, container)| Running::of(*self, path, container)).collect()
    }

    pub fn volume(&self, name: &str) -> Option<(String, &'a Value)> {
        items(self.path, self.spec, "volumes").into_iter().find(|(_, volume)| text(volume, "name") == Some(name))
    }
}

/// A container that runs a program of the control plane.
pub(super) struct Running<'a> {
    pub pod: Pod<'a>,
    pub path: String,
    pub container: &'a Value,
    pub program: Program,
    pub args: Vec<Arg>,
    /// Words of the command that are no flags.
    pub strays: Vec<(String, String)>,
}

/// A flag of a command.
pub(super) struct Arg {
    pub name: String,
    pub value: String,
    /// Where it stands in the object.
    pub path: String,
}

impl<'a> Running<'a> {
    fn of(pod: Pod<'a>, path: String, container: &'a Value) -> Option<Self> {
        let words = [items(&path, container, "command"), items(&path, container, "args")].concat();
        let mut words = words.into_iter().map(|(path, word)| (path, word.as_str().unwrap_or_default().to_owned()));
        let (_, first) = words.next()?;
        let name = first.rsplit('/').next()?;
        let program = Program::ALL.into_iter().find(|program| program.name() == name)?;
        let (args, strays) = flags(program, words.collect());
        Some(Self { pod, path, container, program, args, strays })
    }

    pub fn is_bridge(&self) -> bool {
        self.pod.object.is_static()
    }

    /// The flag `name` as it counts: where it is given twice, the last one.
    pub fn arg(&self, name: &str) -> Option<&Arg> {
        self.args.iter().rfind(|arg| arg.name == name)
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.arg(name).map(|arg| arg.value.as_str())
    }

    /// A finding about the flag `name`, or about its absence.
    pub fn finding(&self, name: &str, message: impl AsRef<str>) -> Finding {
        let first = child(&self.path, "command");
        let path = self.arg(name).map_or(&first, |arg| &arg.path);
        let position = self.pod.object.position(path);
        Finding::new(self.pod.object.place(), format!("--{name}: {}", message.as_ref())).at(position)
    }

    /// The value of `name` on a controller; `None` where it is not given or cannot be known.
    pub fn on(&self, name: &str, controller: &Controller) -> Option<String> {
        self.expand(self.value(name)?, controller).ok().flatten()
    }

    /// All values on a controller of a `name` that may be given several times, but for those that cannot be known.
    pub fn all_on(&self, name: &str, controller: &Controller) -> Vec<String> {
        let given = self.args.iter().filter(|arg| arg.name == name);
        given.filter_map(|arg| self.expand(&arg.value, controller).ok().flatten()).collect()
    }

    /// A text with `$(NAME)` replaced as the kubelet does on a controller: `None` where a value is made elsewhere.
    ///
    /// # Errors
    /// The name of a variable that is not there.
    pub fn expand(&self, text: &str, controller: &Controller) -> Result<Option<String>, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(more) = rest.strip_prefix('$') {
                out.push('$');
                rest = more;
            } else if let Some((name, more)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
                match self.variable(name, controller) {
                    None => return Err(name.to_owned()),
                    Some(None) => return Ok(None),
                    Some(Some(value)) => out.push_str(&value),
                }
                rest = more;
            } else {
                out.push('$');
            }
        }
        Ok(Some(out + rest))
    }

    /// An environment variable: not there, there but not known, known.
    fn variable(&self, name: &str, controller: &Controller) -> Option<Option<String>> {
        let entries = items(&self.path, self.container, "env");
        let entry = entries.into_iter().rfind(|(_, entry)| text(entry, "name") == Some(name));
        let Some((_, entry)) = entry else {
            return self.container.get("envFrom").is_some().then_some(None);
        };
        if let Some(field) = entry.pointer("/valueFrom/fieldRef/fieldPath").and_then(Value::as_str) {
            return Some(match field {
                "status.hostIP" | "status.podIP" => Some(controller.address.to_string()),
                "spec.nodeName" => Some(controller.name.clone()),
                _ => None,
            });
        }
        if entry.get("valueFrom").is_some() {
            return Some(None);
        }
        Some(Some(text(entry, "value").unwrap_or_default().to_owned()))
    }

    /// The version that its image has by its tag, or else the cluster's.
    pub fn version(&self, cluster: &Cluster) -> Version {
        let tagged = || {
            let (major, minor, patch) = version::of_image(text(self.container, "image")?)?;
            Some(Version { major, minor, patch })
        };
        let oldest = Version { major: 1, minor: 34, patch: 0 };
        match tagged() {
            // etcd's tags are etcd's own.
            Some(version) if self.program != Program::Etcd && version >= oldest => version,
            _ => cluster.kubernetes_version,
        }
    }
}

/// The flags among the words behind a program's name, and the other words, each with its path.
pub(super) fn flags(program: Program, words: Vec<(String, String)>) -> (Vec<Arg>, Vec<(String, String)>) {
    let (mut args, mut strays) = (Vec::new(), Vec::new());
    let mut words = words.into_iter().peekable();
    while let Some((path, word)) = words.next() {
        let dashes = word.len() - word.trim_start_matches('-').len();
        // etcd's are of Go's own kind: one dash is as good as two.
        if dashes == 0 || dashes > 2 || (dashes == 1 && program != Program::Etcd) {
            // `-v 2`, `-v=2`: the only short flag of Kubernetes' programs with a value.
            if let Some(value) = word.strip_prefix("-v") {
                let value = value.trim_start_matches('=').to_owned();
                let value =
                    if value.is_empty() { words.next().map(|(_, word)| word).unwrap_or_default() } else { value };
                args.push(Arg { name: "v".to_owned(), value, path });
            } else if word != "-h" {
                strays.push((path, word));
            }
            continue;
        }
        let bare = &word[dashes..];
        let (name, value) = match bare.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None if known_flags::is_bool(program, bare) => (bare, "true".to_owned()),
            None => match words.peek() {
                Some((_, next)) if !next.starts_with('-') => {
                    (bare, words.next().map(|(_, word)| word).unwrap_or_default())
                }
                _ => (bare, String::new()),
            },
        };
        let name = if program == Program::Etcd { name.to_owned() } else { name.replace('_', "-") };
        // As Go reads booleans.
        let value = match &*value {
            "1" | "t" | "T" | "TRUE" | "True" if known_flags::is_bool(program, &name) => "true".to_owned(),
            "0" | "f" | "F" | "FALSE" | "False" if known_flags::is_bool(program, &name) => "false".to_owned(),
            _ => value,
        };
        args.push(Arg { name, value, path });
    }
    (args, strays)
}

impl Inventory<'_> {
    pub fn pods(&self) -> impl Iterator<Item = Pod<'_>> {
        self.objects.iter().filter_map(Object::pod)
    }

    /// Everything of the control plane that some pod runs.
    pub fn running(&self) -> Vec<Running<'_>> {
        self.pods().flat_map(|pod| pod.running()).collect()
    }

    /// The object of manifests/ of this kind and name.
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<&Object> {
        let is = |object: &&Object| {
            object.kind() == kind && object.namespace() == namespace && object.name() == name && !object.is_static()
        };
        self.objects.iter().find(is)
    }

    /// The same, of a kind without namespaces.
    pub fn cluster_object(&self, kind: &str, name: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.kind() == kind && object.name() == name)
    }

    /// A file of the asset directory as messages name it.
    pub fn place(&self, path: &str) -> String {
        self.dir.join(path).display().to_string()
    }
}
