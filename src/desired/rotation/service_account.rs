//! The key that signs the tokens of service accounts. The first key of sa.key signs, and what any key of sa.pub has signed is
//! accepted. The keys of sa.pub stand in the order in which they were made; that of sa.key says which one signs.

use super::decide::{Asked, Level};
use super::observed::{Observed, PUBLIC, Rotation, SIGNING};
use super::ring::Ring;
use crate::base::error::{Error, Finding, Result};
use crate::desired::pki;
use crate::desired::secrets::Tls;

/// What verifies tokens, and signs those of pods.
pub const API_SERVER: &str = "kube-apiserver";
/// What signs those in Secrets.
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";

/// Stands before a private key by which nothing was signed yet. PEM lets a line be there.
const UNUSED: &str = "# Made by `hoist certs rotate service-account`; nothing was signed by it yet.";
const BY_HAND: &str = "docs/rotation.md#the-key-of-service-accounts says what is rotated";
/// How many letters of a key's name tell it from others.
const SHOWN: usize = 8;

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    /// As tokens name it.
    id: String,
    private: String,
    public: String,
    is_unused: bool,
}

/// A block of a PEM file.
struct Block {
    id: String,
    text: String,
    is_unused: bool,
}

/// A rotation, or a cluster that has one key.
#[derive(Clone)]
pub struct ServiceAccountKey {
    keys: Ring<Key>,
}

impl ServiceAccountKey {
    /// Where it stands, by what the places have.
    ///
    /// # Errors
    /// What cannot be rotated, with why.
    pub fn of(seen: &Observed, asked: Asked) -> Result<Self> {
        let server = seen.secret(API_SERVER);
        let places = [
            (format!("Secret kube-system/{API_SERVER}"), &server),
            ("Secret kube-system/hoist-guard".to_owned(), &seen.guards_secret),
        ];
        let refused = |place: &str, message: String, remedy: &str| {
            Err(Error::Input(vec![Finding::new(place, message).remedy(remedy)]))
        };
        let publics = places.each_ref().map(|(_, files)| blocks(files.get(PUBLIC)));
        let (longest, order) =
            publics.iter().enumerate().max_by_key(|(_, keys)| keys.len()).unwrap_or((0, &publics[0]));
        let known = |id: &str| order.iter().any(|block| block.id == id);
        for ((place, files), public) in places.iter().zip(&publics) {
            let private = blocks(files.get(SIGNING));
            if let Some(other) = public.iter().chain(&private).find(|block| !known(&block.id)) {
                let message = format!("has the key {}, which {} has not", shown(&other.id), places[longest].0);
                return refused(place, message, "`hoist start` brings both what the asset directory has");
            }
        }
        let privates = [&server, &seen.guards_secret, &seen.secret(CONTROLLER_MANAGER)];
        let privates: Vec<_> = privates.iter().flat_map(|files| blocks(files.get(SIGNING))).collect();
        let mut keys = Vec::new();
        for public in order.iter().rev() {
            let Some(private) = privates.iter().find(|private| private.id == public.id) else {
                let message = format!("has the public key {}, whose other half is not in {SIGNING}", shown(&public.id));
                return refused(&format!("{}: {PUBLIC}", places[longest].0), message, BY_HAND);
            };
            keys.push(Key {
                id: public.id.clone(),
                private: private.text.clone(),
                public: public.text.clone(),
                // One place that has signed by it is enough.
                is_unused: privates.iter().filter(|other| other.id == public.id).all(|other| other.is_unused),
            });
        }
        if keys.is_empty() {
            return refused(
                &places[0].0,
                format!("has no {PUBLIC}"),
                "`hoist start` brings that of the asset directory",
            );
        }
        if let Some(files) = &seen.directory {
            let there: Vec<_> = blocks(files.get(PUBLIC)).into_iter().map(|block| block.id).collect();
            let is_older = |at: usize| there[at + 1..].iter().any(|id| known(id));
            let newer = there.iter().enumerate().find(|(at, id)| !known(id) && !is_older(*at));
            if let Some((_, id)) = newer {
                let message = format!("has the key {}, which the cluster has not", shown(id));
                let remedy = "if it is older, bring the cluster's there: docs/rotation.md#other-asset-directories has the command. If it is newer, `hoist start` brings it to the cluster";
                return refused(&format!("tls/{PUBLIC}"), message, remedy);
            }
        }
        Ok(Self { keys: Ring::new(keys, asked) })
    }
}

impl Rotation for ServiceAccountKey {
    fn staying(&self) -> String {
        shown(&self.keys.stays().id)
    }

    fn going(&self) -> Vec<String> {
        self.keys.going().map(|key| shown(&key.id)).collect()
    }

    fn mark(&self) -> String {
        self.keys.stays().id.clone()
    }

    fn is_unused(&self) -> bool {
        self.keys.going().all(|key| key.is_unused)
    }

    fn has_several(&self) -> bool {
        self.keys.all().len() > 1
    }

    fn begun(&self) -> Result<Box<dyn Rotation>> {
        let (private, public) = pki::signing_pair()?;
        let id = pki::key_ids(public.as_bytes()).remove(0);
        let keys = self.keys.clone().begun(Key { id, private, public, is_unused: true });
        Ok(Box::new(Self { keys }))
    }

    fn content(&self, level: Level) -> Result<Tls> {
        // sa.pub stands in the order in which keys were made.
        let accepted: Vec<_> = match level {
            Level::Alone => self.keys.alone(),
            _ => self.keys.all().iter().collect(),
        };
        let mut private = String::new();
        for (at, key) in self.keys.at(level).into_iter().enumerate() {
            if key.is_unused && at > 0 {
                private.push_str(&format!("{UNUSED}\n"));
            }
            private.push_str(&key.private);
        }
        let public: String = accepted.iter().rev().map(|key| key.public.as_str()).collect();
        Ok(Tls::from([(SIGNING.to_owned(), private.into_bytes()), (PUBLIC.to_owned(), public.into_bytes())]))
    }

    fn level(&self, files: &Tls) -> Level {
        let ids = |name: &str| files.get(name).map(|bytes| blocks(Some(bytes)).into_iter().map(|block| block.id));
        let private: Vec<_> = ids(SIGNING).into_iter().flatten().collect();
        // The controller manager has no other file.
        let public: Option<Vec<_>> = ids(PUBLIC).map(Iterator::collect);
        let is_alone = |ids: &Vec<String>| same(ids, self.keys.alone().into_iter());
        let has_all = |ids: &Vec<String>| self.keys.all().iter().all(|key| ids.contains(&key.id));
        let uses = private.first() == Some(&self.keys.stays().id);
        match () {
            () if uses && is_alone(&private) && public.as_ref().is_none_or(is_alone) => Level::Alone,
            () if !has_all(&private) || !public.as_ref().is_none_or(has_all) => Level::Lacks,
            () if uses => Level::Uses,
            () => Level::Knows,
        }
    }

    fn level_of_server(&self, component: &str, said: &[String]) -> Level {
        let Some((signs, accepts)) = said.split_first() else { return Level::Lacks };
        let uses = *signs == self.keys.stays().id;
        if component == CONTROLLER_MANAGER {
            return match () {
                () if uses => Level::Alone,
                () if self.keys.all().iter().any(|key| key.id == *signs) => Level::Knows,
                () => Level::Lacks,
            };
        }
        match () {
            () if uses && same(accepts, self.keys.alone().into_iter()) => Level::Alone,
            () if self.keys.all().iter().any(|key| !accepts.contains(&key.id)) => Level::Lacks,
            () if uses => Level::Uses,
            () => Level::Knows,
        }
    }
}

/// Why an asset directory would lead a cluster back whose guard keeps `kept`: it lacks the newest key, still has one, or signs by
/// one, that the cluster has left behind. `None` where it would not.
pub fn leads_back(kept: &Tls, directory: &Tls) -> Option<String> {
    let ids =
        |files: &Tls, name: &str| -> Vec<_> { blocks(files.get(name)).into_iter().map(|block| block.id).collect() };
    let (accepted, would_accept) = (ids(kept, PUBLIC), ids(directory, PUBLIC));
    let (newest, first) = (accepted.last()?, would_accept.first()?);
    let Some(at) = would_accept.iter().position(|id| id == newest) else {
        return Some(format!("has the key {}, and lacks {}, the newest of the cluster", shown(first), shown(newest)));
    };
    if let Some(id) = would_accept[..at].iter().find(|id| !accepted.contains(id)) {
        return Some(format!("still has the key {}, which the cluster has dropped", shown(id)));
    }
    let (signs, would_sign) = (ids(kept, SIGNING).into_iter().next()?, ids(directory, SIGNING).into_iter().next()?);
    let age = |id: &String| accepted.iter().position(|other| other == id);
    let is_older = age(&would_sign).is_some_and(|own| age(&signs).is_some_and(|kept| own < kept));
    is_older.then(|| format!("signs by the key {}, and the cluster by {}", shown(&would_sign), shown(&signs)))
}

/// As much of a key's name as people need.
pub fn shown(id: &str) -> String {
    id.chars().take(SHOWN).collect()
}

/// Whether these are the names of those keys, in whatever order.
fn same<'a>(ids: &[String], keys: impl Iterator<Item = &'a Key>) -> bool {
    let keys: Vec<_> = keys.map(|key| &key.id).collect();
    ids.len() == keys.len() && keys.iter().all(|id| ids.contains(id))
}

/// The keys of a PEM file, each with the text of its block.
fn blocks(bytes: Option<&Vec<u8>>) -> Vec<Block> {
    let text = bytes.map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
    let (mut found, mut block, mut is_unused) = (Vec::new(), String::new(), false);
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            block.clear();
        }
        is_unused |= line == UNUSED;
        block.push_str(line.trim_end());
        block.push('\n');
        if line.starts_with("-----END ") {
            let text = std::mem::take(&mut block);
            if let Some(id) = pki::key_ids(text.as_bytes()).pop() {
                found.push(Block { id, text, is_unused });
            }
            is_unused = false;
        }
    }
    found
}
