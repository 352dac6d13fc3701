//! What is not done at once: failures that are put aside, images that wait for a quota or for the end of a pause.

mod mended;
mod parking;
mod pauses;
mod quota;
mod refusals;

use transship::demo::images::SampleImage;

use crate::support::engine::Workshop;
use crate::support::ours::{Ours, repository, tag};

/// Two registries, and rules with one rule `web` for the repository `app/web`.
struct Scene {
    ours: Ours,
    workshop: Workshop,
}

impl std::ops::Deref for Scene {
    type Target = Ours;

    fn deref(&self) -> &Ours {
        &self.ours
    }
}

impl Scene {
    async fn new() -> Self {
        let mut scene = Self {
            ours: Ours::start().await,
            workshop: Workshop::new(""),
        };
        scene.workshop.set_rules(&scene.rules(""));
        scene
    }

    /// The rules; `more` is added to the one rule.
    fn rules(&self, more: &str) -> String {
        format!(
            "version: 1\nregistries:\n  from: {{ url: \"{}\" }}\n  to: {{ url: \"{}\" }}\nrules:\n  - name: web\n    source: from\n    \
             destinations: [to]\n    repositories: [app/web]\n    retry: {{ attempts: 2, max_delay: 1s }}\n{more}",
            self.src.url(),
            self.dst.url()
        )
    }

    fn seed(&self, name: &str, seed: u64) -> SampleImage {
        self.seed_layers(name, seed, 2_000)
    }
}
