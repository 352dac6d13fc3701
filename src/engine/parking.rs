//! Final failures are put aside, and looked at again when their images are planned.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::context::{Claims, RunContext, RunParking};
use super::fault::Fault;
use super::job::{GroupDestination, ImageGroup};
use super::observe::Observed;
use crate::plan::{self, ErrorKind, ParkedFailure, ParkingPlace, RepositoryPlan};
use crate::store::{FinishedJob, JobOutcome, Store, StoreError};

/// Lets images of the plan wait that failed for good before. Gives those that are tried again now.
pub(super) async fn put_aside(
    context: &RunContext,
    plan: &mut RepositoryPlan,
    observed: &Observed,
) -> BTreeMap<ParkingPlace, ParkedFailure> {
    let looked = look_at(context, plan, observed).await;
    looked.unwrap_or_else(|error| {
        // They are tried once too often then, which is better than not at all.
        tracing::warn!(run = %context.run, "cannot look at what failed before: {error}");
        BTreeMap::new()
    })
}

async fn look_at(
    context: &RunContext,
    plan: &mut RepositoryPlan,
    observed: &Observed,
) -> Result<BTreeMap<ParkingPlace, ParkedFailure>, StoreError> {
    let source = format!("{}/{}", plan.registry, plan.repository);
    let mut parked = BTreeMap::new();
    for destination in &observed.inventory.destinations {
        let there = context
            .store
            .parked(&source, destination.registry.as_str(), &destination.repository)
            .await?;
        parked.extend(there.into_iter().filter(|((_, _, tag), _)| observed.is_about(tag)));
    }
    if parked.is_empty() {
        return Ok(parked);
    }
    let RunParking { obeys, started_at } = context.parking;
    let parking = plan::put_aside(plan, parked, obeys, started_at);
    context.store.unpark(&parking.over, None).await?;
    let rule = context.rule.name.as_str();
    context.store.unpark(&parking.unwanted, Some(rule)).await?;
    Ok(parking.tried)
}

/// Tells jobs how their images failed before.
pub(super) fn name_tried(groups: &mut [ImageGroup], tried: &mut BTreeMap<ParkingPlace, ParkedFailure>) {
    if tried.is_empty() {
        return;
    }
    for destination in groups.iter_mut().flat_map(|group| &mut group.destinations) {
        if let Some(place) = place(destination) {
            destination.parked = tried.remove(&place);
        }
    }
}

fn place(destination: &GroupDestination) -> Option<ParkingPlace> {
    let tag = destination.tag.clone()?;
    Some((destination.registry.to_string(), destination.repository.clone(), tag))
}

/// The end of a job that is not tried, as its time has not come.
pub(super) fn still_failed(failure: &ParkedFailure) -> FinishedJob {
    FinishedJob {
        outcome: JobOutcome::Failed,
        kind: Some(failure.kind),
        status: failure.status,
        code: failure.code.clone(),
        message: Some(failure.message.clone()),
        attempts: failure.attempts,
        bytes_written: 0,
        next_attempt_at: Some(failure.until),
    }
}

/// Puts a job aside that failed for good, and forgets it where that is over. Gives when it is tried again by itself,
/// where that is not simply the next run.
pub(super) async fn settle(
    context: &RunContext,
    group: &ImageGroup,
    destination: &GroupDestination,
    fault: Option<&Fault>,
    attempts: u32,
) -> Option<Timestamp> {
    // A copy by hand has no next run.
    if context.claims == Claims::Ignore {
        return None;
    }
    let place = place(destination)?;
    // A stopped job says nothing about its image.
    if fault.is_some_and(|fault| fault.kind == ErrorKind::Cancelled) {
        return None;
    }
    let failure = fault.and_then(|fault| parked(context, group, destination, fault, attempts));
    let stored = match &failure {
        Some(failure) => {
            let source = format!("{}/{}", context.source.name(), group.repository);
            let rule = context.rule.name.as_str();
            context.store.park(&place, &source, rule, failure).await
        }
        None if destination.parked.is_some() => context.store.unpark(&[place], None).await,
        None => Ok(()),
    };
    match stored {
        Ok(()) => failure.map(|failure| failure.until),
        Err(error) => {
            tracing::warn!(run = %context.run, "cannot keep that an image failed: {error}");
            None
        }
    }
}

/// Lets what the settings may be to blame for be tried by the next run, as they have been read anew. That this fails costs
/// those images the rest of their wait, nothing else.
pub(super) async fn settings_were_read(store: &Store, now: Timestamp) {
    match store.end_parking(&plan::MENDED_BY_SETTINGS, now).await {
        Ok(0) => {}
        Ok(images) => tracing::info!(
            images,
            "what failed for a login, a right, a certificate or a setting is tried again by the next run"
        ),
        Err(error) => tracing::warn!("what failed for a setting waits on: {error}"),
    }
}

fn parked(
    context: &RunContext,
    group: &ImageGroup,
    destination: &GroupDestination,
    fault: &Fault,
    attempts: u32,
) -> Option<ParkedFailure> {
    let digest = group.wanted.as_ref()?;
    let before = destination.parked.as_ref();
    let (times, until) = plan::park(before, digest, fault.kind, context.parking.started_at)?;
    Some(ParkedFailure {
        digest: digest.clone(),
        kind: fault.kind,
        status: fault.status,
        code: fault.code.clone(),
        message: fault.message.clone(),
        attempts,
        times,
        until,
    })
}
