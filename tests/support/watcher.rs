//! Reads the `kubernetes` Service's addresses again and again: whenever the API is served by the cluster itself, every
//! pod must find the API server's address there.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::beside::{Beside, StopSignal};
use super::http::{Client, runtime};

const INTERVAL: Duration = Duration::from_millis(100);
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
const DAEMON_SET: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-apiserver";

/// What the watcher saw.
#[derive(Debug, Default)]
pub struct Sights {
    /// How often the slice could be read once a self-hosted API server was ready.
    pub readings: usize,
    /// What was wrong in them, and when.
    pub wrong: Vec<(Duration, String)>,
    /// When the slice had the address for the first time, and when a self-hosted API server was first ready.
    pub published: Option<Duration>,
    pub ready: Option<Duration>,
}

impl fmt::Display for Sights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { readings, wrong, published, ready } = self;
        write!(
            f,
            "the address published after {published:.1?}, a self-hosted API server ready after {ready:.1?}, {readings} readings since, {} of them wrong",
            wrong.len()
        )?;
        for (at, what) in wrong {
            write!(f, "\n  at {at:.1?}: {what}")?;
        }
        Ok(())
    }
}

pub struct Watcher(Beside<Sights>);

impl Watcher {
    /// Watches for `address`; times are from now on.
    pub fn begin(client: Client, address: IpAddr) -> Self {
        Self(Beside::begin(move |stop| runtime().block_on(watch(client, address, stop))))
    }

    pub fn end(self) -> Sights {
        self.0.end()
    }
}

async fn watch(client: Client, address: IpAddr, stop: StopSignal) -> Sights {
    let begun = Instant::now();
    let mut sights = Sights::default();
    while !stop.to_stop() {
        tokio::time::sleep(INTERVAL).await;
        // The DaemonSet first: what is read after it was ready must be right.
        let (daemon_set, slice) = (client.get(DAEMON_SET).await, client.get(SLICE).await);
        let at = begun.elapsed();
        if sights.ready.is_none() && daemon_set.is_ok_and(|(_, body)| json(&body)["status"]["numberReady"] == 1) {
            sights.ready = Some(at);
        }
        // Whether requests fail is the traffic's business.
        let Ok((status @ (200 | 404), body)) = slice else { continue };
        let slice = json(&body);
        let addresses: Vec<&str> = slice["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|endpoint| endpoint["addresses"][0].as_str())
            .collect();
        let right = addresses.iter().any(|there| there.parse() == Ok(address));
        if right {
            sights.published = sights.published.or(Some(at));
        }
        if sights.ready.is_some() {
            sights.readings += 1;
            if !right {
                sights.wrong.push((at, format!("{status}, addresses {addresses:?}")));
            }
        }
    }
    sights
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}
