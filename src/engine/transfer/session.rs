//! Opening one destination of a fetch: what it has already, an upload that is taken up, a mount, or a new upload.

use std::time::Duration;

use super::{Sink, SourceBlob, TransferContext, at_source};
use crate::engine::fault::Fault;
use crate::engine::ledger::BlobWay;
use crate::plan::{BlobAction, Checkpoint, ErrorKind, ResumePoint, UploadHabit, resume_point};
use crate::registry::{BlobWrite, MountOutcome, SessionState, Side};
use crate::store::{StoredUpload, UploadId, UploadKey};

/// Blobs smaller than this are sent in one request and not remembered while they move: sending one again costs less than
/// the bookkeeping of all.
const REMEMBER_FROM: u64 = 4 * 1024 * 1024;

/// Blobs from this size on are worth the one request that learns how the registry treats broken bodies.
pub(super) const LEARN_FROM: u64 = 16 * 1024 * 1024;

/// How long a learnt upload habit is believed: registries are upgraded.
const HABIT_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Name of the capability that keeps an [`UploadHabit`].
pub(in crate::engine) const UPLOAD_HABIT: &str = "upload_habit";

/// What opening a sink came to.
#[derive(Debug)]
pub(super) enum Opened {
    /// The blob is there.
    There(BlobWay),
    /// Bytes are needed.
    Ready(Ready),
}

/// An upload that waits for bytes.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub(super) write: BlobWrite,
    pub(super) remembered: Option<UploadId>,
    pub(super) resume: ResumePoint,
    pub(super) habit: UploadHabit,
}

impl Ready {
    /// Offset of the first byte that the destination lacks.
    pub(super) fn send_from(&self) -> u64 {
        self.resume.send_from
    }

    /// Where the source must be read from at the latest.
    pub(super) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.resume.checkpoint.as_ref()
    }
}

fn key(source: &SourceBlob, sink: &Sink) -> UploadKey {
    UploadKey {
        registry: sink.endpoint.name().to_owned(),
        repository: sink.repository.clone(),
        digest: source.digest.clone(),
    }
}

pub(super) fn at_destination(error: crate::registry::Error) -> Fault {
    Fault::from(error.on(Side::Destination))
}

/// Finds out what the destination has and opens an upload where bytes are needed.
pub(super) async fn open(context: &TransferContext, source: &SourceBlob, sink: &Sink) -> Result<Opened, Fault> {
    let stored = match source.size {
        size if size >= REMEMBER_FROM => context.store.upload(&key(source, sink)).await?,
        _ => None,
    };
    // A finished upload whose answer was lost is common, so an upload that we remember is no proof that bytes are missing.
    let look = stored.is_some() || matches!(sink.action, BlobAction::Find { .. } | BlobAction::Present);
    if look
        && sink
            .endpoint
            .head_blob(&sink.repository, &source.digest)
            .await
            .map_err(at_destination)?
            .is_some()
    {
        if let Some(stored) = stored {
            context.store.forget_upload(stored.id).await?;
        }
        return Ok(Opened::There(BlobWay::Present));
    }
    if let Some(stored) = stored
        && let Some(ready) = take_up(context, source, sink, stored).await?
    {
        return Ok(Opened::Ready(ready));
    }
    let write = match mount(context, source, sink).await? {
        Mount::Done => return Ok(Opened::There(BlobWay::Mounted)),
        Mount::Opened(write) => write,
        Mount::No => sink
            .endpoint
            .begin_write(&sink.repository)
            .await
            .map_err(at_destination)?,
    };
    let habit = habit(context, source, sink, &write).await?;
    let remembered = match source.size {
        size if size >= REMEMBER_FROM => {
            let key = key(source, sink);
            let now = context.clock.now();
            Some(
                context
                    .store
                    .save_upload(&key, size, &write.to_stored(), 0, now)
                    .await?,
            )
        }
        _ => None,
    };
    Ok(Opened::Ready(Ready {
        write,
        remembered,
        resume: resume_point(&[], 0),
        habit,
    }))
}

/// Goes on with a remembered upload, or forgets it where it is gone.
async fn take_up(
    context: &TransferContext,
    source: &SourceBlob,
    sink: &Sink,
    stored: StoredUpload,
) -> Result<Option<Ready>, Fault> {
    let place = sink.place();
    let now = context.clock.now();
    let gone = match BlobWrite::from_stored(&stored.write) {
        None => "its record cannot be read".to_owned(),
        Some(_) if stored.size != source.size => "the blob has another length now".to_owned(),
        Some(write) => match sink.endpoint.resume_write(&write).await.map_err(at_destination)? {
            SessionState::Open { write, offset } if offset <= source.size => {
                let habit = known_habit(context, sink).await?.unwrap_or(UploadHabit::KeepsPieces);
                let resume = resume_point(&stored.checkpoints, offset);
                let read_from = resume.checkpoint.as_ref().map_or(0, |c| c.offset);
                tracing::info!(
                    destination = %place, digest = %source.digest, offset, read_from,
                    "going on with an interrupted upload"
                );
                context.ledger.resumed(sink.endpoint.name(), offset);
                let checkpoint = resume.checkpoint.as_ref().filter(|c| c.offset == offset);
                context
                    .store
                    .record_offset(stored.id, &write.to_stored(), offset, checkpoint, now)
                    .await?;
                return Ok(Some(Ready {
                    write,
                    remembered: Some(stored.id),
                    resume,
                    habit,
                }));
            }
            SessionState::Open { .. } => "the destination holds more bytes than the blob has".to_owned(),
            SessionState::Gone => {
                // Where bytes were said to be kept, that may have been wrong: learn it again.
                if known_habit(context, sink).await? == Some(UploadHabit::KeepsBytes) {
                    context
                        .store
                        .forget_capability(sink.endpoint.name(), "*", UPLOAD_HABIT)
                        .await?;
                }
                "the registry does not keep an upload whose request was broken off, or it has expired there".to_owned()
            }
        },
    };
    tracing::warn!(
        destination = %place, digest = %source.digest, acknowledged = stored.offset,
        "an interrupted upload cannot be taken up, so the blob starts again: {gone}"
    );
    context.store.forget_upload(stored.id).await?;
    Ok(None)
}

enum Mount {
    Done,
    Opened(BlobWrite),
    No,
}

async fn mount(context: &TransferContext, source: &SourceBlob, sink: &Sink) -> Result<Mount, Fault> {
    let (BlobAction::Find { mount_from } | BlobAction::Send { mount_from }) = &sink.action else {
        return Ok(Mount::No);
    };
    let Some(from) = mount_from else {
        return Ok(Mount::No);
    };
    let registry = sink.endpoint.name();
    let now = context.clock.now();
    let digest = &source.digest;
    if context.blobs.is_mount_refused(registry, digest, from, &sink.repository) {
        return Ok(Mount::No);
    }
    // A manifest may name any digest. What the source repository does not hold is not mounted from a repository that its
    // readers need not be allowed to see; within one registry the registry itself looks.
    let own = registry == source.endpoint.name() && *from == source.repository;
    if !own {
        must_hold(source).await?;
    }
    if context
        .store
        .mount_refused(registry, from, &sink.repository, now)
        .await?
    {
        context.blobs.mount_refused(registry, digest, from, &sink.repository);
        return Ok(Mount::No);
    }
    let outcome = sink
        .endpoint
        .mount(&sink.repository, digest, from)
        .await
        .map_err(at_destination)?;
    let way = match outcome {
        MountOutcome::Mounted => return Ok(Mount::Done),
        MountOutcome::Opened(write) => Mount::Opened(write),
        MountOutcome::Refused => Mount::No,
    };
    context.blobs.mount_refused(registry, digest, from, &sink.repository);
    // Where the other repository does not have the blob any more, it is our memory that was wrong.
    let there = sink.endpoint.head_blob(from, digest).await;
    if matches!(there, Ok(None)) {
        let gone = [digest.clone()];
        context.blobs.forget(registry, from, &gone);
        context.store.forget_blobs(registry, from, &gone).await?;
        return Ok(way);
    }
    context
        .store
        .remember_mount_refusal(registry, from, &sink.repository, now)
        .await?;
    Ok(way)
}

/// The blob's length at the source in bytes. Fails unless the source repository holds it.
pub(super) async fn must_hold(source: &SourceBlob) -> Result<u64, Fault> {
    let held = source.endpoint.head_blob(&source.repository, &source.digest).await;
    if let Some(length) = held.map_err(|error| at_source(error.into()))? {
        return Ok(length);
    }
    let place = format!("{}/{}", source.endpoint.name(), source.repository);
    Err(at_source(Fault::new(
        ErrorKind::NotFound,
        format!(
            "the image names the blob {}, which {place} does not have: push the image again there",
            source.digest
        ),
    )))
}

async fn known_habit(context: &TransferContext, sink: &Sink) -> Result<Option<UploadHabit>, Fault> {
    if let Some(habit) = sink.endpoint.habits().upload {
        return Ok(Some(habit));
    }
    let name = sink.endpoint.name();
    let known = context
        .store
        .capability(name, "*", UPLOAD_HABIT, context.clock.now())
        .await?;
    Ok(known.and_then(|word| UploadHabit::from_word(&word)))
}

async fn habit(
    context: &TransferContext,
    source: &SourceBlob,
    sink: &Sink,
    write: &BlobWrite,
) -> Result<UploadHabit, Fault> {
    if let Some(known) = known_habit(context, sink).await? {
        return Ok(known);
    }
    if source.size < LEARN_FROM {
        // One request at any rate, see `next`.
        return Ok(UploadHabit::KeepsPieces);
    }
    let habit = sink.endpoint.upload_habit(write).await.map_err(at_destination)?;
    let now = context.clock.now();
    let evidence = "GET of a fresh upload's location without its query";
    let name = sink.endpoint.name();
    let word = habit.as_str();
    context
        .store
        .learn(name, "*", UPLOAD_HABIT, word, evidence, now, now + HABIT_LIFE)
        .await?;
    Ok(habit)
}

/// Drops what the destination holds of a damaged blob, and the hash state with it.
pub(super) async fn discard(context: &TransferContext, source: &SourceBlob, sink: &Sink) {
    let stored = match context.store.upload(&key(source, sink)).await {
        Ok(Some(stored)) => stored,
        _ => return,
    };
    if let Some(write) = BlobWrite::from_stored(&stored.write) {
        sink.endpoint.cancel_write(&write).await;
    }
    if let Err(error) = context.store.forget_upload(stored.id).await {
        tracing::warn!("cannot forget the upload of a damaged blob: {error}");
    }
}
