//! The fields of a certificate that hoist reads.

use std::net::IpAddr;

use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName};

use super::parse;
use crate::base::error::{Error, Result};

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// As in `O=system:masters, CN=kubernetes-admin`.
    pub subject: String,
    /// The same of its issuer.
    pub issuer: String,
    /// The serial number in hexadecimal, with colons.
    pub serial: String,
    /// DNS names and IP addresses as they are; other kinds with theirs before a colon.
    pub sans: Vec<String>,
    /// Extended key usages: `serverAuth`, `clientAuth` ...; any other as its object identifier.
    pub ekus: Vec<String>,
    /// From when it is valid.
    pub not_before: OffsetDateTime,
    /// Until when it is valid.
    pub not_after: OffsetDateTime,
    /// Whether it may issue others.
    pub is_ca: bool,
}

/// What the first certificate of a PEM file says. There may be a key in it, too, as in a kubelet's own.
pub fn inspect(pem: &[u8]) -> Result<CertificateInfo> {
    let failed = |cause: String| Error::failed("read a certificate", cause);
    let blocks = pem::parse_many(pem).map_err(|error| failed(error.to_string()))?;
    let certificate = blocks.iter().find(|block| block.tag() == "CERTIFICATE");
    let certificate = certificate.ok_or_else(|| failed("there is none".to_owned()))?;
    let x509 = parse::x509(certificate.contents()).map_err(failed)?;
    Ok(info(&x509))
}

pub(super) fn info(x509: &X509Certificate<'_>) -> CertificateInfo {
    // An extension that cannot be read counts as absent; a leaf of hoist's is then issued anew.
    let sans = x509.subject_alternative_name().ok().flatten();
    let ekus = x509.extended_key_usage().ok().flatten();
    CertificateInfo {
        subject: x509.subject().to_string(),
        issuer: x509.issuer().to_string(),
        serial: x509.raw_serial_as_string(),
        sans: sans.map(|e| e.value.general_names.iter().map(san).collect()).unwrap_or_default(),
        ekus: ekus.map(|e| usages(e.value)).unwrap_or_default(),
        not_before: x509.validity().not_before.to_datetime(),
        not_after: x509.validity().not_after.to_datetime(),
        is_ca: x509.is_ca(),
    }
}

pub(super) fn san(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(octets) => match (<[u8; 4]>::try_from(*octets), <[u8; 16]>::try_from(*octets)) {
            (Ok(v4), _) => IpAddr::from(v4).to_string(),
            (_, Ok(v6)) => IpAddr::from(v6).to_string(),
            _ => format!("IP:{octets:02x?}"),
        },
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::RFC822Name(address) => format!("email:{address}"),
        other => format!("other:{other:?}"),
    }
}

pub(super) fn usages(usage: &ExtendedKeyUsage<'_>) -> Vec<String> {
    let known = [
        (usage.any, "anyExtendedKeyUsage"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let known = known.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned());
    known.chain(usage.other.iter().map(ToString::to_string)).collect()
}
