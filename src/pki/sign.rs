//! Certificates are made here, with rcgen.

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime, UtcOffset};

use super::plan::{CaPlan, LeafPlan};
use super::token::random_bytes;
use crate::error::{Error, Result};

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
}

/// A new P-256 key.
pub(super) fn new_key() -> Result<KeyPair> {
    KeyPair::generate().map_err(|e| Error::failed("make a key", e))
}

/// A self-signed CA certificate as PEM.
pub(super) fn ca(plan: CaPlan, key: &KeyPair, validity: &Validity) -> Result<String> {
    let mut params = params(validity)?;
    params.distinguished_name.push(DnType::CommonName, plan.common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(key).map_err(|e| Error::failed(format!("issue {}.crt", plan.stem), e))?;
    Ok(certificate.pem())
}

/// A leaf certificate as DER.
pub(super) fn leaf(
    plan: &LeafPlan,
    key: &KeyPair,
    issuer: &Issuer<'_, &KeyPair>,
    validity: &Validity,
) -> Result<Vec<u8>> {
    let failed = |e: rcgen::Error| Error::failed(format!("issue {}.crt", plan.stem), e);
    let mut params = params(validity)?;
    name(&mut params, plan).map_err(failed)?;
    let certificate = params.signed_by(key, issuer).map_err(failed)?;
    Ok(certificate.der().to_vec())
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

/// One of the plan's two extended key usages, by the name that `inspect` gives it.
pub(super) fn usage_name(usage: &ExtendedKeyUsagePurpose) -> &'static str {
    match usage {
        ExtendedKeyUsagePurpose::ServerAuth => "serverAuth",
        _ => "clientAuth",
    }
}

/// Certificates as one PEM file.
pub(super) fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let blocks: Vec<_> = certificates.into_iter().map(|der| Pem::new("CERTIFICATE", der.as_slice())).collect();
    blocks.iter().map(|block| pem::encode_config(block, config)).collect()
}
