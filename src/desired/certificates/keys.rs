//! Copies of keys that no certificate belongs to, and that have no end: the service account key, and those that Secrets
//! are encrypted with.

use super::copy::{is_ours, whole_place};
use crate::base::yaml;
use crate::desired::assets::AssetSet;
use crate::desired::pki;

/// One copy of such a key. It is never shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyCopy {
    /// `service-account` or `encryption-key`.
    pub name: String,
    /// Which of several it is: a service account key's as tokens name it (`kid`), an encryption key's in its configuration.
    pub id: String,
    /// The file or the object that has it.
    pub place: String,
    /// The component that uses this copy.
    pub holder: String,
}

/// The keys in the file `key` of `place`; a file that is its own place has no key.
pub fn keys(place: &str, key: &str, holder: &str, content: &[u8]) -> Vec<KeyCopy> {
    let whole = whole_place(place, key);
    let file = whole.rsplit(['/', ' ']).next().unwrap_or(&whole);
    let (name, ids) = match file {
        "sa.key" | "sa.pub" => ("service-account", pki::key_ids(content)),
        pki::ENCRYPTION => ("encryption-key", of_encryption(&String::from_utf8_lossy(content))),
        _ => return Vec::new(),
    };
    let copy = |id| KeyCopy { name: name.to_owned(), id, place: whole.clone(), holder: holder.to_owned() };
    ids.into_iter().map(copy).collect()
}

/// The same of an asset directory.
pub fn keys_of_assets(place: &str, holder: &str, assets: &AssetSet) -> Vec<KeyCopy> {
    let ours = assets.files.iter().filter(|(path, _)| is_ours(path));
    ours.flat_map(|(path, file)| keys(place, path, holder, &file.content)).collect()
}

fn of_encryption(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for document in yaml::documents("", text).unwrap_or_default() {
        let groups = document.value["resources"].as_array().into_iter().flatten();
        for provider in groups.flat_map(|group| group["providers"].as_array().into_iter().flatten()) {
            let settings = provider.as_object().into_iter().flat_map(|provider| provider.values());
            let keys = settings.flat_map(|settings| settings["keys"].as_array().into_iter().flatten());
            names.extend(keys.filter_map(|key| key["name"].as_str().map(str::to_owned)));
        }
    }
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::check::preflight::testing::tls;

    #[test]
    fn a_key_and_its_public_half_are_one_key() {
        let assets = tls(OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap());
        let found = keys_of_assets("assets", "administrator", &assets);
        let said: Vec<_> = found.iter().map(|key| (&*key.name, &*key.place)).collect();
        assert_eq!(
            said,
            [
                ("encryption-key", "assets: tls/encryption.yaml"),
                ("service-account", "assets: tls/sa.key"),
                ("service-account", "assets: tls/sa.pub"),
            ]
        );
        assert_eq!(found[0].id, "key1");
        // As Kubernetes has it: 32 bytes in base64, without padding.
        assert!(found[1].id == found[2].id && found[1].id.len() == 43, "{found:?}");
        let two = "resources:\n- providers:\n  - secretbox: {keys: [{name: b}, {name: a}]}\n  - identity: {}\n  - aescbc: {keys: [{name: c}]}\n";
        let ids: Vec<_> = keys("encryption.yaml", "", "", two.as_bytes()).into_iter().map(|key| key.id).collect();
        assert_eq!(ids, ["b", "a", "c"]);
        assert!(keys("x", "apiserver.key", "", &assets.tls()["sa.key"]).is_empty());
        assert!(keys("x", "sa.key", "", b"none").is_empty());
    }
}
