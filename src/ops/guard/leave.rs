//! Leaving a node: guard and the bridge leave only after another controller's API server has proved that it serves.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep};

use super::observer::{ASK_LIMIT, Addresses};
use crate::api::endpoints::{self, Retracted};
use crate::base::error::{Error, Finding, Result};
use crate::base::files;
use crate::desired::config::API_PORT;
use crate::node::host::Host;
use crate::node::processes::{self, Component};
use crate::node::world::Ask;
use crate::plane::bridge::Bridge;
use crate::plane::kept_copy::Copy;

/// The program by which the API is served.
pub(super) const API_SERVER: &str = "kube-apiserver";
/// Between two looks for processes that are to end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Between two times that other controllers are asked.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long kube-proxy may take to hear that an address is gone.
pub(super) const TO_MOVE: Duration = Duration::from_secs(2);

/// Whether another controller than the one at `own` is published among the addresses of the `kubernetes` Service and
/// answers that it is ready, with a certificate that the cluster's CA vouches for.
///
/// # Errors
/// The API server's word.
pub(super) async fn another_serves(client: &Client, probe: &dyn Ask, own: IpAddr) -> Result<bool> {
    for address in endpoints::published(client).await?.into_iter().filter(|address| *address != own) {
        if probe.get(SocketAddr::new(address, API_PORT), "/readyz", ASK_LIMIT).await.is_ready() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the address `own` out of those of the `kubernetes` Service, before what serves there goes.
///
/// # Errors
/// The API server's word; that it is the last one, which stays.
pub(super) async fn retract(client: &Client, own: IpAddr) -> Result<()> {
    match endpoints::retract(client, own).await? {
        Retracted::Done => Ok(()),
        Retracted::Last => Err(Error::failed(
            format!("take {own} out of the addresses of the kubernetes Service"),
            "no other address would be left",
        )),
    }
}

/// The processes of these components of this cluster's on this machine.
///
/// # Errors
/// A /proc that cannot be read.
pub(super) fn running(host: &Host, names: &[&str]) -> Result<Vec<Component>> {
    let proc = host.path("/proc");
    let mut running = Vec::new();
    for name in names {
        running.extend(processes::of(&proc, name).map_err(|error| Error::io("read", &proc, error))?);
    }
    Ok(running)
}

/// Waits until the processes `before` of these components have ended; says whether they have.
pub(super) async fn until_ended(host: &Host, names: &[&str], before: &[Component], limit: Duration) -> bool {
    let begun = Instant::now();
    let is_same = |one: &Component, other: &Component| match (&one.process, &other.process) {
        (Some(one), Some(other)) => one.is(other),
        _ => false,
    };
    loop {
        // What cannot be read may still run.
        let is_left = |left: Vec<Component>| left.iter().any(|one| before.iter().any(|other| is_same(one, other)));
        if running(host, names).is_ok_and(|left| !is_left(left)) {
            return true;
        }
        if begun.elapsed() >= limit {
            return false;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Whether guard and its bridge may be taken from this node by hand: not where the bridge serves the API, and the self-hosted
/// API server does not.
///
/// # Errors
/// [`Error::Preflight`], which says so.
pub async fn may_remove(host: &Host) -> Result<()> {
    let copy = Copy::load(host).ok().flatten();
    let at = copy.as_ref().and_then(|copy| Addresses::of(copy).ok());
    let ca = copy.and_then(|copy| copy.assets.tls().remove("ca.crt"));
    let ca = ca.or(files::read_if_there(&host.path("/etc/kubernetes/pki/ca.crt"))?);
    // Without both there is no bridge whose place anybody could know.
    let (Some(at), Some(ca), true) = (at, ca, Bridge::new(host).standing().api_server) else { return Ok(()) };
    let probe = host.world().probe(&ca)?;
    let (node, own) =
        tokio::join!(probe.get(at.node_ip, "/readyz", ASK_LIMIT), probe.get(at.loopback, "/readyz", ASK_LIMIT));
    if own.is_ready() || !node.is_ready() {
        return Ok(());
    }
    let finding = Finding::new(at.node_ip.to_string(), format!("is served by the bridge; {}: {own}", at.loopback));
    Err(Error::Preflight(vec![finding.remedy(
        "it would be gone with guard: repair the self-hosted API server first (`hoist status` says what is wrong with it); `hoist reset` takes all of hoist off this node",
    )]))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use futures::future::BoxFuture;
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::base::probe::Answer;
    use crate::node::system;

    /// API servers of other controllers.
    struct Ready(&'static [&'static str], Mutex<Vec<SocketAddr>>);

    impl Ask for Ready {
        fn get<'a>(&'a self, address: SocketAddr, path: &'a str, _: Duration) -> BoxFuture<'a, Answer> {
            assert_eq!(path, "/readyz");
            self.1.lock().unwrap().push(address);
            let is_ready = self.0.contains(&&*address.ip().to_string());
            Box::pin(
                async move { if is_ready { Answer::Http { status: 200, body: "ok".into() } } else { Answer::Refused } },
            )
        }
    }

    /// A cluster with this slice, and no legacy object.
    fn cluster(addresses: &[&str]) -> Client {
        let endpoints: Vec<Value> = addresses.iter().map(|ip| json!({"addresses": [ip]})).collect();
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "kubernetes", "namespace": "default"}, "endpoints": endpoints});
        let service = tower::service_fn(move |request: Request<Body>| {
            let is_read = request.method() == "GET" && request.uri().path().contains("endpointslices");
            let text = if is_read { slice.to_string() } else { panic!("{request:?}") };
            async move { Ok::<_, std::convert::Infallible>(Response::new(Body::from(text.into_bytes()))) }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn another_one_must_be_published_and_answer() {
        let own = IpAddr::from([10, 0, 0, 1]);
        for (published, ready, expected) in [
            (&["10.0.0.1"][..], &["10.0.0.1", "10.0.0.2"][..], false),
            (&["10.0.0.1", "10.0.0.2"], &["10.0.0.1"], false),
            (&["10.0.0.1", "10.0.0.2"], &["10.0.0.2"], true),
            (&["10.0.0.1", "10.0.0.2", "10.0.0.3"], &["10.0.0.3"], true),
            (&[], &["10.0.0.2"], false),
        ] {
            let probe = Ready(ready, Mutex::default());
            let found = another_serves(&cluster(published), &probe, own).await.unwrap();
            assert_eq!(found, expected, "{published:?}, {ready:?}");
            assert!(!probe.1.lock().unwrap().iter().any(|address| address.ip() == own), "it asks no more of itself");
        }
    }

    #[tokio::test]
    async fn the_last_address_stays_and_so_does_guard() {
        let error = retract(&cluster(&["10.0.0.1"]), IpAddr::from([10, 0, 0, 1])).await.unwrap_err();
        assert!(error.to_string().ends_with("no other address would be left"), "{error}");
    }

    #[tokio::test]
    async fn without_a_bridge_guard_may_be_removed() {
        let root = tempfile::tempdir().unwrap();
        may_remove(&system::host(root.path(), Path::new("/etc/kubernetes/manifests"))).await.unwrap();
    }
}
