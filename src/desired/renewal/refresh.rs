//! Puts renewed leaves into a text that holds what they succeed, whatever else it says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::input;
use crate::base::yaml;
use crate::desired::pki;

/// `content` with those of `leaves` (PEM) in it that are its own renewed; `None` where there are none. It may be a PEM file, a
/// kubeconfig that holds a client certificate, or the manifest of a Secret of such files.
pub fn refreshed(content: &[u8], leaves: &[Vec<u8>]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    if text.contains("-----BEGIN CERTIFICATE-----") {
        // With a key in it, it is the kubelet's, which sees to it.
        let is_bare = !text.contains("PRIVATE KEY-----");
        return leaves.iter().find(|leaf| is_bare && pki::is_newer(leaf, content)).cloned();
    }
    if !text.contains("client-certificate-data:") && !text.contains("kind: Secret") {
        return None;
    }
    let mut changed = text.to_owned();
    for document in yaml::documents("", text).ok()? {
        let value = &document.value;
        let users = value["users"].as_array().into_iter().flatten();
        let held = users.filter_map(|user| user["user"]["client-certificate-data"].as_str());
        let data = value["data"].as_object().filter(|_| value["kind"] == "Secret");
        let held = held.chain(data.into_iter().flat_map(|data| data.values().filter_map(|value| value.as_str())));
        for old in held {
            if let Some(new) = input::base64(old).and_then(|old| refreshed(&old, leaves)) {
                changed = changed.replace(old, &STANDARD.encode(new));
            }
        }
    }
    (changed != text).then(|| changed.into_bytes())
}
