//! Which plan of a destination's tag is the newest: copying takes a while, and another rule may have seen more of the source
//! meanwhile.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::job::ImageGroup;
use crate::oci::{Digest, RepositoryName, Tag};
use crate::plan::{Decision, ParkingPlace, PlannedTag, RepositoryPlan, is_overtaken};
use crate::rules::RegistryName;
use crate::store::RunId;

/// What is planned for tags that are being copied, shared by all runs.
#[derive(Clone, Debug, Default)]
pub(super) struct PlannedTags(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    looks: AtomicU64,
    tags: Mutex<BTreeMap<ParkingPlace, Pending>>,
}

/// A tag that some runs are about to put.
#[derive(Debug)]
struct Pending {
    /// How many.
    puts: usize,
    newest: PlannedTag,
    run: RunId,
}

/// When a look at the source began, among all others of this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look(u64);

/// A put that is planned; over when dropped.
#[derive(Debug)]
pub(super) struct PlannedPut {
    tags: PlannedTags,
    place: ParkingPlace,
    look: Look,
}

fn place(registry: &RegistryName, repository: &RepositoryName, tag: &Tag) -> ParkingPlace {
    (registry.to_string(), repository.clone(), tag.clone())
}

impl PlannedTags {
    fn tags(&self) -> MutexGuard<'_, BTreeMap<ParkingPlace, Pending>> {
        self.0.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look at the source begins.
    pub(super) fn look(&self) -> Look {
        Look(self.0.looks.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes note of a plan that was made of what `look` saw, and of the puts of `groups`, which are of it.
    pub(super) fn note(&self, run: RunId, look: Look, plan: &RepositoryPlan, groups: &mut [ImageGroup]) {
        let mut tags = self.tags();
        let wanted = groups.iter_mut().flat_map(|group| {
            let digest = group.wanted.clone();
            group.destinations.iter_mut().map(move |each| (each, digest.clone()))
        });
        for (destination, digest) in wanted {
            let (Some(tag), Some(digest)) = (&destination.tag, digest) else {
                continue;
            };
            let place = place(&destination.registry, &destination.repository, tag);
            match tags.entry(place.clone()) {
                Entry::Occupied(mut pending) => pending.get_mut().puts += 1,
                Entry::Vacant(vacant) => {
                    let newest = PlannedTag { look: look.0, digest };
                    vacant.insert(Pending { puts: 1, newest, run });
                }
            }
            let tags = self.clone();
            destination.put = Some(Arc::new(PlannedPut { tags, place, look }));
        }
        if tags.is_empty() {
            return;
        }
        for image in &plan.images {
            let Some(digest) = &image.digest else { continue };
            for destination in &image.destinations {
                // What a policy leaves alone, or could not be looked at, is not what the tag is to hold.
                if !matches!(destination.decision, Decision::Copy { .. } | Decision::InStep) {
                    continue;
                }
                let place = place(&destination.registry, &destination.repository, &image.tag);
                if let Some(pending) = tags.get_mut(&place)
                    && pending.newest.look < look.0
                {
                    let digest = digest.clone();
                    pending.newest = PlannedTag { look: look.0, digest };
                    pending.run = run;
                }
            }
        }
    }
}

impl PlannedPut {
    /// The run that has a newer plan for the tag than to put `digest`.
    pub(super) fn overtaken_by(&self, digest: &Digest) -> Option<RunId> {
        let tags = self.tags.tags();
        let pending = tags.get(&self.place)?;
        is_overtaken(self.look.0, digest, &pending.newest).then_some(pending.run)
    }
}

impl Drop for PlannedPut {
    fn drop(&mut self) {
        let mut tags = self.tags.tags();
        if let Some(pending) = tags.get_mut(&self.place) {
            pending.puts -= 1;
            if pending.puts == 0 {
                tags.remove(&self.place);
            }
        }
    }
}
