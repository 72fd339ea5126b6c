//! The content of a file that a program of the control plane names, found through the volume that it is mounted from.

use serde_json::Value;

use super::inventory::{Inventory, Object, Running, items, text};
use crate::base::error::Finding;
use crate::base::input;
use crate::base::yaml::{Position, child};
use crate::desired::config::Controller;
use crate::desired::node_endpoint;
use crate::desired::secrets::SecretFiles;
use crate::node::host::BINARY;

/// Where `start` puts the bridge's files, etcd's, and the cluster's CA for the kubelet.
const BRIDGE: &str = "/etc/kubernetes/bridge";
const ETCD: &str = "/etc/kubernetes/pki/etcd";
const SERVING: &str = "/etc/kubernetes/pki/apiserver";
/// The cluster's CA, where `start` puts it for the kubelet.
pub(super) const KUBELET_CA: &str = "/etc/kubernetes/pki/ca.crt";

/// Something with a content that another file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// The file, as messages name it.
    pub place: String,
    /// Where in it, for a part of a file.
    pub position: Option<Position>,
    /// The path in tls/, if it stands there.
    pub tls: Option<String>,
    pub bytes: Vec<u8>,
}

impl Source {
    pub fn finding(&self, message: impl Into<String>) -> Finding {
        Finding::new(&self.place, message).at(self.position)
    }
}

/// What a path in a container leads to.
pub(super) enum Resolved {
    Content(Source),
    /// There is no such file, and why.
    Missing(String),
    /// It is on the host, in the image, or made elsewhere.
    Elsewhere,
}

impl Inventory<'_> {
    /// These bytes as what they are in tls/, or else as what stands at a place.
    pub fn source(&self, bytes: &[u8], controller: &Controller, place: &str, position: Option<Position>) -> Source {
        let tls = self.contents.origin(bytes, controller).cloned();
        match &tls {
            Some(path) => Source {
                place: self.place(&format!("tls/{path}")),
                position: None,
                tls: tls.clone(),
                bytes: bytes.to_vec(),
            },
            None => Source { place: place.to_owned(), position, tls, bytes: bytes.to_vec() },
        }
    }

    /// A file of tls/.
    pub fn tls_source(&self, path: &str) -> Option<Source> {
        let bytes = self.contents.tls.get(path)?.clone();
        Some(Source { place: self.place(&format!("tls/{path}")), position: None, tls: Some(path.to_owned()), bytes })
    }

    /// What the flag `name` of a program names on a controller, if it can be known and is there.
    pub fn content(&self, running: &Running<'_>, name: &str, controller: &Controller) -> Option<Source> {
        match self.resolve(running, &running.on(name, controller)?, controller) {
            Resolved::Content(source) => Some(source),
            _ => None,
        }
    }

    /// What `path` in the container of a program leads to.
    pub fn resolve(&self, running: &Running<'_>, path: &str, controller: &Controller) -> Resolved {
        let below = |mount: &str| -> Option<String> {
            let rest = path.strip_prefix(mount.trim_end_matches('/'))?;
            if rest.is_empty() { Some(String::new()) } else { rest.strip_prefix('/').map(str::to_owned) }
        };
        let mounts = items(&running.path, running.container, "volumeMounts");
        let fitting = mounts.iter().filter_map(|(_, mount)| {
            let at = text(mount, "mountPath")?;
            Some((at.len(), mount, below(at)?))
        });
        let Some((_, mount, rest)) = fitting.max_by_key(|(len, ..)| *len) else {
            return Resolved::Missing("no volume is mounted there".to_owned());
        };
        let rest = match text(mount, "subPath") {
            Some(sub) => format!("{sub}/{rest}").trim_matches('/').to_owned(),
            None => rest,
        };
        let Some((_, volume)) = text(mount, "name").and_then(|name| running.pod.volume(name)) else {
            // Reported as a mount without a volume.
            return Resolved::Elsewhere;
        };
        if let Some(host) = volume.pointer("/hostPath/path").and_then(Value::as_str) {
            let whole = format!("{}/{rest}", host.trim_end_matches('/'));
            return self.on_host(whole.trim_end_matches('/'), controller);
        }
        let object = |kind: &str, source: &Value, name: Option<&str>| {
            let Some(object) = name.and_then(|name| self.object(kind, running.pod.object.namespace(), name)) else {
                return Resolved::Elsewhere;
            };
            match key_of(source, &rest) {
                Some(key) => self.key(object, &key, controller),
                None => Resolved::Missing(format!("{kind} {} is mounted there without it", object.name())),
            }
        };
        match (volume.get("secret"), volume.get("configMap")) {
            (Some(secret), _) => object("Secret", secret, text(secret, "secretName")),
            (_, Some(map)) => object("ConfigMap", map, text(map, "name")),
            _ => Resolved::Elsewhere,
        }
    }

    /// The value of a key of a Secret or ConfigMap.
    fn key(&self, object: &Object, key: &str, controller: &Controller) -> Resolved {
        let fields = [("data", object.kind() == "Secret"), ("stringData", false), ("binaryData", true)];
        for (field, encoded) in fields {
            let Some(value) = object.value().get(field).and_then(|data| data.get(key)).and_then(Value::as_str) else {
                continue;
            };
            let bytes = if encoded { input::base64(value) } else { Some(value.as_bytes().to_vec()) };
            let position = object.position(&child(field, key));
            return match bytes {
                Some(bytes) => Resolved::Content(self.source(&bytes, controller, object.place(), position)),
                None => Resolved::Elsewhere,
            };
        }
        Resolved::Missing(format!("{} {} has no key {key}", object.kind(), object.name()))
    }

    /// A file on a controller's disk, of those that `start` puts there.
    fn on_host(&self, path: &str, controller: &Controller) -> Resolved {
        let found = |files: Option<&SecretFiles>, name: &str| {
            let Some(content) = files.and_then(|files| files.get(name)) else {
                let missing = Resolved::Missing(format!("hoist start puts no {path} on a controller"));
                return if self.contents.is_whole { missing } else { Resolved::Elsewhere };
            };
            // What is made of several files of tls/ is known by its certificate.
            let certificate = if name == "kubeconfig" { path.rsplit('/').nth(1) } else { None };
            let place = certificate.map_or("tls/ca.crt".to_owned(), |name| format!("tls/{name}.crt"));
            Resolved::Content(self.source(content, controller, &self.place(&place), None))
        };
        let parts = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix('/').map(str::to_owned);
        if let Some(rest) = parts(BRIDGE) {
            let (component, name) = rest.split_once('/').unwrap_or((&rest, ""));
            return match self.contents.bridge.get(component) {
                // Reported as a volume of a folder that nobody makes.
                None => Resolved::Elsewhere,
                files => found(files, name),
            };
        }
        if let Some(name) = parts(ETCD) {
            return found(self.contents.etcd.get(&controller.name), &name);
        }
        if let Some(name) = parts(SERVING) {
            return found(self.contents.serving.get(&controller.name), &name);
        }
        match (path, self.tls_source("ca.crt")) {
            (KUBELET_CA, Some(ca)) => Resolved::Content(ca),
            _ => Resolved::Elsewhere,
        }
    }

    /// Whether `path` on a controller is, in a place that is hoist's, one that `start` makes.
    pub fn is_made(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let is_below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        if let Some(rest) = path.strip_prefix(BRIDGE).and_then(|rest| rest.strip_prefix('/')) {
            let (component, name) = rest.split_once('/').unwrap_or((rest, ""));
            let files = self.contents.bridge.get(component);
            return files.is_some_and(|files| name.is_empty() || files.contains_key(name) || !self.contents.is_whole);
        }
        // Users may keep files of their own in other places.
        !is_below("/var/lib/hoist") || path == BINARY || path == node_endpoint::DATA
    }
}

/// The key that is the file `path` of a volume of a Secret or ConfigMap.
fn key_of(source: &Value, path: &str) -> Option<String> {
    let Some(list) = source.get("items").and_then(Value::as_array) else { return Some(path.to_owned()) };
    let item = list.iter().find(|item| text(item, "path") == Some(path))?;
    text(item, "key").map(str::to_owned)
}
