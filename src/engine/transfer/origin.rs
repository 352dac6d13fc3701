//! The bytes of one source blob in order: over one connection or several, whose parts are asked for ahead of their turn.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::feed::STATE_EVERY;
use super::measure::{Meter, Round};
use super::part::{Flow, Part, Step};
use super::{SourceBlob, TransferContext, at_source, trust};
use crate::engine::fault::Fault;
use crate::plan::{ErrorKind, FlowPlan, FlowSample, MANY_FLOWS_FROM};
use crate::registry::{BlobReader, Error, Patience};

/// Name of the capability that says which ranges of blobs a registry cannot be asked for.
pub(super) const BLOB_RANGES: &str = "blob_ranges";

/// How long that is believed: registries are upgraded.
const RANGES_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is left of the one request under way when it is decided how to go on, so that what follows is under way in time.
const DECIDE_AT: u64 = 1024 * 1024;

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

    /// Takes note of what happened on a connection; true where it ended and another can take its place.
    fn step(&mut self, index: usize, step: Step) -> bool {
        match step {
            Step::Opened(Ok(Some(reader))) => self.opened(index, reader),
            Step::Opened(Ok(None)) => self.not_asked(index),
            Step::Opened(Err(error)) => self.refused(index, error),
            Step::Came(bytes) => {
                self.context.ledger.read(bytes.len() as u64);
                return self.parts[index].came(bytes);
            }
            Step::Failed(error) => self.broke(index, at_source(error.into())),
            Step::Ended => {
                let part = &mut self.parts[index];
                if part.bounded && part.at > part.began {
                    // Less than asked for is allowed; the rest is asked for again.
                    part.flow = Flow::Idle;
                } else {
                    let fault = self.ended_early(self.parts[index].at);
                    self.broke(index, fault);
                }
            }
        }
        false
    }

    fn opened(&mut self, index: usize, reader: BlobReader) {
        let part = &mut self.parts[index];
        if reader.gives_parts && (part.bounded || reader.offset > 0) {
            self.source.ranges.used();
        }
        if let Some(total) = reader.total
            && total != self.source.size
        {
            part.flow = Flow::Broken(wrong_length(&self.source, total));
            return;
        }
        if self.ranges == Ranges::Wrong {
            part.skip = part.at - reader.offset;
            part.flow = Flow::Reading(reader);
            return;
        }
        let whole = reader.offset < part.at || (part.bounded && !reader.gives_parts);
        if !whole {
            if reader.gives_parts && self.ranges == Ranges::Untried {
                self.ranges = Ranges::Work;
            }
            part.flow = Flow::Reading(reader);
            return;
        }
        // A source that ignores ranges gives everything from the start.
        if index == 0 {
            part.skip = part.at - reader.offset;
            part.flow = Flow::Reading(reader);
        }
        self.never_again("a range was asked for, the whole blob came", index);
    }

    /// Nothing was asked: there was no place for one more, or it is a layout.
    fn not_asked(&mut self, index: usize) {
        self.parts[index].flow = Flow::Idle;
        if index == 0 {
            self.whole_from(0);
        } else if index + 1 == self.parts.len() {
            self.parts.pop_back();
        }
    }

    fn refused(&mut self, index: usize, error: Error) {
        let part = &mut self.parts[index];
        if part.bounded && error.kind == ErrorKind::Invalid && self.ranges != Ranges::Never {
            part.flow = Flow::Idle;
            self.never_again(&error.message.clone(), index);
            return;
        }
        // So did a resume that names no end: the rest is had only with all that is before it.
        if index == 0 && part.at > 0 && error.kind == ErrorKind::Invalid && self.ranges != Ranges::Wrong {
            tracing::info!(
                source = self.source.endpoint.name(), digest = %self.source.digest, offset = part.at,
                "the blob is read from its beginning again: {error}"
            );
            part.flow = Flow::Idle;
            self.ranges = Ranges::Wrong;
            return;
        }
        self.broke(index, at_source(error.into()));
    }

    fn broke(&mut self, index: usize, fault: Fault) {
        if self.parts.len() > 1 {
            self.plan.failed();
            self.next_round(self.parts.len());
        }
        let part = &mut self.parts[index];
        // Its own attempt more; whose turn it is leaves that to whoever waits for it.
        if index > 0 && !part.failed && fault.kind.is_temporary() {
            part.failed = true;
            part.flow = Flow::Idle;
        } else {
            part.flow = Flow::Broken(fault);
        }
    }

    /// No more ranges are asked for. What is before `index` ends as asked for.
    fn never_again(&mut self, evidence: &str, index: usize) {
        self.learnt = Some(evidence.to_owned());
        self.whole_from(index);
    }

    fn whole_from(&mut self, index: usize) {
        self.ranges = Ranges::Never;
        self.parts.truncate(index.max(1));
        if index == 0
            && let Some(part) = self.parts.front_mut()
        {
            part.end = self.source.size;
            part.memory = None;
        }
    }

    /// Stores what was learnt.
    async fn remember(&mut self) -> Result<(), Fault> {
        let Some(evidence) = self.learnt.take() else {
            return Ok(());
        };
        let registry = self.source.endpoint.name();
        tracing::info!(source = registry, "blobs are read whole there: {evidence}");
        let now = self.context.clock.now();
        let until = now + RANGES_LIFE;
        let store = &self.context.store;
        store
            .learn(registry, "*", BLOB_RANGES, "none", &evidence, now, until)
            .await?;
        Ok(())
    }

    /// The one request under way has so much to give.
    fn near_end(&mut self, left: u64) {
        let follows = self.parts.len() == 1 && self.parts[0].end < self.source.size;
        if self.plan.flows(self.offset) == 1 && follows && left <= DECIDE_AT && self.round.left > 0 {
            self.decide();
        }
    }

    /// A part was given as a whole.
    fn given(&mut self) {
        let flows = self.plan.flows(self.offset);
        if flows < 2 {
            return;
        }
        match (self.round.skip, self.round.left) {
            (0, 0 | 1) => self.decide(),
            (0, _) => self.round.left -= 1,
            (skip, _) => {
                let left = self.round.left;
                self.round = Round {
                    skip: skip - 1,
                    left,
                    ..Round::new(self.offset, self.context.clock.elapsed())
                };
            }
        }
    }

    fn decide(&mut self) {
        if self.ranges != Ranges::Work || !self.large || self.plan.is_careful(self.offset) {
            return;
        }
        let now = self.context.clock.elapsed();
        let sample = FlowSample {
            bytes: self.offset - self.round.from,
            elapsed: now.saturating_sub(self.round.since),
            waited: self.round.waited,
        };
        let before = self.plan.flows(self.offset);
        self.plan.after(sample);
        let flows = self.plan.flows(self.offset);
        let registry = self.source.endpoint.name();
        if flows != before {
            self.meter = Meter::default();
            tracing::debug!(source = registry, digest = %self.source.digest, offset = self.offset, before, flows, "connections");
        }
        if let Some(found) = self.plan.found() {
            self.context.pool.record_found(registry, found, now);
        }
        // What is under way was asked for by fewer or more.
        self.next_round(if flows == before {
            0
        } else {
            self.parts.len().max(flows)
        });
    }

    /// Measures anew, once `skip` parts were given: as many parts as there are connections, or the next request where there is
    /// one.
    fn next_round(&mut self, skip: usize) {
        let flows = self.plan.flows(self.offset);
        self.round = Round {
            skip,
            left: if flows == 1 { 0 } else { flows },
            ..Round::new(self.offset, self.context.clock.elapsed())
        };
    }

    fn ended_early(&self, at: u64) -> Fault {
        at_source(Fault::new(
            ErrorKind::Network,
            format!(
                "{} ended the blob {} after {at} of {} bytes",
                self.source.endpoint.name(),
                self.source.digest,
                self.source.size
            ),
        ))
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
