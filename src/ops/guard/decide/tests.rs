//! The table of docs/guard.md, row by row; and random histories, held to what guard promises.

use super::*;

/// A controller at rest.
fn rest() -> Observed {
    Observed {
        server: Server::Ready,
        server_for: Duration::from_secs(3600),
        has_process: true,
        hangs: None,
        stands: Stands::Nothing,
        has_leftovers: false,
        silent_for: Duration::ZERO,
        etcd: true,
        etcd_serves: true,
        lacks_data: None,
        up_for: Duration::from_secs(7200),
        raises: 0,
        copy: CopyState::Whole,
        leaderless_for: Duration::ZERO,
        new_for: None,
        is_made_anew: false,
        not_controller_for: None,
        another_serves: None,
        busy: None,
    }
}

fn server(server: Server, server_for: Duration) -> Observed {
    Observed { server, server_for, ..rest() }
}

fn raised(observed: Observed) -> Observed {
    Observed { stands: Stands::All, raises: 1, ..observed }
}

fn rests(observed: &Observed) -> bool {
    matches!(decide(observed), Decision::Rest(_))
}

/// A process that hangs.
const HUNG: Process = Process { pid: 7, began: 1, age: HOLD_LIMIT, used: MS };
const MS: Duration = Duration::from_millis(1);

#[test]
fn a_server_that_serves_is_left_alone() {
    assert_eq!(decide(&rest()), Decision::Rest("the self-hosted API server serves".into()));
}

/// A guard before this one was killed while it raised a bridge that nobody needed any more, or lowered one.
#[test]
fn what_is_left_of_a_bridge_is_cleaned_up_once_the_server_has_proved_itself() {
    let left = |observed| Observed { has_leftovers: true, ..observed };
    assert_eq!(decide(&left(rest())), Decision::Lower);
    assert!(rests(&left(server(Server::Ready, HOLD - MS))) && !rests(&left(server(Server::Ready, HOLD))));
    assert!(rests(&left(Observed { busy: Some("pid 7".into()), ..rest() })));
    assert_eq!(decide(&left(server(Server::Ending, MS))), Decision::Raise(Cause::Ending), "the API comes first");
    assert_eq!(decide(&left(Observed { leaderless_for: LEADERLESS, ..rest() })), Decision::Raise(Cause::Leaderless));
}

/// The disk of etcd's data is not mounted: nothing but that can help, and it is said.
#[test]
fn an_etcd_without_its_data_is_named() {
    for server in [Server::Gone, Server::Silent, Server::Unready] {
        let away = Observed { etcd: false, lacks_data: Some("/srv/etcd".into()), ..self::server(server, MS * 60_000) };
        for stands in [Stands::All, Stands::Nothing] {
            let Decision::Rest(said) = decide(&Observed { stands, silent_for: MS * 60_000, ..away.clone() }) else {
                panic!("{server:?} {stands:?}")
            };
            assert!(said.contains("/srv/etcd") && said.contains("hoist start --new-cluster"), "{said}");
        }
        // At a boot the bridge is put up all the same: it serves as soon as the data is there.
        let boots = Observed { up_for: MS, has_process: false, ..away };
        assert_eq!(matches!(decide(&boots), Decision::Raise(Cause::Boot)), server == Server::Gone);
    }
}

#[test]
fn one_that_could_not_be_asked_is_neither_gone_nor_back() {
    let unknown = server(Server::Unknown, UNREADY_GRACE * 100);
    assert!(rests(&unknown) && rests(&raised(unknown.clone())));
    assert!(rests(&Observed { hangs: Some(HUNG), ..raised(unknown) }));
}

#[test]
fn each_way_of_being_gone_has_its_grace() {
    for (what, grace, cause) in [
        (Server::Ending, Duration::ZERO, Cause::Ending),
        (Server::Gone, REFUSED_GRACE, Cause::Gone),
        (Server::Silent, SILENT_GRACE, Cause::Silent),
        (Server::Unready, UNREADY_GRACE, Cause::Unready),
    ] {
        assert_eq!(decide(&server(what, grace)), Decision::Raise(cause), "{what:?}");
        if let Some(before) = grace.checked_sub(MS) {
            assert!(rests(&server(what, before)), "{what:?}");
        }
        // Without etcd no API server serves.
        assert!(rests(&Observed { etcd: false, ..server(what, grace * 100) }), "{what:?}");
        // Nor with a member that accepts connections and has no majority; but one that ends or is gone is to be replaced.
        let cut_off = Observed { etcd_serves: false, ..server(what, grace * 100) };
        assert_eq!(rests(&cut_off), matches!(what, Server::Silent | Server::Unready), "{what:?}");
    }
}

#[test]
fn at_a_boot_nobody_is_waited_for() {
    let boot = Observed { has_process: false, up_for: MS, etcd: false, ..server(Server::Gone, Duration::ZERO) };
    assert_eq!(decide(&boot), Decision::Raise(Cause::Boot));
    // Guard alone was started anew: an API server is on its way.
    assert!(rests(&Observed { has_process: true, etcd: true, ..boot.clone() }));
    assert!(rests(&Observed { up_for: BOOT, ..boot }));
}

#[test]
fn a_raised_bridge_stays_until_the_server_has_been_ready_for_a_while() {
    assert_eq!(decide(&raised(server(Server::Ready, HOLD))), Decision::Lower);
    assert!(rests(&raised(server(Server::Ready, HOLD - MS))));
    for what in [Server::Ending, Server::Gone, Server::Silent, Server::Unready] {
        assert!(rests(&raised(server(what, HOLD_LIMIT))), "{what:?}");
    }
    // Half lowered, it goes on; and back, if the server is gone again.
    let half = |observed| Observed { stands: Stands::ApiServer, raises: 1, ..observed };
    assert_eq!(decide(&half(server(Server::Ready, HOLD))), Decision::Lower);
    assert_eq!(decide(&half(server(Server::Gone, REFUSED_GRACE))), Decision::Raise(Cause::Gone));
}

#[test]
fn one_that_hangs_is_ended_once_the_bridge_is_on_its_way() {
    let hangs = |server_for| Observed { hangs: Some(HUNG), ..server(Server::Silent, server_for) };
    assert_eq!(decide(&hangs(SILENT_GRACE)), Decision::Raise(Cause::Silent));
    assert_eq!(decide(&raised(hangs(SILENT_GRACE))), Decision::End(HUNG));
    assert!(rests(&raised(hangs(SILENT_GRACE - MS))));
    // It waits for etcd, or is busy: that is no reason to end it.
    assert!(rests(&Observed { etcd: false, ..raised(hangs(SILENT_GRACE)) }));
    assert!(rests(&raised(server(Server::Silent, HOLD_LIMIT))));
}

#[test]
fn where_nobody_leads_the_bridge_leads() {
    let leaderless = |leaderless_for| Observed { leaderless_for, ..rest() };
    assert_eq!(decide(&leaderless(LEADERLESS)), Decision::Raise(Cause::Leaderless));
    assert!(rests(&leaderless(LEADERLESS - MS)));
    assert!(rests(&Observed { copy: CopyState::Missing, ..leaderless(LEADERLESS) }));
    // It stays until the self-hosted ones are there: the hand-over waits for them.
    assert_eq!(decide(&raised(server(Server::Ready, HOLD))), Decision::Lower);
    // Whatever else is wrong has its own row.
    let gone = Observed { leaderless_for: LEADERLESS, ..server(Server::Gone, REFUSED_GRACE) };
    assert_eq!(decide(&gone), Decision::Raise(Cause::Gone));
}

#[test]
fn what_stands_in_part_or_does_not_serve_is_put_right() {
    let begun = Observed { stands: Stands::Begun, ..server(Server::Gone, Duration::ZERO) };
    assert_eq!(decide(&begun), Decision::Raise(Cause::Repair));
    let silent = |silent_for| Observed { silent_for, ..raised(server(Server::Gone, HOLD_LIMIT)) };
    assert_eq!(decide(&silent(REPAIR_AFTER)), Decision::Raise(Cause::Repair));
    assert!(rests(&silent(REPAIR_AFTER - MS)));
    assert!(rests(&Observed { etcd: false, ..silent(REPAIR_AFTER) }));
}

#[test]
fn a_copy_that_is_not_whole_is_not_raised() {
    for copy in [CopyState::Missing, CopyState::Broken] {
        assert!(rests(&Observed { copy, ..server(Server::Gone, HOLD_LIMIT) }));
        // To lower takes none.
        assert_eq!(decide(&Observed { copy, ..raised(server(Server::Ready, HOLD)) }), Decision::Lower);
    }
}

#[test]
fn another_hoist_at_work_is_not_disturbed() {
    let busy = |observed| Observed { busy: Some("pid 7".into()), ..observed };
    for observed in [server(Server::Gone, HOLD_LIMIT), raised(rest()), rest()] {
        assert!(rests(&busy(observed)));
    }
}

#[test]
fn a_node_that_is_no_controller_any_more_is_left_once_another_one_serves() {
    let other = |not_controller_for, another_serves| Observed {
        not_controller_for: Some(not_controller_for),
        another_serves: Some(another_serves),
        ..rest()
    };
    assert_eq!(decide(&other(LEAVE_AFTER, true)), Decision::Leave);
    assert!(rests(&other(LEAVE_AFTER - MS, true)));
    // Nobody else serves, however long ago the label was taken off.
    for long in [LEAVE_AFTER, HOLD_LIMIT * 1000] {
        let alone = other(long, false);
        assert!(rests(&alone) && stays(&alone));
        // All else that guard does it does here, too: the API stays.
        let gone = Observed { server: Server::Gone, server_for: REFUSED_GRACE, ..alone.clone() };
        assert_eq!(decide(&gone), Decision::Raise(Cause::Gone));
        assert!(rests(&raised(Observed { server: Server::Gone, server_for: HOLD_LIMIT, ..alone.clone() })));
        assert_eq!(decide(&raised(Observed { server_for: HOLD, ..alone })), Decision::Lower);
    }
    assert!(!stays(&other(LEAVE_AFTER, true)) && !stays(&other(LEAVE_AFTER - MS, false)) && !stays(&rest()));
    let unasked = Observed { another_serves: None, ..other(LEAVE_AFTER, true) };
    assert!(rests(&unasked) && !stays(&unasked), "it leaves by evidence, and says so by evidence");
    assert!(rests(&Observed { another_serves: Some(true), ..rest() }), "it has its label");
}

#[test]
fn a_node_that_was_made_anew_gets_its_label_again() {
    let anew = |observed| Observed { is_made_anew: true, ..observed };
    assert_eq!(decide(&anew(rest())), Decision::Adopt);
    // Through the bridge: without the label the self-hosted API server has no pod there.
    assert_eq!(decide(&anew(raised(server(Server::Gone, HOLD_LIMIT)))), Decision::Adopt);
    // What keeps the API served comes first, and whoever is at work is not disturbed.
    assert_eq!(decide(&anew(server(Server::Gone, REFUSED_GRACE))), Decision::Raise(Cause::Gone));
    assert_eq!(decide(&anew(raised(server(Server::Ready, HOLD)))), Decision::Lower);
    assert!(rests(&Observed { busy: Some("pid 7".into()), ..anew(rest()) }));
}

#[test]
fn by_its_uid_a_node_that_was_made_anew_is_told_from_one_whose_label_was_taken_off() {
    let node = |uid: &str, has_label| Some(NodeSeen { uid: uid.into(), has_label });
    assert_eq!(role(node("a", true).as_ref(), None), Role::Controller);
    assert_eq!(role(node("b", true).as_ref(), Some("a")), Role::Controller);
    assert_eq!(role(node("a", false).as_ref(), Some("a")), Role::TakenOff);
    assert_eq!(role(node("b", false).as_ref(), Some("a")), Role::MadeAnew);
    assert_eq!(role(node("b", false).as_ref(), None), Role::TakenOff, "nobody knows: an admin is not fought with");
    assert_eq!(role(None, Some("a")), Role::Absent);
}

#[test]
fn each_raise_doubles_the_time_to_prove() {
    let seconds: Vec<_> = (0..=9).map(|raises| hold(raises).as_secs()).collect();
    assert_eq!(seconds, [5, 5, 10, 20, 40, 80, 160, 320, 600, 600]);
    assert_eq!(hold(u32::MAX), HOLD_LIMIT);
}

/// A controller as decide sees it and acts on it, second by second, in a history that a seed tells.
mod histories {
    use super::*;
    use crate::random::Random;

    const TICK: Duration = Duration::from_millis(250);
    /// From the raise to the bridge's first answer.
    const BRIDGE_STARTS: Duration = Duration::from_secs(4);
    /// From the start of a self-hosted API server to its first answer, and to its readiness.
    const SERVER_STARTS: Duration = Duration::from_secs(3);
    const LENGTH: Duration = Duration::from_secs(2 * 3600);

    /// What the self-hosted API server does until when.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Life {
        Serves,
        Ends,
        Away,
        Hangs,
        Starts,
    }

    struct World {
        now: Duration,
        life: Life,
        until: Duration,
        etcd_away_until: Duration,
        raised_at: Option<Duration>,
        server: (Server, Duration),
        raises: Vec<Duration>,
        guard_since: Duration,
    }

    impl World {
        fn observe(&mut self) -> Observed {
            let server = match self.life {
                Life::Serves if self.etcd() => Server::Ready,
                Life::Ends => Server::Ending,
                Life::Serves => Server::Unready,
                Life::Hangs => Server::Silent,
                Life::Away | Life::Starts => Server::Gone,
            };
            if self.server.0 != server {
                self.server = (server, self.now);
            }
            let lately = |at: &&Duration| self.now - **at < Duration::from_secs(3600);
            Observed {
                server,
                server_for: self.now - self.server.1,
                has_process: self.life != Life::Away,
                hangs: (self.life == Life::Hangs).then_some(HUNG),
                stands: if self.raised_at.is_some() { Stands::All } else { Stands::Nothing },
                has_leftovers: false,
                silent_for: if self.bridge_serves() {
                    Duration::ZERO
                } else {
                    self.raised_at.map_or(Duration::ZERO, |at| self.now - at)
                },
                etcd: self.etcd(),
                etcd_serves: self.etcd(),
                lacks_data: None,
                up_for: self.now - self.guard_since,
                raises: u32::try_from(self.raises.iter().filter(lately).count()).unwrap(),
                copy: CopyState::Whole,
                leaderless_for: Duration::ZERO,
                new_for: None,
                is_made_anew: false,
                not_controller_for: None,
                another_serves: None,
                busy: None,
            }
        }

        fn etcd(&self) -> bool {
            self.now >= self.etcd_away_until
        }

        fn bridge_serves(&self) -> bool {
            self.etcd() && self.raised_at.is_some_and(|at| self.now - at >= BRIDGE_STARTS)
        }

        fn served(&self) -> bool {
            self.bridge_serves() || (self.etcd() && matches!(self.life, Life::Serves | Life::Ends))
        }

        /// What happens next, by chance: some histories are calm, in others all falls over every few seconds.
        fn live(&mut self, random: &mut Random, calm: u64) {
            if self.now < self.until {
                return;
            }
            let seconds =
                |low: u64, high: u64, random: &mut Random| Duration::from_secs(low + random.below(high - low));
            let (life, lasts) = match self.life {
                Life::Serves => match random.below(4) {
                    0 => (Life::Ends, Duration::from_secs(20)),
                    1 => (Life::Hangs, seconds(1, 120, random)),
                    _ => (Life::Away, seconds(1, 60, random)),
                },
                Life::Ends | Life::Hangs => (Life::Away, seconds(0, 30, random)),
                Life::Away => (Life::Starts, SERVER_STARTS),
                Life::Starts => (Life::Serves, seconds(1, calm, random)),
            };
            (self.life, self.until) = (life, self.now + lasts);
            if random.below(20) == 0 {
                self.etcd_away_until = self.now + seconds(1, 90, random);
            }
        }
    }

    fn random_history(seed: u64) {
        let mut random = Random::new(seed);
        let calm = [10, 30, 120, 900][usize::try_from(seed % 4).unwrap()];
        let mut world = World {
            now: Duration::ZERO,
            life: Life::Away,
            until: Duration::from_secs(5),
            etcd_away_until: Duration::from_secs(1),
            raised_at: None,
            server: (Server::Gone, Duration::ZERO),
            raises: Vec::new(),
            guard_since: Duration::ZERO,
        };
        let mut unserved_since = None;
        let mut etcd_since = Duration::ZERO;
        while world.now < LENGTH {
            world.live(&mut random, calm);
            match decide(&world.observe()) {
                Decision::Raise(cause) => {
                    assert_ne!(
                        world.life,
                        Life::Serves,
                        "seed {seed}, at {:?}: raised beside one that serves: {cause}",
                        world.now
                    );
                    world.raised_at = Some(world.now);
                    world.raises.push(world.now);
                }
                Decision::Lower => {
                    assert_eq!(world.life, Life::Serves, "seed {seed}, at {:?}: lowered, and nobody serves", world.now);
                    world.raised_at = None;
                }
                Decision::End(_) => {
                    assert_eq!(world.life, Life::Hangs, "seed {seed}, at {:?}: ended, and did not hang", world.now);
                    assert!(world.raised_at.is_some(), "seed {seed}, at {:?}: ended, and nobody comes", world.now);
                    (world.life, world.until) = (Life::Starts, world.now + SERVER_STARTS);
                }
                Decision::Rest(_) => {}
                Decision::Leave | Decision::Adopt => panic!("seed {seed}: it is a controller"),
            }
            // The API is away no longer than the longest grace of what happened, and a bridge's start.
            if !world.etcd() {
                etcd_since = world.now;
            }
            unserved_since = if world.served() { None } else { unserved_since.or(Some(world.now)) };
            if let Some(since) = unserved_since {
                let away = world.now - etcd_since.max(since);
                let most = SILENT_GRACE + REFUSED_GRACE + BRIDGE_STARTS + TICK * 2;
                assert!(
                    away <= most,
                    "seed {seed}, at {:?}: nobody has served for {away:?} ({:?})",
                    world.now,
                    world.life
                );
            }
            world.now += TICK;
        }
        // It does not flap: a bound on raises in any hour, whatever happens.
        for at in &world.raises {
            let within =
                world.raises.iter().filter(|other| **other >= *at && **other - *at < Duration::from_secs(3600)).count();
            assert!(within <= MOST_RAISES_IN_AN_HOUR, "seed {seed}: {within} raises in the hour from {at:?}");
        }
    }

    /// Holds of 5, 10, 20 … 600 s fit into an hour no more often.
    const MOST_RAISES_IN_AN_HOUR: usize = 13;

    #[test]
    fn no_history_leaves_the_api_away_or_makes_guard_flap() {
        for seed in 0..100 {
            random_history(seed);
        }
    }

    /// Another controller dies and comes back, and with it whoever led, and etcd's quorum: here the API server serves, or
    /// says that it cannot. None of that is for this node to mend.
    #[test]
    fn another_nodes_outage_raises_nothing() {
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let (mut observed, mut etcd_away, mut leader_away) = (rest(), Duration::ZERO, Duration::ZERO);
            for _ in 0..10_000 {
                // Its Leases last 15 s, and one that is here takes them.
                if leader_away.is_zero() && observed.leaderless_for.is_zero() && random.permille(5) {
                    leader_away = random.millis(100, 17_000);
                }
                if etcd_away.is_zero() && random.permille(2) {
                    etcd_away = random.millis(100, 600_000);
                }
                // While the API is away nobody can renew, and that does not count.
                let is_led = leader_away.is_zero() || !etcd_away.is_zero();
                observed.leaderless_for = if is_led { Duration::ZERO } else { observed.leaderless_for + TICK };
                let server = if etcd_away.is_zero() { Server::Ready } else { Server::Unready };
                observed.server_for =
                    if server == observed.server { observed.server_for + TICK } else { Duration::ZERO };
                (observed.server, observed.etcd) = (server, etcd_away.is_zero());
                assert!(rests(&observed), "seed {seed}: {observed:?}");
                (leader_away, etcd_away) = (leader_away.saturating_sub(TICK), etcd_away.saturating_sub(TICK));
            }
        }
    }
}
