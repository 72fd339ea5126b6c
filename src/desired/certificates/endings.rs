//! CAs that end: said a year, 90, 30 and 7 days before, and when it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use time::{Duration, OffsetDateTime};

use super::copy::CertificateCopy;

/// So many days before its end, the last first.
const DAYS: [i64; 4] = [7, 30, 90, 365];

/// A CA that ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ending {
    /// Its name.
    pub name: String,
    /// The smallest number of days, of those at which it is said, within which it ends; 0 once it has.
    pub within: i64,
    /// Its end.
    pub ends: OffsetDateTime,
}

/// Those of the CAs among `copies` that end, the first end of each. A CA that lives for less than twice a number of days
/// is not said to end within them: it would be from its first half on.
pub fn endings<'a>(copies: impl IntoIterator<Item = &'a CertificateCopy>, now: OffsetDateTime) -> Vec<Ending> {
    let mut first: BTreeMap<&str, &CertificateCopy> = BTreeMap::new();
    for copy in copies.into_iter().filter(|copy| copy.info.is_ca) {
        let known = first.entry(&copy.name).or_insert(copy);
        if copy.info.not_after < known.info.not_after {
            *known = copy;
        }
    }
    let ending = |(name, copy): (&str, &CertificateCopy)| {
        let (ends, life) = (copy.info.not_after, copy.info.not_after - copy.info.not_before);
        let fits = |days: &i64| ends - now <= Duration::days(*days) && life >= Duration::days(*days) * 2;
        let within = if ends <= now { Some(0) } else { DAYS.into_iter().find(fits) };
        Some(Ending { name: name.to_owned(), within: within?, ends })
    };
    first.into_iter().filter_map(ending).collect()
}

/// What of `endings` is not in `said`, which then has them: each is said once, and again for another CA.
pub fn unsaid(said: &mut BTreeSet<Ending>, endings: Vec<Ending>) -> Vec<Ending> {
    let new = endings.iter().filter(|one| !said.contains(one)).cloned().collect();
    *said = endings.into_iter().collect();
    new
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, within, ends } = self;
        let end = ends.date();
        match within {
            0 => write!(f, "the CA {name} has ended, {end}: nothing trusts what it has issued"),
            365 => write!(f, "the CA {name} ends {end}, within a year, and so does all that it issues"),
            days => write!(f, "the CA {name} ends {end}, within {days} days, and so does all that it issues"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::of_assets;
    use super::*;
    use crate::check::preflight::testing::tls;

    #[test]
    fn a_cas_end_is_said_a_year_90_30_and_7_days_before() {
        let made = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let copies = of_assets("", "", &tls(made));
        let end = copies.iter().find(|copy| copy.name == "ca").unwrap().info.not_after;
        let within = |before: Duration| {
            let found = endings(&copies, end - before);
            assert!(found.iter().all(|one| one.ends == end) && [0, 3].contains(&found.len()), "{found:?}");
            found.first().map(|one| one.within)
        };
        let (day, second) = (Duration::days(1), Duration::seconds(1));
        assert_eq!(within(day * 3650), None);
        for (days, longer) in [(365, None), (90, Some(365)), (30, Some(90)), (7, Some(30))] {
            assert_eq!(within(day * days + second), longer, "{days}");
            assert_eq!(within(day * days), Some(i64::from(days)), "{days}");
        }
        assert_eq!((within(second), within(Duration::ZERO), within(-day)), (Some(7), Some(0), Some(0)));
        let said = endings(&copies, end - day * 90)[0].to_string();
        assert_eq!(said, "the CA ca ends 2036-06-28, within 90 days, and so does all that it issues");
    }

    #[test]
    fn each_number_of_days_is_said_once_however_often_guard_looks() {
        let made = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let copies = of_assets("", "", &tls(made));
        let (mut said, mut events) = (BTreeSet::new(), Vec::new());
        for hour in 0..24 * 3660 {
            let new = unsaid(&mut said, endings(&copies, made + Duration::hours(hour)));
            events.extend(new.into_iter().filter(|one| one.name == "etcd-ca").map(|one| (hour / 24, one.within)));
        }
        assert_eq!(events, [(3285, 365), (3560, 90), (3620, 30), (3643, 7), (3650, 0)]);
    }

    #[test]
    fn a_ca_that_is_short_lived_is_not_said_to_end_when_it_begins() {
        let made = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let mut copies = of_assets("", "", &tls(made));
        for copy in &mut copies {
            copy.info.not_after = copy.info.not_before + Duration::days(60);
        }
        let within = |day| endings(&copies, made + Duration::days(day)).first().map(|one| one.within);
        assert_eq!([0, 29, 31, 54, 60].map(within), [None, None, Some(30), Some(7), Some(0)]);
        // Of several CAs of one name, as while one is changed, the first end counts.
        let mut two = copies.clone();
        two.extend(of_assets("", "", &tls(made)));
        assert_eq!(endings(&two, made + Duration::days(31)).len(), 3);
    }
}
