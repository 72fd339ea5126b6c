//! The encryption of Secrets in etcd: tls/encryption.yaml, an EncryptionConfiguration. hoist makes it once. From then
//! on the user edits it: the order of its keys decides which key writes.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::file::{File, input};
use super::token::random_bytes;
use crate::base::error::{Error, Result};
use crate::base::yaml;

/// Its name in tls/, and in what the API server mounts.
pub const ENCRYPTION: &str = "encryption.yaml";
/// Providers that have keys, with the lengths in bytes that each takes.
pub(in crate::desired) const WITH_KEYS: [(&str, &[usize]); 3] =
    [("aescbc", &[16, 24, 32]), ("aesgcm", &[16, 24, 32]), ("secretbox", &[32])];
const HOW: &str = "docs/security.md shows how keys are changed";

/// A new one, with a key by chance. A cluster that has run without one goes on writing plain text: its API servers learn
/// to read what is encrypted one after the other, and until the last one has, none may write it.
pub(super) fn new(has_run: bool) -> Result<String> {
    let key = key()?;
    let secretbox = format!("  - secretbox:\n      keys:\n      - name: key1\n        secret: {key}\n");
    let identity = "  - identity: {}\n";
    let (first, second) = if has_run { (identity, &*secretbox) } else { (&*secretbox, identity) };
    Ok(format!(
        "# What Secrets are encrypted with in etcd: the first provider writes, each reads. Made once by hoist render, which\n\
         # then leaves it alone. If you lose a key that is in use, you lose what it encrypts: keep a backup. Never commit it.\n\
         apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources:\n  - secrets\n  providers:\n{first}{second}"
    ))
}

/// Refuses one that no API server would start with. No key is repeated.
pub(super) fn check(file: &File<'_>) -> Result<()> {
    let value = parse(file)?;
    let mut findings = Vec::new();
    let mut wrong = |message: String| findings.push(file.finding(message).remedy(HOW));
    if value["kind"] != "EncryptionConfiguration" || value["apiVersion"] != "apiserver.config.k8s.io/v1" {
        wrong("is not an EncryptionConfiguration of apiserver.config.k8s.io/v1".to_owned());
    }
    let groups = list(&value, "resources");
    if groups.is_empty() {
        wrong("resources: it is required".to_owned());
    }
    for (i, group) in groups.iter().enumerate() {
        let at = format!("resources[{i}]");
        if list(group, "resources").is_empty() {
            wrong(format!("{at}.resources: it is required, such as [secrets]"));
        }
        let providers = list(group, "providers");
        if providers.is_empty() {
            wrong(format!("{at}.providers: it is required"));
        }
        for (j, provider) in providers.iter().enumerate() {
            for (kind, lengths) in WITH_KEYS {
                let Some(settings) = provider.get(kind) else { continue };
                let at = format!("{at}.providers[{j}].{kind}.keys");
                let keys = list(settings, "keys");
                if keys.is_empty() {
                    wrong(format!("{at}: it is required"));
                }
                let mut names = BTreeSet::new();
                for (k, key) in keys.iter().enumerate() {
                    let name = key["name"].as_str().unwrap_or_default();
                    if name.is_empty() || !names.insert(name) {
                        wrong(format!("{at}[{k}].name: it is required, and of each key another one"));
                    }
                    let length = key["secret"].as_str().and_then(crate::base::input::base64).map(|key| key.len());
                    if !length.is_some_and(|length| lengths.contains(&length)) {
                        let lengths: Vec<_> = lengths.iter().map(usize::to_string).collect();
                        wrong(format!("{at}[{k}].secret: is not {} bytes in base64", lengths.join(" or ")));
                    }
                }
            }
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(Error::Input(findings)) }
}

/// Names of those keys of `old` that `new` has no more: what they encrypt, nobody could read by it. Empty where either
/// is none.
pub fn lost_keys(old: &[u8], new: &[u8]) -> Vec<String> {
    let keys = |bytes: &[u8]| -> Vec<(String, String)> {
        let value = parse(&File { place: String::new(), bytes }).unwrap_or_default();
        let providers = list(&value, "resources").iter().flat_map(|group| list(group, "providers"));
        let of =
            |(kind, _): (&str, _), provider: &Value| provider.get(kind).map(|settings| list(settings, "keys").to_vec());
        let keys =
            providers.flat_map(|provider| WITH_KEYS.into_iter().filter_map(move |kind| of(kind, provider)).flatten());
        let text = |key: &Value, field: &str| key[field].as_str().unwrap_or_default().to_owned();
        keys.map(|key| (text(&key, "name"), text(&key, "secret"))).collect()
    };
    let there: BTreeSet<_> = keys(new).into_iter().map(|(_, secret)| secret).collect();
    keys(old).into_iter().filter(|(_, secret)| !there.contains(secret)).map(|(name, _)| name).collect()
}

/// What a whole one says.
///
/// # Errors
/// One that no API server would start with; `place` is what messages call it.
pub(in crate::desired) fn read(place: &str, bytes: &[u8]) -> Result<Value> {
    let file = File { place: place.to_owned(), bytes };
    check(&file)?;
    parse(&file)
}

/// The text of a new key of 32 bytes.
///
/// # Errors
/// The system has no randomness.
pub(in crate::desired) fn key() -> Result<String> {
    Ok(STANDARD.encode(random_bytes::<32>()?))
}

fn parse(file: &File<'_>) -> Result<Value> {
    // The parser's own words might repeat a key.
    let broken = || input(file.finding("is not a YAML document").remedy(HOW));
    let text = std::str::from_utf8(file.bytes).map_err(|_| broken())?;
    let mut documents = yaml::documents(&file.place, text).map_err(|_| broken())?;
    match documents.len() {
        1 => Ok(documents.remove(0).value),
        _ => Err(broken()),
    }
}

pub(in crate::desired) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// That a key is new although the cluster is not, and what that means.
pub(super) const FOR_A_CLUSTER_THAT_RUNS: &str =
    "new; Secrets are written as plain text until its key is the first (docs/security.md)";

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        check(&File { place: "tls/encryption.yaml".into(), bytes: text.as_bytes() })
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    fn first_provider(text: &str) -> String {
        let at = |word: &str| text.find(word).unwrap();
        if at("identity:") < at("secretbox:") { "identity".into() } else { "secretbox".into() }
    }

    #[test]
    fn a_new_one_encrypts_and_one_for_a_running_cluster_reads_first() {
        let (new, later) = (new(false).unwrap(), new(true).unwrap());
        assert_eq!((problems(&new), problems(&later)), (String::new(), String::new()));
        assert_eq!((first_provider(&new), first_provider(&later)), ("secretbox".into(), "identity".into()));
        assert_eq!(lost_keys(new.as_bytes(), later.as_bytes()), ["key1"], "no two keys are alike");
    }

    #[test]
    fn one_that_no_api_server_takes_is_refused_without_its_keys_being_said() {
        let good = new(false).unwrap();
        let key = good.split("secret: ").nth(1).unwrap().lines().next().unwrap().to_owned();
        let cases = [
            (good.replace("EncryptionConfiguration", "Encryption"), "is not an EncryptionConfiguration"),
            (good.replace(&key, "c2hvcnQ="), "providers[0].secretbox.keys[0].secret: is not 32 bytes"),
            (good.replace("name: key1", "name: \"\""), "keys[0].name"),
            (good.replace("  providers:\n", "  others:\n"), "resources[0].providers"),
            (good.replace("resources:\n- ", "r:\n- "), "resources: it is required"),
            (format!("{good}---\n{good}"), "is not a YAML document"),
            (good.replace("secret: ", "secret: \"\n"), "is not a YAML document"),
        ];
        for (text, expected) in cases {
            assert_ne!(text, good, "{expected}");
            let said = problems(&text);
            assert!(said.contains(expected) && !said.contains(&key), "{expected}: {said}");
        }
    }

    #[test]
    fn keys_are_told_by_what_they_are() {
        let old = new(false).unwrap();
        let added = old.replace(
            "      keys:\n",
            &format!("      keys:\n      - name: key2\n        secret: {}\n", STANDARD.encode([7; 32])),
        );
        assert!(problems(&added).is_empty());
        assert!(lost_keys(old.as_bytes(), added.as_bytes()).is_empty());
        assert_eq!(lost_keys(added.as_bytes(), old.as_bytes()), ["key2"]);
        assert_eq!(lost_keys(old.as_bytes(), b""), ["key1"]);
        assert!(lost_keys(b"", old.as_bytes()).is_empty());
    }
}
