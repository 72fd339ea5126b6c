//! The time of the next try after a failure: later each time, with jitter, and not before the moment that a server
//! has named. And what succeeds again and again without an effect.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::error::Error;

/// The pauses between tries.
#[derive(Debug, Clone)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Pauses from `least`, each twice as long as the one before, to `most`; chance makes each longer by up to a half.
    /// Chance comes from `seed` alone.
    pub fn new(least: Duration, most: Duration, seed: u64) -> Self {
        Self { least, most, failures: 0, random: seed }
    }

    /// How long to wait after one more failure; `after` is what the server has asked for.
    pub fn failed(&mut self, after: Option<Duration>) -> Duration {
        let pause = self.least.saturating_mul(2u32.saturating_pow(self.failures.min(16))).min(self.most);
        self.failures = self.failures.saturating_add(1);
        // The generator of Knuth's MMIX; its upper half is what is random enough.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = f64::from((self.random >> 32) as u32) / f64::from(u32::MAX);
        pause.saturating_add(pause.mul_f64(part / 2.0)).max(after.unwrap_or_default())
    }

    /// It went well: the next failure is the first again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// What failed last in a loop that goes on looking meanwhile: it is not tried again before its time. Anything else is.
#[derive(Debug)]
pub struct Retries<T> {
    backoff: Backoff,
    last: Option<(T, Instant, String)>,
}

impl<T: PartialEq> Retries<T> {
    /// Nothing has failed.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, last: None }
    }

    /// Why `what` has to wait, if it has to.
    pub fn waits(&self, what: &T, now: Instant) -> Option<&str> {
        let (failed, until, why) = self.last.as_ref()?;
        (failed == what && now < *until).then_some(why)
    }

    /// `what` has failed.
    pub fn failed(&mut self, what: T, error: &Error, now: Instant) {
        let pause = self.backoff.failed(error.after());
        self.last = Some((what, now + pause, error.to_string()));
    }

    /// Whatever it was, it went well.
    pub fn succeeded(&mut self) {
        self.backoff.succeeded();
        self.last = None;
    }
}

/// What a loop did last, and how many times in a row: what goes well and is to be done again changes nothing that is seen.
#[derive(Debug)]
pub struct Repeated<T> {
    most: u32,
    last: Option<T>,
    times: u32,
}

impl<T: PartialEq + fmt::Debug> Repeated<T> {
    /// Nothing was done. `most` times in a row the same may be done before it is taken for something that changes nothing.
    pub fn new(most: u32) -> Self {
        Self { most, last: None, times: 0 }
    }

    /// Notes what was done. Says so where that is the same for long.
    pub fn note(&mut self, done: T) -> Option<String> {
        self.times = if self.last.as_ref() == Some(&done) { self.times.saturating_add(1) } else { 1 };
        let done = self.last.insert(done);
        (self.times > self.most)
            .then(|| format!("what was done {} times and is still to be done: {done:?}", self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(5);

    #[test]
    fn each_pause_is_longer_up_to_a_limit_and_a_success_begins_anew() {
        let mut backoff = Backoff::new(LEAST, MOST, 7);
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let pause = backoff.failed(None).as_millis();
            assert!((expected..=expected * 3 / 2).contains(&pause), "{pause} of {expected}");
        }
        for _ in 0..100 {
            assert!(backoff.failed(None) <= MOST.mul_f64(1.5));
        }
        backoff.succeeded();
        assert!(backoff.failed(None) <= LEAST.mul_f64(1.5));
    }

    #[test]
    fn chance_comes_from_the_seed_and_parts_two() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(LEAST, MOST, seed);
            (0..6).map(|_| backoff.failed(None)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }

    #[test]
    fn a_server_is_not_asked_before_the_moment_that_it_names() {
        let mut backoff = Backoff::new(LEAST, MOST, 7);
        assert_eq!(backoff.failed(Some(Duration::from_secs(9))), Duration::from_secs(9));
        assert!(backoff.failed(Some(Duration::from_millis(1))) >= 2 * LEAST);
    }

    #[test]
    fn what_failed_waits_and_nothing_else_does() {
        let begun = Instant::now();
        let mut retries = Retries::new(Backoff::new(LEAST, MOST, 7));
        assert_eq!(retries.waits(&"apply", begun), None);
        retries.failed("apply", &Error::failed("apply", "busy"), begun);
        assert_eq!(retries.waits(&"apply", begun + LEAST / 2), Some("cannot apply: busy"));
        assert_eq!(retries.waits(&"raise", begun), None);
        assert_eq!(retries.waits(&"apply", begun + 2 * LEAST), None);
        retries.failed("apply", &Error::failed("apply", "busy"), begun);
        retries.succeeded();
        assert_eq!(retries.waits(&"apply", begun), None);
    }

    #[test]
    fn what_goes_well_again_and_again_is_named() {
        let mut repeated = Repeated::new(5);
        for times in 1..=5 {
            assert_eq!(repeated.note("apply"), None, "{times}");
        }
        assert_eq!(repeated.note("apply").as_deref(), Some("what was done 6 times and is still to be done: \"apply\""));
        assert_eq!(repeated.note("raise"), None);
        assert_eq!(repeated.note("apply"), None, "another came between");
    }
}
