//! What rules must not mean together: a copy onto itself, two sources for one destination.

use std::collections::HashMap;

use super::mistake::Place;
use super::registries::Registries;
use super::rule::ReadRule;
use super::shape::Findings;
use crate::oci::{RepositoryName, Tag};
use crate::registry::RegistrySettings;
use crate::rules::{Destination, NameTemplate, RegistryName, RepositoryPattern, RepositoryRule, Rule, TagFilter};

pub(super) fn check(findings: &mut Findings<'_>, rules: &[ReadRule], registries: &Registries) {
    for rule in rules {
        onto_itself(findings, rule, registries);
        never_used(findings, rule);
    }
    contested(findings, rules, registries);
}

/// Where a registry really is: two names may lead to one registry.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Home {
    Remote {
        host: String,
        path: String,
    },
    Layout(std::path::PathBuf),
    /// Told already why it is not known.
    Unknown(RegistryName),
}

fn home(registries: &Registries, name: &RegistryName) -> Home {
    match registries.get(name).and_then(Option::as_ref) {
        // A URL that `check` could not resolve says nothing about where it leads.
        Some(RegistrySettings::Remote(settings)) if settings.url.host == "unset.invalid" => Home::Unknown(name.clone()),
        Some(RegistrySettings::Remote(settings)) => Home::Remote {
            host: settings.url.host.clone(),
            path: settings.url.path.clone(),
        },
        Some(RegistrySettings::Layout { path }) => Home::Layout(path.clone()),
        None => Home::Unknown(name.clone()),
    }
}

fn template<'r>(destination: &'r Destination, entry: &'r RepositoryRule) -> Option<&'r NameTemplate> {
    destination.to.as_ref().or(entry.to.as_ref())
}

/// What `name`, which the entry matches, is called at the destination.
fn renamed(destination: &Destination, entry: &RepositoryRule, name: &RepositoryName) -> Option<RepositoryName> {
    let captures = entry.pattern.captures(name)?;
    match template(destination, entry) {
        None => Some(name.clone()),
        Some(to) => to.expand(name, &captures).ok(),
    }
}

/// A name that the pattern matches: itself where it is exact, else one with letters for the wildcards. `None` where the
/// pattern is too clever for that.
fn sample(pattern: &RepositoryPattern) -> Option<RepositoryName> {
    pattern.exact().or_else(|| {
        let text = pattern.to_string().replace("**", "x/y").replace(['*', '?'], "x");
        let name: RepositoryName = text.parse().ok()?;
        pattern.captures(&name).map(|_| name)
    })
}

fn onto_itself(findings: &mut Findings<'_>, read: &ReadRule, registries: &Registries) {
    let rule = &read.rule;
    let source = home(registries, &rule.source);
    for (destination, place) in rule.destinations.iter().zip(&read.destinations) {
        if home(registries, &destination.registry) != source {
            continue;
        }
        let own = rule.repositories.iter().find_map(|entry| {
            let name = sample(&entry.pattern)?;
            (renamed(destination, entry, &name)? == name).then_some(entry)
        });
        if let Some(entry) = own {
            let same = if destination.registry == rule.source {
                "is the source itself".to_owned()
            } else {
                format!("is the same registry as the source {:?}", rule.source.as_str())
            };
            findings.error(
                *place,
                format!(
                    "this destination {same}, and {:?} keeps its name there: it would be copied onto itself",
                    entry.pattern.to_string()
                ),
                Some("write another registry, or another name with to: \"mirror/{path}\"".to_owned()),
            );
        }
    }
}

/// The entry that a repository belongs to.
fn entry_of(rule: &Rule, name: &RepositoryName) -> Option<usize> {
    rule.repositories.iter().position(|entry| {
        entry.pattern.captures(name).is_some() && entry.exclude.iter().all(|not| not.captures(name).is_none())
    })
}

fn never_used(findings: &mut Findings<'_>, read: &ReadRule) {
    for (index, (entry, place)) in read.rule.repositories.iter().zip(&read.repositories).enumerate() {
        let same = read.rule.repositories[..index]
            .iter()
            .position(|earlier| earlier.pattern == entry.pattern && earlier.exclude.is_empty());
        let earlier = same.or_else(|| {
            let name = entry.pattern.exact()?;
            entry_of(&read.rule, &name).filter(|first| *first < index)
        });
        if let Some(earlier) = earlier {
            let at = findings.sources.locate(read.repositories[earlier]);
            findings.warning(
                *place,
                format!("the entry {:?} is never used", entry.pattern.to_string()),
                Some(format!(
                    "the entry at {at} matches first; put the narrower one before it"
                )),
            );
        }
    }
}

/// One source repository that a rule copies to one destination repository.
struct Claim<'r> {
    source: (Home, RepositoryName),
    tags: &'r TagFilter,
    rule: &'r Rule,
    place: Place,
}

/// Two exact names that end in one destination repository with tags that both have.
fn contested(findings: &mut Findings<'_>, rules: &[ReadRule], registries: &Registries) {
    let mut claims: HashMap<(Home, RepositoryName), Vec<Claim<'_>>> = HashMap::new();
    for read in rules {
        let rule = &read.rule;
        for (index, (entry, place)) in rule.repositories.iter().zip(&read.repositories).enumerate() {
            let Some(name) = entry.pattern.exact().filter(|name| entry_of(rule, name) == Some(index)) else {
                continue;
            };
            for destination in &rule.destinations {
                let Some(to) = renamed(destination, entry, &name) else {
                    continue;
                };
                let claim = Claim {
                    source: (home(registries, &rule.source), name.clone()),
                    tags: entry.tags.as_ref().unwrap_or(&rule.tags),
                    rule,
                    place: *place,
                };
                let others = claims
                    .entry((home(registries, &destination.registry), to.clone()))
                    .or_default();
                let rival = others
                    .iter()
                    .find(|other| other.source != claim.source && surely_overlap(other.tags, claim.tags));
                if let Some(rival) = rival {
                    let at = findings.sources.locate(rival.place);
                    findings.error(
                        claim.place,
                        format!(
                            "{:?} of {:?} and the entry at {at} (rule {:?}) write the same tags of {to} at {:?} from different sources",
                            name.as_str(),
                            rule.source.as_str(),
                            rival.rule.name.as_str(),
                            destination.registry.as_str(),
                        ),
                        Some("give one of them another name with to:, or other tags".to_owned()),
                    );
                }
                others.push(claim);
            }
        }
    }
}

/// True only where no source's tags could keep the two apart.
fn surely_overlap(a: &TagFilter, b: &TagFilter) -> bool {
    let by_name_only = |f: &TagFilter| f.semver.is_none() && f.newest.is_none();
    if !by_name_only(a) || !by_name_only(b) {
        return false;
    }
    if a.include.is_empty() && b.include.is_empty() {
        return a.exclude == b.exclude || a.exclude.is_empty() || b.exclude.is_empty();
    }
    let exact = |f: &TagFilter| -> Vec<Tag> {
        let tags = f.include.iter().filter_map(|pattern| pattern.to_string().parse().ok());
        tags.filter(|tag| !f.exclude.iter().any(|not| not.matches(tag)))
            .collect()
    };
    let of_b = exact(b);
    exact(a).iter().any(|tag| of_b.contains(tag))
}
