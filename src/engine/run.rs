//! One run of one rule: repositories are observed and planned one after the other, and copying begins with the first.

use std::sync::{Arc, PoisonError};

use futures_util::StreamExt;
use futures_util::future::{join, join_all};
use tokio::sync::mpsc;

use super::blob_table::Wants;
use super::context::{Claims, RunContext};
use super::deferral;
use super::event::Event;
use super::fault::Fault;
use super::job::{ImageGroup, warn};
use super::lanes::copy_all;
use super::latecomers::{Latecomers, PutOff};
use super::metered::{self, Promise};
use super::planning::{Outlet, plan_alone, plan_together};
use super::requests::Only;
use super::several::one_by_one;
use crate::oci::RepositoryName;
use crate::plan::{ErrorKind, RepositoryProblem};
use crate::registry::Side;
use crate::rules::{MatchedRepository, RegistryName, RepositoryPattern};

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

/// What stands in the way of patterns that read at this registry.
pub(super) fn no_catalogue(registry: &str) -> Fault {
    let message =
        format!("{registry} has no catalogue of its repositories: name them in the rule instead of using a pattern");
    Fault::new(ErrorKind::Unsupported, message)
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
        Ok((None, _)) => no_catalogue(&name),
        Err(error) => Fault::from(error.on(Side::Source)),
    };
    place_failed(context, name, &fault);
    None
}

/// Runs the rule to its end, or until told to stop. What happened is in the ledger.
pub(super) async fn execute(context: &RunContext, only: &[Only]) {
    if let Some(wait) = deferral::long_pause(context, &context.source)
        && context.claims == Claims::Make
        && deferral::still_waiting(context, |_| true, only, &wait).await
    {
        return;
    }
    let place = context.meters.enter(context);
    // What is found out late, for destinations that said nothing, has the rule's priority too: it is kept from the beginning, and
    // given back at once where nothing is put off.
    let place_alone = context.meters.enter(context);
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
        let waited = deferral::known(context).await;
        let (latecomers, later) = Latecomers::new(context.destinations.keys());
        let silences = latecomers.silences().clone();
        let together = async {
            let latecomers = latecomers;
            let outlet = Outlet::new(&sender, only, &waited, latecomers.silences());
            let wanted = matched.into_iter().filter(|matched| wanted_repository(only, matched));
            let each = |matched: MatchedRepository| {
                let (outlet, latecomers) = (&outlet, &latecomers);
                async move {
                    if context.control.may_start() {
                        plan_together(context, Arc::new(matched), latecomers, outlet).await;
                    }
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
            let wanted = outlet.wanted.into_inner().unwrap_or_else(PoisonError::into_inner);
            drop(latecomers);
            metered::admit(context, place, wanted, &waited, &sender).await;
        };
        let alone = async {
            let outlet = Outlet::new(&sender, only, &waited, &silences);
            let each = |put_off: PutOff, registry: RegistryName| {
                let outlet = &outlet;
                async move {
                    if context.control.may_start() {
                        plan_alone(context, put_off, &registry, outlet).await;
                    }
                }
            };
            join_all(later.into_iter().map(|later| later.plan(each))).await;
            let wanted = outlet.wanted.into_inner().unwrap_or_else(PoisonError::into_inner);
            metered::admit(context, place_alone, wanted, &waited, &sender).await;
        };
        join(together, alone).await;
    };
    // Images are copied by tasks of their own, so that planning which waits for them keeps none from moving on.
    join(until_abort(context, Box::pin(planning)), copy_all(context, receiver)).await;
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
    join(sending, copy_all(context, receiver)).await;
}
