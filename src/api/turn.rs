//! The turn: a Lease by which controllers act one at a time, where an act of one could undo what another counts on. It is
//! taken only for an act, and given back: at rest nobody renews it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{Verdict, failed, is_not_found, timestamp, verdict};
use crate::base::error::Result;

/// Where controllers have theirs.
const SYSTEM: &str = "kube-system";
/// The Lease of the turn itself.
const NAME: &str = "hoist-turn";
/// That of the one upgrade that may be under way, which is renewed for as long as it is.
const UPGRADE: &str = "hoist-upgrade";
/// That of the operator which acts for hosted control planes, in its own namespace; it is renewed for as long as it does.
const OPERATOR: &str = "hoist-operator";
/// How long one that is not renewed is another's: longer than any one act takes.
pub const LASTS: Duration = Duration::from_secs(15);

/// One controller's side of it.
#[derive(Debug)]
pub struct Turn {
    /// The Lease.
    name: &'static str,
    /// The namespace that it is in.
    namespace: &'static str,
    /// Who it is: the Node, and this process among those that were and will be.
    identity: String,
    /// Another's, as it was last seen to change, by this machine's clock alone.
    seen: Option<(String, Instant)>,
}

/// What is to be done about the Lease.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It is nobody's, or this controller's own: it is written.
    Take,
    /// It is another's, who may be at it.
    Wait,
}

impl Turn {
    /// That of a process that begins `now`, which has one `name` on the Node: no two processes have the same.
    pub fn of_process(name: &str, now: OffsetDateTime) -> Self {
        let identity = format!("{name}_{:x}", now.unix_timestamp_nanos());
        Self { name: NAME, namespace: SYSTEM, identity, seen: None }
    }

    /// That of an upgrade, which runs on the machine `hostname`, of which there may be one at a time in a cluster.
    pub fn of_upgrade(hostname: &str, now: OffsetDateTime) -> Self {
        Self { name: UPGRADE, ..Self::of_process(hostname, now) }
    }

    /// That of an operator of hosted control planes in the pod `name`, of which one acts at a time.
    pub fn of_operator(name: &str, namespace: &'static str, now: OffsetDateTime) -> Self {
        Self { name: OPERATOR, namespace, ..Self::of_process(name, now) }
    }

    /// Takes it, or renews it; says whether it is this controller's now, for [`LASTS`] at least.
    ///
    /// # Errors
    /// The API server's word; whose turn it is is not known then.
    pub async fn take(&mut self, client: &Client, now: Instant, clock: OffsetDateTime) -> Result<bool> {
        let api: Api<Lease> = Api::namespaced(client.clone(), self.namespace);
        let there =
            api.get_opt(self.name).await.map_err(|error| failed(format!("read the Lease {}", self.name), &error))?;
        if self.next(there.as_ref(), now) == Next::Wait {
            return Ok(false);
        }
        let wanted = self.lease(there.as_ref(), clock);
        let written = match there {
            // As it was read: of two that take it at once, one is refused.
            Some(_) => api.replace(self.name, &PostParams::default(), &wanted).await,
            None => api.create(&PostParams::default(), &wanted).await,
        };
        match written {
            Ok(_) => Ok(true),
            Err(error) if verdict(&error) == Verdict::Stale || is_not_found(&error) => Ok(false),
            Err(error) => Err(failed(format!("take the Lease {}", self.name), &error)),
        }
    }

    /// Gives it back, if it is this controller's.
    ///
    /// # Errors
    /// The API server's word: it expires by itself.
    pub async fn give_back(&mut self, client: &Client) -> Result<()> {
        let api: Api<Lease> = Api::namespaced(client.clone(), self.namespace);
        let there =
            api.get_opt(self.name).await.map_err(|error| failed(format!("read the Lease {}", self.name), &error))?;
        let Some(mut lease) = there.filter(|lease| holder(lease) == Some(&self.identity)) else { return Ok(()) };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        match api.replace(self.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(()),
            Err(error) if verdict(&error) == Verdict::Stale || is_not_found(&error) => Ok(()),
            Err(error) => Err(failed(format!("give back the Lease {}", self.name), &error)),
        }
    }

    fn next(&mut self, there: Option<&Lease>, now: Instant) -> Next {
        let Some(lease) = there else { return Next::Take };
        match holder(lease) {
            None => return Next::Take,
            Some(holder) if *holder == self.identity => return Next::Take,
            Some(_) => {}
        }
        let version = lease.resource_version().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => {
                if now.saturating_duration_since(*since) >= LASTS {
                    Next::Take
                } else {
                    Next::Wait
                }
            }
            _ => {
                self.seen = Some((version, now));
                Next::Wait
            }
        }
    }

    fn lease(&self, there: Option<&Lease>, clock: OffsetDateTime) -> Lease {
        let mut lease = there.cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.name.into()),
                namespace: Some(self.namespace.into()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let was_own = holder(&lease) == Some(&self.identity);
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        let clock = MicroTime(timestamp::of(clock));
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(LASTS.as_secs()).ok();
        spec.renew_time = Some(clock.clone());
        if !was_own {
            spec.acquire_time = Some(clock);
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
        }
        lease
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(holder: &str, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec { holder_identity: Some(holder.into()), ..LeaseSpec::default() }),
        }
    }

    #[test]
    fn the_turn_of_another_is_over_when_it_was_not_renewed_for_as_long_as_it_lasts() {
        let begun = Instant::now();
        let mut turn = Turn { name: NAME, namespace: SYSTEM, identity: "c2".into(), seen: None };
        let mut next = |lease: Option<&Lease>, seconds| turn.next(lease, begun + Duration::from_secs(seconds));
        assert_eq!(next(None, 0), Next::Take);
        assert_eq!(next(Some(&of("", "1")), 0), Next::Take);
        assert_eq!(next(Some(&of("c2", "2")), 0), Next::Take);
        assert_eq!(next(Some(&of("c1", "3")), 0), Next::Wait, "whatever its own clock says");
        assert_eq!(next(Some(&of("c1", "3")), 14), Next::Wait);
        assert_eq!(next(Some(&of("c1", "4")), 15), Next::Wait, "it was renewed");
        assert_eq!(next(Some(&of("c1", "4")), 29), Next::Wait);
        assert_eq!(next(Some(&of("c1", "4")), 30), Next::Take);
        assert_eq!(next(Some(&of("c3", "5")), 30), Next::Wait, "a third one was faster");
    }

    #[test]
    fn one_that_is_taken_says_by_whom_and_how_often_it_moved() {
        let turn = Turn { name: NAME, namespace: SYSTEM, identity: "c2".into(), seen: None };
        let clock = OffsetDateTime::UNIX_EPOCH;
        let spec = |lease: Lease| lease.spec.unwrap();
        let taken = turn.lease(Some(&of("c1", "3")), clock);
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("3"), "written as it was read");
        let first = spec(taken.clone());
        assert_eq!((first.holder_identity.as_deref(), first.lease_transitions), (Some("c2"), Some(1)));
        let renewed = spec(turn.lease(Some(&taken), clock + Duration::from_secs(5)));
        assert_eq!((renewed.lease_transitions, &renewed.acquire_time), (Some(1), &first.acquire_time));
        assert_ne!(renewed.renew_time, first.renew_time);
    }
}
