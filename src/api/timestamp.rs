//! Moments in objects of the API, for which k8s-openapi has jiff's type.
//!
//! Everything else here has `time`'s, as rcgen and x509-parser do: jiff ends on 9999-12-30, and a certificate without an end is
//! valid until 9999-12-31T23:59:59Z (RFC 5280, section 4.1.2.5).

use k8s_openapi::jiff::Timestamp;
use time::OffsetDateTime;

/// A moment as the API has it. One that is out of jiff's range is the last or the first of it.
pub fn of(moment: OffsetDateTime) -> Timestamp {
    let is_early = moment < OffsetDateTime::UNIX_EPOCH;
    let nearest = if is_early { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_nanosecond(moment.unix_timestamp_nanos()).unwrap_or(nearest)
}

/// The moment that the API has so.
pub fn moment(timestamp: Timestamp) -> OffsetDateTime {
    // All that jiff has is within the range of `time`.
    OffsetDateTime::from_unix_timestamp_nanos(timestamp.as_nanosecond()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
    use serde_json::json;
    use time::format_description::well_known::Rfc3339;
    use time::{Date, Duration, Time as Clock};

    use super::*;

    #[test]
    fn a_moment_is_the_same_there_and_back() {
        let nanosecond = Duration::nanoseconds(1);
        let epoch = OffsetDateTime::UNIX_EPOCH;
        for at in [epoch, epoch - nanosecond, epoch + nanosecond, moment(Timestamp::MIN), moment(Timestamp::MAX)] {
            assert_eq!(moment(of(at)), at);
        }
        let text = "2026-07-01T14:00:00.123456789+02:00";
        let at = OffsetDateTime::parse(text, &Rfc3339).unwrap();
        assert_eq!(of(at), text.parse().unwrap());
        assert_eq!(moment(of(at)), at);
        assert_eq!([Timestamp::MIN, Timestamp::MAX].map(|end| of(moment(end))), [Timestamp::MIN, Timestamp::MAX]);
    }

    #[test]
    fn what_jiff_does_not_reach_is_its_end() {
        let without_end = OffsetDateTime::parse("9999-12-31T23:59:59Z", &Rfc3339).unwrap();
        assert_eq!(of(without_end), Timestamp::MAX);
        assert!(of(without_end - Duration::days(2)) < Timestamp::MAX);
        assert_eq!(of(OffsetDateTime::new_utc(Date::MIN, Clock::MIDNIGHT)), Timestamp::MIN);
    }

    #[test]
    fn the_api_is_written_its_own_forms() {
        let at = of(OffsetDateTime::from_unix_timestamp_nanos(1_800_000_000_123_456_789).unwrap());
        assert_eq!(json!(Time(at)), "2027-01-15T08:00:00Z");
        assert_eq!(json!(MicroTime(at)), "2027-01-15T08:00:00.123456Z");
    }
}
