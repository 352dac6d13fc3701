//! Signatures, attestations, SBOMs and other referrers: they travel with the image that they name.

use std::collections::BTreeSet;

use super::context::RunContext;
use super::fallback_tags::{Listed, list_at_target};
use super::fault::Fault;
use super::image::{Arrived, Target, copy_tree};
use super::job::warn;
use super::looks::head;
use super::manifests;
use super::observe::Attachments;
use super::tag_put::{KEPT, still_ours};
use crate::oci::{Descriptor, Digest, Manifest, Reference, RepositoryName, Tag};
use crate::plan::{Decision, ErrorKind, ImageTree, Observation, over_held};
use crate::registry::Side;
use crate::rules::{MovedTags, OnConflict};
use crate::store::Write;

/// Referrers of referrers at most: a signature of an SBOM of an image is two.
const DEEPEST: usize = 4;

/// Attachments of one image at most: who names more is broken or hostile, and would fill the destination.
const MOST: usize = 10_000;

/// Copies everything attached to the manifests of `tree` (and, for a rewritten index, not to the index itself, as its
/// signatures do not hold for the rewritten bytes) to one target. Gives a warning for each attachment that failed.
pub(super) async fn copy_attachments(
    context: &RunContext,
    repository: &RepositoryName,
    subjects: &[Digest],
    tags: &Attachments,
    target: &Target,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut level: Vec<Digest> = subjects.to_vec();
    let mut seen: BTreeSet<Digest> = level.iter().cloned().collect();
    let most = seen.len() + MOST;
    for _ in 0..DEEPEST {
        let mut next = Vec::new();
        for subject in &level {
            if seen.len() > most {
                let message = format!("the image has more than {MOST} attachments, and the rest of them is left");
                faults.push(Fault::new(ErrorKind::Invalid, message));
                return faults;
            }
            match copy_of_subject(context, repository, subject, tags, target).await {
                Ok(copied) => next.extend(copied.into_iter().filter(|digest| seen.insert(digest.clone()))),
                Err(fault) => faults.push(fault),
            }
        }
        if next.is_empty() {
            break;
        }
        level = next;
    }
    faults
}

/// Copies what is attached to one manifest; gives the digests that were copied, which may have attachments of their own.
async fn copy_of_subject(
    context: &RunContext,
    repository: &RepositoryName,
    subject: &Digest,
    tags: &Attachments,
    target: &Target,
) -> Result<Vec<Digest>, Fault> {
    let fallback = subject.fallback_tag();
    let own_tags = tags.get(subject).map(Vec::as_slice).unwrap_or_default();
    let mut copied = Vec::new();
    // One that fails stops no other.
    let mut fault = None;
    for tag in own_tags.iter().filter(|tag| **tag != fallback) {
        match copy_tag(context, repository, tag, target).await {
            Ok(digests) => copied.extend(digests),
            Err(failed) => {
                fault.get_or_insert(failed);
            }
        }
    }
    let referrers = source_referrers(context, repository, subject, own_tags.contains(&fallback)).await?;
    let mut present = Vec::new();
    let mut one = None;
    for referrer in referrers {
        if context.rule.platforms.leaves_out(referrer.artifact_type.as_deref()) {
            continue;
        }
        match copy_digest(context, repository, &referrer.digest, target).await {
            Ok(Some(manifest)) => {
                copied.push(referrer.digest.clone());
                present.push(Listed::of(&manifest));
                one.get_or_insert(manifest);
            }
            Ok(None) => tracing::warn!(
                source = %format!("{}/{repository}", context.source.name()), digest = %referrer.digest,
                "a referrer is listed but not there"
            ),
            Err(failed) => {
                fault.get_or_insert(failed);
            }
        }
    }
    if let Some(one) = &one {
        list_at_target(context, subject, &present, one, target).await?;
    }
    fault.map_or(Ok(copied), Err)
}

/// Referrers of a manifest: by the API where the source has it, else by the fallback tag, which need only be read where it is listed.
async fn source_referrers(
    context: &RunContext,
    repository: &RepositoryName,
    subject: &Digest,
    fallback_listed: bool,
) -> Result<Vec<Descriptor>, Fault> {
    let on_source = |error: crate::registry::Error| Fault::from(error.on(Side::Source));
    if let Some(referrers) = context
        .source
        .referrers_by_api(repository, subject)
        .await
        .map_err(on_source)?
    {
        return Ok(referrers);
    }
    if context.source.refuses_referrers(repository) {
        warn_of_refusal(context, repository);
    }
    if !fallback_listed {
        return Ok(Vec::new());
    }
    let fallback = Reference::Tag(subject.fallback_tag());
    let index = context
        .source
        .get_manifest(repository, &fallback)
        .await
        .map_err(on_source)?;
    Ok(index.map(|index| index.entries().to_vec()).unwrap_or_default())
}

/// Says once a run that referrers may be there that are not seen, whether the refusal is of this run or of an earlier one. The manifest
/// itself was read, so what is attached by tag comes, and a run that fails for ever helps nobody.
fn warn_of_refusal(context: &RunContext, repository: &RepositoryName) {
    let source = context.source.name();
    if context.ledger.is_first(&format!("referrers of {source}")) {
        warn(
            context,
            format!(
                "the question for the referrers of {source}/{repository} is answered 403, and perhaps of others: the registry has no referrers \
                 API, or this user may not ask it, so that signatures and other attachments are found by their tags alone; where it has \
                 one, grant the right to list referrers (ECR: ecr:ListImageReferrers), and `transship ping` asks again"
            ),
        );
    }
}

/// Copies an attachment tag, unless the target has it already. Gives the digest of what it holds.
async fn copy_tag(
    context: &RunContext,
    repository: &RepositoryName,
    tag: &Tag,
    target: &Target,
) -> Result<Vec<Digest>, Fault> {
    let reference = Reference::Tag(tag.clone());
    let manifest = context.source.get_manifest(repository, &reference).await;
    let Some(manifest) = manifest.map_err(|error| error.on(Side::Source))? else {
        return Ok(Vec::new());
    };
    let digest = manifest.digest().clone();
    let held = head(&target.endpoint, &target.repository, tag, Side::Destination).await;
    let previous = match held {
        Observation::Known(held) if held == digest => return Ok(vec![digest]),
        Observation::Known(held) => Some(held),
        Observation::Absent => None,
        Observation::Unknown(unknown) => return Err(Fault::from(unknown)),
    };
    if let Some(held) = &previous
        && !may_replace(context, target, tag, held).await?
    {
        return Ok(Vec::new());
    }
    let tree = manifests::read_tree(&context.manifests, &context.source, repository, manifest).await?;
    let attached = Target {
        tag: Some(tag.clone()),
        previous,
        ..target.clone()
    };
    let before_tag = || still_ours(context, &attached, attached.previous.as_ref(), &digest);
    match copy(context, repository, &tree, &attached, before_tag).await {
        Err(fault) if fault.code.as_deref() == Some(KEPT) => return Ok(Vec::new()),
        result => result?,
    }
    let write = Write {
        run: Some(context.run),
        job: None,
        rule: context.rule.name.as_str(),
        source: &format!("{}/{repository}", context.source.name()),
        registry: target.endpoint.name(),
        repository: &target.repository,
        tag,
        digest: &digest,
        previous: attached.previous.as_ref(),
    };
    context.store.record_write(&write, context.clock.now()).await?;
    Ok(vec![digest])
}

/// Whether the rule lets the source replace an attachment tag that holds something else: it is a tag like any other.
async fn may_replace(context: &RunContext, target: &Target, tag: &Tag, held: &Digest) -> Result<bool, Fault> {
    let rule = &context.rule;
    if rule.moved_tags == MovedTags::Follow && rule.on_conflict == OnConflict::Overwrite {
        return Ok(true);
    }
    let written = context
        .store
        .written(target.endpoint.name(), &target.repository)
        .await?;
    let ours = written.get(tag).is_some_and(|digests| digests.contains(held));
    match over_held(ours, rule.moved_tags, rule.on_conflict) {
        Decision::Copy { .. } => Ok(true),
        Decision::Keep { .. } => Ok(false),
        _ => Err(Fault::new(
            ErrorKind::Conflict,
            format!(
                "{}/{}:{tag} differs at the destination, and the rule does not let the source win",
                target.endpoint.name(),
                target.repository
            ),
        )),
    }
}

/// Copies a referrer by digest, unless the target has it already.
async fn copy_digest(
    context: &RunContext,
    repository: &RepositoryName,
    digest: &Digest,
    target: &Target,
) -> Result<Option<Manifest>, Fault> {
    let Some(manifest) = manifests::read(&context.manifests, &context.source, repository, digest).await? else {
        return Ok(None);
    };
    let reference = Reference::Digest(digest.clone());
    let held = target.endpoint.head_manifest(&target.repository, &reference).await;
    if held.map_err(|error| error.on(Side::Destination))?.is_none() {
        let tree = manifests::read_tree(&context.manifests, &context.source, repository, manifest.clone()).await?;
        let by_digest = Target {
            tag: None,
            previous: None,
            ..target.clone()
        };
        copy(context, repository, &tree, &by_digest, || async { Ok(()) }).await?;
    }
    Ok(Some(manifest))
}

async fn copy<F>(
    context: &RunContext,
    repository: &RepositoryName,
    tree: &ImageTree,
    target: &Target,
    before_tag: impl Fn() -> F,
) -> Result<(), Fault>
where
    F: Future<Output = Result<(), Fault>>,
{
    let target = Target {
        absent: false,
        ..target.clone()
    };
    let targets = std::slice::from_ref(&target);
    let result = |_, arrived: Arrived| async { arrived.result };
    let results = copy_tree(context, repository, tree, targets, false, |_| before_tag(), result).await;
    results.into_iter().collect()
}
