//! What is seen of all places, whatever is rotated; and how far each is.

use std::time::Duration;

use time::OffsetDateTime;

use super::decide::{Asked, Left, Level, Seen, Server};
use crate::base::error::Result;
use crate::desired::pki::ENCRYPTION;
use crate::desired::secrets::Tls;

/// What can be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// The key that Secrets are encrypted with in etcd.
    EncryptionKey,
    /// The key that signs the tokens of service accounts.
    ServiceAccount,
    /// The CA of what API servers show to aggregated ones.
    FrontProxyCa,
    /// The CA of etcd, its members and their clients.
    EtcdCa,
}

/// The key of a service account's tokens, and its public half, in tls/.
pub const SIGNING: &str = "sa.key";
/// The same.
pub const PUBLIC: &str = "sa.pub";
/// The front proxy's CA, its key, and the certificate that it has issued with the key of that, in tls/.
pub const CA: &str = "front-proxy-ca.crt";
/// The same.
pub const CA_KEY: &str = "front-proxy-ca.key";
/// The same.
pub const CLIENT: &str = "front-proxy-client.crt";
/// The same.
pub const CLIENT_KEY: &str = "front-proxy-client.key";
/// The CAs of etcd and their keys, in tls/.
pub const ETCD_CA: &str = "etcd/ca.crt";
/// The same.
pub const ETCD_CA_KEY: &str = "etcd/ca.key";
/// The certificates that all controllers share: the API servers', and that of whoever looks whether etcd is well. Those that members
/// serve and show each other are each controller's own, and its guard issues them.
pub const ETCD_CLIENTS: [&str; 2] = ["apiserver-etcd-client.crt", "etcd/healthcheck-client.crt"];

impl Keys {
    /// As the command has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EncryptionKey => "encryption-key",
            Self::ServiceAccount => "service-account",
            Self::FrontProxyCa => "front-proxy-ca",
            Self::EtcdCa => "etcd-ca",
        }
    }

    /// The files of tls/ that a rotation changes.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Self::EncryptionKey => &[ENCRYPTION],
            Self::ServiceAccount => &[SIGNING, PUBLIC],
            Self::FrontProxyCa => &[CA, CA_KEY, CLIENT, CLIENT_KEY],
            Self::EtcdCa => &[ETCD_CA, ETCD_CA_KEY, ETCD_CLIENTS[0], ETCD_CLIENTS[1]],
        }
    }

    /// The components whose Secrets have such files, in the order in which they get them, each with the files by their names in the
    /// Secret; [`in_tls`] has those of tls/. What is accepted changes last: until then all places know that there is another.
    pub fn secrets(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::EncryptionKey => &[("kube-apiserver", &[ENCRYPTION])],
            Self::ServiceAccount => &[("kube-controller-manager", &[SIGNING]), ("kube-apiserver", &[SIGNING, PUBLIC])],
            Self::FrontProxyCa => &[
                ("kube-scheduler", &[CA]),
                ("kube-controller-manager", &[CA]),
                ("kube-apiserver", &[CA, CLIENT, CLIENT_KEY]),
            ],
            Self::EtcdCa => &[("kube-apiserver", &[IN_SECRET, ETCD_CLIENTS[0]])],
        }
    }
}

/// What the CAs of etcd are called in the Secret of the API servers.
const IN_SECRET: &str = "etcd-ca.crt";

/// The name that a file of a component's Secret has in tls/.
pub fn in_tls(name: &str) -> &str {
    if name == IN_SECRET { ETCD_CA } else { name }
}

/// What is seen of each place. Files are those of tls/, by their paths there.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// In guard's Secret.
    pub guards_secret: Tls,
    /// In the Secrets of components.
    pub secrets: Vec<(&'static str, Tls)>,
    /// In the asset directory on this controller, if there is one.
    pub directory: Option<Tls>,
    /// Whose guards do not keep what guard's Secret has, with why.
    pub guards_behind: Vec<String>,
    /// What is under way of rollouts, and which bridges stand.
    pub unsettled: Vec<String>,
    /// What servers have said. None is asked while guards are behind or something is under way: a bridge might answer.
    pub servers: Vec<Word>,
    /// What is still of the old key; `None` before it was looked at.
    pub left: Option<Left>,
    /// For certificates that are made.
    pub clock: Clock,
}

/// The time, and how long certificates live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The time.
    pub now: OffsetDateTime,
    /// A CA's life.
    pub cas: Duration,
    /// A leaf's life.
    pub leaves: Duration,
}

impl Default for Clock {
    fn default() -> Self {
        Self { now: OffsetDateTime::UNIX_EPOCH, cas: Duration::ZERO, leaves: Duration::ZERO }
    }
}

/// What a server says of the keys that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its component.
    pub component: &'static str,
    /// Where it runs.
    pub node: String,
    /// Which keys it has, in the form of what is rotated; or why it does not say.
    pub said: Result<Vec<String>, String>,
    /// It reads what is new by itself.
    pub reloads: bool,
}

impl Observed {
    /// The files of a component's Secret; none where there is no such Secret.
    pub fn secret(&self, component: &str) -> Tls {
        let found = self.secrets.iter().find(|(name, _)| *name == component);
        found.map(|(_, files)| files.clone()).unwrap_or_default()
    }
}

/// A rotation, or a cluster that has one key, as the places have it.
pub trait Rotation: Send + Sync {
    /// What the key is called that is to stay.
    fn staying(&self) -> String;
    /// What those are called that are to go.
    fn going(&self) -> Vec<String>;
    /// By what one tells that something is of the key that is to stay: a value in etcd by what it begins with, a token by the
    /// name of its key.
    fn mark(&self) -> String;
    /// Nothing can be of what is to go: it was made for this rotation, and never used.
    fn is_unused(&self) -> bool;
    /// Places have more than one key.
    fn has_several(&self) -> bool;
    /// It with a new key, which is to stay.
    ///
    /// # Errors
    /// The system has no randomness.
    fn begun(&self) -> Result<Box<dyn Rotation>>;
    /// What a place has that is so far.
    ///
    /// # Errors
    /// A certificate that cannot be made.
    fn content(&self, level: Level) -> Result<Tls>;
    /// How far a place is.
    fn level(&self, files: &Tls) -> Level;
    /// How far a server is that has said this.
    fn level_of_server(&self, component: &str, said: &[String]) -> Level;
}

/// How far all is.
pub fn seen(rotation: &dyn Rotation, observed: &Observed, asked: Asked) -> Seen {
    let server = |word: &Word| Server {
        component: word.component,
        node: word.node.clone(),
        level: word.said.clone().map(|said| rotation.level_of_server(word.component, &said)),
        reloads: word.reloads,
    };
    let servers: Vec<_> = observed.servers.iter().map(server).collect();
    let directory = observed.directory.as_ref().map(|files| rotation.level(files));
    let is_behind = |level: &Level| *level != Level::Alone;
    let is_under_way = rotation.has_several()
        || !observed.guards_behind.is_empty()
        || !observed.unsettled.is_empty()
        || directory.iter().any(is_behind)
        || servers.iter().any(|server| server.level.as_ref().is_ok_and(is_behind));
    Seen {
        asked,
        is_under_way,
        guards_secret: rotation.level(&observed.guards_secret),
        directory,
        guards_behind: observed.guards_behind.clone(),
        secrets: observed.secrets.iter().map(|(name, files)| (*name, rotation.level(files))).collect(),
        unsettled: observed.unsettled.clone(),
        servers,
        left: observed.left.clone(),
    }
}
