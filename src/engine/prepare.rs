//! What the source has of an image, read and made ready to be copied.

use super::choice::choose;
use super::context::RunContext;
use super::fault::Fault;
use super::job::ImageGroup;
use super::looks::head;
use super::manifests::{read, read_rewritten, read_tree};
use super::retry::persist;
use crate::oci::{Digest, Platform};
use crate::plan::{ErrorKind, ImageTree, Observation};
use crate::registry::Side;

/// What the source has of an image, made ready to be copied.
pub(super) struct Prepared {
    pub(super) tree: ImageTree,
    /// What attachments may belong to.
    pub(super) subjects: Vec<Digest>,
    pub(super) missing_platforms: Vec<String>,
    /// True where the source has the whole tree as it is, and nothing of it is left out.
    pub(super) as_at_source: bool,
}

/// Why an image is not copied although nothing failed.
pub(super) enum NotCopied {
    /// Vanished at the source.
    Gone,
    /// None of the wanted platforms.
    Skipped(Vec<Platform>),
}

/// Reads the image by the digest that was planned. Where that has vanished because the tag moved, it is planned once more.
pub(super) async fn prepare(
    context: &RunContext,
    group: &ImageGroup,
) -> (Result<Result<Prepared, NotCopied>, Fault>, u32) {
    let mut digest = group.source.clone();
    for again in [true, false] {
        let (read, attempts) = read_prepared(context, group, &digest).await;
        match read {
            Ok(Some(prepared)) => return (Ok(prepared), attempts),
            Err(fault) => return (Err(fault), attempts),
            Ok(None) => {}
        }
        let Some(tag) = group.reference.tag().filter(|_| again) else {
            break;
        };
        match head(&context.source, &group.repository, tag, Side::Source).await {
            Observation::Known(moved) if moved != digest => digest = moved,
            Observation::Known(_) => break,
            Observation::Absent => return (Ok(Err(NotCopied::Gone)), attempts),
            Observation::Unknown(unknown) => return (Err(Fault::from(unknown)), attempts),
        }
    }
    let fault = Fault::new(
        ErrorKind::NotFound,
        format!(
            "{} points to {digest}, which the source does not have: push the image again there",
            group.source_place(context)
        ),
    );
    (Err(fault), 1)
}

async fn read_prepared(
    context: &RunContext,
    group: &ImageGroup,
    digest: &Digest,
) -> (Result<Option<Result<Prepared, NotCopied>>, Fault>, u32) {
    persist(context, || read_all(context, group, digest)).await
}

async fn read_all(
    context: &RunContext,
    group: &ImageGroup,
    digest: &Digest,
) -> Result<Option<Result<Prepared, NotCopied>>, Fault> {
    let Some(top) = read(&context.manifests, &context.source, &group.repository, digest).await? else {
        return Ok(None);
    };
    let (wanted, rewritten) = choose(context, &group.repository, &top).await?;
    if let Err(available) = wanted.digest {
        return Ok(Some(Err(NotCopied::Skipped(available))));
    }
    let tree = match &rewritten {
        None => read_tree(&context.manifests, &context.source, &group.repository, top).await?,
        Some(rewritten) => read_rewritten(&context.manifests, &context.source, &group.repository, rewritten).await?,
    };
    let mut subjects: Vec<Digest> = tree.manifests.keys().cloned().collect();
    // Signatures of an index do not hold for a rewritten one.
    subjects.retain(|subject| rewritten.as_ref().is_none_or(|rewritten| !rewritten.made(subject)));
    Ok(Some(Ok(Prepared {
        tree,
        subjects,
        as_at_source: rewritten.is_none(),
        missing_platforms: wanted.missing_platforms.iter().map(ToString::to_string).collect(),
    })))
}
