//! The rights to list, pull, push and delete, tried on repositories of the rules, with nothing left behind or made.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use jiff::Timestamp;

use super::{Greeted, below, failed, fine, skipped};
use crate::engine::facade::Engine;
use crate::engine::fault::Fault;
use crate::engine::learnt::BULK_LISTING;
use crate::engine::report::{PingReport, PingRight, PingStep};
use crate::oci::{Reference, RepositoryName};
use crate::plan::TriedRepositories;
use crate::registry::{Endpoint, PushRight};
use crate::rules::RegistryName;
use crate::store::Store;

/// Repositories that a right is tried on at most, so that rules with hundreds of names cost no hundreds of requests.
const MOST_TRIED: usize = 20;
/// Patterns that are told of at most for which nothing could be tried.
const MOST_WHYS: usize = 3;

/// Lists the repositories below, where there is anything to list.
pub(super) async fn list(report: &mut PingReport, end: &Endpoint, below: &[String]) -> Option<Vec<RepositoryName>> {
    if below.is_empty() {
        skipped(report, "list", "no rule needs the catalogue");
        return None;
    }
    match end.list_repositories(below).await.map_err(Fault::from) {
        Ok(Some(repositories)) => {
            fine(report, "list", &format!("{} repositories listed", repositories.len()));
            return Some(repositories);
        }
        Ok(None) => fine(report, "list", "no catalogue here: rules must name their repositories"),
        Err(fault) => failed(report, "list", fault),
    }
    None
}

/// What was listed of the sources, and of those that are not pinged themselves but tell what is written to one that is.
pub(super) async fn catalogues(
    engine: &Engine,
    greeted: &[Greeted<'_>],
) -> BTreeMap<RegistryName, Vec<RepositoryName>> {
    let is_pinged = |name: &RegistryName| greeted.iter().any(|greeted| greeted.name == name);
    let is_reached = |name: &RegistryName| greeted.iter().any(|greeted| greeted.reached && greeted.name == name);
    let rules = engine.config().rules.iter();
    let sources: BTreeSet<_> = rules
        .filter(|rule| {
            rule.destinations
                .iter()
                .any(|destination| is_reached(&destination.registry))
        })
        .map(|rule| &rule.source)
        .filter(|source| !is_pinged(source))
        .collect();
    let others = sources.into_iter().filter_map(|name| {
        let (end, below) = (engine.ends().get(name)?, below(engine, name));
        (!below.is_empty()).then_some(async move {
            let listed = end.list_repositories(&below).await.unwrap_or_else(|error| {
                tracing::warn!("{error}");
                None
            });
            Some((name.clone(), listed?))
        })
    });
    let others = join_all(others).await.into_iter().flatten();
    let pinged = greeted
        .iter()
        .filter_map(|greeted| Some((greeted.name.clone(), greeted.listed.clone()?)));
    pinged.chain(others).collect()
}

/// The steps that are about repositories.
pub(super) async fn try_all(report: &mut PingReport, end: &Endpoint, tried: Option<&TriedRepositories>) {
    let nothing = TriedRepositories::default();
    let tried = tried.unwrap_or(&nothing);
    pull(report, end, tried).await;
    push(report, end, tried).await;
    delete(report, end, tried).await;
}

/// Asks the vendor's API again for what it refused in earlier processes: a right may have been granted since. What it answers is
/// refused no more; a refusal is found anew.
pub(super) async fn ask_for_listings(store: &Store, now: Timestamp, end: &Endpoint, tried: Option<&TriedRepositories>) {
    let known = match super::known::remembered(store, end, now).await {
        Ok(known) => known,
        Err(error) => return tracing::warn!("cannot read what was learnt of {}: {error}", end.name()),
    };
    let refused = known.into_iter().filter(|known| known.name == BULK_LISTING);
    for class in refused.map(|known| known.class).take(MOST_TRIED) {
        let granted = match repository_of(end, &class, tried) {
            // The list of repositories was asked for already, where rules need it.
            None => false,
            Some(repository) => end.may_list_digests(&repository).await.unwrap_or_else(|error| {
                tracing::debug!("whether {class} may be listed is not known: {error}");
                false
            }),
        };
        if granted && let Err(error) = store.forget_capability(end.name(), &class, BULK_LISTING).await {
            tracing::warn!("cannot forget that {class} may not be listed: {error}");
        }
    }
}

/// A repository by which is seen whether the tags of a project, or of itself, may be listed.
fn repository_of(end: &Endpoint, container: &str, tried: Option<&TriedRepositories>) -> Option<RepositoryName> {
    let tried = tried
        .into_iter()
        .flat_map(|tried| tried.read.iter().chain(&tried.written));
    let mut within = tried.filter(|repository| end.container(repository) == container);
    within.next().cloned().or_else(|| {
        let itself: RepositoryName = container.parse().ok()?;
        (end.container(&itself) == container).then_some(itself)
    })
}

async fn pull(report: &mut PingReport, end: &Endpoint, tried: &TriedRepositories) {
    let looks = tried.read.iter().take(MOST_TRIED).map(|repository| async move {
        let tags = match end.list_tags(repository).await.map_err(Fault::from) {
            Ok(Some(tags)) => tags,
            Ok(None) => return right(repository, Some(true), format!("{repository} does not exist")),
            Err(fault) => return right(repository, Some(false), fault.message),
        };
        let found = format!("{} tags in {repository}", tags.len());
        // Asking what a tag points to is counted nowhere; reading the manifest is, at Docker Hub.
        let look = match tags.into_iter().next() {
            Some(tag) => end
                .head_manifest(repository, &Reference::Tag(tag))
                .await
                .map_err(Fault::from),
            None => Ok(None),
        };
        match look {
            Ok(_) => right(repository, Some(true), found),
            Err(fault) => right(repository, Some(false), format!("{found}, but: {}", fault.message)),
        }
    });
    let rights = join_all(looks).await;
    let none = "no rule reads here";
    told(report, "pull", rights, tried.read.len(), &tried.none_read, none);
}

async fn push(report: &mut PingReport, end: &Endpoint, tried: &TriedRepositories) {
    let looks = tried.written.iter().take(MOST_TRIED).map(|repository| async move {
        match end.try_write(repository).await.map_err(Fault::from) {
            // An upload that is opened and given up leaves nothing behind.
            Ok(PushRight::Opened(write)) => {
                let left = match end.give_up(&write).await {
                    true => "",
                    false => {
                        "; the one that was tried could not be given up, and the registry removes it in its own time"
                    }
                };
                right(repository, Some(true), format!("{repository} accepts uploads{left}"))
            }
            Ok(PushRight::WouldBeMade) => right(
                repository,
                None,
                format!("{repository} is not there; the first push makes it, which cannot be tried without doing it"),
            ),
            Err(fault) => right(repository, Some(false), fault.message),
        }
    });
    let rights = join_all(looks).await;
    let none = "no rule writes here";
    told(report, "push", rights, tried.written.len(), &tried.none_written, none);
}

/// Told, but no fault where it is missing: a right that no rule needs.
async fn delete(report: &mut PingReport, end: &Endpoint, tried: &TriedRepositories) {
    let looks = tried.written.iter().take(MOST_TRIED).map(|repository| async move {
        match end.may_delete(repository).await {
            Some(true) => right(repository, Some(true), format!("granted on {repository}")),
            Some(false) => right(
                repository,
                None,
                format!("not granted on {repository}; no rule needs it"),
            ),
            None => right(repository, None, "cannot be told without deleting".to_owned()),
        }
    });
    let rights = join_all(looks).await;
    let none = "no rule writes here";
    told(report, "delete", rights, tried.written.len(), &tried.none_written, none);
}

fn right(repository: &RepositoryName, ok: Option<bool>, message: String) -> PingRight {
    PingRight {
        repository: repository.to_string(),
        ok,
        message,
    }
}

/// One step of what was tried on each of `all` repositories, of which `rights` were: the first that is worst speaks for it.
/// `untried`: why there are not more.
fn told(
    report: &mut PingReport,
    step: &'static str,
    rights: Vec<PingRight>,
    all: usize,
    untried: &BTreeSet<String>,
    none: &str,
) {
    let mut words: Vec<String> = untried.iter().take(MOST_WHYS).cloned().collect();
    if untried.len() > MOST_WHYS {
        words.push(format!("and {} more such patterns", untried.len() - MOST_WHYS));
    }
    let rank = |right: &&PingRight| match right.ok {
        Some(false) => 0,
        None => 1,
        Some(true) => 2,
    };
    let Some(worst) = rights.iter().min_by_key(rank) else {
        let why = words.join("; ");
        return skipped(report, step, if why.is_empty() { none } else { &why });
    };
    let (ok, mut message) = (worst.ok, worst.message.clone());
    let same = rights.iter().filter(|right| right.ok == ok).count();
    if rights.len() > 1 {
        message.push_str(&format!(" ({same} of {} repositories", rights.len()));
        if all > rights.len() {
            message.push_str(&format!("; {} more were not tried", all - rights.len()));
        }
        message.push(')');
    }
    for why in words {
        message.push_str("; ");
        message.push_str(&why);
    }
    report.steps.push(PingStep {
        step,
        ok,
        message,
        repositories: rights,
    });
}
