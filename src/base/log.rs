//! What goes to standard error: logs, and the error that ends a command.

use std::io::Write;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::base::error::{Error, Explanation};

/// What `--log-format` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Logs from `level` on to standard error, in this format.
pub fn init(level: &str, format: Format) {
    // Of hoist alone: a filter of patterns would bring a regex engine for this one name.
    let own = Targets::new().with_target("hoist", level.parse().unwrap_or(Level::WARN));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        // Where standard error is closed, there is nobody to tell that it is.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        Format::Text => subscriber.finish().with(own).init(),
        Format::Json => subscriber.json().flatten_event(true).finish().with(own).init(),
    }
}

/// The error that ends the process, as text or as one more record of the log.
pub fn last_word(out: &mut dyn Write, format: Format, error: &Error) {
    let text = match format {
        Format::Text => format!("hoist: {error}\n"),
        Format::Json => record(error, OffsetDateTime::now_utc()),
    };
    // Nobody is left to tell if it is closed.
    let _ = out.write_all(text.as_bytes());
}

/// A record with the fields that the others have, and those of the error: a log has only texts, so it does not go
/// through one.
fn record(error: &Error, now: OffsetDateTime) -> String {
    #[derive(Serialize)]
    struct Record<'a> {
        timestamp: String,
        level: &'static str,
        #[serde(flatten)]
        error: Explanation<'a>,
        target: &'static str,
    }
    let timestamp = now.format(&Rfc3339).unwrap_or_default();
    let record = Record { timestamp, level: "ERROR", error: error.explanation(), target: "hoist" };
    serde_json::to_string(&record).map_or_else(|_| format!("{error}\n"), |line| line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word() {
        let error = Error::failed("start etcd", "no disk\nat all");
        let mut out = Vec::new();
        last_word(&mut out, Format::Text, &error);
        assert_eq!(out, b"hoist: cannot start etcd: no disk\nat all\n");
        assert_eq!(
            record(&error, OffsetDateTime::UNIX_EPOCH),
            concat!(
                r#"{"timestamp":"1970-01-01T00:00:00Z","level":"ERROR","message":"cannot start etcd: no disk","exitCode":1,"#,
                r#""next":"remove the cause and run the same command again; `--log-level debug` says more","#,
                r#""class":"failed","details":["at all"],"target":"hoist"}"#,
                "\n"
            )
        );
    }
}
