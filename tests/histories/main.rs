//! `start`, guard, `unpivot`, `recover` and `apply` in a scripted world: stopped anywhere, run again, whatever goes wrong meanwhile.
//!
//! Time is tokio's, paused: a history of minutes takes milliseconds. Everything in one comes from its seed:
//! `HOIST_SEED=123 cargo test --test histories random` tells that one again, with all that happened.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod addons;
mod guard;
mod history;
mod outside;
mod random;
mod ways_back;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

use history::{Ended, Stop, assert_same, asset_tree, in_world, random_history, reference};
use random::Random;
use world::{MACHINES, Machine};

/// Told by default, from the seed 1 on; HOIST_HISTORIES is another number, HOIST_HISTORIES_FROM another beginning.
const HISTORIES: u64 = 150;
const LONG: Duration = Duration::from_secs(1800);
const STUCK: Duration = Duration::from_secs(300);

/// After so many failures the others are not told.
const ENOUGH: usize = 5;

/// Does `what` for all numbers, on all processors.
fn each(numbers: impl Iterator<Item = u64> + Send, what: impl Fn(u64) + Sync) {
    let (numbers, failed) = (Mutex::new(numbers), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(number) = { numbers.lock().unwrap().next() } {
                    if catch_unwind(AssertUnwindSafe(|| what(number))).is_err() {
                        failed.lock().unwrap().push(number);
                    }
                    if failed.lock().unwrap().len() >= ENOUGH {
                        break;
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "these failed: {failed:?}");
}

fn seed(number: u64) {
    let machine = MACHINES[(number % 3) as usize];
    let (mut random, reference) = (Random::new(number), reference(machine));
    let what = format!("HOIST_SEED={number} cargo test --test histories random");
    in_world(&what, machine, Random::new(!number), async |history| {
        assert_same(&random_history(history, &mut random).await, reference);
    });
}

#[test]
fn random_histories() {
    let before = asset_tree();
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("HOIST_SEED") {
        Some(number) => seed(number),
        None => {
            let first = number("HOIST_HISTORIES_FROM").unwrap_or(1);
            each(first..first + number("HOIST_HISTORIES").unwrap_or(HISTORIES), seed);
        }
    }
    assert!(before == asset_tree(), "the asset directory was changed");
}

/// How many moments there are at which a run that nothing disturbs may be killed.
fn moments(machine: Machine, without_power: bool) -> u64 {
    in_world("a run that is not killed", machine, Random::new(1), async |history| {
        history.world().lock().unwrap().faults.without_power = without_power;
        let ended = history.run(Stop::Never, LONG, STUCK).await;
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        history.world().lock().unwrap().faults.moments
    })
}

/// After every change to the API, every command, every operation on the disk and in the middle of some, and while hoist
/// waits: whatever a run that is killed leaves, the next one goes on from there. Where the power is cut at that moment, what
/// was not brought to the disk is lost. Two moments that would leave the same are told once ([`Faults::is_killed`]).
///
/// [`Faults::is_killed`]: world::Faults::is_killed
fn killed_at_every_moment(machine: Machine, without_power: bool) {
    let count = moments(machine, without_power);
    assert!(count > 150, "{count} moments");
    let reference = reference(machine);
    each(1..=count, |moment| {
        let what = format!("killed at moment {moment} of {count} on {machine:?}, without power: {without_power}");
        in_world(&what, machine, Random::new(1), async |history| {
            {
                let faults = &mut history.world().lock().unwrap().faults;
                (faults.kill, faults.without_power) = (Some(moment), without_power);
            }
            let ended = history.run(Stop::Never, LONG, STUCK).await;
            assert!(matches!(ended, Ended::Killed), "{ended:?}");
            if without_power {
                let mut world = history.world().lock().unwrap();
                world.cut_power();
                world.boot();
            }
            history.pass(Duration::from_millis(moment * 7 % 3000)).await;
            assert_same(&history.conclude().await, reference);
        });
    });
}

#[test]
fn killed_at_every_moment_on_a_bare_machine() {
    killed_at_every_moment(Machine::Bare, false);
}

#[test]
fn killed_at_every_moment_on_a_machine_with_a_packaged_kubelet() {
    killed_at_every_moment(Machine::Packaged, false);
}

#[test]
fn killed_at_every_moment_on_a_machine_without_systemd() {
    killed_at_every_moment(Machine::ByHand, false);
}

#[test]
fn without_power_at_every_moment() {
    killed_at_every_moment(Machine::Packaged, true);
}

#[test]
fn the_same_seed_tells_the_same_history() {
    let told = || {
        in_world("seed 5, twice", Machine::Packaged, Random::new(5), async |history| {
            random_history(history, &mut Random::new(5)).await;
            let world = history.world().lock().unwrap();
            world.tale.join("\n").replace(world.root.to_str().unwrap(), "")
        })
    };
    let (first, second) = (told(), told());
    let different = first.lines().zip(second.lines()).find(|(first, second)| first != second);
    assert_eq!(different, None, "a seed must be enough to tell a history again");
    assert_eq!(first.len(), second.len());
}

/// With hosted control planes, two API servers on one host are ordinary.
#[test]
fn other_control_planes_on_the_host_change_nothing() {
    let told = |with_neighbours: bool| {
        in_world("beside other control planes", Machine::Packaged, Random::new(7), async |history| {
            if with_neighbours {
                history.world().lock().unwrap().show_neighbours();
            }
            random_history(history, &mut Random::new(7)).await;
            let world = history.world().lock().unwrap();
            world.tale.join("\n").replace(world.root.to_str().unwrap(), "")
        })
    };
    let (alone, beside) = (told(false), told(true));
    let different = alone.lines().zip(beside.lines()).find(|(alone, beside)| alone != beside);
    assert_eq!(different, None, "hoist does something else beside them");
    assert_eq!(alone.len(), beside.len());
}

#[test]
fn a_second_start_says_who_is_at_work_and_since_when() {
    in_world("two starts", Machine::Bare, Random::new(1), async |history| {
        let second = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let before = asset_tree();
            let error = history.run_beside().await.unwrap_err();
            assert_eq!(error.exit_code(), 5);
            let since = "since 2027-01-15T08:00:00Z";
            let holder = format!("another hoist is at work: pid {}, {since}", std::process::id());
            assert_eq!(error.to_string(), holder);
            assert!(before == asset_tree());
        };
        let (first, ()) = tokio::join!(history.run(Stop::Never, LONG, STUCK), second);
        assert!(matches!(first, Ended::Done), "{first:?}");
        // The lock goes with its holder.
        history.conclude().await;
    });
}

/// What only hoist makes, and what users' manifests make, deleted by hand from a cluster that is up.
#[test]
fn what_was_deleted_of_a_cluster_that_is_up_is_put_back() {
    let reference = reference(Machine::Bare);
    in_world("objects deleted", Machine::Bare, Random::new(1), async |history| {
        history.conclude().await;
        for (resource, namespace, name) in [
            ("clusterrolebindings.rbac.authorization.k8s.io", "", "hoist:guard"),
            ("roles.rbac.authorization.k8s.io", "kube-system", "hoist:guard"),
            ("serviceaccounts", "kube-system", "kube-scheduler"),
            ("configmaps", "kube-system", "kube-apiserver-config"),
            ("secrets", "kube-system", "kube-controller-manager"),
            ("secrets", "kube-system", "hoist-guard"),
            ("widgets.example.com", "user", "one"),
            ("configmaps", "user", "settings"),
        ] {
            let mut world = history.world().lock().unwrap();
            assert!(world.store.remove(&world::key(resource, namespace, name)).is_some(), "{resource} {name}");
        }
        assert_same(&history.conclude().await, reference);
    });
}

/// Whenever the signal comes: what stands is said, how to go on, how to undo; and going on works.
#[test]
fn a_signal_ends_a_start_between_two_acts() {
    for (number, moment) in [(2u8, 10), (15, 400), (2, 1500), (15, 3000), (2, 3300), (15, 5000), (2, 30_000)] {
        let what = format!("signal {number} after {moment} ms");
        let reference = reference(Machine::Bare);
        in_world(&what, Machine::Bare, Random::new(1), async |history| {
            let ended = history.run(Stop::Signal(Duration::from_millis(moment), number), LONG, STUCK).await;
            if let Ended::Failed(error) = &ended {
                assert_eq!(error.exit_code(), 128 + number);
                let said = error.to_string();
                assert!(said.starts_with("interrupted\n") && said.contains("run the same command again"), "{said}");
                let stands = said.contains("the bridge stays") && said.contains("to undo: remove");
                assert!(stands || said.contains("the bridge is not raised"), "{said}");
            } else {
                assert!(matches!(ended, Ended::Done) && moment > 20_000, "{ended:?}");
            }
            assert_same(&history.conclude().await, reference);
        });
    }
}
