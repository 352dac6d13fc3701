//! Descriptors: how a manifest names other content.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::digest::Digest;
use super::media_type;
use super::platform::Platform;

/// A reference to content by digest (image-spec `descriptor.md`). Read only; never written back,
/// as manifests travel as the bytes that came.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content; any text, as unknown types are copied too.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Length of the content in bytes; at most what a signed 64-bit number holds, as databases and clients need.
    #[serde(deserialize_with = "length")]
    pub size: u64,
    /// Platform, on entries of an index.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// Annotations of the entry.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Artifact type, on entries of a referrers index.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// Where foreign content may be had from. Never fetched by us.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub urls: Vec<String>,
}

fn length<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = u64::deserialize(deserializer)?;
    if size > i64::MAX.unsigned_abs() {
        return Err(serde::de::Error::custom("the size is beyond 2^63 bytes"));
    }
    Ok(size)
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Marks BuildKit's attestation entries (moby/buildkit `docs/attestations/attestation-storage.md`).
const BUILDKIT_TYPE: &str = "vnd.docker.reference.type";
const BUILDKIT_SUBJECT: &str = "vnd.docker.reference.digest";

impl Descriptor {
    /// True when the content is a layer that the registry need not hold.
    pub fn is_foreign(&self) -> bool {
        media_type::is_foreign_layer(&self.media_type)
    }

    /// For a BuildKit attestation entry of an index: the image that it describes.
    pub fn attestation_of(&self) -> Option<Digest> {
        if self.annotations.get(BUILDKIT_TYPE).map(String::as_str) != Some("attestation-manifest") {
            return None;
        }
        self.annotations.get(BUILDKIT_SUBJECT)?.parse().ok()
    }

    /// True for a BuildKit attestation entry of an index, also where it does not say well which image it describes: marked
    /// as one, and for no platform.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get(BUILDKIT_TYPE).map(String::as_str) == Some("attestation-manifest")
            && self.platform.as_ref().is_none_or(Platform::is_unknown)
    }
}
