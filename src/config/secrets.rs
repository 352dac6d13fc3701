//! Blanks out what must not be shown when a line of the rules is quoted.

use std::sync::LazyLock;

use regex::Regex;

use super::mistake::{Place, Sources};
use super::nearest::nearest;
use super::tree::{Node, Origin, Value};

fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    if key == "token_hosts" {
        return false;
    }
    ["pass", "secret", "token", "credential"]
        .iter()
        .any(|word| key.contains(word))
        || nearest(&key, ["password"]).is_some()
}

/// True where the text is nothing but one reference, which says where a secret is and not what it is.
fn is_reference(text: &str) -> bool {
    text.strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|name| !name.contains(['{', '}']))
}

/// Blanks out passwords that are written into the file itself, and the user part of URLs.
pub(super) fn hide(sources: &mut Sources, text: &str, node: &mut Node) {
    match &mut node.value {
        Value::Empty => {}
        Value::Scalar(_) => hide_users(sources, text, node.place),
        Value::List(items) => items.iter_mut().for_each(|item| hide(sources, text, item)),
        Value::Map(entries) => {
            for (key, value) in entries {
                if is_secret(&key.text) {
                    hide_values(sources, value);
                } else if let ("registries", Value::Map(named)) = (key.text.as_str(), &mut value.value) {
                    // These keys are names: a registry may be called `pass-through`.
                    named.iter_mut().for_each(|(_, value)| hide(sources, text, value));
                } else {
                    hide(sources, text, value);
                }
            }
        }
    }
}

fn hide_values(sources: &mut Sources, node: &mut Node) {
    match &mut node.value {
        Value::Empty => {}
        Value::Scalar(scalar) => {
            if !is_reference(&scalar.text) {
                scalar.origin = Origin::Secret;
                sources.hide(node.place);
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| hide_values(sources, item)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| hide_values(sources, value)),
    }
}

fn hide_users(sources: &mut Sources, text: &str, place: Place) {
    static USER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"://([^/\s"'@]+)@"#).expect("the pattern is a constant"));
    let Some(part) = text.get(place.start..place.end) else {
        return;
    };
    for user in USER.captures_iter(part).filter_map(|found| found.get(1)) {
        sources.hide(Place {
            start: place.start + user.start(),
            end: place.start + user.end(),
            ..place
        });
    }
}

/// The same for a file that is no YAML: by lines, so more than needed may be blanked out.
pub(super) fn hide_lines(sources: &mut Sources, file: usize, text: &str) {
    static SECRET: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?i)(?:pass|secret|token|credential)[\w-]*["']?\s*:\s*(\S.*)$"#)
            .expect("the pattern is a constant")
    });
    let mut at = 0;
    // Indentation of a secret's key whose value may go on in the lines below.
    let mut open: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let indent = content.len() - content.trim_start().len();
        let hidden = match (open, SECRET.captures(content).and_then(|found| found.get(1))) {
            (Some(least), _) if indent > least && !content.is_empty() => Some(indent..content.len()),
            (_, Some(value)) => {
                open = Some(indent);
                (!is_reference(value.as_str())).then(|| value.range())
            }
            _ => {
                if !content.is_empty() {
                    open = None;
                }
                None
            }
        };
        if let Some(range) = hidden {
            let place = Place {
                file,
                start: at + range.start,
                end: at + range.end,
            };
            sources.hide(place);
        }
        at += line.len();
    }
    let all = Place {
        file,
        start: 0,
        end: text.len(),
    };
    hide_users(sources, text, all);
}
