//! Blanks out what must not be shown when a line of the rules is quoted.

use std::sync::LazyLock;

use regex::Regex;

use super::keys::{Entry, FILE, Kind, REGISTRY, Section};
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
pub(super) fn hide(sources: &mut Sources, text: &str, root: &mut Node) {
    let Value::Map(entries) = &mut root.value else {
        return hide_known(sources, text, root);
    };
    for (key, value) in entries {
        let known = FILE.keys.iter().any(|known| known.name == key.text);
        if key.text == "registries" || (!known && nearest(&key.text, ["registries"]).is_some()) {
            match &mut value.value {
                // These keys are names: a registry may be called `pass-through`.
                Value::Map(named) => named
                    .iter_mut()
                    .for_each(|(_, value)| hide_registry(sources, text, value, &REGISTRY)),
                _ => hide_registry(sources, text, value, &REGISTRY),
            }
        } else if is_secret(&key.text) {
            hide_values(sources, value);
        } else {
            hide_known(sources, text, value);
        }
    }
}

fn hide_known(sources: &mut Sources, text: &str, node: &mut Node) {
    match &mut node.value {
        Value::Empty => {}
        Value::Scalar(_) => hide_user(sources, text, node, false),
        Value::List(items) => items.iter_mut().for_each(|item| hide_known(sources, text, item)),
        Value::Map(entries) => {
            for (key, value) in entries {
                if is_secret(&key.text) {
                    hide_values(sources, value);
                } else {
                    hide_known(sources, text, value);
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

/// What a registry says: the value of a key that is not in the table may be a secret, whatever the key is called.
fn hide_registry(sources: &mut Sources, text: &str, node: &mut Node, section: &Section) {
    let entries = match &mut node.value {
        Value::Map(entries) => entries,
        Value::List(items) => {
            items
                .iter_mut()
                .for_each(|item| hide_registry(sources, text, item, section));
            return;
        }
        Value::Scalar(_) | Value::Empty => return hide_user(sources, text, node, true),
    };
    for (key, value) in entries {
        let known = section.keys.iter().find(|known| known.name == key.text);
        match known {
            _ if is_secret(&key.text) => hide_values(sources, value),
            // What they hold is for a gateway what a password is for a registry.
            None | Some(Entry { name: "headers", .. }) => hide_values(sources, value),
            Some(Entry {
                kind: Kind::Map(section) | Kind::TextOr(_, section),
                ..
            }) => hide_registry(sources, text, value, section),
            Some(Entry {
                kind:
                    Kind::List {
                        of: Kind::TextOr(_, section),
                        ..
                    },
                ..
            }) => hide_registry(sources, text, value, section),
            // The keys are names of hosts, the values are addresses.
            Some(Entry { name: "resolve", .. }) => hide_known(sources, text, value),
            // An @ is nothing special there.
            Some(Entry {
                name: "username" | "layout",
                ..
            }) => hide_known(sources, text, value),
            Some(_) => hide_registry(sources, text, value, section),
        }
    }
}

/// Hides the user part of a URL, up to the last @, as a password may hold anything; `bare` also without a scheme.
fn hide_user(sources: &mut Sources, text: &str, node: &mut Node, bare: bool) {
    let Value::Scalar(scalar) = &mut node.value else {
        return;
    };
    let user = |text: &str| {
        let end = text.rfind('@')?;
        let start = text[..end].find("://").map(|at| at + "://".len());
        Some(start.or(bare.then_some(0))?..end)
    };
    if is_reference(&scalar.text) || user(&scalar.text).is_none() {
        return;
    }
    scalar.origin = Origin::Secret;
    let place = node.place;
    // Escapes of quoted text may hide what the text is: then all of it.
    let within = text.get(place.start..place.end).and_then(user);
    let within = within.unwrap_or(0..place.end - place.start);
    sources.hide(Place {
        start: place.start + within.start,
        end: place.start + within.end,
        ..place
    });
}

/// The same for a file that is no YAML: by lines, so more than needed may be blanked out.
pub(super) fn hide_lines(sources: &mut Sources, file: usize, text: &str) {
    static SECRET: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?i)(?:pass|pwd|secret|token|credential|auth|key|header|cookie)[\w-]*["']?\s*:\s*(\S.*)$"#)
            .expect("the pattern is a constant")
    });
    // The user part of an address, up to the last @ of the line.
    static USER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"(?i)(?:://|\burl["']?\s*:\s*)(\S.*)@"#).expect("the pattern is a constant"));
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
        let user = USER.captures(content).and_then(|found| found.get(1));
        for range in hidden.into_iter().chain(user.map(|user| user.range())) {
            let place = Place {
                file,
                start: at + range.start,
                end: at + range.end,
            };
            sources.hide(place);
        }
        at += line.len();
    }
}
