//! The forwarder: no client ever meets an API server that is not ready at `NODE_IP:6443`.
//!
//! ```text
//! clients ─► NODE_IP:6443  forwarder (SO_REUSEPORT) ─► 127.0.0.1:6444  the bridge's API server
//!            0.0.0.0:6443  the self-hosted API server, whenever the forwarder is not there
//!
//! wait until the target is ready ─► bind ─► pass bytes ──stop──────────► step aside ─► close ─► drain ─► end
//!       ▲                                        └──the target is gone─► step aside ─► close ─┐
//!       └─────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! The kernel gives a new connection to the listener with the more specific address, so binding and closing are
//! enough to raise and to lower. TLS is not touched. If nothing else listens, the forwarder binds before the target
//! is ready and keeps the connections until it is: see `hold.rs`.
//!
//! Each connection takes two open files. The forwarder accepts no more connections than it has files for, and
//! reserves some for its own requests. Further connections wait in the kernel's queue.

mod hold;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::sockets::{self, LACK_PAUSE, Listeners, accept};
use crate::base::error::{Error, Finding, Result};
use crate::base::probe::{Answer, Probe, lacks};

pub use super::sockets::Also;

/// How long open connections may go on after the stop, unless told otherwise.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Between two questions whether the target is ready: every one of them delays the raising by half of it.
const READY_INTERVAL: Duration = Duration::from_millis(50);
/// An API server that starts accepts late and then answers at once, so asking anew beats waiting long.
const READY_LIMIT: Duration = Duration::from_secs(1);

/// Between two questions whether the target is still there.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// A busy API server may be slow, and a slow one is better than none.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);
/// So many times in a row nothing answered: the target is gone.
const HEALTH_MISSES: u32 = 3;

/// Between two tries to bind.
const BIND_INTERVAL: Duration = Duration::from_millis(200);
/// How often it is said that there is no room for more connections.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// Between two looks for further addresses to listen at.
const EXTEND_INTERVAL: Duration = Duration::from_secs(1);

/// Files that are left for all but connections: listeners, questions to the target, the runtime.
const RESERVED: u64 = 128;
/// Each connection to the target takes a port of loopback, of which there are 28,000 by default.
const MOST: u64 = 20_000;

/// How long handshakes that began before the listener stepped aside may take: more than any client's round trip.
const SETTLE: Duration = Duration::from_millis(300);
/// The target is on this machine: if it has not accepted by then, it never will.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// What to forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where clients connect: `NODE_IP:6443`. Never the wildcard, which belongs to the self-hosted API server.
    pub listen: SocketAddr,
    /// Where else they may.
    pub also: Also,
    /// The API server to pass them to.
    pub target: SocketAddr,
    /// The CA that vouches for the target when it is asked whether it is ready.
    pub ca_file: PathBuf,
    /// How long open connections may go on after the stop.
    pub drain_timeout: Duration,
    /// How many connections there may be at once: [`room`].
    pub connections: usize,
}

/// How many connections a process has room for that may have so many files open.
pub fn room(open_files: u64) -> usize {
    usize::try_from((open_files.saturating_sub(RESERVED) / 2).clamp(1, MOST)).unwrap_or(1)
}

/// Forwards until `stop` completes and the open connections have ended or been cut.
///
/// # Errors
/// Only if the options are wrong: whatever happens to the target or to the address is waited out.
pub async fn run(options: &Options, stop: impl Future<Output = ()>) -> Result<()> {
    if options.listen.ip().is_unspecified() {
        let finding = Finding::new("--listen", "the wildcard address is the self-hosted API server's")
            .remedy("give the address of this node that clients use");
        return Err(Error::Input(vec![finding]));
    }
    let ca = tokio::fs::read(&options.ca_file).await.map_err(|e| Error::io("read", &options.ca_file, e))?;
    let mut forwarder = Forwarder { options, probe: Probe::new(&ca)?, connections: JoinSet::new() };
    let mut stop = pin!(stop);
    loop {
        let mut listeners = tokio::select! {
            biased;
            () = &mut stop => break,
            listeners = forwarder.take() => listeners,
        };
        info!("{} now leads to {}", options.listen, options.target);
        let stopped = tokio::select! {
            biased;
            () = &mut stop => true,
            last = forwarder.serve(&mut listeners) => {
                warn!("{} is gone ({last}): giving {} back", options.target, options.listen);
                false
            }
        };
        forwarder.release(listeners, options.target).await;
        if stopped {
            break;
        }
    }
    sockets::drain(&mut forwarder.connections, forwarder.options.drain_timeout).await;
    Ok(())
}

struct Forwarder<'a> {
    options: &'a Options,
    probe: Probe,
    connections: JoinSet<()>,
}

impl Forwarder<'_> {
    /// Takes the address: at once where nobody has it, and otherwise from the moment the target is ready.
    async fn take(&mut self) -> Listeners {
        let Options { listen, target, ref also, .. } = *self.options;
        if hold::is_deserted(listen).await
            && let Ok(mut listeners) = Listeners::bind(listen, also)
        {
            info!("nothing serves {listen}: keeping connections until {target} is ready");
            let room = self.options.connections.saturating_sub(self.connections.len());
            let (server, kept) = hold::hold(&mut listeners, &self.probe, [target, hold::beside(listen)], room).await;
            for client in kept {
                // Whoever came for nothing hears so: the connection is closed.
                if let Some(server) = server {
                    self.pass(client, server);
                }
            }
            if server == Some(target) {
                return listeners;
            }
            self.release(listeners, server.unwrap_or(target)).await;
        }
        self.bind_when_ready().await
    }

    /// Binds as soon as the target is ready and the address can be had; each try follows an answer that said "ready".
    async fn bind_when_ready(&self) -> Listeners {
        let Options { listen, target, also, .. } = self.options;
        let mut obstacle = String::new();
        loop {
            let answer = self.ask(READY_LIMIT).await;
            let (now, pause) = if answer.is_ready() {
                match Listeners::bind(*listen, also) {
                    Ok(listeners) => return listeners,
                    Err(error) => (format!("cannot bind {listen}, still trying: {error}"), BIND_INTERVAL),
                }
            } else {
                (format!("waiting for {target} to be ready: {answer}"), READY_INTERVAL)
            };
            if now != obstacle {
                info!("{now}");
                obstacle = now;
            }
            sleep(pause).await;
        }
    }

    /// Accepts connections until the target is gone; returns its last answer.
    async fn serve(&mut self, listeners: &mut Listeners) -> Answer {
        let (probe, target) = (self.probe.clone(), self.options.target);
        let mut gone = pin!(target_gone(probe, target));
        let mut extend = tokio::time::interval(EXTEND_INTERVAL);
        let mut said: Option<Instant> = None;
        loop {
            let is_full = self.is_full();
            // As one ends another begins: that is no news.
            if is_full && said.is_none_or(|said| said.elapsed() > SAID_AGAIN) {
                warn!("there is room for {} connections: further ones wait", self.connections.len());
                said = Some(Instant::now());
            }
            tokio::select! {
                last = &mut gone => return last,
                client = accept(listeners), if !is_full => self.pass(client, target),
                Some(_) = self.connections.join_next() => {}
                _ = extend.tick() => listeners.extend(&self.options.also),
            }
        }
    }

    fn is_full(&self) -> bool {
        self.connections.len() >= self.options.connections
    }

    fn pass(&mut self, client: TcpStream, server: SocketAddr) {
        self.connections.spawn(pass(client, server));
    }

    /// Gives the addresses back to the wildcard listener without losing a connection.
    ///
    /// Closing a listener resets what it has not handed out: the connections in its queue, and those whose handshake is
    /// under way, which no accept() can reach. So it first steps aside: from that instant the kernel gives new
    /// connections to the wildcard, while every handshake that has begun here still ends here.
    /// What it still accepts goes to `server`. What there is no room for is reset, and finds the wildcard when it asks again.
    async fn release(&mut self, mut listeners: Listeners, server: SocketAddr) {
        let listen = self.options.listen;
        match listeners.step_aside() {
            Ok(()) => {
                let settled = Instant::now() + SETTLE;
                loop {
                    let next = async {
                        while self.is_full() && self.connections.join_next().await.is_some() {}
                        accept(&mut listeners).await
                    };
                    let Ok(client) = timeout_at(settled, next).await else { break };
                    self.pass(client, server);
                }
            }
            // Linux before 5.1, or a seccomp filter: a connection that arrives right now may be reset.
            Err(error) => warn!("cannot step aside before closing {listen}: {error}"),
        }
        // Asked of the kernel itself: tokio may not have heard yet of what is queued.
        for listener in listeners.into_all() {
            match listener.into_std() {
                Ok(listener) => self.empty(&listener, server),
                Err(error) => warn!("cannot empty the queue of {listen}: {error}"),
            }
        }
        info!("{listen} is closed");
    }

    /// Accepts what is queued, and nothing that is not.
    fn empty(&mut self, listener: &StdListener, server: SocketAddr) {
        while !self.is_full()
            && let Some(client) = sockets::queued(listener)
        {
            self.pass(client, server);
        }
    }

    async fn ask(&self, limit: Duration) -> Answer {
        self.probe.get(self.options.target, "/readyz", limit).await
    }
}

/// Completes when nothing has answered at `target` for several times in a row, with the last answer.
///
/// Any answer will do: an API server that is shutting down says 500 and serves on. That this machine could not ask says
/// nothing.
async fn target_gone(probe: Probe, target: SocketAddr) -> Answer {
    let mut misses = 0;
    loop {
        sleep(HEALTH_INTERVAL).await;
        let answer = probe.get(target, "/readyz", HEALTH_LIMIT).await;
        match &answer {
            answer if answer.is_answered() => misses = 0,
            answer if answer.is_missed() => misses += 1,
            answer => warn!("{target}: {answer}"),
        }
        if misses == HEALTH_MISSES {
            return answer;
        }
    }
}

/// One connection, to its end. Half-closing passes through; if the target cannot be reached, the client is closed.
async fn pass(mut client: TcpStream, target: SocketAddr) {
    let passed = async {
        let mut server = timeout(DIAL_LIMIT, dial(target)).await??;
        sockets::keep(&client)?;
        sockets::keep(&server)?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    };
    match passed.await {
        Ok((sent, received)) => debug!("a connection ended: {sent} bytes sent, {received} received"),
        Err(error) => debug!("a connection broke: {error}"),
    }
}

/// A connection to the target. What this machine lacks for it at first it may have a moment later: the client waits.
async fn dial(target: SocketAddr) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect(target).await {
            Err(error) if lacks(&error) => sleep(LACK_PAUSE).await,
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests;
