//! Evidence that one instance of an API server answers.
//!
//! An open port proves nothing: an API server binds its port seconds before it serves, and a connection kept from
//! earlier may lead to another instance that shares the address. So every [`Probe::get`] dials anew, verifies the
//! server's certificate for the very address it dialled, and tells apart the ways in which it may fail.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::base::error::{Error, Result};

mod keeping;
mod kept;
mod served;

pub use keeping::Keeping;
pub use kept::Kept;
pub use served::{served_certificate, trusted_cas};

/// How much of a body an [`Answer`] keeps.
const BODY_HEAD: usize = 4096;

/// How much of a body [`Answer`]'s Display shows.
const SUMMARY: usize = 200;

/// Between two tries to ask on a machine that lacks something for it.
pub const LACK_PAUSE: Duration = Duration::from_millis(50);

/// What came of one request on one new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing listens there.
    Refused,
    /// The time given was over before an answer was complete.
    TimedOut,
    /// The connection broke: reset, closed too early.
    Broken(String),
    /// The network has no way to it, as to a machine that is off.
    Unreachable(String),
    /// This machine could not ask: it was out of files, memory or ports. That says nothing of who was to be asked.
    NotAsked(String),
    /// Something listens, but the two sides do not agree on TLS: a foreign CA, another address, an expired certificate.
    Tls(String),
    /// An HTTP response.
    Http {
        /// Its status code.
        status: u16,
        /// The first 4 KiB of its body.
        body: String,
    },
}

impl Answer {
    /// Whether it is a 200, which is how an API server says that it is ready.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Http { status: 200, .. })
    }

    /// Whether it says that it is shutting down: it serves for some seconds more.
    pub fn is_shutting_down(&self) -> bool {
        matches!(self, Self::Http { body, .. } if body.lines().any(|line| line.starts_with("[-]shutdown")))
    }

    /// Whether a TLS server was there to answer, whatever it said.
    pub fn is_answered(&self) -> bool {
        matches!(self, Self::Http { .. } | Self::Tls(_))
    }

    /// Whether it was asked, and nobody answered.
    pub fn is_missed(&self) -> bool {
        !self.is_answered() && !matches!(self, Self::NotAsked(_))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Broken(reason) | Self::Unreachable(reason) => f.write_str(reason),
            Self::NotAsked(reason) => write!(f, "this machine could not ask: {reason}"),
            Self::Tls(reason) => write!(f, "TLS: {reason}"),
            Self::Http { status, body } => match summary(body) {
                text if text.is_empty() => write!(f, "{status}"),
                text => write!(f, "{status}: {text}"),
            },
        }
    }
}

/// The telling part of a body, as one short line: the checks that failed, the message of a Status, or the first line.
fn summary(body: &str) -> String {
    let failed: Vec<&str> = body
        .lines()
        .filter(|line| line.starts_with("[-]"))
        .map(|line| line.strip_suffix(": reason withheld").unwrap_or(line))
        .collect();
    let status = serde_json::from_str::<serde_json::Value>(body).ok();
    let message = status.as_ref().and_then(|status| status.get("message")?.as_str());
    let text = match message {
        Some(message) => message.to_owned(),
        None if failed.is_empty() => body.lines().next().unwrap_or_default().to_owned(),
        None => failed.join(", "),
    };
    // The text ends on a terminal, and it comes from the network.
    let mut clean: String = text.chars().filter(|c| !c.is_control()).take(SUMMARY + 1).collect();
    if let Some((end, _)) = clean.char_indices().nth(SUMMARY) {
        clean.truncate(end);
        clean.push('…');
    }
    clean
}

/// Asks API servers that one CA vouches for.
#[derive(Clone)]
pub struct Probe {
    tls: TlsConnector,
}

impl Probe {
    /// A probe without a client identity: enough for /livez, /readyz and /version.
    pub fn new(ca_pem: &[u8]) -> Result<Self> {
        Ok(Self { tls: connector(ca_pem, None, b"http/1.1")? })
    }

    /// A probe that presents a client certificate.
    pub fn with_identity(ca_pem: &[u8], certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self> {
        Ok(Self { tls: connector(ca_pem, Some((certificate_pem, key_pem)), b"http/1.1")? })
    }

    /// One GET on a connection of its own, answered or given up within `limit`. What this machine lacks for it at first it
    /// may have a moment later.
    pub async fn get(&self, addr: SocketAddr, path: &str, limit: Duration) -> Answer {
        let mut lacked = None;
        let ask = async {
            loop {
                match self.exchange(addr, path).await {
                    Ok(answer) => return answer,
                    Err(error) => match classify(&*error) {
                        lack @ Answer::NotAsked(_) => lacked = Some(lack),
                        answer => return answer,
                    },
                }
                tokio::time::sleep(LACK_PAUSE).await;
                lacked = None;
            }
        };
        let answer = tokio::time::timeout(limit, ask).await;
        answer.unwrap_or_else(|_| lacked.unwrap_or(Answer::TimedOut))
    }

    async fn exchange(&self, addr: SocketAddr, path: &str) -> Result<Answer, Box<dyn StdError + Send + Sync>> {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let tls = self.tls.connect(ServerName::IpAddress(addr.ip().into()), tcp).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        let request = Request::get(path)
            .header(header::HOST, addr.to_string())
            .header(header::USER_AGENT, concat!("hoist/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let mut answer = pin!(async { read(sender.send_request(request).await?).await });
        // The connection is driven here, not in a task, so that nothing outlives the time limit.
        tokio::select! {
            biased;
            answer = &mut answer => Ok(answer?),
            closed = connection => {
                closed?;
                Ok(answer.await?)
            }
        }
    }
}

/// TLS for clients that trust `roots` alone and, if they have an identity, show its certificate (PEM; and its key).
pub(crate) fn client_config(
    roots: impl IntoIterator<Item = CertificateDer<'static>>,
    identity: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig> {
    let mut trusted = RootCertStore::empty();
    for certificate in roots {
        trusted.add(certificate).map_err(|e| Error::failed("use the CA certificate", e))?;
    }
    // Named here, so that it does not matter whether the process has installed a default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::failed("set up TLS", e))?
        .with_root_certificates(trusted);
    let Some((certificate, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates("the client certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| Error::failed("read the client key", e))?;
    builder.with_client_auth_cert(chain, key).map_err(|e| Error::failed("use the client certificate", e))
}

/// The status and the head of the body.
async fn read(response: Response<Incoming>) -> hyper::Result<Answer> {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut head = Vec::new();
    while head.len() < BODY_HEAD
        && let Some(frame) = body.frame().await
    {
        head.extend_from_slice(frame?.data_ref().map_or(&[], |data| data));
    }
    head.truncate(BODY_HEAD);
    Ok(Answer::Http { status, body: String::from_utf8_lossy(&head).into_owned() })
}

/// The answer that an error stands for: found in its chain of causes, where the outermost says least.
fn classify(error: &(dyn StdError + 'static)) -> Answer {
    let mut reason = error.to_string();
    let mut next = Some(error);
    while let Some(error) = next {
        reason = error.to_string();
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Answer::Tls(tls.to_string());
        }
        next = match error.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => return Answer::Refused,
            Some(io) if matches!(io.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                return Answer::Unreachable(io.to_string());
            }
            Some(io) if lacks(io) => return Answer::NotAsked(io.to_string()),
            // An io::Error hides what it wraps from source(), and shows its source's source.
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    Answer::Broken(reason)
}

/// Whether an error is this machine's own: it is out of files, memory or ports. It says nothing of the other side.
pub fn lacks(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let own = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| own.contains(&Errno::from_raw(code)))
}

/// What makes TLS connections that speak `protocol` to servers for which one of the CAs in `ca_pem` vouches; `identity`
/// is a client certificate and its key.
pub(crate) fn connector(ca_pem: &[u8], identity: Option<(&[u8], &[u8])>, protocol: &[u8]) -> Result<TlsConnector> {
    let mut config = client_config(certificates("the CA certificate", ca_pem)?, identity)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    // A resumed session would vouch for a server by what an earlier connection saw.
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let action = format!("read {what}");
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::failed(action.as_str(), e))?;
    if found.is_empty() { Err(Error::failed(action, "there is no certificate in it")) } else { Ok(found) }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::testing::{Authority, Server};
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_status_and_its_body_are_told() {
        let ca = Authority::new();
        let server = Server::start("bridge", &ca).await;
        let probe = Probe::new(ca.pem().as_bytes()).unwrap();

        let body = "[+]ping ok\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\nreadyz check failed\n";
        server.answer(500, body);
        let answer = probe.get(server.addr, "/readyz", LIMIT).await;
        assert_eq!(answer, Answer::Http { status: 500, body: body.into() });
        assert!(answer.is_answered() && !answer.is_ready());
        assert_eq!(answer.to_string(), "500: [-]poststarthook/rbac/bootstrap-roles failed");

        server.answer(200, "ok");
        let answer = probe.get(server.addr, "/readyz", LIMIT).await;
        assert!(answer.is_ready());
        assert_eq!(server.requests(), ["GET /readyz HTTP/1.1", "GET /readyz HTTP/1.1"]);
    }

    #[tokio::test]
    async fn a_long_body_is_cut() {
        let ca = Authority::new();
        let server = Server::start("bridge", &ca).await;
        server.answer(200, &"x".repeat(100_000));
        let answer = Probe::new(ca.pem().as_bytes()).unwrap().get(server.addr, "/", LIMIT).await;
        let Answer::Http { body, .. } = &answer else { panic!("{answer}") };
        assert_eq!(body.len(), BODY_HEAD);
        assert_eq!(answer.to_string().chars().count(), "200: ".len() + SUMMARY + 1);
    }

    #[tokio::test]
    async fn refusal_silence_and_a_broken_connection_differ() {
        let ca = Authority::new();
        let probe = Probe::new(ca.pem().as_bytes()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        assert_eq!(probe.get(addr, "/readyz", Duration::from_millis(100)).await, Answer::TimedOut);

        let closing = std::thread::spawn(move || {
            // The first connection is the one that timed out.
            drop(listener.accept().unwrap());
            drop(listener.accept().unwrap());
        });
        let answer = probe.get(addr, "/readyz", LIMIT).await;
        assert!(matches!(answer, Answer::Broken(_)), "{answer:?}");
        assert!(!answer.is_answered());
        closing.join().unwrap();
        assert_eq!(probe.get(addr, "/readyz", LIMIT).await, Answer::Refused);
    }

    #[tokio::test]
    async fn the_certificate_must_be_of_the_ca_and_of_the_address() {
        let ca = Authority::new();
        let server = Server::start("bridge", &ca).await;
        let foreign = Probe::new(Authority::new().pem().as_bytes()).unwrap();
        let answer = foreign.get(server.addr, "/readyz", LIMIT).await;
        assert!(matches!(&answer, Answer::Tls(reason) if reason.contains("certificate")), "{answer:?}");

        // The server listens on every address; its certificate is for 127.0.0.1.
        let other = SocketAddr::from(([127, 0, 0, 2], server.addr.port()));
        let answer = Probe::new(ca.pem().as_bytes()).unwrap().get(other, "/readyz", LIMIT).await;
        assert!(matches!(answer, Answer::Tls(_)), "{answer:?}");
    }

    #[tokio::test]
    async fn an_identity_is_presented_where_one_is_asked_for() {
        let ca = Authority::new();
        let server = Server::start_with_client_auth("bridge", &ca).await;
        let anonymous = Probe::new(ca.pem().as_bytes()).unwrap().get(server.addr, "/readyz", LIMIT).await;
        assert!(matches!(anonymous, Answer::Tls(_)), "{anonymous:?}");

        let (certificate, key) = ca.issue("client");
        let probe = Probe::with_identity(ca.pem().as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap();
        assert!(probe.get(server.addr, "/readyz", LIMIT).await.is_ready());
    }

    #[test]
    fn what_this_machine_lacks_says_nothing_of_the_other() {
        use nix::errno::Errno;
        for code in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EADDRNOTAVAIL] {
            let answer = classify(&io::Error::from(code));
            assert!(matches!(answer, Answer::NotAsked(_)), "{answer:?}");
            assert!(!answer.is_answered() && !answer.is_missed() && !answer.is_ready());
        }
        let answer = classify(&io::Error::from(Errno::ECONNRESET));
        assert!(matches!(answer, Answer::Broken(_)) && answer.is_missed(), "{answer:?}");
        for code in [Errno::EHOSTUNREACH, Errno::ENETUNREACH] {
            let answer = classify(&io::Error::from(code));
            assert!(matches!(answer, Answer::Unreachable(_)) && answer.is_missed(), "{answer:?}");
        }
        assert!(Answer::Refused.is_missed() && Answer::TimedOut.is_missed());
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(Probe::new(b"").is_err());
        assert!(Probe::new(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }

    #[test]
    fn the_summary_is_one_safe_line() {
        let status = r#"{"kind":"Status","message":"forbidden: User \"system:anonymous\"","code":403}"#;
        assert_eq!(summary(status), "forbidden: User \"system:anonymous\"");
        assert_eq!(summary("ok\nmore"), "ok");
        assert_eq!(summary("\u{1b}[31mred"), "[31mred");
        assert_eq!(Answer::Http { status: 404, body: String::new() }.to_string(), "404");
    }
}
