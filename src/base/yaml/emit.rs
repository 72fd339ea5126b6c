//! Writing YAML so that every reader, of YAML 1.1 or 1.2, takes it for the same values.

use std::fmt::Write as _;

use serde_json::Value;

/// `value` as one YAML document in block style, ending in a newline. The order of keys is kept.
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    emit(value, 0, &mut out);
    out
}

/// Appends `value`, whose first line is already indented, and a newline.
fn emit(value: &Value, indent: usize, out: &mut String) {
    let separate = |out: &mut String, i: usize| {
        if i > 0 {
            let _ = write!(out, "{:indent$}", "");
        }
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (i, (key, value)) in map.iter().enumerate() {
                separate(out, i);
                out.push_str(&scalar(key));
                out.push(':');
                if is_block(value) {
                    let _ = write!(out, "\n{:1$}", "", indent + 2);
                    emit(value, indent + 2, out);
                } else {
                    out.push(' ');
                    emit(value, indent, out);
                }
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (i, value) in list.iter().enumerate() {
                separate(out, i);
                out.push_str("- ");
                emit(value, indent + 2, out);
            }
        }
        Value::Object(_) => out.push_str("{}\n"),
        Value::Array(_) => out.push_str("[]\n"),
        Value::String(text) => {
            out.push_str(&scalar(text));
            out.push('\n');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            let _ = writeln!(out, "{value}");
        }
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

/// A string: plain if no reader can take it for anything else, otherwise double-quoted.
fn scalar(text: &str) -> String {
    // A leading digit may be a date, a time or a number to some reader; a colon at the end would make a key.
    let safe = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:".contains(&b))
        && !text.ends_with(':')
        && super::plain(text).is_some_and(|value| value.is_string());
    if safe { text.to_owned() } else { quoted(text) }
}

/// JSON's form, which is YAML's too, with what YAML holds to be unprintable or a line break escaped as well.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}
