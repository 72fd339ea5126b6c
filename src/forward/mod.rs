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
//! The kernel gives a new connection to the listener with the more specific address, so binding and closing are all
//! it takes to raise and to lower. TLS is not touched. Where nobody else listens, it binds before the target is ready
//! and keeps the connections until it is: see `hold.rs`.

mod hold;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::error::{Error, Finding, Result};
use crate::probe::{Answer, Probe};

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
/// As long as the kernel allows (net.core.somaxconn cuts it).
const BACKLOG: u32 = 65535;

/// How long handshakes that began before the listener stepped aside may take: more than any client's round trip.
const SETTLE: Duration = Duration::from_millis(300);
/// The target is on this machine: if it has not accepted by then, it never will.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// The pause after accept() failed, which it does when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An interface that is none: indexes are given out from 1.
const NO_INTERFACE: Option<NonZeroU32> = NonZeroU32::new(i32::MAX as u32);

/// What to forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where clients connect: `NODE_IP:6443`. Never the wildcard, which belongs to the self-hosted API server.
    pub listen: SocketAddr,
    /// The API server to pass them to.
    pub target: SocketAddr,
    /// The CA that vouches for the target when it is asked whether it is ready.
    pub ca_file: PathBuf,
    /// How long open connections may go on after the stop.
    pub drain_timeout: Duration,
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
        let listener = tokio::select! {
            biased;
            () = &mut stop => break,
            listener = forwarder.take() => listener,
        };
        info!("{} now leads to {}", options.listen, options.target);
        let stopped = tokio::select! {
            biased;
            () = &mut stop => true,
            last = forwarder.serve(&listener) => {
                warn!("{} is gone ({last}): giving {} back", options.target, options.listen);
                false
            }
        };
        forwarder.release(listener, options.target).await;
        if stopped {
            break;
        }
    }
    forwarder.drain().await;
    Ok(())
}

struct Forwarder<'a> {
    options: &'a Options,
    probe: Probe,
    connections: JoinSet<()>,
}

impl Forwarder<'_> {
    /// Takes the address: at once where nobody has it, and otherwise from the moment the target is ready.
    async fn take(&mut self) -> TcpListener {
        let Options { listen, target, .. } = *self.options;
        if hold::is_deserted(listen).await
            && let Ok(listener) = bind(listen)
        {
            info!("nobody serves {listen}: keeping connections until {target} is ready");
            let (server, kept) = hold::hold(&listener, &self.probe, [target, hold::beside(listen)]).await;
            for client in kept {
                // Whoever came for nothing hears so: the connection is closed.
                if let Some(server) = server {
                    self.pass(client, server);
                }
            }
            if server == Some(target) {
                return listener;
            }
            self.release(listener, server.unwrap_or(target)).await;
        }
        self.bind_when_ready().await
    }

    /// Binds as soon as the target is ready and the address can be had; each try follows an answer that said "ready".
    async fn bind_when_ready(&self) -> TcpListener {
        let Options { listen, target, .. } = self.options;
        let mut obstacle = String::new();
        loop {
            let answer = self.ask(READY_LIMIT).await;
            let (now, pause) = if answer.is_ready() {
                match bind(*listen) {
                    Ok(listener) => return listener,
                    Err(error) => (format!("cannot bind {listen}, trying on: {error}"), BIND_INTERVAL),
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
    async fn serve(&mut self, listener: &TcpListener) -> Answer {
        let (probe, target) = (self.probe.clone(), self.options.target);
        let mut gone = pin!(target_gone(probe, target));
        loop {
            tokio::select! {
                last = &mut gone => return last,
                client = accept(listener) => self.pass(client, target),
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    fn pass(&mut self, client: TcpStream, server: SocketAddr) {
        self.connections.spawn(pass(client, server));
    }

    /// Gives the address back to the wildcard listener without losing a connection.
    ///
    /// Closing a listener resets what it has not handed out: the connections in its queue, and those whose handshake is
    /// under way, which no accept() can reach. So it first steps aside: from that instant the kernel gives new
    /// connections to the wildcard, while every handshake that has begun here still ends here.
    /// What it still accepts goes to `server`.
    async fn release(&mut self, listener: TcpListener, server: SocketAddr) {
        let listen = self.options.listen;
        match step_aside(&listener) {
            Ok(()) => {
                let settled = Instant::now() + SETTLE;
                while let Ok(client) = timeout_at(settled, accept(&listener)).await {
                    self.pass(client, server);
                }
            }
            // Linux before 5.1, or a seccomp filter: a connection that arrives right now may be reset.
            Err(error) => warn!("cannot step aside before closing {listen}: {error}"),
        }
        // Asked of the kernel itself: tokio may not have heard yet of what is queued.
        match listener.into_std() {
            Ok(listener) => self.empty(&listener, server),
            Err(error) => warn!("cannot empty the queue of {listen}: {error}"),
        }
        info!("{listen} is closed");
    }

    /// Accepts what is queued, and nothing that is not.
    fn empty(&mut self, listener: &StdListener, server: SocketAddr) {
        loop {
            let client = listener.accept().and_then(|(client, _)| {
                client.set_nonblocking(true)?;
                TcpStream::from_std(client)
            });
            match client {
                Ok(client) => self.pass(client, server),
                // One that gave up while it was queued; there may be more behind it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => return,
            }
        }
    }

    /// Lets the open connections end, and cuts those that do not in time.
    async fn drain(&mut self) {
        while self.connections.try_join_next().is_some() {}
        if !self.connections.is_empty() {
            info!("waiting for {} open connections to end", self.connections.len());
        }
        let all_ended = async { while self.connections.join_next().await.is_some() {} };
        if timeout(self.options.drain_timeout, all_ended).await.is_err() {
            info!("cutting {} connections that are still open", self.connections.len());
            self.connections.shutdown().await;
        }
    }

    async fn ask(&self, limit: Duration) -> Answer {
        self.probe.get(self.options.target, "/readyz", limit).await
    }
}

/// The next connection, however long it takes.
async fn accept(listener: &TcpListener) -> TcpStream {
    let mut failed = false;
    loop {
        match listener.accept().await {
            Ok((client, _)) => return client,
            Err(error) => {
                if !std::mem::replace(&mut failed, true) {
                    warn!("cannot accept, trying on: {error}");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Completes when nothing has answered at `target` for several times in a row, with the last answer.
///
/// Any answer will do: an API server that is shutting down says 500 and serves on.
async fn target_gone(probe: Probe, target: SocketAddr) -> Answer {
    let mut misses = 0;
    loop {
        sleep(HEALTH_INTERVAL).await;
        let answer = probe.get(target, "/readyz", HEALTH_LIMIT).await;
        misses = if answer.is_answered() { 0 } else { misses + 1 };
        if misses == HEALTH_MISSES {
            return answer;
        }
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // What lets it stand beside the wildcard listener; both must be of one uid.
    socket.set_reuseport(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Makes the kernel pass this listener over for new connections, while it still completes and hands out those it has.
///
/// A listener that is bound to an interface is only looked at for packets that come in there, and nothing comes in at
/// an interface that does not exist. Handshakes under way are found by their own addresses and are not affected.
fn step_aside(listener: &TcpListener) -> io::Result<()> {
    // On Linux one option serves both families, in spite of the name.
    SockRef::from(listener).bind_device_by_index_v4(NO_INTERFACE)
}

/// One connection, to its end. Half-closing passes through; if the target cannot be reached, the client is closed.
async fn pass(mut client: TcpStream, target: SocketAddr) {
    let passed = async {
        let mut server = timeout(DIAL_LIMIT, TcpStream::connect(target)).await??;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    };
    match passed.await {
        Ok((sent, received)) => debug!("a connection ended: {sent} bytes sent, {received} received"),
        Err(error) => debug!("a connection broke: {error}"),
    }
}

#[cfg(test)]
mod tests;
