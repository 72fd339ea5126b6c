//! Moments, as the API and people write them.

use time::OffsetDateTime;

/// A moment as the API and people write it, to the second.
pub fn rfc3339(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
