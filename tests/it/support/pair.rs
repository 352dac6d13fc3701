//! Two `docker-registry` processes, a proxy in front of each: what most tests of rules need.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use transship::demo::images::SampleImage;
use transship::oci::{Digest, media_type};

use super::compare::{Reader, Side, assert_same_images};
use super::docker_registry::DockerRegistry;
use super::images::{manifest, noise};
use super::proxy::Proxy;
use super::wire::Wire;

/// A source named `src` and a destination named `dst` in rules; the program sees both through the proxies.
pub struct Pair {
    pub source: DockerRegistry,
    pub destination: DockerRegistry,
    pub src: Proxy,
    pub dst: Proxy,
}

impl Pair {
    pub async fn start() -> Self {
        let (source, destination) = tokio::join!(DockerRegistry::plain(), DockerRegistry::plain());
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

    /// A rules file with both registries; `more` is what follows them.
    pub fn rules(&self, more: &str) -> String {
        self.rules_with(&[], more)
    }

    /// As [`Pair::rules`], with further registries by name and URL.
    pub fn rules_with(&self, others: &[(&str, &str)], more: &str) -> String {
        let mut text = format!(
            "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n  dst: {{ url: \"{}\" }}\n",
            self.src.url(),
            self.dst.url()
        );
        for (name, url) in others {
            text.push_str(&format!("  {name}: {{ url: \"{url}\" }}\n"));
        }
        format!("{text}{more}")
    }

    /// Straight to the source, past the proxy.
    pub fn at_source(&self) -> Wire {
        Wire::new(&self.source.url())
    }

    /// Straight to the destination, past the proxy.
    pub fn at_destination(&self) -> Wire {
        Wire::new(&self.destination.url())
    }

    /// Reads back at both registries, past the proxies: the same images under the same tags.
    pub async fn assert_same(&self, repository: &str, to: &str, tags: &[&str]) {
        let src = Side::new(self.source.host(), repository);
        let dst = Side::new(self.destination.host(), to);
        assert_same_images(&src, &dst, tags, Reader::OciClient).await;
    }

    /// What the proxies counted, in the form of the report's `requests`.
    pub fn counted(&self) -> Value {
        json!({ "src": counted(&self.src), "dst": counted(&self.dst) })
    }

    /// Forgets what passed.
    pub fn reset(&self) {
        self.src.reset();
        self.dst.reset();
    }

    /// No request has changed anything at the destination.
    #[track_caller]
    pub fn assert_no_write(&self) {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert_eq!(self.dst.count(method, ""), 0, "{method}: {:?}", self.dst.exchanges());
            assert_eq!(self.src.count(method, ""), 0, "{method}: {:?}", self.src.exchanges());
        }
    }
}

/// Requests by method.
pub fn counted(proxy: &Proxy) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for exchange in proxy.exchanges() {
        *counts.entry(exchange.method.to_string()).or_insert(0) += 1;
    }
    counts
}

/// Repositories with the same tags whose images share layers: five layers each, of which every image has one, every
/// image of the repository three, and one is its own.
pub struct Fleet {
    pub repositories: Vec<(String, Vec<(String, SampleImage)>)>,
}

impl Fleet {
    pub fn new(repositories: u64, tags: u64, layer: usize) -> Self {
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        let repositories = (0..repositories).map(|repository| {
            let tags = (0..tags).map(|tag| {
                let own = 100_000 + repository * 1000 + tag;
                let of_repository = (0..3).map(|number| noise(10_000 + repository * 10 + number, layer));
                let layers: Vec<(&str, Bytes)> = std::iter::once(noise(7, layer))
                    .chain(of_repository)
                    .chain(std::iter::once(noise(own, layer)))
                    .map(|bytes| (kind, bytes))
                    .collect();
                let config = json!({ "architecture": "amd64", "os": "linux", "config": { "User": own.to_string() } });
                let config = Bytes::from(config.to_string());
                let described = json!({ "mediaType": media_type::OCI_CONFIG });
                (format!("v{tag}"), manifest(&described, &config, &layers, json!({})))
            });
            (format!("fleet/app-{repository:02}"), tags.collect())
        });
        Self {
            repositories: repositories.collect(),
        }
    }

    /// Pushes everything, the repositories side by side.
    pub async fn push(&self, wire: &Wire) {
        let each = self.repositories.iter().map(|(name, tags)| async move {
            for (tag, image) in tags {
                wire.push(name, tag, image).await;
            }
        });
        join_all(each).await;
    }

    /// The distinct blobs with their sizes.
    pub fn blobs(&self) -> BTreeMap<Digest, u64> {
        let images = self.repositories.iter().flat_map(|(_, tags)| tags);
        let blobs = images.flat_map(|(_, image)| &image.blobs);
        blobs.map(|blob| (Digest::of(blob), blob.len() as u64)).collect()
    }
}
