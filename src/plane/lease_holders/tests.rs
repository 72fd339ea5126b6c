//! Who may hold a Lease, and who is proved dead: a table, and random histories.

use super::*;

fn raised() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn seen(holder: &str, seconds: i64) -> LeaseView {
    let renewed = Timestamp::from_second(1_800_000_000 + seconds).unwrap();
    LeaseView { holder: holder.into(), renewed: renewed.to_string(), seconds: 15, resource_version: "1".into() }
}

const OWN: i32 = 1;
const BRIDGE: i32 = 2;
/// How long the Leases of the bridge's controllers last.
const OF_BRIDGE: i32 = 13;

/// A self-hosted process that began so long after the raise.
fn began(seconds: i64) -> Candidate {
    let after = Duration::from_secs(seconds.unsigned_abs());
    let since = if seconds < 0 { raised() - after } else { raised() + after };
    Candidate { id: (OWN, Some(7)), term: Some(DEFAULT_TERM), since: Some(since) }
}

/// The bridge's process, which began with the raise.
fn bridge() -> Candidate {
    Candidate { id: (BRIDGE, Some(8)), term: Some(OF_BRIDGE), ..began(0) }
}

/// What is made of a Lease that stays for so long as it is, beside these processes.
fn is_dead(lease: &LeaseView, unchanged_for: Duration, here: &[Candidate]) -> bool {
    let (mut holders, begun) = (Holders::default(), Instant::now());
    holders.note("kube-scheduler", lease, "c1", here, begun);
    holders.note("kube-scheduler", lease, "c1", here, begun + unchanged_for)
}

#[test]
fn only_a_holder_that_is_proved_dead_loses_its_lease() {
    let dead = is_dead;
    assert!(dead(&seen("c1_x", -20), STILL, &[]));
    assert!(!dead(&seen("c1_x", -20), STILL / 2, &[began(2)]), "too short a look");
    let as_long = Candidate { term: Some(DEFAULT_TERM), ..bridge() };
    assert!(!dead(&seen("c1_x", 1), STILL, std::slice::from_ref(&as_long)), "renewed since the raise");
    assert!(dead(&seen("c1_x", -20), STILL, &[as_long]), "and not renewed since");
    assert!(!dead(&seen("c10_x", -20), STILL, &[]), "another host's");
    assert!(!dead(&seen("c1_x_y", -20), STILL, &[]), "another host's, whose name begins like this one's");
    assert!(!dead(&seen("", -20), STILL, &[]), "released");
    assert!(!dead(&seen("c1_x", -20), STILL, &[began(-30)]), "a process may hold it");
    assert!(!dead(&seen("c1_x", -20), STILL, &[began(-20)]), "it may have begun just before");
    // At a boot the successor is there soon.
    assert!(dead(&seen("c1_x", -20), STILL, &[began(2)]), "it has begun since");
    assert!(dead(&seen("c1_x", -20), STILL, &[began(2), bridge()]), "both have");
    assert!(!dead(&seen("c1_x", -20), STILL, &[bridge(), began(-30)]), "one has not");
    let undated = Candidate { since: None, ..began(2) };
    assert!(!dead(&seen("c1_x", -20), STILL, &[undated]), "the clock was set");
    let garbled = LeaseView { renewed: "yesterday".into(), ..seen("c1_x", -20) };
    assert!(!dead(&garbled, STILL, &[began(2)]));
}

#[test]
fn the_bridges_are_told_by_how_long_they_last() {
    let may_hold = |lease: &LeaseView, here: &[Candidate]| !is_dead(lease, STILL, here);
    let of_bridge = |lease| LeaseView { seconds: OF_BRIDGE, ..lease };
    assert!(may_hold(&of_bridge(seen("c1_x", 1)), &[bridge()]));
    assert!(!may_hold(&seen("c1_x", 1), &[bridge()]), "another's");
    assert!(may_hold(&seen("c1_x", 1), &[bridge(), began(-1)]), "it is the other's");
    assert!(may_hold(&of_bridge(seen("c1_x", 1)), &[bridge(), began(1)]));
    assert!(!may_hold(&of_bridge(seen("c1_x", 1)), &[began(-1)]), "the bridge's is gone");
    assert!(!may_hold(&of_bridge(seen("c1_x", -2)), &[bridge(), began(1)]), "an earlier bridge's");
    assert!(may_hold(&of_bridge(seen("c2_x", 1)), &[began(1)]), "another host's");
    // Where a user has both last as long, or a file may say how long they do.
    for term in [Some(OF_BRIDGE), None] {
        assert!(may_hold(&of_bridge(seen("c1_x", 1)), &[Candidate { term, ..began(-1) }]), "{term:?}");
    }
    for manifest in [
        include_str!("../../../bootstrap-manifests/bridge-kube-controller-manager.yaml"),
        include_str!("../../../bootstrap-manifests/bridge-kube-scheduler.yaml"),
    ] {
        assert!(manifest.contains(&format!("--leader-elect-lease-duration={OF_BRIDGE}s\n")), "{manifest}");
    }
}

#[test]
fn a_process_says_how_long_its_leases_last() {
    let proc = tempfile::tempdir().unwrap();
    for (pid, flags, expected) in [
        ("1", "--x", Some(DEFAULT_TERM)),
        ("2", "--leader-elect-lease-duration=20s\0--leader-elect-lease-duration=13s", Some(13)),
        ("3", "--leader-elect-lease-duration=1m0s", None),
        ("4", "--leader-elect-lease-duration=13s\0--config=/etc/x", None),
    ] {
        std::fs::create_dir(proc.path().join(pid)).unwrap();
        std::fs::write(proc.path().join(pid).join("cmdline"), format!("/bin/p{pid}\0{flags}\0")).unwrap();
        let found = processes::of(proc.path(), &format!("p{pid}")).unwrap();
        assert_eq!(found.iter().map(term).collect::<Vec<_>>(), [expected], "{flags}");
    }
}

/// What a run sees in the course of time, without any dates.
#[test]
fn who_came_after_a_holder_is_not_the_holder() {
    let begun = Instant::now();
    let process = |pid| Candidate { id: (pid, None), term: Some(15), since: None };
    let [first, second, third] = [1, 2, 3].map(process);
    let mut holders = Holders::default();
    let mut note = |lease: &LeaseView, here: &[&Candidate]| {
        let here: Vec<_> = here.iter().map(|process| (*process).clone()).collect();
        holders.note("kube-scheduler", lease, "c1", &here, begun)
    };
    let lease = seen("c1_x", 0);
    assert!(!note(&lease, &[&first]));
    assert!(!note(&lease, &[&first, &second]), "one of them is the holder");
    assert!(!note(&seen("c1_x", 2), &[&first, &second]), "it renews");
    assert!(note(&seen("c1_x", 2), &[&second]), "the other one came later");
    assert!(note(&seen("c1_x", 2), &[&second, &third]));
    let reborn = Candidate { id: (1, Some(9)), ..process(1) };
    assert!(note(&seen("c1_x", 2), &[&reborn, &second]), "another process of that number");
    // Another machine of the same name.
    assert!(!note(&seen("c1_x", 4), &[&second, &third]), "who renews lives, whatever is seen here");
    assert!(!note(&seen("c1_x", 4), &[]), "and is not judged any more");
    assert!(!note(&seen("c1_y", 5), &[&second, &third]), "another holder");
    assert!(note(&seen("c1_y", 5), &[]));
    // The Lease was deleted, and somebody else took it for a while.
    assert!(!note(&seen("c2_z", 6), &[]));
    assert!(!note(&seen("c1_x", 7), &[&first]), "it is begun anew");
}

#[test]
fn dates_count_where_the_clock_is_not_set() {
    let (date, begun) = (OffsetDateTime::UNIX_EPOCH, Instant::now());
    let mut clock = Clock::new(date, begun);
    let second = Duration::from_secs(1);
    let mut steady =
        |seconds, date_at: i64| clock.is_steady(date + time::Duration::milliseconds(date_at), begun + second * seconds);
    assert!(steady(10, 10_000) && steady(3600, 3_600_200));
    assert!(!steady(3601, 7_200_000), "an hour ahead");
    assert!(!steady(3720, 7_319_000), "what was renewed before may be young still");
    assert!(steady(3730, 7_329_000));
    assert!(!steady(3731, 7_300_000), "and back");
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
        pid: i32,
        began: u64,
        /// How often it renews, and for how long a Lease of its lasts.
        renews: u64,
        seconds: i32,
    }

    /// A program that leads, wherever it runs; times in milliseconds.
    struct World {
        random: Random,
        now: u64,
        born: i32,
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
            Process { id: format!("{host}_{}", self.born), pid: self.born, began: self.now, renews, seconds }
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
                self.bridge = Some(self.process("c1", 500, OF_BRIDGE));
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
        let (mut holders, begun) = (Holders::default(), Instant::now());
        let mut deleted = 0;
        while world.now < LENGTH {
            world.now += TICK;
            world.live();
            world.lead();
            let (Some(_), Some((holder, renewed))) = (world.raised, world.lease.clone()) else {
                holders = Holders::default();
                continue;
            };
            let view = LeaseView {
                holder: holder.id.clone(),
                renewed: Timestamp::try_from(at(renewed)).unwrap().to_string(),
                seconds: holder.seconds,
                resource_version: "1".into(),
            };
            let blur = world.random.below(2 * BLUR + 1);
            // Whether anything is known of dates, and of terms, differs from history to history.
            let candidate = |process: &Process| Candidate {
                id: (process.pid, None),
                term: (!seed.is_multiple_of(3)).then_some(process.seconds),
                since: (!seed.is_multiple_of(2)).then(|| at(process.began + blur) - Duration::from_millis(BLUR)),
            };
            let here: Vec<_> = [&world.own, &world.bridge].into_iter().flatten().map(candidate).collect();
            if holders.note("kube-scheduler", &view, "c1", &here, begun + Duration::from_millis(world.now)) {
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
