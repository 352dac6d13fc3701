//! What is copied: images of noise, the same bytes at every run.

use bytes::Bytes;
use serde_json::json;
use transship::demo::images::noise;
use transship::oci::{Algorithm, Digest, Hasher};

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub const MIB: u64 = 1024 * 1024;

/// The header of a gzip member (RFC 1952) with nothing said. Layers begin with it, since skopeo compresses those that do not look compressed, which
/// would make another image of them.
const GZIP: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Bytes that are made again whenever they are needed.
#[derive(Clone, Debug)]
pub struct Blob {
    pub digest: String,
    pub size: u64,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Given(Bytes),
    Noise(u64),
}

/// A manifest and what it names.
#[derive(Clone, Debug)]
pub struct Image {
    pub manifest: Bytes,
    pub digest: String,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

/// Repositories, each with its tags.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    pub repositories: Vec<(String, Vec<(String, Image)>)>,
}

impl Blob {
    fn given(bytes: Bytes) -> Self {
        Self {
            digest: Digest::of(&bytes).to_string(),
            size: bytes.len() as u64,
            source: Source::Given(bytes),
        }
    }

    /// Noise of this size that looks like a compressed layer.
    pub fn layer(seed: u64, size: u64) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        blocks(seed, size).for_each(|block| hasher.update(&block));
        Self {
            digest: hasher.finish().to_string(),
            size,
            source: Source::Noise(seed),
        }
    }

    /// The bytes, in pieces.
    pub fn blocks(&self) -> Box<dyn Iterator<Item = Bytes> + Send + Sync> {
        match &self.source {
            Source::Given(bytes) => Box::new(std::iter::once(bytes.clone())),
            Source::Noise(seed) => Box::new(blocks(*seed, self.size)),
        }
    }
}

/// A mebibyte of noise again and again, each time with another number in it.
fn blocks(seed: u64, size: u64) -> impl Iterator<Item = Bytes> + Send + Sync {
    let block = noise(seed, usize::try_from(size.min(MIB)).unwrap_or(usize::MAX));
    (0..size.div_ceil(MIB)).map(move |number| {
        let mut bytes = block.to_vec();
        bytes.truncate(usize::try_from(size - number * MIB).unwrap_or(usize::MAX));
        let mark: Vec<u8> = match number {
            0 => GZIP.to_vec(),
            _ => number.to_le_bytes().to_vec(),
        };
        bytes.iter_mut().zip(mark).for_each(|(byte, mark)| *byte = mark);
        Bytes::from(bytes)
    })
}

impl Image {
    /// An image for linux/amd64. Images with the same layers differ by `mark`.
    pub fn new(layers: Vec<Blob>, mark: &str) -> Self {
        let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "author": mark, "config": {},
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        Self::with_config(Blob::given(Bytes::from(config.to_string())), layers, mark)
    }

    /// An image with a config that others have too; only the annotation differs.
    pub fn with_config(config: Blob, layers: Vec<Blob>, mark: &str) -> Self {
        let describe = |kind: &str, blob: &Blob| json!({ "mediaType": kind, "digest": blob.digest, "size": blob.size });
        let entries: Vec<_> = layers.iter().map(|layer| describe(LAYER_TYPE, layer)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": describe(CONFIG_TYPE, &config),
            "layers": entries,
            "annotations": { "org.opencontainers.image.title": mark },
        });
        let manifest = Bytes::from(manifest.to_string());
        Self {
            digest: Digest::of(&manifest).to_string(),
            manifest,
            config,
            layers,
        }
    }

    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

impl Corpus {
    /// One image of one layer, `app:v1`.
    pub fn single(size: u64) -> Self {
        let image = Image::new(vec![Blob::layer(7, size)], "one layer");
        Self {
            repositories: vec![("app".to_owned(), vec![("v1".to_owned(), image)])],
        }
    }

    /// Repositories of images with five layers each: one layer that all have, three that those of a repository
    /// share, one of its own.
    pub fn shared(repositories: u64, tags: u64, layer_size: u64) -> Self {
        let all = Blob::layer(1000, layer_size);
        let make = |repository: u64| {
            let mut common = vec![all.clone()];
            common.extend((0..3).map(|layer| Blob::layer(2000 + repository * 10 + layer, layer_size)));
            let images = (0..tags).map(|tag| {
                let mut layers = common.clone();
                layers.push(Blob::layer(100_000 + repository * 1000 + tag, layer_size));
                let mark = format!("image {repository}.{tag}");
                (format!("v{tag}"), Image::new(layers, &mark))
            });
            (format!("app-{repository:02}"), images.collect())
        };
        Self {
            repositories: (0..repositories).map(make).collect(),
        }
    }

    /// One repository of many tags, each with a manifest of its own; config and layer are shared.
    pub fn many_tags(tags: u64) -> Self {
        let first = Image::new(vec![Blob::layer(3, 1000)], "many tags");
        let images = (0..tags).map(|tag| {
            let mark = format!("tag {tag}");
            let image = Image::with_config(first.config.clone(), first.layers.clone(), &mark);
            (format!("v{tag:05}"), image)
        });
        Self {
            repositories: vec![("app".to_owned(), images.collect())],
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.repositories.iter().map(|(name, _)| name.clone()).collect()
    }

    pub fn tags(&self) -> usize {
        self.repositories.iter().map(|(_, images)| images.len()).sum()
    }

    /// Bytes of all blobs, each counted once.
    pub fn bytes(&self) -> u64 {
        let images = self.repositories.iter().flat_map(|(_, images)| images);
        let blobs = images.flat_map(|(_, image)| image.blobs());
        let sizes: std::collections::BTreeMap<&str, u64> =
            blobs.map(|blob| (blob.digest.as_str(), blob.size)).collect();
        sizes.values().sum()
    }

    /// The first image.
    pub fn first(&self) -> Option<(&str, &str, &Image)> {
        let (name, images) = self.repositories.first()?;
        let (tag, image) = images.first()?;
        Some((name, tag, image))
    }
}
