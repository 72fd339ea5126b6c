//! One request on one new TLS connection, without any retry: what a client that just comes along sees.
//!
//! Of its own, not hoist's probe: the one who measures must not share the mistakes of what is measured.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one request may take, if nothing else is said.
const LIMIT: Duration = Duration::from_secs(10);

/// A response: its status code and its body.
pub type Response = (u16, Bytes);

#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    address: SocketAddr,
    /// What it shows in place of a certificate.
    token: Option<String>,
    /// How long one request may take.
    limit: Duration,
}

impl Client {
    /// A client of the API server at `address` with the administrator's certificate of an asset directory.
    pub fn new(asset_dir: &Path, address: SocketAddr) -> Self {
        let tls = asset_dir.join("tls");
        let read = |name: &str| std::fs::read(tls.join(name)).unwrap();
        Self::with_certificate(&read("ca.crt"), &read("admin.crt"), &read("admin.key"), address)
    }

    /// The same with PEM files that came from elsewhere.
    pub fn with_certificate(ca: &[u8], certificate: &[u8], key: &[u8], address: SocketAddr) -> Self {
        let certificates = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect::<Vec<_>>();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(ca));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key).unwrap();
        let mut config =
            builder.with_root_certificates(roots).with_client_auth_cert(certificates(certificate), key).unwrap();
        config.resumption = Resumption::disabled();
        Self { tls: TlsConnector::from(Arc::new(config)), address, token: None, limit: LIMIT }
    }

    /// The same with a token, and no certificate.
    pub fn with_token(ca: &[u8], token: &str, address: SocketAddr) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(ca).map(Result::unwrap));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Self { tls: TlsConnector::from(Arc::new(config)), address, token: Some(token.to_owned()), limit: LIMIT }
    }

    /// It with another time that a request may take.
    pub fn patient(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    pub async fn get(&self, path: &str) -> Result<Response, String> {
        self.request("GET", path, String::new()).await
    }

    pub async fn post(&self, path: &str, json: String) -> Result<Response, String> {
        self.request("POST", path, json).await
    }

    async fn request(&self, method: &str, path: &str, body: String) -> Result<Response, String> {
        match tokio::time::timeout(self.limit, self.exchange(method, path, body)).await {
            Ok(answer) => answer.map_err(|error| chain(&*error)),
            Err(_) => Err(format!("no answer within {:?}", self.limit)),
        }
    }

    async fn exchange(&self, method: &str, path: &str, body: String) -> Result<Response, Box<dyn Error>> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let tls = self.tls.connect(ServerName::IpAddress(self.address.ip().into()), tcp).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close");
        let request = match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        let request = request.body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((status, body))
    }
}

/// An error with all its causes: the outermost alone says too little.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// A runtime of one thread, for clients that live in a thread of their own.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
