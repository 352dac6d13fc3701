//! How many connections a blob is worth: measured round by round.

use super::{Origin, Ranges};
use crate::engine::transfer::measure::{Meter, Round};
use crate::plan::FlowSample;

/// What is left of the one request under way when it is decided how to go on, so that what follows is under way in time.
const DECIDE_AT: u64 = 1024 * 1024;

impl Origin {
    /// The one request under way has so much to give.
    pub(super) fn near_end(&mut self, left: u64) {
        let follows = self.parts.len() == 1 && self.parts[0].end < self.source.size;
        if self.plan.flows(self.offset) == 1 && follows && left <= DECIDE_AT && self.round.left > 0 {
            self.decide();
        }
    }

    /// A part was given as a whole.
    pub(super) fn given(&mut self) {
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
    pub(super) fn next_round(&mut self, skip: usize) {
        let flows = self.plan.flows(self.offset);
        self.round = Round {
            skip,
            left: if flows == 1 { 0 } else { flows },
            ..Round::new(self.offset, self.context.clock.elapsed())
        };
    }
}
