//! The plan of one source repository: every selected tag at every destination, with the reason.

use std::collections::BTreeMap;

use serde::Serialize;

use super::failure::ErrorKind;
use super::inventory::{DestinationInventory, Observation, RepositoryInventory, Unknown, WantedImage};
use super::parking::ParkedFailure;
use crate::oci::{Digest, RepositoryName, Tag};
use crate::rules::{Excluded, MovedTags, OnConflict, RegistryName, SelectedTags, TagFilter};

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
    /// True where that was not looked at now but trusted (`trust_destination`).
    pub trusted: bool,
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
    SourceUnknown(Unknown),
    /// What the destination holds could not be found out.
    DestinationUnknown(Unknown),
    /// Another source wants the same destination tag.
    Ambiguous {
        /// The other claim.
        claim: String,
    },
    /// It failed for good before, and its time to be tried again has not come ([`super::put_aside`]).
    Parked(Box<ParkedFailure>),
}

/// Plans one repository. A pure function: the same inventory gives the same plan.
pub fn plan_repository(
    filter: &TagFilter,
    moved: MovedTags,
    conflict: OnConflict,
    inventory: &RepositoryInventory,
) -> RepositoryPlan {
    let tags = match &inventory.listed {
        Observation::Known(tags) => tags.as_slice(),
        Observation::Absent | Observation::Unknown(_) => &[],
    };
    let SelectedTags { selected, excluded } = filter.select(tags.iter().cloned());
    RepositoryPlan {
        registry: inventory.registry.clone(),
        repository: inventory.repository.clone(),
        problem: repository_problem(inventory),
        tags_listed: selected.len() + excluded.len(),
        images: plan_images(moved, conflict, inventory, &selected),
        excluded,
    }
}

/// Why nothing of a repository can be planned, where that is so.
pub fn repository_problem(inventory: &RepositoryInventory) -> Option<RepositoryProblem> {
    match &inventory.listed {
        Observation::Known(_) => None,
        Observation::Absent => inventory.named.then_some(RepositoryProblem::Missing),
        Observation::Unknown(unknown) => Some(RepositoryProblem::Unknown(unknown.clone())),
    }
}

/// The part of a repository's plan that is about these selected tags, of which `inventory` must tell.
pub fn plan_images(
    moved: MovedTags,
    conflict: OnConflict,
    inventory: &RepositoryInventory,
    selected: &[Tag],
) -> Vec<PlannedImage> {
    let policy = Policy { moved, conflict };
    selected
        .iter()
        .map(|tag| plan_image(policy, inventory, tag.clone()))
        .collect()
}

#[derive(Clone, Copy)]
struct Policy {
    moved: MovedTags,
    conflict: OnConflict,
}

fn plan_image(policy: Policy, inventory: &RepositoryInventory, tag: Tag) -> PlannedImage {
    let observed = inventory.wanted.get(&tag);
    let known = match observed {
        Some(Observation::Known(wanted)) => Some(wanted),
        _ => None,
    };
    let destinations = inventory
        .destinations
        .iter()
        .map(|destination| PlannedDestination {
            registry: destination.registry.clone(),
            repository: destination.repository.clone(),
            decision: decide(policy, observed, destination, &tag),
            previous: held(destination, &tag).cloned(),
            trusted: destination.trusted.contains(&tag),
        })
        .map(only_in_step)
        .collect();
    PlannedImage {
        source_digest: known.map(|wanted| wanted.source.clone()),
        digest: known.and_then(|wanted| wanted.digest.clone().ok()),
        missing_platforms: known
            .map(|wanted| wanted.missing_platforms.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        destinations,
        tag,
    }
}

/// Trust is about images in step alone: for anything else what the destination holds was looked at, or does not matter.
fn only_in_step(planned: PlannedDestination) -> PlannedDestination {
    PlannedDestination {
        trusted: planned.trusted && planned.decision == Decision::InStep,
        ..planned
    }
}

/// What a listed tag is known to point to.
fn held<'a>(destination: &'a DestinationInventory, tag: &Tag) -> Option<&'a Digest> {
    match (&destination.listed, destination.digests.get(tag)) {
        (Observation::Known(tags), Some(Observation::Known(digest))) if tags.contains(tag) => Some(digest),
        _ => None,
    }
}

fn decide(
    policy: Policy,
    observed: Option<&Observation<WantedImage>>,
    destination: &DestinationInventory,
    tag: &Tag,
) -> Decision {
    let wanted = match observed {
        Some(Observation::Known(wanted)) => wanted,
        Some(Observation::Absent) => return Decision::Gone,
        Some(Observation::Unknown(unknown)) => {
            return Decision::Fail {
                kind: unknown.kind,
                reason: FailReason::SourceUnknown(unknown.clone()),
            };
        }
        None => {
            let kind = ErrorKind::Local;
            let message = "the tag was listed but what it points to was not looked up";
            return Decision::Fail {
                kind,
                reason: FailReason::SourceUnknown(Unknown::new(kind, message)),
            };
        }
    };
    let wanted = match &wanted.digest {
        Ok(digest) => digest,
        Err(platforms) => {
            let available = platforms.iter().map(ToString::to_string).collect();
            return Decision::Skip { available };
        }
    };
    if let Some(claim) = destination.claimed.get(tag) {
        let claim = claim.clone();
        return Decision::Fail {
            kind: ErrorKind::Config,
            reason: FailReason::Ambiguous { claim },
        };
    }
    let unknown = |unknown: &Unknown| Decision::Fail {
        kind: unknown.kind,
        reason: FailReason::DestinationUnknown(unknown.clone()),
    };
    let copy = |reason| Decision::Copy { reason };
    let tags = match &destination.listed {
        Observation::Known(tags) => tags,
        Observation::Absent => return copy(CopyReason::NewRepository),
        Observation::Unknown(why) => return unknown(why),
    };
    if !tags.contains(tag) {
        return copy(CopyReason::NewTag);
    }
    match destination.digests.get(tag) {
        Some(Observation::Known(digest)) if digest == wanted => Decision::InStep,
        Some(Observation::Known(digest)) => {
            let ours = destination.written.get(tag).is_some_and(|ours| ours.contains(digest));
            over_held(ours, policy.moved, policy.conflict)
        }
        // It vanished after it was listed.
        Some(Observation::Absent) => copy(CopyReason::NewTag),
        Some(Observation::Unknown(why)) => unknown(why),
        None => unknown(&Unknown::new(
            ErrorKind::Local,
            "the tag is there but what it points to was not looked up",
        )),
    }
}

/// What to do where the destination's tag points to something else than the wanted digest. `ours`: we wrote what it points to.
pub fn over_held(ours: bool, moved: MovedTags, conflict: OnConflict) -> Decision {
    let policy = Policy { moved, conflict };
    if ours { policy.moved() } else { policy.conflict() }
}

impl Policy {
    fn moved(self) -> Decision {
        let reason = CopyReason::Moved;
        match self.moved {
            MovedTags::Follow => Decision::Copy { reason },
            MovedTags::Keep => Decision::Keep { reason },
            MovedTags::Fail => Decision::Fail {
                kind: ErrorKind::Conflict,
                reason: FailReason::MovedTag,
            },
        }
    }

    fn conflict(self) -> Decision {
        let reason = CopyReason::Conflict;
        match self.conflict {
            OnConflict::Overwrite => Decision::Copy { reason },
            OnConflict::Keep => Decision::Keep { reason },
            OnConflict::Fail => Decision::Fail {
                kind: ErrorKind::Conflict,
                reason: FailReason::Conflict,
            },
        }
    }
}

#[cfg(test)]
mod tests;
