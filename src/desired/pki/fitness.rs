//! Whether a CA can sign what a cluster needs of it, as Go and rustls judge chains: a certificate that clients refuse is issued
//! without a word, and refused at the worst moment.
//!
//! Each row looks at the CA's certificate and at those above it in its file, as far as they reach.

use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::public_key::PublicKey;

use super::{constraints, inspect, parse};

/// What a CA is to sign.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// The names of its leaves.
    pub names: &'a [String],
    /// The extended key usages of its leaves.
    pub usages: &'a [&'static str],
    /// The end of a leaf that is issued now; `None` where none is.
    pub until: Option<OffsetDateTime>,
}

/// Why a CA cannot sign what it is to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Which row it is: one word.
    pub kind: &'static str,
    /// A sentence about the file that has the CA.
    pub message: String,
    /// What to do.
    pub remedy: &'static str,
}

const ANY: &str = "anyExtendedKeyUsage";
/// The least that Go and rustls take.
const RSA_BITS: usize = 2048;
const EC_BITS: usize = 256;
/// Signature algorithms that Go refuses.
const WEAK_SIGNATURES: [(&str, &str); 4] = [
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
    ("1.2.840.10040.4.3", "SHA-1"),
];

/// Everything that keeps the first of `certificates` from its task. The others are those above it, in any order.
pub(super) fn unfit(certificates: &[Vec<u8>], task: &Task<'_>) -> Vec<Unfit> {
    let path = parse::path(certificates);
    let read: Vec<_> = path.iter().filter_map(|der| parse::x509(der).ok()).collect();
    let mut found = Vec::new();
    if let Some(why) = constraints::broken(&path, task.names) {
        found.push(Unfit {
            kind: "constraints",
            message: format!("its name constraints {why}"),
            remedy: "its certificates need these names, and one that is excluded makes clients refuse all of it: use a CA whose constraints permit them, or one without",
        });
    }
    found.extend(usages(&read, task.usages));
    found.extend(lengths(&read));
    found.extend(strengths(&read));
    found.extend(task.until.and_then(|until| ends(&read, until)));
    found
}

/// "CN=ca", and for one above it that it is above.
fn called(path: &[X509Certificate<'_>], i: usize) -> String {
    match i {
        0 => path[i].subject().to_string(),
        _ => format!("{}, above it,", path[i].subject()),
    }
}

fn usages(path: &[X509Certificate<'_>], needed: &[&'static str]) -> Vec<Unfit> {
    let mut found = Vec::new();
    for (i, certificate) in path.iter().enumerate() {
        let has = inspect::info(certificate).ekus;
        if has.is_empty() || has.iter().any(|usage| usage == ANY) {
            continue;
        }
        let missing: Vec<_> = needed.iter().filter(|usage| !has.iter().any(|has| has == *usage)).copied().collect();
        if !missing.is_empty() {
            let (name, missing) = (called(path, i), missing.join(", "));
            found.push(Unfit {
                kind: "usages",
                message: format!("{name} has the extended key usages {}, without {missing}", has.join(", ")),
                remedy: "clients refuse whatever it signs for another usage: use a CA without extended key usages, or with serverAuth and clientAuth",
            });
        }
    }
    found
}

/// How many CAs may stand below one.
fn lengths(path: &[X509Certificate<'_>]) -> Vec<Unfit> {
    let mut found = Vec::new();
    for (below, certificate) in path.iter().enumerate() {
        let constraints = certificate.basic_constraints().ok().flatten();
        let most = constraints.and_then(|constraints| constraints.value.path_len_constraint);
        if let Some(most) = most.filter(|most| usize::try_from(*most).is_ok_and(|most| most < below)) {
            let name = called(path, below);
            found.push(Unfit {
                kind: "length",
                message: format!("{name} has the path length {most}, and {below} CAs stand below it"),
                remedy: "clients refuse this chain: use a CA whose issuers permit one below them",
            });
        }
    }
    found
}

fn strengths(path: &[X509Certificate<'_>]) -> Vec<Unfit> {
    const REMEDY: &str = "use a CA whose key is RSA of at least 2048 bits, or EC P-256 or P-384, and that is signed with SHA-256 or better";
    let mut found = Vec::new();
    for (i, certificate) in path.iter().enumerate() {
        let weak = match certificate.public_key().parsed() {
            // The modulus may have a zero in front.
            Ok(PublicKey::RSA(key)) => Some(key.key_size().next_multiple_of(8))
                .filter(|bits| *bits < RSA_BITS)
                .map(|bits| format!("an RSA key of {bits} bits")),
            Ok(PublicKey::EC(key)) if key.key_size() < EC_BITS => Some(format!("an EC key of {} bits", key.key_size())),
            Ok(PublicKey::DSA(_)) => Some("a DSA key".to_owned()),
            _ => None,
        };
        if let Some(weak) = weak {
            let message = format!("{} has {weak}, which clients refuse", called(path, i));
            found.push(Unfit { kind: "key", message, remedy: REMEDY });
        }
        // What a root says of itself is asked by nobody.
        let is_root = certificate.subject().as_raw() == certificate.issuer().as_raw();
        let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
        let weak = WEAK_SIGNATURES.iter().find(|(id, _)| *id == algorithm).filter(|_| !is_root);
        if let Some((_, hash)) = weak {
            let message = format!("{} is signed with {hash}, which clients refuse", called(path, i));
            found.push(Unfit { kind: "signature", message, remedy: REMEDY });
        }
    }
    found
}

fn ends(path: &[X509Certificate<'_>], until: OffsetDateTime) -> Option<Unfit> {
    let end = |certificate: &X509Certificate<'_>| certificate.validity().not_after.to_datetime();
    let (i, first) = path.iter().enumerate().min_by_key(|(_, certificate)| end(certificate))?;
    (end(first) < until).then(|| Unfit {
        kind: "ends",
        message: format!(
            "{} ends {}, before the certificates that it is to sign, {}",
            called(path, i),
            end(first).date(),
            until.date()
        ),
        remedy: "use a CA that ends later, or set a shorter pki.certificateValidityPeriod in cluster.yaml",
    })
}
