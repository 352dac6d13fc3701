//! The attempts at the sinks of one blob. Each sink goes its own way: it shares reads with those that are ready when it is, and
//! waits for no other that is slow, or that fails and is tried again.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::fetch::{OpenSink, fetch};
use super::session::{self, Opened, Ready};
use super::spool::Slot;
use super::{Sink, SourceBlob, TransferContext, random_fraction};
use crate::engine::event::Event;
use crate::engine::fault::Fault;
use crate::engine::ledger::BlobWay;
use crate::plan::{ErrorKind, RetryDecision, after_failure, is_gain};
use crate::rules::RetryPolicy;

/// How long a sink that is ready waits for others that are being opened, so that one read serves all.
const GATHERED_FOR: Duration = Duration::from_secs(2);

/// What one attempt at one sink came to.
pub(super) struct Attempt {
    pub(super) result: Result<BlobWay, Fault>,
    /// Bytes that the destination held when the attempt began; growth from one attempt to the next is a gain.
    pub(super) began_at: u64,
    /// The bytes were wrong, and may not be the source's: they came from our own spool, which is gone (as it is where it could not
    /// be read), or by a range, which is not asked for again. The source has not been asked for the whole blob yet.
    pub(super) unproven: bool,
}

impl Attempt {
    pub(super) fn ended(result: Result<BlobWay, Fault>, began_at: u64) -> Self {
        Self {
            result,
            began_at,
            unproven: false,
        }
    }
}

/// What became of a sink that was fed.
pub(super) enum Told {
    Ended(Attempt),
    /// It held up the others before anything was sent to it, so that it is fed by itself.
    Aside(Ready),
}

/// Where it is told as it comes what became of a sink; with the sink's number.
pub(super) type Tell = mpsc::UnboundedSender<(usize, Told)>;

/// How one sink ended.
#[derive(Debug)]
pub(in crate::engine) struct Moved {
    pub(in crate::engine) result: Result<BlobWay, Fault>,
    pub(in crate::engine) attempts: u32,
    /// Bytes sent.
    pub(in crate::engine) bytes: u64,
}

impl Moved {
    /// It was there already.
    pub(in crate::engine) fn present() -> Self {
        Self {
            result: Ok(BlobWay::Present),
            attempts: 0,
            bytes: 0,
        }
    }
}

/// Brings a blob to every sink, trying again as the policy says. `ended` is told each one's end as it comes, with its place among
/// `sinks`.
pub(in crate::engine) async fn move_blob(
    context: &TransferContext,
    source: &SourceBlob,
    sinks: Vec<Sink>,
    mut ended: impl FnMut(usize, Moved),
) {
    let slot = Slot::default();
    let mut ends = Vec::with_capacity(sinks.len());
    let mut pending: Vec<Pending> = sinks.into_iter().map(Pending::new).collect();
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut fetches = FuturesUnordered::new();
    let mut ready: Vec<OpenSink> = Vec::new();
    let mut gathered = pin!(tokio::time::sleep(Duration::ZERO));
    let mut opening: FuturesUnordered<_> = pending
        .iter()
        .enumerate()
        .map(|(number, pending)| open(context, source, number, pending.sink.clone(), Duration::ZERO))
        .collect();
    let mut end = |pending: &Pending, number: usize, result: Result<BlobWay, Fault>| {
        context.events.tell(Event::TransferFinished {
            digest: source.digest.clone(),
            destination: pending.sink.place(),
            done: result.is_ok(),
        });
        ends.push(result.as_ref().err().map(|fault| fault.kind));
        ended(number, pending.moved(result));
    };
    loop {
        if opening.is_empty() && !ready.is_empty() {
            fetches.push(fetch(context, source, &slot, std::mem::take(&mut ready), tell.clone()));
        }
        if opening.is_empty() && fetches.is_empty() && told.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            Some(first) = told.recv() => {
                // Those that end together come back together: one read for all.
                let (mut aside, mut again, mut together) = (Vec::new(), Vec::new(), Duration::ZERO);
                let mut next = Some(first);
                while let Some((number, what)) = next {
                    let sink = &mut pending[number];
                    match what {
                        Told::Aside(upload) => aside.push(OpenSink {
                            number,
                            sink: sink.sink.clone(),
                            upload,
                        }),
                        Told::Ended(attempt) => match sink.after(attempt, source.size, context.retry) {
                            After::Ended(result) => end(sink, number, result),
                            After::Again(delay) => {
                                if delay <= GATHERED_FOR {
                                    together = together.max(delay);
                                }
                                again.push((number, delay));
                            }
                        },
                    }
                    next = told.try_recv().ok();
                }
                for open in aside {
                    fetches.push(fetch(context, source, &slot, vec![open], tell.clone()));
                }
                // A long pause of one registry is not the others'.
                opening.extend(again.into_iter().map(|(number, delay)| {
                    let delay = delay.max(together);
                    open(context, source, number, pending[number].sink.clone(), delay)
                }));
            }
            Some((number, sink, opened)) = opening.next() => {
                let attempt = match opened {
                    Some(Ok(Opened::Ready(upload))) => {
                        if ready.is_empty() {
                            gathered.as_mut().reset(Instant::now() + GATHERED_FOR);
                        }
                        ready.push(OpenSink { number, sink, upload });
                        continue;
                    }
                    Some(Ok(Opened::There(way))) => Attempt::ended(Ok(way), 0),
                    Some(Err(fault)) => Attempt::ended(Err(fault), 0),
                    None => {
                        let reason = context.control.state().reason();
                        end(&pending[number], number, Err(Fault::stopped(&reason)));
                        continue;
                    }
                };
                // We listen.
                let _ = tell.send((number, Told::Ended(attempt)));
            }
            Some(()) = fetches.next() => {}
            () = &mut gathered, if !ready.is_empty() => {
                fetches.push(fetch(context, source, &slot, std::mem::take(&mut ready), tell.clone()));
            }
        }
    }
    drop((opening, fetches));
    slot.end(context, source, ends).await;
}

/// Opens a sink after a delay; `None` where it was told to stop before.
async fn open(
    context: &TransferContext,
    source: &SourceBlob,
    number: usize,
    sink: Sink,
    delay: Duration,
) -> (usize, Sink, Option<Result<Opened, Fault>>) {
    if delay > Duration::ZERO {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = context.control.wait_stop() => return (number, sink, None),
        }
    }
    let opened = session::open(context, source, &sink).await;
    (number, sink, Some(opened))
}

struct Pending {
    sink: Sink,
    /// In a row without a gain.
    attempts: u32,
    /// The most bytes that the destination held when attempts were counted anew.
    gained_to: u64,
    renewed_login: bool,
}

enum After {
    Ended(Result<BlobWay, Fault>),
    Again(Duration),
}

impl Pending {
    fn new(sink: Sink) -> Self {
        Self {
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
            Ok(way) => return After::Ended(Ok(way)),
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
            RetryDecision::GiveUp => After::Ended(Err(fault)),
        }
    }

    fn moved(&self, result: Result<BlobWay, Fault>) -> Moved {
        Moved {
            result,
            attempts: self.attempts,
            bytes: self.sink.sent.load(Ordering::Relaxed),
        }
    }
}
