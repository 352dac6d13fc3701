//! The plan of one source repository: every selected tag at every destination, with the reason.

use std::collections::BTreeMap;

use serde::Serialize;

use super::failure::ErrorKind;
use super::inventory::{RepositoryInventory, Unknown};
use crate::oci::{Digest, RepositoryName, Tag};
use crate::rules::{Excluded, MovedTags, OnConflict, RegistryName, TagFilter};

/// What a run would do with one source repository.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepositoryPlan {
    /// The source registry.
    pub registry: RegistryName,
    /// The source repository.
    pub repository: RepositoryName,
    /// Why nothing of it can be planned.
    pub problem: Option<RepositoryProblem>,
    /// Tags listed, attachments not counted.
    pub tags_listed: usize,
    /// Selected tags, ordered by name.
    pub images: Vec<PlannedImage>,
    /// The other tags with the reason.
    pub excluded: BTreeMap<Tag, Excluded>,
}

/// Why nothing of a repository can be planned.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "problem", rename_all = "snake_case")]
pub enum RepositoryProblem {
    /// The rule names it and the source does not have it.
    Missing,
    /// Its tags could not be listed.
    Unknown(Unknown),
}

/// One selected tag.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedImage {
    /// The tag, the same at every destination.
    pub tag: Tag,
    /// What it points to at the source, where known.
    pub source_digest: Option<Digest>,
    /// What it should point to at the destinations, where known.
    pub digest: Option<Digest>,
    /// Wanted platforms that are missing, for a warning.
    pub missing_platforms: Vec<String>,
    /// One decision a destination, in the rule's order.
    pub destinations: Vec<PlannedDestination>,
}

/// One selected tag at one destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedDestination {
    /// The registry.
    pub registry: RegistryName,
    /// The repository's name there.
    pub repository: RepositoryName,
    /// What to do and why.
    #[serde(flatten)]
    pub decision: Decision,
    /// What the destination's tag points to now, where it exists and is known.
    pub previous: Option<Digest>,
}

/// What to do with one image at one destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Decision {
    /// Nothing: the destination's tag points to the wanted digest.
    InStep,
    /// Copy.
    Copy {
        /// Why.
        reason: CopyReason,
    },
    /// Leave alone by policy.
    Keep {
        /// What the destination holds instead.
        reason: CopyReason,
    },
    /// None of the wanted platforms is there.
    Skip {
        /// The platforms that are.
        available: Vec<String>,
    },
    /// The tag vanished at the source after it was listed.
    Gone,
    /// Cannot or must not be done.
    Fail {
        /// Kind of the failure.
        kind: ErrorKind,
        /// Why.
        reason: FailReason,
    },
}

/// Why an image is to be copied (or would be, were it not kept).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyReason {
    /// The destination repository is not there.
    NewRepository,
    /// The tag is not there.
    NewTag,
    /// The destination holds a digest that we wrote; the source has moved on.
    Moved,
    /// The destination holds a digest that we did not write.
    Conflict,
}

/// Why an image fails in the plan already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum FailReason {
    /// `moved_tags: fail`.
    MovedTag,
    /// `on_conflict: fail`.
    Conflict,
    /// What the source tag points to could not be found out.
    SourceUnknown {
        /// What happened.
        message: String,
    },
    /// What the destination holds could not be found out.
    DestinationUnknown {
        /// What happened.
        message: String,
    },
    /// Another source wants the same destination tag.
    Ambiguous {
        /// The other claim.
        claim: String,
    },
}

/// Plans one repository. A pure function: the same inventory gives the same plan.
pub fn plan_repository(
    filter: &TagFilter,
    moved: MovedTags,
    conflict: OnConflict,
    inventory: &RepositoryInventory,
) -> RepositoryPlan {
    let _ = (filter, moved, conflict, inventory);
    unimplemented!()
}
