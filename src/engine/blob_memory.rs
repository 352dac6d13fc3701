//! When a blob that an earlier run saw or wrote, in this process or another one, counts as present without a look.

use std::collections::BTreeSet;
use std::time::Duration;

use super::context::RunContext;
use super::fault::Fault;
use super::image::Target;
use crate::oci::Digest;
use crate::plan::ErrorKind;
use crate::registry::Endpoint;

/// How long a blob is believed to be there after it was last seen or written: registries collect garbage in the night.
const BELIEVED_FOR: Duration = Duration::from_secs(24 * 3600);

/// How long it is believed that a registry refuses manifests with missing blobs: registries are replaced by others.
const REFUSES_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Name of the capability.
pub(super) const REFUSES_MISSING_BLOBS: &str = "refuses_missing_blobs";

/// True where what earlier runs saw or wrote at the target is believed. Only where a wrong memory shows itself: a registry
/// that takes a manifest without its blobs would be left with a broken image.
pub(super) async fn is_believed(context: &RunContext, target: &Target) -> Result<bool, Fault> {
    // After a run that ended badly a repository without tags may hold what that run sent.
    let nothing = target.absent && !context.careful;
    Ok(!context.looks_anew && !nothing && refuses(context, &target.endpoint).await?)
}

/// Blobs of a tree that need no look at a target that is believed ([`is_believed`]), as they were there within a day.
pub(super) async fn present(
    context: &RunContext,
    target: &Target,
    digests: &[Digest],
) -> Result<BTreeSet<Digest>, Fault> {
    let now = context.clock.now();
    let (registry, since) = (target.endpoint.name(), now - BELIEVED_FOR);
    let seen = context
        .store
        .blobs_seen(registry, &target.repository, digests, since, now)
        .await?;
    Ok(seen)
}

/// True where the registry is known to refuse a manifest whose blobs it lacks: by its kind, or learnt.
async fn refuses(context: &RunContext, endpoint: &Endpoint) -> Result<bool, Fault> {
    if endpoint.refuses_missing_blobs() {
        return Ok(true);
    }
    let now = context.clock.now();
    let learnt = context
        .store
        .capability(endpoint.name(), "*", REFUSES_MISSING_BLOBS, now)
        .await?;
    Ok(learnt.is_some())
}

/// Keeps what the answers of a destination showed, once a process.
pub(super) async fn learn_from_answers(context: &RunContext, endpoint: &Endpoint) {
    if endpoint.newly_refuses_missing_blobs() {
        learn(
            context,
            endpoint,
            "the location of an upload has the mark of distribution",
        )
        .await;
    }
}

/// Keeps that the registry refuses manifests with missing blobs.
pub(super) async fn learn(context: &RunContext, endpoint: &Endpoint, evidence: &str) {
    let now = context.clock.now();
    let (name, expires) = (endpoint.name(), now + REFUSES_LIFE);
    let learnt = context
        .store
        .learn(name, "*", REFUSES_MISSING_BLOBS, "yes", evidence, now, expires)
        .await;
    if let Err(error) = learnt {
        tracing::warn!("cannot keep what was learnt of {name}: {error}");
    }
}

/// True for a refused manifest that may be refused for blobs that we only believed to be there: registries have several
/// words for that, and looking once more costs little.
pub(super) fn may_lack_blobs(kind: ErrorKind, believed: bool) -> bool {
    match kind {
        ErrorKind::MissingContent => true,
        ErrorKind::Invalid | ErrorKind::NotFound => believed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_that_may_be_about_blobs_is_healed() {
        assert!(may_lack_blobs(ErrorKind::MissingContent, false));
        assert!(may_lack_blobs(ErrorKind::Invalid, true));
        assert!(!may_lack_blobs(ErrorKind::Invalid, false));
        assert!(!may_lack_blobs(ErrorKind::Denied, true));
    }
}
