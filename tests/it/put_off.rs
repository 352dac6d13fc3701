//! What is not done at once: failures that are put aside, images that wait for a quota or for the end of a pause.

mod mended;
mod parking;
mod pauses;
mod quota;

use transship::demo::images::{SampleImage, two_platforms};
use transship::demo::registry::{Options, Registry, Running};
use transship::oci::{Digest, RepositoryName, Tag};

use crate::support::engine::Workshop;
use crate::support::proxy::Proxy;

/// Two registries behind proxies, and rules with one rule `web` for the repository `app/web`.
struct Scene {
    source: Running,
    destination: Running,
    src: Proxy,
    dst: Proxy,
    workshop: Workshop,
}

fn repository() -> RepositoryName {
    "app/web".parse().expect("a name")
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

impl Scene {
    async fn new() -> Self {
        let start = || async { Registry::start(Options::default()).await.expect("a registry") };
        let (source, destination) = (start().await, start().await);
        let (src, dst) = (
            Proxy::start(&source.url()).await,
            Proxy::start(&destination.url()).await,
        );
        let mut scene = Self {
            source,
            destination,
            src,
            dst,
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
        let image = two_platforms(seed, &[2_000]);
        self.source.seed(&repository(), &tag(name), &image);
        image
    }

    /// What the destination's tag points to.
    fn copied(&self, name: &str) -> Option<Digest> {
        self.destination.resolve(&repository(), &tag(name))
    }
}
