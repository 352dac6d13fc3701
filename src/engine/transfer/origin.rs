//! The bytes of one source blob in order: over one connection or several, whose parts are asked for ahead of their turn.

mod answers;
mod rounds;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::feed::STATE_EVERY;
use super::measure::{Meter, Round};
use super::part::{Flow, Part};
use super::{SourceBlob, TransferContext, at_source, trust};
use crate::engine::fault::Fault;
use crate::plan::{ErrorKind, FlowPlan, MANY_FLOWS_FROM};
use crate::registry::Patience;

/// Name of the capability that says which ranges of blobs a registry cannot be asked for.
pub(in crate::engine) const BLOB_RANGES: &str = "blob_ranges";

/// What is known of ranges at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ranges {
    Untried,
    Work,
    /// No end is named.
    Never,
    /// Nor a beginning: ranges bring wrong bytes.
    Wrong,
}

/// Gives the bytes of a blob from an offset on. Faults are the source's; after one that passes, the next call goes on where it
/// came.
pub(super) struct Origin {
    context: TransferContext,
    source: SourceBlob,
    /// Offset of the next byte to give.
    offset: u64,
    /// One behind the other from `offset` on; the first one's turn it is.
    parts: VecDeque<Part>,
    ranges: Ranges,
    /// Found out just now, to be remembered.
    learnt: Option<String>,
    /// Worth more than one connection.
    large: bool,
    plan: FlowPlan,
    round: Round,
    meter: Meter,
}

impl Origin {
    /// Opens the blob at an offset; `None` where nothing is left to read.
    pub(super) async fn open(
        context: &TransferContext,
        source: &SourceBlob,
        offset: u64,
    ) -> Result<Option<Self>, Fault> {
        if offset >= source.size {
            return Ok(None);
        }
        let registry = source.endpoint.name();
        let large = source.size - offset >= MANY_FLOWS_FROM;
        let known = match large || offset > 0 {
            true => {
                let now = context.clock.now();
                context.store.capability(registry, "*", BLOB_RANGES, now).await?
            }
            false => None,
        };
        let ranges = match known.as_deref() {
            _ if source.ranges.is_lost() => Ranges::Wrong,
            Some(trust::WRONG) => Ranges::Wrong,
            Some(_) => Ranges::Never,
            None => Ranges::Untried,
        };
        let now = context.clock.elapsed();
        let plan = FlowPlan::new(source.endpoint.blob_reads_at_once(), context.pool.found(registry, now));
        let mut origin = Self {
            context: context.clone(),
            source: source.clone(),
            offset,
            parts: VecDeque::new(),
            ranges,
            learnt: None,
            large,
            plan,
            round: Round::new(offset, now),
            meter: Meter::default(),
        };
        origin.first_answer().await?;
        Ok(Some(origin))
    }

    /// Offset of the first byte that [`Origin::next`] gives.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    async fn first_answer(&mut self) -> Result<(), Fault> {
        loop {
            self.top_up();
            poll_fn(|task| self.poll(task, true)).await;
            self.remember().await?;
            let Some(first) = self.parts.front_mut() else { continue };
            match std::mem::replace(&mut first.flow, Flow::Idle) {
                Flow::Broken(fault) => return Err(fault),
                Flow::Idle => {}
                flow => {
                    first.flow = flow;
                    self.round = Round::new(self.offset, self.context.clock.elapsed());
                    return Ok(());
                }
            }
        }
    }

    /// The next bytes, never none of them; `None` behind the last one. A source that gives more bytes than the blob has is
    /// noticed by who counts them.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        while self.offset < self.source.size {
            if let Some(given) = self.give() {
                return Some(given);
            }
            self.top_up();
            let asked = self.context.clock.elapsed();
            poll_fn(|task| self.poll(task, false)).await;
            let waited = self.context.clock.elapsed().saturating_sub(asked);
            self.round.waited += waited;
            self.meter.waited += waited;
            if let Err(fault) = self.remember().await {
                return Some(Err(fault));
            }
        }
        None
    }

    /// Goes on receiving what was asked for and fits in memory, while nobody takes anything. Never ends.
    pub(super) async fn receive(&mut self) -> Infallible {
        poll_fn(|task| {
            // Looked at by `next`; what is under way has our waker.
            let _ = self.poll(task, false);
            Poll::Pending
        })
        .await
    }

    /// Gives up the connections, as nobody takes what they bring; `next` opens them again. A source that may not give parts
    /// keeps its connection: it would have to give all again.
    pub(super) fn stand_still(&mut self) {
        if self.ranges != Ranges::Work {
            return;
        }
        let alone = self.parts.len() == 1;
        let mut closed = 0;
        for part in self.parts.iter_mut().filter(|part| part.flow.is_active()) {
            part.flow = Flow::Idle;
            closed += 1;
            // Asked for again in parts that fit.
            if alone {
                part.end = part.at;
                part.flow = Flow::Done;
            }
        }
        self.plan.stood(self.offset);
        self.round = Round::new(self.offset, self.context.clock.elapsed());
        if closed > 0 {
            tracing::debug!(
                source = self.source.endpoint.name(), digest = %self.source.digest, offset = self.offset, closed,
                "nobody takes the bytes: the connection is closed and opened again when there is room"
            );
        }
    }

    /// What has come and is next, or the fault in its place.
    fn give(&mut self) -> Option<Result<Bytes, Fault>> {
        loop {
            let part = self.parts.front_mut()?;
            if let Some(bytes) = part.waiting.pop_front() {
                let before = self.offset;
                self.offset += bytes.len() as u64;
                self.meter.bytes += bytes.len() as u64;
                if before / STATE_EVERY != self.offset / STATE_EVERY
                    && let Some(rate) = self.meter.rate()
                {
                    self.context.pool.record_rate(self.source.endpoint.name(), rate);
                }
                let left = part.end.saturating_sub(self.offset);
                self.near_end(left);
                return Some(Ok(bytes));
            }
            match std::mem::replace(&mut part.flow, Flow::Idle) {
                Flow::Broken(fault) => return Some(Err(fault)),
                Flow::Done => {
                    self.parts.pop_front();
                    self.given();
                }
                flow => {
                    part.flow = flow;
                    return None;
                }
            }
        }
    }

    /// Asks for as much as is wanted and allowed.
    fn top_up(&mut self) {
        let wanted = match self.ranges {
            Ranges::Work if self.large => self.plan.flows(self.offset),
            _ => 1,
        };
        // It has our own place, whatever the others do: they end by themselves, as there is memory for them.
        if self.parts.front().is_some_and(|part| matches!(part.flow, Flow::Idle)) {
            self.start(0);
        }
        loop {
            let active = self.parts.iter().filter(|part| part.flow.is_active()).count();
            if active >= wanted {
                return;
            }
            let idle = self.parts.iter().position(|part| matches!(part.flow, Flow::Idle));
            let index = match idle {
                Some(index) => index,
                None if self.add() => self.parts.len() - 1,
                None => return,
            };
            self.start(index);
        }
    }

    /// Puts another part behind the others; false where none is left or there is no memory for it.
    fn add(&mut self) -> bool {
        let at = self.parts.back().map_or(self.offset, |part| part.end);
        let Some(rest) = self.source.size.checked_sub(at).filter(|rest| *rest > 0) else {
            return false;
        };
        let in_turn = self.parts.is_empty();
        let careful = self.plan.is_careful(at);
        let length = match self.ranges {
            Ranges::Never | Ranges::Wrong => None,
            Ranges::Work if careful => Some(self.plan.ahead()),
            _ if !self.large => None,
            _ if in_turn => self.plan.in_turn(at),
            _ => Some(self.plan.ahead()),
        };
        let length = length.map_or(rest, |length| length.min(rest));
        let memory = match !in_turn || careful || self.plan.flows(at) > 1 {
            true => self.context.pool.spare_memory(length),
            false => None,
        };
        if !in_turn && memory.is_none() {
            return false;
        }
        if in_turn && self.plan.flows(at) == 1 {
            self.round = Round::new(at, self.context.clock.elapsed());
        }
        self.parts.push_back(Part::new(at, at + length, memory));
        true
    }

    fn start(&mut self, index: usize) {
        let part = &mut self.parts[index];
        let SourceBlob {
            endpoint,
            repository,
            digest,
            size,
            ..
        } = self.source.clone();
        let mut range = part.at..part.end;
        if self.ranges == Ranges::Wrong {
            range.start = 0;
        }
        part.began = part.at;
        part.skip = 0;
        part.bounded = part.end < size || index > 0;
        part.flow = Flow::Opening(match part.bounded {
            true => {
                let patience = if index == 0 { Patience::Waits } else { Patience::NoWait };
                Box::pin(async move { endpoint.open_blob_range(&repository, &digest, range, patience).await })
            }
            false => Box::pin(async move { endpoint.open_blob(&repository, &digest, range.start).await.map(Some) }),
        });
    }

    /// Moves all connections on. Ready when there is something to do: bytes or a fault to give, or a connection that ended.
    /// `opening`: also when the first one is open.
    fn poll(&mut self, task: &mut Context<'_>, opening: bool) -> Poll<()> {
        let mut ended = false;
        let mut index = 0;
        while let Some(part) = self.parts.get_mut(index) {
            let room = part.memory.is_some() || (index == 0 && part.waiting.is_empty());
            let step = match room {
                true => part.flow.poll(task),
                false => Poll::Pending,
            };
            match step {
                Poll::Pending => index += 1,
                Poll::Ready(step) => ended |= self.step(index, step),
            }
        }
        let ready = self.parts.front().is_none_or(|part| match part.flow {
            Flow::Opening(_) => false,
            Flow::Reading(_) => opening || !part.waiting.is_empty(),
            Flow::Idle | Flow::Broken(_) | Flow::Done => true,
        });
        if ended || ready { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The fault of a blob that has more bytes than its manifest says, or a length that is said to be another.
pub(super) fn wrong_length(source: &SourceBlob, found: u64) -> Fault {
    at_source(Fault::new(
        ErrorKind::Corrupt,
        format!(
            "the blob {}/{}@{} has {found} bytes or more, but its manifest says {}: push the image again at the source",
            source.endpoint.name(),
            source.repository,
            source.digest,
            source.size
        ),
    ))
}
