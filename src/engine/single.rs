//! A run of one image that is named, as `copy` makes it.

use std::sync::Arc;

use super::context::RunContext;
use super::event::Event;
use super::fault::Fault;
use super::job::{GroupDestination, ImageGroup, copy_image};
use super::looks::head;
use super::observe::Attachments;
use super::requests::Single;
use super::resolve::{resolve, resolve_digest};
use crate::oci::{AttachmentTag, Digest, InvalidName, Reference, RepositoryName, Tag};
use crate::plan::{CopyReason, ErrorKind, Observation};
use crate::registry::{Endpoint, Layout, Place, Side};
use crate::store::JobOutcome;

/// The tag that is meant where none is written, as everywhere in the field.
const DEFAULT_TAG: &str = "latest";

/// What is named of a layout's images at most.
const NAMED: usize = 10;

/// The image, once it is known which one is meant.
struct Image {
    repository: RepositoryName,
    from: Reference,
    to: RepositoryName,
    /// Under which tag; by digest only without one.
    tag: Option<Tag>,
}

/// Copies the image unless the destination has it. What happened is in the ledger.
pub(super) async fn execute(context: &RunContext, single: &Single) {
    context.ledger.repository(1);
    context.ledger.selected(1);
    let meant = match meant(context, single).await {
        Ok(meant) => meant,
        Err(fault) => {
            let source = Place::image(context.source.name(), &single.repository, single.from.as_ref());
            return failed(context, source.to_string(), &fault);
        }
    };
    let single = &meant;
    let source = Place::image(context.source.name(), &single.repository, Some(&single.from)).to_string();
    let wanted = match (single.from.tag(), single.from.digest()) {
        (Some(tag), _) => resolve(context, &single.repository, tag).await,
        (None, Some(digest)) => resolve_digest(context, &single.repository, digest).await,
        (None, None) => Observation::Absent,
    };
    let wanted = match wanted {
        Observation::Known(wanted) => wanted,
        Observation::Absent => {
            let message = match &context.source {
                Endpoint::Layout(layout) => match layout.images().await {
                    Ok(images) => not_in(layout, &source, images, &single.repository),
                    Err(error) => return failed(context, source, &Fault::from(error.on(Side::Source))),
                },
                Endpoint::Registry(_) => {
                    format!("{source} does not exist, or the user may not see it: check the name and the tag")
                }
            };
            return failed(context, source, &Fault::new(ErrorKind::NotFound, message));
        }
        Observation::Unknown(unknown) => return failed(context, source, &Fault::from(unknown)),
    };
    // A rule passes over such an image; whoever names one wants it.
    if let Err(available) = &wanted.digest {
        let available: Vec<String> = available.iter().map(ToString::to_string).collect();
        let message = format!("{source}: {}", super::settle::skip_message(&available));
        return failed(context, source, &Fault::new(ErrorKind::NotFound, message));
    }
    for destination in &context.rule.destinations {
        let Some(endpoint) = context.destinations.get(&destination.registry) else {
            continue;
        };
        let previous = match &single.tag {
            Some(tag) => match head(endpoint, &single.to, tag, Side::Destination).await {
                Observation::Known(digest) => Some(digest),
                Observation::Absent => None,
                Observation::Unknown(unknown) => {
                    return failed(context, source, &Fault::from(unknown));
                }
            },
            None => None,
        };
        let in_step = previous.is_some() && previous.as_ref() == wanted.digest.as_ref().ok();
        if in_step {
            context.ledger.job(destination.registry.as_str(), JobOutcome::InStep);
            let place = place(endpoint.name(), single, previous.as_ref());
            context.events.tell(Event::JobFinished {
                run: context.run,
                job: None,
                source: source.clone(),
                destination: place,
                outcome: JobOutcome::InStep,
                message: None,
                bytes: 0,
            });
        }
        let group = ImageGroup {
            repository: single.repository.clone(),
            reference: single.from.clone(),
            source: wanted.source.clone(),
            wanted: wanted.digest.as_ref().ok().cloned(),
            destinations: vec![GroupDestination {
                registry: destination.registry.clone(),
                repository: single.to.clone(),
                tag: single.tag.clone(),
                reason: if previous.is_some() {
                    CopyReason::Conflict
                } else {
                    CopyReason::NewTag
                },
                previous,
                parked: None,
                waited: false,
                put: None,
            }],
            attachments: Arc::new(attachments(context, single).await),
        };
        if in_step {
            super::job::refresh_attachments(context, &group).await;
        } else {
            copy_image(context, group).await;
        }
    }
}

/// Which image is meant where no tag is written: `latest` of a registry, and of a layout the only one.
async fn meant(context: &RunContext, single: &Single) -> Result<Image, Fault> {
    let (repository, from) = match (&single.from, &context.source) {
        (Some(reference), _) => (single.repository.clone(), reference.clone()),
        (None, Endpoint::Registry(_)) => {
            let tag: Tag = DEFAULT_TAG
                .parse()
                .map_err(|error: InvalidName| Fault::new(ErrorKind::Invalid, error.to_string()))?;
            (single.repository.clone(), Reference::Tag(tag))
        }
        (None, Endpoint::Layout(layout)) => {
            let images = layout.images().await.map_err(|error| error.on(Side::Source))?;
            let (repository, tag) = only_image(layout, images, &single.repository)?;
            (repository, Reference::Tag(tag))
        }
    };
    // A destination without a tag takes the source's; an image named by digest stays without a tag.
    let tag = match &single.reference {
        Some(reference) => reference.tag().cloned(),
        None => from.tag().cloned(),
    };
    Ok(Image {
        repository,
        from,
        to: single.to.clone(),
        tag,
    })
}

/// The only image of a layout. Where there are several, those that a tag alone names come first, and among them `latest`.
fn only_image(
    layout: &Layout,
    images: Option<Vec<(RepositoryName, Tag)>>,
    repository: &RepositoryName,
) -> Result<(RepositoryName, Tag), Fault> {
    let mut images = images.unwrap_or_default();
    if images.len() == 1
        && let Some(only) = images.pop()
    {
        return Ok(only);
    }
    if let Some(latest) = images
        .iter()
        .find(|(named, tag)| named == repository && tag.as_str() == DEFAULT_TAG)
    {
        return Ok(latest.clone());
    }
    if images.is_empty() {
        let message = holds_nothing(layout);
        return Err(Fault::new(ErrorKind::NotFound, message));
    }
    let path = layout.path().display();
    let by_tag = images.iter().any(|(named, _)| named == repository);
    let names = names(&images, repository);
    let message = if by_tag {
        format!("{path} holds {names}: write oci:{path}:TAG")
    } else {
        format!("{path} holds {names}: write oci:{path}@DIGEST, or name it as layout: in rules")
    };
    Err(Fault::new(ErrorKind::Config, message))
}

/// Why an image that was named is not in a layout.
fn not_in(
    layout: &Layout,
    source: &str,
    images: Option<Vec<(RepositoryName, Tag)>>,
    repository: &RepositoryName,
) -> String {
    let images = images.unwrap_or_default();
    if images.is_empty() {
        return holds_nothing(layout);
    }
    let names = names(&images, repository);
    format!("{source} is not there: {} holds {names}", layout.path().display())
}

fn holds_nothing(layout: &Layout) -> String {
    let path = layout.path();
    if path.exists() {
        format!("{} holds no image", path.display())
    } else {
        format!("there is no directory {}", path.display())
    }
}

/// The images as a layout names them, those of `repository` by the tag alone.
fn names(images: &[(RepositoryName, Tag)], repository: &RepositoryName) -> String {
    let mut names: Vec<String> = images
        .iter()
        .take(NAMED)
        .map(|(named, tag)| match named == repository {
            true => tag.to_string(),
            false => format!("{named}:{tag}"),
        })
        .collect();
    if images.len() > NAMED {
        names.push(format!("and {} more", images.len() - NAMED));
    }
    names.join(", ")
}

fn place(registry: &str, single: &Image, digest: Option<&Digest>) -> String {
    let reference = match (&single.tag, digest) {
        (Some(tag), _) => Some(Reference::Tag(tag.clone())),
        (None, digest) => digest.cloned().map(Reference::Digest),
    };
    Place::image(registry, &single.to, reference.as_ref()).to_string()
}

fn failed(context: &RunContext, source: String, fault: &Fault) {
    for destination in &context.rule.destinations {
        context.ledger.job(destination.registry.as_str(), JobOutcome::Failed);
        context
            .ledger
            .place_failure(source.clone(), Some(destination.registry.to_string()), fault);
        context.events.tell(Event::JobFinished {
            run: context.run,
            job: None,
            source: source.clone(),
            destination: destination.registry.to_string(),
            outcome: JobOutcome::Failed,
            message: Some(fault.message.clone()),
            bytes: 0,
        });
    }
}

/// Attachment tags of the source repository. Where they cannot be listed the image goes without them, and that is said.
async fn attachments(context: &RunContext, single: &Image) -> Attachments {
    let tags = match context.source.list_tags(&single.repository).await {
        Ok(tags) => tags.unwrap_or_default(),
        Err(error) => {
            let fault = Fault::from(error.on(Side::Source));
            super::job::warn(context, format!("signatures cannot be looked for: {fault}"));
            Vec::new()
        }
    };
    let mut attachments = Attachments::new();
    for tag in tags {
        if let Some(attachment) = AttachmentTag::parse(&tag) {
            attachments.entry(attachment.subject).or_default().push(tag);
        }
    }
    attachments
}
