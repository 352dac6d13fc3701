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
    use crate::rules::{Destination, NameTemplate, RepositoryPattern, RepositoryRule, RuleName, TagFilter};

    /// A rule by what it reads: a pattern, what it leaves out, and `to` (empty for none of either); and where it writes.
    fn rule(source: &str, entries: &[[&str; 3]], destinations: &[[&str; 2]]) -> Rule {
        let template = |text: &str| (!text.is_empty()).then(|| NameTemplate::parse(text).expect("a template"));
        let pattern = |text: &str| RepositoryPattern::parse(text).expect("a pattern");
        let entries = entries.iter().map(|[matched, exclude, to]| RepositoryRule {
            pattern: pattern(matched),
            exclude: (!exclude.is_empty()).then(|| pattern(exclude)).into_iter().collect(),
            to: template(to),
            tags: None,
        });
        let destinations = destinations.iter().map(|[registry, to]| Destination {
            registry: RegistryName::new(*registry),
            to: template(to),
        });
        Rule {
            name: RuleName::new("r"),
            source: RegistryName::new(source),
            destinations: destinations.collect(),
            repositories: entries.collect(),
            tags: TagFilter::default(),
            schedule: None,
            moved_tags: Default::default(),
            on_conflict: Default::default(),
            trust_destination: std::time::Duration::ZERO,
            platforms: Default::default(),
            retry: Default::default(),
            priority: 0,
        }
    }

    fn names(texts: &BTreeSet<RepositoryName>) -> Vec<&str> {
        texts.iter().map(RepositoryName::as_str).collect()
    }

    #[test]
    fn patterns_are_tried_on_what_they_match_first_and_where_that_goes() {
        let rules = [
            rule(
                "a",
                &[["team/*", "team/a", "moved/{name}"], ["none/*", "", ""]],
                &[["b", ""], ["c", "x/{1}"]],
            ),
            rule("a", &[["one", "", ""], ["team/{b,d}", "", "two"]], &[["c", ""]]),
            rule("b", &[["big-*", "", ""], ["exact", "", ""]], &[["c", ""]]),
        ];
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
