//! Before an address leaves this machine: new connections to it are kept waiting, while open ones end what they are at.
//!
//! A connection cannot follow an address to another machine. So what is asked here is answered here first; whoever comes
//! meanwhile gets no answer, asks again as TCP does, after a second, and finds the address where it is then.
//!
//! ```text
//! SYN to ADDRESS:6443 at eth0 ─► this listener, bound to eth0 ─► dropped by its filter
//! everything else             ─► the connection that it belongs to
//! ```
//! Of several listeners the kernel takes the one that is bound to the interface. Handshakes under way are found by their own
//! addresses, and end where they began.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpSocket};

use crate::node::interfaces;

/// BPF's "return", with how many bytes of a packet are kept: none of any.
const DROP_ALL: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

/// As long as it is there, no new connection is made to one address from outside.
#[derive(Debug)]
pub struct Quiet {
    _listeners: Vec<TcpListener>,
}

/// Whether this machine has the address.
pub fn is_here(address: IpAddr) -> bool {
    !interfaces(address).is_empty()
}

impl Quiet {
    /// Keeps new connections to `at` waiting that come in where this machine has the address. Must be called in a runtime.
    ///
    /// # Errors
    /// Linux before 5.7; a listener of another user's.
    pub fn begin(at: SocketAddr) -> io::Result<Self> {
        let listeners =
            interfaces(at.ip()).iter().map(|interface| listener(at, interface)).collect::<io::Result<_>>()?;
        Ok(Self { _listeners: listeners })
    }
}

/// The interfaces at which this machine has the address.
fn interfaces(address: IpAddr) -> Vec<String> {
    let all = interfaces::addresses().into_iter().flatten();
    all.filter(|(_, has)| *has == address).map(|(name, _)| name).collect()
}

fn listener(at: SocketAddr, interface: &str) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    let any = SockRef::from(&socket);
    any.bind_device(Some(interface.as_bytes()))?;
    // Before it listens: it must take nobody in.
    any.attach_filter(&DROP_ALL)?;
    socket.bind(at)?;
    socket.listen(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;
    use crate::endpoint::sockets;

    #[tokio::test]
    async fn new_connections_wait_and_open_ones_go_on() {
        let listener = sockets::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let at = listener.local_addr().unwrap();
        assert!(is_here(at.ip()) && !is_here([192, 0, 2, 77].into()));
        let mut client = TcpStream::connect(at).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();

        let quiet = Quiet::begin(at).unwrap();
        let mut late = Box::pin(TcpStream::connect(at));
        assert!(timeout(Duration::from_millis(300), &mut late).await.is_err(), "it is not answered, nor refused");
        client.write_all(b"ask").await.unwrap();
        let mut heard = [0; 3];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ask");

        drop(quiet);
        late.await.unwrap();
        listener.accept().await.unwrap();
    }
}
