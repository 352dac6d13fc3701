//! Small sample images, the same bytes at every run.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::oci::{AttachmentKind, AttachmentTag, Digest, Tag, media_type};

const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const COSIGN_LAYER: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// A manifest with everything that a registry needs before it takes it.
#[derive(Clone, Debug)]
pub struct SampleImage {
    /// The manifest's bytes.
    pub manifest: Bytes,
    /// The media type to push it with.
    pub media_type: &'static str,
    /// Config and layers, in the manifest's order.
    pub blobs: Vec<Bytes>,
    /// The manifests that an index lists.
    pub children: Vec<SampleImage>,
}

impl SampleImage {
    fn new(manifest: &Value, media_type: &'static str, blobs: Vec<Bytes>) -> Self {
        Self {
            manifest: Bytes::from(manifest.to_string()),
            media_type,
            blobs,
            children: Vec::new(),
        }
    }

    /// The manifest's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    fn descriptor(&self) -> Value {
        descriptor(self.media_type, &self.manifest)
    }
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(content), "size": content.len() })
}

/// Bytes that do not compress, the same for the same `seed` (xorshift64*).
pub fn noise(seed: u64, length: usize) -> Bytes {
    // A zero state would stay zero; the multiplier spreads neighbouring seeds.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}

fn config(layers: &[Bytes], architecture: &str) -> Bytes {
    let layers: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let value = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": layers },
    });
    Bytes::from(value.to_string())
}

/// An OCI image for linux on `architecture` with one layer for each of `layer_sizes`. Images with the
/// same `seed` share their layers.
pub fn image(seed: u64, architecture: &str, layer_sizes: &[usize]) -> SampleImage {
    let layers = layers(seed, layer_sizes);
    let config = config(&layers, architecture);
    let entries: Vec<Value> = layers.iter().map(|layer| descriptor(OCI_LAYER, layer)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, &config),
        "layers": entries,
    });
    SampleImage::new(&manifest, media_type::OCI_MANIFEST, with_config(config, layers))
}

/// An OCI index with an image for linux/amd64 and one for linux/arm64, which share no layer.
pub fn two_platforms(seed: u64, layer_sizes: &[usize]) -> SampleImage {
    let children = vec![
        image(seed.wrapping_mul(2), "amd64", layer_sizes),
        image(seed.wrapping_mul(2).wrapping_add(1), "arm64", layer_sizes),
    ];
    let entries: Vec<Value> = children
        .iter()
        .zip(["amd64", "arm64"])
        .map(|(child, architecture)| {
            let mut entry = child.descriptor();
            entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
            entry
        })
        .collect();
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
    SampleImage {
        children,
        ..SampleImage::new(&manifest, media_type::OCI_INDEX, Vec::new())
    }
}

/// A Docker schema 2 image for linux/amd64.
pub fn docker_image(seed: u64, layer_sizes: &[usize]) -> SampleImage {
    let layers = layers(seed, layer_sizes);
    let config = config(&layers, "amd64");
    let entries: Vec<Value> = layers.iter().map(|layer| descriptor(DOCKER_LAYER, layer)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::DOCKER_MANIFEST,
        "config": descriptor(media_type::DOCKER_CONFIG, &config),
        "layers": entries,
    });
    SampleImage::new(&manifest, media_type::DOCKER_MANIFEST, with_config(config, layers))
}

/// An artifact whose config is the empty descriptor (image-spec `manifest.md`, "Guidance for an empty descriptor").
pub fn artifact(artifact_type: &str, content: &Bytes) -> SampleImage {
    let empty = Bytes::from_static(b"{}");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": descriptor(media_type::OCI_EMPTY, &empty),
        "layers": [descriptor("application/octet-stream", content)],
    });
    SampleImage::new(&manifest, media_type::OCI_MANIFEST, vec![empty, content.clone()])
}

/// What `cosign sign` leaves beside an image: a manifest, and the tag to push it under. The signature
/// itself is noise, as nothing that copies it may care.
pub fn cosign_signature(repository: &str, subject: &Digest) -> (Tag, SampleImage) {
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": repository },
            "image": { "docker-manifest-digest": subject },
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    let payload = Bytes::from(payload.to_string());
    let config = config(std::slice::from_ref(&payload), "");
    let mut layer = descriptor(COSIGN_LAYER, &payload);
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": "bm90IGEgc2lnbmF0dXJl" });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, &config),
        "layers": [layer],
    });
    let tag = AttachmentTag {
        subject: subject.clone(),
        kind: AttachmentKind::Signature,
    };
    let image = SampleImage::new(&manifest, media_type::OCI_MANIFEST, vec![config, payload]);
    (tag.tag(), image)
}

fn layers(seed: u64, sizes: &[usize]) -> Vec<Bytes> {
    let seeds = (0u64..).map(|index| seed.wrapping_mul(1000).wrapping_add(index));
    sizes.iter().zip(seeds).map(|(size, seed)| noise(seed, *size)).collect()
}

fn with_config(config: Bytes, layers: Vec<Bytes>) -> Vec<Bytes> {
    std::iter::once(config).chain(layers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Manifest, ManifestShape};

    fn check(image: &SampleImage) -> Manifest {
        let manifest = Manifest::parse(Some(image.media_type), image.manifest.clone(), Some(&image.digest()));
        let manifest = manifest.expect("a sample is a manifest");
        let named: Vec<&Digest> = manifest.blobs().map(|blob| &blob.digest).collect();
        let held: Vec<Digest> = image.blobs.iter().map(|blob| Digest::of(blob)).collect();
        assert_eq!(named, held.iter().collect::<Vec<_>>());
        for (entry, child) in manifest.entries().iter().zip(&image.children) {
            assert_eq!(entry.digest, child.digest());
            assert_eq!(entry.size, child.manifest.len() as u64);
            check(child);
        }
        assert_eq!(manifest.entries().len(), image.children.len());
        manifest
    }

    #[test]
    fn samples_hold_what_their_manifests_name() {
        assert_eq!(check(&image(1, "amd64", &[0, 1, 4096])).shape(), ManifestShape::Image);
        let index = check(&two_platforms(2, &[100]));
        assert_eq!(index.shape(), ManifestShape::Index);
        assert_ne!(index.entries()[0].digest, index.entries()[1].digest);
        assert_eq!(check(&docker_image(3, &[10, 20])).blobs().count(), 3);
        let artifact = check(&artifact("application/x.test", &noise(9, 5)));
        assert_eq!(artifact.artifact_type(), Some("application/x.test"));
        let subject = Digest::of(b"subject");
        let (tag, signature) = cosign_signature("demo/web", &subject);
        check(&signature);
        assert_eq!(AttachmentTag::parse(&tag).map(|tag| tag.subject), Some(subject));
    }

    #[test]
    fn noise_is_repeatable_and_differs_by_seed() {
        assert_eq!(noise(7, 1000), noise(7, 1000));
        assert_eq!(noise(7, 1000)[..10], noise(7, 10)[..]);
        let firsts: std::collections::BTreeSet<Bytes> = (0..100).map(|seed| noise(seed, 16)).collect();
        assert_eq!(firsts.len(), 100, "neighbouring seeds differ");
        assert_ne!(noise(2, 16), noise(4, 16));
    }
}
