//! Images that wait: for a quota, or for a registry that wants to be left alone.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::context::{Claims, RunContext};
use super::event::Event;
use super::fault::Fault;
use super::job::{GroupDestination, ImageGroup, warn};
use super::report::Change;
use super::requests::Only;
use crate::oci::{Digest, RepositoryName, Tag};
use crate::plan::{Decision, ErrorKind, PAUSE_WAITED_FOR, RepositoryPlan};
use crate::registry::{Endpoint, Side};
use crate::store::{DeferredImage, FinishedJob, JobOutcome, NewJob};

/// Until when something waits, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) until: Timestamp,
    pub(super) message: String,
}

/// In whole seconds, as reports show it.
pub(super) fn seconds(time: Timestamp) -> Timestamp {
    if time.subsec_nanosecond() == 0 {
        return time;
    }
    Timestamp::from_second(time.as_second().saturating_add(1)).unwrap_or(time)
}

/// The pause that an end asked for, where it is longer than is waited for.
pub(super) fn long_pause(context: &RunContext, end: &Endpoint) -> Option<Wait> {
    let now = context.clock.now();
    let until = end.penalty()?;
    if until <= now || until.duration_since(now).unsigned_abs() <= PAUSE_WAITED_FOR {
        return None;
    }
    let until = seconds(until);
    let message = format!("{} wants no more requests before {until}", end.name());
    Some(Wait { until, message })
}

/// For what an image waits that failed with `fault`; `None` where it has simply failed.
pub(super) fn instead_of(context: &RunContext, fault: &Fault, destination: &str) -> Option<Wait> {
    let end = match fault.side? {
        Side::Source => &context.source,
        Side::Destination => context.destinations.values().find(|end| end.name() == destination)?,
    };
    // A copy by hand has no later run that would do it.
    if fault.kind != ErrorKind::Throttled || context.claims == Claims::Ignore {
        return None;
    }
    long_pause(context, end).or_else(|| spent(context, end))
}

/// The time at which a quota is there again that is spent.
fn spent(context: &RunContext, end: &Endpoint) -> Option<Wait> {
    let quota = end.quota()?;
    let now = context.clock.now();
    if quota.remaining > 0 || quota.renewed_at() <= now {
        return None;
    }
    let until = seconds(quota.renewed_at());
    let message = format!(
        "the quota of {} is spent, it is there again at {until} at the latest",
        end.name()
    );
    Some(Wait { until, message })
}

/// As [`instead_of`], for an image whose failure stands in the plan: it could not be looked at.
pub(super) fn instead_of_planned(context: &RunContext, decision: &Decision, destination: &str) -> Option<Wait> {
    let Decision::Fail {
        kind: ErrorKind::Throttled,
        ..
    } = decision
    else {
        return None;
    };
    if context.claims == Claims::Ignore {
        return None;
    }
    let there = context.destinations.values().find(|end| end.name() == destination);
    long_pause(context, &context.source).or_else(|| long_pause(context, there?))
}

/// The end of a job that waits.
pub(super) fn finished(wait: &Wait, attempts: u32, bytes: u64) -> FinishedJob {
    FinishedJob {
        outcome: JobOutcome::Deferred,
        kind: None,
        status: None,
        code: None,
        message: Some(wait.message.clone()),
        attempts,
        bytes_written: bytes,
        next_attempt_at: Some(wait.until),
    }
}

/// An image at one destination that waits.
pub(super) fn image(
    context: &RunContext,
    source: &RepositoryName,
    digest: Option<&Digest>,
    destination: &GroupDestination,
    wait: &Wait,
) -> Option<DeferredImage> {
    Some(DeferredImage {
        source: source.clone(),
        registry: destination.registry.to_string(),
        repository: destination.repository.clone(),
        tag: destination.tag.clone()?,
        digest: digest.cloned(),
        message: wait.message.clone(),
        since: context.parking.started_at,
        until: wait.until,
    })
}

/// Keeps that images wait. That this fails costs them their place in the queue, nothing else.
pub(super) async fn keep(context: &RunContext, images: &[DeferredImage]) {
    let kept = context
        .store
        .defer(context.rule.name.as_str(), context.source.name(), images)
        .await;
    if let Err(error) = kept {
        tracing::warn!(run = %context.run, "cannot keep that images wait: {error}");
    }
}

/// A job for each destination of each image, all of which wait.
pub(super) async fn put_off(context: &RunContext, groups: &[(ImageGroup, Wait)]) {
    let images: Vec<DeferredImage> = groups
        .iter()
        .flat_map(|(group, wait)| {
            let of = |destination| image(context, &group.repository, Some(&group.source), destination, wait);
            group.destinations.iter().filter_map(of)
        })
        .collect();
    keep(context, &images).await;
    record(context, &images).await;
}

/// Records a job for each image, that it waits, and says so once.
async fn record(context: &RunContext, images: &[DeferredImage]) {
    let Some(first) = images.iter().min_by_key(|image| image.until) else {
        return;
    };
    let mut jobs = Vec::with_capacity(images.len());
    for image in images {
        let wait = Wait {
            until: image.until,
            message: image.message.clone(),
        };
        let new = NewJob {
            run: context.run,
            source_registry: context.source.name(),
            source_repository: &image.source,
            reference: image.tag.as_str(),
            destination_registry: &image.registry,
            destination_repository: &image.repository,
            digest: image.digest.as_ref(),
            owner: &context.owner,
        };
        jobs.push((new, finished(&wait, 0, 0)));
        let source = format!("{}/{}:{}", context.source.name(), image.source, image.tag);
        let destination = format!("{}/{}:{}", image.registry, image.repository, image.tag);
        context.ledger.job(&image.registry, JobOutcome::Deferred);
        context.ledger.change(Change {
            source: source.clone(),
            destination: destination.clone(),
            digest: image.digest.clone(),
            previous_digest: None,
            outcome: JobOutcome::Deferred,
        });
        context.events.tell(Event::JobFinished {
            run: context.run,
            job: None,
            source,
            destination,
            outcome: JobOutcome::Deferred,
            message: Some(image.message.clone()),
            bytes: 0,
        });
    }
    if let Err(error) = context.store.record_settled_jobs(&jobs, context.clock.now()).await {
        context
            .ledger
            .place_failure(context.source.name().to_owned(), None, &Fault::from(error));
    }
    let message = format!(
        "put off: {} of {}; {}",
        images.len(),
        context.source.name(),
        first.message
    );
    warn(context, message);
}

/// What the rule let wait in earlier runs, the longest waiting first.
pub(super) async fn known(context: &RunContext) -> Vec<DeferredImage> {
    let (rule, source) = (context.rule.name.as_str(), context.source.name());
    context.store.deferred(rule, source).await.unwrap_or_else(|error| {
        tracing::warn!(run = %context.run, "cannot look at what waits: {error}");
        Vec::new()
    })
}

/// Lists the images that waited before and cannot be looked at now, as the source wants to be left alone: those that
/// `are_meant`. False where none is known, so that nothing can be said of what is not looked at.
pub(super) async fn still_waiting(
    context: &RunContext,
    are_meant: impl Fn(&DeferredImage) -> bool,
    only: &[Only],
    wait: &Wait,
) -> bool {
    let known = known(context).await;
    let wanted = |image: &DeferredImage| {
        are_meant(image)
            && (only.is_empty()
                || only.iter().any(|only| {
                    only.repository == image.source
                        && only.reference == image.tag.as_str()
                        && only.destination == image.registry
                }))
    };
    let images: Vec<DeferredImage> = known
        .into_iter()
        .filter(wanted)
        .map(|image| DeferredImage {
            until: wait.until.max(image.until),
            message: if wait.until < image.until {
                image.message
            } else {
                wait.message.clone()
            },
            ..image
        })
        .collect();
    record(context, &images).await;
    !images.is_empty()
}

/// Lets the images of a planned repository go that wait no longer: they are in step, or no longer selected. `waited` is
/// what the rule lets wait.
pub(super) async fn end_waits<'a>(
    context: &RunContext,
    plan: &RepositoryPlan,
    waited: impl Iterator<Item = &'a DeferredImage>,
) {
    if plan.problem.is_some() {
        return;
    }
    let still = |waiting: &&DeferredImage| {
        plan.images.iter().any(|image| {
            image.tag == waiting.tag
                && image.destinations.iter().any(|destination| {
                    destination.registry.as_str() == waiting.registry
                        && destination.repository == waiting.repository
                        && matches!(destination.decision, Decision::Copy { .. } | Decision::Fail { .. })
                })
        })
    };
    let over: Vec<(&str, &RepositoryName, &Tag)> = waited
        .filter(|image| image.source == plan.repository)
        .filter(|image| !still(image))
        .map(|image| (image.registry.as_str(), &image.repository, &image.tag))
        .collect();
    end(context, &over).await;
}

/// Keeps that an image waits whose job came to nothing, or that it waits no longer. A stop or a passing failure (`fault`) says
/// nothing of that: the image keeps its place in the queue.
pub(super) async fn settle(
    context: &RunContext,
    group: &ImageGroup,
    destination: &GroupDestination,
    wait: Option<&Wait>,
    fault: Option<&Fault>,
) {
    let Some(wait) = wait else {
        if fault.is_some_and(|fault| !fault.kind.is_parked()) {
            return;
        }
        if let (true, Some(tag)) = (destination.waited, &destination.tag) {
            end(
                context,
                &[(destination.registry.as_str(), &destination.repository, tag)],
            )
            .await;
        }
        return;
    };
    let waiting = image(context, &group.repository, Some(&group.source), destination, wait);
    keep(context, waiting.as_slice()).await;
}

/// Marks the images of a plan that waited before.
pub(super) fn name_waited(groups: &mut [ImageGroup], waited: &[DeferredImage]) {
    if waited.is_empty() {
        return;
    }
    let waited: BTreeSet<(&str, &RepositoryName, &Tag)> = waited
        .iter()
        .map(|image| (image.registry.as_str(), &image.repository, &image.tag))
        .collect();
    for destination in groups.iter_mut().flat_map(|group| &mut group.destinations) {
        let place = |tag| (destination.registry.as_str(), &destination.repository, tag);
        destination.waited = destination
            .tag
            .as_ref()
            .map(place)
            .is_some_and(|place| waited.contains(&place));
    }
}

/// Lets images go that wait no longer.
pub(super) async fn end(context: &RunContext, images: &[(&str, &RepositoryName, &Tag)]) {
    let rule = context.rule.name.as_str();
    if let Err(error) = context.store.end_deferral(rule, images).await {
        tracing::warn!(run = %context.run, "cannot end the wait of images: {error}");
    }
}
