//! Bringing one tree of manifests, with its blobs, to one or more destinations.

use std::collections::BTreeMap;
use std::future::Future;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::blob_memory::{self, may_lack_blobs};
use super::blob_table::{Claim, Lead, ended};
use super::context::RunContext;
use super::fault::Fault;
use super::retry::persist;
use super::several::unordered;
use super::transfer::{Moved, RangeTrust, Sink, SourceBlob, move_blob};
use crate::oci::{Digest, Manifest, ManifestShape, Reference, RepositoryName, Tag};
use crate::plan::{BlobAction, ErrorKind, ImagePlan, ImageTree, KnownContent, image_plan};
use crate::registry::{Endpoint, Side};

/// Blobs of one image that are looked after at once; the registries' own limits are narrower.
const BLOBS_AT_ONCE: usize = 8;

/// The same with those that other images bring.
const BLOBS_UNDER_WAY: usize = 64;

/// Manifests of one image that are put at once.
const MANIFESTS_AT_ONCE: usize = 4;

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
}

/// One blob of a tree and the targets that want it, by index.
struct WantedBlob {
    size: u64,
    by: Vec<(usize, BlobAction)>,
}

/// Copies blobs, then manifests, children first, the tag last. `before_tag` is asked just before each target's tag is put.
pub(super) async fn copy_tree<F>(
    context: &RunContext,
    repository: &RepositoryName,
    tree: &ImageTree,
    targets: &[Target],
    before_tag: impl Fn(usize) -> F,
) -> Vec<Arrived>
where
    F: Future<Output = Result<(), Fault>>,
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
            let before_tag = &before_tag;
            async move {
                let Brought { fault, attempts, bytes } = brought;
                let (result, tried) = match (plan, fault) {
                    (Err(fault), _) | (Ok(_), Some(fault)) => (Err(fault), 0),
                    (Ok(plan), None) => put_all(context, repository, tree, target, &plan, || before_tag(index)).await,
                };
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
) -> Result<ImagePlan, Fault> {
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
    let present = blob_memory::present(context, target, &digests).await?;
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
    Ok(plan)
}

/// Brings every blob to every target that lacks it; each blob is read once for all. A target's fault is its first.
async fn bring_blobs(
    context: &RunContext,
    repository: &RepositoryName,
    targets: &[Target],
    plans: &[Result<ImagePlan, Fault>],
) -> Vec<Brought> {
    let mut wanted: BTreeMap<&Digest, WantedBlob> = BTreeMap::new();
    for (index, plan) in plans.iter().enumerate() {
        for step in plan.iter().flat_map(|plan| &plan.blobs) {
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
    let mut arrived: Vec<Vec<Digest>> = targets.iter().map(|_| Vec::new()).collect();
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
        let ends = bring(context, &source, targets, by, moving).await;
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
                        arrived[index].push(digest.clone());
                    }
                }
                Err(fault) => {
                    outcome.fault.get_or_insert(fault);
                }
            }
        }
    }
    for (target, digests) in targets.iter().zip(&arrived) {
        let now = context.clock.now();
        if let Err(error) = context
            .store
            .remember_blobs(target.registry(), &target.repository, digests, now)
            .await
        {
            tracing::warn!("cannot remember blobs: {error}");
        }
        blob_memory::learn_from_answers(context, &target.endpoint).await;
    }
    outcomes
}

/// Brings one blob to the targets that want it, sharing the work with everybody who wants the same.
async fn bring(
    context: &RunContext,
    source: &SourceBlob,
    targets: &[Target],
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
                .claim(target.registry(), &target.repository, &source.digest)
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

async fn put_all<F>(
    context: &RunContext,
    repository: &RepositoryName,
    tree: &ImageTree,
    target: &Target,
    plan: &ImagePlan,
    before_tag: impl Fn() -> F,
) -> (Result<(), Fault>, u32)
where
    F: Future<Output = Result<(), Fault>>,
{
    let first = put_manifests(context, tree, target, plan, &before_tag).await;
    let (Err(fault), attempts) = &first else { return first };
    let believed = plan.blobs.iter().any(|step| step.action == BlobAction::Present);
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
    let digests: Vec<Digest> = plan.blobs.iter().map(|step| step.digest.clone()).collect();
    context.blobs.forget(target.registry(), &target.repository, &digests);
    let attempts = *attempts;
    if let Err(error) = context
        .store
        .forget_blobs(target.registry(), &target.repository, &digests)
        .await
    {
        return (Err(error.into()), attempts);
    }
    let again = ImagePlan {
        blobs: plan
            .blobs
            .iter()
            .cloned()
            .map(|mut step| {
                step.action = BlobAction::Find { mount_from: None };
                step
            })
            .collect(),
        ..plan.clone()
    };
    let plans = [Ok(again.clone())];
    let mut healed = bring_blobs(context, repository, std::slice::from_ref(target), &plans).await;
    match healed.pop() {
        Some(Brought {
            fault: Some(fault),
            attempts,
            ..
        }) => (Err(fault), attempts),
        _ => put_manifests(context, tree, target, &again, &before_tag).await,
    }
}

async fn put_manifests<F>(
    context: &RunContext,
    tree: &ImageTree,
    target: &Target,
    plan: &ImagePlan,
    before_tag: &impl Fn() -> F,
) -> (Result<(), Fault>, u32)
where
    F: Future<Output = Result<(), Fault>>,
{
    let Some((top, children)) = plan.manifests.split_last() else {
        return (Ok(()), 0);
    };
    let shape = |digest: &Digest| tree.manifests.get(digest).map(Manifest::shape);
    let (images, indexes): (Vec<_>, Vec<_>) = children
        .iter()
        .partition(|step| shape(&step.digest) != Some(ManifestShape::Index));
    let mut worst = 0;
    // Images need nothing but blobs, so their order is free; an index comes after all that it names.
    let each_image = images
        .into_iter()
        .map(|step| put(context, tree, target, &step.digest, &step.reference));
    let mut putting = unordered(each_image, MANIFESTS_AT_ONCE);
    while let Some((result, attempts)) = putting.next().await {
        worst = worst.max(attempts);
        if result.is_err() {
            return (result, worst);
        }
    }
    for step in indexes {
        let (result, attempts) = put(context, tree, target, &step.digest, &step.reference).await;
        worst = worst.max(attempts);
        if result.is_err() {
            return (result, worst);
        }
    }
    if let Err(fault) = before_tag().await {
        return (Err(fault), worst);
    }
    let (result, attempts) = put(context, tree, target, &top.digest, &top.reference).await;
    (result, worst.max(attempts))
}

async fn put(
    context: &RunContext,
    tree: &ImageTree,
    target: &Target,
    digest: &Digest,
    reference: &Reference,
) -> (Result<(), Fault>, u32) {
    let Some(manifest) = tree.manifests.get(digest) else {
        let fault = Fault::new(ErrorKind::Invalid, format!("the manifest {digest} was not read"));
        return (Err(fault), 0);
    };
    if let Some(reason) = context.control.aborted() {
        return (Err(Fault::stopped(&reason)), 0);
    }
    let putting = || async {
        let bytes = manifest.bytes().clone();
        let put = target
            .endpoint
            .put_manifest(&target.repository, reference, manifest.media_type(), bytes)
            .await;
        put.map_err(|error| name_foreign(manifest, error.on(Side::Destination).into()))
    };
    let (result, attempts) = persist(context, putting).await;
    (result.map(|_| ()), attempts)
}

/// Says what a registry does not say that takes no foreign layers: distribution answers 500 UNKNOWN where its
/// configuration does not allow their addresses, however often it is asked.
fn name_foreign(manifest: &Manifest, mut fault: Fault) -> Fault {
    let foreign = manifest.blobs().any(|blob| blob.is_foreign() && !blob.urls.is_empty());
    if foreign && matches!(fault.status, Some(400 | 500)) {
        fault.kind = ErrorKind::Unsupported;
        fault.message.push_str(
            "; the image has foreign layers, which are fetched from their own `urls`: allow these at the registry \
             (in distribution, validation.manifests.urls.allow) or leave the tag out of the rule",
        );
    }
    fault
}
