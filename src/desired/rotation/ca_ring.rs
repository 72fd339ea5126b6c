//! CAs that are rotated: what those of the front proxy and those of etcd have in common. The first CA of a file issues, and all of
//! them are trusted. Of two, the one that begins later is newer. Servers name the CAs that they trust in each handshake, in the order
//! of their file: so CAs are told apart by their names.

use time::OffsetDateTime;

use super::decide::{Asked, Level};
use super::observed::Observed;
use super::ring::Ring;
use crate::base::error::{Error, Finding, Result};
use crate::desired::pki::{self, Ca};
use crate::desired::secrets::Tls;

/// The component whose Secret has them in any case.
const API_SERVER: &str = "kube-apiserver";

/// Where a kind of CA is.
pub(super) struct Place {
    /// The CAs, in tls/.
    pub crt: &'static str,
    /// Their keys.
    pub key: &'static str,
    /// Where one reads what is rotated and what is not.
    pub by_hand: &'static str,
}

/// The CAs of guard's Secret.
#[derive(Clone)]
pub(super) struct Cas {
    /// They themselves.
    pub ring: Ring<Ca>,
    /// Those that others trust yet.
    pub dropped: Vec<String>,
}

impl Cas {
    /// Those that the places have.
    ///
    /// # Errors
    /// What cannot be rotated, with why.
    pub fn of(seen: &Observed, asked: Asked, place: &Place) -> Result<Self> {
        let refused = |place: &str, message: String, remedy: &str| {
            Err(Error::Input(vec![Finding::new(place, message).remedy(remedy)]))
        };
        let (crt, by_hand) = (place.crt, place.by_hand);
        let server = seen.secret(API_SERVER);
        let mut cas = pki::cas(bytes(&seen.guards_secret, crt), bytes(&seen.guards_secret, place.key));
        cas.sort_by_key(|ca| std::cmp::Reverse(ca.begins));
        let Some(newest) = cas.first() else {
            let remedy = "`hoist start` brings that of the asset directory";
            return refused("Secret kube-system/hoist-guard", format!("has no {crt}"), remedy);
        };
        let is_known = |ca: &Ca| cas.iter().any(|known| known.crt == ca.crt);
        let in_server = pki::cas(bytes(&server, crt), b"");
        if !in_server.iter().any(is_known) {
            let message = format!("has no CA of those that guard's Secret has, such as {}", newest.name);
            let remedy = "`hoist start` brings both what the asset directory has";
            return refused("Secret kube-system/kube-apiserver", message, remedy);
        }
        // Guard's Secret has each from its beginning, and is the first to drop one.
        let in_secrets = seen.secrets.iter().flat_map(|(_, files)| pki::cas(bytes(files, crt), b""));
        let mut dropped: Vec<_> = in_secrets.filter(|ca| !is_known(ca)).map(|ca| ca.name).collect();
        dropped.sort();
        dropped.dedup();
        let file = format!("tls/{crt}");
        if let Some(ca) = cas.iter().find(|ca| !ca.is_root) {
            return refused(&file, format!("has the CA {}, which another has issued", ca.name), by_hand);
        }
        for (at, ca) in cas.iter().enumerate() {
            if cas[..at].iter().any(|other| other.name == ca.name || other.begins == ca.begins) {
                return refused(&file, format!("has two CAs {}, and none of them is newer", ca.name), by_hand);
            }
        }
        if let Some(ca) = cas.iter().find(|ca| ca.key.is_none()) {
            let message = format!("the key of the CA {} is not there", ca.name);
            return refused(&format!("Secret kube-system/hoist-guard: tls/{}", place.key), message, by_hand);
        }
        let directory = seen.directory.as_ref().map(|files| pki::cas(bytes(files, crt), b"")).unwrap_or_default();
        let is_newer = |ca: &&Ca| !is_known(ca) && !in_server.contains(ca) && ca.begins > newest.begins;
        if let Some(ca) = directory.iter().find(is_newer) {
            let message = format!("has the CA {}, which the cluster has not", ca.name);
            let remedy = "`hoist start` brings it to the cluster; or take it out again";
            return refused(&file, message, remedy);
        }
        Ok(Self { ring: Ring::new(cas, asked), dropped })
    }

    /// They with a new one, which is to stay.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn begun(&self, (crt, key): (String, String)) -> Result<Self> {
        let made = pki::cas(crt.as_bytes(), key.as_bytes()).into_iter().next();
        let made = made.ok_or_else(|| Error::failed("make a CA", "it cannot be read"))?;
        Ok(Self { ring: self.ring.clone().begun(made), ..self.clone() })
    }

    /// What those are called that are to go.
    pub fn going(&self) -> Vec<String> {
        self.ring.going().map(|ca| ca.name.clone()).chain(self.dropped.clone()).collect()
    }

    /// Places have more than one.
    pub fn are_several(&self) -> bool {
        self.ring.all().len() > 1 || !self.dropped.is_empty()
    }

    /// The two files of a place that is so far.
    pub fn content(&self, level: Level, place: &Place) -> Tls {
        let cas = self.ring.at(level);
        let crt: String = cas.iter().map(|ca| ca.crt.as_str()).collect();
        let key: String = cas.iter().filter_map(|ca| ca.key.as_deref()).collect();
        Tls::from([(place.crt.to_owned(), crt.into_bytes()), (place.key.to_owned(), key.into_bytes())])
    }

    /// How far a place is that trusts these, in this order; `has_order` where it says something.
    pub fn level_of(&self, names: &[&String], has_order: bool) -> Level {
        let (stays, alone) = (&self.ring.stays().name, self.ring.alone());
        let uses = !has_order || names.first() == Some(&stays);
        let is_alone = names.len() == alone.len() && alone.iter().all(|ca| names.contains(&&ca.name));
        match () {
            () if uses && is_alone => Level::Alone,
            () if !self.ring.all().iter().all(|ca| names.contains(&&ca.name)) => Level::Lacks,
            () if uses => Level::Uses,
            () => Level::Knows,
        }
    }

    /// How far files are, in which the first CA has issued each of `leaves` that is there.
    pub fn level(&self, files: &Tls, place: &Place, leaves: &[&str]) -> Level {
        let cas = pki::cas(bytes(files, place.crt), b"");
        // One of the same name that is another is a stranger.
        let is_known = |ca: &Ca| self.ring.all().iter().any(|known| known.crt == ca.crt);
        let stranger = String::new();
        let names: Vec<_> = cas.iter().map(|ca| if is_known(ca) { &ca.name } else { &stranger }).collect();
        let level = self.level_of(&names, true);
        let first = cas.first().map(|ca| ca.crt.as_bytes()).unwrap_or_default();
        let are_of_it = leaves.iter().filter_map(|path| files.get(*path)).all(|leaf| pki::is_issued_by(first, leaf));
        let keys = files.get(place.key);
        let has_keys =
            keys.is_none_or(|keys| pki::cas(bytes(files, place.crt), keys).iter().all(|ca| ca.key.is_some()));
        if are_of_it && has_keys { level } else { level.min(Level::Lacks) }
    }
}

/// Why an asset directory would lead a cluster back whose guard keeps `kept`, by the CAs that both have in `crt`: it lacks the newest
/// CA, still has one that the cluster has dropped, or issues by an older one. `None` where it would not.
pub(super) fn leads_back(kept: &Tls, directory: &Tls, crt: &str) -> Option<String> {
    let (kept, directory) = (pki::cas(bytes(kept, crt), b""), pki::cas(bytes(directory, crt), b""));
    let newest = kept.iter().max_by_key(|ca| ca.begins)?;
    let (issues, would_issue) = (kept.first()?, directory.first()?);
    if directory.iter().all(|ca| ca.begins < newest.begins) {
        return Some(format!("has the CA {}, and lacks {}, the newest of the cluster", would_issue.name, newest.name));
    }
    let is_dropped = |ca: &&Ca| ca.begins < newest.begins && !kept.iter().any(|known| known.crt == ca.crt);
    if let Some(ca) = directory.iter().find(is_dropped) {
        return Some(format!("still has the CA {}, which the cluster has dropped", ca.name));
    }
    let is_older = would_issue.begins < issues.begins;
    is_older.then(|| format!("issues by the CA {}, and the cluster by {}", would_issue.name, issues.name))
}

/// Of the places that have the leaf `path`, the one that ends last.
pub(super) fn last<'a>(path: &str, places: impl IntoIterator<Item = &'a Tls>) -> Option<Vec<u8>> {
    let leaves = places.into_iter().filter_map(|files| files.get(path));
    leaves.filter(|pem| end(pem).is_some()).max_by_key(|pem| end(pem)).cloned()
}

/// When a certificate (PEM) ends.
pub(super) fn end(pem: &[u8]) -> Option<OffsetDateTime> {
    pki::inspect(pem).map(|info| info.not_after).ok()
}

/// A file; nothing where there is none.
pub(super) fn bytes<'a>(files: &'a Tls, path: &str) -> &'a [u8] {
    files.get(path).map(Vec::as_slice).unwrap_or_default()
}
