//! Planning one repository, part by part, and handing on what is to be done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::attachments_due::attachments_due;
use super::context::{Claims, RunContext};
use super::deferral;
use super::event::Event;
use super::job::{GroupDestination, ImageGroup};
use super::latecomers::{Ends, Latecomers, PutOff, Silences};
use super::metered::{self, Wanted};
use super::observe::{Earlier, Observed, filter, list_both, observe, observe_part};
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
    silences: Silences,
}

impl<'a> Outlet<'a> {
    /// Nothing has been planned yet.
    pub(super) fn new(
        sender: &'a mpsc::Sender<Work>,
        only: &'a [Only],
        waited: &'a [DeferredImage],
        silences: &Silences,
    ) -> Self {
        Self {
            sender,
            only,
            waited,
            wanted: Mutex::default(),
            selected: Mutex::default(),
            silences: silences.clone(),
        }
    }
}

/// Observes and plans one repository.
pub(super) async fn plan_one(context: &RunContext, matched: MatchedRepository) -> (RepositoryPlan, Observed) {
    let matched = Arc::new(matched);
    let observed = observe(context, &matched).await;
    let rule = &context.rule;
    let plan = plan_repository(
        filter(context, &matched),
        rule.moved_tags,
        rule.on_conflict,
        &observed.inventory,
    );
    (plan, observed)
}

/// Plans a repository for all destinations that answer, part by part, and hands on what is to be done; waits while enough is
/// waiting to be copied. For the others it is put off.
pub(super) async fn plan_together(
    context: &RunContext,
    matched: Arc<MatchedRepository>,
    latecomers: &Latecomers,
    outlet: &Outlet<'_>,
) {
    let all = context.destinations.keys();
    let ends = all.filter(|registry| is_wanted(outlet.only, &matched.name, registry));
    let (ends, late) = latecomers.sort(ends.cloned().collect());
    let patience = Patience::Together(&outlet.silences);
    let put_off = |registry: &RegistryName, after: Option<&Tag>, listing| {
        let put_off = PutOff {
            matched: Arc::clone(&matched),
            after: after.cloned(),
            listing,
        };
        latecomers.put_off(registry, put_off);
    };
    let (mut listed, silent) = list_both(context, &matched, &ends, patience, None).await;
    context.ledger.repository(listed.tags_listed);
    let pattern = matched.entry.pattern.to_string();
    let selected = Arc::clone(&listed.selected);
    outlet
        .selected
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .count(&pattern, listed.tags_listed, selected.len());
    silent.keys().for_each(|registry| latecomers.fell_silent(registry));
    // Of a source that could not be listed nothing is found out later either.
    if listed.is_known() {
        late.iter().for_each(|registry| put_off(registry, None, None));
        for (registry, listing) in silent {
            put_off(&registry, None, Some(listing));
        }
    }
    for part in listed.parts(None) {
        if part.start > 0 && !context.control.may_start() {
            return;
        }
        let look = context.planned.look();
        let tags = &selected[part.clone()];
        let planned = selected[..part.start].last();
        let (observed, silent) = observe_part(context, &matched, &listed, part, patience).await;
        for registry in &silent {
            latecomers.fell_silent(registry);
            put_off(registry, planned, None);
        }
        listed.leave_out(&silent);
        if !plan_part(context, look, &observed, tags, None, outlet).await {
            return;
        }
    }
}

/// Plans a repository for a destination for which it was put off.
pub(super) async fn plan_alone(context: &RunContext, put_off: PutOff, registry: &RegistryName, outlet: &Outlet<'_>) {
    let PutOff {
        matched,
        after,
        listing,
    } = put_off;
    let patience = Patience::Alone(&outlet.silences);
    let listing = match (listing, outlet.silences.failure(registry)) {
        (Some(listing), _) => Some(Earlier::Awaited(listing)),
        // Thousands of repositories would keep the run for days, and with it the next one.
        (None, Some(failure)) => Some(Earlier::Failed(failure)),
        (None, None) => None,
    };
    let earlier = listing.map(|listing| (registry.clone(), listing));
    let ends = Ends::from([registry.clone()]);
    let (listed, _) = list_both(context, &matched, &ends, patience, earlier).await;
    if let Some(why) = listed.failure_at(registry) {
        outlet.silences.fail(registry, why);
    }
    for part in listed.parts(after.as_ref()) {
        if !context.control.may_start() {
            return;
        }
        let look = context.planned.look();
        let tags = &listed.selected[part.clone()];
        let (observed, _) = observe_part(context, &matched, &listed, part, patience).await;
        if !plan_part(context, look, &observed, tags, Some(registry), outlet).await {
            return;
        }
    }
}

/// False where nobody listens any more. `alone`: the only destination that this is about, where there are others that it was
/// planned for before.
async fn plan_part(
    context: &RunContext,
    look: Look,
    observed: &Observed,
    tags: &[Tag],
    alone: Option<&RegistryName>,
    outlet: &Outlet<'_>,
) -> bool {
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
    // What other destinations wait for is not of this plan; what is no destination any more is of the first.
    let is_about = |image: &DeferredImage| {
        let is_it = |registry: &RegistryName| registry.as_str() == image.registry;
        let is_here = inventory.destinations.iter().any(|end| is_it(&end.registry));
        is_here || (alone.is_none() && !context.destinations.keys().any(is_it))
    };
    let waited = outlet.waited.iter();
    let waited = waited.filter(|image| observed.is_about(&image.tag) && is_about(image));
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
    if alone.is_none() {
        context.ledger.selected(plan.images.len());
    }
    let source = format!("{}/{}", plan.registry, plan.repository);
    if let Some(problem) = &plan.problem {
        let wait = deferral::long_pause(context, &context.source).filter(|_| context.claims == Claims::Make);
        let waits = match &wait {
            Some(wait) => {
                let are_meant = |image: &DeferredImage| image.source == inventory.repository && is_about(image);
                deferral::still_waiting(context, are_meant, only, wait).await
            }
            None => false,
        };
        if !waits {
            let mut fault = repository_fault(&source, problem);
            if let Some(registry) = alone {
                fault.message = format!("{} (when it was looked at for {registry} alone)", fault.message);
            }
            place_failed(context, source.clone(), &fault);
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

/// True for a destination that something of the repository is wanted for.
fn is_wanted(only: &[Only], repository: &RepositoryName, registry: &RegistryName) -> bool {
    let mut of_it = only.iter().filter(|only| only.repository == *repository).peekable();
    of_it.peek().is_none() || of_it.any(|only| only.destination == registry.as_str())
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
