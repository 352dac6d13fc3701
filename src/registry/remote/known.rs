//! What was found out of a registry: asked for here, and by its vendor, and kept by others.

use std::time::Duration;

use super::Registry;
use super::api::Api;
use crate::oci::{Digest, RepositoryName};
use crate::registry::{Fact, FactNews, Finding};

/// A manifest that is nowhere: whoever has the referrers API lists nothing of it.
const NOWHERE: &[u8] = b"transship asks whether there is a referrers API";

impl Registry {
    fn now(&self) -> Duration {
        self.shared.transport.clock().elapsed()
    }

    /// What is believed of it, or of one of its projects or repositories.
    pub(super) fn known(&self, fact: Fact, class: Option<&str>) -> Option<String> {
        self.shared.facts.get(fact, class, self.now())
    }

    pub(super) fn learn(&self, fact: Fact, class: Option<&str>, value: &str, evidence: &str, life: Duration) {
        let finding = Finding {
            fact,
            class: class.map(str::to_owned),
            value: value.to_owned(),
            evidence: evidence.to_owned(),
            left: life,
        };
        self.shared.facts.learn(finding, self.now());
    }

    /// What has changed in what is known of it since this was asked last.
    pub fn take_fact_news(&self) -> Vec<FactNews> {
        self.shared.facts.take_news(self.now())
    }

    /// Takes over all that is kept of it; what was and is no more is forgotten.
    pub fn assume_facts(&self, kept: Vec<Finding>) {
        self.shared.facts.assume(kept, self.now());
    }

    /// Finds out what is not known yet, by questions that leave nothing behind.
    pub async fn explore(&self, repository: &RepositoryName) {
        let refused = |error| tracing::debug!(registry = self.name(), "what it has is not known: {error}");
        if self.known(Fact::ReferrersApi, None).is_none()
            && let Err(error) = self.referrers_by_api(repository, &Digest::of(NOWHERE)).await
        {
            refused(error);
        }
        if self.shared.settings.lists_names_only {
            return;
        }
        if let Err(error) = self.shared.vendor.explore(&self.api(), repository).await {
            refused(error);
        }
    }
}

impl Api {
    /// What was found out of the registry, or of one of its projects or repositories (`class`), by this process or an earlier one,
    /// and is believed still.
    pub fn known(&self, fact: Fact, class: Option<&str>) -> Option<String> {
        self.registry().ok()?.known(fact, class)
    }

    /// Keeps what was found out for so long; later processes know it, too.
    pub fn learn(&self, fact: Fact, class: Option<&str>, value: &str, evidence: &str, life: Duration) {
        if let Ok(registry) = self.registry() {
            registry.learn(fact, class, value, evidence, life);
        }
    }

    /// Forgets what proved wrong.
    pub fn forget(&self, fact: Fact, class: Option<&str>) {
        if let Ok(registry) = self.registry() {
            registry.shared.facts.forget(fact, class);
        }
    }
}
