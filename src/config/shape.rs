//! Compares a tree with the table of keys: types, unknown, duplicate, missing and empty keys.

use std::collections::HashMap;

use super::duration;
use super::keys::{Kind, Section};
use super::mistake::{Place, Problem, Severity, Sources};
use super::nearest::nearest;
use super::size;
use super::tree::{Key, Node, Origin, ScalarKind, Value};

/// Collects mistakes while a file is read.
#[derive(Debug)]
pub(super) struct Findings<'s> {
    pub problems: Vec<Problem>,
    /// For naming other places in messages.
    pub sources: &'s Sources,
}

impl<'s> Findings<'s> {
    pub fn new(sources: &'s Sources) -> Self {
        Self {
            problems: Vec::new(),
            sources,
        }
    }

    /// A mistake that makes the rules unusable.
    pub fn error(&mut self, place: Place, message: impl Into<String>, hint: Option<String>) {
        self.add(place, message.into(), hint, Severity::Error);
    }

    /// Something that the author may not expect.
    pub fn warning(&mut self, place: Place, message: impl Into<String>, hint: Option<String>) {
        self.add(place, message.into(), hint, Severity::Warning);
    }

    fn add(&mut self, place: Place, message: String, hint: Option<String>, severity: Severity) {
        self.problems.push(Problem {
            place,
            message,
            hint,
            severity,
        });
    }
}

/// A value for messages: in quotes, cut where it is long, and never what a reference gave.
pub(super) fn shown(node: &Node) -> String {
    match &node.value {
        Value::Scalar(scalar) if scalar.origin == Origin::Secret => "this value".to_owned(),
        Value::Scalar(scalar) if scalar.origin != Origin::Written => "the value of the reference".to_owned(),
        Value::Scalar(scalar) => {
            let mut text: String = scalar.text.chars().take(80).collect();
            if text.len() < scalar.text.len() {
                text.push('…');
            }
            match scalar.kind {
                ScalarKind::Text => format!("{text:?}"),
                ScalarKind::Number => format!("the number {text}"),
                ScalarKind::Flag => text,
            }
        }
        Value::Empty => "nothing".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}

/// Where to point for a value: maps and lists begin somewhere below their key, so the key is shown for them.
fn place_for(key: Option<&Key>, node: &Node) -> Place {
    match (&node.value, key) {
        (Value::Scalar(_), _) | (_, None) => node.place,
        (_, Some(key)) => key.place,
    }
}

/// Checks `node`, which stands behind `key` (none for the items of a list), against what may stand there.
pub(super) fn check(findings: &mut Findings<'_>, key: Option<&Key>, node: &Node, kind: &Kind) {
    let place = place_for(key, node);
    if matches!(node.value, Value::Empty) {
        let what = key.map_or_else(|| "this item".to_owned(), |key| format!("{:?}", key.text));
        return findings.error(
            place,
            format!("{what} has no value"),
            Some(format!("write {}, or remove it", wanted(kind))),
        );
    }
    if node.is_unknown() && !matches!(kind, Kind::Map(_) | Kind::Named(_) | Kind::Texts(_) | Kind::List { .. }) {
        return;
    }
    match kind {
        Kind::Version => version(findings, node, place),
        Kind::Text(_) => text(findings, node, kind, place),
        Kind::Flag => flag(findings, node, kind, place),
        Kind::Count { least, most } => count(findings, node, kind, place, (*least, *most)),
        Kind::Duration => length(findings, node, kind, place),
        Kind::Rate { most } => rate(findings, node, kind, place, *most),
        Kind::Size => bytes(findings, node, kind, place),
        Kind::Choice(words) => choice(findings, node, kind, place, words),
        Kind::Map(section) => map(findings, node, kind, place, section),
        Kind::Texts(what) => texts(findings, node, kind, place, what),
        Kind::Named(section) => named(findings, node, kind, place, section),
        Kind::List { of, may_be_empty } => list(findings, node, kind, place, (of, *may_be_empty)),
        Kind::TextOr(_, section) => match &node.value {
            Value::Map(_) => map(findings, node, kind, place, section),
            _ => text(findings, node, kind, place),
        },
    }
}

/// What may stand there, in words.
fn wanted(kind: &Kind) -> String {
    match kind {
        Kind::Version => "version: 1".to_owned(),
        Kind::Text(what) => (*what).to_owned(),
        Kind::Flag => "true or false".to_owned(),
        Kind::Count { least, most } => format!("a whole number from {least} to {most}"),
        Kind::Duration => "a length of time such as 30s, 5m or 1h30m".to_owned(),
        Kind::Rate { most } => format!("a number greater than 0, up to {most}, such as 50 or 0.5"),
        Kind::Size => "a size such as 500MiB or 20GiB".to_owned(),
        Kind::Choice(words) => words.join(" or "),
        Kind::Map(section) => format!("a map with keys such as {}", some_keys(section)),
        Kind::Named(_) => "a map with a name for each entry".to_owned(),
        Kind::Texts(what) => format!("a map with a name for each entry, behind it {what}"),
        Kind::List { of, .. } => format!("a list, each item {}", wanted(of)),
        Kind::TextOr(what, section) => format!("{what}, or a map with keys such as {}", some_keys(section)),
    }
}

fn of(section: &Section) -> &'static str {
    if section.path.is_empty() {
        "the file"
    } else {
        section.path
    }
}

fn some_keys(section: &Section) -> String {
    let names: Vec<&str> = section.keys.iter().take(3).map(|key| key.name).collect();
    names.join(", ")
}

fn mismatch(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place) {
    findings.error(
        place,
        format!("{} cannot stand here", shown(node)),
        Some(format!("write {}", wanted(kind))),
    );
}

fn version(findings: &mut Findings<'_>, node: &Node, place: Place) {
    if node.text() == Some("1") {
        return;
    }
    findings.error(
        place,
        format!(
            "this program reads version 1 of the rules, not {}",
            node.text().filter(|_| !node.is_hidden()).unwrap_or("this")
        ),
        Some("write version: 1; other versions need another release of transship".to_owned()),
    );
}

fn text(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place) {
    let Value::Scalar(scalar) = &node.value else {
        return mismatch(findings, node, kind, place);
    };
    match scalar.kind {
        ScalarKind::Text if scalar.text.trim().is_empty() => findings.error(
            place,
            if scalar.origin == Origin::Resolved {
                "the reference gives an empty text"
            } else {
                "this text is empty"
            },
            Some(format!("write {}", wanted(kind))),
        ),
        ScalarKind::Text => {}
        ScalarKind::Number | ScalarKind::Flag if node.is_hidden() => findings.error(
            place,
            "a number or a truth value stands where text is expected",
            Some("write it in quotes".to_owned()),
        ),
        ScalarKind::Number if scalar.text.contains('.') => {
            let written = &scalar.text;
            let number = written.trim_end_matches('0').trim_end_matches('.');
            let hint = if number == written {
                format!("write it in quotes: {written:?}")
            } else {
                format!("write it in quotes: {written:?}; as a number, {written} is the same as {number}")
            };
            findings.error(
                place,
                format!("the number {written} stands where text is expected"),
                Some(hint),
            );
        }
        ScalarKind::Number | ScalarKind::Flag => findings.error(
            place,
            format!("{} stands where text is expected", shown(node)),
            Some(format!("write it in quotes: {:?}", scalar.text)),
        ),
    }
}

fn flag(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place) {
    let fits = match &node.value {
        Value::Scalar(scalar) => {
            matches!(scalar.text.as_str(), "true" | "false")
                && (scalar.kind == ScalarKind::Flag || scalar.origin == Origin::Resolved)
        }
        _ => false,
    };
    if !fits {
        mismatch(findings, node, kind, place);
    }
}

fn count(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place, (least, most): (i64, i64)) {
    let number = match &node.value {
        Value::Scalar(scalar) if scalar.kind == ScalarKind::Number || scalar.origin == Origin::Resolved => {
            scalar.text.parse::<i64>().ok()
        }
        _ => None,
    };
    if !number.is_some_and(|n| (least..=most).contains(&n)) {
        mismatch(findings, node, kind, place);
    }
}

fn rate(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place, most: u64) {
    if positive(node).is_none_or(|number| number > most as f64) {
        mismatch(findings, node, kind, place);
    }
}

/// A number greater than 0, whole or not.
pub(super) fn positive(node: &Node) -> Option<f64> {
    let number: f64 = match &node.value {
        Value::Scalar(scalar) if scalar.kind == ScalarKind::Number || scalar.origin == Origin::Resolved => {
            scalar.text.parse().ok()?
        }
        _ => return None,
    };
    (number.is_finite() && number > 0.0).then_some(number)
}

fn length(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place) {
    match &node.value {
        Value::Scalar(scalar) if duration::parse(&scalar.text).is_some() => {}
        Value::Scalar(scalar) if scalar.kind == ScalarKind::Number && scalar.origin == Origin::Written => findings
            .error(
                place,
                format!("{} has no unit", shown(node)),
                Some(format!("write {0}s for seconds or {0}m for minutes", scalar.text)),
            ),
        _ => mismatch(findings, node, kind, place),
    }
}

fn bytes(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place) {
    match &node.value {
        Value::Scalar(scalar) if size::parse(&scalar.text).is_some() => {}
        Value::Scalar(scalar) if scalar.kind == ScalarKind::Number && scalar.origin == Origin::Written => findings
            .error(
                place,
                format!("{} has no unit", shown(node)),
                Some(format!("write {0}MiB or {0}GiB", scalar.text)),
            ),
        Value::Scalar(scalar) if scalar.origin == Origin::Written && size::meant(&scalar.text).is_some() => {
            let meant = size::meant(&scalar.text).unwrap_or_default();
            findings.error(
                place,
                format!("{} is no size", shown(node)),
                Some(format!("did you mean {meant}?")),
            );
        }
        _ => mismatch(findings, node, kind, place),
    }
}

fn choice(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place, words: &[&str]) {
    match node.text() {
        Some(text) if words.contains(&text) => {}
        Some(text) => findings.error(
            place,
            format!("{} is none of {}", shown(node), words.join(", ")),
            nearest(text, words.iter().copied())
                .map(|word| format!("did you mean {word}?"))
                .or_else(|| Some(format!("write {}", wanted(kind)))),
        ),
        None => mismatch(findings, node, kind, place),
    }
}

fn list(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place, (of, may_be_empty): (&Kind, bool)) {
    match &node.value {
        Value::List(items) => {
            if items.is_empty() && !may_be_empty {
                findings.error(
                    place,
                    "this list is empty",
                    Some(format!("name at least one: {}", wanted(of))),
                );
            }
            for item in items {
                check(findings, None, item, of);
            }
        }
        Value::Scalar(scalar) if scalar.origin == Origin::Written => {
            let item = match scalar.kind {
                ScalarKind::Text => format!("{:?}", scalar.text),
                ScalarKind::Number | ScalarKind::Flag => scalar.text.clone(),
            };
            findings.error(
                place,
                format!("{} stands where a list is expected", shown(node)),
                Some(format!("write [{item}]")),
            );
        }
        _ => mismatch(findings, node, kind, place),
    }
}

fn duplicates(findings: &mut Findings<'_>, node: &Node) {
    let mut seen: HashMap<&str, Place> = HashMap::new();
    for (key, _) in node.entries() {
        if let Some(first) = seen.get(key.text.as_str()) {
            let message = format!("{:?} is written twice", key.text);
            let hint = format!("it stands at {} too; keep one of them", findings.sources.locate(*first));
            findings.error(key.place, message, Some(hint));
        } else {
            seen.insert(&key.text, key.place);
        }
    }
}

fn map(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place, section: &Section) {
    if !matches!(node.value, Value::Map(_)) {
        return mismatch(findings, node, kind, place);
    }
    duplicates(findings, node);
    for (key, value) in node.entries() {
        match section.keys.iter().find(|known| known.name == key.text) {
            Some(known) => check(findings, Some(key), value, &known.kind),
            None => {
                let names = || section.keys.iter().map(|known| known.name);
                // A key that is there already is no likely meaning of another one.
                let missing = names().filter(|name| node.get(name).is_none());
                let hint = nearest(&key.text, missing)
                    .or_else(|| nearest(&key.text, names()))
                    .map(|name| format!("did you mean {name:?}?"))
                    .unwrap_or_else(|| format!("{} knows {}", of(section), names().collect::<Vec<_>>().join(", ")));
                let shown: String = key.text.chars().take(80).collect();
                findings.error(key.place, format!("unknown key {shown:?}"), Some(hint));
            }
        }
    }
    for known in section.keys.iter().filter(|known| known.required) {
        if node.get(known.name).is_none() {
            // The first key of the map shows which map is meant; its own place may be a line above.
            let place = node.entries().next().map_or(place, |(first, _)| first.place);
            let hint = match known.kind {
                Kind::Version => wanted(&known.kind),
                _ => format!("{}: {}", known.name, wanted(&known.kind)),
            };
            findings.error(
                place,
                format!("the key {:?} is missing", known.name),
                Some(format!("add {hint}")),
            );
        }
    }
}

fn named(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place, section: &'static Section) {
    if !matches!(node.value, Value::Map(_)) {
        return mismatch(findings, node, kind, place);
    }
    duplicates(findings, node);
    for (key, value) in node.entries() {
        name(findings, key.place, &key.text);
        check(findings, Some(key), value, &Kind::Map(section));
    }
}

fn texts(findings: &mut Findings<'_>, node: &Node, kind: &Kind, place: Place, what: &'static str) {
    if !matches!(node.value, Value::Map(_)) {
        return mismatch(findings, node, kind, place);
    }
    duplicates(findings, node);
    for (key, value) in node.entries() {
        check(findings, Some(key), value, &Kind::Text(what));
    }
}

/// Names stand in command lines, reports and metrics: letters, digits, `.`, `_` and `-`, not too long.
pub(super) fn name(findings: &mut Findings<'_>, place: Place, text: &str) {
    let inner = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    let valid = text.chars().next().is_some_and(char::is_alphanumeric)
        && text.chars().all(inner)
        && text.chars().count() <= 100;
    if !valid {
        findings.error(
            place,
            "this cannot be a name",
            Some("write at most 100 letters, digits, '.', '_' and '-', beginning with a letter or digit".to_owned()),
        );
    }
}
