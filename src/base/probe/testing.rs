//! A TLS server to probe, and to forward to, in tests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// A CA of the test's own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `name`, a host name or an address, and its key.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

struct State {
    name: &'static str,
    answer: Mutex<(u16, String)>,
    requests: Mutex<Vec<String>>,
    after: Mutex<Duration>,
    keeps: AtomicBool,
    hangs: AtomicBool,
    connections: AtomicUsize,
    /// Tells the one who accepts to listen no more.
    deaf: Notify,
}

impl State {
    fn of(name: &'static str) -> Self {
        Self {
            name,
            answer: Mutex::new((200, "ok".into())),
            requests: Mutex::default(),
            after: Mutex::default(),
            keeps: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            deaf: Notify::new(),
        }
    }

    /// Waits while the server hangs.
    async fn thawed(&self) {
        while self.hangs.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Over TLS, answers every GET as it was told to. Over bare TCP, returns each chunk with its name before it
/// ("bridge:chunk"), and "bye" once the client has closed its half.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

impl Server {
    pub(crate) async fn start(name: &'static str, ca: &Authority) -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), name, ca).await
    }

    pub(crate) async fn start_on(addr: SocketAddr, name: &'static str, ca: &Authority) -> Self {
        Self::launch(addr, name, ca, false).await
    }

    pub(crate) async fn start_with_client_auth(name: &'static str, ca: &Authority) -> Self {
        Self::launch(SocketAddr::from(([127, 0, 0, 1], 0)), name, ca, true).await
    }

    async fn launch(addr: SocketAddr, name: &'static str, ca: &Authority, client_auth: bool) -> Self {
        // On the wildcard, so that tests reach it by an address that its certificate does not name.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind(SocketAddr::from(([0, 0, 0, 0], addr.port()))).unwrap();
        let listener = socket.listen(1024).unwrap();
        let addr = SocketAddr::new(addr.ip(), listener.local_addr().unwrap().port());
        let tls = acceptor(ca, client_auth);
        let state = Arc::new(State::of(name));
        let shared = state.clone();
        let accepting = tokio::spawn(async move {
            // Held here, so that they die with the server.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                shared.thawed().await;
                let (stream, _) = tokio::select! {
                    Ok(accepted) = listener.accept() => accepted,
                    () = shared.deaf.notified() => break,
                };
                let (tls, state) = (tls.clone(), shared.clone());
                connections.spawn(async move {
                    // What a client does wrong is no business of the server's.
                    let _ = serve(stream, tls, &state).await;
                });
            }
            drop(listener);
            while connections.join_next().await.is_some() {}
        });
        Self { addr, state, accepting: accepting.abort_handle() }
    }

    /// What to answer from now on.
    pub(crate) fn answer(&self, status: u16, body: &str) {
        *self.state.answer.lock().unwrap() = (status, body.to_owned());
    }

    /// How long it takes for an answer from now on.
    pub(crate) fn answer_after(&self, after: Duration) {
        *self.state.after.lock().unwrap() = after;
    }

    /// From now on a connection serves one request after another.
    pub(crate) fn keep_alive(&self) {
        self.state.keeps.store(true, Ordering::Relaxed);
    }

    /// From now on it answers nobody, as a process that is stopped: the kernel takes connections and bytes. Or it goes on.
    pub(crate) fn hang(&self, hangs: bool) {
        self.state.hangs.store(hangs, Ordering::Relaxed);
    }

    /// From now on it refuses new connections, and serves those that are open.
    pub(crate) fn close_listener(&self) {
        self.state.deaf.notify_one();
    }

    /// How many TLS connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// The request lines seen.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Ends it as SIGKILL would: the port and every connection are gone.
    pub(crate) async fn kill(self) {
        self.accepting.abort();
        while !self.accepting.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn acceptor(ca: &Authority, client_auth: bool) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if client_auth {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let (certificate, key) = ca.issue("127.0.0.1");
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

async fn serve(mut stream: TcpStream, tls: TlsAcceptor, state: &State) -> std::io::Result<()> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first != [0x16] {
        return talk(&mut stream, state).await;
    }
    state.thawed().await;
    let mut stream = tls.accept(stream).await?;
    state.connections.fetch_add(1, Ordering::Relaxed);
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await?);
        }
        let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
        state.requests.lock().unwrap().push(line);
        state.thawed().await;
        let after = *state.after.lock().unwrap();
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        let (status, body) = state.answer.lock().unwrap().clone();
        let busy = if status == 429 { "Retry-After: 7\r\n" } else { "" };
        let response = format!("HTTP/1.1 {status} X\r\n{busy}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(response.as_bytes()).await?;
        if !state.keeps.load(Ordering::Relaxed) {
            return stream.shutdown().await;
        }
    }
}

/// The bare TCP half of [`Server`].
async fn talk(stream: &mut TcpStream, state: &State) -> std::io::Result<()> {
    let mut chunk = [0; 1024];
    loop {
        let count = stream.read(&mut chunk).await?;
        state.thawed().await;
        match count {
            0 => return stream.write_all(b"bye").await,
            n => stream.write_all(&[state.name.as_bytes(), b":", &chunk[..n]].concat()).await?,
        }
    }
}

/// The same of a server that never hangs.
pub(crate) async fn chat(stream: &mut TcpStream, name: &'static str) -> std::io::Result<()> {
    talk(stream, &State::of(name)).await
}
