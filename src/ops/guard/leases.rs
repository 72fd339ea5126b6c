//! Leases of dead holders, after a boot or a crash of the API server. No other process can know that the holders are dead;
//! the next leaders would wait for 16 s.

use std::collections::BTreeMap;

use kube::Client;

use crate::api::observe::{LEASES, lease};
use crate::api::write;
use crate::base::error::Result;
use crate::node::host::Host;
use crate::plane::lease_holders::Holders;

/// The Leases since a raise.
#[derive(Default)]
pub struct Leases(Holders);

impl Leases {
    /// What was seen of their holders: the bridge's controller manager keeps its Lease when it ends.
    pub fn holders(&self) -> &Holders {
        &self.0
    }

    /// Deletes those whose holders are dead, each as it was seen; says which. `node` is this machine's Node, `is_steady` says
    /// whether one may go by dates.
    ///
    /// # Errors
    /// The API server's word; a /proc that cannot be read.
    pub async fn free(&mut self, (host, node): (&Host, &str), client: &Client, is_steady: bool) -> Result<Vec<String>> {
        let mut leases = BTreeMap::new();
        for name in LEASES {
            leases.extend(lease(client, name).await?.map(|lease| (name.to_owned(), lease)));
        }
        let dead = self.0.dead((host, node), client, &leases, is_steady).await?;
        for (name, version) in &dead {
            write::delete_lease(client, name, version).await?;
        }
        Ok(dead.into_iter().map(|(name, _)| name).collect())
    }
}
