//! An API server of the few kinds that these tests need: discovery, server-side apply with field managers, dry runs,
//! CRDs, deletion; and a controller that makes Deployments ready, except those called `stuck`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};

/// apiVersion, plural, kind, whether it has namespaces.
const RESOURCES: [(&str, &str, &str, bool); 9] = [
    ("v1", "namespaces", "Namespace", false),
    ("v1", "configmaps", "ConfigMap", true),
    ("v1", "services", "Service", true),
    ("v1", "pods", "Pod", true),
    ("apps/v1", "deployments", "Deployment", true),
    ("batch/v1", "jobs", "Job", true),
    ("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", true),
    ("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", false),
    ("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", false),
];

#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    /// By plural, namespace and name.
    pub objects: BTreeMap<(String, String, String), Value>,
    /// Writes, as `verb Kind name`.
    pub writes: Vec<String>,
    /// Names that are refused.
    pub refused: BTreeSet<String>,
    /// What each request meets before anything else, as often as it says: a status code; none for no answer at all.
    pub away: Vec<(usize, Option<u16>)>,
    /// How many requests are answered before that begins.
    pub spared: usize,
    /// Names whose webhook does not answer so many times.
    pub unanswered: BTreeMap<String, usize>,
    version: u64,
}

impl Server {
    pub fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
                let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
                let (status, object) = match server.state(State::meets) {
                    Some(None) => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)),
                    Some(Some(status)) => failure(status, "ServiceUnavailable", "not now"),
                    None => server.state(|state| state.answer(parts.method.as_str(), &path, &query, &body)),
                };
                let response = Response::builder().status(status);
                Ok(response.body(Body::from(object.to_string().into_bytes())).unwrap())
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    pub fn state<T>(&self, of: impl FnOnce(&mut State) -> T) -> T {
        of(&mut self.0.lock().unwrap())
    }

    /// What was written since the last time, but for the inventory.
    pub fn writes(&self) -> Vec<String> {
        let writes = self.state(|state| std::mem::take(&mut state.writes));
        writes.into_iter().filter(|write| !write.ends_with("hoist-inventory")).collect()
    }

    pub fn has(&self, plural: &str, namespace: &str, name: &str) -> bool {
        self.state(|state| state.objects.contains_key(&(plural.into(), namespace.into(), name.into())))
    }
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code}),
    )
}

impl State {
    /// What the next request meets in place of an answer.
    fn meets(&mut self) -> Option<Option<u16>> {
        if self.spared > 0 {
            self.spared -= 1;
            return None;
        }
        let (times, what) = self.away.first_mut().filter(|(times, _)| *times > 0)?;
        *times -= 1;
        let what = *what;
        if self.away[0].0 == 0 {
            self.away.remove(0);
        }
        Some(what)
    }

    fn served(&self) -> Vec<(String, String, String, bool)> {
        let own = RESOURCES.iter().map(|(version, plural, kind, namespaced)| {
            ((*version).to_owned(), (*plural).to_owned(), (*kind).to_owned(), *namespaced)
        });
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let crds = self.objects.iter().filter(|((plural, ..), _)| plural == "customresourcedefinitions");
        let custom = crds.map(|(_, crd)| {
            let (spec, names) = (&crd["spec"], &crd["spec"]["names"]);
            let version = format!("{}/{}", text(&spec["group"]), text(&spec["versions"][0]["name"]));
            (version, text(&names["plural"]), text(&names["kind"]), true)
        });
        own.chain(custom).collect()
    }

    fn answer(&mut self, method: &str, path: &str, query: &str, body: &Value) -> (u16, Value) {
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let (version, rest) = match parts[0] {
            "version" => {
                return (
                    200,
                    json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "",
                "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
                );
            }
            "readyz" => return (200, Value::Null),
            "api" => (parts[1].to_owned(), &parts[2..]),
            _ => (parts[1..].iter().take(2).copied().collect::<Vec<_>>().join("/"), parts.get(3..).unwrap_or_default()),
        };
        let served: Vec<_> = self.served().into_iter().filter(|(there, ..)| *there == version).collect();
        if rest.is_empty() {
            let resources: Vec<_> = served.iter().map(|(_, plural, kind, namespaced)| {
                json!({"name": plural, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "patch", "delete", "list"]})
            }).collect();
            return match resources.is_empty() {
                true => failure(404, "NotFound", "the server could not find the requested resource"),
                false => (
                    200,
                    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}),
                ),
            };
        }
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let kind = served.iter().find(|(_, plural, ..)| plural == rest[0]).map(|(_, _, kind, _)| kind.clone());
        let Some(kind) = kind else { return failure(404, "NotFound", "no such resource") };
        let Some(name) = rest.get(1) else { return (200, self.list(&version, &kind, rest[0], namespace, query)) };
        let key = (rest[0].to_owned(), namespace.to_owned(), (*name).to_owned());
        match method {
            "GET" => match self.objects.get_mut(&key) {
                Some(object) => {
                    let answer = object.clone();
                    control(object);
                    (200, answer)
                }
                None => failure(404, "NotFound", "not found"),
            },
            "DELETE" => {
                self.writes.push(format!("delete {kind} {name}"));
                self.objects.remove(&key);
                if kind == "Namespace" {
                    self.objects.retain(|(_, there, _), _| there != name);
                }
                (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            "PATCH" => self.apply(&kind, key, query, body),
            other => panic!("{other} {path}"),
        }
    }

    fn list(&self, version: &str, kind: &str, plural: &str, namespace: &str, query: &str) -> Value {
        let of_service = query.split("service-name%3D").nth(1).map(|rest| rest.split('&').next().unwrap());
        let wanted = |object: &Value| {
            of_service.is_none_or(|name| object["metadata"]["labels"]["kubernetes.io/service-name"] == name)
        };
        let there = self
            .objects
            .iter()
            .filter(|((there, within, _), object)| there == plural && within == namespace && wanted(object));
        let items: Vec<_> = there.map(|(_, object)| object.clone()).collect();
        json!({"kind": format!("{kind}List"), "apiVersion": version, "metadata": {}, "items": items})
    }

    fn apply(&mut self, kind: &str, key: (String, String, String), query: &str, body: &Value) -> (u16, Value) {
        let (_, namespace, name) = &key;
        let is_in = ["", "kube-system", "default"].contains(&namespace.as_str());
        if !is_in && !self.objects.contains_key(&("namespaces".into(), String::new(), namespace.clone())) {
            return failure(404, "NotFound", &format!("namespaces \"{namespace}\" not found"));
        }
        if self.refused.contains(name) {
            return failure(403, "Forbidden", &format!("admission webhook \"w\" denied the request: not {name}"));
        }
        if let Some(times) = self.unanswered.get_mut(name).filter(|times| **times > 0) {
            *times -= 1;
            return failure(
                500,
                "InternalError",
                "failed calling webhook \"w\": no endpoints available for service \"w\"",
            );
        }
        if let (Some(uid), None) = (body["metadata"]["uid"].as_str(), self.objects.get(&key)) {
            let said = "uid mismatch: the provided object specified uid";
            let message = format!(
                "Operation cannot be fulfilled on configmaps \"{name}\": {said} {uid}, and no existing object was found"
            );
            return failure(409, "Conflict", &message);
        }
        let manager = query.split("fieldManager=").nth(1).unwrap().split('&').next().unwrap().to_owned();
        let there = self.objects.get(&key).cloned();
        let mut object = body.clone();
        let mut managers: BTreeSet<String> = BTreeSet::from([manager.clone()]);
        if let Some(there) = &there {
            let of = |object: &Value| object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
            let others = of(there)
                .iter()
                .map(|entry| entry["manager"].as_str().unwrap().to_owned())
                .filter(|other| *other != manager)
                .collect::<Vec<_>>();
            let is_forced = query.contains("force=true");
            if !others.is_empty() && there["data"] != body["data"] && !is_forced {
                let message = format!("Apply failed with 1 conflict: conflict with \"{}\": .data.key", others[0]);
                return failure(409, "Conflict", &message);
            }
            if !is_forced {
                managers.extend(others);
            }
            if let Some(status) = there.get("status") {
                object["status"] = status.clone();
            }
        }
        let entries: Vec<_> =
            managers.iter().map(|manager| json!({"manager": manager, "operation": "Apply"})).collect();
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.insert("managedFields".into(), entries.into());
        metadata.insert("uid".into(), format!("uid-{name}").into());
        let before = there.as_ref().map(|there| there["metadata"]["resourceVersion"].clone());
        metadata.insert("resourceVersion".into(), before.clone().unwrap_or_default());
        if there.as_ref() != Some(&object) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
        }
        if kind == "CustomResourceDefinition" {
            object["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        }
        if !query.contains("dryRun") {
            self.writes.push(format!("apply {kind} {name}"));
            self.objects.insert(key.clone(), object.clone());
            if kind == "Deployment" && name == "stuck" {
                self.crash(&key);
            }
        }
        (200, object)
    }

    /// The pod of a Deployment that does not get ready.
    fn crash(&mut self, (_, namespace, name): &(String, String, String)) {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-5"), "uid": "1", "controller": true});
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        let metadata = json!({"name": format!("{name}-5-x"), "namespace": namespace, "ownerReferences": [owner], "labels": {"pod-template-hash": "5"}});
        let status = json!({"phase": "Pending", "containerStatuses": [{"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": waiting}]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status});
        self.objects.insert(("pods".into(), namespace.clone(), format!("{name}-5-x")), pod);
    }
}

/// What a controller does a moment after somebody looked.
fn control(object: &mut Value) {
    if object["kind"] == "Deployment" && object["metadata"]["name"] != "stuck" {
        let status = json!({"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1});
        object.as_object_mut().unwrap_or(&mut Map::new()).insert("status".into(), status);
    }
}
