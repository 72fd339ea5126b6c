//! How an API server answers: discovery, CRUD, server-side apply, preconditions, CRDs that take their time. A request
//! that nobody expected is a mistake, of hoist or of this file.

use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};

use super::World;
use super::process::Program;
use super::store::{Key, key, merge};

/// Group and version, plural, kind, whether it is namespaced.
const RESOURCES: [(&str, &str, &str, bool); 25] = [
    ("v1", "configmaps", "ConfigMap", true),
    ("v1", "endpoints", "Endpoints", true),
    ("v1", "events", "Event", true),
    ("v1", "namespaces", "Namespace", false),
    ("v1", "nodes", "Node", false),
    ("v1", "pods", "Pod", true),
    ("v1", "secrets", "Secret", true),
    ("v1", "serviceaccounts", "ServiceAccount", true),
    ("v1", "services", "Service", true),
    ("apps/v1", "daemonsets", "DaemonSet", true),
    ("apps/v1", "deployments", "Deployment", true),
    ("apps/v1", "replicasets", "ReplicaSet", true),
    ("apps/v1", "statefulsets", "StatefulSet", true),
    ("batch/v1", "jobs", "Job", true),
    ("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", false),
    ("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", false),
    ("rbac.authorization.k8s.io/v1", "roles", "Role", true),
    ("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding", true),
    ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", true),
    ("admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", false),
    ("admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", false),
    ("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", false),
    ("certificates.k8s.io/v1", "certificatesigningrequests", "CertificateSigningRequest", false),
    ("coordination.k8s.io/v1", "leases", "Lease", true),
    ("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", true),
];
const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Says when the kinds of a CRD are served; nothing that a client sees.
const SERVED: &str = "world/served-ms";

#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub accept: String,
    pub content_type: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn writes(&self) -> bool {
        self.method != "GET"
    }
}

pub struct Response {
    pub code: u16,
    pub body: String,
}

pub fn status(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    Response { code, body: body.to_string() }
}

fn ok(object: &Value) -> Response {
    Response { code: 200, body: object.to_string() }
}

/// A resource as a path names it.
struct Target {
    group_version: String,
    kind: String,
    resource: String,
    namespace: String,
    name: Option<String>,
    subresource: Option<String>,
}

impl Target {
    fn key(&self) -> Key {
        key(&self.resource, &self.namespace, self.name.as_deref().unwrap_or_default())
    }
}

impl World {
    /// What a ready API server does with a request.
    pub fn serve(&mut self, request: &Request) -> Response {
        let path = request.path.trim_start_matches('/');
        if path == "readyz" {
            return Response { code: 200, body: "ok".into() };
        }
        if path == "version" {
            return ok(
                &json!({"major": "1", "minor": "37", "gitVersion": "v1.37.2", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
            );
        }
        let group_version = path.strip_prefix("apis/").or_else(|| path.strip_prefix("api/")).unwrap_or_default();
        let is_discovery = group_version.split('/').count() == if path.starts_with("apis/") { 2 } else { 1 }
            && !group_version.is_empty();
        if is_discovery && request.method == "GET" {
            return self.discover(group_version);
        }
        let Some(target) = self.target(path) else {
            let kinds = format!("the server could not find the requested resource ({path})");
            return status(404, "NotFound", &kinds);
        };
        if target.subresource.as_deref() == Some("log") {
            return Response { code: 200, body: "its last words\n".into() };
        }
        let known = match (request.method.as_str(), &target.name) {
            ("GET", Some(_)) => self.get(&target, request),
            ("GET", None) => self.list(&target),
            ("PATCH", Some(_)) if request.content_type.starts_with("application/apply-patch") => {
                self.apply(&target, request)
            }
            ("PATCH", Some(_)) if request.content_type.starts_with("application/merge-patch") => {
                self.patch(&target, request)
            }
            ("PUT", Some(_)) => self.replace(&target, request),
            ("POST", None) => self.create(&target, request),
            ("DELETE", Some(_)) => self.delete(&target, request),
            _ => {
                self.wrong(format!("nobody expected {} {} as {}", request.method, request.path, request.content_type));
                status(405, "MethodNotAllowed", "nobody expected this")
            }
        };
        if request.writes() && known.code < 300 {
            self.writes += 1;
        }
        known
    }

    fn discover(&mut self, group_version: &str) -> Response {
        let built_in = RESOURCES
            .iter()
            .filter(|(there, ..)| *there == group_version)
            .map(|(_, plural, kind, namespaced)| (plural.to_string(), kind.to_string(), *namespaced));
        let all: Vec<_> = built_in.chain(self.custom(group_version)).collect();
        if all.is_empty() {
            return status(404, "NotFound", "the server could not find the requested resource");
        }
        let resources: Vec<_> = all
            .iter()
            .map(|(plural, kind, namespaced)| {
                json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": namespaced, "kind": kind,
                    "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]})
            })
            .collect();
        ok(
            &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
        )
    }

    /// The resources of CRDs that are served by now.
    fn custom(&self, group_version: &str) -> Vec<(String, String, bool)> {
        let served = self.store.list(CRDS, "").filter(|(_, crd)| {
            let at = crd["metadata"]["annotations"][SERVED].as_str().and_then(|text| text.parse().ok());
            let version = crd["spec"]["versions"][0]["name"].as_str().unwrap_or_default();
            at.is_some_and(|at| Duration::from_millis(at) <= self.now)
                && format!("{}/{version}", crd["spec"]["group"].as_str().unwrap_or_default()) == group_version
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        served
            .map(|(_, crd)| {
                let names = &crd["spec"]["names"];
                (text(&names["plural"]), text(&names["kind"]), crd["spec"]["scope"] == "Namespaced")
            })
            .collect()
    }

    fn target(&self, path: &str) -> Option<Target> {
        let parts: Vec<_> = path.split('/').collect();
        let (group_version, rest) = match parts.first() {
            Some(&"api") => (parts.get(1)?.to_string(), &parts[2..]),
            Some(&"apis") => (format!("{}/{}", parts.get(1)?, parts.get(2)?), &parts[3..]),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let plural = *rest.first()?;
        let built_in = RESOURCES
            .iter()
            .find(|(there, name, ..)| *there == group_version && *name == plural)
            .map(|(_, _, kind, namespaced)| (kind.to_string(), *namespaced));
        let custom = || {
            let found = self.custom(&group_version).into_iter().find(|(name, ..)| name == plural);
            found.map(|(_, kind, namespaced)| (kind, namespaced))
        };
        let (kind, namespaced) = built_in.or_else(custom)?;
        let group = group_version.split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
        (namespaced != namespace.is_empty()).then(|| Target {
            kind,
            resource: format!("{plural}{group}"),
            namespace: namespace.to_owned(),
            name: rest.get(1).map(|name| (*name).to_owned()),
            subresource: rest.get(2).map(|name| (*name).to_owned()),
            group_version,
        })
    }

    fn missing(&self, target: &Target) -> Response {
        let name = target.name.as_deref().unwrap_or_default();
        status(404, "NotFound", &format!("{} \"{name}\" not found", target.resource))
    }

    fn get(&self, target: &Target, request: &Request) -> Response {
        let Some(object) = self.store.get(&target.key()) else { return self.missing(target) };
        if request.accept.contains("as=PartialObjectMetadata") {
            return ok(&json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"]}));
        }
        ok(object)
    }

    fn list(&mut self, target: &Target) -> Response {
        let (version, of) =
            (self.store.version_of(&target.resource), format!("{} {}", target.resource, target.namespace));
        if let Some((_, body)) = self.lists.get(&of).filter(|(at, _)| *at == version) {
            return Response { code: 200, body: body.clone() };
        }
        let items: Vec<_> = self.store.list(&target.resource, &target.namespace).map(|(_, object)| object).collect();
        let list = ok(&json!({"kind": format!("{}List", target.kind), "apiVersion": target.group_version,
            "metadata": {"resourceVersion": self.store.version().to_string()}, "items": items}));
        self.lists.insert(of, (version, list.body.clone()));
        list
    }

    /// The object of a request, once all is well with it.
    fn admit(&mut self, target: &Target, request: &Request) -> Result<Value, Response> {
        let Ok(mut object) = serde_json::from_slice::<Value>(&request.body) else {
            self.wrong(format!("no JSON in {} {}", request.method, request.path));
            return Err(status(400, "BadRequest", "no JSON"));
        };
        if !target.namespace.is_empty() && !self.store.has("namespaces", "", &target.namespace) {
            return Err(status(404, "NotFound", &format!("namespaces \"{}\" not found", target.namespace)));
        }
        if let Some(Value::Object(text)) = object.get("stringData").cloned() {
            for (name, value) in text {
                let value = value.as_str().unwrap_or_default();
                object["data"][name] = base64::engine::general_purpose::STANDARD.encode(value).into();
            }
            object.as_object_mut().map(|object| object.remove("stringData"));
        }
        Ok(object)
    }

    fn apply(&mut self, target: &Target, request: &Request) -> Response {
        let is_addon = request.query.contains("fieldManager=hoist-addons");
        if !request.query.contains("fieldManager=hoist") || request.query.contains("force=true") == is_addon {
            self.wrong(format!("applied with {}", request.query));
        }
        let mut object = match self.admit(target, request) {
            Ok(object) => object,
            Err(refusal) => return refusal,
        };
        if is_addon {
            object["metadata"]["managedFields"] = json!([{"manager": "hoist-addons", "operation": "Apply"}]);
        }
        let Some(before) = self.store.get(&target.key()).cloned() else {
            return self.store_new(target, object);
        };
        let sum = |object: &Value| object.pointer("/metadata/annotations/hoist~1manifest-sha256").cloned();
        if sum(&object).is_some() && sum(&before) == sum(&object) {
            self.wrong(format!("{} was applied again, and nothing had changed", request.path));
        }
        let mut after = before;
        merge(&mut after, &object);
        ok(&self.store.put(target.key(), after))
    }

    fn store_new(&mut self, target: &Target, mut object: Value) -> Response {
        object["apiVersion"] = target.group_version.clone().into();
        object["kind"] = target.kind.clone().into();
        let named = object["metadata"]["name"].as_str().map(str::to_owned);
        let name = target.name.clone().or(named).unwrap_or_default();
        if target.resource == CRDS {
            let established = self.now + self.random.millis(100, 1000);
            // The kind is served once the handler has heard of it, which is later.
            let served =
                established + self.random.pick(&[Duration::ZERO, Duration::from_millis(300), Duration::from_secs(2)]);
            object["metadata"]["annotations"][SERVED] = (served.as_millis() as u64).to_string().into();
            self.later(established, super::Later::Establish(name.clone()));
        }
        let object = self.store.put(key(&target.resource, &target.namespace, &name), object);
        Response { code: 201, body: object.to_string() }
    }

    pub fn establish(&mut self, name: &str) {
        let key = key(CRDS, "", name);
        let Some(mut crd) = self.store.get(&key).cloned() else { return };
        crd["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        self.store.put(key, crd);
    }

    fn is_stale(&self, target: &Target, version: Option<&Value>) -> bool {
        let now = self.store.get(&target.key()).map(|object| &object["metadata"]["resourceVersion"]);
        version.is_some_and(|version| !version.is_null() && now != Some(version))
    }

    fn patch(&mut self, target: &Target, request: &Request) -> Response {
        let patch = match self.admit(target, request) {
            Ok(patch) => patch,
            Err(refusal) => return refusal,
        };
        let Some(mut object) = self.store.get(&target.key()).cloned() else { return self.missing(target) };
        if self.is_stale(target, patch.pointer("/metadata/resourceVersion")) {
            return status(
                409,
                "Conflict",
                "the object has been modified; please apply your changes to the latest version",
            );
        }
        merge(&mut object, &patch);
        ok(&self.store.put(target.key(), object))
    }

    fn replace(&mut self, target: &Target, request: &Request) -> Response {
        let object = match self.admit(target, request) {
            Ok(object) => object,
            Err(refusal) => return refusal,
        };
        if self.store.get(&target.key()).is_none() {
            return self.missing(target);
        }
        if self.is_stale(target, object.pointer("/metadata/resourceVersion")) {
            return status(
                409,
                "Conflict",
                "the object has been modified; please apply your changes to the latest version",
            );
        }
        ok(&self.store.put(target.key(), object))
    }

    fn create(&mut self, target: &Target, request: &Request) -> Response {
        let object = match self.admit(target, request) {
            Ok(object) => object,
            Err(refusal) => return refusal,
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if self.store.has(&target.resource, &target.namespace, &name) {
            return status(409, "AlreadyExists", &format!("{} \"{name}\" already exists", target.resource));
        }
        self.store_new(target, object)
    }

    fn delete(&mut self, target: &Target, request: &Request) -> Response {
        let options: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let Some(object) = self.store.get(&target.key()).cloned() else { return self.missing(target) };
        if self.is_stale(target, options.pointer("/preconditions/resourceVersion")) {
            return status(409, "Conflict", "the ResourceVersion in the precondition does not match");
        }
        match target.resource.as_str() {
            "leases.coordination.k8s.io" => self.judge_lease(&object),
            "pods" if object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() => {}
            // One that is tried again minutes later, and that a controller makes anew.
            "pods"
                if object["metadata"]["ownerReferences"].is_array()
                    && object["status"].to_string().contains("BackOff") => {}
            _ if self.may_take_away => {}
            _ => self.wrong(format!("hoist deletes {}", request.path)),
        }
        let serves = self.may_take_away
            && target.name.as_ref().is_some_and(|name| name.starts_with("kube-apiserver"))
            && ["pods", "daemonsets.apps"].contains(&target.resource.as_str());
        let bridge = self.one(Program::ApiServer, true).is_some_and(|server| self.is_ready(server));
        if serves && !(bridge && self.forwards()) {
            self.wrong(format!("hoist deletes {}, and nobody else serves", request.path));
        }
        self.store.remove(&target.key());
        ok(&json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
    }
}
