//! The key that signs service accounts' tokens: how tokens name it, and a new one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::{parse, sign};
use crate::base::error::Result;

/// The names (`kid`) of the keys in a PEM file, public ones and the first private one, by which servers sign, as Kubernetes makes
/// them; none for a file that cannot be read.
pub fn key_ids(pem: &[u8]) -> Vec<String> {
    let mut keys = parse::public_keys("", pem).unwrap_or_default();
    keys.extend(parse::key("", pem).ok().map(|key| parse::public_key(&key)));
    keys.iter().map(|key| URL_SAFE_NO_PAD.encode(Sha256::digest(key))).collect()
}

/// A new key and its public half, both as PEM.
///
/// # Errors
/// The system has no randomness.
pub(in crate::desired) fn signing_pair() -> Result<(String, String)> {
    let key = sign::new_key()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}
