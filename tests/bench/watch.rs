//! When the API is ready for the first time, and when each Lease went to the one who holds it in the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::beside::Beside;
use crate::support::http::{Client, runtime};
use crate::support::leases::{LEADERS, lease};

const INTERVAL: Duration = Duration::from_millis(25);

/// What was seen, in times from the beginning.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub api_ready: Option<Duration>,
    /// Each Lease's latest holder, and when it was first seen with it.
    holders: BTreeMap<&'static str, (String, Duration)>,
}

impl Seen {
    /// When both Leases were with their last holders; `None` while one has none.
    pub fn leaders(&self) -> Option<Duration> {
        let times = LEADERS.map(|name| self.holders.get(name).map(|(_, since)| *since));
        Some(times[0]?.max(times[1]?))
    }
}

/// Watches in a thread of its own.
pub struct Watch(Beside<Seen>);

impl Watch {
    /// Watches from now on with the client that `connect` makes as soon as it can. Goes on after it was told to stop
    /// until there are leaders, but no longer than `limit`.
    pub fn begin(mut connect: impl FnMut() -> Option<Client> + Send + 'static, limit: Duration) -> Self {
        let begun = Instant::now();
        Self(Beside::begin(move |told| {
            let mut seen = Seen::default();
            let mut client = None;
            runtime().block_on(async {
                while begun.elapsed() < limit && !(told.to_stop() && seen.leaders().is_some()) {
                    client = client.or_else(&mut connect);
                    if let Some(client) = &client {
                        look(client, begun, &mut seen).await;
                    }
                    tokio::time::sleep(INTERVAL).await;
                }
            });
            seen
        }))
    }

    pub fn end(self) -> Seen {
        self.0.end()
    }
}

async fn look(client: &Client, begun: Instant, seen: &mut Seen) {
    if seen.api_ready.is_none() {
        // Usable, not only ready: whoever may do anything is let do this.
        let usable = async |path| matches!(client.get(path).await, Ok((200, _)));
        if usable("/readyz").await && usable("/api/v1/namespaces/kube-system").await {
            seen.api_ready = Some(begun.elapsed());
        }
        return;
    }
    for name in LEADERS {
        let Some(object) = lease(client, name).await else { continue };
        let holder = object["spec"]["holderIdentity"].as_str().unwrap_or_default();
        if !holder.is_empty() && seen.holders.get(name).is_none_or(|(before, _)| before != holder) {
            seen.holders.insert(name, (holder.to_owned(), begun.elapsed()));
        }
    }
}
