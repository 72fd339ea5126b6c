//! The tables of assets/schemas: types and their fields, and which versions have them.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use crate::desired::template;

/// The types of the API.
pub(super) static API: LazyLock<Table> = LazyLock::new(|| Table::read("schemas/api"));
/// The types of the components' configurations.
pub(super) static CONFIG: LazyLock<Table> = LazyLock::new(|| Table::read("schemas/config"));

/// One of the two tables.
#[derive(Default)]
pub(super) struct Table {
    types: Vec<Vec<Field>>,
    /// By apiVersion and kind.
    pub kinds: BTreeMap<&'static str, BTreeMap<&'static str, Kind>>,
    /// The newest minor version that it knows.
    pub newest: u32,
    /// How many of its lines were not understood, or name a type that is not there.
    #[cfg_attr(not(test), allow(dead_code))]
    pub misread: usize,
}

/// The number of a type in its table.
pub(super) type TypeId = usize;

pub(super) struct Kind {
    of: TypeId,
    pub span: Span,
}

pub(super) struct Field {
    pub name: &'static str,
    pub shape: Shape,
    pub is_required: bool,
    pub keys: Keys,
    pub span: Span,
}

/// The minor versions that have something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub since: Option<u32>,
    pub until: Option<u32>,
}

impl Span {
    /// Whether a version has it; some version, if none is named.
    pub fn has(self, minor: Option<u32>) -> bool {
        minor.is_none_or(|minor| self.since.is_none_or(|v| minor >= v) && self.until.is_none_or(|v| minor <= v))
    }

    /// Since when or until when there is what `minor` does not have, as a sentence.
    pub fn story(self, minor: u32, who: &str) -> Option<String> {
        match self {
            Self { since: Some(since), .. } if minor < since => {
                Some(format!("was added in Kubernetes 1.{since}, and {who} is of 1.{minor}"))
            }
            Self { until: Some(until), .. } if minor > until => {
                Some(format!("was removed in Kubernetes 1.{}, and {who} is of 1.{minor}", until + 1))
            }
            _ => None,
        }
    }
}

/// What a value looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    Type(TypeId),
    List(Box<Self>),
    Map(Box<Self>),
    Scalar(Scalar),
    /// A map of anything.
    Object,
    Any,
    /// A schema of a custom resource, or else what `Or` says.
    Schema(TypeId, Or),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Or {
    Bool,
    Schemas,
    Strings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Uint32,
    Number,
    Quantity,
    IntOrString,
    Time,
    /// Null is refused where it is no pointer.
    Duration {
        or_null: bool,
    },
    DurationOrInt,
}

/// By what the items of a list differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keys {
    /// They need not.
    None,
    /// By themselves.
    Set,
    /// By these fields, each with what it is where it is left out.
    Fields(Vec<(&'static str, Option<&'static str>)>),
}

impl Table {
    fn read(path: &str) -> Self {
        Self::parse(template::asset(path).unwrap_or_default())
    }

    fn parse(text: &'static str) -> Self {
        let is_type = |line: &&str| !line.starts_with([' ', '#']) && !line.starts_with("kind ");
        let name = |line: &'static str| line.split(' ').next().unwrap_or_default();
        let ids: HashMap<_, _> =
            text.lines().filter(is_type).map(name).enumerate().map(|(id, name)| (name, id)).collect();
        let mut table = Self { types: Vec::with_capacity(ids.len()), ..Self::default() };
        for line in text.lines() {
            let read = if let Some(header) = line.strip_prefix("# Kubernetes ") {
                table.newest = header.split([' ', '.']).filter_map(|word| word.parse().ok()).max().unwrap_or_default();
                Some(())
            } else if let Some(field) = line.strip_prefix("  ") {
                Field::parse(field, &ids).and_then(|field| table.types.last_mut().map(|fields| fields.push(field)))
            } else if let Some(kind) = line.strip_prefix("kind ") {
                table.kind_line(kind, &ids)
            } else {
                table.types.push(Vec::new());
                Some(())
            };
            table.misread += usize::from(read.is_none());
        }
        table
    }

    fn kind_line(&mut self, line: &'static str, ids: &HashMap<&str, TypeId>) -> Option<()> {
        let mut words = line.split(' ');
        let (version, kind, of) = (words.next()?, words.next()?, ids.get(words.next()?)?);
        let mut span = Span::default();
        words.try_for_each(|word| span.take(word))?;
        self.kinds.entry(version).or_default().insert(kind, Kind { of: *of, span });
        Some(())
    }

    /// The type of a kind in a version.
    pub fn kind(&self, api_version: &str, kind: &str, minor: Option<u32>) -> Option<TypeId> {
        self.kinds.get(api_version)?.get(kind).filter(|kind| kind.span.has(minor)).map(|kind| kind.of)
    }

    /// The fields of a type, by name; one twice, if it is another in later versions.
    pub fn fields(&self, of: TypeId) -> &[Field] {
        self.types.get(of).map_or(&[], Vec::as_slice)
    }
}

impl Span {
    fn take(&mut self, word: &str) -> Option<()> {
        let (key, minor) = word.split_once("=1.")?;
        let minor = Some(minor.parse().ok()?);
        match key {
            "since" => self.since = minor,
            "until" => self.until = minor,
            _ => return None,
        }
        Some(())
    }
}

impl Field {
    fn parse(line: &'static str, ids: &HashMap<&str, TypeId>) -> Option<Self> {
        let mut words = line.split(' ');
        let (name, shape) = (words.next()?, Shape::parse(words.next()?, ids)?);
        let mut field = Self { name, shape, is_required: false, keys: Keys::None, span: Span::default() };
        for word in words {
            match (word, word.strip_prefix("keys=")) {
                ("required", _) => field.is_required = true,
                ("set", _) => field.keys = Keys::Set,
                (_, Some(keys)) => {
                    let key = |key: &'static str| key.split_once(':').map_or((key, None), |(key, or)| (key, Some(or)));
                    field.keys = Keys::Fields(keys.split(',').map(key).collect());
                }
                _ => field.span.take(word)?,
            }
        }
        Some(field)
    }
}

impl Shape {
    fn parse(word: &str, ids: &HashMap<&str, TypeId>) -> Option<Self> {
        if let Some(item) = word.strip_prefix("[]") {
            return Some(Self::List(Box::new(Self::parse(item, ids)?)));
        }
        if let Some(item) = word.strip_prefix("{}") {
            return Some(Self::Map(Box::new(Self::parse(item, ids)?)));
        }
        if let Some(other) = word.strip_prefix("schema|") {
            let or = match other {
                "bool" => Or::Bool,
                "[]schema" => Or::Schemas,
                "[]string" => Or::Strings,
                _ => return None,
            };
            return Some(Self::Schema(*ids.get("apiextensions.v1.JSONSchemaProps")?, or));
        }
        Some(Self::Scalar(match word {
            "string" => Scalar::String,
            "bytes" => Scalar::Bytes,
            "bool" => Scalar::Bool,
            "int32" => Scalar::Int32,
            "int64" => Scalar::Int64,
            "uint32" => Scalar::Uint32,
            "number" => Scalar::Number,
            "quantity" => Scalar::Quantity,
            "int-or-string" => Scalar::IntOrString,
            "time" => Scalar::Time,
            "duration" => Scalar::Duration { or_null: true },
            "duration!" => Scalar::Duration { or_null: false },
            "duration-or-int" => Scalar::DurationOrInt,
            "any" => return Some(Self::Any),
            "object" => return Some(Self::Object),
            name => return ids.get(name).map(|id| Self::Type(*id)),
        }))
    }
}
