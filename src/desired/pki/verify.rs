//! Whether certificates and keys fit together, for modules that did not issue them.

use time::OffsetDateTime;

use super::fitness::{self, Task, Unfit};
use super::inspect::{self, CertificateInfo};
use super::parse;
use super::plan::{plan, usage_name};
use crate::base::error::Finding;
use crate::desired::config::Cluster;

/// A leaf certificate that a cluster needs.
pub struct Needed {
    /// Its files in tls/ are `stem`.crt and `stem`.key.
    pub stem: String,
    /// The stem of the CA that signs it.
    pub ca: &'static str,
    /// The common name of its subject.
    pub common_name: String,
    /// The organization of its subject, which Kubernetes takes for a group.
    pub organization: Option<&'static str>,
    /// The names that it must have.
    pub sans: Vec<String>,
    /// The extended key usages that it must have.
    pub usages: Vec<&'static str>,
}

/// Every leaf certificate that `cluster` needs.
pub fn needed(cluster: &Cluster) -> Vec<Needed> {
    let of_ca = |(ca, leaves): (super::plan::CaPlan, Vec<super::plan::LeafPlan>)| {
        leaves.into_iter().map(move |leaf| Needed {
            ca: ca.stem,
            common_name: leaf.common_name,
            organization: leaf.organization,
            sans: leaf.sans,
            usages: leaf.usages.iter().map(usage_name).collect(),
            stem: leaf.stem,
        })
    };
    plan(cluster).into_iter().flat_map(of_ca).collect()
}

/// One certificate of a PEM file.
pub struct Certificate {
    /// What it says.
    pub info: CertificateInfo,
    /// The line that it begins at, from 1.
    pub line: usize,
    /// Whether it may sign others.
    pub may_sign: bool,
    der: Vec<u8>,
}

/// The certificates of a PEM file, at least one; `place` names it.
///
/// # Errors
/// What is wrong with the file.
pub fn certificates(place: &str, pem: &[u8]) -> Result<Vec<Certificate>, Finding> {
    let text = String::from_utf8_lossy(pem);
    let begins = text.lines().enumerate().filter(|(_, line)| line.contains("-----BEGIN "));
    let lines: Vec<_> = begins.map(|(i, _)| i + 1).collect();
    let mut found = Vec::new();
    for (i, der) in parse::certificates(place, pem)?.into_iter().enumerate() {
        let x509 = parse::x509(&der).map_err(|cause| Finding::new(place, format!("cannot be read: {cause}")))?;
        let usage = x509.key_usage().ok().flatten();
        let may_sign = x509.is_ca() && usage.is_none_or(|usage| usage.value.key_cert_sign());
        let info = inspect::info(&x509);
        found.push(Certificate { info, line: lines.get(i).copied().unwrap_or(1), may_sign, der });
    }
    Ok(found)
}

/// Whether somebody who trusts `roots` trusts the first of `chain`, being shown the others.
pub fn is_trusted(chain: &[Certificate], roots: &[Certificate]) -> bool {
    let Some(leaf) = chain.first() else { return false };
    let mut at = leaf;
    // No chain is longer than the certificates that there are.
    for _ in 0..=chain.len() {
        if roots.iter().any(|root| root.der == at.der || issued(at, root)) {
            return true;
        }
        match chain.iter().find(|issuer| issuer.der != at.der && issued(at, issuer)) {
            Some(issuer) => at = issuer,
            None => return false,
        }
    }
    false
}

fn issued(certificate: &Certificate, issuer: &Certificate) -> bool {
    match (parse::x509(&certificate.der), parse::x509(&issuer.der)) {
        (Ok(certificate), Ok(issuer)) => parse::issued_by(&certificate, &issuer),
        _ => false,
    }
}

/// Everything that keeps the CA that is the first of `certificates` from signing what `cluster` needs of the CA `stem`: `ca`,
/// `front-proxy-ca` or `etcd/ca`. `until` is the end of a leaf that is issued now, if one is.
pub fn unfit(cluster: &Cluster, stem: &str, certificates: &[Certificate], until: Option<OffsetDateTime>) -> Vec<Unfit> {
    let chain: Vec<_> = certificates.iter().map(|certificate| certificate.der.clone()).collect();
    let leaves = plan(cluster).into_iter().find(|(ca, _)| ca.stem == stem).map(|(_, leaves)| leaves);
    let (names, usages) = super::plan::asked(&leaves.unwrap_or_default());
    fitness::unfit(&chain, &Task { names: &names, usages: &usages, until })
}

/// Whether the private key in `key` is that of a certificate.
///
/// # Errors
/// A file that holds no key that hoist can read.
pub fn key_fits(certificate: &Certificate, place: &str, key: &[u8]) -> Result<bool, Finding> {
    let key = parse::key(place, key)?;
    Ok(parse::x509(&certificate.der).is_ok_and(|x509| parse::key_fits(&key, &x509)))
}

/// Whether tokens that the private key `key` signs are good for who has the public keys in `public`. A file of another
/// form (a certificate, a private key) is given the benefit of the doubt.
///
/// # Errors
/// A file that is no PEM, or holds no key that hoist can read.
pub fn signs_for(place: &str, key: &[u8], public_place: &str, public: &[u8]) -> Result<bool, Finding> {
    let key = parse::key(place, key)?;
    let public = parse::public_keys(public_place, public)?;
    Ok(public.is_empty() || public.contains(&parse::public_key(&key)))
}

/// Whether one of the names of a certificate is `name`.
pub fn has_name(info: &CertificateInfo, name: &str) -> bool {
    let name = super::plan::canonical(name);
    let is = |san: &String| {
        let san = super::plan::canonical(san);
        let behind_star = san.strip_prefix("*.").zip(name.split_once('.')).is_some_and(|(a, (_, b))| a == b);
        san == name || behind_star
    };
    info.sans.iter().any(is)
}
