//! Putting the manifests of a tree at one destination.

use std::future::Future;

use futures_util::StreamExt;

use super::context::RunContext;
use super::fault::Fault;
use super::image::Target;
use super::retry::persist;
use super::several::unordered;
use crate::oci::{Digest, Manifest, ManifestShape, Reference};
use crate::plan::{ErrorKind, ImagePlan, ImageTree};
use crate::registry::Side;

/// Manifests of one image that are put at once.
const MANIFESTS_AT_ONCE: usize = 4;

/// Puts the manifests, children first. `before_top` is asked just before the top manifest is put, under its tag where it has
/// one, each time that is tried. Gives also the attempts in a row, at worst.
pub(super) async fn put_manifests<F>(
    context: &RunContext,
    tree: &ImageTree,
    target: &Target,
    plan: &ImagePlan,
    before_top: &impl Fn() -> F,
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
    let ungated = || async { Ok(()) };
    let mut worst = 0;
    // Images need nothing but blobs, so their order is free; an index comes after all that it names.
    let each_image = images
        .into_iter()
        .map(|step| put(context, tree, target, &step.digest, &step.reference, &ungated));
    let mut putting = unordered(each_image, MANIFESTS_AT_ONCE);
    while let Some((result, attempts)) = putting.next().await {
        worst = worst.max(attempts);
        if result.is_err() {
            return (result, worst);
        }
    }
    for step in indexes {
        let (result, attempts) = put(context, tree, target, &step.digest, &step.reference, &ungated).await;
        worst = worst.max(attempts);
        if result.is_err() {
            return (result, worst);
        }
    }
    let (result, attempts) = put(context, tree, target, &top.digest, &top.reference, before_top).await;
    (result, worst.max(attempts))
}

async fn put<F>(
    context: &RunContext,
    tree: &ImageTree,
    target: &Target,
    digest: &Digest,
    reference: &Reference,
    before: &impl Fn() -> F,
) -> (Result<(), Fault>, u32)
where
    F: Future<Output = Result<(), Fault>>,
{
    let Some(manifest) = tree.manifests.get(digest) else {
        let fault = Fault::new(ErrorKind::Invalid, format!("the manifest {digest} was not read"));
        return (Err(fault), 0);
    };
    if let Some(reason) = context.control.aborted() {
        return (Err(Fault::stopped(&reason)), 0);
    }
    let putting = || async {
        before().await?;
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
