//! Bringing one tree of manifests, with its blobs, to one or more destinations.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::oneshot;

use super::blob_memory::{self, may_lack_blobs};
use super::bring::{Brought, bring_blobs};
use super::context::RunContext;
use super::fault::Fault;
use super::import;
use super::put::put_manifests;
use super::together::Together;
use crate::oci::{Digest, RepositoryName, Tag};
use crate::plan::{BlobAction, ErrorKind, ImagePlan, ImageTree, KnownContent, image_plan};
use crate::registry::Endpoint;
use crate::store::Intention;

/// One destination repository of a tree.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    pub(super) repository: RepositoryName,
    /// True where the repository was seen not to be there, so that nothing needs to be looked for.
    pub(super) absent: bool,
    /// Under which tag the top manifest is put; by digest only without one.
    pub(super) tag: Option<Tag>,
    /// What the tag pointed to when it was looked at.
    pub(super) previous: Option<Digest>,
}

impl Target {
    pub(super) fn registry(&self) -> &str {
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
    /// True where the registry fetched it by itself.
    pub(super) imported: bool,
}

/// What is to be done at one target.
#[derive(Clone, Debug)]
pub(super) struct TargetPlan {
    pub(super) image: ImagePlan,
    /// Blobs that this process saw or brought there before this (monotonic time) are looked for again.
    pub(super) believed_since: Duration,
    /// Blobs that were looked for and are there.
    pub(super) seen: Vec<Digest>,
}

/// Copies blobs, then manifests, children first, the tag last; at each target as soon as it has its own blobs, whatever others
/// still wait for. `before_tag` is asked just before a target's tag is put (without a tag, the top manifest), and `arrived` is told
/// how the tree fared there. Gives what `arrived` made of that, by target. `as_at_source`: the source has the whole tree as it
/// is, so that a target may fetch it by itself.
pub(super) async fn copy_tree<F, G, T>(
    context: &RunContext,
    repository: &RepositoryName,
    tree: &ImageTree,
    targets: &[Target],
    as_at_source: bool,
    before_tag: impl Fn(usize) -> F,
    arrived: impl Fn(usize, Arrived) -> G,
) -> Vec<T>
where
    F: Future<Output = Result<(), Fault>>,
    G: Future<Output = T>,
{
    let mut plans = Vec::with_capacity(targets.len());
    for target in targets {
        plans.push(plan(context, repository, tree, target).await);
    }
    let (tellers, listeners): (Vec<_>, Vec<_>) = targets.iter().map(|_| oneshot::channel()).unzip();
    let imports: Vec<Option<import::Wanted>> = targets
        .iter()
        .zip(&plans)
        .map(|(target, plan)| import::wanted(context, tree, target, plan.as_ref().ok().filter(|_| as_at_source)?))
        .collect();
    let by_us;
    let to_bring = match imports.iter().all(Option::is_none) {
        true => &plans,
        false => {
            by_us = without_imported(&plans, &imports);
            &by_us
        }
    };
    let bringing = bring_blobs(context, repository, targets, to_bring, tellers);
    let together = Together::new(context, targets);
    let putting = targets
        .iter()
        .zip(&plans)
        .zip(listeners)
        .enumerate()
        .map(|(index, all)| {
            let ((target, plan), brought) = all;
            let (before_tag, arrived, together, import) = (&before_tag, &arrived, &together, imports[index]);
            async move {
                let mut brought = brought.await.unwrap_or_else(|_| Brought::untold());
                if let (Some(wanted), Ok(plan)) = (import, plan) {
                    brought = import::bring(context, repository, tree, target, plan, wanted).await;
                }
                let (attempts, bytes, imported) = (brought.attempts, brought.bytes, brought.imported);
                let put = put_brought(context, repository, tree, target, plan, brought, || before_tag(index));
                let (result, tried) = put.await;
                let end = Arrived {
                    result,
                    attempts: attempts.max(tried),
                    bytes,
                    imported,
                };
                let well = end.result.is_ok();
                let end = arrived(index, end).await;
                together.ended(index, well);
                end
            }
        });
    let copying = join(bringing, join_all(putting));
    tokio::select! {
        (_, ends) = copying => ends,
        never = together.watch() => match never {},
    }
}

/// The plans by which blobs are brought: targets that fetch the image by themselves get none with the others.
fn without_imported(
    plans: &[Result<TargetPlan, Fault>],
    imports: &[Option<import::Wanted>],
) -> Vec<Result<TargetPlan, Fault>> {
    let mut plans = plans.to_vec();
    for (plan, import) in plans.iter_mut().zip(imports) {
        if let (Ok(plan), Some(_)) = (plan, import) {
            plan.image.blobs.clear();
        }
    }
    plans
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
    let (mut present, believed_since) = match blob_memory::is_believed(context, target).await? {
        true => (blob_memory::present(context, target, &digests).await?, Duration::ZERO),
        false => (BTreeSet::new(), context.began),
    };
    let repository_absent = target.absent && !context.careful;
    let (mut seen, mut missing) = (Vec::new(), BTreeSet::new());
    if !repository_absent {
        let unknown = digests.into_iter().filter(|digest| {
            let known = context
                .blobs
                .is_known(target.registry(), &target.repository, digest, believed_since);
            !known && !present.contains(digest) && !context.damaged.contains(digest)
        });
        let unknown: Vec<Digest> = unknown.collect();
        // One alone is looked for as ever.
        if unknown.len() > 1 {
            for (digest, is_there) in target.endpoint.held_blobs(&target.repository, &unknown).await {
                if is_there {
                    context.blobs.saw(target.registry(), &target.repository, &digest);
                    seen.push(digest.clone());
                    present.insert(digest);
                } else {
                    missing.insert(digest);
                }
            }
        }
    }
    let known = KnownContent {
        repository_absent,
        present,
        missing,
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
        seen,
    })
}

/// Remembers blobs that arrived, and the digest that the target's tag is about to point to, where one is given: both with
/// one wait for the disk.
///
/// # Errors
/// The digest could not be recorded, so the tag must not be put. That blobs are not remembered is no error.
async fn remember(
    context: &RunContext,
    source: &RepositoryName,
    target: &Target,
    arrived: &[Digest],
    about_to_put: Option<&Digest>,
) -> Result<(), Fault> {
    let (registry, repository, now) = (target.registry(), &target.repository, context.clock.now());
    let recorded = match target.tag.as_ref().zip(about_to_put) {
        Some((tag, digest)) => {
            let intention = Intention {
                run: context.run,
                source: &format!("{}/{source}", context.source.name()),
                previous: target.previous.as_ref(),
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

/// Puts the manifests where all blobs are there.
async fn put_brought<F>(
    context: &RunContext,
    repository: &RepositoryName,
    tree: &ImageTree,
    target: &Target,
    plan: &Result<TargetPlan, Fault>,
    brought: Brought,
    before_tag: impl Fn() -> F,
) -> (Result<(), Fault>, u32)
where
    F: Future<Output = Result<(), Fault>>,
{
    let mut there = brought.arrived;
    there.extend(plan.iter().flat_map(|plan| plan.seen.iter().cloned()));
    let complete = match (plan, brought.fault) {
        (Err(fault), _) => Err(fault.clone()),
        (Ok(_), Some(fault)) => Err(fault),
        (Ok(plan), None) => Ok(plan),
    };
    // Before the put: else a process that ends between the put and its record, or never hears the answer, would take its own
    // tag for somebody else's. An intention whose put never happens does no harm: it says that this digest is what the source
    // had for the tag, so whoever puts it there has put what we would have put.
    let about_to_put = complete.is_ok().then_some(&tree.root);
    let remembered = remember(context, repository, target, &there, about_to_put).await;
    match complete.and_then(|plan| remembered.map(|()| plan)) {
        Ok(plan) => put_all(context, repository, tree, target, plan, brought.believed, before_tag).await,
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
    let may_tell = fault.kind == ErrorKind::MissingContent && tree.manifests.len() == 1;
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
    let (teller, healed) = oneshot::channel();
    bring_blobs(
        context,
        repository,
        std::slice::from_ref(target),
        &[Ok(again)],
        vec![teller],
    )
    .await;
    let healed = healed.await.unwrap_or_else(|_| Brought::untold());
    // What the tag is about to point to is recorded already.
    if let Err(fault) = remember(context, repository, target, &healed.arrived, None).await {
        return (Err(fault), healed.attempts);
    }
    match healed.fault {
        Some(fault) => (Err(fault), healed.attempts),
        None => {
            let again = put_manifests(context, tree, target, &plan.image, &before_tag).await;
            // Registries word a refusal as they like: only that the blobs mended it shows that it was for the blobs.
            if may_tell && healed.bytes > 0 && again.0.is_ok() {
                let evidence = "it refused a manifest until its blobs were there";
                blob_memory::learn(context, &target.endpoint, evidence).await;
            }
            again
        }
    }
}
