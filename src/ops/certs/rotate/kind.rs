//! What is particular to what is rotated: whether it is hoist's to rotate, and what servers say of it.

use std::net::SocketAddr;

use super::encryption::Encryption;
use super::scene::Scene;
use super::service_account::ServiceAccount;
use super::{etcd_ca, front_proxy};
use crate::base::error::Result;
use crate::desired::rotation::etcd_ca as rules;
use crate::desired::rotation::{Asked, Keys, Left, Rotation, Word};
use crate::desired::secrets::Tls;

/// What is rotated, and how it is looked at.
pub(super) enum Kind {
    /// The key of Secrets in etcd.
    Encryption(Encryption),
    /// The key of tokens.
    ServiceAccount(ServiceAccount),
    /// The CA of what API servers show to aggregated ones.
    FrontProxy,
    /// The CA of etcd.
    EtcdCa,
}

impl Kind {
    /// That of a cluster.
    ///
    /// # Errors
    /// One whose keys are not hoist's to rotate, with why.
    pub async fn new(keys: Keys, scene: &Scene<'_>) -> Result<Self> {
        let (cluster, client) = (&scene.cluster, &scene.client);
        Ok(match keys {
            Keys::EncryptionKey => Self::Encryption(Encryption::new(cluster, client).await?),
            Keys::ServiceAccount => Self::ServiceAccount(ServiceAccount::new(cluster, client).await?),
            Keys::FrontProxyCa => {
                front_proxy::check(cluster, client).await?;
                Self::FrontProxy
            }
            Keys::EtcdCa => {
                etcd_ca::check(scene.host, cluster, client).await?;
                Self::EtcdCa
            }
        })
    }

    /// What other servers say, where guard's Secret has `kept`.
    pub async fn others(&self, scene: &Scene<'_>, kept: &Tls) -> Vec<Word> {
        let client = &scene.client;
        match self {
            Self::Encryption(_) => Vec::new(),
            Self::ServiceAccount(kind) => vec![kind.leader(client).await],
            Self::FrontProxy => front_proxy::others(client, kept).await,
            Self::EtcdCa => vec![scene.member(kept).await],
        }
    }

    /// An API server that has said this reads by itself what it has not yet, where guard's Secret has `kept`.
    pub fn reloads(&self, said: &Result<Vec<String>, String>, kept: &Tls) -> bool {
        match self {
            Self::Encryption(kind) => kind.reloads,
            Self::ServiceAccount(_) => false,
            Self::FrontProxy => true,
            Self::EtcdCa => said.as_ref().is_ok_and(|said| rules::has_only_to_read(said, kept)),
        }
    }
}

impl Scene<'_> {
    /// Which keys the API server at `address` has.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn said(&self, kind: &Kind, address: SocketAddr, kept: &Tls) -> Result<Vec<String>> {
        match kind {
            Kind::Encryption(_) => Encryption::said(&self.connect(address).await?).await,
            Kind::ServiceAccount(_) => ServiceAccount::said(&self.connect(address).await?).await,
            Kind::FrontProxy => front_proxy::trusted(address).await,
            Kind::EtcdCa => self.trusts_etcd_by(kept, !self.is_plan).await,
        }
    }

    /// What is still of what is to go.
    ///
    /// # Errors
    /// What could not be read.
    pub async fn left(&self, kind: &Kind, rotation: &dyn Rotation, asked: Asked) -> Result<Left> {
        match kind {
            Kind::Encryption(kind) => {
                let others = self.values_of_others(kind, &rotation.mark()).await?;
                Ok(Left { others: others.len() as u64, held: Vec::new() })
            }
            Kind::ServiceAccount(_) => self.tokens_left(rotation, asked).await,
            Kind::FrontProxy | Kind::EtcdCa => Ok(Left::default()),
        }
    }

    /// Has hoist make anew what it can.
    ///
    /// # Errors
    /// What was refused.
    pub async fn rewrite(&self, kind: &Kind, rotation: &dyn Rotation) -> Result<()> {
        match kind {
            Kind::Encryption(kind) => self.rewrite_values(kind, &rotation.mark()).await,
            Kind::ServiceAccount(_) | Kind::FrontProxy | Kind::EtcdCa => Ok(()),
        }
    }
}
