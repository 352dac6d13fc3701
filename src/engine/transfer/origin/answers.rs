//! What came of the requests for parts of a blob, and what is learnt from it about the source.

use std::time::Duration;

use super::{BLOB_RANGES, Origin, Ranges, wrong_length};
use crate::engine::fault::Fault;
use crate::engine::transfer::part::{Flow, Step};
use crate::engine::transfer::{SourceBlob, at_source};
use crate::plan::{ErrorKind, is_gain};
use crate::registry::{BlobReader, Error};

/// How long that is believed: registries are upgraded.
const RANGES_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Origin {
    /// Takes note of what happened on a connection; true where it ended and another can take its place.
    pub(super) fn step(&mut self, index: usize, step: Step) -> bool {
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
                // Less than asked for is allowed; the rest is asked for again, where that gets anywhere.
                if part.bounded && is_gain(part.at - part.began, part.end - part.began) {
                    part.flow = Flow::Idle;
                } else {
                    let fault = self.ended_early(index);
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
        let mirrored = reader.mirrored;
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
        // What a mirror makes of ranges holds for this blob alone.
        match mirrored {
            true => self.whole_from(index),
            false => self.never_again("a range was asked for, the whole blob came", index),
        }
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
        // A range without an end was answered so: what is wanted is had only with all that is before it.
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
    pub(super) async fn remember(&mut self) -> Result<(), Fault> {
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

    fn ended_early(&self, index: usize) -> Fault {
        let part = &self.parts[index];
        let (name, SourceBlob { digest, size, .. }) = (self.source.endpoint.name(), &self.source);
        let message = match part.bounded {
            true => format!(
                "{name} gave {} bytes of the blob {digest} at {} where {} were asked for",
                part.at - part.began,
                part.began,
                part.end - part.began
            ),
            false => format!("{name} ended the blob {digest} after {} of {size} bytes", part.at),
        };
        at_source(Fault::new(ErrorKind::Network, message))
    }
}
