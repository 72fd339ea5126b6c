//! Approves what kubelets serve with: beside guard's loop, which must not wait for it. `crate::approve` says to what.
//!
//! It asks every few seconds. To watch would be one connection more that is held through every hand-over, and a kubelet
//! waits for this in no hurry: only `kubectl logs` and its like need what it serves.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep, timeout};

use super::copy::Copy;
use super::metrics::Metrics;
use crate::api::requests;
use crate::approve::{Reserved, Verdict, judge};
use crate::config::API_PORT;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::report::Reporter;
use crate::secrets;

/// Between two turns.
const PERIOD: Duration = Duration::from_secs(5);
/// The same at first: guard comes with a new controller, whose kubelet asks, too.
const AT_FIRST: Duration = Duration::from_secs(1);
const FIRST: Duration = Duration::from_secs(60);
/// How long a turn may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How to ask, and what no kubelet may have: what the copy of the bridge says.
pub struct Way {
    kubeconfig: String,
    address: SocketAddr,
    reserved: Reserved,
}

impl Way {
    /// That of `copy`; `None` where nobody in the cluster signs.
    ///
    /// # Errors
    /// A copy that cannot be used.
    pub fn of(copy: &Copy) -> Result<Option<Self>> {
        let (cluster, controller) = copy.cluster()?;
        if cluster.has_external_ca() {
            return Ok(None);
        }
        let tls = copy.assets.tls();
        Ok(Some(Self {
            kubeconfig: secrets::of_guard(&cluster, &tls)?,
            address: SocketAddr::new(controller.address, API_PORT),
            reserved: Reserved::of(&cluster, tls.get("apiserver.crt").map(Vec::as_slice).unwrap_or_default()),
        }))
    }
}

/// The way, as guard's loop knows it now.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Option<Arc<Way>>>>);

impl Shared {
    /// From now on it is this.
    pub fn set(&self, way: Option<Way>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = way.map(Arc::new);
    }

    fn get(&self) -> Option<Arc<Way>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Approves for ever. What fails is tried again, and said once.
pub async fn run(host: &Host, way: &Shared, reporter: &Reporter, metrics: &Metrics) -> Infallible {
    let mut approver = Approver { reporter, metrics, client: None, said: BTreeSet::new(), failed: String::new() };
    let begun = Instant::now();
    loop {
        sleep(if begun.elapsed() < FIRST { AT_FIRST } else { PERIOD }).await;
        let Some(way) = way.get() else { continue };
        let turned = timeout(LIMIT, approver.turn(host, &way)).await;
        match turned.unwrap_or_else(|_| Err(Error::failed("approve serving certificates", "no answer in time"))) {
            Ok(()) => approver.failed.clear(),
            Err(error) => approver.fail(&error),
        }
    }
}

struct Approver<'a> {
    reporter: &'a Reporter,
    metrics: &'a Metrics,
    /// Kept from turn to turn, with its way: a handshake costs more than the question.
    client: Option<(Arc<Way>, Client)>,
    /// What was said of requests that still wait.
    said: BTreeSet<String>,
    failed: String,
}

impl Approver<'_> {
    async fn turn(&mut self, host: &Host, way: &Arc<Way>) -> Result<()> {
        let client = match &self.client {
            Some((of, client)) if Arc::ptr_eq(of, way) => client.clone(),
            _ => host.outside().connect(&way.kubeconfig, way.address).await?,
        };
        self.client = Some((way.clone(), client.clone()));
        let pending = requests::pending(&client).await?;
        let mut said = BTreeSet::new();
        if !pending.is_empty() {
            let nodes = requests::addresses(&client).await?;
            for one in &pending {
                let why = match judge(&one.asked, &nodes, &way.reserved) {
                    Verdict::Approve => {
                        requests::approve(&client, one).await?;
                        self.metrics.set(|counts| counts.approved += 1);
                        format!("the serving certificate of {} is approved ({})", one.asked.username, one.name)
                    }
                    Verdict::Wait(why) => format!("the request {} waits: {why}", one.name),
                    Verdict::Refuse(why) => format!("the request {} is not approved: {why}", one.name),
                };
                if !self.said.contains(&why) {
                    self.reporter.note(&why);
                }
                said.insert(why);
            }
        }
        self.said = said;
        Ok(())
    }

    /// An API server that is away is guard's loop to tell of: here only its own word counts.
    fn fail(&mut self, error: &Error) {
        self.client = None;
        let text = error.to_string();
        if self.failed != text && text.contains("forbidden") {
            self.metrics.set(|counts| counts.errors += 1);
            self.reporter.note(&text);
        }
        self.failed = text;
    }
}
