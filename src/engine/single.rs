//! A run of one image that is named, as `copy` makes it.

use std::sync::Arc;

use super::context::RunContext;
use super::event::Event;
use super::fault::Fault;
use super::job::{GroupDestination, ImageGroup, copy_image};
use super::observe::{Attachments, head, resolve, resolve_digest};
use super::requests::Single;
use crate::oci::{AttachmentTag, Digest};
use crate::plan::{CopyReason, ErrorKind, Observation};
use crate::registry::Side;
use crate::store::JobOutcome;

/// Copies the image unless the destination has it. What happened is in the ledger.
pub(super) async fn execute(context: &RunContext, single: &Single) {
    let source = format!(
        "{}/{}{}",
        context.source.name(),
        single.repository,
        single.from.suffix()
    );
    context.ledger.repository(1, 1);
    let wanted = match single.from.tag() {
        Some(tag) => resolve(context, &single.repository, tag, true).await,
        None => match single.from.digest() {
            Some(digest) => resolve_digest(context, &single.repository, digest).await,
            None => Observation::Absent,
        },
    };
    let wanted = match wanted {
        Observation::Known(wanted) => wanted,
        Observation::Absent => {
            let message = format!("{source} does not exist, or the user may not see it: check the name and the tag");
            return failed(context, source, &Fault::new(ErrorKind::NotFound, message));
        }
        Observation::Unknown(unknown) => return failed(context, source, &Fault::new(unknown.kind, unknown.message)),
    };
    // A rule passes over such an image; whoever names one wants it.
    if let Err(available) = &wanted.digest {
        let available: Vec<String> = available.iter().map(ToString::to_string).collect();
        let message = format!("{source}: {}", super::run::skip_message(&available));
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
                    return failed(context, source, &Fault::new(unknown.kind, unknown.message));
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

fn place(registry: &str, single: &Single, digest: Option<&Digest>) -> String {
    match (&single.tag, digest) {
        (Some(tag), _) => format!("{registry}/{}:{tag}", single.to),
        (None, Some(digest)) => format!("{registry}/{}@{digest}", single.to),
        (None, None) => format!("{registry}/{}", single.to),
    }
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
async fn attachments(context: &RunContext, single: &Single) -> Attachments {
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
