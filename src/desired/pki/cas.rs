//! Several CAs in one file, of which the first issues, a new CA of the front proxy with the certificate that it issues, and a new one
//! of etcd.

use std::collections::BTreeSet;
use std::time::Duration;

use time::OffsetDateTime;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::parse;
use super::plan::{CaPlan, ETCD_CA, FRONT_PROXY_CA, LeafPlan};
use super::sign::{self, Validity};
use super::token::random_bytes;
use crate::base::error::{Error, Finding, Result};
use crate::base::files;

/// A CA, with its key where that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ca {
    /// Its subject, as [`ca_name`] has it.
    pub name: String,
    /// Its certificate (PEM).
    pub crt: String,
    /// Its key (PEM).
    pub key: Option<String>,
    /// From when on it is valid.
    pub begins: OffsetDateTime,
    /// No other CA stands above it.
    pub is_root: bool,
}

/// The CAs of a PEM file, in its order, with their keys of another; none of what cannot be read.
pub fn cas(crt: &[u8], key: &[u8]) -> Vec<Ca> {
    let (crts, keys) = (blocks(crt), blocks(key));
    let ca = |text: String| {
        let der = parse::certificates("", text.as_bytes()).ok()?.into_iter().next()?;
        let x509 = parse::x509(&der).ok()?;
        let fits = |key: &&String| parse::key("", key.as_bytes()).is_ok_and(|pair| parse::key_fits(&pair, &x509));
        Some(Ca {
            name: name(x509.subject()),
            key: keys.iter().find(fits).cloned(),
            begins: x509.validity().not_before.to_datetime(),
            is_root: x509.issuer().as_raw() == x509.subject().as_raw(),
            crt: text,
        })
    };
    crts.into_iter().filter_map(ca).collect()
}

/// The names of the CAs of a file, in its order.
pub fn ca_names(pem: &[u8]) -> Vec<String> {
    cas(pem, b"").into_iter().map(|ca| ca.name).collect()
}

/// By what one tells that two files of CAs are one cluster's: checksums of the file and of each CA in it. A rotation adds a CA before it
/// takes one away.
pub fn ca_sums(pem: &[u8]) -> BTreeSet<String> {
    let each = cas(pem, b"").into_iter().map(|ca| files::sha256(ca.crt.as_bytes()));
    each.chain([files::sha256(pem)]).collect()
}

/// What a CA with this subject (DER) is called: by its common name where it has nothing else.
pub fn ca_name(subject: &[u8]) -> Option<String> {
    X509Name::from_der(subject).ok().map(|(_, subject)| name(&subject))
}

fn name(subject: &X509Name<'_>) -> String {
    let text = subject.to_string();
    match text.strip_prefix("CN=") {
        Some(rest) if subject.iter().count() == 1 => rest.to_owned(),
        _ => text,
    }
}

/// A new CA of the front proxy, of a name that no other has, and its key, both as PEM.
///
/// # Errors
/// The system has no randomness.
pub fn front_proxy_ca(lifetime: Duration, now: OffsetDateTime) -> Result<(String, String)> {
    another(FRONT_PROXY_CA, lifetime, now)
}

/// The same of etcd.
///
/// # Errors
/// The system has no randomness.
pub fn etcd_ca(lifetime: Duration, now: OffsetDateTime) -> Result<(String, String)> {
    another(ETCD_CA, lifetime, now)
}

fn another(plan: CaPlan, lifetime: Duration, now: OffsetDateTime) -> Result<(String, String)> {
    let key = sign::new_key()?;
    let suffix: String = random_bytes::<4>()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let common_name = format!("{}-{suffix}", plan.common_name);
    Ok((sign::ca(plan, &common_name, &key, &Validity::new(now, lifetime))?, key.serialize_pem()))
}

/// A certificate (PEM) of the front proxy for `key`, by this CA, that ends after `other` if the CA lets it.
///
/// # Errors
/// A CA without its key; a key that cannot be read.
pub fn front_proxy_client(
    key: &[u8],
    ca: &Ca,
    lifetime: Duration,
    now: OffsetDateTime,
    other: OffsetDateTime,
) -> Result<Vec<u8>> {
    let failed = |cause: String| Error::failed("issue front-proxy-client.crt", cause);
    let of = |finding: Finding| failed(finding.to_string());
    let key = parse::key("front-proxy-client.key", key).map_err(of)?;
    let ca_key = ca.key.as_ref().ok_or_else(|| failed(format!("the key of the CA {} is elsewhere", ca.name)))?;
    let ca_key = parse::key("front-proxy-ca.key", ca_key.as_bytes()).map_err(of)?;
    let der = parse::certificates("front-proxy-ca.crt", ca.crt.as_bytes()).map_err(of)?;
    let x509 = parse::x509(der.first().map(Vec::as_slice).unwrap_or_default()).map_err(failed)?;
    let validity = Validity::new(now, lifetime).beyond(other).within(x509.validity().not_after.to_datetime());
    let made = sign::leaf(&LeafPlan::front_proxy_client(), &key, &x509, &ca_key, &validity)?;
    Ok(sign::to_pem(std::iter::once(&made)).into_bytes())
}

/// The blocks of a PEM file, each as a text of its own.
fn blocks(pem: &[u8]) -> Vec<String> {
    let unix = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let blocks = pem::parse_many(pem).unwrap_or_default();
    blocks.iter().map(|block| pem::encode_config(block, unix)).collect()
}
