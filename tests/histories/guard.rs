//! guard in the scripted world: whatever takes its controller's API server, the bridge is raised and lowered again, and a
//! guard that is killed anywhere, or whose machine loses its power, goes on.
//!
//! The world holds it to what `start` is held to: it never takes away what serves the API.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use hoist::ops::guard;
use hoist::plane::guard_pod;

use crate::history::{Ended, History, Rest, Stop, assert_same, in_world, reference};
use crate::random::Random;
use crate::world::{Faults, LOOPBACK, MANIFESTS, Machine, NODE, Program};
use crate::{LONG, STUCK, each};

/// Guarded by default, from the seed 1 on.
const HISTORIES: u64 = 20;
/// How long a cluster must be at rest until guard has nothing more to do.
const QUIET: Duration = Duration::from_secs(3);
/// How long guard may take to bring a cluster to rest in which nothing goes wrong any more.
const SETTLES: Duration = Duration::from_secs(900);

/// What becomes of a controller's API server.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// It is gone, and the kubelet starts it again.
    Crash,
    /// It answers nothing for a while.
    Hang,
    /// Its pod is replaced.
    Edit,
    /// Its pod is replaced by one that does not start for a while.
    BadEdit,
    /// It is gone, and there is no kubelet for a while.
    KubeletAway,
}

const TROUBLES: [Trouble; 5] = [Trouble::Crash, Trouble::Hang, Trouble::Edit, Trouble::BadEdit, Trouble::KubeletAway];

impl History {
    /// A cluster that `start` has brought up.
    async fn begin(&self) {
        let ended = self.run(Stop::Never, LONG, STUCK).await;
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        self.pass(Duration::from_secs(5)).await;
        self.world().lock().unwrap().faults = Faults::default();
    }

    fn befall(&self, trouble: Trouble, lasts: Duration) {
        let world = &mut *self.world().lock().unwrap();
        world.say(format!("{trouble:?} for {lasts:?}"));
        let until = world.now + lasts;
        match trouble {
            Trouble::Crash => world.take_api_server(),
            Trouble::Hang => world.hang_api_server(),
            Trouble::Edit => world.edit_api_server(Duration::ZERO),
            Trouble::BadEdit => world.edit_api_server(until),
            Trouble::KubeletAway => {
                world.take_api_server();
                world.keep_kubelet_away(until);
            }
        }
    }

    /// guard, until it is killed or `until` ends.
    async fn guard(&self, until: impl Future<Output = ()>) -> Ended {
        self.say("guard begins".into());
        let options = guard::Options { node_name: NODE.into(), metrics: format!("{LOOPBACK}:0").parse().unwrap() };
        let (host, reporter) = (self.host(), self.reporter());
        let work = AssertUnwindSafe(guard::run(&host, &options, &reporter)).catch_unwind();
        let ended = self.until_killed(async {
            tokio::select! {
                biased;
                () = until => Ended::Done,
                result = work => match Ended::of(result) {
                    Ended::Done => panic!("guard leaves its node"),
                    ended => ended,
                },
            }
        });
        let ended = ended.await;
        self.say(format!("guard ended: {ended:?}"));
        ended
    }

    /// The power is cut, and comes back: the kubelet's unit lets guard look before the kubelet starts.
    async fn reboot(&self) {
        self.world().lock().unwrap().cut_power();
        let booted = guard_pod::boot(&self.host()).await;
        self.say(format!("booted: {booted:?}"));
        self.world().lock().unwrap().boot();
    }

    /// The self-hosted control plane serves, and nothing is left of the bridge.
    fn is_at_rest(&self) -> bool {
        let host = self.host();
        let stands = std::fs::read_dir(host.path(&format!("/{MANIFESTS}"))).unwrap().flatten();
        let is_raised = stands.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("bridge-"));
        let world = self.world().lock().unwrap();
        let serves = world.one(Program::ApiServer, false).is_some_and(|server| world.is_ready(server));
        let leads =
            ["kube-controller-manager", "kube-scheduler"].iter().all(|lease| world.is_held_by_self_hosted(lease));
        !is_raised && !host.bridge().exists() && serves && leads
    }

    /// Until the cluster has been at rest for a while.
    async fn until_at_rest(&self) {
        let begun = tokio::time::Instant::now();
        let mut since = begun;
        while since.elapsed() < QUIET {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if !self.is_at_rest() {
                since = tokio::time::Instant::now();
            }
            assert!(begun.elapsed() < SETTLES, "guard does not lower the bridge");
        }
    }

    /// Nothing goes wrong any more: guard brings the cluster to rest, and a `start` finds nothing to do.
    async fn settle(&self, machine: Machine) {
        self.world().lock().unwrap().heal();
        let ended = self.guard(self.until_at_rest()).await;
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        self.pass(Duration::from_secs(10)).await;
        assert_same(&without_guards(&self.rest()), reference(machine));
        let writes = self.world().lock().unwrap().writes;
        let ended = self.run(Stop::Never, Duration::from_secs(60), Duration::from_secs(60)).await;
        assert!(matches!(ended, Ended::Done), "a start with nothing to do failed: {ended:?}");
        assert_eq!(writes, self.world().lock().unwrap().writes, "guard has left a start something to do");
        self.assert_nothing_wrong();
    }
}

/// A cluster at rest without what guard writes beside: its events and its Lease.
fn without_guards(rest: &Rest) -> Rest {
    let mut rest = rest.clone();
    rest.retain(|name, _| {
        !name.starts_with("events ") && name != "leases.coordination.k8s.io kube-system/hoist-guard-c1"
    });
    rest
}

/// Each trouble by itself: guard raises, and lowers once the self-hosted API server serves.
#[test]
fn guard_bridges_whatever_takes_the_api_server() {
    each(0..TROUBLES.len() as u64, |index| {
        let (trouble, machine) = (TROUBLES[index as usize], Machine::Packaged);
        in_world(&format!("{trouble:?}"), machine, Random::new(1), async |history| {
            history.begin().await;
            let raised = async {
                tokio::time::sleep(Duration::from_secs(5)).await;
                history.befall(trouble, Duration::from_secs(40));
                tokio::time::sleep(Duration::from_secs(30)).await;
            };
            assert!(matches!(history.guard(raised).await, Ended::Done));
            let tale = history.world().lock().unwrap().tale.join("\n");
            assert!(tale.contains("the bridge is raised: "), "{trouble:?}");
            history.settle(machine).await;
        });
    });
}

/// After every change to the API and every operation on the disk of a raise and a lowering: whatever a guard that is killed
/// leaves, the next one goes on from there. Without power, what was not synced is lost.
fn killed_at_every_moment(trouble: Trouble, without_power: bool) {
    let machine = Machine::Packaged;
    let begin = async |history: &History, kill| {
        history.begin().await;
        {
            let faults = &mut history.world().lock().unwrap().faults;
            (faults.kill, faults.without_power) = (kill, without_power);
        }
        let troubled = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            history.befall(trouble, Duration::from_secs(20));
            tokio::time::sleep(Duration::from_secs(2)).await;
            history.until_at_rest().await;
        };
        history.guard(troubled).await
    };
    let count = in_world("a guard that is not killed", machine, Random::new(1), async |history| {
        assert!(matches!(begin(history, None).await, Ended::Done));
        history.world().lock().unwrap().faults.moments
    });
    assert!(count > 40, "{count} moments");
    each(1..=count, |moment| {
        let what = format!("guard killed at moment {moment} of {count}, {trouble:?}, without power: {without_power}");
        in_world(&what, machine, Random::new(1), async |history| {
            let ended = begin(history, Some(moment)).await;
            assert!(matches!(ended, Ended::Killed), "{ended:?}");
            if without_power {
                history.reboot().await;
            }
            history.pass(Duration::from_millis(moment * 7 % 3000)).await;
            history.settle(machine).await;
        });
    });
}

#[test]
fn guard_killed_at_every_moment() {
    killed_at_every_moment(Trouble::Crash, false);
}

#[test]
fn guard_without_power_at_every_moment() {
    killed_at_every_moment(Trouble::Crash, true);
}

/// Whatever goes wrong meanwhile.
async fn random_history(history: &History, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let without_power = random.permille(300);
        {
            let mut world = history.world().lock().unwrap();
            let until = world.now + random.millis(1000, 60_000);
            // Whose clock jumps, and whose power is cut, loses guard, too.
            world.faults = Faults { until, power: 0, clock: 0, without_power, ..Faults::random(random) };
            if random.permille(400) {
                world.faults.kill = Some(1 + random.below(200));
            }
        }
        let (soon, later) = (random.millis(0, 10_000), random.millis(0, 60_000));
        let (first, second) = (random.pick(&TROUBLES), random.pick(&TROUBLES));
        let lasts = random.millis(1000, 60_000);
        let is_second = random.permille(500);
        let troubles = async {
            tokio::time::sleep(soon).await;
            history.befall(first, lasts);
            tokio::time::sleep(later).await;
            if is_second {
                history.befall(second, lasts);
                tokio::time::sleep(later).await;
            }
        };
        let ended = history.guard(troubles).await;
        if let Ended::Failed(error) = ended {
            panic!("guard ends: {error}");
        }
        if without_power {
            history.reboot().await;
        }
        let pause = random.pick(&[0, 500, 5000, 30_000]);
        history.pass(random.millis(0, pause)).await;
    }
}

#[test]
fn random_histories_of_guard() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let numbers = match number("HOIST_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("HOIST_HISTORIES_FROM").unwrap_or(1);
            first..first + number("HOIST_HISTORIES").unwrap_or(HISTORIES)
        }
    };
    each(numbers, |seed| {
        let what = format!("HOIST_SEED={seed} cargo test --test histories random_histories_of_guard");
        in_world(&what, Machine::Packaged, Random::new(!seed), async |history| {
            history.begin().await;
            random_history(history, &mut Random::new(seed)).await;
            history.settle(Machine::Packaged).await;
        });
    });
}
