//! Invariants of plans, checked apart from the code that makes them.

use std::collections::{BTreeMap, BTreeSet};

use super::image::{ImagePlan, ImageTree};
use super::inventory::{DestinationInventory, Observation, RepositoryInventory, WantedImage};
use super::repository::{
    CopyReason, Decision, FailReason, PlannedDestination, PlannedImage, RepositoryPlan, RepositoryProblem,
};
use crate::oci::{AttachmentTag, Descriptor, Digest, Manifest, Reference, Tag};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note(pub String);

/// Collects what does not hold.
#[derive(Default)]
struct Notes(Vec<Note>);

impl Notes {
    fn unless(&mut self, holds: bool, broken: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Note(broken()));
        }
    }
}

/// Every selected tag has one decision a destination, nothing unknown is read as absent, nothing is copied that is in step …
pub fn lint_repository_plan(inventory: &RepositoryInventory, plan: &RepositoryPlan) -> Vec<Note> {
    let mut notes = Notes::default();
    notes.unless(
        (&plan.registry, &plan.repository) == (&inventory.registry, &inventory.repository),
        || {
            format!(
                "the plan is for {}, the inventory of {}",
                plan.repository, inventory.repository
            )
        },
    );
    let problem_fits = match (&inventory.listed, &plan.problem) {
        (Observation::Known(_), None) => true,
        (Observation::Absent, problem) => inventory.named == matches!(problem, Some(RepositoryProblem::Missing)),
        (Observation::Unknown(why), Some(RepositoryProblem::Unknown(said))) => why == said,
        _ => false,
    };
    notes.unless(problem_fits, || {
        format!("the problem {:?} does not follow from the listing", plan.problem)
    });
    let listed: BTreeSet<&Tag> = match &inventory.listed {
        Observation::Known(tags) => tags.iter().filter(|tag| AttachmentTag::parse(tag).is_none()).collect(),
        _ => BTreeSet::new(),
    };
    notes.unless(plan.tags_listed == listed.len(), || {
        format!("{} tags counted, {} listed", plan.tags_listed, listed.len())
    });
    notes.unless(plan.images.is_sorted_by(|a, b| a.tag < b.tag), || {
        "the images are not ordered by tag, each once".to_owned()
    });
    let planned: BTreeSet<&Tag> = plan.images.iter().map(|image| &image.tag).collect();
    for tag in planned.iter().chain(&plan.excluded.keys().collect::<BTreeSet<_>>()) {
        notes.unless(listed.contains(tag), || format!("{tag} is planned but not listed"));
    }
    for tag in &listed {
        let places = usize::from(planned.contains(tag)) + usize::from(plan.excluded.contains_key(*tag));
        notes.unless(places == 1, || format!("{tag} has {places} answers instead of one"));
    }
    for image in &plan.images {
        lint_image(inventory, image, &mut notes);
    }
    notes.0
}

fn lint_image(inventory: &RepositoryInventory, image: &PlannedImage, notes: &mut Notes) {
    let tag = &image.tag;
    let wanted = inventory.wanted.get(tag);
    let (source, digest) = match wanted {
        Some(Observation::Known(wanted)) => (Some(&wanted.source), wanted.digest.as_ref().ok()),
        _ => (None, None),
    };
    notes.unless(
        (image.source_digest.as_ref(), image.digest.as_ref()) == (source, digest),
        || format!("{tag} is planned with digests that were not seen"),
    );
    let expected = inventory.destinations.iter().map(|d| (&d.registry, &d.repository));
    let found = image.destinations.iter().map(|d| (&d.registry, &d.repository));
    if !expected.eq(found) {
        notes.unless(false, || format!("{tag} does not have one decision a destination"));
        return;
    }
    for (destination, planned) in inventory.destinations.iter().zip(&image.destinations) {
        let state = State::of(destination, tag);
        let place = format!("{}/{}:{tag}", destination.registry, destination.repository);
        notes.unless(planned.previous.as_ref() == state.held(), || {
            format!("{place} had {:?}, said to be {:?}", state, planned.previous)
        });
        notes.unless(decision_fits(wanted, destination, &state, tag, planned), || {
            format!(
                "{place} is {state:?} and {wanted:?} is wanted, from which {:?} does not follow",
                planned.decision
            )
        });
    }
}

/// What a destination is seen to hold under a tag.
#[derive(Debug)]
enum State<'a> {
    NoRepository,
    NoTag,
    Ours(&'a Digest),
    Foreign(&'a Digest),
    Unknown,
}

impl<'a> State<'a> {
    fn of(destination: &'a DestinationInventory, tag: &Tag) -> Self {
        let seen = destination.digests.get(tag);
        match &destination.listed {
            Observation::Absent => Self::NoRepository,
            Observation::Known(tags) if !tags.contains(tag) => Self::NoTag,
            Observation::Known(_) if seen == Some(&Observation::Absent) => Self::NoTag,
            Observation::Known(_) => match seen {
                Some(Observation::Known(digest)) => {
                    let ours = destination.written.get(tag).is_some_and(|all| all.contains(digest));
                    if ours {
                        Self::Ours(digest)
                    } else {
                        Self::Foreign(digest)
                    }
                }
                _ => Self::Unknown,
            },
            Observation::Unknown(_) => Self::Unknown,
        }
    }

    fn held(&self) -> Option<&'a Digest> {
        match self {
            Self::Ours(digest) | Self::Foreign(digest) => Some(digest),
            _ => None,
        }
    }
}

/// Asked from the decision's side: what must have been seen for it to be right?
fn decision_fits(
    wanted: Option<&Observation<WantedImage>>,
    destination: &DestinationInventory,
    state: &State<'_>,
    tag: &Tag,
    planned: &PlannedDestination,
) -> bool {
    let known = match wanted {
        Some(Observation::Known(wanted)) => Some(wanted),
        _ => None,
    };
    let digest = known.and_then(|wanted| wanted.digest.as_ref().ok());
    let may_act = digest.is_some() && !destination.claimed.contains_key(tag);
    let differs = state.held().is_some() && state.held() != digest;
    let ours = matches!(state, State::Ours(_));
    match &planned.decision {
        Decision::InStep => may_act && state.held() == digest,
        Decision::Copy { reason } | Decision::Keep { reason } => {
            let copied = matches!(planned.decision, Decision::Copy { .. });
            may_act
                && match reason {
                    CopyReason::NewRepository => copied && matches!(state, State::NoRepository),
                    CopyReason::NewTag => copied && matches!(state, State::NoTag),
                    CopyReason::Moved => differs && ours,
                    CopyReason::Conflict => differs && !ours,
                }
        }
        Decision::Skip { .. } => known.is_some_and(|wanted| wanted.digest.is_err()),
        Decision::Gone => matches!(wanted, Some(Observation::Absent)),
        Decision::Fail { reason, .. } => match reason {
            FailReason::MovedTag => may_act && differs && ours,
            FailReason::Conflict => may_act && differs && !ours,
            FailReason::SourceUnknown(_) => matches!(wanted, None | Some(Observation::Unknown(_))),
            FailReason::DestinationUnknown(_) => may_act && matches!(state, State::Unknown),
            FailReason::Parked(failure) => may_act && digest == Some(&failure.digest) && state.held() != digest,
            FailReason::Ambiguous { claim } => digest.is_some() && destination.claimed.get(tag) == Some(claim),
        },
    }
}

/// Children before parents, the tag last, every blob once, nothing outside the tree …
pub fn lint_image_plan(tree: &ImageTree, plan: &ImagePlan) -> Vec<Note> {
    let mut notes = Notes::default();
    let reached = reached(tree, &mut notes);
    let mut put: BTreeSet<&Digest> = BTreeSet::new();
    for (place, step) in plan.manifests.iter().enumerate() {
        let digest = &step.digest;
        notes.unless(put.insert(digest), || format!("the manifest {digest} is put twice"));
        let Some(manifest) = reached.get(digest) else {
            notes.unless(false, || format!("the manifest {digest} is not part of the image"));
            continue;
        };
        for entry in manifest.entries() {
            notes.unless(put.contains(&entry.digest), || {
                format!("the manifest {digest} is put before its child {}", entry.digest)
            });
        }
        let top = place + 1 == plan.manifests.len();
        notes.unless(top == (*digest == tree.root), || {
            format!("the manifest {digest} stands at place {place}; the top manifest comes last")
        });
        let by_digest = step.reference == Reference::Digest(digest.clone());
        notes.unless(by_digest || top && step.reference.tag().is_some(), || {
            format!("the manifest {digest} is put under {}", step.reference)
        });
    }
    for digest in reached.keys() {
        notes.unless(put.contains(digest), || format!("the manifest {digest} is not put"));
    }
    lint_blobs(&reached, plan, &mut notes);
    notes.0
}

fn reached<'a>(tree: &'a ImageTree, notes: &mut Notes) -> BTreeMap<&'a Digest, &'a Manifest> {
    let mut reached = BTreeMap::new();
    let mut to_visit = vec![&tree.root];
    while let Some(digest) = to_visit.pop() {
        match tree.manifests.get(digest) {
            Some(manifest) => {
                if reached.insert(digest, manifest).is_none() {
                    to_visit.extend(manifest.entries().iter().map(|entry| &entry.digest));
                }
            }
            None => notes.unless(false, || format!("the manifest {digest} was not read")),
        }
    }
    reached
}

fn lint_blobs(reached: &BTreeMap<&Digest, &Manifest>, plan: &ImagePlan, notes: &mut Notes) {
    let fetched_elsewhere = |blob: &Descriptor| blob.is_foreign() && !blob.urls.is_empty();
    let all = || reached.values().flat_map(|manifest| manifest.blobs());
    let needed: BTreeSet<&Digest> = all()
        .filter(|blob| !fetched_elsewhere(blob))
        .map(|blob| &blob.digest)
        .collect();
    let foreign: BTreeSet<&Digest> = all()
        .map(|blob| &blob.digest)
        .filter(|digest| !needed.contains(digest))
        .collect();
    let mut steps = BTreeSet::new();
    for step in &plan.blobs {
        let digest = &step.digest;
        notes.unless(steps.insert(digest), || format!("the blob {digest} comes twice"));
        notes.unless(needed.contains(digest), || {
            format!("the blob {digest} is not to be copied")
        });
        let known_size = all().any(|blob| blob.digest == *digest && blob.size == step.size);
        notes.unless(known_size, || {
            format!("no manifest gives the blob {digest} {} bytes", step.size)
        });
    }
    for digest in &needed {
        notes.unless(steps.contains(digest), || format!("the blob {digest} is left out"));
    }
    notes.unless(plan.blobs.is_sorted_by(|a, b| a.size >= b.size), || {
        "the blobs are not ordered from large to small".to_owned()
    });
    let named: BTreeSet<&Digest> = plan.foreign.iter().map(|blob| &blob.digest).collect();
    notes.unless(named == foreign && named.len() == plan.foreign.len(), || {
        "the foreign layers are not named, each once".to_owned()
    });
}

#[cfg(test)]
mod tests;
