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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Mode};

    fn rules(text: &str) -> Vec<Rule> {
        let text = format!(
            "version: 1\nregistries: {{ a: {{ url: http://a }}, b: {{ url: http://b }}, c: {{ url: http://c }} }}\nrules:\n{text}"
        );
        let files = [("rules.yaml".to_owned(), text)];
        let loaded = config::parse(&files, &config::Environment, Mode::Run).expect("rules");
        loaded.config.rules
    }

    fn names(texts: &BTreeSet<RepositoryName>) -> Vec<&str> {
        texts.iter().map(RepositoryName::as_str).collect()
    }

    #[test]
    fn patterns_are_tried_on_what_they_match_first_and_where_that_goes() {
        let rules = rules(
            "  - { name: r, source: a, destinations: [b, { registry: c, to: \"x/{1}\" }], repositories: \
             [{ match: \"team/*\", exclude: [team/a], to: \"moved/{name}\" }, { match: \"none/*\" }] }\n  \
             - { name: s, source: a, destinations: [c], repositories: [one, { match: \"team/{b,d}\", to: two }] }\n  \
             - { name: t, source: b, destinations: [c], repositories: [\"big-*\", exact] }\n",
        );
        let listed = ["zoo", "team/a", "team/c", "team/b"].map(|name| name.parse().expect("a name"));
        let catalogues = [(RegistryName::new("a"), listed.to_vec())].into();
        let tried = repositories_to_try(&rules, &catalogues);
        let of = |name: &str| &tried[&RegistryName::new(name)];
        assert_eq!(names(&of("a").read), ["one", "team/b", "team/c"]);
        assert_eq!(names(&of("b").written), ["moved/c"]);
        assert_eq!(names(&of("c").written), ["exact", "one", "two", "x/c"]);
        let none = "none/* matches none of the 4 repositories of a".to_owned();
        let unknown = "what big-* matches is not known without a list of the repositories of b".to_owned();
        assert_eq!(of("a").none_read, [none.clone()].into());
        assert_eq!(
            (names(&of("b").read), &of("b").none_read),
            (vec!["exact"], &[unknown.clone()].into())
        );
        assert_eq!(of("c").none_written, [none, unknown].into());
    }
}
