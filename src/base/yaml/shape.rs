//! Deserialises YAML into Rust types, and reports all mismatches at once with their places.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::{Positions, child, documents, item};
use crate::base::error::Finding;

/// More misfits than this in one file help nobody.
const MAX_FINDINGS: usize = 100;

/// Where the form of every field is shown.
const SEE: &str = "`hoist config default` shows the form of each field";

/// A struct that is read from a map only: by itself serde would take a list for its fields in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields<T>(pub T);

impl<T> Deref for Fields<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapOnly<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for MapOnly<T> {
            type Value = Fields<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Fields)
            }
        }
        deserializer.deserialize_map(MapOnly(PhantomData))
    }
}

/// Reads the only document of `text` as a `T`. If anything does not fit, all of it is reported: unknown fields at
/// their keys with the likely name, wrong types at their values. `place` names the text in findings.
///
/// Fields that a user may forget should be `Option`s: a missing one ends the search for further misfits.
pub fn parse_one<T: DeserializeOwned>(place: &str, text: &str) -> Result<(T, Positions), Vec<Finding>> {
    let mut documents = documents(place, text)?.into_iter();
    let Some(document) = documents.next() else {
        return Err(vec![Finding::new(place, "it is empty").remedy("`hoist config default` shows what belongs there")]);
    };
    if let Some(next) = documents.next() {
        let finding = Finding::new(place, "a second document begins here").at(next.positions.get(""));
        return Err(vec![finding.remedy("only one is expected: remove the others")]);
    }
    let mut search = Search { place, value: document.value, positions: document.positions, kept: HashMap::new() };
    let mut findings = Vec::new();
    loop {
        let (finding, goes_on) = match serde_path_to_error::deserialize::<_, Fields<T>>(&search.value) {
            Ok(Fields(value)) if findings.is_empty() => return Ok((value, search.positions)),
            Ok(_) => return Err(findings),
            Err(error) => search.misfit(&error),
        };
        findings.push(finding);
        if !goes_on || findings.len() == MAX_FINDINGS {
            return Err(findings);
        }
    }
}

/// A document from which each misfit is taken out once it is reported, so that the next one shows.
struct Search<'a> {
    place: &'a str,
    value: Value,
    positions: Positions,
    /// Lists that lost items: the original indices of what they still have.
    kept: HashMap<String, Vec<usize>>,
}

impl Search<'_> {
    /// The finding for `error`, and whether what caused it could be taken out.
    fn misfit(&mut self, error: &serde_path_to_error::Error<serde_json::Error>) -> (Finding, bool) {
        let message = error.inner().to_string();
        let (path, found) = self.take(error.path().iter());
        let at = |finding: Finding, position| (finding.at(position), found.is_some());

        if message.starts_with("unknown field ") {
            let mut names = message.split('`').skip(1).step_by(2);
            let name = names.next().unwrap_or_default();
            let finding = Finding::new(self.place, format!("{path}: unknown field"));
            return at(unknown(finding, name, &names.collect::<Vec<_>>()), self.positions.key(&path));
        }
        let colon = if path.is_empty() { "" } else { ": " };
        let expected = match message.rsplit_once(", expected ") {
            Some((_, expected)) if expected.starts_with("struct ") => "a map",
            Some((_, "a sequence")) => "a list",
            Some((_, expected)) => expected,
            None => {
                let finding = Finding::new(self.place, format!("{path}{colon}{message}"));
                return at(finding.remedy(SEE), self.positions.nearest(&path));
            }
        };
        let found = found.as_ref().unwrap_or(&self.value);
        let message = format!("{path}{colon}expected {expected}, found {}", describe(found));
        let remedy = match (expected, found) {
            ("a string", Value::Number(_) | Value::Bool(_)) => "write it in quotes",
            ("a list", _) => "write each item on a line of its own, with `- ` before it",
            _ => SEE,
        };
        (Finding::new(self.place, message).at(self.positions.nearest(&path)).remedy(remedy), !path.is_empty())
    }

    /// Takes out the value that `segments` lead to, and returns its path in the original document with it.
    fn take<'s>(&mut self, segments: impl Iterator<Item = &'s Segment>) -> (String, Option<Value>) {
        let mut path = String::new();
        let mut segments = segments.peekable();
        let mut here = &mut self.value;
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            let holder = path.clone();
            let next = match (segment, here) {
                (Segment::Map { key }, Value::Object(map)) => {
                    path = child(&path, key);
                    if last {
                        return (path, map.shift_remove(key));
                    }
                    map.get_mut(key)
                }
                (Segment::Seq { index }, Value::Array(list)) => {
                    let original = self.kept.get(&path).map_or(Some(index), |kept| kept.get(*index)).copied();
                    path = item(&path, original.unwrap_or(*index));
                    if last && *index < list.len() {
                        self.kept.entry(holder).or_insert_with(|| (0..list.len()).collect()).remove(*index);
                        return (path, Some(list.remove(*index)));
                    }
                    list.get_mut(*index)
                }
                _ => None,
            };
            match next {
                Some(next) => here = next,
                None => return (path, None),
            }
        }
        (path, None)
    }
}

/// Completes a finding about the unknown field `name` with the name that was likely meant, or else with all `known`.
fn unknown(finding: Finding, name: &str, known: &[&str]) -> Finding {
    let likeness = |known: &&str| strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase());
    let closest = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match closest {
        Some(closest) if likeness(&closest) > 0.85 => finding.remedy(format!("did you mean `{closest}`?")),
        Some(_) => finding.remedy(format!("known here: {}", known.join(", "))),
        None => finding.remedy("remove it"),
    }
}

/// A value, as messages name it.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
        scalar => scalar.to_string(),
    }
}
