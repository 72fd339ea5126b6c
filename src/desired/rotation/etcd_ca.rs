//! The CA of etcd: it issues what etcd's members serve, what they show each other, and what their clients show. No member and no API
//! server reads anew whom it trusts: each is started again for that, under both CAs, one after the other. Their own certificates they
//! read anew.
//!
//! | | etcd's members | API servers |
//! |---|---|---|
//! | the old one issues, both are trusted | begin again, one after the other | are rolled |
//! | the new one issues | show it by themselves, once guard has issued what is theirs anew | connect with it, sooner or later |
//! | the new one alone is trusted | begin again, after all API servers | are rolled, and show what their Secret has: no old certificate is left when the first member refuses it |
//!
//! What is not so: a new CA that the old one has signed, so that nobody need begin again to trust it. hoist's CAs allow none below
//! them (a path length of 0), and Go, unlike others, holds the root to that.

use super::ca_ring::{self, Cas, Place, bytes};
use super::decide::{Asked, Level};
use super::observed::{Clock, ETCD_CA as CA, ETCD_CA_KEY as CA_KEY, ETCD_CLIENTS as CLIENTS, Observed, Rotation};
use crate::base::error::{Error, Finding, Result};
use crate::desired::pki;
use crate::desired::secrets::Tls;

/// Etcd's clients, and the first to begin again.
pub const API_SERVER: &str = "kube-apiserver";
/// Etcd's members.
pub const MEMBER: &str = "etcd";

const PLACE: Place = Place { crt: CA, key: CA_KEY, by_hand: "docs/rotation.md#the-ca-of-etcd says what is rotated" };

/// A rotation, or a cluster that has one CA.
#[derive(Clone)]
pub struct EtcdCa {
    cas: Cas,
    /// Those of [`CLIENTS`], each as it ends last, of all places.
    clients: Vec<(&'static str, Vec<u8>)>,
    clock: Clock,
}

impl EtcdCa {
    /// Where it stands, by what the places have. The Secret of the API servers is there by the names that tls/ has.
    ///
    /// # Errors
    /// What cannot be rotated, with why.
    pub fn of(seen: &Observed, asked: Asked) -> Result<Self> {
        let cas = Cas::of(seen, asked, &PLACE)?;
        let server = seen.secret(API_SERVER);
        let mut clients = Vec::new();
        for path in CLIENTS {
            let Some(client) = ca_ring::last(path, [&server, &seen.guards_secret]) else {
                let finding = Finding::new("Secret kube-system/hoist-guard", format!("has no {path}"));
                return Err(Error::Input(vec![finding.remedy("`hoist start` brings that of the asset directory")]));
            };
            clients.push((path, client));
        }
        Ok(Self { cas, clients, clock: seen.clock })
    }
}

impl Rotation for EtcdCa {
    fn staying(&self) -> String {
        self.cas.ring.stays().name.clone()
    }

    fn going(&self) -> Vec<String> {
        self.cas.going()
    }

    fn mark(&self) -> String {
        self.staying()
    }

    /// A certificate is replaced everywhere.
    fn is_unused(&self) -> bool {
        true
    }

    fn has_several(&self) -> bool {
        self.cas.are_several()
    }

    fn begun(&self) -> Result<Box<dyn Rotation>> {
        let cas = self.cas.begun(pki::etcd_ca(self.clock.cas, self.clock.now)?)?;
        Ok(Box::new(Self { cas, ..self.clone() }))
    }

    fn content(&self, level: Level) -> Result<Tls> {
        let mut content = self.cas.content(level, &PLACE);
        let first = self.cas.ring.at(level).into_iter().next();
        for (path, client) in &self.clients {
            let made = match first {
                Some(ca) if !pki::is_issued_by(ca.crt.as_bytes(), client) => {
                    pki::reissue_by(client, ca, self.clock.leaves, self.clock.now)?
                }
                _ => client.clone(),
            };
            content.insert((*path).to_owned(), made);
        }
        Ok(content)
    }

    fn level(&self, files: &Tls) -> Level {
        self.cas.level(files, &PLACE, &CLIENTS)
    }

    /// What is said is by which CA that is issued which it shows, and behind that the CAs that it trusts, as it began with them. By
    /// which certificate an API server connects cannot be seen; it has the one of its Secret when it begins, which it does once more
    /// before any member drops a CA.
    fn level_of_server(&self, component: &str, said: &[String]) -> Level {
        let Some((issuer, trusted)) = said.split_first() else { return Level::Lacks };
        let trusted: Vec<_> = trusted.iter().collect();
        match self.cas.level_of(&trusted, false) {
            Level::Lacks => Level::Lacks,
            level if component == API_SERVER || *issuer == self.staying() => level,
            _ => Level::Knows,
        }
    }
}

/// Why an asset directory would lead a cluster back whose guard keeps `kept`, as [`ca_ring::leads_back`] has it.
pub fn leads_back(kept: &Tls, directory: &Tls) -> Option<String> {
    ca_ring::leads_back(kept, directory, CA)
}

/// Whether a server that has said this, as [`Rotation::level_of_server`] has it, trusts those CAs that guard's Secret has in `kept`,
/// and no other: it need not begin again, and what it lacks it reads by itself.
pub fn has_only_to_read(said: &[String], kept: &Tls) -> bool {
    let kept = pki::ca_names(bytes(kept, CA));
    let trusted = said.get(1..).unwrap_or_default();
    kept.iter().all(|name| trusted.contains(name)) && trusted.iter().all(|name| kept.contains(name))
}
