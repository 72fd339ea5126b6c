//! The CA of the front proxy: API servers show aggregated API servers a certificate of it, and whoever has such a certificate speaks
//! for any user. The first CA of front-proxy-ca.crt issues, and all of them are trusted. Of two, the one that begins later is newer.
//! Servers name the CAs that they trust in each handshake, in the order of their file: so CAs are told apart by their names.

use super::decide::{Asked, Level};
use super::observed::{CA, CA_KEY, CLIENT, CLIENT_KEY, Clock, Observed, Rotation};
use super::ring::Ring;
use crate::base::error::{Error, Finding, Result};
use crate::desired::pki::{self, Ca};
use crate::desired::secrets::Tls;

/// What shows the certificate.
pub const API_SERVER: &str = "kube-apiserver";
/// The ConfigMap by which aggregated API servers learn whom to trust. API servers add their CAs to it, and take none away.
pub const CONFIG_MAP: &str = "extension-apiserver-authentication";
/// What is shown the certificate.
pub const AGGREGATED: &str = "the aggregated API server";

const BY_HAND: &str = "docs/rotation.md#the-ca-of-the-front-proxy says what is rotated";
/// How the names of CAs begin that hoist and kubeadm make.
const PREFIX: &str = "front-proxy-ca";

/// A rotation, or a cluster that has one CA.
#[derive(Clone)]
pub struct FrontProxyCa {
    /// Those of guard's Secret.
    cas: Ring<Ca>,
    /// Those that others trust yet.
    dropped: Vec<String>,
    /// The certificate that ends last, of all places.
    client: Vec<u8>,
    /// Its key.
    key: Vec<u8>,
    clock: Clock,
}

impl FrontProxyCa {
    /// Where it stands, by what the places have.
    ///
    /// # Errors
    /// What cannot be rotated, with why.
    pub fn of(seen: &Observed, asked: Asked) -> Result<Self> {
        let refused = |place: &str, message: String, remedy: &str| {
            Err(Error::Input(vec![Finding::new(place, message).remedy(remedy)]))
        };
        let server = seen.secret(API_SERVER);
        let mut cas = pki::cas(bytes(&seen.guards_secret, CA), bytes(&seen.guards_secret, CA_KEY));
        cas.sort_by_key(|ca| std::cmp::Reverse(ca.begins));
        let Some(newest) = cas.first() else {
            let remedy = "`hoist start` brings that of the asset directory";
            return refused("Secret kube-system/hoist-guard", format!("has no {CA}"), remedy);
        };
        let is_known = |ca: &Ca| cas.iter().any(|known| known.crt == ca.crt);
        let in_server = pki::cas(bytes(&server, CA), b"");
        if !in_server.iter().any(is_known) {
            let message = format!("has no CA of those that guard's Secret has, such as {}", newest.name);
            let remedy = "`hoist start` brings both what the asset directory has";
            return refused("Secret kube-system/kube-apiserver", message, remedy);
        }
        // Guard's Secret has each from its beginning, and is the first to drop one.
        let in_secrets = seen.secrets.iter().flat_map(|(_, files)| pki::cas(bytes(files, CA), b""));
        let mut dropped: Vec<_> = in_secrets.filter(|ca| !is_known(ca)).map(|ca| ca.name).collect();
        dropped.sort();
        dropped.dedup();
        let place = format!("tls/{CA}");
        if let Some(ca) = cas.iter().find(|ca| !ca.is_root) {
            return refused(&place, format!("has the CA {}, which another has issued", ca.name), BY_HAND);
        }
        for (at, ca) in cas.iter().enumerate() {
            if cas[..at].iter().any(|other| other.name == ca.name || other.begins == ca.begins) {
                return refused(&place, format!("has two CAs {}, and none of them is newer", ca.name), BY_HAND);
            }
        }
        if let Some(ca) = cas.iter().find(|ca| ca.key.is_none()) {
            let message = format!("the key of the CA {} is not there", ca.name);
            return refused(&format!("Secret kube-system/hoist-guard: tls/{CA_KEY}"), message, BY_HAND);
        }
        let directory = seen.directory.as_ref().map(|files| pki::cas(bytes(files, CA), b"")).unwrap_or_default();
        let is_newer = |ca: &&Ca| !is_known(ca) && !in_server.contains(ca) && ca.begins > newest.begins;
        if let Some(ca) = directory.iter().find(is_newer) {
            let message = format!("has the CA {}, which the cluster has not", ca.name);
            let remedy = "`hoist start` brings it to the cluster; or take it out again";
            return refused(&place, message, remedy);
        }
        let clients = [&server, &seen.guards_secret].into_iter().filter_map(|files| files.get(CLIENT));
        let Some(client) = clients.filter(|pem| end(pem).is_some()).max_by_key(|pem| end(pem)).cloned() else {
            return refused("Secret kube-system/kube-apiserver", format!("has no {CLIENT}"), BY_HAND);
        };
        let key = bytes(&seen.guards_secret, CLIENT_KEY).to_vec();
        Ok(Self { cas: Ring::new(cas, asked), dropped, client, key, clock: seen.clock })
    }

    /// The certificate by this CA. It ends after all others: guards keep the one that ends last.
    fn client_of(&self, ca: &Ca) -> Result<Vec<u8>> {
        let other = end(&self.client).unwrap_or(self.clock.now);
        match pki::is_issued_by(ca.crt.as_bytes(), &self.client) {
            true => Ok(self.client.clone()),
            false => pki::front_proxy_client(&self.key, ca, self.clock.leaves, self.clock.now, other),
        }
    }

    /// How far a place is that trusts these, in this order; `has_order` where it says something.
    fn level_of(&self, names: &[&String], has_order: bool) -> Level {
        let (stays, alone) = (&self.cas.stays().name, self.cas.alone());
        let uses = !has_order || names.first() == Some(&stays);
        let is_alone = names.len() == alone.len() && alone.iter().all(|ca| names.contains(&&ca.name));
        match () {
            () if uses && is_alone => Level::Alone,
            () if !self.cas.all().iter().all(|ca| names.contains(&&ca.name)) => Level::Lacks,
            () if uses => Level::Uses,
            () => Level::Knows,
        }
    }
}

impl Rotation for FrontProxyCa {
    fn staying(&self) -> String {
        self.cas.stays().name.clone()
    }

    fn going(&self) -> Vec<String> {
        self.cas.going().map(|ca| ca.name.clone()).chain(self.dropped.clone()).collect()
    }

    fn mark(&self) -> String {
        self.staying()
    }

    /// A certificate is replaced everywhere.
    fn is_unused(&self) -> bool {
        true
    }

    fn has_several(&self) -> bool {
        self.cas.all().len() > 1 || !self.dropped.is_empty()
    }

    fn begun(&self) -> Result<Box<dyn Rotation>> {
        let (crt, key) = pki::front_proxy_ca(self.clock.cas, self.clock.now)?;
        let made = pki::cas(crt.as_bytes(), key.as_bytes()).into_iter().next();
        let made = made.ok_or_else(|| Error::failed("make a CA of the front proxy", "it cannot be read"))?;
        Ok(Box::new(Self { cas: self.cas.clone().begun(made), ..self.clone() }))
    }

    fn content(&self, level: Level) -> Result<Tls> {
        let cas = self.cas.at(level);
        let crt: String = cas.iter().map(|ca| ca.crt.as_str()).collect();
        let key: String = cas.iter().filter_map(|ca| ca.key.as_deref()).collect();
        let client = cas.first().map_or_else(|| Ok(self.client.clone()), |ca| self.client_of(ca))?;
        Ok(Tls::from([
            (CA.to_owned(), crt.into_bytes()),
            (CA_KEY.to_owned(), key.into_bytes()),
            (CLIENT.to_owned(), client),
            (CLIENT_KEY.to_owned(), self.key.clone()),
        ]))
    }

    fn level(&self, files: &Tls) -> Level {
        let cas = pki::cas(bytes(files, CA), b"");
        // One of the same name that is another is a stranger.
        let is_known = |ca: &Ca| self.cas.all().iter().any(|known| known.crt == ca.crt);
        let stranger = String::new();
        let names: Vec<_> = cas.iter().map(|ca| if is_known(ca) { &ca.name } else { &stranger }).collect();
        let level = self.level_of(&names, true);
        // Controller managers and schedulers have no certificate of it.
        let is_of_it = files
            .get(CLIENT)
            .is_none_or(|client| cas.first().is_some_and(|ca| pki::is_issued_by(ca.crt.as_bytes(), client)));
        let has_keys =
            files.get(CA_KEY).is_none_or(|keys| pki::cas(bytes(files, CA), keys).iter().all(|ca| ca.key.is_some()));
        if is_of_it && has_keys { level } else { level.min(Level::Lacks) }
    }

    /// What servers say are the names of the CAs that they trust, of others too. Those of an aggregated API server that names none of
    /// these do not come of the ConfigMap.
    fn level_of_server(&self, component: &str, said: &[String]) -> Level {
        let is_one = |name: &&String| name.starts_with(PREFIX) || self.cas.all().iter().any(|ca| ca.name == **name);
        let names: Vec<_> = said.iter().filter(is_one).collect();
        match component {
            AGGREGATED if names.is_empty() => Level::Alone,
            _ => self.level_of(&names, component == API_SERVER),
        }
    }
}

/// Why an asset directory would lead a cluster back whose guard keeps `kept`: it lacks the newest CA, still has one that the cluster
/// has dropped, or issues by an older one. `None` where it would not.
pub fn leads_back(kept: &Tls, directory: &Tls) -> Option<String> {
    let (kept, directory) = (pki::cas(bytes(kept, CA), b""), pki::cas(bytes(directory, CA), b""));
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

fn bytes<'a>(files: &'a Tls, path: &str) -> &'a [u8] {
    files.get(path).map(Vec::as_slice).unwrap_or_default()
}

fn end(pem: &[u8]) -> Option<time::OffsetDateTime> {
    pki::inspect(pem).map(|info| info.not_after).ok()
}
