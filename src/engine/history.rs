//! What is forgotten of earlier runs and of rules that were changed.

use std::time::Duration;

use jiff::Timestamp;

use super::facade::{Engine, EngineError};
use crate::rules::Rule;
use crate::store::{Claimant, Store, StoreError};

/// Runs older than this are forgotten, except each rule's last.
const HISTORY: Duration = Duration::from_secs(90 * 24 * 3600);

/// Forgets runs that ended long ago, and what was not confirmed for as long; gives how many runs.
pub(super) async fn forget_old(store: &Store, now: Timestamp) -> Result<u64, StoreError> {
    let before = now - HISTORY;
    store.forget_unconfirmed(before, now).await?;
    store.clean_runs(before).await
}

impl Engine {
    /// Forgets runs that ended long ago, and what was not confirmed for as long. That this fails costs disk space, nothing else.
    pub async fn forget_old_runs(&self) {
        match forget_old(self.store(), self.clock().now()).await {
            Ok(0) => {}
            Ok(runs) => tracing::info!(runs, "old runs were cleaned from the state database"),
            Err(error) => tracing::warn!("old runs cannot be cleaned: {error}"),
        }
    }

    /// Ends the claims of rules that are no more, and forgets what of those is put aside or waits. For a process that has all rules.
    ///
    /// # Errors
    /// The state database fails.
    pub(super) async fn forget_other_rules(&self) -> Result<(), EngineError> {
        let rules: Vec<&str> = self.config().rules.iter().map(|rule| rule.name.as_str()).collect();
        Ok(self.store().keep_claims(&rules).await?)
    }

    /// Ends claims on destination tags that a rule made for a source, or at a place, which it has no longer: they would be in the way
    /// of others.
    ///
    /// # Errors
    /// The state database fails.
    pub async fn end_old_claims(&self) -> Result<(), EngineError> {
        let claimants = self.store().claimants().await?;
        let rules = &self.config().rules;
        let is_over = |claimant: &Claimant| {
            let rule = rules.iter().find(|rule| rule.name.as_str() == claimant.rule);
            rule.is_some_and(|rule| !brings(rule, claimant))
        };
        let over: Vec<Claimant> = claimants.into_iter().filter(is_over).collect();
        if over.is_empty() {
            return Ok(());
        }
        Ok(self.store().end_claims(&over).await?)
    }
}

/// True where the rule still brings images of that source to that place. What cannot be read is nothing that it brings.
fn brings(rule: &Rule, claimant: &Claimant) -> bool {
    let repository = claimant
        .source
        .strip_prefix(rule.source.as_str())
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|name| name.parse().ok());
    let Some(name) = repository else { return false };
    let destinations = || {
        rule.destinations
            .iter()
            .filter(|destination| destination.registry.as_str() == claimant.registry)
    };
    rule.repositories.iter().any(|entry| {
        let Some(captures) = entry.pattern.captures(&name) else {
            return false;
        };
        !entry.exclude.iter().any(|pattern| pattern.captures(&name).is_some())
            && destinations().any(|destination| match destination.to.as_ref().or(entry.to.as_ref()) {
                Some(template) => template
                    .expand(&name, &captures)
                    .is_ok_and(|there| there.as_str() == claimant.repository),
                None => name.as_str() == claimant.repository,
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Mode};

    #[test]
    fn a_rule_brings_what_its_source_patterns_and_names_say() {
        let text = "version: 1\nregistries: { a: { url: http://a }, ab: { url: http://ab }, c: { url: http://c } }\nrules:\n  \
                    - { name: r, source: a, destinations: [c, { registry: ab, to: \"x/{name}\" }], \
                    repositories: [one, { match: \"team/*\", exclude: [team/old], to: \"moved/{1}\" }] }\n";
        let files = [("rules.yaml".to_owned(), text.to_owned())];
        let loaded = config::parse(&files, &config::Environment, Mode::Run).expect("rules");
        let rule = &loaded.config.rules[0];
        for (source, registry, repository, expected) in [
            ("a/one", "c", "one", true),
            ("a/one", "c", "two", false),
            ("a/one", "ab", "x/one", true),
            ("a/one", "ab", "one", false),
            ("a/one", "d", "one", false),
            ("a/team/x", "c", "moved/x", true),
            ("a/team/x", "c", "team/x", false),
            ("a/team/old", "c", "moved/old", false),
            ("a/two", "c", "two", false),
            ("ab/one", "c", "one", false),
            ("b/one", "c", "one", false),
            ("a", "c", "a", false),
            ("a/", "c", "", false),
            ("a/NO NAME", "c", "NO NAME", false),
        ] {
            let claimant = Claimant {
                rule: "r".to_owned(),
                source: source.to_owned(),
                registry: registry.to_owned(),
                repository: repository.to_owned(),
            };
            assert_eq!(brings(rule, &claimant), expected, "{source} to {registry}/{repository}");
        }
    }
}
