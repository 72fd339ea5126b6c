//! Parses a certificate signing request strictly: a request with an unknown part is rejected, so that nothing is
//! approved unseen.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::FromDer;

use super::inspect;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The common names of its subject.
    pub common_names: Vec<String>,
    /// The organizations of its subject.
    pub organizations: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<std::net::IpAddr>,
}

/// Reads a request (PEM) that asks for nothing but a common name, organizations, DNS names and addresses. Its signature
/// is the API server's to check.
///
/// # Errors
/// What it is, or holds, instead; completes "the request …".
pub fn request(pem: &[u8]) -> Result<Request, String> {
    let block = pem::parse(pem).map_err(|_| "is not PEM text")?;
    if block.tag() != "CERTIFICATE REQUEST" {
        return Err(format!("is a {}", block.tag()));
    }
    let parsed = X509CertificationRequest::from_der(block.contents());
    let ([], request) = parsed.map_err(|error| format!("cannot be read: {error}"))? else {
        return Err("has more behind it".into());
    };
    let info = &request.certification_request_info;
    let mut read = Request::default();
    for part in info.subject.iter_attributes() {
        let text = part.as_str().map_err(|_| "has a subject that is not text")?.to_owned();
        let oid = part.attr_type();
        if *oid == OID_X509_COMMON_NAME {
            read.common_names.push(text);
        } else if *oid == OID_X509_ORGANIZATION_NAME {
            read.organizations.push(text);
        } else {
            return Err(format!("has a subject with more than CN and O: {oid}"));
        }
    }
    let [attribute] = info.attributes() else {
        return Err(format!("has {} attributes, and not just one, its names", info.attributes().len()));
    };
    let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
        return Err(format!("has the attribute {}", attribute.oid));
    };
    let [extension] = &requested.extensions[..] else {
        return Err(format!("asks for {} extensions, and not just one, its names", requested.extensions.len()));
    };
    let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
        return Err(format!("asks for the extension {}", extension.oid));
    };
    for name in &names.general_names {
        match name {
            GeneralName::DNSName(name) => read.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(_) => {
                let text = inspect::san(name);
                read.addresses.push(text.parse().map_err(|_| format!("asks for the address {text}"))?);
            }
            other => return Err(format!("asks for a name of another kind: {}", inspect::san(other))),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};

    use super::*;

    fn made(edit: impl FnOnce(&mut CertificateParams)) -> Result<Request, String> {
        let mut params =
            CertificateParams::new(vec!["w1".to_owned(), "10.0.0.7".to_owned(), "fd00::7".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:w1");
        edit(&mut params);
        request(params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap().as_bytes())
    }

    #[test]
    fn what_a_kubelet_asks_for_is_read() {
        let read = made(|_| ()).unwrap();
        assert_eq!(read.common_names, ["system:node:w1"]);
        assert_eq!(read.organizations, ["system:nodes"]);
        assert_eq!(read.dns_names, ["w1"]);
        assert_eq!(read.addresses, ["10.0.0.7".parse::<std::net::IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
    }

    #[test]
    fn what_holds_more_is_not_understood() {
        let email = SanType::Rfc822Name("a@b.c".try_into().unwrap());
        let uri = SanType::URI("spiffe://a".try_into().unwrap());
        for name in [email, uri] {
            let why = made(|params| params.subject_alt_names.push(name)).unwrap_err();
            assert!(why.contains("another kind"), "{why}");
        }
        let why = made(|params| params.distinguished_name.push(DnType::CountryName, "CH")).unwrap_err();
        assert!(why.contains("more than CN and O"), "{why}");
        let why = made(|params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth)).unwrap_err();
        assert!(why.contains("2 extensions"), "{why}");
        let why = made(|params| params.subject_alt_names.clear()).unwrap_err();
        assert!(why.contains("attributes") || why.contains("extensions"), "{why}");
        for text in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(request(text.as_bytes()).is_err(), "{text}");
        }
    }
}
