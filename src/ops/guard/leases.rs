//! Leases of dead holders, after a boot or a crash of the API server. No other process can know that the holders are dead;
//! the next leaders would wait for 16 s.

use kube::Client;
use tokio::time::Instant;

use crate::api::observe::{LEASES, lease};
use crate::api::write;
use crate::base::error::Result;
use crate::node::host::Host;
use crate::plane::lease_holders::{Holders, candidates};

/// The Leases since a raise.
#[derive(Default)]
pub struct Leases(Holders);

impl Leases {
    /// What was seen of their holders: the bridge's controller manager keeps its Lease when it ends.
    pub fn holders(&self) -> &Holders {
        &self.0
    }

    /// Deletes those whose holders are dead, each as it was seen; says which. `is_steady` says whether one may go by dates.
    ///
    /// # Errors
    /// The API server's word; a /proc that cannot be read.
    pub async fn free(&mut self, host: &Host, client: &Client, is_steady: bool) -> Result<Vec<&'static str>> {
        let hostname = host.world().hostname();
        let mut freed = Vec::new();
        for name in LEASES {
            let Some(now) = lease(client, name).await? else { continue };
            let here = candidates(host, name, is_steady)?;
            if self.0.note(name, &now, &hostname, &here, Instant::now()) {
                write::delete_lease(client, name, &now.resource_version).await?;
                freed.push(name);
            }
        }
        Ok(freed)
    }
}
