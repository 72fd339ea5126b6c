//! What guard maintains at rest, beside its loop, which must not wait for it: this controller's address among those
//! of the `kubernetes` Service, and kubelets' serving certificates (`approver.rs`).
//!
//! It asks every few seconds, on one connection. A watch would be one more connection that is open through every
//! hand-over.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep, timeout};

use super::approver::Approver;
use super::heartbeat::RIGHTS;
use super::metrics::Metrics;
use crate::api::approve::Reserved;
use crate::api::endpoints;
use crate::base::error::{Error, Result};
use crate::base::report::Reporter;
use crate::desired::config::API_PORT;
use crate::desired::secrets;
use crate::node::host::Host;
use crate::plane::kept_copy::Copy;
use crate::plane::leaving;

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
    /// `None` where nobody in the cluster signs.
    reserved: Option<Reserved>,
}

impl Way {
    /// That of `copy`.
    ///
    /// # Errors
    /// A copy that cannot be used.
    pub fn of(copy: &Copy) -> Result<Self> {
        let (cluster, controller) = copy.cluster()?;
        let tls = copy.assets.tls();
        let served = tls.get("apiserver.crt").map(Vec::as_slice).unwrap_or_default();
        Ok(Self {
            kubeconfig: secrets::of_guard(&cluster, &tls)?,
            address: SocketAddr::new(controller.address, API_PORT),
            reserved: (!cluster.has_external_ca()).then(|| Reserved::of(&cluster, served)),
        })
    }
}

/// The way, as guard's loop knows it now; none while nothing is to be kept.
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

/// Keeps for ever. What fails is tried again, and said once.
pub async fn run(host: &Host, way: &Shared, reporter: &Reporter, metrics: &Metrics) -> Infallible {
    let approver = Approver::new(reporter, metrics);
    let mut keeper = Keeper { reporter, metrics, approver, client: None, failed: String::new() };
    let begun = Instant::now();
    let mut after = Duration::ZERO;
    loop {
        // Not before the moment that the API server names.
        sleep((if begun.elapsed() < FIRST { AT_FIRST } else { PERIOD }).max(after)).await;
        after = Duration::ZERO;
        let Some(way) = way.get().filter(|_| !leaving::is_so(host)) else { continue };
        let turned = timeout(LIMIT, keeper.turn(host, &way)).await;
        match turned.unwrap_or_else(|_| Err(Error::failed("keep what guard keeps", "no answer in time"))) {
            Ok(()) => keeper.failed.clear(),
            Err(error) => {
                after = error.after().unwrap_or_default();
                keeper.fail(&error);
            }
        }
    }
}

struct Keeper<'a> {
    reporter: &'a Reporter,
    metrics: &'a Metrics,
    approver: Approver<'a>,
    /// Kept from turn to turn, with its way: a handshake costs more than the question.
    client: Option<(Arc<Way>, Client)>,
    failed: String,
}

impl Keeper<'_> {
    async fn turn(&mut self, host: &Host, way: &Arc<Way>) -> Result<()> {
        let client = match &self.client {
            Some((of, client)) if Arc::ptr_eq(of, way) => client.clone(),
            _ => host.world().connect(&way.kubeconfig, way.address).await?,
        };
        self.client = Some((way.clone(), client.clone()));
        let published = endpoints::publish(&client, way.address.ip()).await;
        if let Ok(true) = published {
            let address = way.address.ip();
            self.reporter.note(&format!("the addresses of the kubernetes Service lacked {address}: it is there again"));
        }
        let approved = match &way.reserved {
            Some(reserved) => self.approver.turn(&client, reserved).await,
            None => Ok(()),
        };
        published.and(approved)
    }

    /// An API server that is away is guard's loop to tell of: here only its own word counts.
    fn fail(&mut self, error: &Error) {
        self.client = None;
        let text = error.to_string();
        if self.failed != text && text.contains("forbidden") {
            self.metrics.set(|counts| counts.errors += 1);
            self.reporter.note(&format!("{text}\n  next: {RIGHTS}"));
        }
        self.failed = text;
    }
}
