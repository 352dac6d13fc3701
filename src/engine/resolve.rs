//! What a source tag comes to under a rule.

use super::choice::{choose, remembered_choice};
use super::context::RunContext;
use super::manifests;
use super::metered;
use super::observe::{observed, unknown};
use crate::oci::{Digest, Manifest, Reference, RepositoryName, Tag};
use crate::plan::{Observation, WantedImage};
use crate::registry::Side;

/// What the destinations of a source tag should hold. Its manifest will be needed, so it is read at once.
pub(super) async fn resolve(context: &RunContext, repository: &RepositoryName, tag: &Tag) -> Observation<WantedImage> {
    resolve_by_reading(context, repository, &Reference::Tag(tag.clone())).await
}

/// As [`resolve`], for a tag of which it is known what it points to.
pub(super) async fn resolve_found(
    context: &RunContext,
    repository: &RepositoryName,
    tag: &Tag,
    source: &Digest,
) -> Observation<WantedImage> {
    match remembered_choice(context, source).await {
        Ok(Some(wanted)) => return Observation::Known(wanted),
        Ok(None) => {}
        Err(fault) => return Observation::Unknown(unknown(fault)),
    }
    // Which platforms it has is seen when its turn comes to be read.
    if metered::is_spared(context) && !manifests::is_kept(&context.manifests, &context.source, repository, source).await
    {
        return Observation::Known(WantedImage {
            source: source.clone(),
            digest: Ok(source.clone()),
            missing_platforms: Vec::new(),
        });
    }
    // Its platforms are judged by its manifest, which may have been read before.
    match manifests::read(&context.manifests, &context.source, repository, source).await {
        Ok(Some(manifest)) => judged(context, repository, &manifest).await,
        // The tag has moved on meanwhile.
        Ok(None) => resolve_by_reading(context, repository, &Reference::Tag(tag.clone())).await,
        Err(fault) => Observation::Unknown(unknown(fault)),
    }
}

/// As [`resolve`], for an image that is named by digest.
pub(super) async fn resolve_digest(
    context: &RunContext,
    repository: &RepositoryName,
    digest: &Digest,
) -> Observation<WantedImage> {
    resolve_by_reading(context, repository, &Reference::Digest(digest.clone())).await
}

async fn resolve_by_reading(
    context: &RunContext,
    repository: &RepositoryName,
    reference: &Reference,
) -> Observation<WantedImage> {
    let manifest = context
        .source
        .get_manifest(repository, reference)
        .await
        .map_err(|error| error.on(Side::Source));
    let manifest = match observed(manifest) {
        Observation::Known(manifest) => manifest,
        Observation::Absent => return Observation::Absent,
        Observation::Unknown(unknown) => return Observation::Unknown(unknown),
    };
    let tag = reference.tag();
    context
        .manifests
        .keep(&context.source, repository, tag, &manifest)
        .await;
    judged(context, repository, &manifest).await
}

/// What the rule's platforms make of a manifest.
async fn judged(context: &RunContext, repository: &RepositoryName, manifest: &Manifest) -> Observation<WantedImage> {
    // The platform of a plain image stands in its config, which need not be read at every run.
    let wanted = match remembered_choice(context, manifest.digest()).await {
        Ok(Some(wanted)) => Ok(wanted),
        Ok(None) => choose(context, repository, manifest).await.map(|(wanted, _)| wanted),
        Err(fault) => Err(fault),
    };
    match wanted {
        Ok(wanted) => Observation::Known(wanted),
        Err(fault) => Observation::Unknown(unknown(fault)),
    }
}
