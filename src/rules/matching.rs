//! Which repositories of its source a rule matches, and what they are called at its destinations.

use std::collections::BTreeSet;

use super::rule::{Destination, RepositoryRule, Rule};
use crate::oci::{InvalidName, RepositoryName};

/// A source repository that a rule matches.
#[derive(Clone, Debug)]
pub struct MatchedRepository {
    /// The repository.
    pub name: RepositoryName,
    /// True when the rule names it exactly.
    pub named: bool,
    /// The entry of `repositories:` that matched.
    pub entry: RepositoryRule,
    /// What the entry's wildcards matched.
    pub captures: Vec<String>,
}

impl MatchedRepository {
    /// Its name at a destination of the rule.
    ///
    /// # Errors
    /// A `to` that makes no repository name of it.
    pub fn name_at(&self, destination: &Destination) -> Result<RepositoryName, InvalidName> {
        match destination.to.as_ref().or(self.entry.to.as_ref()) {
            Some(template) => template.expand(&self.name, &self.captures),
            None => Ok(self.name.clone()),
        }
    }
}

impl RepositoryRule {
    /// What it matches: the repository that it names, or those of `catalogue`, in its order.
    fn matches<'r>(&'r self, catalogue: &'r [RepositoryName]) -> impl Iterator<Item = MatchedRepository> + 'r {
        let exact = self.pattern.exact();
        let named = exact.is_some();
        let listed = if named { &[] } else { catalogue };
        let names = exact.into_iter().chain(listed.iter().cloned());
        names.filter_map(move |name| {
            let captures = self.pattern.captures(&name)?;
            let excluded = self.exclude.iter().any(|pattern| pattern.matches(&name));
            (!excluded).then(|| MatchedRepository {
                name,
                named,
                entry: self.clone(),
                captures,
            })
        })
    }
}

impl Rule {
    /// What the rule matches, by its entries in their order: the repositories that they name, and those of `catalogue`, in its
    /// order. Each repository once, by the first entry that has it.
    pub fn matches(&self, catalogue: &[RepositoryName]) -> Vec<MatchedRepository> {
        let mut seen = BTreeSet::new();
        let all = self.repositories.iter().flat_map(|entry| entry.matches(catalogue));
        all.filter(|matched| seen.insert(matched.name.clone())).collect()
    }

    /// As [`Rule::matches`], the first repository of each entry alone.
    pub fn first_matches(&self, catalogue: &[RepositoryName]) -> Vec<MatchedRepository> {
        let mut seen = BTreeSet::new();
        let mut first = Vec::new();
        for entry in &self.repositories {
            let mut found = false;
            for matched in entry.matches(catalogue) {
                if seen.insert(matched.name.clone()) && !std::mem::replace(&mut found, true) {
                    first.push(matched);
                }
            }
        }
        first
    }
}
