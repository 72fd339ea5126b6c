//! Distinguishes progress from repetition: only states that were not seen before count.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// Whether a run must end: it has taken `so_long`, and has seen nothing new for `stuck_for`.
pub fn is_over(so_long: Duration, stuck_for: Duration, timeout: Duration, progress_timeout: Duration) -> bool {
    so_long > timeout || stuck_for > progress_timeout
}

/// How long a run may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// When it began.
    pub begun: Instant,
    /// How long the whole may take.
    pub total: Duration,
    /// How long it may go without any progress.
    pub progress: Duration,
}

impl Limits {
    /// Whether they are over for who has seen nothing new for so long.
    pub fn are_over(&self, stuck_for: Duration) -> bool {
        is_over(self.begun.elapsed(), stuck_for, self.total, self.progress)
    }
}

/// Everything that was seen in the course of a run, and when the last new thing was.
#[derive(Debug)]
pub struct Sights {
    seen: BTreeSet<String>,
    last: Instant,
}

impl Sights {
    /// Nothing was seen yet.
    pub fn new(now: Instant) -> Self {
        Self { seen: BTreeSet::new(), last: now }
    }

    /// Notes what is seen now, and says for how long nothing has been new.
    pub fn note(&mut self, sights: impl IntoIterator<Item = String>, now: Instant) -> Duration {
        for sight in sights {
            if self.seen.insert(sight) {
                self.last = now;
            }
        }
        now - self.last
    }
}

/// A pod's reason without what follows its last colon: texts hold names and times, which are always new.
pub fn kind(reason: &str) -> &str {
    reason.split(": ").nth(1).unwrap_or(reason)
}
