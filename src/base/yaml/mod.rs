//! The only owner of YAML: all reading and writing of YAML goes through this module.
//!
//! Plain scalars are read as Kubernetes reads them (YAML 1.1: `0644` is octal, `on` and `yes` are booleans), so
//! that a manifest means the same to hoist as to kubectl. Duplicate keys are refused, and every value keeps its
//! line and column.
//!
//! A *path* names a value in a document: keys joined by dots, list items in brackets, as in
//! `spec.containers[0].image`. A key that itself holds `.`, `[`, `]` or `"` stands quoted in brackets:
//! `metadata.labels["app.kubernetes.io/name"]`. The document itself is the empty path.

mod emit;
mod json;
mod shape;
mod split;
mod surrogates;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

pub use emit::to_string;
pub(crate) use shape::describe;
pub use shape::{Fields, parse_one};

use crate::base::error::Finding;
use crate::base::input;
use json::Part;
use surrogates::Mask;

/// Deeper nesting than this is refused: values are walked and dropped recursively.
const MAX_DEPTH: usize = 100;

/// Aliases may copy this many values in all; a few nested ones could otherwise fill the memory.
const MAX_COPIES: usize = 100_000;

/// What all values of one text may take, with their paths, in bytes. Each path holds those around it: a few long keys
/// around many values could otherwise fill the memory.
const MAX_SIZE: usize = 64 << 20;

/// What a value takes beside its path, about.
const VALUE_SIZE: usize = 64;

/// A line and a column, both from 1.
pub type Position = (usize, usize);

/// One document of a YAML file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The line of its first value, from 1.
    pub line: usize,
    /// What it says.
    pub value: Value,
    /// Where it says it.
    pub positions: Positions,
}

/// Where each value of a document stands, by its path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions(HashMap<String, Spot>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Spot {
    /// `None` for list items and the document itself.
    key: Option<Position>,
    value: Position,
}

impl Positions {
    /// Where the value at `path` begins.
    pub fn get(&self, path: &str) -> Option<Position> {
        self.0.get(path).map(|spot| spot.value)
    }

    /// Where the key of the value at `path` begins; for a list item, where the item begins.
    pub fn key(&self, path: &str) -> Option<Position> {
        self.0.get(path).map(|spot| spot.key.unwrap_or(spot.value))
    }

    /// Where the value at `path` begins or, if it is not there, the key of the closest value around it.
    pub fn nearest(&self, path: &str) -> Option<Position> {
        self.get(path).or_else(|| std::iter::successors(parent(path), |path| parent(path)).find_map(|p| self.key(p)))
    }
}

/// The path of `key` in the map at `path`.
pub fn child(path: &str, key: &str) -> String {
    if key.contains(['.', '[', ']', '"']) || key.is_empty() {
        format!("{path}[{}]", Value::from(key))
    } else if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The path of the item at `index` in the list at `path`.
pub fn item(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// The path of what holds the value at `path`; `None` for the document itself.
fn parent(path: &str) -> Option<&str> {
    if path.is_empty() {
        return None;
    }
    let start = match path.strip_suffix("\"]") {
        // A quoted key: its quotes and brackets may hold anything, so the start is found by trying.
        Some(_) => path.match_indices("[\"").map(|(i, _)| i).find(|&i| {
            path.get(i + 1..path.len() - 1).is_some_and(|key| serde_json::from_str::<String>(key).is_ok())
        })?,
        None => path.rfind(['.', '[']).unwrap_or(0),
    };
    path.get(..start)
}

/// Reads all documents of `text`; empty ones are left out. `place` names the text in findings.
pub fn documents(place: &str, text: &str) -> Result<Vec<Document>, Vec<Finding>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut documents, mut findings) = (Vec::new(), Vec::new());
    let mut size = 0;
    for part in json::parts(text) {
        // No string of JSON holds a tab; between values, the parser does not take one everywhere.
        let is_tabbed = part.is_json && part.text.contains('\t');
        let whole = if is_tabbed { Cow::Owned(part.text.replace('\t', " ")) } else { Cow::Borrowed(part.text) };
        let masked = surrogates::mask(&whole);
        let (text, mask) = masked.as_ref().map_or((&*whole, None), |(text, mask)| (text.as_str(), Some(*mask)));
        match read(place, &Part { text, ..part }, mask, &mut size) {
            Ok(more) => documents.extend(more),
            Err(more) => findings.extend(more),
        }
    }
    if findings.is_empty() { Ok(documents) } else { Err(findings) }
}

/// Reads all documents of one part of a text. `size` counts over all parts.
fn read(place: &str, part: &Part<'_>, mask: Option<Mask>, size: &mut usize) -> Result<Vec<Document>, Vec<Finding>> {
    let text = part.text;
    // Blanks behind the last line mean nothing; to the parser they would be a line of a block before them.
    let text =
        text.rfind('\n').filter(|at| text[*at..].trim_matches([' ', '\n']).is_empty()).map_or(text, |at| &text[..=at]);
    if let Some(at) = text.find(|c| !is_allowed(c)).filter(|_| !part.is_json) {
        let c = text[at..].chars().next().map_or(0, u32::from);
        let finding = Finding::new(place, format!("holds the character U+{c:04X}, which YAML does not allow"));
        let remedy = "is it a text file? In one, write the character as an escape in double quotes";
        return Err(vec![finding.at(Some(input::position(text, at))).remedy(remedy)]);
    }
    let mut reader = Reader {
        place,
        begin: part.begin,
        is_json: part.is_json,
        mask,
        parser: Parser::new_from_str(text),
        findings: Vec::new(),
        anchors: HashMap::new(),
        positions: Positions::default(),
        copies: 0,
        size: *size,
        cut_at: match text.rsplit('\n').next() {
            Some(last) if !last.trim().is_empty() => text.chars().count(),
            _ => usize::MAX,
        },
    };
    let read = reader.stream();
    *size = reader.size;
    match read {
        Ok(documents) if reader.findings.is_empty() => Ok(documents),
        Ok(_) => Err(reader.findings),
        Err(fatal) => {
            reader.findings.push(fatal);
            Err(reader.findings)
        }
    }
}

/// Builds values from the parser's events. An `Err` of its methods is what reading cannot go on after; anything
/// else that is wrong is collected in `findings`.
struct Reader<'a> {
    place: &'a str,
    /// Where the part that is read begins in the text.
    begin: Position,
    is_json: bool,
    mask: Option<Mask>,
    parser: Parser<'a, StrInput<'a>>,
    findings: Vec<Finding>,
    anchors: HashMap<usize, Value>,
    positions: Positions,
    copies: usize,
    size: usize,
    /// The index of the text's end, if that is not a line's end.
    cut_at: usize,
}

impl<'a> Reader<'a> {
    fn stream(&mut self) -> Result<Vec<Document>, Finding> {
        let mut documents = Vec::new();
        loop {
            match self.event()? {
                (Event::StreamEnd, _) => return Ok(documents),
                (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _) => {}
                (event, span) => {
                    self.anchors.clear();
                    let value = self.node("", None, event, span, 0)?;
                    let positions = std::mem::take(&mut self.positions);
                    if !value.is_null() {
                        documents.push(Document { line: self.start(span).0, value, positions });
                    }
                }
            }
        }
    }

    fn event(&mut self) -> Result<(Event<'a>, Span), Finding> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = self.position(error.marker().line(), error.marker().col() + 1);
                if error.info().contains("recursion limit") {
                    return Err(self.too_deep(at));
                }
                let remedy = if error.info().contains("tab") {
                    "indent with spaces"
                } else {
                    "look at the lines up to there: indentation, a colon or dash, an open quote or bracket"
                };
                Err(self.finding(at, format!("not valid YAML: {}", error.info())).remedy(remedy))
            }
            None => {
                let finding = Finding::new(self.place, "not valid YAML: it ends too early");
                Err(finding.remedy("is the file complete?"))
            }
        }
    }

    fn node(
        &mut self,
        path: &str,
        key: Option<Position>,
        event: Event<'a>,
        span: Span,
        depth: usize,
    ) -> Result<Value, Finding> {
        let at = self.start(span);
        if depth > MAX_DEPTH {
            return Err(self.too_deep(at));
        }
        self.size += path.len() + VALUE_SIZE;
        if self.size > MAX_SIZE {
            return Err(self.finding(at, "too many values, with too long keys around them").remedy("split the file"));
        }
        // An empty value has no place of its own; the parser reports wherever it noticed.
        let empty = span.start.index() == span.end.index() && matches!(event, Event::Scalar(..));
        self.positions.0.insert(path.to_owned(), Spot { key, value: if empty { key.unwrap_or(at) } else { at } });
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                // Where the file ends within the last line, Kubernetes' reader adds no line's end to it.
                let is_cut = is_block && span.end.index() >= self.cut_at;
                let text = if is_cut { text.strip_suffix('\n').unwrap_or(&text) } else { &text };
                (self.scalar(text, style, tag.as_deref(), at), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq", at);
                let mut list = Vec::new();
                loop {
                    match self.event()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => {
                            list.push(self.node(&item(path, list.len()), None, event, span, depth + 1)?);
                        }
                    }
                }
                (Value::Array(list), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", at);
                (Value::Object(self.map(path, depth)?), anchor)
            }
            Event::Alias(anchor) => (self.alias(anchor, at)?, 0),
            other => {
                let finding = self.finding(at, format!("not valid YAML: unexpected {other:?}"));
                return Err(finding.remedy("look at the lines up to there"));
            }
        };
        // The parser counts anchors from 1.
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn map(&mut self, path: &str, depth: usize) -> Result<Map<String, Value>, Finding> {
        let (mut map, mut merged) = (Map::new(), HashSet::new());
        loop {
            let (event, span) = self.event()?;
            let at = self.start(span);
            let key = match event {
                Event::MappingEnd => return Ok(map),
                Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<" => {
                    self.merge(path, at, depth, &mut map, &mut merged)?;
                    continue;
                }
                Event::Scalar(text, style, _, tag) => {
                    match self.scalar(&text, style, tag.as_deref(), at) {
                        Value::String(key) => key,
                        // Kubernetes takes `1:` and `on:` for the keys "1" and "true".
                        key @ (Value::Number(_) | Value::Bool(_)) => key.to_string(),
                        _ => {
                            return Err(self
                                .finding(at, "a key is empty")
                                .remedy("write the field's name before the colon"));
                        }
                    }
                }
                _ => {
                    let finding = self.finding(at, "a key must be a string");
                    return Err(finding.remedy("if it is a value, write a `-` before it, or quotes around it"));
                }
            };
            let path = child(path, &key);
            if !merged.remove(&key) && map.contains_key(&key) {
                let mut message = format!("duplicate key `{key}`");
                if let Some((line, _)) = self.positions.key(&path) {
                    let _ = write!(message, ", first on line {line}");
                }
                let finding = self.finding(at, message);
                self.findings.push(finding.remedy("keep one of them"));
            }
            let (event, span) = self.event()?;
            let value = self.node(&path, Some(at), event, span, depth + 1)?;
            map.insert(key, value);
        }
    }

    /// Reads the value of a merge key (`<<`), whose fields stand in `map` unless those behind it say otherwise; `merged` has
    /// their names. Kubernetes' reader lets them replace fields in front of it, and others do not: that is refused.
    fn merge(
        &mut self,
        path: &str,
        at: Position,
        depth: usize,
        map: &mut Map<String, Value>,
        merged: &mut HashSet<String>,
    ) -> Result<(), Finding> {
        let (event, span) = self.event()?;
        let value = self.node(&child(path, "<<"), Some(at), event, span, depth + 1)?;
        let maps = if let Value::Array(list) = value { list } else { vec![value] };
        // Of several, the first that has a field counts.
        for one in maps {
            let Value::Object(fields) = one else {
                let finding = self.finding(at, "a merge key (`<<`) takes a map, or a list of maps");
                self.findings.push(finding.remedy("write the fields out"));
                continue;
            };
            for (key, value) in fields {
                if merged.contains(&key) {
                    continue;
                }
                if map.contains_key(&key) {
                    let message = format!("this merge key (`<<`) has `{key}`, which stands in front of it, too");
                    let finding = self.finding(at, message);
                    self.findings.push(finding.remedy("write the merge key first: what follows it counts"));
                    continue;
                }
                merged.insert(key.clone());
                map.insert(key, value);
            }
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<Value, Finding> {
        let Some(value) = self.anchors.get(&anchor) else {
            let finding = self.finding(at, "this alias refers to a value around itself");
            return Err(finding.remedy("write the value out"));
        };
        self.copies += count(value);
        if self.copies > MAX_COPIES {
            return Err(self.finding(at, "aliases expand to too many values").remedy("write the values out"));
        }
        Ok(value.clone())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Value {
        self.check_tag(tag, "str", at);
        let (text, is_broken) = self.mask.map_or((text.into(), false), |mask| mask.unmask(text, style));
        // In JSON, half a character stands for the one that stands for no other, as in Go.
        if is_broken && !self.is_json {
            let finding = self.finding(at, "holds an escape of half a character, without the other half");
            self.findings.push(finding.remedy("write both, as \"\\ud83d\\ude80\", or the character itself"));
        }
        let text = &*text;
        if tag.is_some() || style != ScalarStyle::Plain {
            return Value::from(text);
        }
        plain(text).unwrap_or_else(|| {
            let finding = self.finding(at, format!("`{text}` is not a number that JSON can hold"));
            self.findings.push(finding.remedy(format!("for a string write \"{text}\"")));
            Value::Null
        })
    }

    fn check_tag(&mut self, tag: Option<&Tag>, allowed: &str, at: Position) {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == allowed)
        {
            let finding = self.finding(at, format!("the tag {}{} is not supported here", tag.handle, tag.suffix));
            self.findings.push(finding.remedy("remove it"));
        }
    }

    fn start(&self, span: Span) -> Position {
        self.position(span.start.line(), span.start.col() + 1)
    }

    /// A place in the part that is read, as one in the text.
    fn position(&self, line: usize, column: usize) -> Position {
        let (begin, first) = self.begin;
        (begin + line - 1, if line == 1 { first + column - 1 } else { column })
    }

    fn too_deep(&self, at: Position) -> Finding {
        let finding = self.finding(at, format!("nested more than {MAX_DEPTH} levels deep"));
        finding.remedy("nothing that Kubernetes reads is nested so deep: is it the right file?")
    }

    fn finding(&self, at: Position, message: impl Into<String>) -> Finding {
        Finding::new(self.place, message).at(Some(at))
    }
}

/// What every YAML takes for a character of a text (`c-printable` of its specification), and none for a line's end:
/// Kubernetes' reader, of YAML 1.1, ends lines at U+0085, U+2028 and U+2029, and others do not.
fn is_allowed(c: char) -> bool {
    match c {
        '\u{2028}' | '\u{2029}' | '\u{feff}' => false,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{a0}'..='\u{fffd}' | '\u{10000}'.. => true,
        _ => false,
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// What Kubernetes takes an unquoted scalar for (`resolve.go` of go.yaml.in/yaml/v2); `None` for infinities and NaN.
fn plain(text: &str) -> Option<Value> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => true.into(),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => false.into(),
        ".nan" | ".NaN" | ".NAN" => return None,
        _ if matches!(text.strip_prefix(['+', '-']).unwrap_or(text), ".inf" | ".Inf" | ".INF") => return None,
        _ => number(text).map_or_else(|| text.into(), Value::Number),
    })
}

fn number(text: &str) -> Option<Number> {
    if text.starts_with('_') {
        return None;
    }
    let text = text.replace('_', "");
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let (radix, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    if digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let sign = if text.starts_with('-') { "-" } else { "" };
        if let Ok(n) = i64::from_str_radix(&format!("{sign}{digits}"), radix) {
            return Some(n.into());
        }
        if let (Ok(n), "") = (u64::from_str_radix(digits, radix), sign) {
            return Some(n.into());
        }
    }
    // Without this check the standard library would take "1e", "inf" and the like its own way.
    if !unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) {
        return None;
    }
    let float: f64 = text.parse().ok()?;
    // JSON knows no difference between 8 and 8.0, but a field of Kubernetes that takes integers does in Rust.
    #[allow(clippy::cast_possible_truncation)]
    if float.fract() == 0.0 && float.abs() < 9e15 { Some((float as i64).into()) } else { Number::from_f64(float) }
}

#[cfg(test)]
mod tests;
