//! A leaf's successor: the same certificate with another serial number and a later end.

use time::OffsetDateTime;

use super::issuer::certificates_of;
use super::sign::{self, Validity};
use super::{inspect, parse};
use crate::base::error::{Error, Result};

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
    let [serial, algorithm, validity] = sign::parts(&key, &validity)?;
    let tbs = parse::elements(parse::content(old)).next().unwrap_or_default();
    let parts: Vec<_> = parse::elements(parse::content(tbs)).collect();
    // [0] version, serial number, signature, issuer, validity, subject, key, extensions: a version 1 has the first not.
    let [version, _, _, issuer, _, rest @ ..] = &parts[..] else {
        return Err(failed("it is not as X.509 has it".into()));
    };
    if version.first() != Some(&0xa0) {
        return Err(failed("it is not of X.509's version 3".into()));
    }
    let mut content = vec![*version, &serial, &algorithm, issuer, &validity];
    content.extend(rest);
    let made = sign::signed(&parse::der(0x30, &content), &algorithm, &key).map_err(failed)?;
    Ok(sign::to_pem(std::iter::once(&made).chain(behind)).into_bytes())
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
