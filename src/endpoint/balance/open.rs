//! One client's connection, from its acceptance to its end.
//!
//! ```text
//! dial the first target ─► pass the client's first bytes on ─► the target answers ─► pass bytes, until the end
//!   │ ▲     refused, or silent for 0.2 s: the next one, too         │
//!   │ └───────── it breaks, or turns bad, before its first byte ◄───┘
//!   └─ none, for 8 s: the client is closed
//! ```
//! Nothing is read from the client before a target is connected. Until the target has sent its first byte, the client's
//! bytes are kept: they are the beginning of a TLS handshake, which another target can be sent as well. So a client hears
//! nothing of a target that hangs, or that ends with connections in its queue.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::board::{Board, Lease};
use super::copy;
use crate::base::probe::lacks;
use crate::endpoint::sockets::{LACK_PAUSE, keep};

/// A target that has not accepted by then is not given up, but the next one is dialled beside it.
const HEDGE: Duration = Duration::from_millis(200);
/// After so long without any, the targets are looked at anew.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Between two attempts, unless something is heard of a target before.
const RETRY: Duration = Duration::from_millis(100);
/// For how long a client is kept for which there is no target. Go's clients give a TLS handshake ten seconds.
pub const HOLD: Duration = Duration::from_secs(8);
/// The most that is kept of what a client sends before a target answers. The beginning of a handshake has about 2 KiB.
const FIRST: usize = 16 * 1024;

/// A client, served to its end.
pub async fn serve(board: Arc<Board>, client: TcpStream) {
    if let Err(error) = keep(&client) {
        debug!("a client was gone at once: {error}");
        return;
    }
    // In a box: what it takes for the beginning is given back then.
    let Some((server, lease)) = Box::pin(open(&board, &client)).await else { return };
    lease.is_made();
    tokio::select! {
        biased;
        () = lease.closed() => {}
        ended = copy::both(&client, &server, |bytes| lease.heard(bytes)) => if let Err(error) = ended {
            debug!("a connection to {} broke: {error}", lease.address());
        },
    }
}

/// A target that has begun to answer the client; `None` where the client is to be closed.
async fn open(board: &Arc<Board>, client: &TcpStream) -> Option<(TcpStream, Lease)> {
    let begun = Instant::now();
    let mut beginning = Beginning::default();
    // Where it was tried in vain.
    let mut tried: Vec<SocketAddr> = Vec::new();
    loop {
        let Some((server, lease)) = dial(board, &tried).await else {
            board.count_unserved();
            debug!("no API server could be reached for a client");
            return None;
        };
        match beginning.with(client, &server, &lease).await {
            Begun::Answered => return Some((server, lease)),
            Begun::ClientGone => return None,
            Begun::Closed => {}
            Begun::Broken if begun.elapsed() >= HOLD => return None,
            Begun::Broken => {
                lease.suspect();
                tried.push(lease.address());
            }
        }
        board.count_moved();
    }
}

/// How a connection to a target began.
enum Begun {
    /// Its first byte is there.
    Answered,
    /// It ended without a byte.
    Broken,
    /// It is bad, and another one is good.
    Closed,
    /// Nobody waits any more.
    ClientGone,
}

/// What a client has sent before a target answers.
#[derive(Default)]
struct Beginning {
    bytes: Vec<u8>,
    /// The client will send no more.
    has_ended: bool,
}

impl Beginning {
    /// Passes it on until the target answers.
    async fn with(&mut self, client: &TcpStream, server: &TcpStream, lease: &Lease) -> Begun {
        let (mut sent, mut is_told) = (0, false);
        // More than that is no beginning.
        while self.bytes.len() < FIRST || sent < self.bytes.len() {
            if self.has_ended && sent == self.bytes.len() && !is_told {
                copy::end(server);
                is_told = true;
            }
            let mut answer = [0];
            tokio::select! {
                biased;
                () = lease.passed_on() => return Begun::Closed,
                answered = server.peek(&mut answer) => return match answered {
                    Ok(1) => Begun::Answered,
                    // It was told that there is nothing more, and has nothing to say to it.
                    _ if self.has_ended => Begun::ClientGone,
                    _ => Begun::Broken,
                },
                written = write(server, &self.bytes[sent..]), if sent < self.bytes.len() => match written {
                    Ok(count) => sent += count,
                    Err(_) => return Begun::Broken,
                },
                ready = client.readable(), if !self.has_ended && sent == self.bytes.len() => {
                    if ready.and_then(|()| self.read(client)).is_err() {
                        return Begun::ClientGone;
                    }
                    if self.has_ended && self.bytes.is_empty() {
                        return Begun::ClientGone;
                    }
                }
            }
        }
        Begun::Answered
    }

    fn read(&mut self, client: &TcpStream) -> io::Result<()> {
        let read = copy::read(client, FIRST - self.bytes.len(), |bytes| {
            self.has_ended = bytes.is_empty();
            self.bytes.extend_from_slice(bytes);
        });
        match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            read => read,
        }
    }
}

/// Writes some of it, as soon as any can be.
async fn write(server: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        server.writable().await?;
        match server.try_write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            written => return written,
        }
    }
}

/// A connection to the first target that accepts; `None` when there was none for too long. Those that were tried have
/// their turn again after a while: one that ends may be started anew.
async fn dial(board: &Arc<Board>, tried: &[SocketAddr]) -> Option<(TcpStream, Lease)> {
    let begun = Instant::now();
    loop {
        let mut order = board.order(Instant::now());
        order.retain(|address| begun.elapsed() >= ATTEMPT || !tried.contains(address));
        if let Some(found) = attempt(board, order).await {
            return Some(found);
        }
        if begun.elapsed() >= HOLD {
            return None;
        }
        let _ = timeout(RETRY, board.changed()).await;
    }
}

/// Dials one after the other; who is first to accept is it.
async fn attempt(board: &Arc<Board>, order: Vec<SocketAddr>) -> Option<(TcpStream, Lease)> {
    let end = Instant::now() + ATTEMPT;
    let mut leases = order.into_iter().filter_map(|address| board.lease(address));
    let mut under_way = FuturesUnordered::new();
    let mut next = leases.next();
    loop {
        if let Some(lease) = next.take() {
            under_way.push(async move { (connect(lease.address()).await, lease) });
        }
        if under_way.is_empty() {
            return None;
        }
        tokio::select! {
            biased;
            Some((connected, lease)) = under_way.next() => match connected {
                Ok(server) => return Some((server, lease)),
                // This machine's own trouble says nothing of the target.
                Err(error) if lacks(&error) => sleep(LACK_PAUSE).await,
                Err(_) => lease.suspect(),
            },
            () = sleep(HEDGE) => {}
        }
        if Instant::now() >= end {
            return None;
        }
        next = leases.next();
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let server = TcpStream::connect(address).await?;
    keep(&server)?;
    Ok(server)
}
