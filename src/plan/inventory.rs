//! What was seen of a source repository and its destinations.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::failure::ErrorKind;
use crate::oci::{Digest, Platform, PlatformSelector, RepositoryName, Tag};
use crate::rules::RegistryName;

/// One observation. Unknown is not absent: a failed look never becomes "not there".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation<T> {
    /// Seen.
    Known(T),
    /// Seen not to be there.
    Absent,
    /// The look failed.
    Unknown(Unknown),
}

/// Why an observation is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// Kind of the failure.
    pub kind: ErrorKind,
    /// HTTP status, where one came.
    pub status: Option<u16>,
    /// The registry's error code, where one came.
    pub code: Option<String>,
    /// What happened, in words, with its place.
    pub message: String,
}

impl Unknown {
    /// A look that failed before any registry answered.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: None,
            code: None,
            message: message.into(),
        }
    }
}

/// What the destination of a selected tag should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedImage {
    /// What the source tag points to.
    pub source: Digest,
    /// What the destination tag should point to: `source`, or the digest of the rewritten index. `None`: none of the wanted
    /// platforms is there, and these are.
    pub digest: Result<Digest, Vec<Platform>>,
    /// Wanted platforms that are missing.
    pub missing_platforms: Vec<PlatformSelector>,
}

/// One destination of a source repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationInventory {
    /// The registry.
    pub registry: RegistryName,
    /// The repository's name there.
    pub repository: RepositoryName,
    /// Its tags; `Absent` where the repository is not there.
    pub listed: Observation<BTreeSet<Tag>>,
    /// What its tags point to; looked up only for selected tags that are listed.
    pub digests: BTreeMap<Tag, Observation<Digest>>,
    /// Tags whose digest was not looked at now but trusted, as it was seen or written a short time ago.
    pub trusted: BTreeSet<Tag>,
    /// Digests that we wrote there ourselves, by tag.
    pub written: BTreeMap<Tag, BTreeSet<Digest>>,
    /// Tags that another source repository also wants here, with the claim in words (`rule a: hub/x`): refused.
    pub claimed: BTreeMap<Tag, String>,
}

/// Everything seen of one source repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryInventory {
    /// The source registry.
    pub registry: RegistryName,
    /// The source repository.
    pub repository: RepositoryName,
    /// True when the rule names it exactly, so that its absence is a failure.
    pub named: bool,
    /// Its tags, attachments included.
    pub listed: Observation<Vec<Tag>>,
    /// What the selected tags come to. A selected tag without an entry counts as unknown.
    pub wanted: BTreeMap<Tag, Observation<WantedImage>>,
    /// The destinations.
    pub destinations: Vec<DestinationInventory>,
}
