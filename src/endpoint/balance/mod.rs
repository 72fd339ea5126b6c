//! The endpoint: the forwarder with several targets. Clients of a node ask one loopback address, and reach an API server
//! that serves.
//!
//! ```text
//!                                              ┌─ health ◄─ prober ◄── /readyz of each target, four times a second
//!  kubelet ─┐                                  ▼
//!           ├─► 127.0.0.1:7443 ─► open ─► choose ─► copy ─► 192.0.2.10:6443
//!  others  ─┘                      ▲   (board)              192.0.2.11:6443   the API servers
//!                                  │                        192.0.2.12:6443
//!       remembered ∪ configured ∪ discovered ◄── the EndpointSlice default/kubernetes, read through the endpoint
//! ```
//! `health.rs` says what is thought of a target, `choose.rs` which one the next connection gets and whose connections are
//! closed: both are pure, each with its table. TLS is not touched.
//!
//! **It listens only while there is an API server to be had**: one that answers, or accepts connections, or was ready eight seconds ago
//! or less. Otherwise clients are refused, as by an API server that is away. A client that is kept waiting and then closed tries
//! again, and a kubelet does so ten times before it starts a static pod: etcd would not start for minutes.
//!
//! Each connection takes two open files. The endpoint accepts no more connections than it has files for, and reserves
//! some for its own questions. Further connections wait in the kernel's queue.

mod board;
mod choose;
mod copy;
mod discover;
mod health;
mod metrics;
mod open;
mod pipes;
mod prober;
mod targets;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tracing::{info, warn};

use board::Board;
use health::State;
use targets::Targets;

use crate::base::error::{Error, Finding, Result};
use crate::base::exposition;
use crate::base::files::File;
use crate::base::probe::Probe;
use crate::endpoint::sockets::{Also, Listeners, accept, drain, queued};

pub use targets::parse as parse_target;

/// Between two looks at what changes slowly: targets to forget, a new CA.
const UPKEEP: Duration = Duration::from_secs(10);
/// Between two looks at whether there is an API server to be had.
const LOOK: Duration = Duration::from_millis(100);
/// How long a target that is silent may take to accept a connection.
const CONNECT: Duration = Duration::from_millis(150);
/// How often it is said that there is no room for more connections.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// How long handshakes that began before the listener stepped aside may take: it is on loopback.
const SETTLE: Duration = Duration::from_millis(50);

/// What to forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where clients connect: an address of loopback.
    pub listen: SocketAddr,
    /// API servers that are targets whatever the cluster publishes.
    pub targets: Vec<SocketAddr>,
    /// The target for new connections while it is good: the API server of this node. It counts as configured.
    pub prefer: Option<SocketAddr>,
    /// The file that remembers discovered targets.
    pub state_file: PathBuf,
    /// The CA that vouches for API servers when they are asked whether they are ready.
    pub ca_file: PathBuf,
    /// Credentials to read with which API servers the cluster publishes; without them, nothing is discovered.
    pub kubeconfig: Option<PathBuf>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// How long open connections may go on after the stop.
    pub drain_timeout: Duration,
    /// How many connections there may be at once.
    pub connections: usize,
    /// Where chance comes from: another one on each node.
    pub seed: u64,
}

/// Forwards until `stop` completes and the open connections have ended or been cut.
///
/// # Errors
/// Only if the options are wrong: no target, an address that is not loopback's, a CA that cannot be used. Whatever happens to
/// targets and to the address is waited out.
pub async fn run(options: &Options, stop: impl Future<Output = ()>) -> Result<()> {
    if !options.listen.ip().is_loopback() {
        let finding = Finding::new("--listen", format!("{} is not an address of loopback", options.listen.ip()));
        return Err(Error::Input(vec![
            finding.remedy("give one, such as 127.0.0.1:7443: the endpoint is for this node"),
        ]));
    }
    let configured = options.targets.iter().chain(&options.prefer).copied();
    let targets = Targets::load(configured, &options.state_file, options.listen)?;
    let ca = tokio::fs::read(&options.ca_file).await.map_err(|e| Error::io("read", &options.ca_file, e))?;
    let mut endpoint = Endpoint::new(options, targets, ca)?;
    if let Some(listeners) = endpoint.serve(pin!(stop)).await {
        endpoint.release(listeners).await;
    }
    drain(&mut endpoint.connections, endpoint.options.drain_timeout).await;
    Ok(())
}

struct Endpoint<'a> {
    options: &'a Options,
    targets: Targets,
    board: Arc<Board>,
    ca: Vec<u8>,
    probe: watch::Sender<Probe>,
    /// The tasks that ask targets, that discover, and that serve metrics; they end with this.
    tasks: JoinSet<()>,
    probers: BTreeMap<SocketAddr, AbortHandle>,
    connections: JoinSet<()>,
    /// Why the address could not be had when that was last tried.
    obstacle: String,
    /// What is to be remembered of the targets.
    remembered: watch::Sender<File>,
}

impl<'a> Endpoint<'a> {
    fn new(options: &'a Options, targets: Targets, ca: Vec<u8>) -> Result<Self> {
        let (probe, _) = watch::channel(Probe::new(&ca)?);
        let (remembered, newest) = watch::channel(targets.file());
        let mut tasks = JoinSet::new();
        tasks.spawn(targets::remember(options.state_file.clone(), newest));
        let mut endpoint = Self {
            options,
            targets,
            board: Board::new(options.prefer, options.seed),
            ca,
            probe,
            tasks,
            probers: BTreeMap::new(),
            connections: JoinSet::new(),
            obstacle: String::new(),
            remembered,
        };
        endpoint.follow();
        Ok(endpoint)
    }

    /// Asks those that are targets now, and no others, and remembers them.
    fn follow(&mut self) {
        let all = self.targets.all();
        let file = self.targets.file();
        self.remembered.send_if_modified(|there| {
            let is_new = *there != file;
            *there = file;
            is_new
        });
        self.board.set(&all, Instant::now());
        self.probers.retain(|address, prober| {
            let stays = all.contains(address);
            if !stays {
                prober.abort();
                info!("{address} is no target any more");
            }
            stays
        });
        for address in all {
            self.probers.entry(address).or_insert_with(|| {
                info!("{address} is a target");
                self.tasks.spawn(prober::watch(self.board.clone(), address, self.probe.subscribe()))
            });
        }
    }

    /// Accepts connections until the stop, as long as there is an API server for them; returns what it accepts them from then.
    async fn serve(&mut self, mut stop: impl Future<Output = ()> + Unpin) -> Option<Listeners> {
        let (found, mut discovered) = mpsc::channel(1);
        if let Some(kubeconfig) = self.options.kubeconfig.clone() {
            let discover = discover::watch(kubeconfig, self.options.listen, self.options.seed, found.clone());
            self.tasks.spawn(async move { match discover.await {} });
        }
        if let Some(address) = self.options.metrics {
            let board = self.board.clone();
            self.tasks.spawn(async move {
                let text = || {
                    let (unserved, moved) = board.counts();
                    metrics::text(&board.seats(Instant::now()), unserved, moved)
                };
                let error = exposition::serve(address, text, exposition::nothing).await;
                warn!("no metrics at {address}: {error}");
            });
        }
        let mut upkeep = interval(UPKEEP);
        let mut said: Option<Instant> = None;
        let mut listeners: Option<Listeners> = None;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_full = self.connections.len() >= self.options.connections;
            // As one ends another begins: that is no news.
            if is_full && said.is_none_or(|said| said.elapsed() > SAID_AGAIN) {
                warn!("there is room for {} connections: further ones wait", self.connections.len());
                said = Some(Instant::now());
            }
            tokio::select! {
                () = &mut stop => return listeners,
                client = accept_at(&mut listeners), if !is_full => {
                    self.connections.spawn(open::serve(self.board.clone(), client));
                }
                _ = looks.tick() => listeners = self.listen(listeners).await,
                Some(_) = self.connections.join_next() => {}
                Some(published) = discovered.recv() => {
                    self.targets.discovered(published, self.options.listen);
                    self.follow();
                }
                _ = upkeep.tick() => self.upkeep().await,
            }
        }
    }

    /// Listens while there is an API server to be had, and as soon as the address can be. A new endpoint may stand beside one
    /// that is ending.
    async fn listen(&mut self, listeners: Option<Listeners>) -> Option<Listeners> {
        let address = self.options.listen;
        let has_hope = self.board.has_hope(open::HOLD, Instant::now()) || self.accepts().await;
        match (listeners, has_hope) {
            (None, true) => match Listeners::bind(address, &Also::default()) {
                Ok(listeners) => {
                    info!("{address} leads to the API servers");
                    Some(listeners)
                }
                Err(error) => {
                    let now = error.to_string();
                    if now != self.obstacle {
                        warn!("cannot bind {address}, still trying: {now}");
                        self.obstacle = now;
                    }
                    None
                }
            },
            (Some(_), false) => {
                warn!("no API server is to be had: {address} is closed until one is");
                None
            }
            (listeners, _) => listeners,
        }
    }

    /// Whether a target accepts connections that does not answer.
    async fn accepts(&self) -> bool {
        let seats = self.board.seats(Instant::now());
        let silent = seats.iter().filter(|seat| seat.state == State::Silent);
        let connects =
            silent.map(|seat| async { matches!(timeout(CONNECT, TcpStream::connect(seat.address)).await, Ok(Ok(_))) });
        join_all(connects).await.contains(&true)
    }

    /// Forgets targets, and takes up a new CA.
    async fn upkeep(&mut self) {
        let seats = self.board.seats(Instant::now());
        let bad_for = |address| {
            let seat = seats.iter().find(|seat| seat.address == address)?;
            (seat.state != State::Good).then_some(seat.since)
        };
        let forgotten = self.targets.forget(bad_for);
        if !forgotten.is_empty() {
            self.follow();
        }
        let file = &self.options.ca_file;
        match tokio::fs::read(file).await {
            Ok(ca) if ca != self.ca => match Probe::new(&ca) {
                Ok(probe) => {
                    info!("{} has changed, and is taken up", file.display());
                    self.ca = ca;
                    self.probe.send_replace(probe);
                }
                Err(error) => warn!("{} has changed, and cannot be used: {error}", file.display()),
            },
            // What was read before holds.
            _ => {}
        }
    }

    /// Closes the listener without losing a connection: new ones go to another endpoint that listens beside this one, if
    /// there is any.
    async fn release(&mut self, mut listeners: Listeners) {
        if let Err(error) = listeners.step_aside() {
            warn!("cannot step aside before closing {}: {error}", self.options.listen);
        }
        let settled = Instant::now() + SETTLE;
        while let Ok(client) = timeout_at(settled, accept(&mut listeners)).await {
            self.connections.spawn(open::serve(self.board.clone(), client));
        }
        for listener in listeners.into_all().filter_map(|listener| listener.into_std().ok()) {
            while let Some(client) = queued(&listener) {
                self.connections.spawn(open::serve(self.board.clone(), client));
            }
        }
        info!("{} is closed", self.options.listen);
    }
}

/// The next client; never one while nothing is listened at.
async fn accept_at(listeners: &mut Option<Listeners>) -> TcpStream {
    match listeners {
        Some(listeners) => accept(listeners).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
