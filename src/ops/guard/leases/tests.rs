//! Which Leases are freed: single cases, and random histories.

use super::*;

fn raised() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn seen(holder: &str, seconds: i64) -> LeaseView {
    let renewed = Timestamp::from_second(1_800_000_000 + seconds).unwrap();
    LeaseView { holder: holder.into(), renewed: renewed.to_string(), seconds: 15, resource_version: "1".into() }
}

/// A self-hosted process that began so long after the raise.
fn began(seconds: i64) -> Option<SystemTime> {
    let after = Duration::from_secs(seconds.unsigned_abs());
    Some(if seconds < 0 { raised() - after } else { raised() + after })
}

#[test]
fn only_a_holder_that_is_proved_dead_loses_its_lease() {
    let dead = |lease: &LeaseView, unchanged, began| is_dead(lease, "c1", raised(), unchanged, began);
    assert!(dead(&seen("c1_x", -20), STILL, None));
    assert!(!dead(&seen("c1_x", -20), STILL / 2, None), "too short a look");
    assert!(!dead(&seen("c1_x", 1), STILL, None), "renewed since the raise");
    assert!(!dead(&seen("c10_x", -20), STILL, None), "another host's");
    assert!(!dead(&seen("", -20), STILL, None), "released");
    assert!(!dead(&seen("c1_x", -20), STILL, began(-30)), "a process may hold it");
    assert!(!dead(&seen("c1_x", -20), STILL, began(-20)), "it may have begun just before");
    // At a boot the successor is there soon.
    assert!(dead(&seen("c1_x", -20), STILL, began(2)), "it has begun since");
    let garbled = LeaseView { renewed: "yesterday".into(), ..seen("c1_x", -20) };
    assert!(!dead(&garbled, STILL, None));
}

#[test]
fn the_bridges_are_told_by_how_long_they_last() {
    let bridges = |lease: &LeaseView, began| is_bridges(lease, "c1", raised(), began);
    let of_bridge = |lease| LeaseView { seconds: LEASE_SECONDS, ..lease };
    assert!(bridges(&seen("c1_x", 1), None));
    assert!(!bridges(&seen("c1_x", -1), None) && !bridges(&seen("c2_x", 1), None));
    assert!(!bridges(&seen("c1_x", 1), began(1)), "it may be the other's");
    assert!(bridges(&of_bridge(seen("c1_x", 1)), began(1)));
    assert!(!bridges(&of_bridge(seen("c1_x", -1)), began(1)), "an earlier bridge's");
    assert!(!bridges(&of_bridge(seen("c2_x", 1)), began(1)), "another host's");
    for manifest in [
        include_str!("../../../../bootstrap-manifests/bridge-kube-controller-manager.yaml"),
        include_str!("../../../../bootstrap-manifests/bridge-kube-scheduler.yaml"),
    ] {
        assert!(manifest.contains(&format!("--leader-elect-lease-duration={LEASE_SECONDS}s\n")), "{manifest}");
    }
}

/// Holders come and go, here and on another host, and the API with them: whoever may be alive keeps its Lease.
mod histories {
    use super::*;
    use crate::random::Random;

    const TICK: u64 = 250;
    const LENGTH: u64 = 600_000;
    /// How exactly it is known here when a process began.
    const BLUR: u64 = 10;

    #[derive(Debug, Clone)]
    struct Process {
        id: String,
        began: u64,
        /// How often it renews, and for how long a Lease of its lasts.
        renews: u64,
        seconds: i32,
    }

    /// A program that leads, wherever it runs; times in milliseconds.
    struct World {
        random: Random,
        now: u64,
        born: u64,
        own: Option<Process>,
        bridge: Option<Process>,
        other: Option<Process>,
        /// The Lease, and when it was renewed.
        lease: Option<(Process, u64)>,
        api_away_until: u64,
        /// Those who ran before the API came back have not noticed yet.
        unnoticed_until: u64,
        raised: Option<u64>,
    }

    impl World {
        fn process(&mut self, host: &str, renews: u64, seconds: i32) -> Process {
            self.born += 1;
            Process { id: format!("{host}_{}", self.born), began: self.now, renews, seconds }
        }

        fn alive(&self) -> impl Iterator<Item = &Process> {
            [&self.own, &self.bridge, &self.other].into_iter().flatten()
        }

        /// Whoever runs may end, whoever does not may begin, and the API goes and comes back with a bridge.
        fn live(&mut self) {
            if self.own.is_some() && self.random.permille(8) {
                self.own = None;
            } else if self.own.is_none() && self.random.permille(40) {
                self.own = Some(self.process("c1", 2000, 15));
            }
            if self.other.is_some() && self.random.permille(4) {
                self.other = None;
            } else if self.other.is_none() && self.random.permille(4) {
                self.other = Some(self.process("c2", 2000, 15));
            }
            if self.now < self.api_away_until {
                return;
            }
            if self.api_away_until > 0 && self.raised.is_none() {
                self.raised = Some(self.now);
                self.unnoticed_until = self.now + u64::try_from(self.random.millis(0, 10_000).as_millis()).unwrap();
                self.bridge = Some(self.process("c1", 500, LEASE_SECONDS));
            } else if self.raised.is_some() && self.random.permille(10) {
                (self.raised, self.bridge, self.api_away_until) = (None, None, 0);
            } else if self.raised.is_none() && self.random.permille(20) {
                let away = self.random.millis(1000, 30_000).as_millis();
                self.api_away_until = self.now + u64::try_from(away).unwrap();
                // A power cut takes all of this host with it; a crash of the API server nobody else.
                if self.random.permille(500) {
                    self.own = None;
                }
            }
        }

        /// Those who lead say so, and one that does not any more is followed by anyone who runs.
        fn lead(&mut self) {
            if self.now < self.api_away_until {
                return;
            }
            let holds = self.lease.as_ref().map(|(holder, renewed)| (holder.id.clone(), *renewed));
            let holder = self.alive().find(|process| holds.as_ref().is_some_and(|(id, _)| *id == process.id)).cloned();
            let expired = self
                .lease
                .as_ref()
                .is_none_or(|(of, renewed)| self.now - renewed > u64::from(of.seconds.unsigned_abs()) * 1000);
            let renewed = holds.map_or(0, |(_, renewed)| renewed);
            match holder {
                Some(process)
                    if self.now - renewed >= process.renews
                        && (process.began >= self.raised.unwrap_or(0) || self.now >= self.unnoticed_until) =>
                {
                    self.lease = Some((process, self.now));
                }
                None if expired => {
                    let candidates: Vec<_> = self.alive().cloned().collect();
                    if !candidates.is_empty() {
                        let next =
                            candidates[usize::try_from(self.random.below(candidates.len() as u64)).unwrap()].clone();
                        self.lease = Some((next, self.now));
                    }
                }
                _ => {}
            }
        }
    }

    fn at(millis: u64) -> SystemTime {
        raised() + Duration::from_millis(millis)
    }

    /// How many Leases were deleted in it.
    fn tell(seed: u64) -> usize {
        let mut world = World {
            random: Random::new(seed),
            now: 0,
            born: 0,
            own: None,
            bridge: None,
            other: None,
            lease: None,
            api_away_until: 0,
            unnoticed_until: 0,
            raised: None,
        };
        let mut seen: Option<(LeaseView, u64)> = None;
        let mut deleted = 0;
        while world.now < LENGTH {
            world.now += TICK;
            world.live();
            world.lead();
            let (Some(raised_at), Some((holder, renewed))) = (world.raised, world.lease.clone()) else {
                seen = None;
                continue;
            };
            let view = LeaseView {
                holder: holder.id.clone(),
                renewed: Timestamp::try_from(at(renewed)).unwrap().to_string(),
                seconds: holder.seconds,
                resource_version: "1".into(),
            };
            let since = seen.take().filter(|(before, _)| *before == view).map_or(world.now, |(_, since)| since);
            seen = Some((view.clone(), since));
            let blur = world.random.below(2 * BLUR + 1);
            let began = world.own.as_ref().map(|own| at(own.began + blur) - Duration::from_millis(BLUR));
            if is_dead(&view, "c1", at(raised_at), Duration::from_millis(world.now - since), began) {
                assert!(
                    world.alive().all(|process| process.id != holder.id),
                    "seed {seed}, at {} ms: {} is alive",
                    world.now,
                    holder.id
                );
                world.lease = None;
                deleted += 1;
            }
        }
        deleted
    }

    #[test]
    fn no_history_takes_a_lease_from_the_living() {
        let deleted: usize = (0..300).map(tell).sum();
        // They are histories in which there is something to delete.
        assert!(deleted > 300, "{deleted}");
    }
}
