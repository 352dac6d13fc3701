//! Two registries of our own behind proxies, and the repository that most tests of the daemon and of waiting copy.

use transship::demo::images::{SampleImage, two_platforms};
use transship::demo::registry::{Options, Registry, Running};
use transship::oci::{Digest, RepositoryName, Tag};

use super::proxy::Proxy;

/// A source and a destination in memory, each with a proxy before it.
pub struct Ours {
    pub source: Running,
    pub destination: Running,
    pub src: Proxy,
    pub dst: Proxy,
}

/// The one repository, at both sides.
pub fn repository() -> RepositoryName {
    "app/web".parse().expect("a name")
}

pub fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

impl Ours {
    pub async fn start() -> Self {
        let start = || async { Registry::start(Options::default()).await.expect("a registry") };
        let (source, destination) = (start().await, start().await);
        let (src, dst) = (
            Proxy::start(&source.url()).await,
            Proxy::start(&destination.url()).await,
        );
        Self {
            source,
            destination,
            src,
            dst,
        }
    }

    /// Puts an index of two images, each with one layer of so many bytes, under a tag of the source.
    pub fn seed_layers(&self, name: &str, seed: u64, layer: usize) -> SampleImage {
        let image = two_platforms(seed, &[layer]);
        self.source.seed(&repository(), &tag(name), &image);
        image
    }

    /// What the destination's tag points to.
    pub fn copied(&self, name: &str) -> Option<Digest> {
        self.destination.resolve(&repository(), &tag(name))
    }
}
