//! What becomes of a leaf, as a table: the first row that fits decides.
//!
//! | seen | done |
//! |---|---|
//! | another CA than the one that has issued it issues now, and it is this controller's alone | issued anew here by that |
//! | more than a third of its life and 8 minutes are left, jitter aside; nobody asked for it | it is kept |
//! | the key of its CA is not here | it waits for whoever has the key |
//! | a successor would not end later: its CA ends | it is kept, and ends with its CA |
//! | it is this controller's alone | renewed here |
//! | the API answers | renewed for all, in the cluster's copy first, under the turn |
//! | it has ended, so that no API can answer by it | renewed here: the copies are made one once the API answers |
//! | none of these | it is kept until the API answers |

use std::time::Duration;

use time::OffsetDateTime;

/// Parts of its life, of 30: a leaf is renewed when 10 of them are left, or up to 1 sooner.
const PARTS: i32 = 30;
const LEFT: i32 = 10;
/// So much is left at least where it lives for longer than that: a renewed Secret reaches its pods within 90 s, and a client
/// that has read a file looks at it again within 300 s.
const TAKEN_UP: time::Duration = time::Duration::minutes(8);

/// A leaf certificate in tls/.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its files in tls/ are `stem`.crt and `stem`.key.
    pub stem: String,
    /// The same of its CA.
    pub ca: &'static str,
    /// When its validity begins and ends.
    pub begins: OffsetDateTime,
    /// When it ends.
    pub ends: OffsetDateTime,
    /// When its CA ends.
    pub ca_ends: OffsetDateTime,
    /// The key of its CA is here.
    pub can_sign: bool,
    /// It is one controller's alone.
    pub is_own: bool,
    /// Another CA has issued it than the one that issues now: `ca` is the one that does.
    pub is_of_another: bool,
}

/// What is gone by.
#[derive(Debug, Clone, Copy)]
pub struct Observed {
    /// The time.
    pub now: OffsetDateTime,
    /// How long a new leaf is valid.
    pub lifetime: Duration,
    /// The API answers.
    pub api_answers: bool,
    /// What is this controller's of the jitter, from 0 to 1.
    pub jitter: f64,
    /// A user asks for it, whenever it ends.
    pub is_asked_for: bool,
}

/// What becomes of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It stays.
    Keep,
    /// It is due, and the key of its CA is elsewhere.
    Awaits,
    /// It is due, and a successor would end no later.
    EndsWithItsCa,
    /// It is renewed in this controller's copy alone.
    Renew,
    /// It is renewed in the cluster's copy.
    RenewForAll,
}

/// What becomes of `leaf`.
pub fn decide(leaf: &Leaf, seen: &Observed) -> Step {
    match () {
        () if leaf.is_of_another && leaf.is_own && leaf.can_sign => Step::Renew,
        () if seen.now < due(leaf, seen.lifetime, seen.jitter) && !seen.is_asked_for => Step::Keep,
        () if !leaf.can_sign => Step::Awaits,
        () if leaf.ca_ends.min(seen.now.saturating_add(time(seen.lifetime))) <= leaf.ends => Step::EndsWithItsCa,
        () if leaf.is_own => Step::Renew,
        () if seen.api_answers => Step::RenewForAll,
        () if leaf.ends <= seen.now => Step::Renew,
        () => Step::Keep,
    }
}

/// When a leaf is due, where new ones live for `lifetime`. A renewed one begins as the first has done: its beginning does not tell
/// when it was made, and its end does.
pub fn due(leaf: &Leaf, lifetime: Duration, jitter: f64) -> OffsetDateTime {
    let life = time(lifetime).min(leaf.ends - leaf.begins);
    let part = life / PARTS;
    let left = if life > TAKEN_UP { (part * LEFT).max(TAKEN_UP) } else { part * LEFT };
    leaf.ends.saturating_sub(left + part * jitter.clamp(0.0, 1.0))
}

/// What is the jitter of the controller `name`, from 0 to 1: its own leaves are due together, and not those of another.
pub fn jitter(name: &str) -> f64 {
    // FNV-1a: the same at each start.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    f64::from(hash) / f64::from(u32::MAX)
}

fn time(duration: Duration) -> time::Duration {
    time::Duration::try_from(duration).unwrap_or(time::Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn made() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap()
    }

    /// A leaf of 90 days whose CA has ten years.
    fn leaf() -> Leaf {
        Leaf {
            stem: "apiserver".into(),
            ca: "ca",
            begins: made() - Duration::from_mins(5),
            ends: made() + DAY * 90,
            ca_ends: made() + DAY * 3650,
            can_sign: true,
            is_own: false,
            is_of_another: false,
        }
    }

    fn at(days: u32) -> Observed {
        Observed { now: made() + DAY * days, lifetime: DAY * 90, api_answers: true, jitter: 0.0, is_asked_for: false }
    }

    #[test]
    fn the_table() {
        let own = Leaf { is_own: true, ..leaf() };
        let elsewhere = Leaf { can_sign: false, ..leaf() };
        let last = Leaf { ca_ends: made() + DAY * 90, ..leaf() };
        let away = |days| Observed { api_answers: false, ..at(days) };
        let asked = |days| Observed { is_asked_for: true, ..at(days) };
        for (leaf, seen, step) in [
            (&leaf(), at(0), Step::Keep),
            (&leaf(), at(59), Step::Keep),
            (&leaf(), at(60), Step::RenewForAll),
            (&leaf(), at(400), Step::RenewForAll),
            (&Leaf { is_of_another: true, ..own.clone() }, at(0), Step::Renew),
            (&Leaf { is_of_another: true, can_sign: false, ..own.clone() }, at(0), Step::Keep),
            (&own, at(59), Step::Keep),
            (&own, at(60), Step::Renew),
            (&own, away(60), Step::Renew),
            (&leaf(), away(60), Step::Keep),
            (&leaf(), away(89), Step::Keep),
            (&leaf(), away(90), Step::Renew),
            (&elsewhere, at(59), Step::Keep),
            (&elsewhere, at(60), Step::Awaits),
            (&last, at(60), Step::EndsWithItsCa),
            (&leaf(), asked(1), Step::RenewForAll),
            (&own, asked(1), Step::Renew),
            (&elsewhere, asked(1), Step::Awaits),
            (&last, asked(1), Step::EndsWithItsCa),
            // By a shorter life than it has had.
            (&leaf(), Observed { lifetime: DAY, ..asked(1) }, Step::EndsWithItsCa),
        ] {
            assert_eq!(decide(leaf, &seen), step, "{leaf:?} {seen:?}");
        }
    }

    #[test]
    fn jitter_makes_it_sooner_by_a_thirtieth_of_its_life_at_most() {
        let leaf = leaf();
        assert_eq!(due(&leaf, DAY * 90, 0.0), made() + DAY * 60);
        assert_eq!(due(&leaf, DAY * 90, 1.0), made() + DAY * 57);
        assert_eq!(due(&leaf, DAY * 90, 7.0), made() + DAY * 57);
        let all: Vec<_> = ["c1", "c2", "c3"].map(jitter).into();
        assert!(all.iter().all(|part| (0.0..=1.0).contains(part)), "{all:?}");
        assert!(all[0] != all[1] && all[1] != all[2]);
    }

    #[test]
    fn a_life_is_that_of_new_ones_and_no_longer_than_its_own() {
        let short = Leaf { ends: made() + Duration::from_mins(3), ..leaf() };
        assert_eq!(due(&short, Duration::from_mins(3), 0.0), made() + Duration::from_mins(2));
        assert_eq!(due(&short, DAY * 365, 0.0), made() + Duration::from_mins(3) - Duration::from_mins(8) / 3);
        // What is read late is renewed early enough.
        let tens = Leaf { ends: made() + Duration::from_mins(10), ..leaf() };
        assert_eq!(due(&tens, Duration::from_mins(10), 0.0), made() + Duration::from_mins(2));
        assert_eq!(due(&tens, Duration::from_mins(10), 1.0), made() + Duration::from_secs(100));
        // Renewed again and again, it still begins as the first.
        let old = Leaf { ends: made() + DAY * 900, ..leaf() };
        assert_eq!(due(&old, DAY * 90, 0.0), made() + DAY * 870);
    }
}
