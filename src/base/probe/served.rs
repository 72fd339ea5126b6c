//! The certificate that a server presents, including one that should not be trusted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The certificates that the server at `address` shows, as PEM. Nothing is asked of it.
///
/// # Errors
/// Why there are none within `limit`, as one short sentence.
pub async fn served_certificate(address: SocketAddr, limit: Duration) -> Result<Vec<u8>, String> {
    let look = async {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let any = Any(provider.signature_verification_algorithms);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(any))
            .with_no_client_auth();
        let tcp = TcpStream::connect(address).await?;
        let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::IpAddress(address.ip().into()), tcp).await?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let blocks: Vec<_> = chain.iter().map(|der| pem::Pem::new("CERTIFICATE", der.to_vec())).collect();
        Ok::<_, std::io::Error>(pem::encode_many(&blocks).into_bytes())
    };
    match tokio::time::timeout(limit, look).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".into()),
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
}
