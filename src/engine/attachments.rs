//! Signatures, attestations, SBOMs and other referrers: they travel with the image that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::context::RunContext;
use super::fault::Fault;
use super::image::{Arrived, Target, copy_tree};
use super::looks::head;
use super::manifests;
use super::observe::Attachments;
use super::retry::persist;
use super::tag_put::{KEPT, still_ours};
use crate::oci::{Descriptor, Digest, Manifest, Reference, RepositoryName, Tag, media_type};
use crate::plan::{Decision, ErrorKind, ImageTree, Observation, over_held};
use crate::registry::{Endpoint, Side};
use crate::rules::{MovedTags, OnConflict};
use crate::store::Write;

/// Referrers of referrers at most: a signature of an SBOM of an image is two.
const DEEPEST: usize = 4;

/// One lock for each fallback tag that this process changes.
#[derive(Clone, Debug, Default)]
pub(super) struct TagLocks(Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>);

impl TagLocks {
    fn of(&self, registry: &str, repository: &RepositoryName, tag: &Tag) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks that nobody holds are not kept.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(format!("{registry}/{repository}:{tag}")).or_default())
    }
}

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
    for _ in 0..DEEPEST {
        let mut next = Vec::new();
        for subject in &level {
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
    for referrer in referrers {
        if context.rule.platforms.leaves_out(referrer.artifact_type.as_deref()) {
            continue;
        }
        match copy_digest(context, repository, &referrer.digest, target).await {
            Ok(Some(manifest)) => {
                copied.push(referrer.digest.clone());
                present.push(Listed::of(&manifest));
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
    if !present.is_empty() {
        list_at_target(context, subject, &present, target).await?;
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

/// Keeps the fallback tag up where the target has no referrers API (distribution-spec 1.1, "Pushing Manifests with Subject"):
/// the union by digest, written under a lock, read again after the put.
async fn list_at_target(
    context: &RunContext,
    subject: &Digest,
    referrers: &[Listed],
    target: &Target,
) -> Result<(), Fault> {
    let endpoint = &target.endpoint;
    let at_target = |error: crate::registry::Error| Fault::from(error.on(Side::Destination));
    if endpoint
        .referrers_by_api(&target.repository, subject)
        .await
        .map_err(at_target)?
        .is_some()
    {
        return Ok(());
    }
    let tag = subject.fallback_tag();
    let lock = context.tag_locks.of(endpoint.name(), &target.repository, &tag);
    let _held = lock.lock().await;
    // Somebody else may put the same tag between our reading and our putting: then what we put is read again without it.
    for _ in 0..3 {
        let index = read_fallback(endpoint, &target.repository, &tag)
            .await
            .map_err(at_target)?;
        let Some(bytes) = with_entries(index.as_ref(), referrers)? else {
            return Ok(());
        };
        let reference = Reference::Tag(tag.clone());
        let bytes = bytes::Bytes::from(bytes);
        let putting = || async {
            let put = endpoint.put_manifest(&target.repository, &reference, media_type::OCI_INDEX, bytes.clone());
            put.await.map_err(at_target)
        };
        persist(context, putting).await.0?;
    }
    let index = read_fallback(endpoint, &target.repository, &tag)
        .await
        .map_err(at_target)?;
    match with_entries(index.as_ref(), referrers)? {
        None => Ok(()),
        Some(_) => Err(Fault::new(
            ErrorKind::Conflict,
            format!(
                "{}/{}:{tag} is being changed by somebody else: it is brought up to date in the next run",
                endpoint.name(),
                target.repository
            ),
        )),
    }
}

async fn read_fallback(
    endpoint: &Endpoint,
    repository: &RepositoryName,
    tag: &Tag,
) -> crate::registry::Result<Option<Manifest>> {
    endpoint.get_manifest(repository, &Reference::Tag(tag.clone())).await
}

/// The fallback index with the referrers added that it lacks; `None` where it lacks none.
fn with_entries(index: Option<&Manifest>, referrers: &[Listed]) -> Result<Option<Vec<u8>>, Fault> {
    let mut document: serde_json::Value = match index {
        Some(index) => {
            serde_json::from_slice(index.bytes()).map_err(|error| Fault::new(ErrorKind::Invalid, error.to_string()))?
        }
        None => serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] }),
    };
    let listed: BTreeSet<&Digest> = index
        .into_iter()
        .flat_map(Manifest::entries)
        .map(|entry| &entry.digest)
        .collect();
    let missing: Vec<serde_json::Value> = referrers
        .iter()
        .filter(|referrer| !listed.contains(&referrer.digest))
        .map(|referrer| referrer.entry.clone())
        .collect();
    if missing.is_empty() {
        return Ok(None);
    }
    match document.get_mut("manifests").and_then(serde_json::Value::as_array_mut) {
        Some(entries) => entries.extend(missing),
        None => {
            return Err(Fault::new(
                ErrorKind::Invalid,
                "the referrers fallback tag holds no index",
            ));
        }
    }
    serde_json::to_vec(&document)
        .map(Some)
        .map_err(|error| Fault::new(ErrorKind::Local, error.to_string()))
}

/// A referrer as a fallback index lists it.
#[derive(Clone, Debug)]
struct Listed {
    digest: Digest,
    entry: serde_json::Value,
}

impl Listed {
    fn of(manifest: &Manifest) -> Self {
        Self {
            digest: manifest.digest().clone(),
            entry: entry(manifest),
        }
    }
}

/// An entry of a fallback index: artifact type and all annotations of the referrer go along.
fn entry(manifest: &Manifest) -> serde_json::Value {
    let mut entry = serde_json::json!({
        "mediaType": manifest.media_type(),
        "digest": manifest.digest(),
        "size": manifest.bytes().len(),
    });
    if let Some(artifact_type) = manifest.artifact_type() {
        entry["artifactType"] = artifact_type.into();
    }
    let annotations = manifest.annotations();
    if !annotations.is_empty() {
        entry["annotations"] = serde_json::json!(annotations);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        Manifest::parse(None, text.as_bytes().to_vec().into(), None).expect("a manifest")
    }

    fn referrer(name: &str) -> Listed {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"x/{name}","config":{{"mediaType":"{}","digest":"{}","size":2}},"layers":[],"annotations":{{"a":"{name}"}}}}"#,
            media_type::OCI_MANIFEST,
            media_type::OCI_EMPTY,
            Digest::of(b"{}"),
        );
        Listed::of(&manifest(&text))
    }

    #[test]
    fn the_union_keeps_what_is_there() {
        let first = with_entries(None, &[referrer("one")])
            .expect("valid")
            .expect("something to add");
        let first = manifest(std::str::from_utf8(&first).expect("utf-8"));
        assert_eq!(with_entries(Some(&first), &[referrer("one")]).expect("valid"), None);
        let both = with_entries(Some(&first), &[referrer("one"), referrer("two")])
            .expect("valid")
            .expect("one to add");
        let both = manifest(std::str::from_utf8(&both).expect("utf-8"));
        let listed: Vec<_> = both
            .entries()
            .iter()
            .map(|e| (e.digest.clone(), e.artifact_type.clone()))
            .collect();
        assert_eq!(
            listed,
            [("one", "x/one"), ("two", "x/two")].map(|(name, kind)| (referrer(name).digest, Some(kind.to_owned())))
        );
        assert_eq!(both.entries()[1].annotations["a"], "two");
    }
}
