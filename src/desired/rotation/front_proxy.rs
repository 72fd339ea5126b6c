//! The CA of the front proxy: API servers show aggregated API servers a certificate of it, and whoever has such a certificate speaks
//! for any user.

use super::ca_ring::{self, Cas, Place, bytes, end};
use super::decide::{Asked, Level};
use super::observed::{CA, CA_KEY, CLIENT, CLIENT_KEY, Clock, Observed, Rotation};
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
const PLACE: Place = Place { crt: CA, key: CA_KEY, by_hand: BY_HAND };
/// How the names of CAs begin that hoist and kubeadm make.
const PREFIX: &str = "front-proxy-ca";

/// A rotation, or a cluster that has one CA.
#[derive(Clone)]
pub struct FrontProxyCa {
    cas: Cas,
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
        let cas = Cas::of(seen, asked, &PLACE)?;
        let server = seen.secret(API_SERVER);
        let Some(client) = ca_ring::last(CLIENT, [&server, &seen.guards_secret]) else {
            let finding = Finding::new("Secret kube-system/kube-apiserver", format!("has no {CLIENT}"));
            return Err(Error::Input(vec![finding.remedy(BY_HAND)]));
        };
        let key = bytes(&seen.guards_secret, CLIENT_KEY).to_vec();
        Ok(Self { cas, client, key, clock: seen.clock })
    }

    /// The certificate by this CA. It ends after all others: guards keep the one that ends last.
    fn client_of(&self, ca: &Ca) -> Result<Vec<u8>> {
        let other = end(&self.client).unwrap_or(self.clock.now);
        match pki::is_issued_by(ca.crt.as_bytes(), &self.client) {
            true => Ok(self.client.clone()),
            false => pki::front_proxy_client(&self.key, ca, self.clock.leaves, self.clock.now, other),
        }
    }
}

impl Rotation for FrontProxyCa {
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
        let cas = self.cas.begun(pki::front_proxy_ca(self.clock.cas, self.clock.now)?)?;
        Ok(Box::new(Self { cas, ..self.clone() }))
    }

    fn content(&self, level: Level) -> Result<Tls> {
        let first = self.cas.ring.at(level).into_iter().next();
        let client = first.map_or_else(|| Ok(self.client.clone()), |ca| self.client_of(ca))?;
        let mut content = self.cas.content(level, &PLACE);
        content.extend([(CLIENT.to_owned(), client), (CLIENT_KEY.to_owned(), self.key.clone())]);
        Ok(content)
    }

    /// Controller managers and schedulers have no certificate of it.
    fn level(&self, files: &Tls) -> Level {
        self.cas.level(files, &PLACE, &[CLIENT])
    }

    /// What servers say are the names of the CAs that they trust, of others too. Those of an aggregated API server that names none of
    /// these do not come of the ConfigMap.
    fn level_of_server(&self, component: &str, said: &[String]) -> Level {
        let is_one =
            |name: &&String| name.starts_with(PREFIX) || self.cas.ring.all().iter().any(|ca| ca.name == **name);
        let names: Vec<_> = said.iter().filter(is_one).collect();
        match component {
            AGGREGATED if names.is_empty() => Level::Alone,
            _ => self.cas.level_of(&names, component == API_SERVER),
        }
    }
}

/// Why an asset directory would lead a cluster back whose guard keeps `kept`, as [`ca_ring::leads_back`] has it.
pub fn leads_back(kept: &Tls, directory: &Tls) -> Option<String> {
    ca_ring::leads_back(kept, directory, CA)
}
