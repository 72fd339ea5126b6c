//! Certificates that a CA has signed whose key is elsewhere: whether they may take the place of what they renew.

use time::OffsetDateTime;

use super::decide::Leaf;
use crate::desired::assets::AssetSet;
use crate::desired::pki;

/// Why `signed` (PEM) may not take the place of `leaf`; completes "NAME.crt …". `None`: it may.
pub fn misfit(assets: &AssetSet, leaf: &Leaf, signed: &[u8], now: OffsetDateTime) -> Option<String> {
    let tls = assets.tls();
    let empty = Vec::new();
    let file = |path: String| tls.get(&path).unwrap_or(&empty);
    let old = file(format!("{}.crt", leaf.stem));
    let new = match pki::inspect(signed) {
        Ok(new) => new,
        Err(error) => return Some(format!("is no certificate: {error}")),
    };
    let was = pki::inspect(old).ok()?;
    let lacks: Vec<_> = was.ekus.iter().filter(|usage| !new.ekus.contains(usage)).cloned().collect();
    match () {
        () if !pki::is_issued_by(file(format!("{}.crt", leaf.ca)), signed) => {
            Some(format!("was not issued by tls/{}.crt, but by {}", leaf.ca, new.issuer))
        }
        () if new.subject != was.subject => Some(format!("has the subject {}, not {}", new.subject, was.subject)),
        () if !lacks.is_empty() => Some(format!("lacks the extended key usage {}", lacks.join(", "))),
        () if new.is_ca => Some("is a CA, and no component may be one".to_owned()),
        () if new.not_before > now => Some(format!("is not valid before {}", new.not_before)),
        () if new.not_after <= was.not_after => {
            Some(format!("ends no later than the one that serves, {}", was.not_after))
        }
        () if new.not_after <= now => Some(format!("expired {}", new.not_after)),
        () if pki::is_newer(signed, old) => None,
        () => Some("is of another key, or of other names: sign the request as it is, with what it asks for".to_owned()),
    }
}

/// `assets` with these certificates in the place of leaves, by their stems, and wherever else it holds them.
pub fn with(mut assets: AssetSet, signed: &[(String, Vec<u8>)]) -> AssetSet {
    for (stem, content) in signed {
        if let Some(file) = assets.files.get_mut(&format!("tls/{stem}.crt")) {
            file.content.clone_from(content);
        }
    }
    super::follow(&mut assets);
    assets
}
