//! Parses PEM files into keys and certificates. Every finding names the file and never quotes a key.

use pem::Pem;
use rcgen::{KeyPair, PKCS_ED25519};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;

use crate::base::error::Finding;

/// The certificates of a PEM file as DER, at least one; `place` is the file's name.
pub(super) fn certificates(place: &str, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Finding> {
    let mut certificates = Vec::new();
    for (i, block) in blocks(place, bytes)?.into_iter().enumerate() {
        // Strict, because this file is handed out in kubeconfigs and ConfigMaps: a key in it would be as well.
        if block.tag() != "CERTIFICATE" {
            return Err(Finding::new(place, format!("holds a {}, where only certificates may be", block.tag()))
                .at(block_position(bytes, i))
                .remedy("leave nothing but the CERTIFICATE blocks in it"));
        }
        x509(block.contents()).map_err(|e| {
            Finding::new(place, format!("certificate {} cannot be read: {e}", i + 1))
                .at(block_position(bytes, i))
                .remedy(format!(
                    "put a whole certificate there; `openssl x509 -in {place} -noout -text` shows what it is"
                ))
        })?;
        certificates.push(block.into_contents());
    }
    Ok(certificates)
}

/// A certificate that was read from DER before, or a complaint that completes "cannot be read: …".
pub(super) fn x509(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match x509_parser::parse_x509_certificate(der) {
        // An empty part of a name means nothing, and rcgen panics on it.
        Ok((_, x509)) if x509.subject().iter().any(|part| part.iter().next().is_none()) => {
            Err("its subject has an empty part".to_owned())
        }
        Ok(([], x509)) => Ok(x509),
        Ok(_) => Err("there is more behind it".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// The private key of a PEM file: PKCS#8, PKCS#1 or SEC1; RSA, P-256 or P-384.
pub(super) fn key(place: &str, bytes: &[u8]) -> Result<KeyPair, Finding> {
    let block = key_block(place, bytes)?;
    let der = block.contents();
    let candidates = match block.tag() {
        "RSA PRIVATE KEY" => vec![pkcs8(RSA, der)],
        // SEC1 need not name its curve; ring takes the key for the one that fits and refuses the other.
        "EC PRIVATE KEY" => vec![pkcs8(P256, der), pkcs8(P384, der)],
        _ => vec![der.to_vec()],
    };
    let key = candidates.into_iter().find_map(|der| KeyPair::try_from(der).ok());
    // ring reads Ed25519 too, but Kubernetes cannot sign service-account tokens with it.
    key.filter(|key| !key.is_compatible(&PKCS_ED25519)).ok_or_else(|| {
        Finding::new(place, "is not a key that hoist can use: RSA of 2048 to 4096 bits, EC P-256 or P-384")
            .remedy(format!("if it is one of these, write it anew: openssl pkey -in {place} -out FILE"))
    })
}

/// The first block of a private key.
pub(super) fn key_block(place: &str, bytes: &[u8]) -> Result<Pem, Finding> {
    let encrypted = |block: &Pem| {
        block.tag() == "ENCRYPTED PRIVATE KEY"
            || block.headers().get("Proc-Type").is_some_and(|v| v.contains("ENCRYPTED"))
    };
    match blocks(place, bytes)?.into_iter().find(|block| block.tag().ends_with("PRIVATE KEY")) {
        None => Err(Finding::new(place, "holds no private key")
            .remedy("put the key there: a PEM file with a PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY block")),
        Some(block) if encrypted(&block) => {
            Err(Finding::new(place, "is an encrypted key, which no component can read")
                .remedy(format!("decrypt it: openssl pkey -in {place} -out FILE")))
        }
        Some(block) => Ok(block),
    }
}

/// The public keys (SubjectPublicKeyInfo) of a PEM file. A rotation may have left several.
pub(super) fn public_keys(place: &str, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Finding> {
    Ok(blocks(place, bytes)?.into_iter().filter(|b| b.tag() == "PUBLIC KEY").map(Pem::into_contents).collect())
}

fn blocks(place: &str, bytes: &[u8]) -> Result<Vec<Pem>, Finding> {
    const WHOLE: &str = "put the whole file there, with its -----BEGIN and -----END lines";
    let blocks =
        pem::parse_many(bytes).map_err(|e| Finding::new(place, format!("is not valid PEM: {e}")).remedy(WHOLE))?;
    // The parser passes over what it does not take for a block, a truncated one too.
    let begun = bytes.windows(11).filter(|w| w == b"-----BEGIN ").count();
    match (blocks.len(), begun) {
        (0, 0) => Err(Finding::new(place, "is not a PEM file: there is no -----BEGIN line")
            .remedy("if it is in DER form, convert it: `openssl x509` or `openssl pkey` with `-inform DER`")),
        (read, begun) if read != begun => {
            Err(Finding::new(place, "is not valid PEM: a block is cut off or malformed").remedy(WHOLE))
        }
        _ => Ok(blocks),
    }
}

/// Where the block with this index begins.
fn block_position(bytes: &[u8], index: usize) -> Option<(usize, usize)> {
    let begins = bytes.windows(11).enumerate().filter(|(_, w)| w == b"-----BEGIN ").map(|(at, _)| at);
    let before = bytes.get(..begins.into_iter().nth(index)?)?;
    Some((1 + before.iter().filter(|byte| **byte == b'\n').count(), 1))
}

/// The public key of a key pair (SubjectPublicKeyInfo).
pub(super) fn public_key(key: &KeyPair) -> Vec<u8> {
    rcgen::PublicKeyData::subject_public_key_info(key)
}

/// Whether two PEM files hold the same, whatever stands around it.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let contents =
        |bytes| blocks("", bytes).map(|blocks| blocks.into_iter().map(Pem::into_contents).collect::<Vec<_>>());
    a == b || contents(a).ok().zip(contents(b).ok()).is_some_and(|(a, b)| a == b)
}

/// Whether the key is the certificate's.
pub(super) fn key_fits(key: &KeyPair, certificate: &X509Certificate<'_>) -> bool {
    key.public_key_raw() == &*certificate.public_key().subject_public_key.data
}

/// Whether `issuer` issued the certificate: the name, byte by byte, and the signature.
pub(super) fn issued_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && match certificate.verify_signature(Some(issuer.public_key())) {
            // Go verifies more algorithms than ring: a certificate is not called foreign for that.
            Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => true,
            Err(_) => false,
        }
}

/// What a server sends behind a leaf of the first certificate: it and each issuer's issuer, in this order and as far
/// as the file has them, without a root, which clients have or would not trust.
pub(super) fn intermediates(certificates: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut chain: Vec<Vec<u8>> = Vec::new();
    let mut next = certificates.first();
    while let Some(der) = next.filter(|der| !chain.contains(der)) {
        let Ok(certificate) = x509(der) else { break };
        if certificate.subject().as_raw() == certificate.issuer().as_raw() {
            break;
        }
        chain.push(der.clone());
        next = certificates.iter().find(|der| x509(der).is_ok_and(|issuer| issued_by(&certificate, &issuer)));
    }
    chain
}

/// The first certificate and each issuer's issuer, in this order and as far as the file has them.
pub(super) fn path(certificates: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut path: Vec<Vec<u8>> = Vec::new();
    let mut next = certificates.first();
    // Each of them once: a ring of them ends.
    while let Some(der) = next.filter(|der| !path.contains(der)) {
        path.push(der.clone());
        let Ok(certificate) = x509(der) else { break };
        let issues =
            |other: &&Vec<u8>| *other != der && x509(other).is_ok_and(|issuer| issued_by(&certificate, &issuer));
        next = certificates.iter().find(issues);
    }
    path
}

// AlgorithmIdentifiers in DER.
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const P256: &[u8] = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";

/// A key of PKCS#1 or SEC1 wrapped into PKCS#8, the only form ring reads: version 0, algorithm, the key.
fn pkcs8(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let version = b"\x02\x01\x00";
    der(0x30, &[version, algorithm, &der(0x04, &[key])])
}

/// One DER element. What does not fit into 64 KiB is no key; ring then refuses it for its wrong length.
pub(super) fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut element = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ ..=127) => element.push(short),
        Ok(byte) => element.extend([0x81, byte]),
        Err(_) => {
            element.push(0x82);
            element.extend(u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    element.extend(content);
    element
}

/// The first DER element of `bytes`, and what is behind it.
pub(super) fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = match *bytes.get(1)? {
        short @ ..=127 => usize::from(short),
        _ => bytes.get(2..head(bytes))?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
    };
    bytes.split_at_checked(head(bytes).checked_add(length)?)
}

/// The DER elements that `bytes` begin with, in order.
pub(super) fn elements(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = bytes;
    std::iter::from_fn(move || {
        let (element, rest) = element(left)?;
        left = rest;
        Some(element)
    })
}

/// What is in a DER element.
pub(super) fn content(element: &[u8]) -> &[u8] {
    element.get(head(element)..).unwrap_or_default()
}

/// How long the tag and the length of a DER element are.
fn head(element: &[u8]) -> usize {
    2 + element.get(1).filter(|length| **length > 127).map_or(0, |length| usize::from(length & 0x7f))
}
