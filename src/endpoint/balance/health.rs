//! The health of one target: what is thought of it, given everything that was seen of it. Pure.
//!
//! An open port says nothing. A target is *good* if /readyz answers 200 with a certificate of the cluster's CA.
//!
//! | thought \ seen | ready | it says that it shuts down | another answer | refused | nothing |
//! |---|---|---|---|---|---|
//! | unknown | good | leaving | starting | away | silent |
//! | good | good | leaving | doubtful | away | silent |
//! | doubtful | good* | leaving | doubtful, at the fourth time failing | away | silent |
//! | leaving | good* | leaving | starting | away | silent |
//! | away | good* | leaving | starting | away | silent |
//! | starting | good* | leaving | starting, after 30 s failing | away | silent |
//! | failing | good* | leaving | failing | away | silent |
//! | silent | good* | leaving | starting | away | silent |
//!
//! *Another answer* is any other status, a foreign certificate, or a connection that breaks. *Nothing* means that two
//! questions went unanswered and that no byte came from the target on any other connection meanwhile. While bytes come,
//! the target is *slow*: it stays what it is, and is silent after five seconds of that. If it tells its version meanwhile, for
//! which it needs no etcd, it is *waiting*: its etcd hangs, or reaches no majority. A good target is doubtful then, and silent
//! after five seconds of that as well; a busy one may look so for a moment, and loses no open connection.
//!
//! \* At once after a restart that was announced. A target that fell without that must be ready twice in a row, and at
//! each further fall twice as often, up to 16 times; a minute of being good makes up for it.
//!
//! | | new connections | open connections |
//! |---|---|---|
//! | good | yes | go on |
//! | leaving, doubtful | only while none is good | go on: an API server that ends answers what it was asked |
//! | away | no | go on, for the same reason; if the process is dead, the kernel has closed them |
//! | failing, silent | only while none is good | are closed once another is good and was ready within 0.7 s, so that watches move; those to a silent one not before it was silent twice in a row |
//! | unknown, starting | only while none is good, and after 5 s of it | go on |

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::probe::Answer;

/// So many unready answers in a row make a good target a failing one: a second of them.
const UNREADY: u32 = 4;
/// So many silences in a row cost a target its open connections.
const SILENCES: u32 = 2;
/// A target that has been slow for so long is a silent one.
const SLOW: Duration = Duration::from_secs(5);
/// An API server that has not got ready in this time is not starting any more.
const STARTS: Duration = Duration::from_secs(30);
/// A question that is not answered for so long tells that a target hangs. One that was ready meanwhile does not hang for the same
/// reason: the network of this node, or an etcd without a leader.
pub const LATELY: Duration = Duration::from_millis(700);
/// A target that was good for so long has made up for earlier falls.
const CALM: Duration = Duration::from_secs(60);
/// The falls that count.
const FALLS: u32 = 4;

/// What one look at a target came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// /readyz says 200.
    Ready,
    /// /readyz says that it shuts down.
    Leaving,
    /// Something else answers, or a connection breaks.
    Unready,
    /// Nothing listens.
    Refused,
    /// It does not answer, and nothing comes from it on other connections.
    Silent,
    /// It does not answer in time, and is alive.
    Slow,
    /// It answers what it needs no etcd for, and not whether it is ready.
    Waiting,
    /// That says nothing of it.
    Nothing,
}

impl Seen {
    /// What an answer says, and what came from the target while it was asked.
    pub fn of(answer: &Answer, meanwhile: Meanwhile) -> Self {
        match answer {
            Answer::Http { status: 200, .. } => Self::Ready,
            // It is busy, which is no reason to burden the others.
            Answer::Http { status: 429, .. } => Self::Nothing,
            Answer::Http { body, .. } if body.lines().any(|line| line.starts_with("[-]shutdown ")) => Self::Leaving,
            Answer::Http { .. } | Answer::Tls(_) | Answer::Broken(_) => Self::Unready,
            Answer::Unreachable(_) => Self::Silent,
            Answer::Refused => Self::Refused,
            Answer::TimedOut => match meanwhile {
                Meanwhile::Nothing => Self::Silent,
                Meanwhile::Bytes => Self::Slow,
                Meanwhile::Version => Self::Waiting,
            },
            Answer::NotAsked(_) => Self::Nothing,
        }
    }
}

/// What came from a target on other connections while it did not say whether it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// Nothing.
    Nothing,
    /// Bytes.
    Bytes,
    /// Its version, for which it was asked.
    Version,
}

/// What is thought of a target. The order is that in which targets are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It serves.
    Good,
    /// It has said that it shuts down, and serves until then.
    Leaving,
    /// It was good, and says for a moment that it is not.
    Doubtful,
    /// It has said for a while that it is not ready.
    Failing,
    /// Nothing listens there.
    Away,
    /// It does not answer.
    Silent,
    /// It answers, and has not been ready since it was started.
    Starting,
    /// It has not been asked yet.
    Unknown,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Good,
        Self::Leaving,
        Self::Doubtful,
        Self::Failing,
        Self::Away,
        Self::Silent,
        Self::Starting,
        Self::Unknown,
    ];

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Leaving => "leaving",
            Self::Doubtful => "doubtful",
            Self::Failing => "failing",
            Self::Away => "away",
            Self::Silent => "silent",
            Self::Starting => "starting",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which connections to a target are better elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LetsGo {
    /// None.
    None,
    /// Those that it has not answered yet: another one is sent the same, and their clients notice nothing.
    Unanswered,
    /// All of them.
    All,
}

/// What is thought of one target, and what it takes to think otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Health {
    state: State,
    since: Instant,
    last: Seen,
    /// How often in a row `last` was seen, and since when.
    streak: u32,
    streak_since: Instant,
    falls: u32,
    ready: Option<Instant>,
}

impl Health {
    /// Of a target that was never asked.
    pub fn unknown(now: Instant) -> Self {
        Self {
            state: State::Unknown,
            since: now,
            last: Seen::Nothing,
            streak: 0,
            streak_since: now,
            falls: 0,
            ready: None,
        }
    }

    /// What is thought of it.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it serves: it is good, and was ready within the time after which one that hangs is silent.
    pub fn serves(&self, now: Instant) -> bool {
        self.state == State::Good && self.ready_ago(now).is_some_and(|ago| ago < LATELY)
    }

    /// What becomes of its connections where another target is good.
    pub fn lets_go(&self) -> LetsGo {
        match (self.state, self.last) {
            (State::Silent, Seen::Ready) => LetsGo::None,
            // A machine that has no processor for it looks so for a moment.
            (State::Silent, Seen::Silent) if self.streak < SILENCES => LetsGo::Unanswered,
            (State::Silent | State::Failing, _) => LetsGo::All,
            _ => LetsGo::None,
        }
    }

    /// How long ago it was ready; `None` if it never was.
    pub fn ready_ago(&self, now: Instant) -> Option<Duration> {
        self.ready.map(|at| now.saturating_duration_since(at))
    }

    /// How long it has been so.
    pub fn for_so_long(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// What is thought of it after one more look at `now`.
    #[must_use]
    pub fn next(self, seen: Seen, now: Instant) -> Self {
        if seen == Seen::Nothing {
            return self;
        }
        let (streak, streak_since) = match seen == self.last {
            true => (self.streak.saturating_add(1), self.streak_since),
            false => (1, now),
        };
        let state = match (self.state, seen) {
            (State::Good | State::Unknown, Seen::Ready) => State::Good,
            (_, Seen::Ready) if streak >= 1 << self.falls => State::Good,
            (_, Seen::Leaving) => State::Leaving,
            (_, Seen::Refused) => State::Away,
            (_, Seen::Silent) => State::Silent,
            (State::Good, Seen::Unready) => State::Doubtful,
            (State::Doubtful, Seen::Unready) if streak >= UNREADY => State::Failing,
            (State::Starting, Seen::Unready) if self.for_so_long(now) >= STARTS => State::Failing,
            (State::Unknown | State::Leaving | State::Away | State::Silent, Seen::Unready) => State::Starting,
            (State::Good, Seen::Waiting) => State::Doubtful,
            (_, Seen::Slow | Seen::Waiting) if now.saturating_duration_since(streak_since) >= SLOW => State::Silent,
            (state, _) => state,
        };
        let has_fallen = self.state == State::Good && !matches!(state, State::Good | State::Leaving);
        let falls = match has_fallen {
            true if self.for_so_long(now) >= CALM => 1,
            true => (self.falls + 1).min(FALLS),
            false => self.falls,
        };
        let since = if state == self.state { self.since } else { now };
        let ready = if seen == Seen::Ready { Some(now) } else { self.ready };
        Self { state, since, last: seen, streak, streak_since, falls, ready }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(250);

    /// What is thought after each of these looks, a quarter of a second apart.
    fn thought(looks: &[Seen]) -> Vec<State> {
        let begun = Instant::now();
        let mut health = Health::unknown(begun);
        let mut now = begun;
        let mut think = |seen: &Seen| {
            now += LOOK;
            health = health.next(*seen, now);
            health.state()
        };
        looks.iter().map(&mut think).collect()
    }

    /// What becomes of its connections after each of these looks.
    fn letting_go(looks: &[Seen]) -> Vec<LetsGo> {
        let mut now = Instant::now();
        let mut health = Health::unknown(now);
        let mut think = |seen: &Seen| {
            now += LOOK;
            health = health.next(*seen, now);
            health.lets_go()
        };
        looks.iter().map(&mut think).collect()
    }

    fn last(looks: &[Seen]) -> State {
        thought(looks).pop().unwrap()
    }

    /// The first column leads to each row of the module's table.
    #[test]
    fn the_table() {
        use Seen::{Leaving as L, Ready as R, Refused as X, Silent as S, Unready as U};
        use State::{Away, Doubtful, Failing, Good, Leaving, Silent, Starting};
        let rows: [(&[Seen], [State; 5]); 8] = [
            (&[], [Good, Leaving, Starting, Away, Silent]),
            (&[R], [Good, Leaving, Doubtful, Away, Silent]),
            (&[R, U], [Doubtful, Leaving, Doubtful, Away, Silent]),
            (&[R, L], [Good, Leaving, Starting, Away, Silent]),
            (&[R, X], [Away, Leaving, Starting, Away, Silent]),
            (&[U], [Good, Leaving, Starting, Away, Silent]),
            (&[R, U, U, U, U], [Failing, Leaving, Failing, Away, Silent]),
            (&[R, S], [Silent, Leaving, Starting, Away, Silent]),
        ];
        for (before, after) in rows {
            for (seen, wanted) in [R, L, U, X, S].into_iter().zip(after) {
                assert_eq!(last(&[before, &[seen]].concat()), wanted, "{before:?}, then {seen:?}");
            }
        }
    }

    #[test]
    fn a_moment_of_not_being_ready_costs_no_open_connection_and_a_second_does() {
        use Seen::{Ready, Unready};
        let looks = [Ready, Unready, Unready, Unready, Unready];
        assert_eq!(letting_go(&looks)[1..], [LetsGo::None, LetsGo::None, LetsGo::None, LetsGo::All]);
    }

    #[test]
    fn one_silence_costs_what_was_not_answered_and_two_all() {
        use LetsGo::{All, None, Unanswered};
        use Seen::{Ready, Silent, Slow};
        assert_eq!(letting_go(&[Ready, Silent, Silent, Silent]), [None, Unanswered, All, All]);
        assert_eq!(letting_go(&[Ready, Silent, Ready, Silent, Silent]), [None, Unanswered, None, Unanswered, All]);
        assert_eq!(letting_go(&[Ready, Silent, Slow]).last(), Some(&All), "it comes from it, and no answer");
        assert_eq!(letting_go(&[&[Ready][..], &[Slow; 21]].concat()).last(), Some(&All), "for seconds");
    }

    #[test]
    fn an_api_server_that_ends_in_good_order_loses_no_open_connection() {
        let looks = [Seen::Ready, Seen::Leaving, Seen::Leaving, Seen::Refused, Seen::Refused, Seen::Unready];
        assert!(letting_go(&looks).iter().all(|lets_go| *lets_go == LetsGo::None));
        // What comes back is good at once: it was no fall.
        assert_eq!(last(&[Seen::Ready, Seen::Leaving, Seen::Refused, Seen::Unready, Seen::Ready]), State::Good);
    }

    #[test]
    fn each_further_fall_takes_twice_as_long_to_make_up_for_until_it_was_good_for_a_minute() {
        let begun = Instant::now();
        let (mut health, mut now) = (Health::unknown(begun).next(Seen::Ready, begun), begun);
        let mut looks_until_good = |health: &mut Health| {
            *health = health.next(Seen::Silent, now);
            let mut looks = 0;
            while health.state() != State::Good {
                now += LOOK;
                *health = health.next(Seen::Ready, now);
                looks += 1;
            }
            looks
        };
        let taken: Vec<_> = (0..6).map(|_| looks_until_good(&mut health)).collect();
        assert_eq!(taken, [2, 4, 8, 16, 16, 16]);
        let much_later = begun + CALM * 3;
        assert_eq!(health.next(Seen::Silent, much_later).falls, 1);
    }

    #[test]
    fn a_slow_one_is_silent_only_after_seconds_and_what_was_not_asked_says_nothing() {
        let slow = |times| [&[Seen::Ready][..], &vec![Seen::Slow; times]].concat();
        assert_eq!(last(&slow(20)), State::Good);
        assert_eq!(last(&slow(21)), State::Silent);
        assert_eq!(last(&[Seen::Ready, Seen::Nothing, Seen::Nothing]), State::Good);
    }

    #[test]
    fn one_that_waits_for_its_etcd_gets_no_new_connections_and_is_silent_after_seconds() {
        let waiting = |times| [&[Seen::Ready][..], &vec![Seen::Waiting; times]].concat();
        assert_eq!(last(&waiting(1)), State::Doubtful);
        assert_eq!(last(&waiting(20)), State::Doubtful);
        assert_eq!(last(&waiting(21)), State::Silent);
        assert_eq!(last(&[Seen::Ready, Seen::Leaving, Seen::Waiting]), State::Leaving);
    }

    #[test]
    fn a_good_target_serves_while_it_was_ready_lately() {
        let begun = Instant::now();
        let health = Health::unknown(begun).next(Seen::Ready, begun);
        assert!(health.serves(begun + LATELY - LOOK) && !health.serves(begun + LATELY));
        assert!(!health.next(Seen::Silent, begun).serves(begun));
    }

    #[test]
    fn one_that_never_gets_ready_is_not_starting_for_ever() {
        assert_eq!(last(&[Seen::Unready; 119]), State::Starting);
        assert_eq!(last(&[Seen::Unready; 130]), State::Failing);
    }

    #[test]
    fn what_an_answer_says() {
        let http = |status, body: &str| Answer::Http { status, body: body.into() };
        let shuts_down = "[+]etcd ok\n[-]shutdown failed: reason withheld\nreadyz check failed\n";
        for (answer, meanwhile, wanted) in [
            (http(200, "ok"), Meanwhile::Nothing, Seen::Ready),
            (http(500, shuts_down), Meanwhile::Nothing, Seen::Leaving),
            (http(500, "[+]shutdown ok\n[-]etcd failed: reason withheld\n"), Meanwhile::Nothing, Seen::Unready),
            (http(403, "forbidden"), Meanwhile::Nothing, Seen::Unready),
            (http(429, "later"), Meanwhile::Nothing, Seen::Nothing),
            (Answer::Tls("foreign".into()), Meanwhile::Nothing, Seen::Unready),
            (Answer::Broken("reset".into()), Meanwhile::Nothing, Seen::Unready),
            (Answer::Unreachable("no route".into()), Meanwhile::Bytes, Seen::Silent),
            (Answer::Refused, Meanwhile::Bytes, Seen::Refused),
            (Answer::TimedOut, Meanwhile::Nothing, Seen::Silent),
            (Answer::TimedOut, Meanwhile::Bytes, Seen::Slow),
            (Answer::TimedOut, Meanwhile::Version, Seen::Waiting),
            (Answer::NotAsked("no files".into()), Meanwhile::Nothing, Seen::Nothing),
        ] {
            assert_eq!(Seen::of(&answer, meanwhile), wanted, "{answer}");
        }
    }
}
