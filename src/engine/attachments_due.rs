//! Which images that are in step have attachments to look after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::context::RunContext;
use super::job::{GroupDestination, ImageGroup};
use super::observe::Observed;
use crate::oci::{Digest, Reference};
use crate::plan::{CopyReason, Decision, PlannedImage, RepositoryPlan};

/// How often the attachments of an image that is in step are compared: they are added after the image, and asking for
/// them costs requests for each image.
const RECHECK: Duration = Duration::from_secs(24 * 3600);

/// Images in step whose attachments are due: never compared here, compared too long ago, or an attachment tag is listed at
/// the source and not at the destination.
pub(super) async fn attachments_due(
    context: &RunContext,
    plan: &RepositoryPlan,
    observed: &Observed,
) -> Vec<ImageGroup> {
    let now = context.clock.now();
    let attachments = Arc::clone(&observed.attachments);
    let mut due: BTreeMap<usize, Vec<GroupDestination>> = BTreeMap::new();
    for inventory in &observed.inventory.destinations {
        let in_step = |image: &PlannedImage| {
            let destination = image.destinations.iter().find(|d| d.registry == inventory.registry);
            destination.is_some_and(|d| d.decision == Decision::InStep)
        };
        if !plan.images.iter().any(in_step) {
            continue;
        }
        let checked = match context
            .store
            .attachments_checked(inventory.registry.as_str(), &inventory.repository)
            .await
        {
            Ok(checked) => checked,
            Err(error) => {
                tracing::warn!("cannot tell when attachments were compared: {error}");
                continue;
            }
        };
        let held = observed.destination_attachments.get(&inventory.registry);
        let held = held.and_then(Option::as_ref);
        for (index, image) in plan.images.iter().enumerate().filter(|(_, image)| in_step(image)) {
            let (Some(digest), Some(source)) = (&image.digest, &image.source_digest) else {
                continue;
            };
            // Signatures of an index that is rewritten never come, so their absence is nothing to look after.
            let whole = digest == source;
            let tags = observed.attachments.get(source).filter(|_| whole);
            let tag_missing =
                tags.is_some_and(|tags| held.is_some_and(|held| tags.iter().any(|tag| !held.contains(tag))));
            if tag_missing || !fresh(&checked, digest, now) {
                due.entry(index).or_default().push(GroupDestination {
                    registry: inventory.registry.clone(),
                    repository: inventory.repository.clone(),
                    tag: None,
                    reason: CopyReason::NewTag,
                    previous: None,
                    parked: None,
                    waited: false,
                    put: None,
                });
            }
        }
    }
    due.into_iter()
        .filter_map(|(index, destinations)| {
            let image = &plan.images[index];
            Some(ImageGroup {
                repository: plan.repository.clone(),
                reference: Reference::Tag(image.tag.clone()),
                source: image.source_digest.clone()?,
                wanted: image.digest.clone(),
                destinations,
                attachments: Arc::clone(&attachments),
            })
        })
        .collect()
}

fn fresh(checked: &BTreeMap<Digest, Timestamp>, digest: &Digest, now: Timestamp) -> bool {
    checked
        .get(digest)
        .is_some_and(|at| now.duration_since(*at).unsigned_abs() < RECHECK)
}
