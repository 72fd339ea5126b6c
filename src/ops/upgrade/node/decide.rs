//! What the exchange of a node's kubelet does next: a pure function of what was observed. The first row that is not fulfilled decides.
//!
//! | | forth | back |
//! |---|---|---|
//! | 1 | the new program is in its place, the old one beside it | the old program is in its place |
//! | 2 | the kubelet that runs is that program | the same |
//! | 3 | the Node says that this version is ready, since the kubelet began | the same for the old version |
//! | 4 | it has been so for the time in which static pods would be made anew | |
//!
//! A new kubelet that ends again and again, or has not come to row 3 in time, turns the way round.

use std::time::Duration;

use time::OffsetDateTime;

use crate::api::skew::Kubelet;
use crate::desired::config::Version;
use crate::ops::upgrade::Way;

/// How often a new kubelet may end before it is given up: systemd starts it again each time.
pub const ENDS: usize = 3;
/// A kubelet of another version makes static pods anew in the seconds after it is ready, if at all.
pub const SETTLE: Duration = Duration::from_secs(5);

/// What all depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The new program is in the kubelet's place.
    pub is_in_place: bool,
    /// The old one waits beside it.
    pub has_way_back: bool,
    /// When the kubelet that runs began; `None` where none runs, or one that is not the program in its place.
    pub began: Option<OffsetDateTime>,
    /// How many kubelets systemd has started, one after the other, since this run had it start the first; none before.
    pub begun: usize,
    /// The node's version that is wanted.
    pub wanted: Version,
    /// What the Node says of its kubelet; an error's text where nobody answers.
    pub node: Result<Kubelet, String>,
    /// For how long row 3 has held.
    pub proved_for: Duration,
    /// For how long row 2 was waited for or has held.
    pub tried_for: Duration,
    /// How long it may take until row 3 holds.
    pub limit: Duration,
}

/// One thing to do. Each may be done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Put the new program in the kubelet's place, and keep the old one.
    Put,
    /// Put the old one back.
    PutBack,
    /// Start the kubelet anew.
    Restart,
}

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Do this, and observe again.
    Do(Act),
    /// Wait, for this.
    Wait(String),
    /// The kubelet does not prove itself, for this reason.
    GiveUp(String),
    /// All is as it should be.
    Done,
}

use Decision::{Do, Done, GiveUp, Wait};

/// Decides.
pub fn decide(way: Way, seen: &Observed) -> Decision {
    match way {
        Way::Forth if !seen.is_in_place => return Do(Act::Put),
        Way::Back if seen.has_way_back => return Do(Act::PutBack),
        _ => {}
    }
    let waits = match unproved(seen) {
        None if way == Way::Back || seen.proved_for >= SETTLE => return Done,
        None => return Wait("static pods, which another version might make anew".into()),
        Some(waits) => waits,
    };
    if seen.begun >= ENDS {
        return GiveUp(format!("it has ended {} times", seen.begun - 1));
    }
    if seen.tried_for >= seen.limit {
        return GiveUp(format!("waited {} s for {waits}", seen.limit.as_secs()));
    }
    match seen.began {
        // systemd starts one that has ended.
        None if seen.begun == 0 => Do(Act::Restart),
        _ => Wait(waits),
    }
}

/// What row 3 lacks.
pub fn unproved(seen: &Observed) -> Option<String> {
    let Some(began) = seen.began else { return Some("the kubelet to run".into()) };
    let node = match &seen.node {
        Ok(node) => node,
        Err(why) => return Some(format!("the API: {why}")),
    };
    if !seen.wanted.is(&node.version) {
        return Some(format!("the Node {} to say {}: it says {}", node.node, seen.wanted, node.version));
    }
    // The API has whole seconds.
    let is_heard = node.heard.is_some_and(|heard| heard.unix_timestamp() >= began.unix_timestamp());
    match (is_heard, node.ready) {
        (true, true) => None,
        (true, false) => Some(format!("the Node {} to be ready", node.node)),
        (false, _) => Some(format!("the Node {} to hear from its new kubelet", node.node)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Version = Version { major: 1, minor: 37, patch: 2 };
    const OLD: Version = Version { major: 1, minor: 36, patch: 3 };

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
    }

    fn before() -> Observed {
        Observed {
            is_in_place: false,
            has_way_back: false,
            began: Some(at(0)),
            begun: 0,
            wanted: NEW,
            node: Ok(Kubelet {
                node: "w1".into(),
                version: "v1.36.3".into(),
                ready: true,
                disk_pressure: false,
                heard: Some(at(50)),
            }),
            proved_for: Duration::ZERO,
            tried_for: Duration::ZERO,
            limit: Duration::from_secs(60),
        }
    }

    /// The new program runs and is heard.
    fn after() -> Observed {
        let node = Kubelet {
            node: "w1".into(),
            version: "v1.37.2".into(),
            ready: true,
            disk_pressure: false,
            heard: Some(at(101)),
        };
        Observed { is_in_place: true, has_way_back: true, began: Some(at(100)), begun: 1, node: Ok(node), ..before() }
    }

    #[test]
    fn put_started_and_proved_in_this_order() {
        let mut seen = before();
        assert_eq!(decide(Way::Forth, &seen), Do(Act::Put));
        // What runs is the old program still, which is not in its place any more.
        (seen.is_in_place, seen.has_way_back, seen.began) = (true, true, None);
        assert_eq!(decide(Way::Forth, &seen), Do(Act::Restart));
        let silent = Observed { node: before().node, ..after() };
        assert!(matches!(decide(Way::Forth, &silent), Wait(what) if what.contains("to say v1.37.2: it says v1.36.3")));
        assert!(matches!(decide(Way::Forth, &after()), Wait(what) if what.contains("static pods")));
        assert_eq!(decide(Way::Forth, &Observed { proved_for: SETTLE, ..after() }), Done);
    }

    #[test]
    fn what_the_kubelet_of_before_has_said_proves_nothing() {
        let mut seen = after();
        seen.node.as_mut().unwrap().heard = Some(at(99));
        assert!(matches!(decide(Way::Forth, &seen), Wait(what) if what.contains("hear from its new kubelet")));
        seen.node.as_mut().unwrap().heard = None;
        assert!(matches!(decide(Way::Forth, &seen), Wait(_)));
        seen.node.as_mut().unwrap().heard = Some(at(100));
        assert!(unproved(&seen).is_none());
        seen.node.as_mut().unwrap().ready = false;
        assert!(matches!(decide(Way::Forth, &seen), Wait(what) if what.contains("to be ready")));
        seen.node = Err("refused".into());
        assert!(matches!(decide(Way::Forth, &seen), Wait(what) if what.contains("the API: refused")));
    }

    #[test]
    fn one_that_ends_again_and_again_is_given_up_before_its_time() {
        let ended = Observed { began: None, begun: 2, ..after() };
        assert!(matches!(decide(Way::Forth, &ended), Wait(what) if what.contains("to run")));
        assert_eq!(decide(Way::Forth, &Observed { begun: 3, ..ended }), GiveUp("it has ended 2 times".into()));
        let late = Observed { tried_for: Duration::from_secs(60), node: Err("refused".into()), ..after() };
        assert!(matches!(decide(Way::Forth, &late), GiveUp(what) if what.contains("60 s for the API: refused")));
        // One that has proved itself late has proved itself.
        let proved = Observed { tried_for: Duration::from_secs(70), proved_for: SETTLE, begun: 4, ..after() };
        assert_eq!(decide(Way::Forth, &proved), Done);
    }

    #[test]
    fn the_way_back_ends_with_the_old_one_proved() {
        let mut seen = Observed { wanted: OLD, ..after() };
        assert_eq!(decide(Way::Back, &seen), Do(Act::PutBack));
        (seen.is_in_place, seen.has_way_back, seen.began, seen.begun) = (false, false, None, 0);
        assert_eq!(decide(Way::Back, &seen), Do(Act::Restart));
        (seen.began, seen.begun) = (Some(at(200)), 1);
        assert!(matches!(decide(Way::Back, &seen), Wait(_)));
        let node = Kubelet {
            node: "w1".into(),
            version: "v1.36.3".into(),
            ready: true,
            disk_pressure: false,
            heard: Some(at(201)),
        };
        seen.node = Ok(node);
        assert_eq!(decide(Way::Back, &seen), Done, "nothing is made anew by the version that was there");
    }
}
