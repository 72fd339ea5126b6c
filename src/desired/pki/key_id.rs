//! How tokens name the service account key that has signed them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::parse;

/// The names (`kid`) of the keys in a PEM file, private or public ones, as Kubernetes makes them; none for a file that cannot be
/// read.
pub fn key_ids(pem: &[u8]) -> Vec<String> {
    let mut keys = parse::public_keys("", pem).unwrap_or_default();
    keys.extend(parse::key("", pem).ok().map(|key| parse::public_key(&key)));
    keys.iter().map(|key| URL_SAFE_NO_PAD.encode(Sha256::digest(key))).collect()
}
