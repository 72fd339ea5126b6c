//! A value against its type.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Problem;
use super::scalars;
use super::table::{Field, Keys, Or, Scalar, Shape, Table, TypeId};
use crate::base::yaml::{child, describe, item};

/// Where a value is: a step below where another is. A path is made of it only for a problem.
#[derive(Clone, Copy)]
pub(super) enum At<'a> {
    Path(&'a str),
    Key(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

impl At<'_> {
    pub const ROOT: At<'static> = At::Path("");

    fn path(self) -> String {
        match self {
            At::Path(path) => path.to_owned(),
            At::Key(above, key) => child(&above.path(), key),
            At::Item(above, index) => item(&above.path(), index),
        }
    }
}

/// How far a value is judged.
#[derive(Clone, Copy)]
struct Rigour {
    /// Unknown fields are refused, and items with one key: neither is in what reads its JSON itself.
    unknown: bool,
    /// What must be there is: the status of an applied object is left out by the API server.
    required: bool,
}

/// The walk through one document.
pub(super) struct Walk<'t> {
    table: &'t Table,
    /// The version, if it is known.
    minor: Option<u32>,
    /// What is of that version.
    who: &'static str,
    /// Whether the items of lists must differ by their keys.
    has_keys: bool,
    rigour: Rigour,
    pub problems: Vec<Problem>,
}

impl<'t> Walk<'t> {
    pub fn new(table: &'t Table, minor: Option<u32>, who: &'static str, has_keys: bool) -> Self {
        // Nobody knows the fields of a version to come.
        let unknown = minor.is_none_or(|minor| minor <= table.newest);
        let rigour = Rigour { unknown, required: true };
        Self { table, minor, who, has_keys, rigour, problems: Vec::new() }
    }

    pub fn value(&mut self, shape: &Shape, value: &Value, at: At<'_>) {
        if value.is_null() && *shape != Shape::Scalar(Scalar::Duration { or_null: false }) {
            return;
        }
        match (shape, value) {
            (Shape::Any, _) | (Shape::Object, Value::Object(_)) => {}
            (Shape::Type(of), Value::Object(map)) => self.fields(*of, map, at),
            (Shape::List(shape), Value::Array(list)) => self.list(shape, list, at),
            (Shape::Map(shape), Value::Object(map)) => {
                map.iter().for_each(|(key, value)| self.value(shape, value, At::Key(&at, key)));
            }
            (Shape::Scalar(scalar), value) => {
                if let Some((expected, remedy)) = scalars::misfit(*scalar, value) {
                    self.misfit(expected, value, at, remedy);
                }
            }
            (Shape::Schema(of, or), value) => self.schema(*of, *or, value, at),
            (Shape::List(_), _) => {
                let remedy = "write each item on a line of its own, with `- ` before it";
                self.misfit("a list", value, at, Some(remedy));
            }
            (Shape::Type(_) | Shape::Map(_) | Shape::Object, _) => self.misfit("a map", value, at, None),
        }
    }

    fn list(&mut self, shape: &Shape, list: &[Value], at: At<'_>) {
        list.iter().enumerate().for_each(|(i, value)| self.value(shape, value, At::Item(&at, i)));
    }

    /// A schema within a schema, or what may stand in its place: the API server reads them leniently.
    fn schema(&mut self, of: TypeId, or: Or, value: &Value, at: At<'_>) {
        let rigour = self.rigour;
        self.rigour.unknown = false;
        match (or, value) {
            (_, Value::Object(map)) => self.fields(of, map, at),
            (Or::Bool, Value::Bool(_)) => {}
            (Or::Schemas, Value::Array(list)) => self.list(&Shape::Type(of), list, at),
            (Or::Strings, Value::Array(list)) => self.list(&Shape::Scalar(Scalar::String), list, at),
            (Or::Bool, _) => self.misfit("a map, true or false", value, at, None),
            // Anything else is as if nothing stood there.
            (Or::Schemas | Or::Strings, _) => {}
        }
        self.rigour = rigour;
    }

    fn fields(&mut self, of: TypeId, map: &Map<String, Value>, at: At<'_>) {
        let table = self.table;
        let fields = table.fields(of);
        if fields.is_empty() {
            // To the API server, a map without fields is one of anything.
            return;
        }
        for (key, value) in map {
            let begin = fields.partition_point(|field| field.name < key.as_str());
            let named = || fields[begin..].iter().take_while(|field| field.name == key);
            let Some(field) = named().find(|field| field.span.has(self.minor)) else {
                if self.rigour.unknown {
                    self.unknown(fields, named().next(), key, At::Key(&at, key));
                }
                continue;
            };
            let rigour = self.rigour;
            // What an object says of its own state.
            self.rigour.required &= !(key == "status" && matches!(at, At::Path("")));
            let at = At::Key(&at, key);
            self.value(&field.shape, value, at);
            if let (true, Value::Array(list)) = (self.has_keys && self.rigour.unknown, value) {
                self.keys(&field.keys, list, at);
            }
            self.rigour = rigour;
        }
        if !self.rigour.required {
            return;
        }
        let minor = self.minor;
        for field in fields.iter().filter(|field| field.is_required && field.span.has(minor)) {
            if map.get(field.name).is_none_or(Value::is_null) {
                let remedy = format!("add {}: …", field.name);
                self.say(At::Key(&at, field.name), "it is required".to_owned(), Some(remedy));
            }
        }
    }

    /// The items of a list differ by their keys.
    fn keys(&mut self, keys: &Keys, list: &[Value], at: At<'_>) {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (i, value) in list.iter().enumerate() {
            let key = match (keys, value) {
                (Keys::None, _) => return,
                (_, Value::Null) => {
                    self.say(At::Item(&at, i), "an item is empty".to_owned(), Some("remove it".to_owned()));
                    continue;
                }
                (Keys::Set, value) => value.to_string(),
                (Keys::Fields(keys), Value::Object(map)) => match shown(keys, map) {
                    Some(key) => key,
                    None => continue,
                },
                // Said as a misfit.
                (Keys::Fields(_), _) => continue,
            };
            if let Some(first) = seen.get(&key) {
                let of = item(&at.path(), *first);
                let message = format!("has {key} as {of} has: the API server takes that once");
                self.say(At::Item(&at, i), message, Some("keep one of them".to_owned()));
            } else {
                seen.insert(key, i);
            }
        }
    }

    fn unknown(&mut self, fields: &[Field], known: Option<&Field>, key: &str, at: At<'_>) {
        let story = known.and_then(|field| field.span.story(self.minor?, self.who));
        let likeness = |name: &str| strsim::jaro_winkler(&key.to_lowercase(), &name.to_lowercase());
        let there = fields.iter().filter(|field| field.span.has(self.minor)).map(|field| field.name);
        let closest = there.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) > 0.85);
        let (message, remedy) = match (story, closest) {
            (Some(story), _) => (format!("`{key}` {story}"), Some("remove it".to_owned())),
            (None, Some(closest)) => (format!("unknown field `{key}`"), Some(format!("did you mean `{closest}`?"))),
            (None, None) => (format!("unknown field `{key}`"), None),
        };
        self.problems.push(Problem { path: at.path(), message, remedy, is_unknown: true });
    }

    fn misfit(&mut self, expected: &str, value: &Value, at: At<'_>, remedy: Option<&str>) {
        let message = format!("expected {expected}, found {}", describe(value));
        self.say(at, message, remedy.map(str::to_owned));
    }

    fn say(&mut self, at: At<'_>, message: String, remedy: Option<String>) {
        self.problems.push(Problem { path: at.path(), message, remedy, is_unknown: false });
    }
}

/// The key of an item, as a message shows it; `None` where it has none of the fields.
fn shown(keys: &[(&'static str, Option<&'static str>)], map: &Map<String, Value>) -> Option<String> {
    let is_there = |(name, _): &(&str, _)| map.get(*name).is_some();
    keys.iter().any(is_there).then(|| {
        let parts = keys.iter().filter_map(|(name, default)| match (map.get(*name), default) {
            (Some(Value::String(text)), _) => Some(format!("{name} {text}")),
            (Some(value), _) => Some(format!("{name} {value}")),
            (None, Some(default)) => Some(format!("{name} {default}")),
            (None, None) => None,
        });
        parts.collect::<Vec<_>>().join(", ")
    })
}
