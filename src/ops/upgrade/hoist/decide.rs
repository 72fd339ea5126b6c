//! What brings another hoist to a node does next: a pure function of what was observed. The first row that is not fulfilled decides.
//!
//! | | is so | else |
//! |---|---|---|
//! | 1 | the binary on the disk is the new one, where one is there | it is put in its place, and the old one beside it |
//! | 2 | guard's manifest is of the new hoist | it is written: guard begins anew |
//! | 3 | guard serves its metrics, and runs the new hoist | it is waited for |
//! | 4 | the endpoint's manifest is of the new hoist, and the endpoint that listens runs it | a second endpoint is put beside it, of the new hoist; once that listens, the manifest is written |
//! | 5 | no second endpoint is there, or listens | it is taken away, and waited for |
//!
//! A node without a guard, or without an endpoint, fulfils their rows. While either endpoint begins or ends, the other one listens at the
//! same address, so no connection is refused.

use std::time::Duration;

/// A pod of hoist's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pod {
    /// Its manifest is of the new hoist.
    pub is_written: bool,
    /// It listens, runs the new hoist, and no process of its runs another.
    pub serves: bool,
}

/// The second endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// There is none.
    Absent,
    /// Its manifest is there.
    Written,
    /// It listens, too.
    Serves,
    /// Its manifest is gone, and it still listens.
    Leaves,
}

/// What all depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Whether the binary on the disk is the new one; `None` where no pod runs it.
    pub binary: Option<bool>,
    /// guard, where it is on this node.
    pub guard: Option<Pod>,
    /// The endpoint, where it is on this node.
    pub endpoint: Option<Pod>,
    /// The second endpoint.
    pub beside: Beside,
    /// For how long nothing was done.
    pub waited: Duration,
    /// How long that may be.
    pub limit: Duration,
}

/// One thing to do. Each may be done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Put the new binary in its place.
    PutBinary,
    /// Write guard's manifest.
    WriteGuard,
    /// Put a second endpoint beside the first.
    PutBeside,
    /// Write the endpoint's manifest.
    WriteEndpoint,
    /// Take the second endpoint away.
    RemoveBeside,
}

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Do this, and observe again.
    Do(Act),
    /// Wait, for this.
    Wait(&'static str),
    /// This was waited for, for too long.
    GiveUp(&'static str),
    /// All of this node's is of the new hoist.
    Done,
}

use Decision::{Do, Done, GiveUp, Wait};

/// Decides.
pub fn decide(seen: &Observed) -> Decision {
    let wait = |what| if seen.waited >= seen.limit { GiveUp(what) } else { Wait(what) };
    if seen.binary == Some(false) {
        return Do(Act::PutBinary);
    }
    match seen.guard {
        Some(Pod { is_written: false, .. }) => return Do(Act::WriteGuard),
        Some(Pod { serves: false, .. }) => return wait("guard to run the new hoist"),
        _ => {}
    }
    let is_new = |pod: Pod| pod.is_written && pod.serves;
    match (seen.endpoint.filter(|endpoint| !is_new(*endpoint)), seen.beside) {
        (Some(_), Beside::Absent) => Do(Act::PutBeside),
        (Some(_), Beside::Written) => wait("a second endpoint to listen beside the first"),
        (Some(Pod { is_written: false, .. }), Beside::Serves) => Do(Act::WriteEndpoint),
        (Some(_), Beside::Serves) => wait("the endpoint to run the new hoist"),
        (_, Beside::Leaves) => wait("the second endpoint to end"),
        (None, Beside::Absent) => Done,
        (None, _) => Do(Act::RemoveBeside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Option<Pod> = Some(Pod { is_written: false, serves: false });

    fn controller() -> Observed {
        Observed {
            binary: Some(false),
            guard: OLD,
            endpoint: OLD,
            beside: Beside::Absent,
            waited: Duration::ZERO,
            limit: Duration::from_secs(60),
        }
    }

    /// What an act or a wait makes of it; a manifest that is written ends what ran.
    fn after(seen: &Observed, decision: &Decision) -> Observed {
        let mut seen = seen.clone();
        let pod = |is_written, serves| Some(Pod { is_written, serves });
        match decision {
            Do(Act::PutBinary) => seen.binary = Some(true),
            Do(Act::WriteGuard) => seen.guard = pod(true, false),
            Do(Act::PutBeside) => seen.beside = Beside::Written,
            Do(Act::WriteEndpoint) => seen.endpoint = pod(true, false),
            Do(Act::RemoveBeside) => seen.beside = Beside::Leaves,
            Wait(what) if what.contains("to end") => seen.beside = Beside::Absent,
            Wait(what) if what.contains("guard") => seen.guard = pod(true, true),
            Wait(what) if what.contains("second") => seen.beside = Beside::Serves,
            Wait(_) => seen.endpoint = pod(true, true),
            GiveUp(_) | Done => unreachable!(),
        }
        seen
    }

    /// All the way; a process that is killed knows no more than what it observes, so it goes on likewise.
    fn way(mut seen: Observed) -> Vec<Decision> {
        let mut way = Vec::new();
        while way.len() < 20 {
            let decision = decide(&seen);
            if decision == Done {
                return way;
            }
            // What listens is never the only one that is about to end.
            if decision == Do(Act::WriteEndpoint) {
                assert_eq!(seen.beside, Beside::Serves);
            }
            if decision == Do(Act::RemoveBeside) {
                assert!(seen.endpoint.is_none_or(|endpoint| endpoint.serves));
            }
            seen = after(&seen, &decision);
            way.push(decision);
        }
        panic!("{way:?}");
    }

    #[test]
    fn binary_guard_and_endpoint_in_this_order() {
        let guards = [Do(Act::PutBinary), Do(Act::WriteGuard), Wait("guard to run the new hoist")];
        let endpoints = [
            Do(Act::PutBeside),
            Wait("a second endpoint to listen beside the first"),
            Do(Act::WriteEndpoint),
            Wait("the endpoint to run the new hoist"),
            Do(Act::RemoveBeside),
            Wait("the second endpoint to end"),
        ];
        assert_eq!(way(controller()), [&guards[..], &endpoints[..]].concat());
        let worker = Observed { binary: None, guard: None, ..controller() };
        assert_eq!(way(worker), endpoints);
        let without_endpoint = Observed { endpoint: None, ..controller() };
        assert_eq!(way(without_endpoint), guards);
        assert_eq!(way(Observed { binary: None, guard: None, endpoint: None, ..controller() }), []);
    }

    #[test]
    fn an_endpoint_that_does_not_come_keeps_the_second_and_is_given_up() {
        let written = Some(Pod { is_written: true, serves: false });
        let mut seen =
            Observed { binary: None, guard: None, endpoint: written, beside: Beside::Serves, ..controller() };
        assert!(matches!(decide(&seen), Wait(_)));
        seen.waited = seen.limit;
        assert_eq!(decide(&seen), GiveUp("the endpoint to run the new hoist"));
        // What can be done is done, however long nothing was.
        seen.endpoint = OLD;
        assert_eq!(decide(&seen), Do(Act::WriteEndpoint));
    }

    #[test]
    fn a_second_endpoint_of_a_run_that_was_killed_is_taken_away() {
        let new = Some(Pod { is_written: true, serves: true });
        for beside in [Beside::Written, Beside::Serves] {
            let seen = Observed { binary: Some(true), guard: new, endpoint: new, beside, ..controller() };
            assert_eq!(decide(&seen), Do(Act::RemoveBeside));
        }
        // One that is about to end does not stand in for the first.
        let seen = Observed { binary: None, guard: None, beside: Beside::Leaves, ..controller() };
        assert_eq!(decide(&seen), Wait("the second endpoint to end"));
    }
}
