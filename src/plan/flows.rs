//! Decisions about one read: over how many connections, and how much each request asks for.

use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// Blobs with at least this much to read may be read over several connections. Finding out how many are worth it takes some
/// 30 MiB; a smaller blob is done before that has paid.
pub const MANY_FLOWS_FROM: u64 = 64 * MIB;

/// What the first request of such a blob asks for: enough to measure the source by, and little to wait for before others
/// can be put behind it.
const FIRST: u64 = 4 * MIB;

/// What one request asks for when nothing is gained by more connections, but the source may yet change: one more
/// request now and then.
const LONG: u64 = 64 * MIB;

/// The most connections for one blob, as many as a registry is read over at once.
pub const MOST_FLOWS: usize = 8;

/// Memory for bytes that came before their turn, for the whole process. Half of what there is for pieces, so that whoever
/// waits for memory for the longest of them gets it, however the readers fare.
pub const AHEAD: u64 = 8 * MIB;

/// Bytes a second that are fast enough for one connection: more would be gained by few links, and registries have other
/// clients.
const ENOUGH: u64 = 64 * MIB;

/// A read during which the destination stood still asks for no more than fits, until this much has passed without.
const CAREFUL_FOR: u64 = 64 * MIB;

/// What was measured since the last decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSample {
    /// Bytes that the source gave.
    pub bytes: u64,
    /// Time that this took.
    pub elapsed: Duration,
    /// Time thereof that was spent waiting for the source.
    pub waited: Duration,
}

impl FlowSample {
    /// Bytes a second, all told.
    fn rate(&self) -> u64 {
        per_second(self.bytes, self.elapsed)
    }

    /// True where the source is what we wait for, and it is slow enough to look for more.
    fn source_is_slow(&self) -> bool {
        self.waited * 2 >= self.elapsed && per_second(self.bytes, self.waited) < ENOUGH
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// Over how many connections a blob is read. Starts with one. As long as the source is what we wait for, twice as many are
/// tried; they are kept where the rate grew by a fifth at least, else the blob goes on with as many as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPlan {
    flows: usize,
    most: usize,
    /// As many as before, with their rate, while more are tried.
    before: Option<(usize, u64)>,
    /// The rate at which trying more ended.
    settled: Option<u64>,
    /// The source alone is fast enough.
    fast: bool,
    /// A round was measured since the start, or since a connection failed.
    judged: bool,
    /// The next bytes are asked for carefully up to this offset.
    careful_until: u64,
}

impl FlowPlan {
    /// For a source that may be read over `most` connections. `known` is what [`FlowPlan::found`] said of an earlier blob.
    pub fn new(most: usize, known: Option<FoundFlows>) -> Self {
        let most = most.clamp(1, MOST_FLOWS);
        let flows = known.map_or(1, |known| known.flows.clamp(1, most));
        Self {
            flows,
            most,
            before: None,
            settled: known.map(|known| known.rate),
            fast: known.is_some() && flows == 1,
            judged: false,
            careful_until: 0,
        }
    }

    /// Connections wanted for what comes at `offset`.
    pub fn flows(&self, offset: u64) -> usize {
        if self.is_careful(offset) { 1 } else { self.flows }
    }

    /// What the next request may ask for at most, where bytes before it are already asked for: it waits in memory.
    pub fn ahead(&self) -> u64 {
        // All of them but the one whose turn it is.
        match AHEAD / (self.flows as u64).saturating_sub(1).max(1) {
            share if share >= 2 * MIB => 2 * MIB,
            _ => MIB,
        }
    }

    /// What the next request may ask for at most, where its bytes are handed on as they come; `None` for all there is.
    pub fn in_turn(&self, offset: u64) -> Option<u64> {
        match self.flows {
            _ if self.is_careful(offset) => Some(self.ahead()),
            1 if self.fast => None,
            1 if self.judged => Some(LONG),
            1 => Some(FIRST),
            _ => Some(self.ahead()),
        }
    }

    /// True until `offset` is well behind the place where a destination stood still: asked for is only what fits in memory,
    /// so that no connection is held, and no byte on the way lost, when it stands still again.
    pub fn is_careful(&self, offset: u64) -> bool {
        offset < self.careful_until
    }

    /// The destination stood still at `offset`. What was measured until then says nothing.
    pub fn stood(&mut self, offset: u64) {
        self.careful_until = offset.saturating_add(CAREFUL_FOR);
        if let Some((flows, _)) = self.before.take() {
            self.flows = flows;
        }
    }

    /// Decides after a round with this many connections.
    pub fn after(&mut self, sample: FlowSample) {
        let rate = sample.rate();
        self.judged = true;
        self.fast = per_second(sample.bytes, sample.waited) >= ENOUGH && self.flows == 1;
        if let Some((flows, before)) = self.before.take()
            && rate < before.saturating_add(before / 5)
        {
            self.flows = flows;
            self.settled = Some(before);
            return;
        }
        if !sample.source_is_slow() {
            if self.fast {
                self.settled = Some(rate);
            }
            return;
        }
        // What did not help is tried again only when things got worse.
        if self.settled.is_some_and(|settled| rate >= settled / 10 * 7) {
            return;
        }
        self.settled = None;
        let more = (self.flows * 2).min(self.most);
        if more > self.flows {
            self.before = Some((self.flows, rate));
            self.flows = more;
        } else {
            self.settled = Some(rate);
        }
    }

    /// One of several connections failed: half as many, until a round shows that more would help again. Bad links break often,
    /// and are those that gain most; a registry that has too much to do lets in fewer by itself.
    pub fn failed(&mut self) {
        self.flows = (self.flows / 2).max(1);
        self.before = None;
        self.settled = None;
        self.judged = false;
    }

    /// What is worth knowing for the next blob of this source; `None` while more are tried.
    pub fn found(&self) -> Option<FoundFlows> {
        let rate = self.settled.filter(|_| self.before.is_none())?;
        let flows = self.flows;
        Some(FoundFlows { flows, rate })
    }
}

/// How a blob of a source was read best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundFlows {
    /// Connections.
    pub flows: usize,
    /// Bytes a second over all of them.
    pub rate: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of 8 MiB at so many MiB a second, waiting for the source `percent` of the time.
    fn sample(mib_per_second: u64, percent: u64) -> FlowSample {
        let elapsed = Duration::from_millis(8000 / mib_per_second);
        FlowSample {
            bytes: 8 * MIB,
            elapsed,
            waited: elapsed * u32::try_from(percent).expect("small") / 100,
        }
    }

    /// Plays rounds with a source whose rate depends on the number of connections; gives the numbers.
    fn play(plan: &mut FlowPlan, rounds: usize, rate: impl Fn(usize) -> (u64, u64)) -> Vec<usize> {
        let mut flows = vec![plan.flows(0)];
        for _ in 0..rounds {
            let (rate, percent) = rate(plan.flows(0));
            plan.after(sample(rate, percent));
            flows.push(plan.flows(0));
        }
        flows
    }

    #[test]
    fn grows_while_each_connection_brings_its_own() {
        let mut plan = FlowPlan::new(8, None);
        let flows = play(&mut plan, 5, |flows| (5 * flows as u64, 100));
        assert_eq!(flows, [1, 2, 4, 8, 8, 8]);
        assert_eq!(plan.found().map(|found| found.flows), Some(8));
        let mut few = FlowPlan::new(3, None);
        assert_eq!(play(&mut few, 3, |flows| (5 * flows as u64, 100)), [1, 2, 3, 3]);
        let mut none = FlowPlan::new(0, None);
        assert_eq!(play(&mut none, 2, |_| (1, 100)), [1, 1, 1]);
    }

    #[test]
    fn what_does_not_help_is_given_up_and_not_tried_again() {
        let mut plan = FlowPlan::new(8, None);
        let link = |flows: usize| (if flows == 1 { 10 } else { 11 }, 100);
        assert_eq!(play(&mut plan, 5, link), [1, 2, 1, 1, 1, 1]);
        let found = plan.found();
        assert_eq!(found.map(|found| found.flows), Some(1));
        let mut next = FlowPlan::new(8, found);
        assert_eq!(next.in_turn(0), None, "all there is");
        assert_eq!(play(&mut next, 2, link), [1, 1, 1]);
        let mut two = FlowPlan::new(8, None);
        let link = |flows: usize| (10 * flows.min(2) as u64, 100);
        assert_eq!(play(&mut two, 5, link), [1, 2, 4, 2, 2, 2]);
        let mut next = FlowPlan::new(8, two.found());
        assert_eq!(play(&mut next, 2, link), [2, 2, 2]);
    }

    #[test]
    fn a_link_that_got_worse_is_tried_again() {
        let mut plan = FlowPlan::new(8, None);
        assert_eq!(play(&mut plan, 2, |_| (10, 100)), [1, 2, 1]);
        assert_eq!(play(&mut plan, 1, |_| (7, 100)), [1, 1]);
        assert_eq!(play(&mut plan, 2, |flows| (5 * flows as u64, 100)), [1, 2, 4]);
    }

    #[test]
    fn a_destination_that_is_waited_for_and_a_fast_source_need_one() {
        let mut waiting = FlowPlan::new(8, None);
        assert_eq!(play(&mut waiting, 2, |_| (5, 40)), [1, 1, 1]);
        assert_eq!(waiting.in_turn(4 * MIB), Some(LONG), "it may change");
        assert_eq!(waiting.found(), None);
        let mut fast = FlowPlan::new(8, None);
        assert_eq!(play(&mut fast, 1, |_| (80, 100)), [1, 1]);
        assert_eq!(fast.in_turn(4 * MIB), None, "all there is");
        assert_eq!(fast.found().map(|found| found.flows), Some(1));
    }

    #[test]
    fn the_first_request_is_short_and_those_ahead_fit_in_memory() {
        let known = |flows| FlowPlan::new(8, Some(FoundFlows { flows, rate: MIB }));
        let plan = FlowPlan::new(8, None);
        assert_eq!(plan.in_turn(0), Some(FIRST));
        for flows in 1..=MOST_FLOWS {
            let plan = known(flows);
            assert!((MIB..=2 * MIB).contains(&plan.ahead()));
            assert!(plan.ahead() * (flows as u64 - 1) <= AHEAD, "{flows}");
        }
        assert_eq!(known(99).flows(0), 8);
        assert_eq!(known(8).in_turn(0), Some(MIB));
    }

    #[test]
    fn after_a_standstill_only_what_fits_is_asked_for() {
        let mut plan = FlowPlan::new(8, None);
        assert_eq!(play(&mut plan, 1, |_| (10, 100)), [1, 2]);
        plan.stood(100 * MIB);
        for offset in [100, 163] {
            assert_eq!(plan.flows(offset * MIB), 1);
            assert_eq!(plan.in_turn(offset * MIB), Some(2 * MIB));
        }
        assert_eq!(plan.in_turn(164 * MIB), Some(LONG));
        assert_eq!(plan.flows(164 * MIB), 1, "the two were not measured");
    }

    #[test]
    fn a_connection_that_fails_halves_them_for_a_round() {
        let mut plan = FlowPlan::new(
            8,
            Some(FoundFlows {
                flows: 8,
                rate: 8 * MIB,
            }),
        );
        plan.failed();
        assert_eq!(play(&mut plan, 3, |flows| (flows as u64, 100)), [4, 8, 8, 8]);
        for _ in 0..4 {
            plan.failed();
        }
        assert_eq!(plan.flows(0), 1);
        assert_eq!(plan.in_turn(9 * MIB), Some(FIRST), "to be measured soon");
        assert_eq!(play(&mut plan, 1, |flows| (flows as u64, 100)), [1, 2]);
    }
}
