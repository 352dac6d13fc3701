//! Manifests as the bytes that came, with a view of what they reach.

use bytes::Bytes;
use serde::Deserialize;

use super::descriptor::Descriptor;
use super::digest::{Algorithm, Digest};
use super::media_type;

/// The largest manifest that we read or push, in bytes: what the distribution-spec asks registries
/// to accept ("Pushing Manifests": at least 4 MiB) and what they commonly refuse to exceed.
pub const MAX_MANIFEST_SIZE: u64 = 4 * 1024 * 1024;

/// Entries, layers and blobs of one manifest at most: an image has some dozens, a model some thousands, and each costs
/// memory many times its text.
pub const MAX_DESCRIPTORS: usize = 20_000;

/// The keys that say what a manifest reaches.
const KEYS: [&str; 8] = [
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "blobs",
    "manifests",
    "subject",
    "fsLayers",
];

/// Refuses keys that differ from a known one by case only: we would not copy what a client then misses.
fn check_keys(bytes: &[u8]) -> Result<(), InvalidManifest> {
    type Keys<'a> = std::collections::HashMap<std::borrow::Cow<'a, str>, serde::de::IgnoredAny>;
    let keys: Keys<'_> = serde_json::from_slice(bytes).map_err(InvalidManifest::Malformed)?;
    for key in keys.keys() {
        let known = KEYS
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(key) && known != key);
        if let Some(known) = known {
            let key = key.clone().into_owned();
            return Err(InvalidManifest::KeyCase { key, known });
        }
    }
    Ok(())
}

/// What a manifest is, judged by its fields rather than its media type, as unknown types are copied too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestShape {
    /// Lists other manifests.
    Index,
    /// Has a config and layers, or the `blobs` of the 1.1 release candidates.
    Image,
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
    /// Docker schema 1: its digest is not that of its bytes, so it cannot be copied by digest.
    #[error("it is a Docker schema 1 image, which current registries refuse: pull and push it with a current client")]
    Schema1,
    /// More than [`MAX_DESCRIPTORS`] entries, layers or blobs.
    #[error("the manifest names {count} things, more than the limit of {MAX_DESCRIPTORS}")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// A key that some readers take for another one, such as `Layers` (Go's JSON reader ignores case).
    #[error("the manifest has the key {key:?}, which some clients take for {known:?}")]
    KeyCase {
        /// The key.
        key: String,
        /// What it could be taken for.
        known: &'static str,
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
        check_keys(&bytes)?;
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of_with(algorithm, &bytes);
        let fields: Fields = serde_json::from_slice(&bytes).map_err(InvalidManifest::Malformed)?;
        if fields.fs_layers.is_some() {
            return Err(InvalidManifest::Schema1);
        }
        let lists = [&fields.layers, &fields.blobs, &fields.manifests];
        let count = lists.iter().filter_map(|list| list.as_ref()).map(Vec::len).sum();
        if count > MAX_DESCRIPTORS {
            return Err(InvalidManifest::TooMany { count });
        }
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(InvalidManifest::WrongDigest {
                expected: expected.clone(),
                found: digest,
            });
        }
        let shape = match (&fields.manifests, &fields.layers, &fields.config, &fields.blobs) {
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
        // The digest covers the field and not the header, so the field is what cannot be made up on the way.
        let said = content_type
            .and_then(|value| value.split(';').next())
            .map(str::trim)
            .filter(|value| {
                !matches!(
                    *value,
                    "" | "application/json" | "text/plain" | "application/octet-stream"
                )
            });
        let media_type = fields
            .media_type
            .clone()
            .or_else(|| said.map(str::to_owned))
            .unwrap_or_else(|| {
                let guess = match shape {
                    ManifestShape::Index => media_type::OCI_INDEX,
                    ManifestShape::Image => media_type::OCI_MANIFEST,
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
    }

    #[test]
    fn refuses_what_is_no_manifest() {
        assert!(matches!(parse(""), Err(InvalidManifest::Malformed(_))));
        assert!(matches!(parse("<html>"), Err(InvalidManifest::Malformed(_))));
        assert!(matches!(parse("{}"), Err(InvalidManifest::Unrecognised)));
        let both = format!(r#"{{"manifests":[],"layers":[{EMPTY}]}}"#);
        assert!(matches!(parse(&both), Err(InvalidManifest::Ambiguous)));
        let old = parse(r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#);
        assert!(matches!(old, Err(InvalidManifest::Schema1)));
        let disguised = br#"{"schemaVersion":1,"config":null,"layers":[]}"#;
        let disguised = Manifest::parse(None, Bytes::from_static(disguised), Some(&Digest::of(b"another")));
        assert!(matches!(disguised, Err(InvalidManifest::WrongDigest { .. })));
        let cased = parse(&format!(r#"{{"layers":[],"Layers":[{EMPTY}]}}"#));
        assert!(matches!(cased, Err(InvalidManifest::KeyCase { known: "layers", .. })));
        let many = vec![EMPTY; MAX_DESCRIPTORS + 1].join(",");
        let many = parse(&format!(r#"{{"layers":[{many}]}}"#));
        assert!(matches!(many, Err(InvalidManifest::TooMany { .. })));
        let huge = parse(
            &EMPTY
                .replace("\"size\":2", "\"size\":9223372036854775808")
                .replacen('{', r#"{"config":{"#, 1)
                .replace('}', "}}"),
        );
        assert!(matches!(huge, Err(InvalidManifest::Malformed(_))), "{huge:?}");
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
    fn the_field_counts_more_than_the_header() {
        let text = format!(r#"{{"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let manifest = Manifest::parse(Some(media_type::OCI_MANIFEST), bytes, None).expect("an index");
        assert_eq!(manifest.media_type(), media_type::OCI_INDEX);
    }

    #[test]
    fn content_type_parameters_are_dropped() {
        let bytes = Bytes::from_static(b"{\"manifests\":[]}");
        let manifest = Manifest::parse(Some("application/x.y+json; charset=utf-8"), bytes, None).expect("an index");
        assert_eq!(manifest.media_type(), "application/x.y+json");
    }
}
