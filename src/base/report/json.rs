//! One JSON object per line.

use std::io::Write;
use std::time::Duration;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Event, View};

/// The version of what is written: fields and events may be added to it, never changed or taken away. Its JSON Schema
/// is docs/schema/event-v1.schema.json.
pub const SCHEMA: &str = "hoist.event/v1";

pub(super) struct Json {
    out: Box<dyn Write + Send>,
    started: OffsetDateTime,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    schema: &'static str,
    time: String,
    #[serde(serialize_with = "seconds")]
    elapsed_seconds: Duration,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

impl Json {
    pub(super) fn new(out: Box<dyn Write + Send>, started: OffsetDateTime) -> Self {
        Self { out, started }
    }
}

impl View for Json {
    fn event(&mut self, at: Duration, event: &Event<'_>) {
        let line = Line { schema: SCHEMA, time: timestamp(self.started + at), elapsed_seconds: at, event };
        if let Ok(mut text) = serde_json::to_string(&line) {
            // In one write, so that lines of several processes do not mix.
            text.push('\n');
            let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        }
    }
}

/// RFC 3339, to the millisecond.
fn timestamp(time: OffsetDateTime) -> String {
    let milliseconds = u32::from(time.millisecond());
    let time = time.replace_nanosecond(milliseconds * 1_000_000).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}

/// Seconds, to the millisecond.
pub(super) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let rounded = Duration::from_millis(duration.as_millis().try_into().unwrap_or(u64::MAX));
    serializer.serialize_f64(rounded.as_secs_f64())
}
