//! One run of one rule: repositories are observed and planned one after the other, and copying begins with the first.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::attachments_due::attachments_due;
use super::context::{Claims, RunContext};
use super::deferral;
use super::event::Event;
use super::fault::Fault;
use super::job::{GroupDestination, ImageGroup, copy_image, refresh_attachments, warn};
use super::metered::{self, Promise, Wanted};
use super::observe::{MatchedRepository, Observed, filter, observe};
use super::parking;
use super::report::{Change, Failure};
use super::requests::Only;
use super::several::unordered;
use crate::oci::{Reference, RepositoryName, Tag};
use crate::plan::{
    CopyReason, Decision, ErrorKind, FailReason, PlannedDestination, PlannedImage, RepositoryPlan, RepositoryProblem,
    plan_repository,
};
use crate::registry::Side;
use crate::store::{DeferredImage, FinishedJob, JobOutcome, NewJob};

/// Repositories observed at once. Two requests each for the listings, so the registry's four lists at once stay busy.
pub(super) const REPOSITORIES_AT_ONCE: usize = 4;

/// Images copied at once. Most of their time is spent waiting for the registries' own limits; what this bounds is memory.
const IMAGES_AT_ONCE: usize = 32;

/// Planned images that wait for their turn at most; past it, planning pauses.
const PLANNED_AHEAD: usize = 64;

/// What the planning side hands to the copying side.
#[derive(Debug)]
pub(super) enum Work {
    Copy(ImageGroup, Option<Promise>),
    RefreshAttachments(ImageGroup, Option<Promise>),
}

/// Where the planning side puts what is to be done.
struct Outlet<'a> {
    sender: &'a mpsc::Sender<Work>,
    /// What waits until the whole rule has been looked at, as its source counts what is read.
    wanted: Mutex<Wanted>,
    /// What the rule let wait in earlier runs.
    waited: Vec<DeferredImage>,
}

/// The repositories that a rule matches.
#[derive(Debug, Default)]
pub(super) struct Matches {
    pub(super) repositories: Vec<MatchedRepository>,
    /// Patterns that match nothing, in words: mostly a slip of the pen, which would go unnoticed for ever.
    pub(super) warnings: Vec<String>,
}

/// Finds the source repositories that the rule matches. What cannot be listed is a failure of the run and stops nothing else.
pub(super) async fn match_repositories(context: &RunContext) -> Matches {
    let mut matches = Matches::default();
    let matched = &mut matches.repositories;
    let mut seen = BTreeSet::new();
    let entries = &context.rule.repositories;
    let any_glob = entries.iter().any(|entry| entry.pattern.exact().is_none());
    let catalogue = if any_glob { list_catalogue(context).await } else { None };
    for entry in entries {
        let excluded = |name| entry.exclude.iter().any(|pattern| pattern.captures(name).is_some());
        if let Some(name) = entry.pattern.exact() {
            if !excluded(&name) && seen.insert(name.clone()) {
                matched.push(MatchedRepository {
                    name,
                    named: true,
                    entry: entry.clone(),
                    captures: Vec::new(),
                });
            }
            continue;
        }
        let Some(catalogue) = &catalogue else { continue };
        if !catalogue.iter().any(|name| entry.pattern.matches(name)) {
            let (pattern, registry) = (&entry.pattern, context.source.name());
            let message = format!(
                "{pattern} matches none of the {} repositories of {registry}",
                catalogue.len()
            );
            matches.warnings.push(message);
        }
        for name in catalogue {
            if let Some(captures) = entry.pattern.captures(name)
                && !excluded(name)
                && seen.insert(name.clone())
            {
                matched.push(MatchedRepository {
                    name: name.clone(),
                    named: false,
                    entry: entry.clone(),
                    captures,
                });
            }
        }
    }
    matches
}

/// The catalogue of the source; `None` where it could not be listed, which is a failure of the run.
async fn list_catalogue(context: &RunContext) -> Option<Vec<RepositoryName>> {
    let name = context.source.name().to_owned();
    let fault = match context.source.list_repositories().await {
        Ok(Some(repositories)) => return Some(repositories),
        Ok(None) => Fault::new(
            ErrorKind::Unsupported,
            format!("{name} has no catalogue of its repositories: name them in the rule instead of using a pattern"),
        ),
        Err(error) => Fault::from(error.on(Side::Source)),
    };
    place_failed(context, name, &fault);
    None
}

/// Observes and plans one repository.
pub(super) async fn plan_one(context: &RunContext, matched: &MatchedRepository) -> (RepositoryPlan, Observed) {
    let observed = observe(context, matched).await;
    let rule = &context.rule;
    let plan = plan_repository(
        filter(context, matched),
        rule.moved_tags,
        rule.on_conflict,
        &observed.inventory,
    );
    (plan, observed)
}

/// Runs the rule to its end, or until told to stop. What happened is in the ledger.
pub(super) async fn execute(context: &RunContext, only: &[Only]) {
    if let Some(wait) = deferral::long_pause(context, &context.source)
        && context.claims == Claims::Make
        && deferral::still_waiting(context, None, only, &wait).await
    {
        return;
    }
    let place = context.meters.enter(context);
    let Matches {
        repositories: matched,
        warnings,
    } = match_repositories(context).await;
    for message in warnings {
        warn(context, message);
    }
    let (sender, receiver) = mpsc::channel(PLANNED_AHEAD);
    let planning = async {
        let sender = sender;
        let outlet = Outlet {
            sender: &sender,
            wanted: Mutex::default(),
            waited: deferral::known(context).await,
        };
        let outlet = &outlet;
        let each = matched
            .iter()
            .filter(|matched| wanted_repository(only, matched))
            .map(|matched| async move {
                if context.control.may_start() {
                    plan_and_send(context, matched, only, outlet).await;
                }
            });
        unordered(each, REPOSITORIES_AT_ONCE).collect::<()>().await;
        let wanted = std::mem::take(&mut *outlet.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        metered::admit(context, place, wanted, &outlet.waited, outlet.sender).await;
    };
    // Images are copied by tasks of their own, so that planning which waits for them keeps none from moving on.
    futures_util::future::join(planning, copy_all(context, receiver)).await;
}

fn wanted_repository(only: &[Only], matched: &MatchedRepository) -> bool {
    only.is_empty() || only.iter().any(|only| only.repository == matched.name)
}

fn wanted_image(only: &[Only], repository: &RepositoryName, tag: &Tag, destination: &PlannedDestination) -> bool {
    only.iter().any(|only| {
        only.repository == *repository
            && only.reference == tag.as_str()
            && only.destination == destination.registry.as_str()
    })
}

async fn plan_and_send(context: &RunContext, matched: &MatchedRepository, only: &[Only], outlet: &Outlet<'_>) {
    let (mut plan, observed) = plan_one(context, matched).await;
    // Before anything is left out: what the plan does not have is taken to be no longer selected.
    let mut tried = parking::put_aside(context, &mut plan, &observed).await;
    deferral::end_waits(context, &plan, &outlet.waited).await;
    if !only.is_empty() {
        let RepositoryPlan { images, repository, .. } = &mut plan;
        for image in images.iter_mut() {
            image
                .destinations
                .retain(|destination| wanted_image(only, repository, &image.tag, destination));
        }
        images.retain(|image| !image.destinations.is_empty());
    }
    context.ledger.repository(plan.tags_listed, plan.images.len());
    let source = format!("{}/{}", plan.registry, plan.repository);
    if let Some(problem) = &plan.problem {
        let wait = deferral::long_pause(context, &context.source).filter(|_| context.claims == Claims::Make);
        let waits = match &wait {
            Some(wait) => deferral::still_waiting(context, Some(&matched.name), only, wait).await,
            None => false,
        };
        if !waits {
            place_failed(context, source.clone(), &repository_fault(&source, problem));
        }
    }
    let settled = settle(context, &plan).await;
    let mut groups = groups(&plan, &observed);
    parking::name_tried(&mut groups, &mut tried);
    deferral::name_waited(&mut groups, &outlet.waited);
    context.events.tell(Event::RepositoryPlanned {
        run: context.run,
        source,
        to_copy: groups.iter().map(|group| group.destinations.len()).sum(),
        settled,
    });
    let due = attachments_due(context, &plan, &observed).await;
    if metered::is_planned(context) {
        let mut wanted = outlet.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.images.extend(groups);
        wanted.due.extend(due);
        return;
    }
    let copies = groups.into_iter().map(|group| Work::Copy(group, None));
    let refreshes = due.into_iter().map(|group| Work::RefreshAttachments(group, None));
    for work in copies.chain(refreshes) {
        // The other side stops listening when the run is stopped.
        if outlet.sender.send(work).await.is_err() {
            return;
        }
    }
}

/// A failure outside any job, reported and told.
fn place_failed(context: &RunContext, source: String, fault: &Fault) {
    context.events.tell(Event::PlaceFailed {
        run: context.run,
        source: source.clone(),
        message: fault.message.clone(),
    });
    context.ledger.place_failure(source, None, fault);
}

/// The failure that a repository's problem is.
pub(super) fn repository_fault(place: &str, problem: &RepositoryProblem) -> Fault {
    match problem {
        RepositoryProblem::Missing => Fault::new(
            ErrorKind::NotFound,
            format!(
                "the source repository {place} does not exist, or the user may not see it: check its name in the rule"
            ),
        ),
        RepositoryProblem::Unknown(unknown) => Fault::from(unknown.clone()),
    }
}

/// The images that are to be copied, each with all destinations that need it.
pub(super) fn groups(plan: &RepositoryPlan, observed: &Observed) -> Vec<ImageGroup> {
    let attachments = Arc::new(observed.attachments.clone());
    plan.images
        .iter()
        .filter_map(|image| {
            let destinations: Vec<GroupDestination> = image
                .destinations
                .iter()
                .filter_map(|destination| to_copy(image, destination))
                .collect();
            if destinations.is_empty() {
                return None;
            }
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

fn to_copy(image: &PlannedImage, destination: &PlannedDestination) -> Option<GroupDestination> {
    let Decision::Copy { reason } = &destination.decision else {
        return None;
    };
    Some(GroupDestination {
        registry: destination.registry.clone(),
        repository: destination.repository.clone(),
        tag: Some(image.tag.clone()),
        reason: *reason,
        previous: destination.previous.clone(),
        parked: None,
        waited: false,
    })
}

/// Records the jobs that need nothing done. Gives how many.
async fn settle(context: &RunContext, plan: &RepositoryPlan) -> usize {
    let mut jobs = Vec::new();
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
            let place = format!("{}/{}:{}", destination.registry, destination.repository, image.tag);
            context.ledger.job(destination.registry.as_str(), finished.outcome);
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
            if finished.outcome != JobOutcome::InStep {
                context.events.tell(Event::JobFinished {
                    run: context.run,
                    job: None,
                    source: source.clone(),
                    destination: place,
                    outcome: finished.outcome,
                    message: finished.message.clone(),
                    bytes: 0,
                });
            }
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
    if let Err(error) = context.store.record_settled_jobs(&jobs, context.clock.now()).await {
        place_failed(context, source_place, &Fault::from(error));
    }
    jobs.len()
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
            format!("another source wants the same destination tag ({claim}): give one of them another `to`")
        }
    }
}

/// Copies what comes until the planning side ends; a job that panics fails by itself.
async fn copy_all(context: &RunContext, mut work: mpsc::Receiver<Work>) {
    let slots = Arc::new(Semaphore::new(IMAGES_AT_ONCE));
    let mut jobs = JoinSet::new();
    loop {
        tokio::select! {
            next = work.recv() => {
                let Some(next) = next else { break };
                if !context.control.may_start() {
                    leave_out(context, &next);
                    continue;
                }
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
                let context = context.clone();
                jobs.spawn(async move {
                    match next {
                        Work::Copy(group, _promise) => copy_image(&context, group).await,
                        Work::RefreshAttachments(group, _promise) => refresh_attachments(&context, &group).await,
                    }
                    drop(slot);
                });
            }
            Some(ended) = jobs.join_next() => report_panic(context, ended),
        }
    }
    while let Some(ended) = jobs.join_next().await {
        report_panic(context, ended);
    }
}

/// Counts planned images that are not started, as the run was told to stop.
fn leave_out(context: &RunContext, work: &Work) {
    if let Work::Copy(group, _) = work {
        for destination in &group.destinations {
            context
                .ledger
                .job(destination.registry.as_str(), JobOutcome::Interrupted);
        }
    }
}

/// Copies images that were planned already.
pub(super) async fn copy_groups(context: &RunContext, groups: Vec<ImageGroup>) {
    let (sender, receiver) = mpsc::channel(PLANNED_AHEAD);
    let sending = async move {
        for group in groups {
            if sender.send(Work::Copy(group, None)).await.is_err() {
                return;
            }
        }
    };
    futures_util::future::join(sending, copy_all(context, receiver)).await;
}

fn report_panic(context: &RunContext, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        let fault = Fault::new(
            ErrorKind::Local,
            format!("a job ended by a fault in transship itself: {error}"),
        );
        place_failed(context, context.rule.name.to_string(), &fault);
    }
}
