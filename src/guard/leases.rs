//! Leases of dead holders, after a boot: nobody else can know that they are dead, and would wait for 16 s.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::time::Instant;

use crate::api::observe::{LEASES, LeaseView, lease};
use crate::api::write;
use crate::error::Result;
use crate::host::Host;
use crate::processes::{self, Running};

/// A living holder on this host is a controller of the bridge, which renews twice a second.
const STILL: Duration = Duration::from_secs(1);

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
        let hostname = host.outside().hostname();
        let mut freed = Vec::new();
        for name in LEASES {
            let Some(now) = lease(client, name).await? else { continue };
            let entry = self.seen.entry(name).or_insert_with(|| (now.clone(), Instant::now()));
            if entry.0 != now {
                *entry = (now.clone(), Instant::now());
            }
            // Looked at after the Lease was read: whoever has renewed it by then is seen.
            let running = processes::running(&host.path("/proc"));
            if is_dead(name, &now, &hostname, raised_at, entry.1.elapsed(), &running) {
                write::delete_lease(client, name, &now.resource_version).await?;
                freed.push(name);
            } else if is_bridges(name, &now, &hostname, raised_at, &running) {
                self.bridge.insert(name.to_owned(), now.holder);
            }
        }
        Ok(freed)
    }
}

/// Whether the holder of the Lease `name` is proved to be dead: it ran on this host, the only process of its program
/// here is the bridge's, which renews twice a second, and nobody has renewed since before the bridge was raised.
fn is_dead(
    name: &str,
    lease: &LeaseView,
    hostname: &str,
    raised_at: SystemTime,
    unchanged_for: Duration,
    running: &Running,
) -> bool {
    is_before(lease, raised_at) == Some(true)
        && lease.holder.starts_with(&format!("{hostname}_"))
        && unchanged_for >= STILL
        && !running.others.contains(name)
}

/// Whether the holder is a process of the bridge: it runs on this host, has renewed since the bridge was raised, and no
/// other of its program is here.
fn is_bridges(name: &str, lease: &LeaseView, hostname: &str, raised_at: SystemTime, running: &Running) -> bool {
    is_before(lease, raised_at) == Some(false)
        && lease.holder.starts_with(&format!("{hostname}_"))
        && !running.others.contains(name)
}

/// Whether the Lease was last renewed before a moment, as this host's clock has it; `None` where it does not tell.
fn is_before(lease: &LeaseView, moment: SystemTime) -> Option<bool> {
    Some(lease.renewed.parse::<Timestamp>().ok()? < Timestamp::try_from(moment).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "kube-scheduler";

    fn raised() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn seen(holder: &str, seconds: i64) -> LeaseView {
        let renewed = Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        LeaseView { holder: holder.into(), renewed: renewed.to_string(), resource_version: "1".into() }
    }

    fn others(names: &[&str]) -> Running {
        Running { others: names.iter().map(ToString::to_string).collect(), ..Running::default() }
    }

    #[test]
    fn only_a_holder_that_is_proved_dead_loses_its_lease() {
        let none = others(&["kubelet"]);
        let dead =
            |lease: &LeaseView, unchanged, running: &Running| is_dead(NAME, lease, "c1", raised(), unchanged, running);
        assert!(dead(&seen("c1_x", -20), STILL, &none));
        assert!(!dead(&seen("c1_x", -20), STILL / 2, &none), "too short a look");
        assert!(!dead(&seen("c1_x", 1), STILL, &none), "renewed since the raise");
        assert!(!dead(&seen("c10_x", -20), STILL, &none), "another host's");
        assert!(!dead(&seen("", -20), STILL, &none), "released");
        assert!(!dead(&seen("c1_x", -20), STILL, &others(&[NAME])), "a process may hold it");
        let bridges = |lease: &LeaseView, running: &Running| is_bridges(NAME, lease, "c1", raised(), running);
        assert!(bridges(&seen("c1_x", 1), &none));
        assert!(!bridges(&seen("c1_x", -1), &none) && !bridges(&seen("c2_x", 1), &none));
        assert!(!bridges(&seen("c1_x", 1), &others(&[NAME])), "it may be the other's");
        let garbled = LeaseView { renewed: "yesterday".into(), ..seen("c1_x", -20) };
        assert!(!dead(&garbled, STILL, &none));
    }
}
