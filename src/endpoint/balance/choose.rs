//! Which targets get the next connection, and whose connections are closed. Pure.
//!
//! | | tried in this order |
//! |---|---|
//! | first | the preferred target, while it is good |
//! | then | the other good ones: the one with the fewest connections of this endpoint first, chance between equals |
//! | then | the others that may serve: leaving, doubtful, failing, silent; of equals the one that was ready last |
//! | and then | starting and unknown ones, once they have been so for 5 s |
//! | never | those that are away: what begins to listen there is asked before a client meets it |
//!
//! *Fewest connections*, because Kubernetes' clients open few connections and keep them for days: taking turns would leave
//! a target that comes back with nothing until clients happen to connect anew. *Chance*, because each node has an
//! endpoint: without it, the first connection of every node, which is its kubelet's, would lead to one and the same
//! target.
//!
//! **No target is good**: nothing is closed, and all that listen are tried. A target that has stopped answering may be slow, the
//! network of this node may be down, or etcd may have no quorum; none of that is better with no connection at all. An
//! API server that is starting is left out for a moment: for a second before it is ready, it answers with wrong
//! refusals.

use std::net::SocketAddr;
use std::time::Duration;

use super::health::{LetsGo, State};

/// An API server that is starting for longer is tried all the same. It is ready two seconds after it answers, or less.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of a target when a connection asks for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub address: SocketAddr,
    /// What is thought of it.
    pub state: State,
    /// For how long.
    pub since: Duration,
    /// The connections that lead to it.
    pub connections: usize,
    /// How long ago it was ready; `None` if it never was.
    pub ready: Option<Duration>,
    /// Whether it is preferred while it is good.
    pub is_preferred: bool,
    /// What decides between equals.
    pub chance: u64,
}

/// The targets to try, one after the other; none where a client had better wait.
pub fn order(mut candidates: Vec<Candidate>) -> Vec<SocketAddr> {
    candidates.retain(|one| match one.state {
        State::Away => false,
        State::Starting | State::Unknown => one.since >= PATIENCE,
        _ => true,
    });
    // Of those that are not good, one that was ready a moment ago is the likeliest to serve.
    let ready = |one: &Candidate| match one.state {
        State::Good => Duration::ZERO,
        _ => one.ready.unwrap_or(Duration::MAX),
    };
    candidates.sort_by_key(|one| (one.state, !one.is_preferred, ready(one), one.connections, one.chance));
    candidates.into_iter().map(|one| one.address).collect()
}

/// The targets that let connections go, and which, where another one `serves` at this moment.
pub fn closing(thought: &[(SocketAddr, LetsGo)], serves: bool) -> Vec<(SocketAddr, LetsGo)> {
    if !serves {
        return Vec::new();
    }
    thought.iter().filter(|(_, lets_go)| *lets_go != LetsGo::None).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6443))
    }

    fn candidate(last: u8, state: State, connections: usize) -> Candidate {
        let since = Duration::ZERO;
        let ready = Some(Duration::from_secs(1));
        Candidate { address: at(last), state, since, connections, ready, is_preferred: false, chance: last.into() }
    }

    fn preferred(last: u8, state: State, connections: usize) -> Candidate {
        Candidate { is_preferred: true, ..candidate(last, state, connections) }
    }

    #[test]
    fn the_order() {
        use State::{Away, Doubtful, Failing, Good, Leaving, Silent, Starting, Unknown};
        let rows: [(&str, Vec<Candidate>, &[u8]); 9] = [
            (
                "fewest connections",
                vec![candidate(1, Good, 5), candidate(2, Good, 3), candidate(3, Good, 4)],
                &[2, 3, 1],
            ),
            ("chance", vec![candidate(3, Good, 1), candidate(1, Good, 1), candidate(2, Good, 1)], &[1, 2, 3]),
            ("the preferred", vec![candidate(1, Good, 0), preferred(2, Good, 99)], &[2, 1]),
            ("the preferred is not good", vec![candidate(1, Good, 9), preferred(2, Leaving, 0)], &[1, 2]),
            ("no good one", vec![candidate(1, Silent, 0), candidate(2, Leaving, 7)], &[2, 1]),
            (
                "all others",
                vec![
                    candidate(1, Silent, 0),
                    candidate(2, Away, 0),
                    candidate(3, Failing, 0),
                    candidate(4, Doubtful, 0),
                    candidate(5, Leaving, 0),
                    candidate(6, Good, 0),
                ],
                &[6, 5, 4, 3, 1],
            ),
            (
                "the one that was ready last",
                vec![
                    candidate(1, Doubtful, 0),
                    Candidate { ready: Some(Duration::ZERO), ..candidate(2, Doubtful, 9) },
                    Candidate { ready: None, ..candidate(3, Doubtful, 0) },
                ],
                &[2, 1, 3],
            ),
            ("one that starts", vec![candidate(1, Starting, 0), candidate(2, Unknown, 0)], &[]),
            ("one that hangs", vec![candidate(1, Silent, 4)], &[1]),
        ];
        for (what, candidates, wanted) in rows {
            let wanted: Vec<_> = wanted.iter().map(|last| at(*last)).collect();
            assert_eq!(order(candidates), wanted, "{what}");
        }
        let long = |last, state| Candidate { since: PATIENCE, ..candidate(last, state, 0) };
        assert_eq!(order(vec![long(1, Unknown), long(2, Starting)]), [at(2), at(1)], "for too long");
    }

    #[test]
    fn connections_are_let_go_only_where_another_target_serves() {
        let thought = [(at(1), LetsGo::None), (at(2), LetsGo::Unanswered), (at(3), LetsGo::All)];
        assert_eq!(closing(&thought, false), []);
        assert_eq!(closing(&thought, true), thought[1..]);
    }

    /// Whatever is thought of them: what may serve is tried.
    #[test]
    fn nobody_is_left_without_a_target() {
        for first in State::ALL {
            for second in State::ALL {
                let candidates = [candidate(1, first, 0), candidate(2, second, 0)];
                let later = candidates.map(|one| Candidate { since: PATIENCE, ..one });
                let listening = [first, second].iter().filter(|state| **state != State::Away).count();
                assert_eq!(order(later.to_vec()).len(), listening, "{first}, {second}");
                let may_serve = |state| !matches!(state, State::Away | State::Starting | State::Unknown);
                let now = order(candidates.to_vec());
                assert_eq!(now.is_empty(), !may_serve(first) && !may_serve(second), "{first}, {second}");
            }
        }
    }
}
