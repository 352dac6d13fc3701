//! Repositories that rights are tried on: real ones, as rules often have nothing but patterns.

use std::collections::{BTreeMap, BTreeSet};

use crate::oci::RepositoryName;
use crate::rules::{RegistryName, Rule};

/// What the rules do in one registry, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriedRepositories {
    /// Those that rules read: the named ones, and the first that each pattern matches.
    pub read: BTreeSet<RepositoryName>,
    /// Those that rules write: where the former go.
    pub written: BTreeSet<RepositoryName>,
    /// Why rules that read here add nothing to `read`, in words.
    pub none_read: BTreeSet<String>,
    /// Why rules that write here add nothing to `written`, in words.
    pub none_written: BTreeSet<String>,
}

/// Rights on what is tried, by registry. `catalogues`: repositories of the sources, in their order; none of those that were not
/// listed.
pub fn repositories_to_try(
    rules: &[Rule],
    catalogues: &BTreeMap<RegistryName, Vec<RepositoryName>>,
) -> BTreeMap<RegistryName, TriedRepositories> {
    let mut tried: BTreeMap<RegistryName, TriedRepositories> = BTreeMap::new();
    for rule in rules {
        let catalogue = catalogues.get(&rule.source);
        let missing = missing(rule, catalogue.map(Vec::as_slice));
        let matched = rule.first_matches(catalogue.map_or(&[], Vec::as_slice));
        let source = tried.entry(rule.source.clone()).or_default();
        source.read.extend(matched.iter().map(|matched| matched.name.clone()));
        source.none_read.extend(missing.iter().cloned());
        for destination in &rule.destinations {
            let there = tried.entry(destination.registry.clone()).or_default();
            there.none_written.extend(missing.iter().cloned());
            for matched in &matched {
                match matched.name_at(destination) {
                    Ok(name) => {
                        there.written.insert(name);
                    }
                    Err(error) => {
                        let why = format!("`to` makes no repository name of {}: {error}", matched.name);
                        there.none_written.insert(why);
                    }
                }
            }
        }
    }
    tried
}

/// Patterns of a rule that no repository is known for.
fn missing(rule: &Rule, catalogue: Option<&[RepositoryName]>) -> Vec<String> {
    let source = &rule.source;
    let globs = rule.repositories.iter().map(|entry| &entry.pattern);
    let globs = globs.filter(|pattern| pattern.exact().is_none());
    let words = globs.filter_map(|pattern| match catalogue {
        None => Some(format!(
            "what {pattern} matches is not known without a list of the repositories of {source}"
        )),
        Some(listed) if !listed.iter().any(|name| pattern.matches(name)) => Some(format!(
            "{pattern} matches none of the {} repositories of {source}",
            listed.len()
        )),
        Some(_) => None,
    });
    words.collect()
}
