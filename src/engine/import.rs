//! Images that a destination fetches by itself from the source, in place of the blobs that we would bring. Their manifests and
//! tags are put as after any copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use tokio::sync::{Semaphore, oneshot};

use super::bring::{Brought, bring_blobs};
use super::context::RunContext;
use super::fault::Fault;
use super::image::{Target, TargetPlan};
use super::job::warn;
use super::ledger::BlobWay;
use super::several::unordered;
use crate::oci::{Digest, Reference, RepositoryName};
use crate::plan::{BlobAction, BlobStep, ErrorKind, ImageTree, bytes_to_send, gives_up_imports, may_be_imported};
use crate::registry::{Imports, Side};

/// Blobs of one image that are looked for at once before it is imported.
const LOOKS_AT_ONCE: usize = 8;

/// Imports of a run under way at once at one destination: what they are asked of is not the registry, and takes far fewer
/// requests than that (Azure's resource manager 1,200 writes an hour in its older limits).
const IMPORTS_AT_ONCE: usize = 8;

/// How the imports of a run fare, by destination. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct RunImports(Arc<Mutex<BTreeMap<String, Faring>>>);

#[derive(Debug)]
struct Faring {
    places: Arc<Semaphore>,
    failed_in_a_row: u32,
    given_up: bool,
    /// The user has been told of a failure, or why none is tried.
    told: bool,
}

impl Default for Faring {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(IMPORTS_AT_ONCE)),
            failed_in_a_row: 0,
            given_up: false,
            told: false,
        }
    }
}

impl RunImports {
    fn places(&self, registry: &str) -> Arc<Semaphore> {
        Arc::clone(&self.of().entry(registry.to_owned()).or_default().places)
    }

    fn of(&self) -> MutexGuard<'_, BTreeMap<String, Faring>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn are_tried(&self, registry: &str) -> bool {
        self.of().get(registry).is_none_or(|faring| !faring.given_up)
    }

    /// True where nobody has been told yet.
    fn tell(&self, registry: &str) -> bool {
        !std::mem::replace(&mut self.of().entry(registry.to_owned()).or_default().told, true)
    }

    fn went_well(&self, registry: &str) {
        self.of().entry(registry.to_owned()).or_default().failed_in_a_row = 0;
    }

    /// Gives whether no more are tried.
    fn failed(&self, registry: &str, kind: ErrorKind) -> bool {
        let mut all = self.of();
        let faring = all.entry(registry.to_owned()).or_default();
        faring.failed_in_a_row += 1;
        faring.given_up |= gives_up_imports(kind, faring.failed_in_a_row);
        if faring.given_up {
            // Nobody waits for a place any more.
            faring.places.close();
        }
        faring.given_up
    }
}

/// What an image needs to be imported at a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    at_least: u64,
}

/// Whether a target may fetch an image by itself: `None` where it gets the blobs from us. Asks nobody.
pub(super) fn wanted(context: &RunContext, tree: &ImageTree, target: &Target, plan: &TargetPlan) -> Option<Wanted> {
    let registry = target.registry();
    // Whoever repairs looks for every blob, and does not leave that to others.
    let doubts = context.looks_anew || !context.damaged.is_empty();
    if doubts || registry == context.source.name() || !context.imports.are_tried(registry) {
        return None;
    }
    let terms = match target.endpoint.imports_from(&context.source) {
        Imports::Never => return None,
        Imports::NotFrom(why) => {
            if context.imports.tell(registry) {
                tracing::info!("{registry} imports no images: {why}");
            }
            return None;
        }
        Imports::On(terms) => terms,
    };
    let worth = bytes_to_send(&plan.image.blobs, known(context, target, plan)) >= terms.at_least;
    (worth && may_be_imported(tree, &plan.image, terms.manifests)).then_some(Wanted {
        at_least: terms.at_least,
    })
}

/// Tells of blobs that this process saw or brought there, or is bringing.
fn known<'a>(context: &'a RunContext, target: &'a Target, plan: &'a TargetPlan) -> impl Fn(&BlobStep) -> bool + 'a {
    move |step| {
        let (registry, repository) = (target.registry(), &target.repository);
        context
            .blobs
            .is_known(registry, repository, &step.digest, plan.believed_since)
    }
}

/// Has a target fetch the image by itself, where still so much of it is missing once its blobs were looked for; else, and where
/// that fails, brings the blobs.
pub(super) async fn bring(
    context: &RunContext,
    repository: &RepositoryName,
    tree: &ImageTree,
    target: &Target,
    plan: &TargetPlan,
    wanted: Wanted,
) -> Brought {
    context.turn.begin(1);
    let (plan, found) = look(context, target, plan.clone()).await;
    let missing = bytes_to_send(&plan.image.blobs, known(context, target, &plan));
    let imported = match missing >= wanted.at_least {
        // None of it comes by us: others may have the image's place meanwhile.
        true => {
            let importing = import(context, repository, tree, target, missing);
            context.turn.while_waiting(importing).await
        }
        false => Ok(false),
    };
    context.turn.end();
    let mut brought = match imported {
        Ok(true) => arrived(context, target, &plan),
        Ok(false) => copied(context, repository, target, plan).await,
        Err(stopped) => Brought {
            fault: Some(stopped),
            ..Brought::default()
        },
    };
    brought.arrived.extend(found);
    brought
}

/// Looks for the blobs of which nothing is known, as a copy would: what it finds is not looked for again.
async fn look(context: &RunContext, target: &Target, mut plan: TargetPlan) -> (TargetPlan, Vec<Digest>) {
    let is_known = known(context, target, &plan);
    let unknown = plan.image.blobs.iter().filter(|step| {
        let find = step.action == BlobAction::Find { mount_from: None };
        find && !is_known(step)
    });
    let each = unknown.map(|step| step.digest.clone()).map(|digest| async move {
        let held = target.endpoint.head_blob(&target.repository, &digest).await;
        // What cannot be told is looked for again when it is brought.
        Some((digest, held.ok()?.is_some()))
    });
    let looks: BTreeMap<Digest, bool> = unordered(each, LOOKS_AT_ONCE)
        .filter_map(|look| async { look })
        .collect()
        .await;
    drop(is_known);
    let mut found = Vec::new();
    for step in &mut plan.image.blobs {
        match looks.get(&step.digest) {
            Some(true) => {
                context.blobs.saw(target.registry(), &target.repository, &step.digest);
                found.push(step.digest.clone());
                step.action = BlobAction::Present;
            }
            Some(false) => step.action = BlobAction::Send { mount_from: None },
            None => {}
        }
    }
    (plan, found)
}

/// True where the target holds the image now; false where it has to be copied.
///
/// # Errors
/// The run was told to stop. What the registry goes on with by itself moves no tag, and is found by the next run.
async fn import(
    context: &RunContext,
    repository: &RepositoryName,
    tree: &ImageTree,
    target: &Target,
    bytes: u64,
) -> Result<bool, Fault> {
    let (registry, root) = (target.registry(), &tree.root);
    let places = context.imports.places(registry);
    let importing = async {
        // It is closed where no more are tried.
        let _place = places.acquire().await.ok()?;
        // Others may have met a refusal meanwhile.
        if !context.imports.are_tried(registry) {
            return None;
        }
        let asked = target
            .endpoint
            .import(&context.source, repository, root, &target.repository, bytes);
        Some(match asked.await {
            Ok(()) => is_there(target, root).await,
            Err(error) => Err(error.on(Side::Destination).into()),
        })
    };
    let ended = tokio::select! {
        ended = importing => ended,
        stop = context.control.wait_stop() => return Err(Fault::stopped(&stop.reason())),
    };
    let Some(ended) = ended else { return Ok(false) };
    let Err(fault) = ended else {
        context.imports.went_well(registry);
        return Ok(true);
    };
    let given_up = context.imports.failed(registry, fault.kind);
    let left = if given_up {
        "no more are tried in this run"
    } else {
        "the image is copied"
    };
    let place = format!("{registry}/{}@{root}", target.repository);
    if context.imports.tell(registry) {
        warn(
            context,
            format!("{place} was not imported by the registry itself, {left}: {fault}"),
        );
    } else {
        tracing::info!(run = %context.run, "{place} was not imported, {left}: {fault}");
    }
    Ok(false)
}

/// Whether the target holds what was imported.
///
/// # Errors
/// It does not, or that cannot be told; never one after which no more imports are tried: this one was done.
async fn is_there(target: &Target, root: &Digest) -> Result<(), Fault> {
    let reference = Reference::Digest(root.clone());
    let held = target.endpoint.head_manifest(&target.repository, &reference).await;
    match held.map_err(|error| not_seen(error.on(Side::Destination).into()))? {
        Some(held) if held.digest == *root => Ok(()),
        _ => Err(Fault::new(
            ErrorKind::Server,
            "the import is said to be done, and the registry does not hold the image",
        )),
    }
}

/// A refusal of a look for what was imported: it is the registry's, and not that of whoever imports.
fn not_seen(refusal: Fault) -> Fault {
    Fault {
        kind: ErrorKind::Server,
        ..refusal
    }
}

/// What was imported, as if it had been brought.
fn arrived(context: &RunContext, target: &Target, plan: &TargetPlan) -> Brought {
    let (registry, repository) = (target.registry(), &target.repository);
    let there: BTreeSet<&Digest> = {
        let is_known = known(context, target, plan);
        let there = plan
            .image
            .blobs
            .iter()
            .filter(|step| step.action == BlobAction::Present || is_known(step));
        there.map(|step| &step.digest).collect()
    };
    for step in &plan.image.blobs {
        let way = match there.contains(&step.digest) {
            true => BlobWay::Present,
            false => BlobWay::Imported,
        };
        context.ledger.blob(registry, way);
        context.blobs.saw(registry, repository, &step.digest);
    }
    let imported = plan.image.blobs.iter().filter(|step| !there.contains(&step.digest));
    Brought {
        attempts: 1,
        arrived: imported.map(|step| step.digest.clone()).collect(),
        // Nobody looked for each of them.
        believed: true,
        imported: true,
        ..Brought::default()
    }
}

/// Brings the blobs of one target.
async fn copied(context: &RunContext, repository: &RepositoryName, target: &Target, plan: TargetPlan) -> Brought {
    let (teller, told) = oneshot::channel();
    bring_blobs(
        context,
        repository,
        std::slice::from_ref(target),
        &[Ok(plan)],
        vec![teller],
    )
    .await;
    told.await.unwrap_or_else(|_| Brought::untold())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn whoever_waits_to_import_waits_no_longer_than_imports_are_tried() {
        let imports = RunImports::default();
        let places = imports.places("acr");
        let _all = places.try_acquire_many(8).expect("eight places");
        let mut ninth = std::pin::pin!(places.acquire());
        assert!(ninth.as_mut().now_or_never().is_none());
        assert!(!imports.failed("acr", ErrorKind::Server));
        assert!(ninth.as_mut().now_or_never().is_none());
        assert!(imports.failed("acr", ErrorKind::Denied));
        assert!(ninth.now_or_never().is_some_and(|place| place.is_err()));
        assert!(imports.are_tried("other") && !imports.are_tried("acr"));
    }

    #[test]
    fn a_refused_look_at_what_was_imported_ends_no_further_imports() {
        for kind in [ErrorKind::Denied, ErrorKind::Unauthorized, ErrorKind::Throttled] {
            let imports = RunImports::default();
            let fault = not_seen(Fault::new(kind, "it is refused"));
            assert!(!imports.failed("acr", fault.kind), "{kind:?}");
            assert_eq!(fault.message, "it is refused");
        }
    }
}
