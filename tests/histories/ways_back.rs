//! `unpivot` and `recover` in the scripted world: killed and run again, they come to the same end, and what serves the API is
//! never taken away.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use hoist::ops::recover::{self, recover};
use hoist::ops::start::{Mode, Options};
use hoist::ops::unpivot::unpivot;

use crate::history::{Ended, History, Rest, Stop, assert_same, in_world, options};
use crate::random::Random;
use crate::world::{Faults, Machine, key};
use crate::{LONG, STUCK, each};

/// Of so many moments, a merge tries one.
const SOME: usize = 8;

/// A command that ends with a cluster at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Unpivot,
    Recover,
}

impl History {
    /// The cluster from which the way leads.
    async fn before(&self, way: Way) {
        let ended = self.run(Stop::Never, LONG, STUCK).await;
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        self.pass(Duration::from_secs(5)).await;
        // The world's etcd keeps nothing on the disk.
        std::fs::create_dir_all(self.host().path("/var/lib/etcd/member/snap")).unwrap();
        std::fs::write(self.host().path("/var/lib/etcd/member/snap/db"), "all of it").unwrap();
        let mut world = self.world().lock().unwrap();
        world.faults = Faults::default();
        match way {
            Way::Unpivot => world.may_take_away = true,
            // By hand: with its pod goes the API.
            Way::Recover => {
                world.edit_api_server(Duration::ZERO);
                for (resource, name) in [
                    ("daemonsets.apps", "kube-apiserver"),
                    ("deployments.apps", "kube-scheduler"),
                    ("secrets", "kube-apiserver"),
                ] {
                    assert!(world.store.remove(&key(resource, "kube-system", name)).is_some(), "{resource} {name}");
                }
            }
        }
    }

    /// One run of it.
    async fn go(&self, way: Way) -> Ended {
        self.say(format!("{way:?}"));
        let (host, options, reporter) = (self.host(), options(LONG, STUCK), self.reporter());
        let work = async {
            match way {
                Way::Unpivot => unpivot(&host, &options, &reporter, std::future::pending()).await,
                Way::Recover => {
                    let start = Options { mode: Mode::Recover { force_manifests: false }, ..options };
                    let options =
                        recover::Options { data: recover::Data::InEtcd, dry_run: false, confirm: None, start };
                    recover(&host, &options, &reporter, std::future::pending()).await.map(drop)
                }
            }
        };
        let ended = self.until_killed(AssertUnwindSafe(work).catch_unwind().map(Ended::of)).await;
        self.say(format!("{way:?} ended: {ended:?}"));
        ended
    }

    /// A run that must succeed, and the cluster that it leaves.
    async fn arrive(&self, way: Way) -> Rest {
        self.world().lock().unwrap().heal();
        let ended = self.go(way).await;
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        self.pass(Duration::from_secs(10)).await;
        self.assert_nothing_wrong();
        self.rest()
    }
}

fn killed_at_moments(way: Way) {
    // Without systemd there is no unit of hoist's to see to.
    let machine = Machine::ByHand;
    let (reference, count) = in_world("the reference", machine, Random::new(1), async |history| {
        history.before(way).await;
        let rest = history.arrive(way).await;
        let count = history.world().lock().unwrap().faults.moments;
        (rest, count)
    });
    assert!(count > 60, "{count} moments");
    // A merge tries some of them, the long run all.
    let step = if std::env::var_os("HOIST_HISTORIES").is_some() { 1 } else { SOME };
    each((1..=count).step_by(step), |moment| {
        let what = format!("{way:?}, killed at moment {moment} of {count}");
        in_world(&what, machine, Random::new(1), async |history| {
            history.before(way).await;
            history.world().lock().unwrap().heal();
            history.world().lock().unwrap().faults.kill = Some(moment);
            let ended = history.go(way).await;
            assert!(matches!(ended, Ended::Killed), "{ended:?}");
            history.pass(Duration::from_millis(moment * 7 % 3000)).await;
            assert_same(&history.arrive(way).await, &reference);
        });
    });
}

#[test]
fn unpivot_that_is_killed_goes_on() {
    if !nix::unistd::geteuid().is_root() {
        // The files of its pods belong to the user that they run as.
        eprintln!("left out: it takes root");
        return;
    }
    killed_at_moments(Way::Unpivot);
}

#[test]
fn recover_that_is_killed_goes_on() {
    killed_at_moments(Way::Recover);
}
