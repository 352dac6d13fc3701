//! One destination of a fetch: opens or takes up an upload, cuts requests, and remembers how far it got.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::feed::{Chunk, Feed, STATE_EVERY};
use super::{Sink, SourceBlob, TransferContext, at_source};
use crate::engine::event::Event;
use crate::engine::fault::Fault;
use crate::engine::ledger::BlobWay;
use crate::oci::Digest;
use crate::plan::{
    BlobAction, Checkpoint, ErrorKind, NextRequest, ResumePoint, UploadFacts, UploadHabit, next_request, resume_point,
};
use crate::registry::{BlobWrite, MountOutcome, SessionState, Side};
use crate::store::{StoredUpload, UploadId, UploadKey};

/// Blobs smaller than this are sent in one request and not remembered while they move: sending one again costs less than
/// the bookkeeping of all.
const REMEMBER_FROM: u64 = 4 * 1024 * 1024;

/// Blobs from this size on are worth the one request that learns how the registry treats broken bodies.
const LEARN_FROM: u64 = 16 * 1024 * 1024;

/// How often the hash state is stored while one request streams.
const CHECKPOINT_EVERY: u64 = 8 * 1024 * 1024;

/// The longest piece that is filled in memory before it is sent; longer ones stream.
const FILL_LIMIT: u64 = 8 * 1024 * 1024;

/// How long a learnt upload habit is believed: registries are upgraded.
const HABIT_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a refused mount is not tried again.
const MOUNT_REFUSAL_LIFE: Duration = Duration::from_secs(24 * 3600);

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
#[derive(Debug)]
pub(super) struct Ready {
    write: BlobWrite,
    remembered: Option<UploadId>,
    resume: ResumePoint,
    habit: UploadHabit,
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

fn at_destination(error: crate::registry::Error) -> Fault {
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
        return Ok(Mount::No);
    }
    let outcome = sink
        .endpoint
        .mount(&sink.repository, &source.digest, from)
        .await
        .map_err(at_destination)?;
    let way = match outcome {
        MountOutcome::Mounted => return Ok(Mount::Done),
        MountOutcome::Opened(write) => Mount::Opened(write),
        MountOutcome::Refused => Mount::No,
    };
    let until = now + MOUNT_REFUSAL_LIFE;
    context
        .store
        .remember_mount_refusal(registry, from, &sink.repository, until)
        .await?;
    Ok(way)
}

/// Fails unless the source repository holds the blob.
async fn must_hold(source: &SourceBlob) -> Result<(), Fault> {
    let held = source.endpoint.head_blob(&source.repository, &source.digest).await;
    if held.map_err(|error| at_source(error.into()))?.is_some() {
        return Ok(());
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

/// Sends what the feed brings until the blob is at the destination. `alone`: no other sink waits for the same reader.
pub(super) async fn drive(
    context: &TransferContext,
    source: &SourceBlob,
    sink: &Sink,
    ready: Ready,
    feed: Feed,
    alone: bool,
) -> Result<BlobWay, Fault> {
    let mut upload = Upload {
        context,
        source,
        sink,
        offset: ready.resume.send_from,
        write: ready.write,
        remembered: ready.remembered,
        habit: ready.habit,
        feed: Arc::new(tokio::sync::Mutex::new(feed)),
        alone,
    };
    let mut first = true;
    loop {
        if !first && !context.control.may_start() {
            return Err(Fault::stopped(&context.control.state().reason()));
        }
        first = false;
        match upload.next() {
            NextRequest::Rest => {
                upload.finish().await?;
                if let Some(id) = upload.remembered {
                    context.store.forget_upload(id).await?;
                }
                return Ok(BlobWay::Copied);
            }
            NextRequest::Piece { length } => upload.piece(length).await?,
        }
    }
}

struct Upload<'a> {
    context: &'a TransferContext,
    source: &'a SourceBlob,
    sink: &'a Sink,
    write: BlobWrite,
    remembered: Option<UploadId>,
    offset: u64,
    habit: UploadHabit,
    /// Shared with the body under way, which must own what it reads from.
    feed: Arc<tokio::sync::Mutex<Feed>>,
    alone: bool,
}

/// Why a body ended early, told apart from what the destination made of it.
type Broken = Arc<Mutex<Option<Fault>>>;

impl Upload<'_> {
    fn next(&self) -> NextRequest {
        if self.source.size < LEARN_FROM {
            return NextRequest::Rest;
        }
        let habits = self.sink.endpoint.habits();
        let cut = next_request(UploadFacts {
            habit: self.habit,
            size: self.source.size,
            offset: self.offset,
            source_rate: self.context.pool.rate(self.source.endpoint.name()),
            min_piece: habits.min_piece.max(self.write.min_piece().unwrap_or(0)),
            max_piece: habits.max_piece,
        });
        match cut {
            NextRequest::Rest => NextRequest::Rest,
            NextRequest::Piece { length } => {
                // Pieces end on boundaries, as only there the hash state can be kept beside the offset.
                let end = (self.offset + length) / STATE_EVERY * STATE_EVERY;
                match end.saturating_sub(self.offset) {
                    0 => NextRequest::Piece { length },
                    length => NextRequest::Piece { length },
                }
            }
        }
    }

    /// Sends one piece and remembers the answer.
    async fn piece(&mut self, length: u64) -> Result<(), Fault> {
        let permit = self.permit(length).await;
        let broken = Broken::default();
        let (body, checkpoint) = match permit {
            Some(permit) => {
                let (parts, checkpoint) = self.fill(length).await?;
                let body = stream::iter(parts.into_iter().map(Ok)).inspect(move |_| {
                    // The memory is in use until the body is dropped.
                    let _held = &permit;
                });
                (body.boxed(), checkpoint)
            }
            None => (self.body(length, &broken), None),
        };
        let sent = self
            .sink
            .endpoint
            .write_piece(&self.write, self.offset, length, body)
            .await;
        let (write, offset) = sent.map_err(|error| self.broken_or(&broken, error))?;
        self.write = write;
        if offset != self.offset + length {
            return Err(Fault::new(
                ErrorKind::Network,
                format!(
                    "{} took {} of {length} bytes of a piece of the blob {}",
                    self.sink.place(),
                    offset.saturating_sub(self.offset),
                    self.source.digest
                ),
            ));
        }
        self.offset = offset;
        if let Some(id) = self.remembered {
            let now = self.context.clock.now();
            let write = self.write.to_stored();
            self.context
                .store
                .record_offset(id, &write, offset, checkpoint.as_ref(), now)
                .await?;
        }
        Ok(())
    }

    /// Memory for a piece, or `None` for one that must stream: it is too long, or waiting for memory could hold up the
    /// sinks that share our reader (and with it whoever has the memory).
    async fn permit(&self, length: u64) -> Option<OwnedSemaphorePermit> {
        if length > FILL_LIMIT {
            return None;
        }
        let mebibytes = u32::try_from(length.div_ceil(1024 * 1024)).ok()?;
        let pool = Arc::clone(&self.context.pool.pieces);
        if self.alone {
            pool.acquire_many_owned(mebibytes).await.ok()
        } else {
            pool.try_acquire_many_owned(mebibytes).ok()
        }
    }

    /// Collects a piece before it is sent, so that little time is spent inside the request.
    async fn fill(&self, length: u64) -> Result<(Vec<Bytes>, Option<Checkpoint>), Fault> {
        let end = self.offset + length;
        let mut parts = Vec::new();
        let mut feed = self.feed.lock().await;
        loop {
            let chunk = match feed.next().await {
                Some(Ok(chunk)) => chunk,
                Some(Err(fault)) => return Err(fault),
                None => return Err(self.left_behind()),
            };
            tell(self.context, self.sink, &self.source.digest, &chunk);
            parts.push(chunk.bytes);
            if chunk.end >= end {
                let checkpoint = chunk.state.map(|state| Checkpoint {
                    offset: chunk.end,
                    state,
                });
                return Ok((parts, checkpoint));
            }
        }
    }

    /// Sends all that is left in the closing request.
    async fn finish(&mut self) -> Result<(), Fault> {
        let broken = Broken::default();
        let length = self.source.size - self.offset;
        if length == 0 {
            // Nothing is left to send, so only the reader's end tells whether the bytes are right.
            while let Some(chunk) = self.feed.lock().await.next().await {
                chunk?;
            }
        }
        let body = self.body(length, &broken);
        let endpoint = &self.sink.endpoint;
        let finished = endpoint
            .finish_write(&self.write, &self.source.digest, self.offset, length, body)
            .await;
        match finished {
            Ok(_) => Ok(()),
            Err(error) => Err(self.broken_or(&broken, error)),
        }
    }

    /// A body of `length` bytes out of the feed. While it streams, hash states are stored.
    fn body(&self, length: u64, broken: &Broken) -> crate::registry::BodyStream {
        struct Streaming {
            feed: Arc<tokio::sync::Mutex<Feed>>,
            left: u64,
            context: TransferContext,
            remembered: Option<UploadId>,
            digest: Digest,
            sink: Sink,
            broken: Broken,
        }
        let streaming = Streaming {
            feed: Arc::clone(&self.feed),
            left: length,
            context: self.context.clone(),
            remembered: self.remembered,
            digest: self.source.digest.clone(),
            sink: self.sink.clone(),
            broken: Arc::clone(broken),
        };
        let left_behind = self.left_behind();
        stream::unfold(streaming, move |mut s| {
            let left_behind = left_behind.clone();
            async move {
                if s.left == 0 {
                    return None;
                }
                let next = s.feed.lock().await.next().await.unwrap_or(Err(left_behind));
                let stored = match next {
                    Ok(chunk) => remember(&s.context, s.remembered, &chunk).await.map(|()| chunk),
                    Err(fault) => Err(fault),
                };
                let chunk = match stored {
                    Ok(chunk) => chunk,
                    Err(fault) => {
                        let error = std::io::Error::other(fault.message.clone());
                        *s.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
                        s.left = 0;
                        return Some((Err(error), s));
                    }
                };
                s.left = s.left.saturating_sub(chunk.bytes.len() as u64);
                tell(&s.context, &s.sink, &s.digest, &chunk);
                Some((Ok(chunk.bytes), s))
            }
        })
        .boxed()
    }

    fn left_behind(&self) -> Fault {
        Fault::new(
            ErrorKind::Network,
            format!(
                "{} was too slow for the other destinations and is served by itself",
                self.sink.place()
            ),
        )
    }

    fn broken_or(&self, broken: &Broken, error: crate::registry::Error) -> Fault {
        let fault = broken.lock().unwrap_or_else(PoisonError::into_inner).take();
        fault.unwrap_or_else(|| at_destination(error))
    }
}

/// Stores the hash state now and then while one request streams.
async fn remember(context: &TransferContext, upload: Option<UploadId>, chunk: &Chunk) -> Result<(), Fault> {
    let (Some(id), Some(state)) = (upload, &chunk.state) else {
        return Ok(());
    };
    if !chunk.end.is_multiple_of(CHECKPOINT_EVERY) {
        return Ok(());
    }
    let checkpoint = Checkpoint {
        offset: chunk.end,
        state: state.clone(),
    };
    Ok(context
        .store
        .record_checkpoint(id, &checkpoint, context.clock.now())
        .await?)
}

fn tell(context: &TransferContext, sink: &Sink, digest: &Digest, chunk: &Chunk) {
    let bytes = chunk.bytes.len() as u64;
    sink.sent.fetch_add(bytes, Ordering::Relaxed);
    context.ledger.written(sink.endpoint.name(), bytes);
    context.events.tell(Event::TransferProgress {
        digest: digest.clone(),
        destination: sink.place(),
        offset: chunk.end,
    });
}
