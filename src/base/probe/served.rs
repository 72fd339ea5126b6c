//! What a server says of itself in a TLS handshake: the certificate that it presents, including one that should not be trusted, and
//! the CAs whose client certificates it takes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The certificates that the server at `address` shows, as PEM. Nothing is asked of it.
///
/// # Errors
/// Why there are none within `limit`, as one short sentence.
pub async fn served_certificate(address: SocketAddr, limit: Duration) -> Result<Vec<u8>, String> {
    let named = Arc::default();
    let look = async {
        let tls = shake_hands(address, &named).await?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let blocks: Vec<_> = chain.iter().map(|der| pem::Pem::new("CERTIFICATE", der.to_vec())).collect();
        Ok::<_, std::io::Error>(pem::encode_many(&blocks).into_bytes())
    };
    match tokio::time::timeout(limit, look).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}

/// The names (DER) of the CAs whose client certificates the server at `address` takes, in its order; none where it asks for no
/// certificate or names no CA. It says so in the handshake, before it knows who asks.
///
/// # Errors
/// Why it does not say within `limit`, as one short sentence.
pub async fn trusted_cas(address: SocketAddr, limit: Duration) -> Result<Vec<Vec<u8>>, String> {
    let named = Arc::new(Named::default());
    let shaken = tokio::time::timeout(limit, shake_hands(address, &named)).await;
    let found = named.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (found, shaken) {
        // A server that insists on a certificate ends the handshake after that.
        (Some(found), _) => Ok(found),
        (None, Ok(Ok(_))) => Ok(Vec::new()),
        (None, Ok(Err(error))) => Err(error.to_string()),
        (None, Err(_)) => Err("no answer in time".into()),
    }
}

async fn shake_hands(address: SocketAddr, named: &Arc<Named>) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let any = Any(provider.signature_verification_algorithms);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(any))
        .with_client_cert_resolver(named.clone());
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::IpAddress(address.ip().into()), tcp).await
}

/// Shows no certificate, and remembers which ones the server would take.
#[derive(Debug, Default)]
struct Named(Mutex<Option<Vec<Vec<u8>>>>);

impl ResolvesClientCert for Named {
    fn resolve(&self, cas: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let cas = cas.iter().map(|name| name.to_vec()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(cas);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Takes every certificate; that the server has its key is verified all the same.
#[derive(Debug)]
struct Any(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Any {
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
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, Server};
    use super::*;

    #[tokio::test]
    async fn a_certificate_of_a_ca_that_nobody_knows() {
        let server = Server::start("bridge", &Authority::new()).await;
        let pem = served_certificate(server.addr, Duration::from_secs(5)).await.unwrap();
        let info = crate::desired::pki::inspect(&pem).unwrap();
        assert!(info.sans.contains(&"127.0.0.1".to_owned()), "{info:?}");

        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = served_certificate(closed, Duration::from_secs(5)).await;
        assert!(refused.unwrap_err().contains("refused"));
    }

    #[tokio::test]
    async fn a_server_names_the_cas_that_it_trusts_also_where_it_insists_on_a_certificate() {
        let limit = Duration::from_secs(5);
        let ca = Authority::new();
        let insists = Server::start_with_client_auth("a", &ca).await;
        let der = pem::parse(ca.pem()).unwrap();
        let (_, own) = x509_parser::parse_x509_certificate(der.contents()).unwrap();
        assert_eq!(trusted_cas(insists.addr, limit).await.unwrap(), [own.subject().as_raw()]);
        let asks_for_none = Server::start("b", &ca).await;
        assert_eq!(trusted_cas(asks_for_none.addr, limit).await, Ok(Vec::new()));
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(trusted_cas(closed, limit).await.unwrap_err().contains("refused"));
    }
}
