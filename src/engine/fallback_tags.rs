//! Fallback tags: the lists of referrers that a client keeps where a registry has no referrers API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::context::RunContext;
use super::fault::Fault;
use super::image::Target;
use super::retry::persist;
use crate::oci::{Digest, Manifest, Reference, RepositoryName, Tag, media_type};
use crate::plan::ErrorKind;
use crate::registry::{self, Endpoint, Side};

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

/// Keeps the fallback tag up where the target has no referrers API (distribution-spec 1.1, "Pushing Manifests with Subject"):
/// the union by digest, written under a lock, read again after the put. `one` of the referrers, with its bytes.
pub(super) async fn list_at_target(
    context: &RunContext,
    subject: &Digest,
    referrers: &[Listed],
    one: &Manifest,
    target: &Target,
) -> Result<(), Fault> {
    let endpoint = &target.endpoint;
    let at_target = |error: registry::Error| Fault::from(error.on(Side::Destination));
    match endpoint.has_referrers_api(&target.repository, subject).await {
        Ok(true) => return Ok(()),
        Ok(false) if !endpoint.refuses_referrers(&target.repository) => {}
        Ok(false) => {
            if knows_subjects(context, one, target).await? {
                return Ok(());
            }
        }
        Err(error) if error.kind == registry::ErrorKind::Denied => {
            let known = knows_subjects(context, one, target).await?;
            return if known { Ok(()) } else { Err(at_target(error)) };
        }
        Err(error) => return Err(at_target(error)),
    }
    let tag = subject.fallback_tag();
    let lock = context.tag_locks.of(endpoint.name(), &target.repository, &tag);
    let _held = lock.lock().await;
    let reference = Reference::Tag(tag.clone());
    // What was put in vain may have been read long ago: whoever puts it reads it again first, so that nobody else's entries go.
    let add = || async {
        let index = read_fallback(endpoint, &target.repository, &tag)
            .await
            .map_err(at_target)?;
        let Some(bytes) = with_entries(index.as_ref(), referrers)? else {
            return Ok(Added::Nothing);
        };
        let put = endpoint.put_manifest(&target.repository, &reference, media_type::OCI_INDEX, bytes.into());
        put.await.map(|_| Added::Some).map_err(at_target)
    };
    // Somebody else may put the same tag between our reading and our putting: then what we put is read again without it.
    for _ in 0..=3 {
        match persist(context, add).await.0? {
            Added::Nothing => return Ok(()),
            Added::Some => {}
        }
    }
    Err(Fault::new(
        ErrorKind::Conflict,
        format!(
            "{}/{}:{tag} is being changed by somebody else: it is brought up to date in the next run",
            endpoint.name(),
            target.repository
        ),
    ))
}

/// What a fallback tag lacked.
enum Added {
    Nothing,
    Some,
}

/// Whether a registry that may not be asked for referrers lists them itself: it says so in its answer to a manifest that has a subject
/// (distribution-spec 1.1, "Pushing Manifests with Subject"). One that it has is put again for that, by its digest.
async fn knows_subjects(context: &RunContext, referrer: &Manifest, target: &Target) -> Result<bool, Fault> {
    let reference = Reference::Digest(referrer.digest().clone());
    let putting = || async {
        let bytes = referrer.bytes().clone();
        let put = target
            .endpoint
            .put_manifest(&target.repository, &reference, referrer.media_type(), bytes);
        put.await.map_err(|error| Fault::from(error.on(Side::Destination)))
    };
    persist(context, putting).await.0
}

async fn read_fallback(
    endpoint: &Endpoint,
    repository: &RepositoryName,
    tag: &Tag,
) -> registry::Result<Option<Manifest>> {
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
pub(super) struct Listed {
    digest: Digest,
    entry: serde_json::Value,
}

impl Listed {
    pub(super) fn of(manifest: &Manifest) -> Self {
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
