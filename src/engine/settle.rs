//! Jobs that the plan itself settles: recorded and told, nothing is done.

use std::collections::BTreeMap;

use super::context::{Claims, RunContext};
use super::deferral;
use super::event::Event;
use super::fault::Fault;
use super::parking;
use super::report::{Change, Failure};
use super::run::place_failed;
use crate::oci::{Digest, Tag};
use crate::plan::{CopyReason, Decision, ErrorKind, FailReason, RepositoryPlan};
use crate::store::{DeferredImage, FinishedJob, JobOutcome, NewJob};

/// Puts that were not heard of are seen to have been done, and get their line in the audit trail.
async fn complete_writes(context: &RunContext, plan: &RepositoryPlan) {
    if context.claims != Claims::Make {
        return;
    }
    let mut in_step: BTreeMap<_, BTreeMap<&Tag, &Digest>> = BTreeMap::new();
    for image in &plan.images {
        let Some(digest) = &image.digest else { continue };
        for destination in &image.destinations {
            if destination.decision == Decision::InStep {
                let place = (destination.registry.as_str(), &destination.repository);
                in_step.entry(place).or_default().insert(&image.tag, digest);
            }
        }
    }
    for ((registry, repository), tags) in in_step {
        if let Err(error) = context.store.complete_writes(registry, repository, &tags).await {
            tracing::warn!(run = %context.run, "cannot complete the audit trail: {error}");
        }
    }
}

/// Settles the jobs that need nothing done; gives how many. Recorded is what a user may ask for later: of images in step, the
/// many of every run, the report has the number.
pub(super) async fn settle(context: &RunContext, plan: &RepositoryPlan) -> usize {
    let mut jobs = Vec::new();
    let mut waiting = Vec::new();
    let mut settled_jobs = 0;
    complete_writes(context, plan).await;
    let source_place = format!("{}/{}", plan.registry, plan.repository);
    for image in &plan.images {
        let source = format!("{source_place}:{}", image.tag);
        for destination in &image.destinations {
            let Some(finished) = settled(&destination.decision) else {
                continue;
            };
            let waits = deferral::instead_of_planned(context, &destination.decision, destination.registry.as_str());
            let finished = match &waits {
                Some(wait) => deferral::finished(wait, 1, 0),
                None => finished,
            };
            settled_jobs += 1;
            if let Some(wait) = &waits {
                waiting.push(DeferredImage {
                    source: plan.repository.clone(),
                    registry: destination.registry.to_string(),
                    repository: destination.repository.clone(),
                    tag: image.tag.clone(),
                    digest: image.source_digest.clone(),
                    message: wait.message.clone(),
                    since: context.parking.started_at,
                    until: wait.until,
                });
            }
            let place = format!("{}/{}:{}", destination.registry, destination.repository, image.tag);
            context.ledger.job(destination.registry.as_str(), finished.outcome);
            if destination.trusted {
                context.ledger.trusted(destination.registry.as_str());
            }
            match (finished.outcome, finished.kind) {
                (JobOutcome::InStep, _) => {}
                (JobOutcome::Failed, kind) => context.ledger.failure(Failure {
                    source: source.clone(),
                    destination: Some(place.clone()),
                    job: None,
                    digest: image.digest.clone(),
                    kind: kind.unwrap_or(ErrorKind::Invalid),
                    status: finished.status,
                    code: finished.code.clone(),
                    message: finished.message.clone().unwrap_or_default(),
                    attempts: finished.attempts,
                    next_attempt_at: finished.next_attempt_at,
                }),
                _ => context.ledger.change(Change {
                    source: source.clone(),
                    destination: place.clone(),
                    digest: image.digest.clone(),
                    previous_digest: destination.previous.clone(),
                    outcome: finished.outcome,
                }),
            }
            if finished.outcome == JobOutcome::InStep {
                continue;
            }
            context.events.tell(Event::JobFinished {
                run: context.run,
                job: None,
                source: source.clone(),
                destination: place,
                outcome: finished.outcome,
                message: finished.message.clone(),
                bytes: 0,
            });
            let new = NewJob {
                run: context.run,
                source_registry: plan.registry.as_str(),
                source_repository: &plan.repository,
                reference: image.tag.as_str(),
                destination_registry: destination.registry.as_str(),
                destination_repository: &destination.repository,
                digest: image.digest.as_ref(),
                owner: &context.owner,
            };
            jobs.push((new, finished));
        }
    }
    if !jobs.is_empty()
        && let Err(error) = context.store.record_settled_jobs(&jobs, context.clock.now()).await
    {
        place_failed(context, source_place, &Fault::from(error));
    }
    // As those that were put off by their jobs: a later run in the same pause then knows them.
    if !waiting.is_empty() {
        deferral::keep(context, &waiting).await;
    }
    settled_jobs
}

/// The end of a job that the plan itself settles; `None` for one that must be copied.
fn settled(decision: &Decision) -> Option<FinishedJob> {
    let (outcome, kind, message) = match decision {
        Decision::Copy { .. } => return None,
        Decision::Fail {
            reason: FailReason::Parked(failure),
            ..
        } => return Some(parking::still_failed(failure)),
        Decision::InStep => (JobOutcome::InStep, None, None),
        Decision::Keep { reason } => (JobOutcome::Kept, None, Some(kept_message(*reason).to_owned())),
        Decision::Skip { available } => (JobOutcome::Skipped, None, Some(skip_message(available))),
        Decision::Gone => (
            JobOutcome::Gone,
            None,
            Some("the tag vanished at the source".to_owned()),
        ),
        Decision::Fail { kind, reason } => (JobOutcome::Failed, Some(*kind), Some(fail_message(reason))),
    };
    let seen = match decision {
        Decision::Fail {
            reason: FailReason::SourceUnknown(unknown) | FailReason::DestinationUnknown(unknown),
            ..
        } => Some(unknown),
        _ => None,
    };
    Some(FinishedJob {
        outcome,
        kind,
        status: seen.and_then(|unknown| unknown.status),
        code: seen.and_then(|unknown| unknown.code.clone()),
        message,
        attempts: 1,
        bytes_written: 0,
        next_attempt_at: None,
    })
}

/// Why an image without a wanted platform is skipped; an index may have any number of platforms.
pub(super) fn skip_message(available: &[String]) -> String {
    let mut shown: Vec<&str> = Vec::new();
    for platform in available {
        if !shown.contains(&platform.as_str()) && shown.len() <= PLATFORMS_SHOWN {
            shown.push(platform);
        }
    }
    let more = if shown.len() > PLATFORMS_SHOWN { " and more" } else { "" };
    shown.truncate(PLATFORMS_SHOWN);
    format!("none of the wanted platforms is there, only {}{more}", shown.join(", "))
}

/// Platforms named in one message at most.
const PLATFORMS_SHOWN: usize = 10;

fn kept_message(reason: CopyReason) -> &'static str {
    match reason {
        CopyReason::Moved => "the source tag has moved, and the rule says `moved_tags: keep`",
        _ => "the destination holds an image that transship did not write, and the rule says `on_conflict: keep`",
    }
}

/// A plan's failure in words.
pub(super) fn fail_message(reason: &FailReason) -> String {
    match reason {
        FailReason::MovedTag => "the source tag has moved, and the rule says `moved_tags: fail`".to_owned(),
        FailReason::Conflict => {
            "the destination holds an image that transship did not write, and the rule says `on_conflict: fail`"
                .to_owned()
        }
        FailReason::SourceUnknown(unknown) | FailReason::DestinationUnknown(unknown) => unknown.message.clone(),
        FailReason::Parked(failure) => failure.message.clone(),
        FailReason::Ambiguous { claim } => {
            format!(
                "another source wants the same destination tag ({claim}): give one of them another `to`. A rule that is gone or has another source now claims nothing more when the daemon has read the rules again"
            )
        }
    }
}
