//! Makes certificates, with rcgen.

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber, SigningKey,
};
use time::{Duration, OffsetDateTime, UtcOffset};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::parse;
use super::plan::{CaPlan, LeafPlan};
use super::token::random_bytes;
use crate::base::error::{Error, Result};

/// From when until when.
pub(super) struct Validity {
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Validity {
    pub fn new(now: OffsetDateTime, lifetime: std::time::Duration) -> Self {
        let now = now.to_offset(UtcOffset::UTC);
        let lifetime = Duration::try_from(lifetime).unwrap_or(Duration::MAX);
        Self {
            // The clocks of two machines differ: one that is behind must not find it "not yet valid".
            not_before: now.saturating_sub(Duration::minutes(5)),
            not_after: now.saturating_add(lifetime),
        }
    }

    /// The same, but ending with its issuer, after which nobody would trust it anyway.
    pub fn within(self, issuer: OffsetDateTime) -> Self {
        Self { not_after: self.not_after.min(issuer), ..self }
    }

    /// The same from a moment on.
    pub fn from(self, not_before: OffsetDateTime) -> Self {
        Self { not_before, ..self }
    }

    /// The same, but ending after `other`.
    pub fn beyond(self, other: OffsetDateTime) -> Self {
        Self { not_after: self.not_after.max(other.saturating_add(Duration::SECOND)), ..self }
    }
}

/// A new P-256 key.
pub(super) fn new_key() -> Result<KeyPair> {
    KeyPair::generate().map_err(|e| Error::failed("make a key", e))
}

/// A self-signed CA certificate of this common name as PEM.
pub(super) fn ca(plan: CaPlan, common_name: &str, key: &KeyPair, validity: &Validity) -> Result<String> {
    let mut params = params(validity)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(key).map_err(|e| Error::failed(format!("issue {}.crt", plan.stem), e))?;
    Ok(certificate.pem())
}

/// A leaf certificate as DER.
pub(super) fn leaf(
    plan: &LeafPlan,
    key: &KeyPair,
    ca: &X509Certificate<'_>,
    ca_key: &KeyPair,
    validity: &Validity,
) -> Result<Vec<u8>> {
    let failed = |cause: String| Error::failed(format!("issue {}.crt", plan.stem), cause);
    let mut params = params(validity)?;
    name(&mut params, plan).map_err(|error| failed(error.to_string()))?;
    let mut issuer = CertificateParams::default();
    let identifier = ca.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
        _ => None,
    });
    if let Some(identifier) = identifier {
        issuer.key_identifier_method = KeyIdMethod::PreSpecified(identifier);
    }
    let certificate = params.signed_by(key, &Issuer::from_params(&issuer, ca_key));
    let certificate = certificate.map_err(|error| failed(error.to_string()))?;
    named(certificate.der(), ca.subject().as_raw(), ca_key).map_err(failed)
}

/// The certificate `der` with `issuer`, a name in DER, in the place of its issuer's, and signed anew. rcgen writes names by
/// itself, and keeps one of several attributes of a type (`DC=com, DC=example`): no client would find the chain then.
fn named(der: &[u8], issuer: &[u8], key: &KeyPair) -> Result<Vec<u8>, String> {
    let certificate = parse::x509(der)?;
    let (tbs, algorithm) = parse::element(parse::content(der)).ok_or("is not as rcgen writes it")?;
    let (algorithm, _) = parse::element(algorithm).ok_or("is not as rcgen writes it")?;
    let content = parse::content(tbs);
    let old = certificate.issuer().as_raw();
    let at = content.windows(old.len()).position(|window| window == old).ok_or("is not as rcgen writes it")?;
    let tbs = parse::der(0x30, &[&content[..at], issuer, &content[at + old.len()..]]);
    signed(&tbs, algorithm, key)
}

/// A serial number, an algorithm of signatures and a validity, each in DER, for a new certificate of this CA key's.
pub(super) fn parts(key: &KeyPair, validity: &Validity) -> Result<[Vec<u8>; 3]> {
    let failed = |cause: String| Error::failed("issue a certificate", cause);
    // rcgen writes them: the rest of this certificate is nobody's.
    let made = params(validity)?.self_signed(key).map_err(|error| failed(error.to_string()))?;
    let tbs = parse::elements(parse::content(made.der())).next().unwrap_or_default();
    let parts: Vec<_> = parse::elements(parse::content(tbs)).take(5).map(<[u8]>::to_vec).collect();
    match <[Vec<u8>; 5]>::try_from(parts) {
        Ok([_version, serial, algorithm, _issuer, validity]) => Ok([serial, algorithm, validity]),
        Err(_) => Err(failed("it is not as rcgen writes it".into())),
    }
}

/// `tbs`, what a certificate says, with the signature of this CA key.
pub(super) fn signed(tbs: &[u8], algorithm: &[u8], key: &KeyPair) -> Result<Vec<u8>, String> {
    let signature = key.sign(tbs).map_err(|error| error.to_string())?;
    Ok(parse::der(0x30, &[tbs, algorithm, &parse::der(0x03, &[&[0], &signature])]))
}

/// A request for a leaf certificate as PEM.
pub(super) fn request(plan: &LeafPlan, key: &KeyPair) -> Result<String> {
    let failed = |e: rcgen::Error| Error::failed(format!("make {}.csr", plan.stem), e);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    name(&mut params, plan).map_err(failed)?;
    let request = params.serialize_request(key).map_err(failed)?;
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    Ok(pem::encode_config(&Pem::new("CERTIFICATE REQUEST", request.der().as_ref()), config))
}

/// What the plan says of a leaf: its subject, names and usages.
fn name(params: &mut CertificateParams, plan: &LeafPlan) -> Result<(), rcgen::Error> {
    if let Some(organization) = plan.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, &*plan.common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = plan.usages.to_vec();
    for san in &plan.sans {
        params.subject_alt_names.push(match san.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(san.as_str().try_into()?),
        });
    }
    Ok(())
}

fn params(validity: &Validity) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&random_bytes::<16>()?));
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Certificates as one PEM file.
pub(super) fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let blocks: Vec<_> = certificates.into_iter().map(|der| Pem::new("CERTIFICATE", der.as_slice())).collect();
    blocks.iter().map(|block| pem::encode_config(block, config)).collect()
}
