//! Which addresses of the `kubernetes` Service are dead: pure. Whoever sees it first takes them out; the guard of a controller
//! that serves again puts its own back within seconds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::probe::Answer;

/// For how long nothing may have answered at an address.
const SILENT: Duration = Duration::from_secs(3);
/// For how long it may have answered that it is not ready: an API server that ends in good order says so, and serves.
const UNREADY: Duration = Duration::from_secs(20);
/// Both are doubled so often at most, each time that an address comes back: in a network that is torn in part only, the writes
/// get fewer.
const MOST_DOUBLED: u32 = 6;
/// After so long without a removal an address is as good as any.
const FORGIVEN: Duration = Duration::from_secs(600);

/// What was seen of the addresses.
#[derive(Debug, Default)]
pub(super) struct Watched(BTreeMap<IpAddr, Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Since when it has not said that it is ready.
    bad: Option<Instant>,
    /// Since when nothing at all has answered.
    silent: Option<Instant>,
    /// How often it was taken out, and when last.
    removed: Option<(u32, Instant)>,
}

impl Watched {
    /// Notes what an address answered at `now`; says whether it is dead.
    pub fn note(&mut self, address: IpAddr, answer: &Answer, now: Instant) -> bool {
        let seen = self.0.entry(address).or_default();
        match answer {
            // This machine could not ask.
            Answer::NotAsked(_) => return false,
            answer if answer.is_ready() => {
                (seen.bad, seen.silent) = (None, None);
                seen.removed = seen.removed.filter(|(_, at)| now.saturating_duration_since(*at) < FORGIVEN);
            }
            answer if answer.is_answered() => {
                seen.bad = seen.bad.or(Some(now));
                seen.silent = None;
            }
            _ => {
                seen.bad = seen.bad.or(Some(now));
                seen.silent = seen.silent.or(Some(now));
            }
        }
        let times = 1 << seen.removed.map_or(0, |(times, _)| times.min(MOST_DOUBLED));
        let is_over = |since: Option<Instant>, limit: Duration| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= limit * times)
        };
        is_over(seen.silent, SILENT) || is_over(seen.bad, UNREADY)
    }

    /// Not one API server is ready, as while etcd elects a leader: that says nothing of any one of them.
    pub fn nobody_is_ready(&mut self) {
        for seen in self.0.values_mut() {
            (seen.bad, seen.silent) = (None, None);
        }
    }

    /// It was taken out.
    pub fn removed(&mut self, address: IpAddr, now: Instant) {
        let seen = self.0.entry(address).or_default();
        let times = seen.removed.map_or(1, |(times, _)| times + 1);
        *seen = Seen { removed: Some((times, now)), ..Seen::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn http(status: u16) -> Answer {
        Answer::Http { status, body: String::new() }
    }

    #[test]
    fn an_address_is_dead_when_nothing_answers_and_later_when_it_is_not_ready() {
        let begun = Instant::now();
        let mut watched = Watched::default();
        let mut is_dead =
            |seconds, answer: &Answer| watched.note(ADDRESS, answer, begun + Duration::from_secs(seconds));
        assert!(!is_dead(0, &Answer::Refused) && !is_dead(2, &Answer::TimedOut));
        assert!(!is_dead(2, &Answer::NotAsked("x".into())), "that says nothing of it");
        assert!(is_dead(3, &Answer::Broken("x".into())));
        assert!(!is_dead(4, &http(200)));
        assert!(!is_dead(5, &http(500)) && !is_dead(24, &http(500)), "one that ends serves on");
        assert!(is_dead(25, &http(500)));
        assert!(!is_dead(26, &http(200)) && !is_dead(27, &http(500)));
        assert!(!is_dead(28, &Answer::Refused) && !is_dead(30, &Answer::Refused) && is_dead(31, &Answer::Refused));
    }

    #[test]
    fn while_nobody_is_ready_none_is_dead() {
        let begun = Instant::now();
        let mut watched = Watched::default();
        assert!(!watched.note(ADDRESS, &Answer::TimedOut, begun));
        watched.nobody_is_ready();
        assert!(!watched.note(ADDRESS, &Answer::TimedOut, begun + SILENT * 2));
        assert!(watched.note(ADDRESS, &Answer::TimedOut, begun + SILENT * 3));
    }

    #[test]
    fn one_that_comes_and_goes_is_taken_out_less_and_less_often() {
        let begun = Instant::now();
        let mut watched = Watched::default();
        let mut at = begun;
        let mut waits = Vec::new();
        for _ in 0..9 {
            let since = at;
            while !watched.note(ADDRESS, &Answer::Refused, at) {
                at += Duration::from_secs(1);
            }
            waits.push((at - since).as_secs());
            watched.removed(ADDRESS, at);
            watched.note(ADDRESS, &http(200), at);
        }
        assert_eq!(waits, [3, 6, 12, 24, 48, 96, 192, 192, 192]);
        watched.note(ADDRESS, &http(200), at + FORGIVEN);
        let at = at + FORGIVEN;
        assert!(!watched.note(ADDRESS, &Answer::Refused, at));
        assert!(watched.note(ADDRESS, &Answer::Refused, at + SILENT));
    }
}
