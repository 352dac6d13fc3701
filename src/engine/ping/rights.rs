//! The rights to list, pull, push and delete, tried on repositories of the rules, with nothing left behind or made.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use jiff::Timestamp;

use super::{Greeted, below, failed, fine, skipped};
use crate::engine::facade::Engine;
use crate::engine::fault::Fault;
use crate::engine::learnt::BULK_LISTING;
use crate::engine::report::{PingReport, PingRight, PingStep};
use crate::engine::run::no_catalogue;
use crate::oci::{Reference, RepositoryName};
use crate::plan::TriedRepositories;
use crate::registry::{Endpoint, ListingRight, PushRight};
use crate::rules::RegistryName;
use crate::store::Store;

/// Repositories that a right is tried on at most, so that rules with hundreds of names cost no hundreds of requests.
const MOST_TRIED: usize = 20;
/// Patterns that are told of at most for which nothing could be tried.
const MOST_WHYS: usize = 3;

/// Lists the repositories below, where there is anything to list. What a run would fail for is a fault.
pub(super) async fn list(report: &mut PingReport, end: &Endpoint, below: &[String]) -> Option<Vec<RepositoryName>> {
    if below.is_empty() {
        skipped(report, "list", "no rule needs the catalogue");
        return None;
    }
    match end.list_repositories_in_part(below).await {
        Ok((Some(repositories), left_out)) => {
            let found = format!("{} repositories listed", repositories.len());
            match left_out.into_iter().next() {
                None => fine(report, "list", &found),
                Some(error) => {
                    let fault = Fault::from(error);
                    let message = format!("{found}, but not all: {}", fault.message);
                    failed(report, "list", Fault { message, ..fault });
                }
            }
            return Some(repositories);
        }
        Ok((None, _)) => failed(report, "list", no_catalogue(end.name())),
        Err(error) => failed(report, "list", Fault::from(error)),
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
pub(super) async fn try_all(
    report: &mut PingReport,
    end: &Endpoint,
    tried: Option<&TriedRepositories>,
    mut unlisted: Unlisted,
) {
    let nothing = TriedRepositories::default();
    let tried = tried.unwrap_or(&nothing);
    // Each is told of once: where it is read, or else where it is written.
    let mut of = |repositories: &BTreeSet<RepositoryName>| -> Vec<String> {
        let containers = repositories.iter().map(|repository| end.container(repository));
        containers.filter_map(|container| unlisted.remove(container)).collect()
    };
    let (read, written) = (of(&tried.read), of(&tried.written));
    pull(report, end, tried, &read).await;
    push(report, end, tried, &written).await;
    delete(report, end, tried).await;
}

/// Why the vendor's API does not list tags with what they point to, by project or repository.
pub(super) type Unlisted = BTreeMap<String, String>;

/// Asks the vendor's API for the tags of one repository of each project, or of each repository where its rights are by those: without
/// the right to them a run asks for tags one by one. What was refused in earlier processes is asked for again, too: a right may
/// have been granted since. What is answered is refused no more; a refusal is found anew.
pub(super) async fn ask_for_listings(
    store: &Store,
    now: Timestamp,
    end: &Endpoint,
    tried: Option<&TriedRepositories>,
) -> Unlisted {
    let known = super::known::remembered(store, end, now).await.unwrap_or_else(|error| {
        tracing::warn!("cannot read what was learnt of {}: {error}", end.name());
        Vec::new()
    });
    let refused = known.into_iter().filter(|known| known.name == BULK_LISTING);
    let refused: BTreeSet<String> = refused.map(|known| known.class).take(MOST_TRIED).collect();
    // Who counts what is read of it is not pressed for lists either.
    let most = if end.is_metered() { 1 } else { MOST_TRIED };
    let mut asked: BTreeMap<&str, RepositoryName> = BTreeMap::new();
    for repository in all_of(tried) {
        if asked.len() < most {
            asked
                .entry(end.container(repository))
                .or_insert_with(|| repository.clone());
        }
    }
    // The list of repositories was asked for already, where rules need it.
    for class in &refused {
        if let Some(repository) = repository_of(end, class, tried) {
            asked.entry(class).or_insert(repository);
        }
    }
    let answers = asked.into_iter().map(|(container, repository)| {
        let refused = &refused;
        async move {
            let why = match end.may_list_digests(&repository).await {
                Ok(ListingRight::Refused(why)) => why,
                Ok(ListingRight::NotAsked) => return None,
                Ok(ListingRight::Granted) => {
                    if refused.contains(container)
                        && let Err(error) = store.forget_capability(end.name(), container, BULK_LISTING).await
                    {
                        tracing::warn!("cannot forget that {container} may not be listed: {error}");
                    }
                    return None;
                }
                Err(error) => error.to_string(),
            };
            Some((container.to_owned(), why))
        }
    });
    join_all(answers).await.into_iter().flatten().collect()
}

fn all_of(tried: Option<&TriedRepositories>) -> impl Iterator<Item = &RepositoryName> {
    let tried = tried.into_iter();
    tried.flat_map(|tried| tried.read.iter().chain(&tried.written))
}

/// A repository by which is seen whether the tags of a project, or of itself, may be listed.
fn repository_of(end: &Endpoint, container: &str, tried: Option<&TriedRepositories>) -> Option<RepositoryName> {
    let mut within = all_of(tried).filter(|repository| end.container(repository) == container);
    within.next().cloned().or_else(|| {
        let itself: RepositoryName = container.parse().ok()?;
        (end.container(&itself) == container).then_some(itself)
    })
}

async fn pull(report: &mut PingReport, end: &Endpoint, tried: &TriedRepositories, unlisted: &[String]) {
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
    let words = words(&tried.none_read, unlisted);
    told(report, "pull", rights, tried.read.len(), &words, none);
}

async fn push(report: &mut PingReport, end: &Endpoint, tried: &TriedRepositories, unlisted: &[String]) {
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
    let words = words(&tried.none_written, unlisted);
    told(report, "push", rights, tried.written.len(), &words, none);
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
    let words = words(&tried.none_written, &[]);
    told(report, "delete", rights, tried.written.len(), &words, none);
}

fn right(repository: &RepositoryName, ok: Option<bool>, message: String) -> PingRight {
    PingRight {
        repository: repository.to_string(),
        ok,
        message,
    }
}

/// What is said beside what was tried: why it was not tried on more, and why tags are not listed by the vendor's API, of which one
/// stands for all.
fn words(untried: &BTreeSet<String>, unlisted: &[String]) -> Vec<String> {
    let mut words: Vec<String> = untried.iter().take(MOST_WHYS).cloned().collect();
    if untried.len() > MOST_WHYS {
        words.push(format!("and {} more such patterns", untried.len() - MOST_WHYS));
    }
    if let Some(why) = unlisted.first() {
        words.push(match unlisted.len() - 1 {
            0 => why.clone(),
            more => format!("{why} (and {more} more like it)"),
        });
    }
    words
}

/// One step of what was tried on each of `all` repositories, of which `rights` were: the first that is worst speaks for it.
/// `words` are said beside that.
fn told(report: &mut PingReport, step: &'static str, rights: Vec<PingRight>, all: usize, words: &[String], none: &str) {
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
        message.push_str(why);
    }
    report.steps.push(PingStep {
        step,
        ok,
        message,
        repositories: rights,
    });
}
