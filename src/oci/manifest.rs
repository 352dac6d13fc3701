//! Manifests as the bytes that came, with a view of what they reach.

use bytes::Bytes;
use serde::Deserialize;

use super::descriptor::Descriptor;
use super::digest::{Algorithm, Digest};
use super::media_type;

/// The largest manifest that we read or push, in bytes: what the distribution-spec asks registries
/// to accept ("Pushing Manifests": at least 4 MiB) and what they commonly refuse to exceed.
pub const MAX_MANIFEST_SIZE: u64 = 4 * 1024 * 1024;

/// What a manifest is, judged by its fields rather than its media type, as unknown types are copied too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestShape {
    /// Lists other manifests.
    Index,
    /// Has a config and layers, or the `blobs` of the 1.1 release candidates.
    Image,
    /// Docker schema 1: its digest is not that of its bytes, and current registries refuse it.
    Schema1,
}

/// A manifest: raw bytes, media type, digest, and what they reach. The bytes are never changed.
#[derive(Clone, Debug)]
pub struct Manifest {
    bytes: Bytes,
    media_type: String,
    digest: Digest,
    shape: ManifestShape,
    fields: Fields,
}

/// Why bytes are not a manifest that can be copied.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// Over [`MAX_MANIFEST_SIZE`].
    #[error("the manifest has {size} bytes, more than the limit of {} MiB", MAX_MANIFEST_SIZE >> 20)]
    TooLarge {
        /// Bytes seen so far.
        size: u64,
    },
    /// Not JSON, or not of a manifest's form.
    #[error("the manifest is not valid: {0}")]
    Malformed(#[source] serde_json::Error),
    /// The bytes are not those that were asked for.
    #[error("the manifest's bytes have the digest {found}, not {expected}")]
    WrongDigest {
        /// What was asked for or announced.
        expected: Digest,
        /// What the bytes have.
        found: Digest,
    },
    /// Neither an index nor an image.
    #[error("the manifest has neither `manifests` nor `config`, `layers` or `blobs`")]
    Unrecognised,
    /// A list of manifests and an image in one, which clients read in different ways (CVE-2021-41190).
    #[error("the manifest has both `manifests` and `layers`, which is ambiguous")]
    Ambiguous,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Reads a manifest. `content_type` is what the registry said; the manifest's own `mediaType`
    /// stands in where it said nothing useful. `expected` is the digest asked for or announced.
    ///
    /// # Errors
    /// Bytes that are too many, are no manifest, or do not have the digest `expected`.
    pub fn parse(content_type: Option<&str>, bytes: Bytes, expected: Option<&Digest>) -> Result<Self, InvalidManifest> {
        let size = bytes.len() as u64;
        if size > MAX_MANIFEST_SIZE {
            return Err(InvalidManifest::TooLarge { size });
        }
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of_with(algorithm, &bytes);
        let fields: Fields = serde_json::from_slice(&bytes).map_err(InvalidManifest::Malformed)?;
        let schema1 = fields.schema_version == Some(1) || fields.fs_layers.is_some();
        // The digest of a signed schema 1 manifest is over its payload without the signatures.
        if let Some(expected) = expected
            && *expected != digest
            && !schema1
        {
            return Err(InvalidManifest::WrongDigest {
                expected: expected.clone(),
                found: digest,
            });
        }
        let shape = match (&fields.manifests, &fields.layers, &fields.config, &fields.blobs) {
            _ if schema1 => ManifestShape::Schema1,
            (Some(_), None, None, _) => ManifestShape::Index,
            (Some(_), _, _, _) => return Err(InvalidManifest::Ambiguous),
            (None, None, None, None) => {
                // An OCI index may be without entries, an artifact manifest without blobs.
                match fields.media_type.as_deref().or(content_type) {
                    Some(media_type::OCI_ARTIFACT | media_type::ORAS_ARTIFACT) => ManifestShape::Image,
                    _ => return Err(InvalidManifest::Unrecognised),
                }
            }
            (None, _, _, _) => ManifestShape::Image,
        };
        let media_type = content_type
            .and_then(|value| value.split(';').next())
            .map(str::trim)
            .filter(|value| {
                !matches!(
                    *value,
                    "" | "application/json" | "text/plain" | "application/octet-stream"
                )
            })
            .map(str::to_owned)
            .or_else(|| fields.media_type.clone())
            .unwrap_or_else(|| {
                let guess = match shape {
                    ManifestShape::Index => media_type::OCI_INDEX,
                    ManifestShape::Image => media_type::OCI_MANIFEST,
                    ManifestShape::Schema1 => media_type::DOCKER_SCHEMA1_SIGNED,
                };
                guess.to_owned()
            });
        Ok(Self {
            bytes,
            media_type,
            digest,
            shape,
            fields,
        })
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The media type to push it with.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// The digest of its bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What it is.
    pub fn shape(&self) -> ManifestShape {
        self.shape
    }

    /// Entries of an index; empty for an image.
    pub fn entries(&self) -> &[Descriptor] {
        self.fields.manifests.as_deref().unwrap_or_default()
    }

    /// Config, layers and `blobs`, in this order and with duplicates. Foreign layers are among them.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let lists = [&self.fields.layers, &self.fields.blobs];
        self.fields
            .config
            .iter()
            .chain(lists.into_iter().flatten().flat_map(|list| list.iter()))
    }

    /// The config of an image.
    pub fn config(&self) -> Option<&Descriptor> {
        self.fields.config.as_ref()
    }

    /// The manifest that this one refers to.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.fields.subject.as_ref()
    }

    /// The artifact type: its own field, else the config's media type (distribution-spec 1.1,
    /// "Listing Referrers").
    pub fn artifact_type(&self) -> Option<&str> {
        let config = || self.fields.config.as_ref().map(|config| config.media_type.as_str());
        self.fields.artifact_type.as_deref().or_else(config)
    }

    /// The manifest's top-level annotations as they stand in its bytes.
    pub fn annotations(&self) -> std::collections::BTreeMap<String, String> {
        #[derive(Deserialize)]
        struct Annotated {
            annotations: Option<std::collections::BTreeMap<String, String>>,
        }
        serde_json::from_slice::<Annotated>(&self.bytes)
            .ok()
            .and_then(|annotated| annotated.annotations)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, InvalidManifest> {
        Manifest::parse(None, Bytes::copy_from_slice(text.as_bytes()), None)
    }

    const EMPTY: &str = r#"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;

    #[test]
    fn reads_shapes() {
        let index = parse(r#"{"schemaVersion":2,"manifests":[]}"#).expect("an index");
        assert_eq!(index.shape(), ManifestShape::Index);
        assert_eq!(index.media_type(), media_type::OCI_INDEX);
        let image = parse(&format!(
            r#"{{"schemaVersion":2,"config":{EMPTY},"layers":[{EMPTY},{EMPTY}]}}"#
        ))
        .expect("ok");
        assert_eq!(image.shape(), ManifestShape::Image);
        assert_eq!(image.blobs().count(), 3);
        assert_eq!(image.artifact_type(), Some(media_type::OCI_EMPTY));
        let old = parse(r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#).expect("schema 1 is recognised");
        assert_eq!(old.shape(), ManifestShape::Schema1);
    }

    #[test]
    fn refuses_what_is_no_manifest() {
        assert!(matches!(parse(""), Err(InvalidManifest::Malformed(_))));
        assert!(matches!(parse("<html>"), Err(InvalidManifest::Malformed(_))));
        assert!(matches!(parse("{}"), Err(InvalidManifest::Unrecognised)));
        let both = format!(r#"{{"manifests":[],"layers":[{EMPTY}]}}"#);
        assert!(matches!(parse(&both), Err(InvalidManifest::Ambiguous)));
        let large = Bytes::from(vec![b' '; 4 * 1024 * 1024 + 1]);
        assert!(matches!(
            Manifest::parse(None, large, None),
            Err(InvalidManifest::TooLarge { .. })
        ));
        let wrong = Manifest::parse(None, Bytes::from_static(b"{\"manifests\":[]}"), Some(&Digest::of(b"")));
        assert!(matches!(wrong, Err(InvalidManifest::WrongDigest { .. })));
        let bad_digest = parse(r#"{"manifests":[{"digest":"sha256:../../x","size":1}]}"#);
        assert!(matches!(bad_digest, Err(InvalidManifest::Malformed(_))));
    }

    #[test]
    fn content_type_parameters_are_dropped() {
        let bytes = Bytes::from_static(b"{\"manifests\":[]}");
        let manifest = Manifest::parse(Some("application/x.y+json; charset=utf-8"), bytes, None).expect("an index");
        assert_eq!(manifest.media_type(), "application/x.y+json");
    }
}
