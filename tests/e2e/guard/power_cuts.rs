//! The power of the only controller is cut, at any moment, and comes back. Nobody types anything, hoist.service is not
//! installed: guard brings the cluster back.
//!
//! `HOIST_POWER_CUTS=20` makes so many; `HOIST_POWER_CUTS_SEED=N`, as a run prints it, the same ones.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::Signal;

use super::{Controller, LATER, signal};
use crate::serving::assert_serves_itself;
use crate::support::cluster::Cluster;
use crate::support::http::runtime;
use crate::support::leases;
use crate::support::node::Node;
use crate::support::random::Random;
use crate::support::traffic::Traffic;

const BY_DEFAULT: usize = 6;
/// A start takes so long, a raise, and a hand-over with what it waits for before.
const START: Duration = Duration::from_secs(12);
const RAISE: Duration = Duration::from_secs(4);
const HAND_OVER: Duration = Duration::from_secs(9);
/// Between two cuts in a row.
const IN_A_ROW: Duration = Duration::from_secs(3);

/// When it is cut.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Nothing is under way.
    AtRest,
    /// Its API server was killed: the bridge is being raised.
    Raise,
    /// The self-hosted API server is back: the bridge is about to be lowered.
    HandOver,
    /// The API has just come back; and again before it could come back once more.
    Twice,
}

#[test]
fn guard_power_cuts() {
    let count = std::env::var("HOIST_POWER_CUTS").map_or(BY_DEFAULT, |count| count.parse().unwrap());
    let mut random = Random::seeded("HOIST_POWER_CUTS_SEED");
    let node = Node::up("guard-cuts");
    let cluster = Cluster::render(&node);
    let traffic = Traffic::begin(cluster.client());

    // Guard comes with the hand-over: a start that was cut is run again.
    let start = cluster.start(&node, &[]);
    let after = random.up_to(START);
    std::thread::sleep(after);
    node.power_cut();
    let last = start.kill().stdout.lines().last().unwrap_or_default().to_owned();
    eprintln!("cut 1 of {count}: {after:.2?} into start ({last})");
    node.boot();
    let controller = Controller::start(node, cluster);
    controller.node.sh("! systemctl cat hoist.service 2>/dev/null");

    let mut boot = Boot::already(&controller);
    let mut cuts = 1;
    let mut first = [Moment::Raise, Moment::HandOver, Moment::Twice, Moment::AtRest].into_iter();
    while cuts < count {
        let moment = first
            .next()
            .unwrap_or_else(|| random.one_of(&[Moment::AtRest, Moment::Raise, Moment::HandOver, Moment::Twice]));
        let (made, next) = cut(&controller, boot, moment, &mut random);
        cuts += made;
        eprintln!("  that was cut {cuts} of {count}");
        boot = next;
    }
    boot.reach(State::Lowered);
    assert_serves_itself(&controller.node, &controller.cluster);
    controller.nothing_is_lost(traffic);
}

/// Waits for the moment, cuts, and switches on again. Says how often.
fn cut<'a>(controller: &'a Controller, mut boot: Boot<'a>, moment: Moment, random: &mut Random) -> (usize, Boot<'a>) {
    let mut count = 1;
    let longest = match moment {
        Moment::AtRest => {
            boot.reach(State::Lowered);
            Duration::from_secs(2)
        }
        Moment::Raise => {
            boot.reach(State::Lowered);
            signal(controller.api_server().unwrap(), Signal::SIGKILL);
            RAISE
        }
        Moment::HandOver => {
            boot.reach(State::SelfHosted);
            HAND_OVER
        }
        Moment::Twice => {
            boot.reach(State::Served);
            controller.node.power_cut();
            drop(Boot::new(controller));
            count = 2;
            IN_A_ROW
        }
    };
    let after = if count == 2 { longest } else { random.up_to(longest) };
    std::thread::sleep(after);
    eprintln!("cut, {moment:?}, {after:.2?} later");
    controller.node.power_cut();
    (count, Boot::new(controller))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Served,
    SelfHosted,
    Led,
    Lowered,
}

const STATES: [State; 4] = [State::Served, State::SelfHosted, State::Led, State::Lowered];

/// A node that was switched on, and when it was what for the first time. Dropped, it says so.
struct Boot<'a> {
    controller: &'a Controller,
    at: Instant,
    time: Timestamp,
    reached: [Option<Duration>; STATES.len()],
}

impl<'a> Boot<'a> {
    fn new(controller: &'a Controller) -> Self {
        let (at, time) = (Instant::now(), Timestamp::now());
        controller.node.boot();
        Self { controller, at, time, reached: [None; STATES.len()] }
    }

    /// One whose beginning was not seen.
    fn already(controller: &'a Controller) -> Self {
        Self { controller, at: Instant::now(), time: Timestamp::UNIX_EPOCH, reached: [None; STATES.len()] }
    }

    #[track_caller]
    fn reach(&mut self, wanted: State) {
        while self.reached[wanted as usize].is_none() {
            for state in STATES {
                if self.reached[state as usize].is_none() && self.is(state) {
                    self.reached[state as usize] = Some(self.at.elapsed());
                }
            }
            assert!(self.at.elapsed() < LATER, "{wanted:?}: not within {LATER:?} of the boot");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn is(&self, state: State) -> bool {
        match state {
            State::Served => self.controller.is_served(),
            State::SelfHosted => self.controller.self_hosted_is_ready(),
            State::Led => runtime().block_on(leases::are_renewed_since(&self.controller.cluster.client(), self.time)),
            // Before it is raised there is nothing to lower.
            State::Lowered => self.reached[State::Led as usize].is_some() && self.controller.is_lowered(),
        }
    }
}

impl Drop for Boot<'_> {
    fn drop(&mut self) {
        let said = STATES.iter().zip(self.reached).filter_map(|(state, at)| Some(format!("{state:?} {:.1?}", at?)));
        let said: Vec<_> = said.collect();
        if self.time != Timestamp::UNIX_EPOCH {
            eprintln!(
                "  after the switch was turned: {}",
                if said.is_empty() { "cut".into() } else { said.join(", ") }
            );
        }
    }
}
