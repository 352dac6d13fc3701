//! Planning one repository, part by part, and handing on what is to be done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::attachments_due::attachments_due;
use super::context::{Claims, RunContext};
use super::deferral;
use super::event::Event;
use super::job::{GroupDestination, ImageGroup};
use super::latecomers::{Ends, Latecomers};
use super::metered::{self, Wanted};
use super::observe::{Observed, filter, list_both, observe, observe_part};
use super::parking;
use super::planned::Look;
use super::requests::Only;
use super::run::{Work, copy_work, place_failed, repository_fault};
use super::settle::settle;
use super::silent::Patience;
use crate::oci::{Reference, RepositoryName, Tag};
use crate::plan::{
    Decision, PlannedDestination, PlannedImage, RepositoryPlan, SelectedTagsByPattern, plan_images, plan_repository,
    repository_problem,
};
use crate::rules::{MatchedRepository, RegistryName};
use crate::store::DeferredImage;

/// What is planned, and where it goes.
pub(super) struct Outlet<'a> {
    sender: &'a mpsc::Sender<Work>,
    /// These images alone, where there are any.
    only: &'a [Only],
    /// What the rule let wait in earlier runs.
    waited: &'a [DeferredImage],
    /// What waits until the whole rule has been looked at, as its source counts what is read.
    pub(super) wanted: Mutex<Wanted>,
    pub(super) selected: Mutex<SelectedTagsByPattern>,
    /// Where destinations go that say nothing; `None` where they are planned by themselves.
    late: Option<&'a Latecomers>,
}

impl<'a> Outlet<'a> {
    /// Nothing has been planned yet.
    pub(super) fn new(
        sender: &'a mpsc::Sender<Work>,
        only: &'a [Only],
        waited: &'a [DeferredImage],
        late: Option<&'a Latecomers>,
    ) -> Self {
        Self {
            sender,
            only,
            waited,
            wanted: Mutex::default(),
            selected: Mutex::default(),
            late,
        }
    }
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

/// Plans a repository for all destinations that answer.
pub(super) async fn plan_together(context: &RunContext, matched: &MatchedRepository, outlet: &Outlet<'_>) {
    let (ends, late) = outlet.late.map_or_else(
        || (context.destinations.keys().cloned().collect(), Ends::new()),
        Latecomers::sort,
    );
    plan_and_send(context, matched, (ends, late), None, outlet).await;
}

/// Plans a repository for a destination that was left out, part by part from the tag on that follows `after`.
pub(super) async fn plan_alone(
    context: &RunContext,
    matched: &MatchedRepository,
    ends: Ends,
    after: Option<&Tag>,
    outlet: &Outlet<'_>,
) {
    plan_and_send(context, matched, (ends, Ends::new()), after, outlet).await;
}

/// Plans a repository part by part and hands on what is to be done; waits while enough is waiting to be copied.
async fn plan_and_send(
    context: &RunContext,
    matched: &MatchedRepository,
    (ends, mut late): (Ends, Ends),
    after: Option<&Tag>,
    outlet: &Outlet<'_>,
) {
    let patience = outlet.late.map_or(Patience::Endless, Patience::Short);
    let put_off = |ends: &Ends, after: Option<&Tag>| {
        if let Some(latecomers) = outlet.late {
            latecomers.put_off(matched, ends, after);
        }
    };
    let (mut listed, silent) = list_both(context, matched, &ends, patience).await;
    if outlet.late.is_some() {
        context.ledger.repository(listed.tags_listed);
        let pattern = matched.entry.pattern.to_string();
        let mut selected = outlet.selected.lock().unwrap_or_else(PoisonError::into_inner);
        selected.count(&pattern, listed.tags_listed, listed.selected.len());
    }
    late.extend(silent);
    // Of a source that could not be listed nothing is found out later either.
    if listed.is_known() {
        put_off(&late, None);
    }
    let selected = Arc::clone(&listed.selected);
    for part in listed.parts(after) {
        if part.start > 0 && !context.control.may_start() {
            return;
        }
        let look = context.planned.look();
        let tags = &selected[part.clone()];
        let planned = selected[..part.start].last();
        let (observed, silent) = observe_part(context, matched, &listed, part, patience).await;
        put_off(&silent, planned);
        listed.leave_out(&silent);
        if !plan_part(context, look, &observed, tags, outlet).await {
            return;
        }
    }
}

/// False where nobody listens any more.
async fn plan_part(context: &RunContext, look: Look, observed: &Observed, tags: &[Tag], outlet: &Outlet<'_>) -> bool {
    let only = outlet.only;
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
    // What other destinations wait for is not of this plan.
    let elsewhere = |image: &DeferredImage| {
        let is_it = |registry: &RegistryName| registry.as_str() == image.registry;
        context.destinations.keys().any(is_it) && !inventory.destinations.iter().any(|end| is_it(&end.registry))
    };
    let waited = outlet.waited.iter();
    let waited = waited.filter(|image| observed.is_about(&image.tag) && !elsewhere(image));
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
    if outlet.late.is_some() {
        context.ledger.selected(plan.images.len());
    }
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
    deferral::name_waited(&mut groups, outlet.waited);
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

fn wanted_image(only: &[Only], repository: &RepositoryName, tag: &Tag, destination: &PlannedDestination) -> bool {
    only.iter().any(|only| {
        only.repository == *repository
            && only.reference == tag.as_str()
            && only.destination == destination.registry.as_str()
    })
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
