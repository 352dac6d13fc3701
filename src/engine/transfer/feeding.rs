//! Feeding all sinks of one read, and those of them that it goes on without.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior};

use super::audience::{Audience, LeftBehind};
use super::feed;
use super::fetch::{Late, Progress, read};
use super::session::Ready;
use super::sink;
use super::spool::{Reading, Slot};
use super::{Sink, SourceBlob, TransferContext};
use crate::engine::event::Event;
use crate::engine::fault::Fault;
use crate::engine::ledger::BlobWay;
use crate::engine::pace::{LoneRead, Shared, Sharing};
use crate::plan::ErrorKind;

/// How often it is looked whether there is a place to read for those that were left behind.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Of a sink that is fed.
pub(super) struct FedSink {
    /// By which it is told of.
    pub(super) number: usize,
    pub(super) sink: Sink,
    /// Offset of the first byte that it lacked.
    pub(super) began_at: u64,
}

impl FedSink {
    fn registry(&self) -> &str {
        self.sink.endpoint.name()
    }

    fn sent(&self) -> u64 {
        self.sink.sent.load(Ordering::Relaxed)
    }
}

/// What became of a sink.
pub(super) enum Fate {
    Ended(Result<BlobWay, Fault>),
    /// It was left behind, and goes on by itself when there is room.
    Aside,
}

/// Feeds all sinks from one read, which is made in the place of `placed`. `settle` is told of each its place among `fed` and what
/// became of it, where that says all there is to know. Gives the faults of the others, which may not be their own.
pub(super) async fn feed_all(
    context: &TransferContext,
    placed: SourceBlob,
    source: &SourceBlob,
    slot: &Slot,
    fed: &[FedSink],
    uploads: Vec<Ready>,
    mut settle: impl FnMut(usize, Fate),
) -> Vec<(usize, Fault)> {
    let start = uploads
        .iter()
        .map(Ready::checkpoint)
        .min_by_key(|checkpoint| checkpoint.map_or(0, |c| c.offset))
        .flatten()
        .cloned();
    let progress = Progress::from(source, start);
    let mut feeding;
    {
        // The read is open before the first write begins: who waits for a place to write holds its place to read, never the
        // other way round, so that no two fetches wait for each other.
        let origin = match Reading::open(context, &placed, slot, progress.offset).await {
            Ok(origin) => origin,
            Err(fault) => return (0..fed.len()).map(|place| (place, fault.clone())).collect(),
        };
        placed.endpoint.keep_reading_place();
        let (left_behind, left) = mpsc::unbounded_channel();
        let feeders;
        (feeding, feeders) = Feeding::begin(context, source, slot, fed, uploads, left, slot.is_used().await);
        let mut reading = pin!(async {
            let mut audience = Audience::new(feeders);
            let outcome = read(context, &placed, progress, origin, &mut audience, Some(left_behind)).await;
            if let Err(fault) = &outcome {
                audience.break_off(fault);
            }
            outcome
        });
        loop {
            // In this order: whoever breaks off because a read did is asked after it.
            tokio::select! {
                biased;
                outcome = &mut reading => {
                    feeding.outcome = Some(outcome);
                    break;
                }
                happened = feeding.next() => match happened {
                    Some(happened) => feeding.hear(happened, &mut settle),
                    None => return feeding.unsure,
                },
            }
            feeding.wait_for_no_laggard(&mut settle);
            // Nobody listens any more. What comes still is worth having where it is kept.
            if feeding.drives.is_empty() && !feeding.spooled {
                return feeding.unsure;
            }
            feeding.serve_late(&mut None);
        }
    }
    let mut placed = Some(placed);
    let mut turns = None;
    loop {
        // The place bounds what waits in memory for those that were fed from it; one of those that were left behind may have it next.
        feeding.serve_late(&mut placed);
        if placed.is_none() {
            feeding.put_late_aside();
        }
        if feeding.all_read_for_themselves() {
            placed = None;
        } else if turns.is_none() {
            turns = feeding.leave_to_laggards();
            // All that they take has been read: others may read meanwhile.
            if turns.is_some() {
                placed = None;
            }
        }
        match feeding.next().await {
            Some(happened) => feeding.hear(happened, &mut settle),
            None => return feeding.unsure,
        }
        feeding.wait_for_no_laggard(&mut settle);
    }
}

/// What happens while sinks are fed.
enum Happened {
    /// One holds up the others.
    Left(Late),
    /// The own read of one has ended.
    Read(usize, Result<(), Fault>),
    /// One has ended.
    Ended(usize, Fate),
    /// There may be a place to read.
    Look,
}

struct Feeding<'a> {
    context: &'a TransferContext,
    source: &'a SourceBlob,
    slot: &'a Slot,
    fed: &'a [FedSink],
    spooled: bool,
    sharing: Option<Sharing>,
    /// The sinks under way, and how one is told that it is put aside.
    drives: FuturesUnordered<BoxFuture<'a, (usize, Fate)>>,
    under_way: BTreeMap<usize, oneshot::Sender<()>>,
    left: mpsc::UnboundedReceiver<Late>,
    /// Those that were left behind and wait for a place to read.
    late: Vec<(Late, LoneRead)>,
    own_reads: FuturesUnordered<BoxFuture<'a, (usize, Result<(), Fault>)>>,
    /// Who has a read of its own, or waits for one, and how that ended.
    own_outcomes: BTreeMap<usize, Option<Result<(), Fault>>>,
    /// How the read for all ended.
    outcome: Option<Result<(), Fault>>,
    looks: Interval,
    /// Faults that may not be the sinks' own.
    unsure: Vec<(usize, Fault)>,
    sent_before: Vec<u64>,
}

impl<'a> Feeding<'a> {
    /// Begins to feed; gives the other ends of the sinks' queues.
    fn begin(
        context: &'a TransferContext,
        source: &'a SourceBlob,
        slot: &'a Slot,
        fed: &'a [FedSink],
        uploads: Vec<Ready>,
        left: mpsc::UnboundedReceiver<Late>,
        spooled: bool,
    ) -> (Self, Vec<feed::Feeder>) {
        let alone = fed.len() == 1;
        let mut looks = tokio::time::interval(LOOK_AGAIN);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut feeding = Self {
            context,
            source,
            slot,
            fed,
            spooled,
            sharing: (!alone).then(|| context.pace.share(Shared::Read, fed.iter().map(FedSink::registry))),
            drives: FuturesUnordered::new(),
            under_way: BTreeMap::new(),
            left,
            late: Vec::new(),
            own_reads: FuturesUnordered::new(),
            own_outcomes: BTreeMap::new(),
            outcome: None,
            looks,
            unsure: Vec::new(),
            sent_before: fed.iter().map(FedSink::sent).collect(),
        };
        let mut feeders = Vec::with_capacity(fed.len());
        for (place, (fed, upload)) in fed.iter().zip(uploads).enumerate() {
            context.events.tell(Event::TransferStarted {
                run: context.run,
                digest: source.digest.clone(),
                destination: fed.sink.place(),
                size: source.size,
                resumed_from: fed.began_at,
            });
            let (feeder, feed) = feed::queue(fed.began_at);
            feeders.push(feeder);
            let (put_aside, told) = oneshot::channel();
            feeding.under_way.insert(place, put_aside);
            let drive = async move {
                let fate = tokio::select! {
                    biased;
                    Ok(()) = told => Fate::Aside,
                    result = sink::drive(context, source, slot, &fed.sink, upload, feed, alone) => Fate::Ended(result),
                };
                (place, fate)
            };
            feeding.drives.push(drive.boxed());
        }
        (feeding, feeders)
    }

    /// Whether it matters who was left behind meanwhile: to those that share the read, and for the place once it has ended.
    fn is_looked_at(&self) -> bool {
        !self.drives.is_empty() && (self.sharing.is_some() || self.outcome.is_some())
    }

    /// `None` once all has happened.
    async fn next(&mut self) -> Option<Happened> {
        tokio::select! {
            biased;
            Some(left) = self.left.recv() => Some(Happened::Left(left)),
            Some((place, ended)) = self.own_reads.next() => Some(Happened::Read(place, ended)),
            Some((place, fate)) = self.drives.next() => Some(Happened::Ended(place, fate)),
            _ = self.looks.tick(), if self.is_looked_at() => Some(Happened::Look),
            else => None,
        }
    }

    fn hear(&mut self, happened: Happened, settle: &mut impl FnMut(usize, Fate)) {
        match happened {
            Happened::Look => {}
            Happened::Left(left) => self.leave_behind(left),
            Happened::Read(place, ended) => {
                self.own_outcomes.insert(place, Some(ended));
            }
            Happened::Ended(place, fate) => {
                self.under_way.remove(&place);
                let result = match fate {
                    Fate::Ended(result) => result,
                    Fate::Aside => return settle(place, Fate::Aside),
                };
                if let Some(sharing) = &mut self.sharing {
                    sharing.ended(place, result.is_ok());
                }
                match self.known_end(place, result) {
                    Ok(result) => settle(place, Fate::Ended(result)),
                    Err(fault) => self.unsure.push((place, fault)),
                }
            }
        }
    }

    /// Where only those are left that the others do not wait for, who failed for a time is tried again at once: what a laggard finds
    /// out of a spool comes too late to be worth it.
    fn wait_for_no_laggard(&mut self, settle: &mut impl FnMut(usize, Fate)) {
        if self.unsure.is_empty() || self.under_way.is_empty() || !self.only_laggards_are_left() {
            return;
        }
        for (place, fault) in std::mem::take(&mut self.unsure) {
            match fault.kind.is_temporary() {
                true => settle(place, Fate::Ended(Err(fault))),
                false => self.unsure.push((place, fault)),
            }
        }
    }

    fn only_laggards_are_left(&self) -> bool {
        let behind = |place: &usize| self.context.pace.is_behind(self.fed[*place].registry());
        self.under_way.keys().all(behind)
    }

    /// What was begun goes on by a read of its own, where the source may be asked for one: its upload is not broken off. Else it is
    /// put aside.
    fn leave_behind(&mut self, left: Late) {
        let place = left.0.index;
        let fed = &self.fed[place];
        if let Some(sharing) = &mut self.sharing {
            sharing.leave_behind(place);
        }
        let begun = fed.sent() > self.sent_before[place];
        let turn = begun.then(|| self.context.pace.try_lone_read(fed.registry())).flatten();
        match turn {
            Some(turn) => {
                self.own_outcomes.insert(place, None);
                self.late.push((left, turn));
            }
            None => {
                if let Some(put_aside) = self.under_way.remove(&place) {
                    let _ = put_aside.send(());
                }
            }
        }
    }

    /// Reads for those that were left behind: in a place of its own where one is free, else in the one that is given. Who holds a
    /// place to write waits for no other's place to read.
    fn serve_late(&mut self, given: &mut Option<SourceBlob>) {
        while let Some((late, turn)) = self.late.pop() {
            if !self.under_way.contains_key(&late.0.index) {
                // It has ended meanwhile.
                continue;
            }
            let free = self.source.endpoint.with_free_reading_place();
            let free = free.map(|endpoint| SourceBlob {
                endpoint,
                ..self.source.clone()
            });
            let Some(source) = free.or_else(|| given.take()) else {
                self.late.push((late, turn));
                return;
            };
            self.own_reads
                .push(read_for_one(self.context, source, self.slot, late, turn).boxed());
        }
    }

    /// Who finds no place even now, when there is none to be handed on, waits for one without an upload that nobody serves.
    fn put_late_aside(&mut self) {
        for (late, _turn) in std::mem::take(&mut self.late) {
            if let Some(put_aside) = self.under_way.remove(&late.0.index) {
                let _ = put_aside.send(());
            }
        }
    }

    /// Where only those are left that the others do not wait for, they go on by themselves, as far as they may; who may not is put
    /// aside. Gives the turns of those that go on; `None` where others are left. Who was alone from the beginning has its turn.
    fn leave_to_laggards(&mut self) -> Option<Vec<LoneRead>> {
        if self.under_way.is_empty() || !self.only_laggards_are_left() {
            return None;
        }
        let mut turns = Vec::new();
        if self.sharing.is_none() {
            return Some(turns);
        }
        for (place, put_aside) in std::mem::take(&mut self.under_way) {
            if self.own_outcomes.contains_key(&place) {
                self.under_way.insert(place, put_aside);
                continue;
            }
            match self.context.pace.try_lone_read(self.fed[place].registry()) {
                Some(turn) => {
                    turns.push(turn);
                    self.under_way.insert(place, put_aside);
                }
                None => {
                    let _ = put_aside.send(());
                }
            }
        }
        Some(turns)
    }

    /// True where nothing waits any more of what the read for all has brought.
    fn all_read_for_themselves(&self) -> bool {
        let own: BTreeSet<&usize> = self.own_outcomes.keys().collect();
        self.under_way.keys().all(|place| own.contains(place))
    }

    /// A sink's end where it is sure, else the fault that is to be looked into when all have ended.
    fn known_end(&self, place: usize, result: Result<BlobWay, Fault>) -> Result<Result<BlobWay, Fault>, Fault> {
        let read = self.own_outcomes.get(&place).unwrap_or(&self.outcome);
        // It broke off because the source did; and what was there already is not done before we have seen, and hashed, all of it
        // too.
        let by_source = match &result {
            Ok(_) => self.fed[place].began_at >= self.source.size,
            Err(fault) => fault.kind.is_temporary(),
        };
        let fault = match (result, read) {
            (_, Some(Err(fault))) if by_source => fault.clone(),
            (Ok(way), _) => return Ok(Ok(way)),
            (Err(fault), _) => fault,
        };
        // The bytes may be wrong for everybody; and of a spool that is damaged or cannot be read all that used it begin anew together.
        match fault.kind == ErrorKind::Corrupt || (self.spooled && fault.kind.is_temporary()) {
            true => Err(fault),
            false => Ok(Err(fault)),
        }
    }
}

/// Goes on for a sink that was left behind where it stands: its upload is not broken off. Gives its place, and how the read ended.
async fn read_for_one(
    context: &TransferContext,
    source: SourceBlob,
    slot: &Slot,
    late: Late,
    _turn: LoneRead,
) -> (usize, Result<(), Fault>) {
    let (sink, progress) = *late;
    let LeftBehind { feeder, lacks, index } = sink;
    tracing::info!(
        source = source.endpoint.name(), digest = %source.digest, offset = progress.offset,
        "a destination takes the bytes more slowly than the others and gets a read of its own"
    );
    if let Some(chunk) = lacks
        && feeder.send(Ok(chunk)).await.is_err()
    {
        // It knows why it ended.
        return (index, Ok(()));
    }
    let mut audience = Audience::new(vec![feeder]);
    let outcome = match Reading::open(context, &source, slot, progress.offset).await {
        Ok(origin) => {
            source.endpoint.keep_reading_place();
            read(context, &source, progress, origin, &mut audience, None).await
        }
        Err(fault) => Err(fault),
    };
    if let Err(fault) = &outcome {
        audience.break_off(fault);
    }
    (index, outcome)
}
