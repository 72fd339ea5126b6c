//! Requests for certificates that are there and are to be renewed by a CA whose key is elsewhere.

use std::collections::BTreeSet;

use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::issuer::certificates_of;
use super::{inspect, parse, sign};
use crate::base::error::{Error, Finding, Result};

/// A request (PEM) for the first certificate in `crt` (PEM) anew, for its `key`: with its subject byte for byte, its names and its
/// usages.
///
/// # Errors
/// Files that are no certificate or key, or do not belong together.
pub fn ask(crt: &[u8], key: &[u8]) -> Result<Vec<u8>> {
    let failed = |cause: String| Error::failed("write a certificate signing request", cause);
    let of_finding = |finding: Finding| failed(finding.to_string());
    let chain = parse::certificates("the certificate", &certificates_of(crt)).map_err(of_finding)?;
    let leaf = parse::x509(chain.first().map(Vec::as_slice).unwrap_or_default()).map_err(failed)?;
    let key = parse::key("its key", key).map_err(of_finding)?;
    if !parse::key_fits(&key, &leaf) {
        return Err(failed(format!("the key is not that of {}", leaf.subject())));
    }
    let info = inspect::info(&leaf);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    for usage in &info.ekus {
        params.extended_key_usages.push(match usage.as_str() {
            "serverAuth" => ExtendedKeyUsagePurpose::ServerAuth,
            "clientAuth" => ExtendedKeyUsagePurpose::ClientAuth,
            // What it has beside is its CA's affair.
            _ => continue,
        });
    }
    for name in &info.sans {
        let name = match name.parse() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => name.as_str().try_into().map(SanType::DnsName),
        };
        params.subject_alt_names.push(name.map_err(|error| failed(error.to_string()))?);
    }
    let made = params.serialize_request(&key).map_err(|error| failed(error.to_string()))?;
    // rcgen keeps one of several attributes of a type: the subject is put in as it is.
    let content = parse::content(made.der());
    let strange = || failed("it is not as rcgen writes it".into());
    let (request, algorithm) = parse::element(content).ok_or_else(strange)?;
    let (algorithm, _) = parse::element(algorithm).ok_or_else(strange)?;
    let parts: Vec<_> = parse::elements(parse::content(request)).collect();
    let [version, _, public_key, attributes @ ..] = &parts[..] else { return Err(strange()) };
    let mut content = vec![*version, leaf.subject().as_raw(), *public_key];
    content.extend(attributes);
    let signed = sign::signed(&parse::der(0x30, &content), algorithm, &key).map_err(failed)?;
    let unix = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    Ok(pem::encode_config(&pem::Pem::new("CERTIFICATE REQUEST", signed), unix).into_bytes())
}

/// Whether `request` (PEM) asks for the first certificate in `crt` (PEM) anew, as [`ask`] does.
pub fn asks_for(request: &[u8], crt: &[u8]) -> bool {
    let chain = parse::certificates("", &certificates_of(crt)).unwrap_or_default();
    let Some(Ok(leaf)) = chain.first().map(|leaf| parse::x509(leaf)) else { return false };
    let Ok(block) = pem::parse(request) else { return false };
    let Ok((_, request)) = X509CertificationRequest::from_der(block.contents()) else { return false };
    let info = &request.certification_request_info;
    let mut names = BTreeSet::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(has) = extension {
            names.extend(has.general_names.iter().map(inspect::san));
        }
    }
    info.subject.as_raw() == leaf.subject().as_raw()
        && info.subject_pki.raw == leaf.public_key().raw
        && names == inspect::info(&leaf).sans.into_iter().collect()
}
