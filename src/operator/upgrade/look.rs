//! What a tenant's upgrade goes by: its workloads, and what its new parts say themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use kube::Client;
use serde_json::Value;
use time::OffsetDateTime;

use super::{CONTROLLERS, Observed, Part, SERVERS, Shape};
use crate::api::{self, health};
use crate::desired::config::{API_PORT, Version, version};
use crate::desired::upgrade::{Emulated, emulate, image, is_same_program, says_otherwise};
use crate::operator::apply::MEMBERS;
use crate::operator::conditions::is_rolled_out;
use crate::operator::differs::marked;
use crate::operator::live;
use crate::operator::tenant::{Addresses, Tenant};

/// Says of a workload which version it was made for, and after it what that emulates.
pub const RUNS: &str = "hoist.dev/runs";

/// A tenant whose version changes, and how it is asked.
pub struct Tried<'a> {
    /// The tenant.
    pub tenant: &'a Tenant,
    /// Where it is.
    pub at: &'a Addresses,
    /// Its admin's kubeconfig.
    pub kubeconfig: &'a str,
}

/// A workload that runs this, as it is applied.
pub fn shaped(mut workload: Value, component: &str, shape: Shape) -> Value {
    let mut text = shape.version.to_string();
    if let Some(old) = shape.emulates {
        text.push_str(&format!(" {old}"));
        emulate(&mut workload, component, old);
    }
    workload["metadata"]["annotations"][RUNS] = text.into();
    marked(workload)
}

/// What a workload runs: as it says, or, where an older operator made it, as its image does.
fn runs(workload: &Value, component: &str, otherwise: Version) -> Shape {
    let Some(text) = workload["metadata"]["annotations"][RUNS].as_str() else {
        let image = image(&workload["spec"]["template"]["spec"], component).and_then(version::of_image);
        let of_image =
            image.filter(|_| component != "etcd").map(|(major, minor, patch)| Version { major, minor, patch });
        return Shape::plain(of_image.unwrap_or(otherwise));
    };
    let (of, emulates) = text.split_once(' ').map_or((text, None), |(of, emulates)| (of, Some(emulates)));
    let emulates = emulates.and_then(|text| text.split_once('.'));
    let emulates = emulates.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    Shape {
        version: Version::read(of).unwrap_or(otherwise),
        emulates: emulates.map(|(major, minor)| Emulated { major, minor }),
    }
}

/// The version of which data may have been written, as the status says; where an older operator wrote that, by what is
/// there. A tenant of which nothing is there has none but that of its spec.
pub fn committed_of(status: &Value, workloads: &BTreeMap<&'static str, Value>, wanted: Version) -> Version {
    let said = |field: &str| status[field].as_str().and_then(Version::read);
    said("committedVersion").or_else(|| said("version")).unwrap_or_else(|| {
        let server = workloads.get("apiserver");
        server.map_or(wanted, |server| runs(server, SERVERS, wanted).version)
    })
}

/// What there is to see without asking anybody.
pub fn observed(
    workloads: &BTreeMap<&'static str, Value>,
    committed: Version,
    wanted: Version,
    done: Option<Version>,
) -> Observed {
    let part = |name: &str, component: &str| {
        let Some(workload) = workloads.get(name) else { return Part { runs: None, waits: None } };
        let waits = (!is_rolled_out(workload)).then(|| "its pods are being replaced".to_owned());
        Part { runs: Some(runs(workload, component, done.unwrap_or(committed))), waits }
    };
    Observed {
        committed,
        wanted,
        done,
        api_servers: part("apiserver", SERVERS),
        controllers: [part("controller-manager", CONTROLLERS[0]), part("scheduler", CONTROLLERS[1])],
        etcd: etcd(MEMBERS.iter().filter(|name| workloads.contains_key(*name)).map(|name| part(name, "etcd"))),
        old_server: None,
    }
}

/// etcd, as one part of all its members: it runs what the first of them that was replaced does, and waits for the others.
fn etcd(members: impl Iterator<Item = Part>) -> Part {
    let version = |part: &Part| part.runs.map(|runs| runs.version);
    let mut all: Vec<Part> = members.collect();
    all.sort_by_key(|part| std::cmp::Reverse(version(part)));
    let Some(mut first) = all.first().cloned() else { return Part { runs: None, waits: None } };
    let behind = all.iter().filter(|part| part.runs != first.runs).count();
    if behind > 0 {
        first.waits = Some(format!("{behind} of {} members are yet to be replaced", all.len()));
    } else {
        first.waits = all.into_iter().find_map(|part| part.waits);
    }
    first
}

/// Looks, and asks what is new what it is.
///
/// # Errors
/// The word of this cluster's API server.
pub async fn look(
    client: &Client,
    tried: &Tried<'_>,
    workloads: &BTreeMap<&'static str, Value>,
    (committed, wanted, done): (Version, Version, Option<Version>),
) -> Result<Observed, kube::Error> {
    let mut seen = observed(workloads, committed, wanted, done);
    // At rest, and while a tenant comes up for the first time, nobody is asked.
    if seen.committed == seen.wanted && done.is_none_or(|done| done == wanted) {
        return Ok(seen);
    }
    let Some(server) = workloads.get("apiserver") else { return Ok(seen) };
    let pods = live::pods(client, &tried.tenant.namespace, &tried.tenant.name).await?;
    seen.old_server = old_server(server, &pods);
    if seen.api_servers.waits.is_none()
        && let Some(shape) = seen.api_servers.runs
    {
        seen.api_servers.waits = servers_say(tried, server, &pods, shape).await;
    }
    if seen.controllers.iter().all(|part| part.waits.is_none()) {
        let templates = ["controller-manager", "scheduler"].map(|name| workloads.get(name));
        let leaders = leaders(tried).await;
        for ((part, component), template) in seen.controllers.iter_mut().zip(CONTROLLERS).zip(templates) {
            let Some(template) = template else { continue };
            part.waits = match &leaders {
                Ok(leaders) => leads(component, leaders, template, &pods),
                Err(why) => Some(why.clone()),
            };
        }
    }
    Ok(seen)
}

fn of<'a>(component: &'a str, pods: &'a [Value]) -> impl Iterator<Item = &'a Value> {
    pods.iter().filter(move |pod| pod["metadata"]["labels"]["component"] == component)
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

fn is_ending(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

/// Whether a pod runs what its workload says now.
fn is_current(pod: &Value, workload: &Value, component: &str) -> bool {
    is_same_program(&pod["spec"], &workload["spec"]["template"]["spec"], component)
}

/// An API server that runs something else, and may be at work still.
fn old_server(server: &Value, pods: &[Value]) -> Option<String> {
    let is_over = |pod: &&Value| pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    let mut old = of(SERVERS, pods).filter(|pod| !is_over(pod) && !is_current(pod, server, SERVERS));
    old.next().map(|pod| name(pod).to_owned())
}

/// Who leads does so in a pod of the new program. The name that it gives itself begins with its host's, which is its pod's as
/// far as that is no longer than a host's name may be.
fn leads(component: &str, leaders: &[(String, String)], workload: &Value, pods: &[Value]) -> Option<String> {
    let holder = leaders.iter().find(|(lease, _)| lease == component).map(|(_, holder)| holder.as_str());
    let host = holder.and_then(|holder| holder.split('_').next()).filter(|host| !host.is_empty());
    let is_it = |pod: &Value| {
        host.is_some_and(|host| name(pod).starts_with(host)) && !is_ending(pod) && is_current(pod, workload, component)
    };
    (!of(component, pods).any(is_it)).then(|| "its new pod does not lead yet".to_owned())
}

/// Who leads in the tenant, by the Leases that are alive.
async fn leaders(tried: &Tried<'_>) -> Result<Vec<(String, String)>, String> {
    let client = api::connect(tried.kubeconfig, tried.at.api).await.map_err(|error| error.to_string())?;
    let leaders = health::leaders(&client, OffsetDateTime::now_utc()).await.map_err(|error| error.to_string())?;
    Ok(leaders.into_iter().filter(|one| one.alive).map(|one| (one.lease, one.holder)).collect())
}

/// What an API server's pod does not say itself as it should.
async fn servers_say(tried: &Tried<'_>, server: &Value, pods: &[Value], shape: Shape) -> Option<String> {
    let serving: Vec<&Value> = of(SERVERS, pods).filter(|pod| !is_ending(pod)).collect();
    if serving.is_empty() {
        return Some("no pod of it is there".into());
    }
    for pod in serving {
        if !is_current(pod, server, SERVERS) {
            return Some(format!("the pod {} is yet to be replaced", name(pod)));
        }
        if let Some(why) = says(tried, pod, shape).await {
            return Some(format!("the pod {} {why}", name(pod)));
        }
    }
    None
}

async fn says(tried: &Tried<'_>, pod: &Value, shape: Shape) -> Option<String> {
    let Some(address) = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok()) else {
        return Some("has no address".into());
    };
    // Its certificate has the address of the Service, and not the pod's.
    let server = tried.at.api.ip().to_string();
    let client = api::connect_as(tried.kubeconfig, SocketAddr::new(address, API_PORT), &server).await;
    let client = match client {
        Ok(client) => client,
        Err(error) => return Some(error.to_string()),
    };
    if !api::is_served(&client).await {
        return Some("does not say that it is ready".into());
    }
    let request = hyper::Request::get("/version").body(Vec::new()).ok()?;
    match client.request_text(request).await {
        Ok(text) => {
            let info: Value = serde_json::from_str(&text).unwrap_or_default();
            says_otherwise(&info, shape.version, shape.emulates.is_some())
        }
        Err(error) => Some(format!("does not say its version: {}", api::explain(&error))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OLD: Version = Version { major: 1, minor: 36, patch: 3 };
    const NEW: Version = Version { major: 1, minor: 37, patch: 2 };

    fn workload(component: &str, image: &str) -> Value {
        let container = json!({"name": component, "image": image, "command": [component]});
        json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": {"containers": [container]}}}})
    }

    fn pod(component: &str, name: &str, of: &Value) -> Value {
        let labels = json!({"component": component});
        json!({"metadata": {"name": name, "labels": labels}, "spec": of["spec"]["template"]["spec"]})
    }

    #[test]
    fn a_workload_says_what_it_runs() {
        let trial = Shape { version: NEW, emulates: Some(Emulated { major: 1, minor: 36 }) };
        let server = shaped(workload(SERVERS, "r.io/kube-apiserver:mine"), SERVERS, trial);
        assert_eq!(server["metadata"]["annotations"][RUNS], "v1.37.2 1.36");
        let command = &server["spec"]["template"]["spec"]["containers"][0]["command"];
        assert_eq!(*command, json!([SERVERS, "--emulated-version=1.36"]), "no patch version: it would be refused");
        assert_eq!(runs(&server, SERVERS, OLD), trial);
        let plain = shaped(workload(SERVERS, "x:v1.37.2"), SERVERS, Shape::plain(NEW));
        assert_eq!(runs(&plain, SERVERS, OLD), Shape::plain(NEW));
        // Made by an operator that wrote no such thing.
        assert_eq!(runs(&workload(SERVERS, "x:v1.36.3"), SERVERS, NEW), Shape::plain(OLD));
        assert_eq!(runs(&workload(SERVERS, "x:mine"), SERVERS, NEW), Shape::plain(NEW));
        assert_eq!(
            runs(&workload("etcd", "x:v3.6.8"), "etcd", OLD),
            Shape::plain(OLD),
            "etcd's own version is another"
        );
    }

    #[test]
    fn etcd_is_of_the_next_version_when_all_its_members_are() {
        let part = |version: Version, waits: Option<&str>| Part {
            runs: Some(Shape::plain(version)),
            waits: waits.map(str::to_owned),
        };
        let all = [part(OLD, None), part(OLD, None), part(NEW, Some("rolls"))];
        let seen = etcd(all.into_iter());
        assert_eq!(seen.runs, Some(Shape::plain(NEW)), "it does not go back where something else has to wait");
        assert_eq!(seen.waits.as_deref(), Some("2 of 3 members are yet to be replaced"));
        assert_eq!(etcd([part(NEW, None), part(NEW, Some("rolls"))].into_iter()).waits.as_deref(), Some("rolls"));
        assert_eq!(etcd([part(NEW, None)].into_iter()), part(NEW, None));
        assert_eq!(etcd(std::iter::empty()), Part { runs: None, waits: None });
    }

    #[test]
    fn what_is_committed_is_said_and_else_follows_from_what_is_there() {
        let none = BTreeMap::new();
        let there = BTreeMap::from([("apiserver", workload(SERVERS, "x:v1.36.3"))]);
        let both = json!({"committedVersion": "v1.37.2", "version": "v1.36.3"});
        assert_eq!(committed_of(&both, &there, NEW), NEW);
        assert_eq!(committed_of(&json!({"version": "v1.36.3"}), &none, NEW), OLD);
        assert_eq!(committed_of(&json!({}), &there, NEW), OLD);
        assert_eq!(committed_of(&json!({}), &none, NEW), NEW);
    }

    #[test]
    fn a_leader_of_before_and_an_api_server_that_ends_are_none_of_the_new_version() {
        let (old, new) = (workload(CONTROLLERS[1], "x:v1.36.3"), workload(CONTROLLERS[1], "x:v1.37.2"));
        let pods = [pod(CONTROLLERS[1], "a-scheduler-1", &old), pod(CONTROLLERS[1], "a-scheduler-2", &new)];
        let lease = |holder: &str| vec![(CONTROLLERS[1].to_owned(), holder.to_owned())];
        assert!(leads(CONTROLLERS[1], &lease("a-scheduler-1_uid"), &new, &pods).is_some());
        assert_eq!(leads(CONTROLLERS[1], &lease("a-scheduler-2_uid"), &new, &pods), None);
        assert!(leads(CONTROLLERS[1], &lease(""), &new, &pods).is_some());
        assert!(leads(CONTROLLERS[1], &[], &new, &pods).is_some());
        // The name of a host is no longer than 63 characters.
        let long = format!("{}-1", "a".repeat(70));
        let pods = [pod(CONTROLLERS[1], &long, &new)];
        assert_eq!(leads(CONTROLLERS[1], &lease(&format!("{}_uid", &long[..63])), &new, &pods), None);

        let (old, new) = (workload(SERVERS, "x:v1.36.3"), workload(SERVERS, "x:v1.37.2"));
        let mut pods = [pod(SERVERS, "a-1", &old), pod(SERVERS, "a-2", &new)];
        pods[0]["metadata"]["deletionTimestamp"] = json!("now");
        assert_eq!(old_server(&new, &pods).as_deref(), Some("a-1"), "it serves on for a while");
        pods[0]["status"]["phase"] = json!("Succeeded");
        assert_eq!(old_server(&new, &pods), None);
    }
}
