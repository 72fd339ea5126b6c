//! Leases of dead holders, after a boot. No other process can know that the holders are dead; the next leaders would
//! wait for 16 s.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::time::Instant;

use crate::api::observe::{LEASES, LeaseView, lease};
use crate::api::write;
use crate::base::error::Result;
use crate::node::host::Host;
use crate::node::processes;
use crate::plane::bridge::LEASE_SECONDS;

/// A living holder on this host is a controller of the bridge, which renews twice a second.
const STILL: Duration = Duration::from_secs(1);
/// How exactly it is known when a process began.
const TICK: Duration = Duration::from_millis(20);

/// The Leases since a raise.
#[derive(Default)]
pub struct Leases {
    /// As they were last seen to change.
    seen: BTreeMap<&'static str, (LeaseView, Instant)>,
    /// Who of the bridge has taken one.
    bridge: BTreeMap<String, String>,
}

impl Leases {
    /// The holders that are the bridge's, by Lease: its controller manager keeps its Lease when it ends.
    pub fn of_bridge(&self) -> BTreeMap<String, String> {
        self.bridge.clone()
    }

    /// Deletes those whose holders are dead, each as it was seen; says which.
    ///
    /// # Errors
    /// The API server's word.
    pub async fn free(&mut self, host: &Host, client: &Client, raised_at: SystemTime) -> Result<Vec<&'static str>> {
        let hostname = host.world().hostname();
        let mut freed = Vec::new();
        for name in LEASES {
            let Some(now) = lease(client, name).await? else { continue };
            let entry = self.seen.entry(name).or_insert_with(|| (now.clone(), Instant::now()));
            if entry.0 != now {
                *entry = (now.clone(), Instant::now());
            }
            // Looked at after the Lease was read: whoever has renewed it by then is seen.
            let own = processes::oldest(&host.path("/proc"), name);
            let began = own.map(|own| SystemTime::from(host.world().now()) - own.age);
            if is_dead(&now, &hostname, raised_at, entry.1.elapsed(), began) {
                write::delete_lease(client, name, &now.resource_version).await?;
                freed.push(name);
            } else if is_bridges(&now, &hostname, raised_at, began) {
                self.bridge.insert(name.to_owned(), now.holder);
            }
        }
        Ok(freed)
    }
}

/// Whether the holder of a Lease is proved to be dead: it ran on this host, nobody has renewed since before the bridge was
/// raised, whose own process renews twice a second, and a self-hosted process of its program, if there is one, `began`
/// after that.
fn is_dead(
    lease: &LeaseView,
    hostname: &str,
    raised_at: SystemTime,
    unchanged_for: Duration,
    began: Option<SystemTime>,
) -> bool {
    is_before(lease, raised_at) == Some(true)
        && lease.holder.starts_with(&format!("{hostname}_"))
        && unchanged_for >= STILL
        && began.is_none_or(|began| is_before(lease, began - TICK) == Some(true))
}

/// Whether the holder is a process of the bridge: it runs on this host, has renewed since the bridge was raised, and is told
/// by how long its Lease lasts, or by no other of its program being here.
fn is_bridges(lease: &LeaseView, hostname: &str, raised_at: SystemTime, began: Option<SystemTime>) -> bool {
    is_before(lease, raised_at) == Some(false)
        && lease.holder.starts_with(&format!("{hostname}_"))
        && (lease.seconds == LEASE_SECONDS || began.is_none())
}

/// Whether the Lease was last renewed before a moment, as this host's clock has it; `None` where it does not tell.
fn is_before(lease: &LeaseView, moment: SystemTime) -> Option<bool> {
    Some(lease.renewed.parse::<Timestamp>().ok()? < Timestamp::try_from(moment).ok()?)
}

#[cfg(test)]
mod tests;
