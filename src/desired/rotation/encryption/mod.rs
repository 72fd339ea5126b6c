//! The key that Secrets are encrypted with. The first key of the first provider writes, and every key reads. Keys are told apart
//! by the number at the end of their names: the newest has the highest.

use serde_json::{Value, json};

use super::decide::{Asked, Level};
use super::observed::{Observed, Rotation};
use super::ring::Ring;
use crate::base::error::{Error, Finding, Result};
use crate::base::{files, yaml};
use crate::desired::pki::{self, ENCRYPTION, WITH_KEYS, list};
use crate::desired::secrets::Tls;

/// What reads it.
pub const READER: &str = "kube-apiserver";
const BY_HAND: &str = "docs/security.md#changing-the-key has how it is changed by hand";

/// A key.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    name: String,
    secret: String,
}

impl Key {
    fn number(&self) -> u64 {
        number(&self.name)
    }
}

/// An EncryptionConfiguration whose Secrets are written by a provider with keys.
#[derive(Clone)]
struct Configuration {
    /// The comments before it.
    head: String,
    value: Value,
    /// Which of its groups has Secrets.
    group: usize,
    provider: &'static str,
    keys: Vec<Key>,
}

impl Configuration {
    fn read(place: &str, bytes: &[u8]) -> Result<Self> {
        let value = pki::encryption(place, bytes)?;
        let refused = |message: String| Error::Input(vec![Finding::new(place, message).remedy(BY_HAND)]);
        let covers = |group: &Value| {
            list(group, "resources").iter().any(|name| matches!(name.as_str(), Some("secrets" | "*." | "*.*")))
        };
        let groups = list(&value, "resources");
        let Some(group) = groups.iter().position(covers) else {
            return Err(refused("Secrets are not encrypted: there is no key to rotate".into()));
        };
        let others: Vec<_> = list(&groups[group], "resources").iter().filter(|name| **name != "secrets").collect();
        if !others.is_empty() {
            let names: Vec<_> = others.iter().filter_map(|name| name.as_str()).collect();
            return Err(refused(format!(
                "the key of Secrets also encrypts {}, and hoist makes Secrets alone anew",
                names.join(", ")
            )));
        }
        let first = &list(&groups[group], "providers")[0];
        let found = WITH_KEYS.iter().find_map(|(kind, _)| Some((*kind, first.get(*kind)?)));
        let Some((provider, settings)) = found else {
            let name = first.as_object().and_then(|first| first.keys().next()).map_or("", String::as_str);
            let message = match name {
                "identity" => {
                    "Secrets are written as plain text (the first provider is identity): there is no key to rotate"
                        .to_owned()
                }
                "kms" => "the first provider is a KMS, which has the key and rotates it".to_owned(),
                other => format!("the first provider is {other}, which hoist does not know"),
            };
            return Err(refused(message));
        };
        let text = |key: &Value, field: &str| key[field].as_str().unwrap_or_default().to_owned();
        let keys =
            list(settings, "keys").iter().map(|key| Key { name: text(key, "name"), secret: text(key, "secret") });
        let keys = keys.collect();
        let lines = std::str::from_utf8(bytes).unwrap_or_default().split_inclusive('\n');
        let head = lines.take_while(|line| line.starts_with('#')).collect();
        Ok(Self { head, group, provider, keys, value })
    }

    /// It with these keys.
    fn with(&self, keys: &[&Key]) -> Vec<u8> {
        let mut value = self.value.clone();
        let keys: Vec<_> = keys.iter().map(|key| json!({"name": key.name, "secret": key.secret})).collect();
        value["resources"][self.group]["providers"][0][self.provider]["keys"] = Value::Array(keys);
        format!("{}{}", self.head, yaml::to_string(&value)).into_bytes()
    }
}

/// A rotation, or a cluster that has one key.
#[derive(Clone)]
pub struct EncryptionKey {
    /// The one that the API servers have: its other parts are kept.
    base: Configuration,
    /// Its text.
    text: Vec<u8>,
    keys: Ring<Key>,
}

impl EncryptionKey {
    /// Where it stands, by what the places have.
    ///
    /// # Errors
    /// What cannot be rotated, with why.
    pub fn of(seen: &Observed, asked: Asked) -> Result<Self> {
        let text = file(&seen.secret(READER));
        let base = Configuration::read(&format!("Secret kube-system/{READER}: {ENCRYPTION}"), &text)?;
        let guards = format!("Secret kube-system/hoist-guard: tls/{ENCRYPTION}");
        let guards = Configuration::read(&guards, &file(&seen.guards_secret))?;
        let mut keys = Vec::new();
        for key in base.keys.iter().chain(&guards.keys) {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        keys.sort_by_key(|key| std::cmp::Reverse(key.number()));
        let place = format!("tls/{ENCRYPTION}");
        let refused = |message: String, remedy: &str| {
            Err(Error::Input(vec![Finding::new(place.clone(), message).remedy(remedy)]))
        };
        if let Some(pair) = keys.windows(2).find(|pair| pair[0].number() == pair[1].number()) {
            let message =
                format!("which of the keys {} and {} is newer, their names do not say", pair[0].name, pair[1].name);
            return refused(message, "give the newer one a name that ends in a higher number, as in key2");
        }
        if base.provider != guards.provider {
            return refused(
                "guard and the API servers have keys of two kinds".into(),
                "`hoist start` brings both those of the asset directory",
            );
        }
        if let Some(files) = &seen.directory {
            let directory = Configuration::read(&place, &file(files))?;
            let known = |key: &&Key| !keys.contains(key) && key.number() > keys[0].number();
            if let Some(key) = directory.keys.iter().find(known) {
                let message = format!("has {}, which the cluster has not", key.name);
                return refused(
                    message,
                    "`hoist render` and `hoist start` bring an edit of it to the cluster; or take that key out again",
                );
            }
        }
        Ok(Self { base, text, keys: Ring::new(keys, asked) })
    }

    fn text(&self, level: Level) -> Vec<u8> {
        self.base.with(&self.keys.at(level))
    }

    fn level_of(&self, bytes: &[u8]) -> Level {
        let Ok(Configuration { keys, .. }) = Configuration::read("", bytes) else { return Level::Lacks };
        let uses = keys.first() == Some(self.keys.stays());
        match () {
            () if uses && keys.iter().eq(self.keys.alone()) => Level::Alone,
            () if self.keys.all().iter().any(|key| !keys.contains(key)) => Level::Lacks,
            () if uses => Level::Uses,
            () => Level::Knows,
        }
    }
}

impl Rotation for EncryptionKey {
    fn staying(&self) -> String {
        self.keys.stays().name.clone()
    }

    fn going(&self) -> Vec<String> {
        self.keys.going().map(|key| key.name.clone()).collect()
    }

    fn mark(&self) -> String {
        format!("k8s:enc:{}:v1:{}:", self.base.provider, self.keys.stays().name)
    }

    /// etcd says what is.
    fn is_unused(&self) -> bool {
        false
    }

    fn has_several(&self) -> bool {
        self.keys.all().len() > 1
    }

    fn begun(&self) -> Result<Box<dyn Rotation>> {
        let number = self.keys.all().first().map_or(0, Key::number) + 1;
        let key = Key { name: format!("key{number}"), secret: pki::encryption_key()? };
        let mut begun = self.clone();
        begun.keys = begun.keys.begun(key);
        Ok(Box::new(begun))
    }

    fn content(&self, level: Level) -> Result<Tls> {
        Ok(Tls::from([(ENCRYPTION.to_owned(), self.text(level))]))
    }

    fn level(&self, files: &Tls) -> Level {
        self.level_of(&file(files))
    }

    fn level_of_server(&self, _: &str, said: &[String]) -> Level {
        // The file as the API servers' Secret has it may be written otherwise than hoist would.
        if said.first() == Some(&file_sum(&self.text)) {
            return self.level_of(&self.text);
        }
        let is_it = |level: &Level| said.first() == Some(&file_sum(&self.text(*level)));
        [Level::Alone, Level::Uses, Level::Knows].into_iter().find(is_it).unwrap_or(Level::Lacks)
    }
}

fn file(files: &Tls) -> Vec<u8> {
    files.get(ENCRYPTION).cloned().unwrap_or_default()
}

/// What an API server's metric `apiserver_encryption_config_controller_last_config_info` says of a file that it has read.
pub fn file_sum(bytes: &[u8]) -> String {
    format!("sha256:{}", files::sha256(bytes))
}

/// Why an asset directory would lead a cluster back whose guard keeps `kept`: its file lacks a key, or has one again, or writes
/// with one, that the cluster has left behind. `None` where it would not.
pub fn leads_back(kept: &[u8], directory: &[u8]) -> Option<String> {
    let first = |bytes| Configuration::read("", bytes).ok()?.keys.into_iter().next();
    let (writes, would_write) = (first(kept)?, first(directory)?);
    let newer = |name: &String| *name == writes.name || number(name) > writes.number();
    if let Some(name) = pki::lost_keys(kept, directory).into_iter().find(newer) {
        return Some(format!("lacks {name}, by which the cluster's Secrets are encrypted, or soon will be"));
    }
    if let Some(name) = pki::lost_keys(directory, kept).into_iter().find(|name| number(name) < writes.number()) {
        return Some(format!("still has {name}, which the cluster has dropped"));
    }
    let is_older = would_write.number() < writes.number();
    is_older.then(|| format!("has {} first, and the cluster writes by {}", would_write.name, writes.name))
}

/// The number at the end of a key's name; 0 where there is none.
fn number(name: &str) -> u64 {
    let end = name.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    name[end..].parse().unwrap_or(0)
}

#[cfg(test)]
pub(super) use testing::file as made;

/// The names of the keys in a file, the first of which writes.
#[cfg(test)]
pub(super) fn names(bytes: &[u8]) -> Vec<String> {
    Configuration::read("f", bytes).map(|file| file.keys.into_iter().map(|key| key.name).collect()).unwrap_or_default()
}

#[cfg(test)]
mod testing {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    pub fn secret(byte: u8) -> String {
        STANDARD.encode([byte; 32])
    }

    /// A file with these keys, by their names and what they are made of.
    pub fn file(keys: &[(&str, u8)]) -> Vec<u8> {
        let mut text = "# Never commit it.\napiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources:\n  - secrets\n  providers:\n  - secretbox:\n      keys:\n".to_owned();
        for (name, byte) in keys {
            text.push_str(&format!("      - name: {name}\n        secret: {}\n", secret(*byte)));
        }
        (text + "  - identity: {}\n").into_bytes()
    }
}

#[cfg(test)]
mod tests;
