//! The only module that knows YAML: text to rules, with the place of every mistake.
//!
//! A file becomes a tree of nodes with places ([`tree`]), references are put in ([`references`]), the tree is compared
//! with the one table of keys ([`keys`], [`shape`]), and what is left is read into values ([`registries`], [`rule`]) and
//! checked for meaning across rules ([`meaning`]). Every step collects its mistakes and goes on.

mod azure;
mod clouds;
mod create;
mod duration;
mod files;
mod keys;
mod meaning;
mod mistake;
mod nearest;
mod nexus;
mod reach;
mod references;
mod registries;
mod rule;
mod schema;
mod secrets;
mod shape;
mod size;
mod spool;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use mistake::{Mistake, Severity, Sources, render};
pub use nearest::nearest;
pub use references::{Environment, Lookup};
pub use schema::json_schema;
pub use spool::SpoolSettings;

use crate::oci::Digest;
use crate::registry::{Limits, RegistrySettings};
use crate::rules::{RegistryName, Rule};
use keys::Kind;
use mistake::{Place, Problem};
use shape::Findings;
use tree::{Key, Node};

/// The most mistakes that are told at once.
const MAX_MISTAKES: usize = 200;

/// What the rules are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To look for mistakes: a reference that leads nowhere is a warning, so that `check` works without secrets.
    Check,
    /// To be used: a reference that leads nowhere is a mistake.
    Run,
}

/// The rules, ready for use.
#[derive(Clone, Debug)]
pub struct Config {
    /// All registries, used or not.
    pub registries: BTreeMap<RegistryName, RegistrySettings>,
    /// How hard all registries together are pressed.
    pub limits: Limits,
    /// All rules, in the order of the files.
    pub rules: Vec<Rule>,
    /// Where large blobs of slow sources are kept while they are copied, if anywhere.
    pub spool: Option<SpoolSettings>,
    /// Names of the files, in the order of reading.
    pub files: Vec<String>,
    /// Changes with any byte of the files; secrets that references lead to are not part of it.
    pub content: Digest,
}

/// Rules without mistakes, and what to say of them nevertheless.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The rules.
    pub config: Config,
    /// In the order of the files.
    pub warnings: Vec<Mistake>,
    /// For [`render`].
    pub sources: Sources,
}

/// Why there are no rules.
#[derive(Debug)]
pub enum LoadFailure {
    /// A file or directory cannot be read.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The rules are wrong.
    Wrong {
        /// Errors and warnings in the order of the files; at least one error.
        mistakes: Vec<Mistake>,
        /// For [`render`].
        sources: Sources,
    },
}

impl fmt::Display for LoadFailure {
    /// One line without the mistakes themselves; [`render`] shows those.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, .. } => write!(f, "rules at {} cannot be read", path.display()),
            Self::Wrong { mistakes, .. } => {
                let errors = mistakes.iter().filter(|m| m.severity == Severity::Error).count();
                match errors {
                    1 => f.write_str("the rules have 1 mistake"),
                    errors => write!(f, "the rules have {errors} mistakes"),
                }
            }
        }
    }
}

impl std::error::Error for LoadFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Wrong { .. } => None,
        }
    }
}

/// Reads the rules at `path`, a file or a directory of `*.yaml` and `*.yml` files.
///
/// # Errors
/// Files that cannot be read or are larger than 1 MiB, and every mistake in the others.
pub fn load(path: &Path, lookup: &dyn Lookup, mode: Mode) -> Result<Loaded, LoadFailure> {
    parse(&read(path)?, lookup, mode)
}

/// The digest that [`Config::content`] would have, without reading the rules for meaning: for noticing a change.
///
/// # Errors
/// Files that cannot be read or are larger than 1 MiB.
pub fn content(path: &Path) -> Result<Digest, LoadFailure> {
    read(path).map(|files| files::digest(&files))
}

fn read(path: &Path) -> Result<Vec<(String, String)>, LoadFailure> {
    let unreadable = |path: &Path, source| LoadFailure::Unreadable {
        path: path.to_owned(),
        source,
    };
    let paths = files::list(path).map_err(|e| unreadable(path, e))?;
    let read = |path: &PathBuf| match files::read_text(path, files::MAX_FILE) {
        Ok(text) => Ok((path.display().to_string(), text)),
        Err(error) => Err(unreadable(path, error)),
    };
    paths.iter().map(read).collect()
}

/// Reads rules from texts, each with the name of its file: registries and rules of all files add up.
///
/// # Errors
/// Every mistake in them; where a text is no YAML, only the first of that text.
pub fn parse(files: &[(String, String)], lookup: &dyn Lookup, mode: Mode) -> Result<Loaded, LoadFailure> {
    let mut sources = Sources::new(files);
    let mut problems = Vec::new();
    let mut roots = Vec::new();
    for (index, (_, text)) in files.iter().enumerate() {
        match tree::read(index, text) {
            Ok(root) if matches!(root.value, tree::Value::Empty) => problems.push(Problem {
                place: root.place,
                message: "this file is empty".to_owned(),
                hint: Some("write version: 1, registries: and rules:, as in rules.example.yaml".to_owned()),
                severity: Severity::Error,
            }),
            Ok(mut root) => {
                secrets::hide(&mut sources, text, &mut root);
                roots.push(root);
            }
            Err(problem) => {
                secrets::hide_lines(&mut sources, index, text);
                problems.push(problem);
            }
        }
    }
    let mut findings = Findings::new(&sources);
    let complete = problems.is_empty();
    findings.problems = problems;
    for root in &mut roots {
        references::resolve(&mut findings, root, lookup, mode);
        shape::check(&mut findings, None, root, &Kind::Map(&keys::FILE));
    }
    // A text that cannot be read may hold what the others name: nothing can be said of their meaning.
    let (registries, rules) = if complete {
        whole(&mut findings, &roots)
    } else {
        (BTreeMap::new(), Vec::new())
    };
    let spool = spool::read(&mut findings, &roots);

    let limits = in_one_file(&mut findings, &roots, "limits");
    let limits = limits.map(registries::limits).unwrap_or_default();

    let problems = std::mem::take(&mut findings.problems);
    let mistakes = finish(problems, &sources);
    if mistakes.iter().any(|m| m.severity == Severity::Error) {
        return Err(LoadFailure::Wrong { mistakes, sources });
    }
    Ok(Loaded {
        config: Config {
            registries,
            limits,
            rules,
            spool,
            files: files.iter().map(|(name, _)| name.clone()).collect(),
            content: files::digest(files),
        },
        warnings: mistakes,
        sources,
    })
}

/// What the files say together.
fn whole(findings: &mut Findings<'_>, roots: &[Node]) -> (BTreeMap<RegistryName, RegistrySettings>, Vec<Rule>) {
    let under = |key: &'static str| roots.iter().filter_map(move |root| root.entry(key));

    let entries: Vec<(&Key, &Node)> = under("registries").flat_map(|(_, node)| node.entries()).collect();
    across_files(
        findings,
        entries.iter().map(|(key, _)| (key.text.as_str(), key.place)),
        "registry",
    );
    let registries = registries::read_all(findings, &entries);
    reach::check_mirrors(findings, &entries, &registries);
    azure::check_credentials(findings, &entries, &registries);

    let defaults = in_one_file(findings, roots, "defaults");

    let nodes: Vec<&Node> = under("rules").flat_map(|(_, node)| node.items()).collect();
    let names = nodes.iter().filter_map(|node| {
        let name = node.get("name")?;
        Some((name.text()?, name.place))
    });
    same_names(findings, names.collect::<Vec<_>>(), "rule");
    if nodes.is_empty() && findings.problems.iter().all(|p| p.severity == Severity::Warning) {
        let place = roots.first().map_or(NOWHERE, |root| {
            root.entries().next().map_or(root.place, |(k, _)| k.place)
        });
        findings.warning(
            place,
            "there is no rule here",
            Some("add rules: with a name, a source, destinations and repositories".to_owned()),
        );
    }
    let read = rule::read_all(findings, &nodes, defaults, &registries);
    meaning::check(findings, &read, &registries);
    // A mistake in a rule may hide the registry that it means.
    if findings.problems.iter().all(|p| p.severity == Severity::Warning) {
        unused(findings, &entries, &nodes);
    }

    let registries = registries
        .into_iter()
        .filter_map(|(name, settings)| Some((name, settings?)))
        .collect();
    (registries, read.into_iter().map(|read| read.rule).collect())
}

/// The value of a key that may stand in one file only.
fn in_one_file<'n>(findings: &mut Findings<'_>, roots: &'n [Node], name: &str) -> Option<&'n Node> {
    let mut found: Option<(&Key, &Node)> = None;
    for (key, node) in roots.iter().filter_map(|root| root.entry(name)) {
        if let Some((first, _)) = found {
            let at = findings.sources.locate(first.place);
            let hint = format!("the other one stands at {at}; keep {name} in one file");
            findings.error(key.place, format!("{name} is written in two files"), Some(hint));
        } else {
            found = Some((key, node));
        }
    }
    found.map(|(_, node)| node)
}

const NOWHERE: Place = Place {
    file: 0,
    start: 0,
    end: 0,
};

/// Names that stand in two files; twice in one file is told where its keys are read.
fn across_files<'a>(findings: &mut Findings<'_>, names: impl Iterator<Item = (&'a str, Place)>, what: &str) {
    let mut first: HashMap<&str, Place> = HashMap::new();
    for (name, place) in names {
        let seen = *first.entry(name).or_insert(place);
        if seen.file != place.file {
            twice(findings, name, what, seen, place);
        }
    }
}

fn same_names(findings: &mut Findings<'_>, names: Vec<(&str, Place)>, what: &str) {
    let mut first: HashMap<&str, Place> = HashMap::new();
    for (name, place) in names {
        let seen = *first.entry(name).or_insert(place);
        if seen != place {
            twice(findings, name, what, seen, place);
        }
    }
}

fn twice(findings: &mut Findings<'_>, name: &str, what: &str, first: Place, second: Place) {
    let hint = format!("the other one stands at {}", findings.sources.locate(first));
    findings.error(second, format!("two {} are named {name:?}", plural(what)), Some(hint));
}

fn plural(what: &str) -> &'static str {
    if what == "rule" { "rules" } else { "registries" }
}

fn unused(findings: &mut Findings<'_>, registries: &[(&Key, &Node)], rules: &[&Node]) {
    let mut used: BTreeSet<&str> = reach::named_mirrors(registries).into_iter().collect();
    for rule in rules {
        used.extend(rule.get("source").and_then(Node::text));
        for destination in rule.get("destinations").map(Node::items).unwrap_or_default() {
            used.extend(
                destination
                    .text()
                    .or_else(|| destination.get("registry").and_then(Node::text)),
            );
        }
    }
    // Without rules there is nothing to compare with.
    for (key, _) in registries.iter().filter(|_| !rules.is_empty()) {
        if !used.contains(key.text.as_str()) {
            let message = format!("no rule uses the registry {:?}", key.text);
            findings.warning(key.place, message, None);
        }
    }
}

/// In the order of the files, each once, not more than people can read.
fn finish(mut problems: Vec<Problem>, sources: &Sources) -> Vec<Mistake> {
    problems.sort_by_key(|p| (p.place.file, p.place.start, p.place.end));
    // What stands under defaults is read once for each rule.
    let mut told = BTreeSet::new();
    problems.retain(|p| told.insert((p.place.file, p.place.start, p.message.clone())));
    if problems.len() > MAX_MISTAKES {
        let more = problems.len() - MAX_MISTAKES;
        // Errors are kept before warnings, so that rules with a mistake never look right.
        problems.sort_by_key(|p| p.severity == Severity::Warning);
        problems.truncate(MAX_MISTAKES);
        if let Some(last) = problems.last_mut() {
            let hint = last.hint.take().map(|hint| hint + "; ").unwrap_or_default();
            last.hint = Some(format!("{hint}and {more} more mistakes after this one"));
        }
    }
    problems.into_iter().map(|problem| sources.mistake(problem)).collect()
}
