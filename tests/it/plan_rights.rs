//! On which repositories rights are tried, for rules as they are written.

use std::collections::BTreeSet;

use transship::config::{self, Mode};
use transship::oci::RepositoryName;
use transship::plan::repositories_to_try;
use transship::rules::{RegistryName, Rule};

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
