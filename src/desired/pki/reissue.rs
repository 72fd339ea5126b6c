//! A leaf's successor: the same certificate with another serial number and a later end.

use rcgen::KeyPair;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::cas::Ca;
use super::issuer::certificates_of;
use super::sign::{self, Validity};
use super::{inspect, parse};
use crate::base::error::{Error, Result};

/// The object identifier of the extension that says by which key the issuer signs (RFC 5280, 4.2.1.1), in DER.
const AUTHORITY_KEY: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x23];

/// The leaf of `crt` (PEM) anew, signed by `ca_key` for `ca_crt`: it ends `lifetime` from `now` on, and not after its CA. It begins
/// as the old one does, so that one that was made by a clock that was ahead is valid once that is corrected. The subject, the names, the usages and the key are those of the old one byte by byte, the serial number is random, and
/// what stands behind the leaf in the file stays.
///
/// # Errors
/// A leaf that this CA has not issued, files that are no certificate or key.
pub fn reissue(
    crt: &[u8],
    ca_crt: &[u8],
    ca_key: &[u8],
    lifetime: std::time::Duration,
    now: OffsetDateTime,
) -> Result<Vec<u8>> {
    let failed = |cause: String| Error::failed("renew a certificate", cause);
    let of_finding = |finding: crate::base::error::Finding| failed(finding.to_string());
    let chain = parse::certificates("the certificate", crt).map_err(of_finding)?;
    let cas = parse::certificates("its CA", ca_crt).map_err(of_finding)?;
    let key = parse::key("its CA's key", ca_key).map_err(of_finding)?;
    let (old, behind) = chain.split_first().ok_or_else(|| failed("there is none".into()))?;
    let (leaf, ca) = (parse::x509(old).map_err(failed)?, cas.first().ok_or_else(|| failed("there is no CA".into()))?);
    let ca = parse::x509(ca).map_err(failed)?;
    if !parse::issued_by(&leaf, &ca) || !parse::key_fits(&key, &ca) {
        return Err(failed(format!("{} was issued by another CA than {}", leaf.subject(), ca.subject())));
    }
    let begins = leaf.validity().not_before.to_datetime();
    let validity = Validity::new(now, lifetime).within(ca.validity().not_after.to_datetime()).from(begins);
    let made = successor(old, None, &key, &validity)?;
    Ok(sign::to_pem(std::iter::once(&made).chain(behind)).into_bytes())
}

/// The leaf of `crt` (PEM) anew, by another CA than the one that has issued it. It is of the same key, subject, names and usages, and
/// ends after the old one if the CA lets it: whoever keeps the one that ends last keeps this. Nothing stands behind it.
///
/// # Errors
/// A CA without its key; what is no certificate.
pub fn reissue_by(crt: &[u8], ca: &Ca, lifetime: std::time::Duration, now: OffsetDateTime) -> Result<Vec<u8>> {
    let failed = |cause: String| Error::failed(format!("issue a certificate by the CA {}", ca.name), cause);
    let of_finding = |finding: crate::base::error::Finding| failed(finding.to_string());
    let chain = parse::certificates("the certificate", &certificates_of(crt)).map_err(of_finding)?;
    let cas = parse::certificates("the CA", ca.crt.as_bytes()).map_err(of_finding)?;
    let key = ca.key.as_ref().ok_or_else(|| failed("its key is elsewhere".into()))?;
    let key = parse::key("the CA's key", key.as_bytes()).map_err(of_finding)?;
    let old = chain.first().ok_or_else(|| failed("there is none".into()))?;
    let leaf = parse::x509(old).map_err(failed)?;
    let ca = cas.first().ok_or_else(|| failed("there is no CA".into()))?;
    let ca = parse::x509(ca).map_err(failed)?;
    let (begins, ends) = (leaf.validity().not_before.to_datetime(), leaf.validity().not_after.to_datetime());
    let validity = Validity::new(now, lifetime).beyond(ends).within(ca.validity().not_after.to_datetime()).from(begins);
    let made = successor(old, Some(&ca), &key, &validity)?;
    Ok(sign::to_pem(std::iter::once(&made)).into_bytes())
}

/// The certificate `old` (DER) with another serial number and validity; issued by `another`, if it is another that issues.
fn successor(old: &[u8], another: Option<&X509Certificate<'_>>, key: &KeyPair, validity: &Validity) -> Result<Vec<u8>> {
    let failed = |cause: String| Error::failed("renew a certificate", cause);
    let [serial, algorithm, validity] = sign::parts(key, validity)?;
    let tbs = parse::elements(parse::content(old)).next().unwrap_or_default();
    let parts: Vec<_> = parse::elements(parse::content(tbs)).collect();
    // [0] version, serial number, signature, issuer, validity, subject, key, extensions: a version 1 has the first not.
    let [version, _, _, issuer, _, rest @ ..] = &parts[..] else {
        return Err(failed("it is not as X.509 has it".into()));
    };
    if version.first() != Some(&0xa0) {
        return Err(failed("it is not of X.509's version 3".into()));
    }
    let issuer = another.map_or(*issuer, |ca| ca.subject().as_raw());
    let mut content = vec![*version, &serial, &algorithm, issuer, &validity];
    let of_another: Vec<Vec<u8>>;
    match another {
        None => content.extend(rest),
        Some(ca) => {
            of_another = rest.iter().map(|part| by_another(part, ca)).collect();
            content.extend(of_another.iter().map(Vec::as_slice));
        }
    }
    sign::signed(&parse::der(0x30, &content), &algorithm, key).map_err(failed)
}

/// A part of a certificate; where it is the extensions, the one that says by which key the issuer signs says so of `ca`.
fn by_another(part: &[u8], ca: &X509Certificate<'_>) -> Vec<u8> {
    if part.first() != Some(&0xa3) {
        return part.to_vec();
    }
    let of_issuer = |extension: &&[u8]| parse::elements(parse::content(extension)).next() == Some(&AUTHORITY_KEY);
    let identifier = ca.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
        _ => None,
    });
    let said = identifier.map(|identifier| {
        let value = parse::der(0x30, &[&parse::der(0x80, &[identifier])]);
        parse::der(0x30, &[&AUTHORITY_KEY, &parse::der(0x04, &[&value])])
    });
    let list = parse::elements(parse::content(part)).next().unwrap_or_default();
    let others = parse::elements(parse::content(list)).filter(|extension| !of_issuer(extension));
    let all: Vec<_> = others.chain(said.as_deref()).collect();
    parse::der(0xa3, &[&parse::der(0x30, &all)])
}

/// Whether the first certificate of `new` is one of `old` renewed: of the same key, subject and names, with a later end.
pub fn is_newer(new: &[u8], old: &[u8]) -> bool {
    let first = |pem: &[u8]| parse::certificates("", &certificates_of(pem)).ok().and_then(|all| all.into_iter().next());
    let (Some(new), Some(old)) = (first(new), first(old)) else { return false };
    let (Ok(new), Ok(old)) = (parse::x509(&new), parse::x509(&old)) else { return false };
    new.public_key().raw == old.public_key().raw
        && new.subject().as_raw() == old.subject().as_raw()
        && inspect::info(&new).sans == inspect::info(&old).sans
        && new.validity().not_after.timestamp() > old.validity().not_after.timestamp()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::desired::pki::{inspect, is_issued_by, verify};

    const DAY: Duration = Duration::from_hours(24);

    fn made() -> (std::collections::BTreeMap<String, Vec<u8>>, OffsetDateTime) {
        let now = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 192.0.2.10}\n";
        let cluster = crate::desired::config::parse("f", text, std::path::Path::new("/")).unwrap();
        (crate::desired::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap().files, now)
    }

    /// A certificate without what a renewal changes.
    fn rest(pem: &[u8]) -> Vec<Vec<u8>> {
        let der = parse::certificates("", pem).unwrap().remove(0);
        let tbs = parse::content(parse::element(parse::content(&der)).unwrap().0);
        let mut parts: Vec<_> = parse::elements(tbs).map(<[u8]>::to_vec).collect();
        parts.remove(4);
        parts.remove(1);
        parts
    }

    #[test]
    fn all_but_the_serial_number_and_the_end_is_the_same_byte_by_byte() {
        let (files, begun) = made();
        let later = begun + DAY * 200;
        for (stem, ca) in [
            ("apiserver", "ca"),
            ("admin", "ca"),
            ("front-proxy-client", "front-proxy-ca"),
            ("etcd/c1/server", "etcd/ca"),
            ("etcd/c1/peer", "etcd/ca"),
        ] {
            let file = |name: String| files[&name].clone();
            let old = file(format!("{stem}.crt"));
            let (ca_crt, ca_key) = (file(format!("{ca}.crt")), file(format!("{ca}.key")));
            let new = reissue(&old, &ca_crt, &ca_key, DAY * 365, later).unwrap();
            assert_eq!(rest(&new), rest(&old), "{stem}");
            let (before, after) = (inspect(&old).unwrap(), inspect(&new).unwrap());
            assert_ne!(before.serial, after.serial);
            assert_eq!((after.not_before, after.not_after), (before.not_before, later + DAY * 365));
            assert!(is_issued_by(&ca_crt, &new) && is_newer(&new, &old) && !is_newer(&old, &new), "{stem}");
            let chain = verify::certificates("", &new).unwrap();
            assert!(verify::key_fits(&chain[0], "", &file(format!("{stem}.key"))).unwrap(), "{stem}");
            assert_ne!(new, reissue(&old, &ca_crt, &ca_key, DAY * 365, later).unwrap(), "its number is chance's");
        }
    }

    #[test]
    fn another_ca_issues_a_leaf_anew_for_its_key_and_names() {
        use crate::desired::pki::{cas, etcd_ca, vouches_for_client};
        let (files, begun) = made();
        let later = begun + DAY * 200;
        let (crt, key) = etcd_ca(DAY * 3650, later).unwrap();
        let ca = &cas(crt.as_bytes(), key.as_bytes())[0];
        let behind = [&files["etcd/c1/peer.crt"][..], &files["ca.crt"]].concat();
        for old in [&files["etcd/c1/server.crt"], &behind, &files["apiserver-etcd-client.crt"]] {
            let new = reissue_by(old, ca, DAY * 365, later).unwrap();
            let (before, after) = (inspect(old).unwrap(), inspect(&new).unwrap());
            assert_eq!((&after.subject, &after.sans, &after.ekus), (&before.subject, &before.sans, &before.ekus));
            assert_eq!(after.issuer, format!("CN={}", ca.name));
            assert_eq!((after.not_before, after.not_after), (before.not_before, later + DAY * 365));
            assert!(is_newer(&new, old) && parse::certificates("", &new).unwrap().len() == 1);
            vouches_for_client(crt.as_bytes(), &new, later).unwrap();
            vouches_for_client(&files["etcd/ca.crt"], &new, later).unwrap_err();
            // It says by which key it was signed, and says it once.
            let der = parse::certificates("", &new).unwrap().remove(0);
            let issuer = parse::certificates("", crt.as_bytes()).unwrap().remove(0);
            let identifiers = |der: &[u8], of_issuer: bool| {
                let x509 = parse::x509(der).unwrap();
                let found = x509.iter_extensions().filter_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::AuthorityKeyIdentifier(it) if of_issuer => {
                        it.key_identifier.as_ref().map(|id| id.0.to_vec())
                    }
                    ParsedExtension::SubjectKeyIdentifier(it) if !of_issuer => Some(it.0.to_vec()),
                    _ => None,
                });
                found.collect::<Vec<_>>()
            };
            let said = identifiers(&der, true);
            assert!(said.len() == 1 && said == identifiers(&issuer, false));
            // And it is renewed as any other.
            let again = reissue(&new, crt.as_bytes(), key.as_bytes(), DAY * 365, later + DAY).unwrap();
            assert!(is_newer(&again, &new));
        }
        let elsewhere = Ca { key: None, ..ca.clone() };
        let said = reissue_by(&behind, &elsewhere, DAY, later).unwrap_err().to_string();
        assert!(said.contains("its key is elsewhere"), "{said}");
    }

    #[test]
    fn no_successor_outlives_its_ca_and_what_stands_behind_a_leaf_stays() {
        let (files, begun) = made();
        let (ca_crt, ca_key) = (&files["ca.crt"], &files["ca.key"]);
        let chain = [&files["apiserver.crt"][..], &files["etcd/ca.crt"]].concat();
        let new = reissue(&chain, ca_crt, ca_key, DAY * 365, begun + DAY * 3600).unwrap();
        assert_eq!(inspect(&new).unwrap().not_after, inspect(ca_crt).unwrap().not_after);
        let blocks = parse::certificates("", &new).unwrap();
        assert_eq!(blocks[1..], parse::certificates("", &files["etcd/ca.crt"]).unwrap());
    }

    #[test]
    fn a_ca_renews_what_it_has_issued_and_nothing_else() {
        let (files, begun) = made();
        let (other, _) = made();
        let renew = |crt: &[u8], ca: &[u8], key: &[u8]| reissue(crt, ca, key, DAY, begun).unwrap_err().to_string();
        let said = renew(&files["admin.crt"], &files["etcd/ca.crt"], &files["etcd/ca.key"]);
        assert!(said.contains("CN=kubernetes-admin was issued by another CA than CN=etcd-ca"), "{said}");
        let said = renew(&files["admin.crt"], &files["ca.crt"], &other["ca.key"]);
        assert!(said.contains("another CA"), "{said}");
        assert!(
            renew(&files["ca.key"], &files["ca.crt"], &files["ca.key"]).starts_with("cannot renew a certificate: ")
        );
        assert!(!is_newer(&other["admin.crt"], &files["admin.crt"]), "of another key");
    }
}
