//! What forwarders share of sockets: listeners that stand beside the wildcard's, and the detection of connections whose
//! other end is gone.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::num::NonZeroU32;
use std::task::Poll;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// As long as the kernel allows (net.core.somaxconn cuts it).
const BACKLOG: u32 = 65535;
/// An interface that is none: indexes are given out from 1.
const NO_INTERFACE: Option<NonZeroU32> = NonZeroU32::new(i32::MAX as u32);

/// The pause after accept() or connect() failed, which they do when this machine is out of files or memory.
pub(super) const LACK_PAUSE: Duration = Duration::from_millis(50);

/// A connection at rest is asked after so long whether its other end is still there, and again in such intervals.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;
/// The same for one whose data is not acknowledged: the two end alike. Kubernetes' clients are sooner: theirs hold a
/// connection for lost after 45 s without a sign (30 s, and 15 s for the answer to a ping). So a client that still wants
/// its connection never loses it by this.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Lets the open connections end, and cuts those that have not within `limit`.
pub(super) async fn drain(connections: &mut JoinSet<()>, limit: Duration) {
    while connections.try_join_next().is_some() {}
    if !connections.is_empty() {
        info!("waiting for {} open connections to end", connections.len());
    }
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(limit, all_ended).await.is_err() {
        info!("cutting {} connections that are still open", connections.len());
        connections.shutdown().await;
    }
}

/// Where connections are taken besides the controller's own address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Also {
    /// Addresses that this machine may have, now or later.
    pub addresses: Vec<SocketAddr>,
    /// Every address that this machine has, but loopback's.
    pub every: bool,
}

impl Also {
    /// All of them, now; `listen` is the controller's own.
    fn wanted(&self, listen: SocketAddr) -> Vec<SocketAddr> {
        let mut wanted = self.addresses.clone();
        if self.every {
            let others = addresses().into_iter().filter(|address| !address.is_loopback());
            wanted.extend(others.map(|address| SocketAddr::new(address, listen.port())));
        }
        wanted.retain(|address| *address != listen && !address.ip().is_unspecified());
        wanted
    }
}

/// The addresses of this machine that others could reach it at.
fn addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| {
            let ip = storage.as_sockaddr_in6()?.ip();
            // It would take an interface, too.
            (!ip.is_unicast_link_local()).then_some(IpAddr::V6(ip))
        })
    };
    interfaces.filter_map(address).collect()
}

/// The listeners of one forwarder: they come, step aside and go together.
pub(super) struct Listeners {
    first: (SocketAddr, TcpListener),
    others: Vec<(SocketAddr, TcpListener)>,
    /// Why one of the others cannot be had.
    obstacles: BTreeMap<SocketAddr, String>,
    next: usize,
}

impl Listeners {
    /// Binds the controller's own address, which must be had, and what others can be had.
    ///
    /// # Errors
    /// Why the controller's own cannot.
    pub(super) fn bind(listen: SocketAddr, also: &Also) -> io::Result<Self> {
        let first = (listen, bind(listen)?);
        let mut listeners = Self { first, others: Vec::new(), obstacles: BTreeMap::new(), next: 0 };
        listeners.extend(also);
        Ok(listeners)
    }

    /// Binds those of the others that are not bound yet.
    pub(super) fn extend(&mut self, also: &Also) {
        for address in also.wanted(self.first.0) {
            if self.others.iter().any(|(there, _)| *there == address) {
                continue;
            }
            match bind(address) {
                Ok(listener) => {
                    info!("{address} leads there, too");
                    self.obstacles.remove(&address);
                    self.others.push((address, listener));
                }
                Err(error) => {
                    let error = error.to_string();
                    if self.obstacles.get(&address) != Some(&error) {
                        warn!("cannot bind {address}, still trying: {error}");
                        self.obstacles.insert(address, error);
                    }
                }
            }
        }
    }

    /// The next connection at any of them.
    ///
    /// # Errors
    /// The system's refusal to hand one out.
    pub(super) async fn accept(&mut self) -> io::Result<TcpStream> {
        let count = self.others.len() + 1;
        // Each has its turn, however busy another is.
        self.next = (self.next + 1) % count;
        poll_fn(|context| {
            for turn in 0..count {
                let at = (self.next + turn) % count;
                let listener = if at == 0 { &self.first.1 } else { &self.others[at - 1].1 };
                if let Poll::Ready(accepted) = listener.poll_accept(context) {
                    return Poll::Ready(accepted.map(|(client, _)| client));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Makes the kernel pass them over for new connections, while they still complete and hand out those they have.
    ///
    /// A listener that is bound to an interface is only looked at for packets that come in there, and nothing comes in at
    /// an interface that does not exist. Handshakes under way are found by their own addresses and are not affected.
    ///
    /// # Errors
    /// Linux before 5.7, or a seccomp filter.
    pub(super) fn step_aside(&self) -> io::Result<()> {
        // On Linux one option serves both families, in spite of the name.
        let aside =
            |(_, listener): &(SocketAddr, TcpListener)| SockRef::from(listener).bind_device_by_index_v4(NO_INTERFACE);
        // All of them in any case: each that does is one less to lose connections.
        let all: Vec<_> = [&self.first].into_iter().chain(&self.others).map(aside).collect();
        all.into_iter().collect()
    }

    /// All of them.
    pub(super) fn into_all(self) -> impl Iterator<Item = TcpListener> {
        [self.first].into_iter().chain(self.others).map(|(_, listener)| listener)
    }
}

/// The next connection, however long it takes.
pub(super) async fn accept(listeners: &mut Listeners) -> TcpStream {
    let mut failed = false;
    loop {
        match listeners.accept().await {
            Ok(client) => return client,
            Err(error) => {
                if !std::mem::replace(&mut failed, true) {
                    warn!("cannot accept, still trying: {error}");
                }
                sleep(LACK_PAUSE).await;
            }
        }
    }
}

/// A connection that is queued at a listener, and none that is not.
pub(super) fn queued(listener: &StdListener) -> Option<TcpStream> {
    loop {
        let client = listener.accept().and_then(|(client, _)| {
            client.set_nonblocking(true)?;
            TcpStream::from_std(client)
        });
        match client {
            Ok(client) => return Some(client),
            // One that gave up while it was queued; there may be more behind it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => return None,
        }
    }
}

/// Listens at `addr` beside the wildcard, also while this machine does not have that address: it may come, and go.
pub(super) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // What lets it stand beside the wildcard listener; both must be of one uid.
    socket.set_reuseport(true)?;
    let any = SockRef::from(&socket);
    if addr.is_ipv4() { any.set_freebind_v4(true) } else { any.set_freebind_v6(true) }?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Has the kernel end a connection whose other end is gone without a word, and never send small pieces late.
pub(super) fn keep(connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let socket = SockRef::from(connection);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE);
    socket.set_tcp_keepalive(&keepalive.with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_COUNT))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_whose_other_end_is_gone_is_noticed() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        keep(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_COUNT);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
        // With both set, the kernel goes by the second: they must agree.
        assert_eq!(KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_COUNT, UNACKNOWLEDGED);
    }

    #[tokio::test]
    async fn an_address_that_this_machine_lacks_can_be_had() {
        bind(SocketAddr::from(([192, 0, 2, 77], 0))).unwrap();
    }

    #[test]
    fn loopback_and_the_wildcard_belong_to_others() {
        let listen = SocketAddr::from(([192, 0, 2, 1], 6443));
        let also = |addresses: &[&str], every| Also {
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            every,
        };
        let explicit = also(&["192.0.2.1:6443", "0.0.0.0:6443", "192.0.2.9:6443"], false);
        assert_eq!(explicit.wanted(listen), ["192.0.2.9:6443".parse().unwrap()]);
        let every = also(&[], true).wanted(listen);
        assert!(every.iter().all(|address| !address.ip().is_loopback() && address.port() == 6443), "{every:?}");
    }
}
