//! One run of one rule: repositories are observed and planned one after the other, and copying begins with the first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::attachments_due::attachments_due;
use super::blob_table::Wants;
use super::context::{Claims, RunContext};
use super::deferral;
use super::event::Event;
use super::fault::Fault;
use super::job::{GroupDestination, ImageGroup, warn};
use super::lanes::copy_all;
use super::metered::{self, Promise, Wanted};
use super::observe::{Observed, filter, list_both, observe, observe_part};
use super::parking;
use super::planned::Look;
use super::requests::Only;
use super::settle::settle;
use super::several::one_by_one;
use crate::oci::{Reference, RepositoryName, Tag};
use crate::plan::{
    Decision, ErrorKind, PlannedDestination, PlannedImage, RepositoryPlan, RepositoryProblem, SelectedTagsByPattern,
    plan_images, plan_repository, repository_problem,
};
use crate::registry::Side;
use crate::rules::{MatchedRepository, RepositoryPattern};
use crate::store::DeferredImage;

/// Repositories observed at once. Two requests each for the listings, so the registry's four lists at once stay busy.
pub(super) const REPOSITORIES_AT_ONCE: usize = 4;

/// Planned images that wait for their turn at most; past it, planning pauses.
const PLANNED_AHEAD: usize = 64;

/// What the planning side hands to the copying side.
#[derive(Debug)]
pub(super) enum Work {
    /// Without the last where it is to be told only when the image begins.
    Copy(ImageGroup, Option<Arc<Promise>>, Option<Wants>),
    RefreshAttachments(ImageGroup, Option<Arc<Promise>>),
}

/// Where the planning side puts what is to be done.
struct Outlet<'a> {
    sender: &'a mpsc::Sender<Work>,
    /// What waits until the whole rule has been looked at, as its source counts what is read.
    wanted: Mutex<Wanted>,
    /// What the rule let wait in earlier runs.
    waited: Vec<DeferredImage>,
    selected: Mutex<SelectedTagsByPattern>,
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
    let entries = &context.rule.repositories;
    let any_glob = entries.iter().any(|entry| entry.pattern.exact().is_none());
    let catalogue = if any_glob { list_catalogue(context).await } else { None };
    let without_any = |catalogue: &[RepositoryName]| {
        let patterns = entries.iter().map(|entry| &entry.pattern);
        let empty =
            patterns.filter(|pattern| pattern.exact().is_none() && !catalogue.iter().any(|name| pattern.matches(name)));
        let words = empty.map(|pattern| {
            let (registry, all) = (context.source.name(), catalogue.len());
            format!("{pattern} matches none of the {all} repositories of {registry}")
        });
        words.collect()
    };
    Matches {
        repositories: context.rule.matches(catalogue.as_deref().unwrap_or_default()),
        warnings: catalogue.as_deref().map(without_any).unwrap_or_default(),
    }
}

/// The literal beginnings of what patterns match, as repositories are listed by; none where all are names.
pub(super) fn beginnings<'p>(patterns: impl Iterator<Item = &'p RepositoryPattern>) -> Vec<String> {
    let globs = patterns.filter(|pattern| pattern.exact().is_none());
    let mut below: Vec<String> = globs.map(|pattern| pattern.literal_prefix().to_owned()).collect();
    below.sort_unstable();
    // What begins with a shorter one is in its list.
    below.dedup_by(|longer, shorter| longer.starts_with(shorter.as_str()));
    below
}

/// The catalogue of the source; `None` where it could not be listed, which is a failure of the run, as is a part that could not.
async fn list_catalogue(context: &RunContext) -> Option<Vec<RepositoryName>> {
    let name = context.source.name().to_owned();
    let below = beginnings(context.rule.repositories.iter().map(|entry| &entry.pattern));
    let fault = match context.source.list_repositories_in_part(&below).await {
        Ok((Some(repositories), left_out)) => {
            for error in left_out {
                place_failed(context, name.clone(), &Fault::from(error.on(Side::Source)));
            }
            return Some(repositories);
        }
        Ok((None, _)) => Fault::new(
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
    let Some(Matches {
        repositories: matched,
        warnings,
    }) = until_abort(context, match_repositories(context)).await
    else {
        return;
    };
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
            selected: Mutex::default(),
        };
        let outlet = &outlet;
        let wanted = matched.into_iter().filter(|matched| wanted_repository(only, matched));
        let each = |matched: MatchedRepository| async move {
            if context.control.may_start() {
                plan_and_send(context, &matched, only, outlet).await;
            }
        };
        one_by_one(wanted, each)
            .buffer_unordered(REPOSITORIES_AT_ONCE)
            .collect::<()>()
            .await;
        // Of a run that was stopped, or is about some images only, nothing can be said.
        if only.is_empty() && context.control.may_start() {
            let selected = outlet.selected.lock().unwrap_or_else(PoisonError::into_inner);
            for message in selected.warnings(context.source.name()) {
                warn(context, message);
            }
        }
        let wanted = std::mem::take(&mut *outlet.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        metered::admit(context, place, wanted, &outlet.waited, outlet.sender).await;
    };
    // Images are copied by tasks of their own, so that planning which waits for them keeps none from moving on.
    futures_util::future::join(until_abort(context, planning), copy_all(context, receiver)).await;
}

/// `None` where the run is to stop now: a listing that hangs would keep it for as long as requests may take.
pub(super) async fn until_abort<T>(context: &RunContext, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        _ = context.control.wait_abort() => None,
    }
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

/// Plans a repository part by part and hands on what is to be done; waits while enough is waiting to be copied.
async fn plan_and_send(context: &RunContext, matched: &MatchedRepository, only: &[Only], outlet: &Outlet<'_>) {
    let listed = list_both(context, matched).await;
    context.ledger.repository(listed.tags_listed);
    let pattern = matched.entry.pattern.to_string();
    outlet.selected.lock().unwrap_or_else(PoisonError::into_inner).count(
        &pattern,
        listed.tags_listed,
        listed.selected.len(),
    );
    for (index, part) in listed.parts().into_iter().enumerate() {
        if index > 0 && !context.control.may_start() {
            return;
        }
        let look = context.planned.look();
        let observed = observe_part(context, matched, &listed, part, index == 0).await;
        if !plan_part(context, look, &observed, part, only, outlet).await {
            return;
        }
    }
}

/// False where nobody listens any more.
async fn plan_part(
    context: &RunContext,
    look: Look,
    observed: &Observed,
    tags: &[Tag],
    only: &[Only],
    outlet: &Outlet<'_>,
) -> bool {
    let rule = &context.rule;
    let inventory = &observed.inventory;
    let mut plan = RepositoryPlan {
        registry: inventory.registry.clone(),
        repository: inventory.repository.clone(),
        problem: repository_problem(inventory),
        tags_listed: tags.len(),
        images: plan_images(rule.moved_tags, rule.on_conflict, inventory, tags),
        excluded: BTreeMap::new(),
    };
    // Before anything is left out: what the plan does not have is taken to be no longer selected.
    let mut tried = parking::put_aside(context, &mut plan, observed).await;
    let waited = outlet.waited.iter().filter(|image| observed.is_about(&image.tag));
    deferral::end_waits(context, &plan, waited).await;
    if !only.is_empty() {
        let RepositoryPlan { images, repository, .. } = &mut plan;
        for image in images.iter_mut() {
            image
                .destinations
                .retain(|destination| wanted_image(only, repository, &image.tag, destination));
        }
        images.retain(|image| !image.destinations.is_empty());
    }
    context.ledger.selected(plan.images.len());
    let source = format!("{}/{}", plan.registry, plan.repository);
    if let Some(problem) = &plan.problem {
        let wait = deferral::long_pause(context, &context.source).filter(|_| context.claims == Claims::Make);
        let waits = match &wait {
            Some(wait) => deferral::still_waiting(context, Some(&inventory.repository), only, wait).await,
            None => false,
        };
        if !waits {
            place_failed(context, source.clone(), &repository_fault(&source, problem));
        }
    }
    let settled = settle(context, &plan).await;
    let mut groups = groups(&plan, observed);
    parking::name_tried(&mut groups, &mut tried);
    deferral::name_waited(&mut groups, &outlet.waited);
    context.planned.note(context.run, look, &plan, &mut groups);
    context.events.tell(Event::RepositoryPlanned {
        run: context.run,
        source,
        to_copy: groups.iter().map(|group| group.destinations.len()).sum(),
        settled,
    });
    let due = attachments_due(context, &plan, observed).await;
    if metered::is_planned(context) {
        let mut wanted = outlet.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.images.extend(groups);
        wanted.due.extend(due);
        return true;
    }
    // All at once, before the first of them begins.
    let copies = groups.into_iter().map(|group| copy_work(context, group, None));
    let copies: Vec<Work> = copies.collect();
    let refreshes = due.into_iter().map(|group| Work::RefreshAttachments(group, None));
    for work in copies.into_iter().chain(refreshes) {
        if outlet.sender.send(work).await.is_err() {
            return false;
        }
    }
    true
}

/// A failure outside any job, reported and told.
pub(super) fn place_failed(context: &RunContext, source: String, fault: &Fault) {
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
                attachments: Arc::clone(&observed.attachments),
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
        put: None,
    })
}

/// Says which blobs the image wants, where its manifest has been read: of several images the first brings what all want
/// before what it wants alone.
pub(super) fn wants(context: &RunContext, group: &ImageGroup) -> Wants {
    let manifest = context
        .manifests
        .peek(&context.source, &group.repository, &group.source);
    let blobs = manifest.iter().flat_map(|manifest| manifest.blobs());
    let keys = blobs.flat_map(|blob| {
        let registries = group
            .destinations
            .iter()
            .map(|destination| destination.registry.to_string());
        registries.map(|registry| (registry, blob.digest.clone()))
    });
    context.blobs.want(keys.collect())
}

/// An image to be copied, with what it wants told.
pub(super) fn copy_work(context: &RunContext, group: ImageGroup, promise: Option<Promise>) -> Work {
    let wants = wants(context, &group);
    Work::Copy(group, promise.map(Arc::new), Some(wants))
}

/// Copies images that were planned already.
pub(super) async fn copy_groups(context: &RunContext, groups: Vec<ImageGroup>) {
    let (sender, receiver) = mpsc::channel(PLANNED_AHEAD);
    let sending = async move {
        for group in groups {
            if sender.send(copy_work(context, group, None)).await.is_err() {
                return;
            }
        }
    };
    futures_util::future::join(sending, copy_all(context, receiver)).await;
}
