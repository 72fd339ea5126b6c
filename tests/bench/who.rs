//! Which API server answers where, as a process in a node sees it. An API server shows the certificate of its own
//! loopback client, which it makes at each start, to whoever asks for that name: so two instances can be told apart
//! although the cluster's certificate is the same, and through the forwarder, too.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hoist::base::files::sha256;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsConnector;

const INTERVAL: Duration = Duration::from_millis(40);
const LIMIT: Duration = Duration::from_secs(2);
const OWN_NAME: &str = "apiserver-loopback-client";
/// Whoever starts this may be killed; it must not go on for ever.
const LONGEST: Duration = Duration::from_secs(300);

/// One look at all three addresses.
#[derive(Debug, Serialize, Deserialize)]
pub struct Look {
    /// Seconds since 1970.
    pub at: f64,
    pub bridge: Option<Server>,
    pub clients: Option<Server>,
    pub self_hosted: Option<Server>,
}

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// What tells it from all others.
    pub id: String,
    pub ready: bool,
}

/// Who serves clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Bridge,
    SelfHosted,
}

/// Looks again and again, and prints a line each time.
pub async fn watch(clients: SocketAddr) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::disabled();
    let tls = TlsConnector::from(Arc::new(config));
    let begun = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while begun.elapsed() < LONGEST {
        ticks.tick().await;
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let (bridge, clients, self_hosted) = tokio::join!(
            server(&tls, SocketAddr::from(([127, 0, 0, 1], 6444))),
            server(&tls, clients),
            server(&tls, SocketAddr::from(([127, 0, 0, 1], 6443)))
        );
        println!("{}", serde_json::to_string(&Look { at, bridge, clients, self_hosted }).unwrap());
    }
}

async fn server(tls: &TlsConnector, address: SocketAddr) -> Option<Server> {
    tokio::time::timeout(LIMIT, ask(tls, address)).await.ok()?.ok()
}

async fn ask(tls: &TlsConnector, address: SocketAddr) -> std::io::Result<Server> {
    let tcp = TcpStream::connect(address).await?;
    let mut stream = tls.connect(ServerName::try_from(OWN_NAME).unwrap(), tcp).await?;
    let id = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|own| sha256(own));
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    Ok(Server { id: id.unwrap_or_default(), ready: head.ends_with(b" 200") })
}

impl Look {
    /// Who serves clients, given the ids seen at the bridge's own address.
    pub fn who(&self, bridges: &BTreeSet<&str>) -> Option<Who> {
        let server = self.clients.as_ref()?;
        Some(if bridges.contains(&*server.id) { Who::Bridge } else { Who::SelfHosted })
    }
}

/// It is not to be trusted, only to be told from others.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
