//! The key that Secrets are encrypted with. The first key of the first provider writes, and every key reads. Keys are told apart
//! by the number at the end of their names: the newest has the highest.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::decide::{Asked, Level, Seen, Server};
use crate::base::error::{Error, Finding, Result};
use crate::base::{files, yaml};
use crate::desired::pki::{self, ENCRYPTION, WITH_KEYS, list};

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

/// What is seen of each place.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// tls/encryption.yaml in guard's Secret.
    pub guards_secret: Vec<u8>,
    /// The same file in the Secret of the API servers.
    pub secret: Vec<u8>,
    /// The same in the asset directory on this controller, if there is one.
    pub directory: Option<Vec<u8>>,
    /// Whose guards do not keep what guard's Secret has, with why.
    pub guards_behind: Vec<String>,
    /// What is under way of rollouts, and which bridges stand.
    pub unsettled: Vec<String>,
    /// API servers read another file by themselves.
    pub reloads: bool,
    /// The checksum of the file that the API server of each controller has read; or why it does not say.
    pub servers: BTreeMap<String, Result<String, String>>,
    /// How many values in etcd do not begin with [`Rotation::prefix`].
    pub left: Option<u64>,
}

/// A rotation, or a cluster that has one key.
#[derive(Clone)]
pub struct Rotation {
    /// The one that the API servers have: its other parts are kept.
    base: Configuration,
    /// All keys that a place has, the newest first.
    keys: Vec<Key>,
    /// Which of these is to stay.
    stays: usize,
    is_back: bool,
}

impl Rotation {
    /// Where it stands, by what the places have.
    ///
    /// # Errors
    /// What cannot be rotated, with why.
    pub fn of(seen: &Observed, asked: Asked) -> Result<Self> {
        let base = Configuration::read(&format!("Secret kube-system/{READER}: {ENCRYPTION}"), &seen.secret)?;
        let guards =
            Configuration::read(&format!("Secret kube-system/hoist-guard: tls/{ENCRYPTION}"), &seen.guards_secret)?;
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
        if let Some(bytes) = &seen.directory {
            let directory = Configuration::read(&place, bytes)?;
            let known = |key: &&Key| !keys.contains(key) && key.number() > keys[0].number();
            if let Some(key) = directory.keys.iter().find(known) {
                let message = format!("has {}, which the cluster has not", key.name);
                return refused(
                    message,
                    "`hoist render` and `hoist start` bring an edit of it to the cluster; or take that key out again",
                );
            }
        }
        let is_back = asked == Asked::Abort && keys.len() > 1;
        Ok(Self { base, stays: usize::from(is_back), keys, is_back })
    }

    /// It with a new key, which is to stay.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn begun(mut self) -> Result<Self> {
        let number = self.keys.first().map_or(0, Key::number) + 1;
        self.keys.insert(0, Key { name: format!("key{number}"), secret: pki::encryption_key()? });
        (self.stays, self.is_back) = (0, false);
        Ok(self)
    }

    /// What every value begins with that is written by the key that is to stay.
    pub fn prefix(&self) -> String {
        format!("k8s:enc:{}:v1:{}:", self.base.provider, self.stays().name)
    }

    /// The name of the key that is to stay.
    pub fn staying(&self) -> &str {
        &self.stays().name
    }

    /// The names of those that are to go.
    pub fn going(&self) -> Vec<&str> {
        let goes = |key: &&Key| !self.alone().contains(key);
        self.keys.iter().filter(goes).map(|key| &*key.name).collect()
    }

    /// What a place has that is so far.
    pub fn content(&self, level: Level) -> Vec<u8> {
        let stays = self.stays();
        let others = self.keys.iter().filter(|key| *key != stays);
        let keys: Vec<_> = match level {
            Level::Lacks | Level::Knows => others.chain([stays]).collect(),
            Level::Uses => [stays].into_iter().chain(others).collect(),
            Level::Alone => self.alone(),
        };
        self.base.with(&keys)
    }

    /// How far all is.
    pub fn seen(&self, observed: &Observed, asked: Asked) -> Seen {
        let level = |bytes: &[u8]| self.level(bytes);
        let secret = level(&observed.secret);
        let mut sums: BTreeMap<_, _> =
            [Level::Knows, Level::Uses, Level::Alone].map(|level| (file_sum(&self.content(level)), level)).into();
        sums.insert(file_sum(&observed.secret), secret);
        let server = |(node, said): (&String, &Result<String, String>)| Server {
            component: READER,
            node: node.clone(),
            level: said.clone().map(|sum| sums.get(&sum).copied().unwrap_or(Level::Lacks)),
        };
        let servers: Vec<_> = observed.servers.iter().map(server).collect();
        let directory = observed.directory.as_deref().map(level);
        let is_behind = |level: &Level| *level != Level::Alone;
        let is_under_way = self.keys.len() > 1
            || !observed.guards_behind.is_empty()
            // A bridge may have answered in a server's place.
            || !observed.unsettled.is_empty()
            || directory.iter().any(is_behind)
            || servers.iter().any(|server| server.level.as_ref().is_ok_and(is_behind));
        Seen {
            asked,
            is_under_way,
            guards_secret: level(&observed.guards_secret),
            directory,
            guards_behind: observed.guards_behind.clone(),
            secrets: vec![(READER, secret)],
            unsettled: observed.unsettled.clone(),
            reloads: observed.reloads,
            servers,
            left: observed.left,
        }
    }

    fn stays(&self) -> &Key {
        &self.keys[self.stays]
    }

    /// The keys at the end, in their order.
    fn alone(&self) -> Vec<&Key> {
        match self.is_back {
            // Those that were there before the newest.
            true => self.keys.iter().skip(1).collect(),
            false => vec![self.stays()],
        }
    }

    fn level(&self, bytes: &[u8]) -> Level {
        let Ok(Configuration { keys, .. }) = Configuration::read("", bytes) else { return Level::Lacks };
        let uses = keys.first() == Some(self.stays());
        match () {
            () if uses && keys.iter().eq(self.alone()) => Level::Alone,
            () if self.keys.iter().any(|key| !keys.contains(key)) => Level::Lacks,
            () if uses => Level::Uses,
            () => Level::Knows,
        }
    }
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
mod tests;
