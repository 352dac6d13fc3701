//! `${NAME}`, `${file:/path}` and `${credential:name}` in string values.

use std::io;
use std::path::{Path, PathBuf};

use super::Mode;
use super::mistake::Place;
use super::nearest::nearest;
use super::shape::Findings;
use super::tree::{Node, Origin, Value};

/// A secret is a line or a key; more is some other file.
const MAX_FILE: u64 = 64 * 1024;

/// Where references lead: the environment for the program, a table for tests.
pub trait Lookup {
    /// An environment variable; `None` where it is not set.
    fn variable(&self, name: &str) -> Option<String>;
    /// The text of a file.
    ///
    /// # Errors
    /// What the system says, or that it is no text or longer than 64 KiB.
    fn file(&self, path: &Path) -> io::Result<String>;
}

/// The environment and the files of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Environment;

impl Lookup for Environment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        super::files::read_text(path, MAX_FILE)
    }
}

/// Replaces the references in every value of a file but those under `rules:`, where a reference is a mistake: a rule
/// must mean the same everywhere.
pub(super) fn resolve(findings: &mut Findings<'_>, root: &mut Node, lookup: &dyn Lookup, mode: Mode) {
    let Value::Map(entries) = &mut root.value else {
        return;
    };
    for (key, node) in entries {
        if key.text == "rules" {
            refuse(findings, node);
        } else {
            replace(findings, node, lookup, mode);
        }
    }
}

fn refuse(findings: &mut Findings<'_>, node: &Node) {
    match &node.value {
        Value::Empty => {}
        Value::Scalar(scalar) => {
            if scalar.text.contains("${") {
                findings.error(
                    node.place,
                    "references such as ${NAME} are not read under rules:",
                    Some("write the value itself; references belong under registries: and defaults:".to_owned()),
                );
            }
        }
        Value::List(items) => items.iter().for_each(|item| refuse(findings, item)),
        Value::Map(entries) => entries.iter().for_each(|(_, item)| refuse(findings, item)),
    }
}

fn replace(findings: &mut Findings<'_>, node: &mut Node, lookup: &dyn Lookup, mode: Mode) {
    match &mut node.value {
        Value::Empty => {}
        Value::List(items) => {
            for item in items {
                replace(findings, item, lookup, mode);
            }
        }
        Value::Map(entries) => {
            for (_, item) in entries {
                replace(findings, item, lookup, mode);
            }
        }
        Value::Scalar(scalar) => {
            if scalar.text.contains("${") {
                let (text, origin) = expand(findings, node.place, &scalar.text, lookup, mode);
                scalar.text = text;
                scalar.origin = origin;
            }
        }
    }
}

fn expand(findings: &mut Findings<'_>, place: Place, text: &str, lookup: &dyn Lookup, mode: Mode) -> (String, Origin) {
    let mut origin = Origin::Written;
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = &reference[2..];
            continue;
        }
        result.push_str(before);
        let Some((name, after)) = reference[2..].split_once('}') else {
            findings.error(
                place,
                "a reference begins with ${ and does not end",
                Some("write } behind its name, or $${ for a ${ that is no reference".to_owned()),
            );
            return (result, Origin::Unknown);
        };
        match value_of(name, lookup) {
            Ok(value) => {
                result.push_str(&value);
                if origin == Origin::Written {
                    origin = Origin::Resolved;
                }
            }
            Err(Unresolved::Malformed(message, hint)) => {
                findings.error(place, message, Some(hint));
                origin = Origin::Unknown;
            }
            Err(Unresolved::Missing(message, hint)) => {
                match mode {
                    Mode::Check => findings.warning(place, message, Some(hint)),
                    Mode::Run => findings.error(place, message, Some(hint)),
                }
                origin = Origin::Unknown;
            }
        }
        rest = after;
    }
    result.push_str(rest);
    (result, origin)
}

enum Unresolved {
    /// No reference at all: message and hint.
    Malformed(String, String),
    /// Nothing there, or nothing in it.
    Missing(String, String),
}

fn value_of(reference: &str, lookup: &dyn Lookup) -> Result<String, Unresolved> {
    let value = match reference.split_once(':') {
        None => variable(reference, lookup),
        Some(("file", path)) if !path.is_empty() => file(Path::new(path), lookup),
        Some(("credential", name)) if !name.is_empty() && !name.contains('/') && name != ".." && name != "." => {
            credential(name, lookup)
        }
        Some((kind @ ("file" | "credential"), _)) => Err(Unresolved::Malformed(
            format!("the reference ${{{kind}:…}} names nothing that can be read"),
            "write ${file:/run/secrets/name} or ${credential:name}".to_owned(),
        )),
        Some((kind, _)) => Err(Unresolved::Malformed(
            format!("there are no references of the kind {kind:?}"),
            match nearest(kind, ["file", "credential"]) {
                Some(meant) => format!("did you mean ${{{meant}:…}}?"),
                None => "write ${NAME}, ${file:/run/secrets/name} or ${credential:name}".to_owned(),
            },
        )),
    }?;
    if value.is_empty() {
        return Err(Unresolved::Missing(
            format!("${{{reference}}} is there, but empty"),
            "put the value in".to_owned(),
        ));
    }
    Ok(value)
}

fn variable(name: &str, lookup: &dyn Lookup) -> Result<String, Unresolved> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if !name.bytes().all(word) || name.bytes().next().is_none_or(|b| b.is_ascii_digit()) {
        return Err(Unresolved::Malformed(
            format!("${{{name}}} is no reference: variables have letters, digits and _"),
            "write ${NAME}, ${file:/run/secrets/name} or ${credential:name}, or $${ for a ${ that is no reference"
                .to_owned(),
        ));
    }
    lookup.variable(name).ok_or_else(|| {
        Unresolved::Missing(
            format!("the environment variable {name} is not set"),
            format!("set it, or read a file: ${{file:/run/secrets/{}}}", name.to_lowercase()),
        )
    })
}

fn file(path: &Path, lookup: &dyn Lookup) -> Result<String, Unresolved> {
    let text = lookup.file(path).map_err(|error| {
        Unresolved::Missing(
            format!("{} cannot be read: {error}", path.display()),
            "check that the file is there and that this user may read it".to_owned(),
        )
    })?;
    // Editors and `echo` end files with a newline that belongs to no password.
    let trimmed = text.strip_suffix('\n').unwrap_or(&text);
    Ok(trimmed.strip_suffix('\r').unwrap_or(trimmed).to_owned())
}

/// systemd puts `LoadCredential=` files into a directory of the service's own (systemd.exec(5), "Credentials").
fn credential(name: &str, lookup: &dyn Lookup) -> Result<String, Unresolved> {
    let Some(directory) = lookup.variable("CREDENTIALS_DIRECTORY") else {
        return Err(Unresolved::Missing(
            format!("the credential {name} cannot be read: CREDENTIALS_DIRECTORY is not set"),
            format!("write LoadCredential={name}:/path/of/the/secret into the systemd unit"),
        ));
    };
    file(&PathBuf::from(directory).join(name), lookup)
}
