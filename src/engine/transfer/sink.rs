//! Driving one destination of a fetch: cuts requests, fills pieces, and remembers how far it got.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::feed::{Chunk, Feed, STATE_EVERY, append};
use super::session::{LEARN_FROM, Ready, at_destination};
use super::spool::Slot;
use super::{Sink, SourceBlob, TransferContext};
use crate::engine::event::Event;
use crate::engine::fault::Fault;
use crate::engine::ledger::BlobWay;
use crate::oci::Digest;
use crate::plan::{
    Checkpoint, ErrorKind, FILL_LIMIT, NextRequest, UploadFacts, UploadHabit, checkpoint_due, next_request,
};
use crate::registry::{BlobWrite, BodyStream, Side};
use crate::store::{StoreError, UploadId};

/// Sends what the feed brings until the blob is at the destination. `alone`: no other sink waits for the same reader.
pub(super) async fn drive(
    context: &TransferContext,
    source: &SourceBlob,
    slot: &Slot,
    sink: &Sink,
    ready: Ready,
    feed: Feed,
    alone: bool,
) -> Result<BlobWay, Fault> {
    let mut upload = Upload {
        context,
        source,
        slot,
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
        let next = upload.next();
        let sent = match next {
            NextRequest::Rest => upload.finish().await,
            NextRequest::Piece { length } => upload.piece(length).await,
        };
        if let Err(fault) = sent {
            return Err(upload.failed(fault).await);
        }
        if next == NextRequest::Rest {
            if let Some(id) = upload.remembered {
                context.store.forget_upload(id).await?;
            }
            return Ok(BlobWay::Copied);
        }
    }
}

struct Upload<'a> {
    context: &'a TransferContext,
    source: &'a SourceBlob,
    slot: &'a Slot,
    sink: &'a Sink,
    write: BlobWrite,
    remembered: Option<UploadId>,
    offset: u64,
    habit: UploadHabit,
    /// Shared with the body under way, which must own what it reads from.
    feed: Arc<tokio::sync::Mutex<Feed>>,
    alone: bool,
}

/// Hash states that wait to be stored at most. More come only where the disk is slower than the stream; they are left out.
const STATES_WAITING: usize = 8;

/// What a body under way tells beside its bytes.
#[derive(Clone)]
struct Told {
    /// Why it ended early, told apart from what the destination made of it.
    broken: Arc<Mutex<Option<Fault>>>,
    /// Hash states that are worth storing.
    states: mpsc::Sender<Checkpoint>,
    /// Where and when the last one was, or the body began.
    last: (u64, Duration),
}

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
        let (told, states) = Told::new(self.offset, self.context.clock.elapsed());
        let (body, checkpoint) = match permit {
            Some(permit) => {
                let (parts, checkpoint) = self.fill(length, true).await?;
                let body = stream::iter(parts.into_iter().map(Ok)).inspect(move |_| {
                    // The memory is in use until the body is dropped.
                    let _held = &permit;
                });
                (body.boxed(), checkpoint)
            }
            None => match self.spooled(length).await? {
                Some(filled) => filled,
                None => (self.body(length, &told), None),
            },
        };
        let endpoint = &self.sink.endpoint;
        let sending = endpoint.write_piece(&self.write, self.offset, length, body);
        let (write, offset) = self.storing(states, sending, &told).await?;
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
        let pool = &self.context.pool;
        // It is the destination that is slow: the source need not be waited for, and others need the memory.
        if self.context.pace.is_behind(self.sink.endpoint.name()) {
            return None;
        }
        if self.alone {
            pool.piece(length).await
        } else {
            pool.spare_piece(length)
        }
    }

    /// Waits for all bytes of a piece before it is sent, so that little time is spent inside the request, and collects them
    /// where they are wanted.
    async fn fill(&self, length: u64, collect: bool) -> Result<(VecDeque<Bytes>, Option<Checkpoint>), Fault> {
        let end = self.offset + length;
        let mut parts = VecDeque::new();
        let mut feed = self.feed.lock().await;
        loop {
            let chunk = match feed.next().await {
                Some(Ok(chunk)) => chunk,
                Some(Err(fault)) => return Err(fault),
                None => return Err(self.left_behind()),
            };
            tell(self.context, self.sink, &self.source.digest, &chunk);
            if collect {
                append(&mut parts, chunk.bytes);
            }
            if chunk.end >= end {
                let checkpoint = chunk.state.map(|state| Checkpoint {
                    offset: chunk.end,
                    state,
                });
                return Ok((parts, checkpoint));
            }
        }
    }

    /// Collects a piece in the spool before it is sent; `None` where the blob is not there.
    async fn spooled(&self, length: u64) -> Result<Option<(BodyStream, Option<Checkpoint>)>, Fault> {
        let Some(piece) = self.slot.piece(self.offset..self.offset + length).await else {
            return Ok(None);
        };
        // What the feed brings has been given to the spool before.
        let (_, checkpoint) = self.fill(length, false).await?;
        let unusable = |why| {
            Fault::new(
                ErrorKind::Network,
                format!("a piece cannot be sent from the spool: {why}"),
            )
        };
        piece.filled().await.map_err(unusable)?;
        Ok(Some((piece.body(), checkpoint)))
    }

    /// Sends all that is left in the closing request.
    async fn finish(&mut self) -> Result<(), Fault> {
        let (told, states) = Told::new(self.offset, self.context.clock.elapsed());
        let length = self.source.size - self.offset;
        if length == 0 {
            // Nothing is left to send, so only the reader's end tells whether the bytes are right.
            while let Some(chunk) = self.feed.lock().await.next().await {
                chunk?;
            }
        }
        let body = self.body(length, &told);
        let endpoint = &self.sink.endpoint;
        let finishing = endpoint.finish_write(&self.write, &self.source.digest, self.offset, length, body);
        self.storing(states, finishing, &told).await?;
        Ok(())
    }

    /// What a request's failure means for the blob. An upload that is gone is forgotten, and the blob starts again as after a broken
    /// connection: registries lose uploads when they are started again, expire or clean up.
    async fn failed(&self, fault: Fault) -> Fault {
        if fault.side != Some(Side::Destination) || fault.kind != ErrorKind::NotFound {
            return fault;
        }
        tracing::warn!(
            destination = %self.sink.place(), digest = %self.source.digest, acknowledged = self.offset,
            "the upload is gone at the registry, so the blob starts again"
        );
        if let Some(id) = self.remembered
            && let Err(error) = self.context.store.forget_upload(id).await
        {
            return error.into();
        }
        Fault {
            kind: ErrorKind::Server,
            message: format!("the upload vanished before it was complete: {fault}"),
            ..fault
        }
    }

    /// Waits for a request and stores beside it the hash states that its body comes upon. Not within the body: that would stop
    /// the flow for as long as the disk takes, and a body that a slow destination leaves alone would keep its turn at the
    /// state database.
    async fn storing<T>(
        &self,
        mut states: mpsc::Receiver<Checkpoint>,
        request: impl Future<Output = Result<T, crate::registry::Error>>,
        told: &Told,
    ) -> Result<T, Fault> {
        // Where a broken request loses what it brought, no state within it is ever taken up.
        let Some(id) = self.remembered.filter(|_| self.habit == UploadHabit::KeepsBytes) else {
            return request.await.map_err(|error| told.or(error));
        };
        let (store, clock) = (&self.context.store, &self.context.clock);
        let mut current = None;
        let storing = async {
            // Never the end of the queue, as `told` is there.
            while let Some(checkpoint) = states.recv().await {
                let checkpoint = current.insert(checkpoint);
                store.record_checkpoint(id, checkpoint, clock.now()).await?;
                current = None;
            }
            Ok::<(), StoreError>(())
        };
        let answer = tokio::select! {
            biased;
            answer = request => answer,
            Err(error) = storing => return Err(error.into()),
        };
        // Whatever comes next may have to go on from these.
        for checkpoint in current.into_iter().chain(std::iter::from_fn(|| states.try_recv().ok())) {
            store.record_checkpoint(id, &checkpoint, clock.now()).await?;
        }
        answer.map_err(|error| told.or(error))
    }

    /// A body of `length` bytes out of the feed.
    fn body(&self, length: u64, told: &Told) -> BodyStream {
        struct Streaming {
            feed: Arc<tokio::sync::Mutex<Feed>>,
            left: u64,
            context: TransferContext,
            digest: Digest,
            sink: Sink,
            told: Told,
        }
        let streaming = Streaming {
            feed: Arc::clone(&self.feed),
            left: length,
            context: self.context.clone(),
            digest: self.source.digest.clone(),
            sink: self.sink.clone(),
            told: told.clone(),
        };
        let left_behind = self.left_behind();
        stream::unfold(streaming, move |mut s| {
            let left_behind = left_behind.clone();
            async move {
                if s.left == 0 {
                    return None;
                }
                let next = s.feed.lock().await.next().await.unwrap_or(Err(left_behind));
                let chunk = match next {
                    Ok(chunk) => chunk,
                    Err(fault) => {
                        let error = std::io::Error::other(fault.message.clone());
                        *s.told.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
                        s.left = 0;
                        return Some((Err(error), s));
                    }
                };
                s.left = s.left.saturating_sub(chunk.bytes.len() as u64);
                s.told.passed(&chunk, s.context.clock.elapsed());
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
}

impl Told {
    fn new(offset: u64, now: Duration) -> (Self, mpsc::Receiver<Checkpoint>) {
        let (states, waiting) = mpsc::channel(STATES_WAITING);
        let told = Self {
            broken: Arc::default(),
            states,
            last: (offset, now),
        };
        (told, waiting)
    }

    fn passed(&mut self, chunk: &Chunk, now: Duration) {
        let (offset, since) = self.last;
        if let Some(state) = &chunk.state
            && checkpoint_due(chunk.end.saturating_sub(offset), now.saturating_sub(since))
        {
            self.last = (chunk.end, now);
            let (offset, state) = (chunk.end, state.clone());
            let _ = self.states.try_send(Checkpoint { offset, state });
        }
    }

    /// Why a request failed: because of its body, or else by what the destination says.
    fn or(&self, error: crate::registry::Error) -> Fault {
        let fault = self.broken.lock().unwrap_or_else(PoisonError::into_inner).take();
        fault.unwrap_or_else(|| at_destination(error))
    }
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
