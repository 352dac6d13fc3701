//! What goes around the put of an image's tag: the policy is asked before it, and it is recorded after it.

use super::context::RunContext;
use super::fault::Fault;
use super::image::Target;
use super::job::{GroupDestination, ImageGroup};
use super::looks::head;
use crate::oci::Digest;
use crate::plan::{Decision, ErrorKind, Observation, over_held};
use crate::registry::Side;
use crate::rules::{MovedTags, OnConflict};
use crate::store::{JobId, Write};

/// Marks the fault by which a put that the policy forbids ends early.
pub(super) const KEPT: &str = "TRANSSHIP_KEPT";

/// Asked just before each put of an image's tag.
pub(super) async fn may_put(
    context: &RunContext,
    target: &Target,
    destination: &GroupDestination,
    wanted: &Digest,
) -> Result<(), Fault> {
    still_newest(destination, wanted)?;
    still_ours(context, target, destination.previous.as_ref(), wanted).await
}

/// No newer run may have planned the tag otherwise: what this one brings is then older than what is there, or will be.
fn still_newest(destination: &GroupDestination, wanted: &Digest) -> Result<(), Fault> {
    let newer = destination.put.as_ref().and_then(|put| put.overtaken_by(wanted));
    newer.map_or(Ok(()), |run| {
        let place = destination.place(wanted);
        let message = format!("{place} was planned anew by {run}, as the source's tag moved: what it plans is put");
        Err(Fault {
            code: Some(KEPT.to_owned()),
            ..Fault::new(ErrorKind::Conflict, message)
        })
    })
}

/// Where the rule does not let the source win, the destination is read again just before each put. `previous` is what the tag
/// held when it was decided to put `wanted`.
pub(super) async fn still_ours(
    context: &RunContext,
    target: &Target,
    previous: Option<&Digest>,
    wanted: &Digest,
) -> Result<(), Fault> {
    let rule = &context.rule;
    let Some(tag) = &target.tag else { return Ok(()) };
    if rule.moved_tags == MovedTags::Follow && rule.on_conflict == OnConflict::Overwrite {
        return Ok(());
    }
    let now = match head(&target.endpoint, &target.repository, tag, Side::Destination).await {
        Observation::Known(digest) => Some(digest),
        Observation::Absent => None,
        Observation::Unknown(unknown) => return Err(Fault::from(unknown)),
    };
    if now.as_ref() == previous || now.as_ref() == Some(wanted) {
        return Ok(());
    }
    // Gone meanwhile: there is nothing left that the rule could want to keep.
    let Some(now) = now else { return Ok(()) };
    let written = context
        .store
        .written(target.endpoint.name(), &target.repository)
        .await?;
    let ours = written.get(tag).is_some_and(|ours| ours.contains(&now));
    let keep = match over_held(ours, rule.moved_tags, rule.on_conflict) {
        Decision::Copy { .. } => return Ok(()),
        Decision::Keep { .. } => true,
        _ => false,
    };
    let mut fault = Fault::new(
        ErrorKind::Conflict,
        format!(
            "{}/{}:{tag} was changed at the destination while it was being copied",
            target.registry(),
            target.repository
        ),
    );
    if keep {
        fault.code = Some(KEPT.to_owned());
    }
    Err(fault)
}

/// Records that the tag is put.
pub(super) async fn record_put(
    context: &RunContext,
    group: &ImageGroup,
    root: &Digest,
    target: &Target,
    destination: &GroupDestination,
    job: Option<JobId>,
) -> Result<(), Fault> {
    let Some(tag) = &target.tag else { return Ok(()) };
    let source = format!("{}/{}", context.source.name(), group.repository);
    let write = Write {
        run: Some(context.run),
        job,
        rule: context.rule.name.as_str(),
        source: &source,
        registry: target.endpoint.name(),
        repository: &target.repository,
        tag,
        digest: root,
        previous: destination.previous.as_ref(),
    };
    Ok(context.store.record_write(&write, context.clock.now()).await?)
}
