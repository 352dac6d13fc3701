//! Bringing one tree of manifests, with its blobs, to one or more destinations.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::blob_memory::{self, may_lack_blobs};
use super::blob_table::{Claim, Lead, ended};
use super::context::RunContext;
use super::fault::Fault;
use super::put::put_manifests;
use super::several::unordered;
use super::transfer::{Moved, RangeTrust, Sink, SourceBlob, move_blob};
use crate::oci::{Digest, RepositoryName, Tag};
use crate::plan::{BlobAction, ErrorKind, ImagePlan, ImageTree, KnownContent, image_plan};
use crate::registry::Endpoint;
use crate::store::Intention;

/// Blobs of one image that are looked after at once; the registries' own limits are narrower.
const BLOBS_AT_ONCE: usize = 8;

/// The same with those that other images bring.
const BLOBS_UNDER_WAY: usize = 64;

/// One destination repository of a tree.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    pub(super) repository: RepositoryName,
    /// True where the repository was seen not to be there, so that nothing needs to be looked for.
    pub(super) absent: bool,
    /// Under which tag the top manifest is put; by digest only without one.
    pub(super) tag: Option<Tag>,
}

impl Target {
    fn registry(&self) -> &str {
        self.endpoint.name()
    }
}

/// How a tree fared at one destination.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) result: Result<(), Fault>,
    /// Attempts in a row without a gain, at worst.
    pub(super) attempts: u32,
    /// Bytes of blobs sent for it.
    pub(super) bytes: u64,
}

/// How the blobs of a tree fared at one destination.
#[derive(Debug, Default)]
struct Brought {
    fault: Option<Fault>,
    attempts: u32,
    bytes: u64,
    /// Those that were seen there or brought.
    arrived: Vec<Digest>,
    /// True where some were taken to be there without a look.
    believed: bool,
}

/// What is to be done at one target.
#[derive(Clone, Debug)]
struct TargetPlan {
    image: ImagePlan,
    /// Blobs that this process saw or brought there before this (monotonic time) are looked for again.
    believed_since: Duration,
}

/// One blob of a tree and the targets that want it, by index.
struct WantedBlob {
    size: u64,
    by: Vec<(usize, BlobAction)>,
}

/// Copies blobs, then manifests, children first, the tag last. `before_tag` is asked just before each target's tag is put,
/// and `after_tag` once it is, whatever other targets still wait for. Without a tag it is the same with the top manifest.
pub(super) async fn copy_tree<F, G>(
    context: &RunContext,
    repository: &RepositoryName,
    tree: &ImageTree,
    targets: &[Target],
    before_tag: impl Fn(usize) -> F,
    after_tag: impl Fn(usize) -> G,
) -> Vec<Arrived>
where
    F: Future<Output = Result<(), Fault>>,
    G: Future<Output = Result<(), Fault>>,
{
    let mut plans = Vec::with_capacity(targets.len());
    for target in targets {
        plans.push(plan(context, repository, tree, target).await);
    }
    let brought = bring_blobs(context, repository, targets, &plans).await;
    let putting = targets
        .iter()
        .zip(plans)
        .zip(brought)
        .enumerate()
        .map(|(index, ((target, plan), brought))| {
            let (before_tag, after_tag) = (&before_tag, &after_tag);
            async move {
                let (attempts, bytes) = (brought.attempts, brought.bytes);
                let put = put_brought(context, repository, tree, target, plan, brought, || before_tag(index));
                let (mut result, tried) = put.await;
                if result.is_ok() {
                    result = after_tag(index).await;
                }
                Arrived {
                    result,
                    attempts: attempts.max(tried),
                    bytes,
                }
            }
        });
    join_all(putting).await
}

async fn plan(
    context: &RunContext,
    repository: &RepositoryName,
    tree: &ImageTree,
    target: &Target,
) -> Result<TargetPlan, Fault> {
    let digests: Vec<Digest> = tree.blobs().into_iter().map(|blob| blob.digest.clone()).collect();
    let remembered = context.store.known_blobs(target.registry(), &digests).await?;
    let elsewhere = |places: Vec<RepositoryName>| places.into_iter().find(|place| *place != target.repository);
    let mut mountable: BTreeMap<Digest, RepositoryName> = remembered
        .into_iter()
        .filter_map(|(digest, places)| Some((digest, elsewhere(places)?)))
        .collect();
    // Within one registry nothing needs to be moved.
    if target.registry() == context.source.name() && target.repository != *repository {
        mountable.extend(digests.iter().map(|digest| (digest.clone(), repository.clone())));
    }
    let (present, believed_since) = match blob_memory::is_believed(context, target).await? {
        true => (blob_memory::present(context, target, &digests).await?, Duration::ZERO),
        false => (BTreeSet::new(), context.began),
    };
    let known = KnownContent {
        repository_absent: target.absent && !context.careful,
        present,
        mountable,
    };
    let mut plan = image_plan(tree, target.tag.as_ref(), &known)
        .map_err(|error| Fault::new(ErrorKind::Invalid, error.to_string()))?;
    for step in &mut plan.blobs {
        if context.damaged.contains(&step.digest) {
            // A mount would bring the same damaged bytes.
            step.action = BlobAction::Send { mount_from: None };
        }
    }
    Ok(TargetPlan {
        image: plan,
        believed_since,
    })
}

/// Brings every blob to every target that lacks it; each blob is read once for all. A target's fault is its first.
async fn bring_blobs(
    context: &RunContext,
    repository: &RepositoryName,
    targets: &[Target],
    plans: &[Result<TargetPlan, Fault>],
) -> Vec<Brought> {
    let since: Vec<Duration> = plans
        .iter()
        .map(|plan| plan.as_ref().map_or(context.began, |plan| plan.believed_since))
        .collect();
    let since = since.as_slice();
    let mut wanted: BTreeMap<&Digest, WantedBlob> = BTreeMap::new();
    for (index, plan) in plans.iter().enumerate() {
        for step in plan.iter().flat_map(|plan| &plan.image.blobs) {
            let blob = wanted.entry(&step.digest).or_insert_with(|| WantedBlob {
                size: step.size,
                by: Vec::new(),
            });
            blob.by.push((index, step.action.clone()));
        }
    }
    let mut blobs: Vec<_> = wanted.into_iter().collect();
    // What other images wait for first; then the largest, so that a small one does not wait behind all others for the last
    // large one.
    blobs.sort_by_cached_key(|(digest, blob)| {
        let wanted_by = |(index, _): &(usize, BlobAction)| context.blobs.wanted_by(targets[*index].registry(), digest);
        let images = blob.by.iter().map(wanted_by).max().unwrap_or(0).max(1);
        std::cmp::Reverse((images, blob.size))
    });
    let mut outcomes: Vec<Brought> = targets.iter().map(|_| Brought::default()).collect();
    context.turn.begin(blobs.len());
    let moving = &Semaphore::new(BLOBS_AT_ONCE);
    let each_blob = blobs.into_iter().map(|(digest, WantedBlob { size, by })| async move {
        let source = SourceBlob {
            endpoint: context.source.clone(),
            repository: repository.clone(),
            digest: digest.clone(),
            size,
            ranges: RangeTrust::default(),
        };
        let ends = bring(context, &source, targets, since, by, moving).await;
        context.turn.end();
        (digest, ends)
    });
    let mut bringing = unordered(each_blob, BLOBS_UNDER_WAY);
    while let Some((digest, ends)) = bringing.next().await {
        for (index, moved) in ends {
            let outcome = &mut outcomes[index];
            outcome.attempts = outcome.attempts.max(moved.attempts);
            outcome.bytes += moved.bytes;
            match moved.result {
                Ok(way) => {
                    context.ledger.blob(targets[index].registry(), way);
                    // What nobody looked for was not seen either.
                    if moved.attempts > 0 {
                        outcome.arrived.push(digest.clone());
                    } else {
                        outcome.believed = true;
                    }
                }
                Err(fault) => {
                    outcome.fault.get_or_insert(fault);
                }
            }
        }
    }
    outcomes
}

/// Remembers blobs that arrived, and the digest that the target's tag is about to point to, where one is given: both with
/// one wait for the disk.
///
/// # Errors
/// The digest could not be recorded, so the tag must not be put. That blobs are not remembered is no error.
async fn remember(
    context: &RunContext,
    target: &Target,
    arrived: &[Digest],
    about_to_put: Option<&Digest>,
) -> Result<(), Fault> {
    let (registry, repository, now) = (target.registry(), &target.repository, context.clock.now());
    let recorded = match target.tag.as_ref().zip(about_to_put) {
        Some((tag, digest)) => {
            let intention = Intention {
                rule: context.rule.name.as_str(),
                registry,
                repository,
                tag,
                digest,
            };
            context.store.record_intention(&intention, arrived, now).await
        }
        None => {
            if let Err(error) = context.store.remember_blobs(registry, repository, arrived, now).await {
                tracing::warn!("cannot remember blobs: {error}");
            }
            Ok(())
        }
    };
    blob_memory::learn_from_answers(context, &target.endpoint).await;
    Ok(recorded?)
}

/// Brings one blob to the targets that want it, sharing the work with everybody who wants the same. `since`: from when each
/// target's blobs are taken to be there without a look.
async fn bring(
    context: &RunContext,
    source: &SourceBlob,
    targets: &[Target],
    since: &[Duration],
    wants: Vec<(usize, BlobAction)>,
    moving: &Semaphore,
) -> Vec<(usize, Moved)> {
    let mut ends = Vec::with_capacity(wants.len());
    let mut open = wants;
    while !open.is_empty() {
        // Taken before the claim, as others wait for what is claimed, and free again while we wait for others.
        let place = moving.acquire().await;
        let mut leads: Vec<(usize, Lead)> = Vec::new();
        let mut sinks = Vec::new();
        let mut waiting = Vec::new();
        let mut movings = Vec::new();
        for (index, action) in open {
            let target = &targets[index];
            if action == BlobAction::Present {
                ends.push((index, Moved::present()));
                continue;
            }
            match context
                .blobs
                .claim(target.registry(), &target.repository, &source.digest, since[index])
            {
                Claim::Present => ends.push((index, Moved::present())),
                Claim::Wait(moving) => {
                    movings.push(moving);
                    waiting.push((index, action));
                }
                Claim::Lead(lead, mount_from) => {
                    leads.push((index, lead));
                    let action = with_mount(action, mount_from);
                    sinks.push(Sink::new(target.endpoint.clone(), target.repository.clone(), action));
                }
            }
        }
        // Ours first: whoever waits for us may lead what we wait for.
        if !leads.is_empty() {
            let moved = move_blob(&context.transfer, source, sinks).await;
            for ((index, lead), moved) in leads.into_iter().zip(moved) {
                if moved.result.is_ok() {
                    lead.done();
                }
                ends.push((index, moved));
            }
        }
        drop(place);
        if !movings.is_empty() {
            context
                .turn
                .while_waiting(join_all(movings.into_iter().map(ended)))
                .await;
        }
        open = waiting;
    }
    ends
}

fn with_mount(action: BlobAction, place: Option<RepositoryName>) -> BlobAction {
    match action {
        BlobAction::Find { mount_from } => BlobAction::Find {
            mount_from: place.or(mount_from),
        },
        BlobAction::Send { mount_from } => BlobAction::Send {
            mount_from: place.or(mount_from),
        },
        BlobAction::Present => BlobAction::Present,
    }
}

/// Puts the manifests where all blobs are there.
async fn put_brought<F>(
    context: &RunContext,
    repository: &RepositoryName,
    tree: &ImageTree,
    target: &Target,
    plan: Result<TargetPlan, Fault>,
    brought: Brought,
    before_tag: impl Fn() -> F,
) -> (Result<(), Fault>, u32)
where
    F: Future<Output = Result<(), Fault>>,
{
    let complete = match (plan, brought.fault) {
        (Err(fault), _) | (Ok(_), Some(fault)) => Err(fault),
        (Ok(plan), None) => Ok(plan),
    };
    // Before the put: else a process that ends between the put and its record, or never hears the answer, would take its own
    // tag for somebody else's. An intention whose put never happens does no harm: it says that this digest is what the source
    // had for the tag, so whoever puts it there has put what we would have put.
    let about_to_put = complete.is_ok().then_some(&tree.root);
    let remembered = remember(context, target, &brought.arrived, about_to_put).await;
    match complete.and_then(|plan| remembered.map(|()| plan)) {
        Ok(plan) => put_all(context, repository, tree, target, &plan, brought.believed, before_tag).await,
        Err(fault) => (Err(fault), 0),
    }
}

async fn put_all<F>(
    context: &RunContext,
    repository: &RepositoryName,
    tree: &ImageTree,
    target: &Target,
    plan: &TargetPlan,
    believed: bool,
    before_tag: impl Fn() -> F,
) -> (Result<(), Fault>, u32)
where
    F: Future<Output = Result<(), Fault>>,
{
    let first = put_manifests(context, tree, target, &plan.image, &before_tag).await;
    let (Err(fault), attempts) = &first else { return first };
    if !may_lack_blobs(fault.kind, believed) {
        return first;
    }
    // Of an index it may be a child that was missed.
    if fault.kind == ErrorKind::MissingContent && tree.manifests.len() == 1 {
        let evidence = "it refused a manifest for missing content";
        blob_memory::learn(context, &target.endpoint, evidence).await;
    }
    // What we took to be there is not. Forget it, look at everything once more, and put again: once.
    tracing::warn!(
        destination = %format!("{}/{}", target.registry(), target.repository),
        "content that was there is missing, sending it again: {fault}"
    );
    let digests: Vec<Digest> = plan.image.blobs.iter().map(|step| step.digest.clone()).collect();
    context.blobs.forget(target.registry(), &target.repository, &digests);
    let attempts = *attempts;
    if let Err(error) = context
        .store
        .forget_blobs(target.registry(), &target.repository, &digests)
        .await
    {
        return (Err(error.into()), attempts);
    }
    let mut again = plan.clone();
    for step in &mut again.image.blobs {
        step.action = BlobAction::Find { mount_from: None };
    }
    let plans = [Ok(again)];
    let mut healed = bring_blobs(context, repository, std::slice::from_ref(target), &plans).await;
    let healed = healed.pop().unwrap_or_default();
    // What the tag is about to point to is recorded already.
    if let Err(fault) = remember(context, target, &healed.arrived, None).await {
        return (Err(fault), healed.attempts);
    }
    match healed.fault {
        Some(fault) => (Err(fault), healed.attempts),
        None => put_manifests(context, tree, target, &plan.image, &before_tag).await,
    }
}
