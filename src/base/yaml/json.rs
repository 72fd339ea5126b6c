//! JSON text. Kubernetes reads a file that begins with a brace as JSON: objects may follow each other without a
//! separator, and strings may hold characters that YAML does not allow.

use serde::de::IgnoredAny;

use super::Position;
use crate::base::input;

/// A part of a text that is read by itself.
pub(super) struct Part<'a> {
    pub text: &'a str,
    /// Where it begins.
    pub begin: Position,
    /// It is JSON, and whole.
    pub is_json: bool,
}

/// The objects of a text in JSON, or else the text as it is.
pub(super) fn parts(text: &str) -> Vec<Part<'_>> {
    objects(text).unwrap_or_else(|| vec![Part { text, begin: (1, 1), is_json: false }])
}

fn objects(text: &str) -> Option<Vec<Part<'_>>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut parts: Vec<Part<'_>> = Vec::new();
    let (mut end, mut line, mut column) = (0, 1, 1);
    while let Some(read) = stream.next() {
        read.ok()?;
        let begin = end + text[end..].find('{')?;
        // From the part before, whose place is known: there may be many.
        let (lines, columns) = input::position(&text[end..begin], begin - end);
        (line, column) = if lines > 1 { (line + lines - 1, columns) } else { (line, column + columns - 1) };
        parts.push(Part { text: &text[begin..stream.byte_offset()], begin: (line, column), is_json: true });
        let (lines, columns) = input::position(&text[begin..], stream.byte_offset() - begin);
        (line, column) = if lines > 1 { (line + lines - 1, columns) } else { (line, column + columns - 1) };
        end = stream.byte_offset();
    }
    Some(parts)
}
