use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hyper::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::json;

use super::*;

/// An API server of ConfigMaps in one namespace: their annotations by name, and what was asked of it.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    there: BTreeMap<String, Option<String>>,
    /// Without it, lists are forbidden.
    lists: bool,
    asked: Vec<String>,
    most_at_once: usize,
    under_way: usize,
}

impl Server {
    fn new(lists: bool) -> Self {
        let server = Self::default();
        server.0.lock().unwrap().lists = lists;
        server
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request: Request<Body>| {
            let server = server.clone();
            async move {
                server.state(|state| {
                    state.under_way += 1;
                    state.most_at_once = state.most_at_once.max(state.under_way);
                });
                // Others get their turn, as over a network.
                tokio::task::yield_now().await;
                let (parts, body) = request.into_parts();
                let body: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
                let (status, object) = server.answer(&parts.method, &parts.uri.to_string(), &body);
                server.state(|state| state.under_way -= 1);
                let response = Response::builder().status(status);
                Ok::<_, std::convert::Infallible>(response.body(Body::from(object.to_string().into_bytes())).unwrap())
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    fn state<T>(&self, of: impl FnOnce(&mut State) -> T) -> T {
        of(&mut self.0.lock().unwrap())
    }

    fn answer(&self, method: &Method, uri: &str, body: &Value) -> (StatusCode, Value) {
        const LIST: &str = "/api/v1/namespaces/user/configmaps";
        let path = uri.split('?').next().unwrap();
        let failure = |code: StatusCode, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code.as_u16()});
            (code, status)
        };
        self.state(|state| {
            if path == "/api/v1" {
                let resource = json!({"name": "configmaps", "singularName": "", "namespaced": true, "kind": "ConfigMap", "verbs": ["get", "list", "patch"]});
                let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [resource]});
                return (StatusCode::OK, list);
            }
            let what = if path == LIST { "LIST".to_owned() } else { format!("{method} {}", path.rsplit('/').next().unwrap()) };
            state.asked.push(what);
            let object = |name: &str, sum: &Option<String>| {
                let annotations: Map<String, Value> =
                    sum.iter().map(|sum| (MANIFEST_SUM.to_owned(), sum.clone().into())).collect();
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": name, "annotations": annotations}})
            };
            if path == LIST {
                if !state.lists {
                    return failure(StatusCode::FORBIDDEN, "Forbidden");
                }
                // Pages of ten, whatever was asked for.
                let from: usize = uri.split("continue=").nth(1).map_or(0, |rest| rest.split('&').next().unwrap().parse().unwrap());
                let items: Vec<_> = state.there.iter().skip(from).take(10).map(|(name, sum)| object(name, sum)).collect();
                let next = if from + 10 < state.there.len() { (from + 10).to_string() } else { String::new() };
                let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {"continue": next}, "items": items});
                return (StatusCode::OK, list);
            }
            let name = path.strip_prefix(&format!("{LIST}/")).unwrap().to_owned();
            if *method == Method::GET {
                return match state.there.get(&name) {
                    Some(sum) => (StatusCode::OK, object(&name, sum)),
                    None => failure(StatusCode::NOT_FOUND, "NotFound"),
                };
            }
            if name == "busy" {
                return failure(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests");
            }
            if body["data"]["key"] == "refused" {
                return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
            }
            let sum = body["metadata"]["annotations"][MANIFEST_SUM].as_str().map(str::to_owned);
            assert!(sum.is_some(), "{body}");
            state.there.insert(name.clone(), sum.clone());
            (StatusCode::OK, object(&name, &sum))
        })
    }

    /// What was asked since the last time, each with how often.
    fn asked(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for what in self.state(|state| std::mem::take(&mut state.asked)) {
            *counts.entry(what).or_default() += 1;
        }
        counts
    }
}

fn manifest(name: &str, value: &str) -> Manifest {
    let metadata = json!({"name": name, "namespace": "user"});
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"key": value}});
    Manifest { path: format!("manifests/{name}.yaml"), line: 1, object }
}

fn manifests(count: usize) -> Vec<Manifest> {
    (0..count).map(|number| manifest(&format!("m{number:03}"), "value")).collect()
}

fn count(asked: &BTreeMap<String, usize>, verb: &str) -> usize {
    asked.iter().filter(|(what, _)| what.starts_with(verb)).map(|(_, count)| count).sum()
}

#[tokio::test]
async fn many_manifests_are_held_against_lists_and_only_what_changed_is_applied() {
    let server = Server::new(true);
    let client = server.client();
    let mut manifests = manifests(40);
    assert_eq!(apply(&client, &manifests, false).await.unwrap().applied, 40);
    let asked = server.asked();
    assert_eq!((count(&asked, "LIST"), count(&asked, "GET"), count(&asked, "PATCH")), (1, 0, 40), "{asked:?}");

    manifests[33] = manifest("m033", "another value");
    server.state(|state| state.there.remove("m007"));
    // A user's own object, and one that was made by other means.
    server.state(|state| state.there.extend([("user".to_owned(), None), ("m012".to_owned(), None)]));
    assert_eq!(apply(&client, &manifests, false).await.unwrap().applied, 40);
    let asked = server.asked();
    assert_eq!(count(&asked, "LIST"), 4, "four pages: {asked:?}");
    let patched: Vec<_> = asked.keys().filter(|what| !what.starts_with("LIST")).collect();
    assert_eq!(patched, ["PATCH m007", "PATCH m012", "PATCH m033"]);
    assert!(server.state(|state| state.most_at_once) <= CONCURRENT);
    // What was edited shall not stand.
    assert_eq!(apply(&client, &manifests, true).await.unwrap().applied, 40);
    assert_eq!(count(&server.asked(), "PATCH"), 40);
}

#[tokio::test]
async fn few_manifests_are_asked_for_one_by_one() {
    let server = Server::new(true);
    let client = server.client();
    for patches in [3, 0] {
        assert_eq!(apply(&client, &manifests(3), false).await.unwrap().applied, 3);
        let asked = server.asked();
        assert_eq!((count(&asked, "LIST"), count(&asked, "GET"), count(&asked, "PATCH")), (0, 3, patches), "{asked:?}");
    }
}

#[tokio::test]
async fn without_lists_each_is_asked_for() {
    let server = Server::new(false);
    let client = server.client();
    for patches in [20, 0] {
        assert_eq!(apply(&client, &manifests(20), false).await.unwrap().applied, 20);
        let asked = server.asked();
        assert_eq!((count(&asked, "GET"), count(&asked, "PATCH")), (20, patches), "{asked:?}");
    }
}

#[tokio::test]
async fn a_refusal_stops_nobody_and_an_overload_is_tried_again() {
    let server = Server::new(true);
    let client = server.client();
    let mut manifests = manifests(30);
    manifests.insert(3, manifest("bad", "refused"));
    let outcome = apply(&client, &manifests, false).await.unwrap();
    assert_eq!((outcome.applied, outcome.refused.len()), (30, 1));
    assert_eq!(outcome.refused[0].finding.place, "manifests/bad.yaml");

    manifests.insert(0, manifest("busy", "value"));
    let error = apply(&client, &manifests, false).await.unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "it is for the loop to try again: {error}");
}

#[tokio::test]
async fn what_is_bound_to_one_object_is_refused_with_what_to_leave_out() {
    let client = Server::new(true).client();
    let applier = Applier::new(&client, How { manager: FIELD_MANAGER, force_conflicts: true });
    let judge = |field: Option<&str>, code: u16, message: &str| {
        let mut manifest = manifest("m", "value");
        if let Some(field) = field {
            manifest.object["metadata"][field] = "4711".into();
        }
        let status =
            json!({"kind": "Status", "status": "Failure", "message": message, "reason": "Conflict", "code": code});
        match applier.judge(&manifest, &kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))) {
            Answer::Refused(refusal) => Some(refusal.finding.remedy.unwrap_or_default()),
            Answer::Failed(_) => None,
            Answer::Applied(applied) => panic!("{applied:?}"),
        }
    };
    let modified = "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to the latest version and try again";
    assert_eq!(judge(None, 409, modified), None, "somebody was faster: it is tried again");
    let remedy = judge(Some("resourceVersion"), 409, modified).unwrap();
    assert!(remedy.starts_with("leave metadata.resourceVersion out of the file"), "{remedy}");
    let remedy = judge(Some("managedFields"), 400, "metadata.managedFields must be nil").unwrap();
    assert!(remedy.starts_with("leave metadata.managedFields out of the file"), "{remedy}");
    // What is refused for something else says nothing of them.
    assert_eq!(judge(Some("uid"), 422, "ConfigMap \"m\" is invalid").as_deref(), Some(""));
}
