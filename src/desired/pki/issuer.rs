//! Whether a CA has issued a certificate that is kept elsewhere.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use time::OffsetDateTime;

use super::parse;

/// The certificates of a PEM file that may hold other things, too: as a PEM file of their own.
pub fn certificates_of(pem: &[u8]) -> Vec<u8> {
    let blocks = pem::parse_many(pem).unwrap_or_default();
    let certificates: Vec<_> = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE").collect();
    pem::encode_many(&certificates).into_bytes()
}

/// The first certificate of a PEM file, as a PEM file of its own; empty where there is none.
pub fn first_certificate(pem: &[u8]) -> Vec<u8> {
    let blocks = pem::parse_many(pem).unwrap_or_default();
    let first = blocks.iter().find(|block| block.tag() == "CERTIFICATE");
    first.map(|block| pem::encode(block).into_bytes()).unwrap_or_default()
}

/// Whether one of the CAs in `ca_pem` vouches for the client certificate that is the first in `pem`, at the time `now`.
///
/// # Errors
/// Why not, as a short sentence.
pub fn vouches_for_client(ca_pem: &[u8], pem: &[u8], now: OffsetDateTime) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in der(ca_pem) {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let chain = der(pem);
    let (leaf, others) = chain.split_first().ok_or("there is no certificate in the file")?;
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    verifier.verify_client_cert(leaf, others, now).map(drop).map_err(|error| explain(&error))
}

/// Whether one of the CAs in `ca_pem` has issued the first certificate in `pem`, whatever it is good for.
pub fn is_issued_by(ca_pem: &[u8], pem: &[u8]) -> bool {
    let (cas, chain) = (der(ca_pem), der(pem));
    let Some(Ok(leaf)) = chain.first().map(|leaf| parse::x509(leaf)) else { return false };
    cas.iter().any(|ca| parse::x509(ca).is_ok_and(|ca| parse::issued_by(&leaf, &ca)))
}

fn explain(error: &rustls::Error) -> String {
    use CertificateError::{BadSignature, Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer};
    let rustls::Error::InvalidCertificate(reason) = error else { return error.to_string() };
    match reason {
        // CAs may have one name and different keys: kubeadm's all do.
        UnknownIssuer | BadSignature => "another CA has issued it".into(),
        Expired | ExpiredContext { .. } => "it has expired".into(),
        NotValidYet | NotValidYetContext { .. } => "it is not valid yet".into(),
        other => other.to_string(),
    }
}

fn der(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    let blocks = pem::parse_many(pem).unwrap_or_default();
    let certificates = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE");
    certificates.map(|block| CertificateDer::from(block.into_contents())).collect()
}
