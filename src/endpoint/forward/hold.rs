//! Holds connections until an API server serves.
//!
//! A refused client retries in ever longer intervals, so a kubelet that starts together with the API server would be
//! idle for seconds after the API server is ready. If nothing listens at the address, the forwarder therefore accepts
//! at once and keeps the connections, unread, for the first API server that is ready: the bridge or, if it starts by
//! itself, the self-hosted one.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::{READY_INTERVAL, READY_LIMIT};
use crate::base::probe::Probe;
use crate::endpoint::sockets::{Listeners, accept};

/// For how long altogether: an API server that is not ready by then may never be, and its clients must hear so.
pub(super) const HOLD_LIMIT: Duration = Duration::from_secs(15);
/// For how long one connection is kept. Go's clients give a TLS handshake ten seconds.
const KEPT_LIMIT: Duration = Duration::from_secs(8);
/// How many are kept.
const KEPT: usize = 1024;

/// Whether nobody listens at `addr`, not on the wildcard either.
pub(super) async fn is_deserted(addr: SocketAddr) -> bool {
    let answer = timeout(READY_LIMIT, TcpStream::connect(addr)).await;
    matches!(answer, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Where the self-hosted API server is asked that shares the port of `listen`.
pub(super) fn beside(listen: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    SocketAddr::new(loopback, listen.port())
}

/// Keeps connections until one of `servers` is ready or the time is up: who that is, and what was kept for it. Where
/// there is no room for more, they wait in the kernel's queue.
pub(super) async fn hold(
    listeners: &mut Listeners,
    probe: &Probe,
    servers: [SocketAddr; 2],
    room: usize,
) -> (Option<SocketAddr>, Vec<TcpStream>) {
    let mut kept: VecDeque<(Instant, TcpStream)> = VecDeque::new();
    let first = async {
        tokio::select! {
            biased;
            () = ready(probe, servers[0]) => servers[0],
            () = ready(probe, servers[1]) => servers[1],
        }
    };
    let mut first = std::pin::pin!(timeout(HOLD_LIMIT, first));
    let server = loop {
        tokio::select! {
            biased;
            server = &mut first => break server.ok(),
            client = accept(listeners), if kept.len() < KEPT.min(room) => {
                kept.push_back((Instant::now() + KEPT_LIMIT, client));
            }
            () = expire(kept.front().map(|(end, _)| *end)) => drop(kept.pop_front()),
        }
    };
    (server, kept.into_iter().map(|(_, client)| client).collect())
}

/// Completes when a server says that it is ready.
async fn ready(probe: &Probe, server: SocketAddr) {
    while !probe.get(server, "/readyz", READY_LIMIT).await.is_ready() {
        sleep(READY_INTERVAL).await;
    }
}

async fn expire(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
