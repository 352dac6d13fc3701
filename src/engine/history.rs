//! What is forgotten of earlier runs and of rules that were changed.

use std::time::Duration;

use super::facade::{Engine, EngineError};
use crate::rules::Rule;
use crate::store::Claimant;

/// Runs older than this are forgotten, except each rule's last.
pub(super) const HISTORY: Duration = Duration::from_secs(90 * 24 * 3600);

impl Engine {
    /// Forgets runs that ended long ago. That this fails costs disk space, nothing else.
    pub async fn forget_old_runs(&self) {
        match self.store().clean_runs(self.clock().now() - HISTORY).await {
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

    /// Ends claims on destination tags that a rule made for a source which it has no longer: they would be in the way of the new one.
    ///
    /// # Errors
    /// The state database fails.
    pub async fn end_old_claims(&self) -> Result<(), EngineError> {
        let claimants = self.store().claimants().await?;
        let rules = &self.config().rules;
        let is_over = |claimant: &Claimant| {
            let rule = rules.iter().find(|rule| rule.name.as_str() == claimant.rule);
            rule.is_some_and(|rule| !takes(rule, &claimant.source))
        };
        let over: Vec<Claimant> = claimants.into_iter().filter(is_over).collect();
        if over.is_empty() {
            return Ok(());
        }
        Ok(self.store().end_claims(&over).await?)
    }
}

/// True where the rule still takes images from this `registry/repository`. What cannot be read is nothing that it takes.
fn takes(rule: &Rule, source: &str) -> bool {
    let repository = source
        .strip_prefix(rule.source.as_str())
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|name| name.parse().ok());
    repository.is_some_and(|name| {
        rule.repositories.iter().any(|entry| {
            entry.pattern.captures(&name).is_some()
                && !entry.exclude.iter().any(|pattern| pattern.captures(&name).is_some())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Mode};

    #[test]
    fn a_rule_takes_what_its_source_and_patterns_say() {
        let text = "version: 1\nregistries: { a: { url: http://a }, ab: { url: http://ab }, c: { url: http://c } }\nrules:\n  \
                    - { name: r, source: a, destinations: [c], repositories: [one, { match: \"team/*\", exclude: [team/old] }] }\n";
        let files = [("rules.yaml".to_owned(), text.to_owned())];
        let loaded = config::parse(&files, &config::Environment, Mode::Run).expect("rules");
        let rule = &loaded.config.rules[0];
        for (source, expected) in [
            ("a/one", true),
            ("a/team/x", true),
            ("a/team/old", false),
            ("a/two", false),
            ("ab/one", false),
            ("b/one", false),
            ("a", false),
            ("a/", false),
            ("a/NO NAME", false),
        ] {
            assert_eq!(takes(rule, source), expected, "{source}");
        }
    }
}
