//! YAML text to a tree of nodes that know their place. The only file that knows the YAML library.
//!
//! The tree is untyped on purpose: serde's derived types stop at the first mistake and lose what a plain scalar looked
//! like (`1.10` becomes 1.1), while a reader of rules wants every mistake at once and the text as written.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Error as YamlError, Location, Spanned};

use super::mistake::{Place, Problem, Severity};

/// Nesting that no sensible rules file has.
const MAX_DEPTH: usize = 32;
/// Scalars, lists and maps of one file, aliases expanded: some 5,000 rules.
const MAX_NODES: usize = 250_000;
/// Events that aliases may add, so that a file of nested aliases ends early.
const MAX_REPLAYED: usize = 100_000;

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Value,
    pub place: Place,
}

/// What stands at a place.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `key:` without a value, `~` or `null`.
    Empty,
    /// A scalar.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, duplicate keys included, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A scalar as text, and what YAML takes it for.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    /// As written for numbers and booleans, unquoted for text.
    pub text: String,
    /// What YAML takes it for.
    pub kind: ScalarKind,
    pub origin: Origin,
}

/// Where a scalar's text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The file.
    Written,
    /// The file, under a key whose value is never shown.
    Secret,
    /// A reference gave it or a part of it, so it may be secret and is never shown.
    Resolved,
    /// A reference that could not be resolved stands for it, which `check` accepts: nothing can be said of the text.
    Unknown,
}

/// What YAML takes a scalar for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScalarKind {
    Text,
    Number,
    Flag,
}

/// A key of a map with its place.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub text: String,
    pub place: Place,
}

impl Node {
    /// The last value of a key: the one that YAML libraries take where a key is written twice.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    /// A key with its last value.
    pub fn entry(&self, key: &str) -> Option<(&Key, &Node)> {
        self.entries().rfind(|(k, _)| k.text == key)
    }

    /// The entries of a map; none of anything else.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (&Key, &Node)> {
        let entries = match &self.value {
            Value::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(|(key, node)| (key, node))
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// True for the value of a reference that is not known.
    pub fn is_unknown(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.origin == Origin::Unknown)
    }

    /// True where the text must not stand in a message: a secret, or what a reference gave.
    pub fn is_hidden(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.origin != Origin::Written)
    }

    /// This map over `under`: maps by key, everything else replaces.
    pub fn merged_over(&self, under: &Node) -> Node {
        let (Value::Map(over), Value::Map(below)) = (&self.value, &under.value) else {
            return self.clone();
        };
        let mut merged: Vec<(Key, Node)> = Vec::with_capacity(over.len() + below.len());
        for (key, node) in over {
            let node = under
                .get(&key.text)
                .map_or_else(|| node.clone(), |n| node.merged_over(n));
            merged.push((key.clone(), node));
        }
        merged.extend(below.iter().filter(|(key, _)| self.get(&key.text).is_none()).cloned());
        Node {
            value: Value::Map(merged),
            place: self.place,
        }
    }
}

/// Reads one file.
///
/// # Errors
/// The first place at which the text is no YAML, or more than the limits allow.
pub(super) fn read(file: usize, text: &str) -> Result<Node, Problem> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        // Both of two equal keys arrive, so that each can be named.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
    };
    let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options).map_err(|e| syntax(file, text, &e))?;
    Ok(placed(file, text, raw))
}

enum Raw {
    Empty,
    Flag,
    Number,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

struct RawVisitor;

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Empty)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Empty)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Flag)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }
    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

fn placed(file: usize, text: &str, raw: Spanned<Raw>) -> Node {
    let place = place_of(file, text, raw.defined);
    let scalar = |kind, own: Option<String>| {
        Value::Scalar(Scalar {
            text: own.unwrap_or_else(|| text.get(place.start..place.end).unwrap_or_default().trim().to_owned()),
            kind,
            origin: Origin::Written,
        })
    };
    let value = match raw.value {
        Raw::Empty => Value::Empty,
        Raw::Flag => scalar(ScalarKind::Flag, None),
        Raw::Number => scalar(ScalarKind::Number, None),
        Raw::Text(own) => scalar(ScalarKind::Text, Some(own)),
        Raw::List(items) => Value::List(items.into_iter().map(|item| placed(file, text, item)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, node)| {
                    let place = place_of(file, text, key.defined);
                    (Key { text: key.value, place }, placed(file, text, node))
                })
                .collect(),
        ),
    };
    Node { value, place }
}

fn place_of(file: usize, text: &str, location: Location) -> Place {
    let bytes = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok());
    let start = bytes(location.span().byte_offset())
        .filter(|start| text.is_char_boundary(*start))
        .unwrap_or_else(|| offset_of(text, location.line(), location.column()));
    let end = start + bytes(location.span().byte_len()).unwrap_or(0);
    let end = if text.is_char_boundary(end) { end } else { start };
    Place { file, start, end }
}

/// The byte offset of a line and column, both counted from 1, columns in characters.
fn offset_of(text: &str, line: u64, column: u64) -> usize {
    let mut offset = 0;
    for (number, content) in (1..).zip(text.split_inclusive('\n')) {
        if number == line {
            let within = content.char_indices().map(|(at, _)| at);
            let before = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
            return offset
                + within
                    .chain([content.len()])
                    .nth(before)
                    .unwrap_or(content.trim_end().len());
        }
        offset += content.len();
    }
    text.len()
}

fn syntax(file: usize, text: &str, error: &YamlError) -> Problem {
    let error = match error.without_snippet() {
        YamlError::AliasError { error, .. } => error.without_snippet(),
        error => error,
    };
    let place = error.location().map_or(Place { file, start: 0, end: 0 }, |location| {
        place_of(file, text, location)
    });
    let line_start = text[..place.start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let indent = &line[..line.len() - line.trim_start().len()];
    let (message, hint): (String, Option<&str>) = match error {
        _ if indent.contains('\t') => (
            "a tab stands where YAML wants spaces".into(),
            Some("indent with spaces, such as two a level"),
        ),
        YamlError::UnknownAnchor { .. } => (
            "a value that begins with * is an alias in YAML, and no anchor has this name".into(),
            Some(r#"write it in quotes, such as "*/5 * * * *" or "*-rc*""#),
        ),
        YamlError::Budget { .. }
        | YamlError::AliasReplayLimitExceeded { .. }
        | YamlError::AliasExpansionLimitExceeded { .. }
        | YamlError::AliasReplayStackDepthExceeded { .. }
        | YamlError::AliasReplayCounterOverflow { .. } => (
            "the file is nested too deeply, or its aliases grow into too much".into(),
            Some("write less nesting and fewer aliases; several files in a directory are read as one"),
        ),
        YamlError::MultipleDocuments { .. } => (
            "the file holds more than one YAML document".into(),
            Some("remove the line ---, or put each document into a file of its own in a directory"),
        ),
        YamlError::RecursiveReferencesRequireWeakTypes { .. } => ("an alias stands within its own anchor".into(), None),
        other => {
            let text = other.to_string();
            let at = text.find(" at line ").or_else(|| text.find("\n")).unwrap_or(text.len());
            (
                format!("this is not YAML: {}", &text[..at]),
                Some(
                    "check the indentation, and write text that holds any of : # { } [ ] & * ! | > ' \" % @ ` in quotes",
                ),
            )
        }
    };
    Problem {
        place,
        message,
        hint: hint.map(str::to_owned),
        severity: Severity::Error,
    }
}
