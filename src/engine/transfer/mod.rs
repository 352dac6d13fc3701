//! The one unit that moves bytes: a fetch of one source blob with one or more sinks, each with its own bounded
//! queue, offset, session and error.

mod audience;
mod feed;
mod fetch;
mod measure;
mod origin;
mod part;
mod pool;
mod session;
mod sink;
mod spool;
mod trust;

pub(super) use pool::TransferPool;
pub(super) use session::UPLOAD_HABIT;
pub(super) use spool::Spool;
pub(super) use trust::RangeTrust;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::blob_table::BlobTable;
use super::control::Control;
use super::event::{Event, Events};
use super::fault::Fault;
use super::ledger::{BlobWay, Ledger};
use crate::clock::Clock;
use crate::oci::{Digest, RepositoryName};
use crate::plan::{BlobAction, ErrorKind, RetryDecision, after_failure, is_gain};
use crate::registry::{Endpoint, Side};
use crate::rules::RetryPolicy;
use crate::store::{RunId, Store};

/// What every transfer of a run needs.
#[derive(Clone, Debug)]
pub(super) struct TransferContext {
    pub(super) run: RunId,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) control: Control,
    pub(super) ledger: Ledger,
    pub(super) events: Events,
    pub(super) blobs: BlobTable,
    pub(super) retry: RetryPolicy,
    pub(super) pool: TransferPool,
    pub(super) spool: Option<Spool>,
}

/// The blob and where it is read from.
#[derive(Clone, Debug)]
pub(super) struct SourceBlob {
    pub(super) endpoint: Endpoint,
    pub(super) repository: RepositoryName,
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// New for each transfer.
    pub(super) ranges: RangeTrust,
}

impl SourceBlob {
    /// The same blob with a place of its own, where one is free.
    fn with_other_reading_place(&self) -> Self {
        match self.endpoint.with_free_reading_place() {
            Some(endpoint) => Self {
                endpoint,
                ..self.clone()
            },
            None => self.clone(),
        }
    }

    /// The same blob with a place to read it, held until it is dropped: a fetch whose source breaks off finds it still free.
    async fn with_reading_place(&self) -> Self {
        Self {
            endpoint: self.endpoint.with_reading_place().await,
            ..self.clone()
        }
    }
}

/// One destination repository that should hold the blob.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    pub(super) endpoint: Endpoint,
    pub(super) repository: RepositoryName,
    pub(super) action: BlobAction,
    /// Bytes sent so far, over all attempts.
    sent: Arc<AtomicU64>,
}

impl Sink {
    pub(super) fn new(endpoint: Endpoint, repository: RepositoryName, action: BlobAction) -> Self {
        Self {
            endpoint,
            repository,
            action,
            sent: Arc::default(),
        }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.endpoint.name(), self.repository)
    }
}

/// What one attempt at one sink came to.
struct Attempt {
    result: Result<BlobWay, Fault>,
    /// Bytes that the destination held when the attempt began; growth from one attempt to the next is a gain.
    began_at: u64,
    /// The bytes were wrong, and may not be the source's: they came from our own spool, which is gone (as it is where it could not
    /// be read), or by a range, which is not asked for again. The source has not been asked for the whole blob yet.
    unproven: bool,
}

/// How one sink ended.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) result: Result<BlobWay, Fault>,
    pub(super) attempts: u32,
    /// Bytes sent.
    pub(super) bytes: u64,
}

impl Moved {
    /// It was there already.
    pub(super) fn present() -> Self {
        Self {
            result: Ok(BlobWay::Present),
            attempts: 0,
            bytes: 0,
        }
    }
}

/// Brings a blob to every sink, trying again as the policy says. The answers stand in the order of `sinks`.
pub(super) async fn move_blob(context: &TransferContext, source: &SourceBlob, sinks: Vec<Sink>) -> Vec<Moved> {
    let mut moved: Vec<Option<Moved>> = sinks.iter().map(|_| None).collect();
    let mut pending: Vec<Pending> = sinks.into_iter().enumerate().map(Pending::new).collect();
    let slot = spool::Slot::default();
    while !pending.is_empty() {
        let attempts = fetch::attempt(context, source, &slot, pending.iter().map(|p| &p.sink).collect()).await;
        let mut again = Vec::new();
        let mut longest = Duration::ZERO;
        for (mut sink, attempt) in pending.into_iter().zip(attempts) {
            match sink.after(attempt, source.size, context.retry) {
                After::Ended(end) => {
                    context.events.tell(Event::TransferFinished {
                        digest: source.digest.clone(),
                        destination: sink.sink.place(),
                        done: end.result.is_ok(),
                    });
                    moved[sink.index] = Some(end);
                }
                After::Again(delay) => {
                    longest = longest.max(delay);
                    again.push(sink);
                }
            }
        }
        pending = again;
        if pending.is_empty() {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(longest) => {}
            stop = context.control.wait_stop() => {
                for sink in pending.drain(..) {
                    moved[sink.index] = Some(sink.moved(Err(Fault::stopped(&stop.reason()))));
                }
            }
        }
    }
    let unsettled = || Moved {
        result: Err(Fault::new(ErrorKind::Local, "the transfer ended without an answer")),
        attempts: 0,
        bytes: 0,
    };
    let moved: Vec<Moved> = moved.into_iter().map(|end| end.unwrap_or_else(unsettled)).collect();
    let ends = moved
        .iter()
        .map(|moved| moved.result.as_ref().err().map(|fault| fault.kind));
    slot.end(context, source, ends.collect()).await;
    moved
}

struct Pending {
    index: usize,
    sink: Sink,
    /// In a row without a gain.
    attempts: u32,
    /// The most bytes that the destination held when attempts were counted anew.
    gained_to: u64,
    renewed_login: bool,
}

enum After {
    Ended(Moved),
    Again(Duration),
}

impl Pending {
    fn new((index, sink): (usize, Sink)) -> Self {
        Self {
            index,
            sink,
            attempts: 0,
            gained_to: 0,
            renewed_login: false,
        }
    }

    /// What follows an attempt at a blob of `size` bytes.
    fn after(&mut self, attempt: Attempt, size: u64, policy: RetryPolicy) -> After {
        if attempt.unproven {
            return After::Again(Duration::ZERO);
        }
        // Only what no attempt had before: a destination that loses the same bytes again and again is not sent them for ever.
        let came = attempt.began_at.saturating_sub(self.gained_to);
        if is_gain(came, size.saturating_sub(self.gained_to)) {
            self.attempts = 0;
            self.gained_to = attempt.began_at;
        }
        self.attempts += 1;
        let fault = match attempt.result {
            Ok(way) => return self.ended(Ok(way)),
            Err(fault) => fault,
        };
        // A body cannot be sent again by the request loop, so a token that ran out in the middle is renewed here.
        if fault.kind == ErrorKind::Unauthorized && !self.renewed_login {
            self.renewed_login = true;
            return After::Again(Duration::ZERO);
        }
        match after_failure(fault.kind, self.attempts, policy, fault.retry_after, random_fraction()) {
            RetryDecision::After(delay) => {
                tracing::info!(
                    destination = %self.sink.place(), attempt = self.attempts, delay_ms = delay.as_millis(),
                    "trying again: {fault}"
                );
                After::Again(delay)
            }
            RetryDecision::GiveUp => self.ended(Err(fault)),
        }
    }

    fn ended(&self, result: Result<BlobWay, Fault>) -> After {
        After::Ended(self.moved(result))
    }

    fn moved(&self, result: Result<BlobWay, Fault>) -> Moved {
        Moved {
            result,
            attempts: self.attempts,
            bytes: self.sink.sent.load(Ordering::Relaxed),
        }
    }
}

/// A number in 0..1 that differs from call to call and process to process: jitter needs no more.
pub(super) fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let hash = std::collections::hash_map::RandomState::new().build_hasher().finish();
    // The upper 53 bits fill a double's mantissa.
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// Opens all sinks at once.
async fn open_all(
    context: &TransferContext,
    source: &SourceBlob,
    sinks: &[&Sink],
) -> Vec<Result<session::Opened, Fault>> {
    join_all(sinks.iter().map(|sink| session::open(context, source, sink))).await
}

fn at_source(mut fault: Fault) -> Fault {
    fault.side = Some(Side::Source);
    fault
}
