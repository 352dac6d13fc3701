//! Reading one blob once, hashing it on the way and feeding every sink.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::attempts::{Attempt, Tell, Told};
use super::audience::{Audience, LeftBehind};
use super::feed::{self, Chunk};
use super::origin::wrong_length;
use super::session::{self, Ready};
use super::sink;
use super::spool::{Reading, Slot};
use super::trust::remember_wrong_ranges;
use super::{Sink, SourceBlob, TransferContext, at_source, random_fraction};
use crate::engine::event::Event;
use crate::engine::fault::Fault;
use crate::engine::ledger::BlobWay;
use crate::engine::pace::Shared;
use crate::oci::{Digest, Hasher};
use crate::plan::{Checkpoint, ErrorKind, RetryDecision, UploadHabit, after_failure, is_gain};
use crate::registry::Side;

/// A sink that waits for bytes.
pub(super) struct OpenSink {
    /// By which it is told of.
    pub(super) number: usize,
    pub(super) sink: Sink,
    pub(super) upload: Ready,
}

/// Of a sink that is fed.
struct Fed {
    number: usize,
    sink: Sink,
    /// Offset of the first byte that it lacked.
    began_at: u64,
}

/// Reads the source once from the least offset and feeds all sinks. Each one's end is told as it comes; only of bytes that turn
/// out to be wrong it takes all ends to say whose fault they are.
pub(super) async fn fetch(
    context: &TransferContext,
    source: &SourceBlob,
    slot: &Slot,
    sinks: Vec<OpenSink>,
    tell: Tell,
) {
    let may_lose = sinks.iter().any(|sink| sink.upload.habit != UploadHabit::KeepsBytes);
    slot.prepare(context, source, may_lose).await;
    let registries = sinks.iter().map(|open| open.sink.endpoint.name());
    let behind = context.pace.reading_turn(registries).await;
    let placed = source.with_reading_place().await;
    // Some may have been left behind while we waited, by what else they share.
    let lanes = sinks.iter().map(|open| context.pace.lane(open.sink.endpoint.name()));
    let lanes: Vec<usize> = lanes.collect();
    let front = lanes.iter().min().copied();
    let (mut fed, mut uploads) = (Vec::with_capacity(sinks.len()), Vec::with_capacity(sinks.len()));
    for (OpenSink { number, sink, upload }, lane) in sinks.into_iter().zip(lanes) {
        if Some(lane) > front {
            let _ = tell.send((number, Told::Aside(upload)));
            continue;
        }
        let began_at = upload.send_from();
        fed.push(Fed { number, sink, began_at });
        uploads.push(upload);
    }
    let mut copied = false;
    let open = feed_all(context, &placed, slot, &fed, uploads, |place, fate| {
        let Fed { number, began_at, .. } = fed[place];
        let told = match fate {
            Fate::Ended(result) => {
                copied |= matches!(result, Ok(BlobWay::Copied));
                Told::Ended(Attempt::ended(result, began_at))
            }
            Fate::Aside(upload) => Told::Aside(upload),
        };
        // Who listens waits for us.
        let _ = tell.send((number, told));
    })
    .await;
    drop((placed, behind));
    let corrupt = |fault: &Fault| fault.kind == ErrorKind::Corrupt;
    let any_corrupt = open.iter().any(|(_, fault)| corrupt(fault));
    let damaged = any_corrupt && slot.damaged().await;
    let unread = !damaged && open.iter().any(|(_, fault)| fault.kind.is_temporary()) && slot.failed().await;
    // What a destination makes of right bytes says nothing about the source.
    let read_wrong = open
        .iter()
        .any(|(_, fault)| corrupt(fault) && fault.side == Some(Side::Source));
    // What a mirror gave says nothing of the source, nor of its ranges.
    let mirrored = read_wrong && !damaged && source.endpoint.doubt(&source.digest);
    let by_range = read_wrong && !damaged && !mirrored && source.ranges.lose();
    if source.ranges.is_lost() && copied {
        remember_wrong_ranges(context, source).await;
    }
    for (place, fault) in open {
        let Fed { number, sink, began_at } = &fed[place];
        let (doubted, broken) = (
            (damaged || mirrored || by_range) && corrupt(&fault),
            fault.kind.is_temporary(),
        );
        if doubted {
            let (destination, digest) = (sink.place(), &source.digest);
            match damaged {
                true => tracing::warn!(
                    %destination, %digest,
                    "what the spool held of a blob is damaged and was removed; the blob is read from the source again"
                ),
                false if mirrored => tracing::warn!(
                    %destination, %digest,
                    "a mirror gave a blob with other bytes; it is read from the registry itself"
                ),
                false => tracing::warn!(
                    %destination, %digest,
                    "a blob of which parts were asked for is not what it should be; it is read again as a whole"
                ),
            }
        }
        // Others may have some of the same bytes, and would find out at their end only.
        if corrupt(&fault) || damaged || mirrored || by_range {
            session::discard(context, source, sink).await;
        }
        let attempt = Attempt {
            unproven: doubted || (unread && broken),
            ..Attempt::ended(Err(fault), *began_at)
        };
        let _ = tell.send((*number, Told::Ended(attempt)));
    }
}

/// What became of a sink.
enum Fate {
    Ended(Result<BlobWay, Fault>),
    /// Its upload was not used: nothing had been sent when it was left behind.
    Aside(Ready),
}

/// How often it is looked whether there is a place to read for those that were left behind.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Feeds all sinks. `settle` is told of each its place and what became of it, where that says all there is to know. Gives the faults of the
/// others, which may not be their own.
async fn feed_all(
    context: &TransferContext,
    source: &SourceBlob,
    slot: &Slot,
    fed: &[Fed],
    uploads: Vec<Ready>,
    mut settle: impl FnMut(usize, Fate),
) -> Vec<(usize, Fault)> {
    let alone = uploads.len() == 1;
    let start = uploads
        .iter()
        .map(Ready::checkpoint)
        .min_by_key(|checkpoint| checkpoint.map_or(0, |c| c.offset))
        .flatten()
        .cloned();
    let progress = Progress::from(source, start);
    // The read is open before the first write begins: who waits for a place to write holds its place to read, never the
    // other way round, so that no two fetches wait for each other.
    let origin = match Reading::open(context, source, slot, progress.offset).await {
        Ok(origin) => origin,
        Err(fault) => return (0..fed.len()).map(|place| (place, fault.clone())).collect(),
    };
    source.endpoint.keep_reading_place();
    let spooled = slot.is_used().await;
    let mut sharing = (!alone).then(|| {
        context
            .pace
            .share(Shared::Read, fed.iter().map(|fed| fed.sink.endpoint.name()))
    });
    let mut feeders = Vec::with_capacity(fed.len());
    let mut drives = FuturesUnordered::new();
    let mut aside = Vec::with_capacity(fed.len());
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
        let sent = fed.sink.sent.load(Ordering::Relaxed);
        aside.push((Some(put_aside), sent));
        drives.push(async move {
            let unused = upload.clone();
            let fate = tokio::select! {
                biased;
                Ok(()) = told => Fate::Aside(unused),
                result = sink::drive(context, source, slot, &fed.sink, upload, feed, alone) => Fate::Ended(result),
            };
            (place, fate)
        });
    }
    let (left_behind, mut left) = mpsc::unbounded_channel();
    let mut reading = pin!(async {
        let mut audience = Audience::new(feeders);
        let outcome = read(context, source, progress, origin, &mut audience, Some(left_behind)).await;
        if let Err(fault) = &outcome {
            audience.break_off(fault);
        }
        outcome
    });
    let mut outcome = None;
    // Those that were left behind and wait for a place to read.
    let mut late: Vec<Late> = Vec::new();
    let mut looks = tokio::time::interval(LOOK_AGAIN);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Their reads, and how they ended.
    let mut own_reads = FuturesUnordered::new();
    let mut own_outcomes: BTreeMap<usize, Option<Result<(), Fault>>> = BTreeMap::new();
    let mut open = Vec::new();
    loop {
        // In this order: whoever breaks off because a read did is asked after it.
        tokio::select! {
            biased;
            ended = &mut reading, if outcome.is_none() => outcome = Some(ended),
            Some(left) = left.recv() => {
                let place = left.0.index;
                if let Some(sharing) = &mut sharing {
                    sharing.leave_behind(place);
                }
                let (put_aside, sent) = &mut aside[place];
                match put_aside.take().filter(|_| fed[place].sink.sent.load(Ordering::Relaxed) == *sent) {
                    // It waits for its own turn, and need not hold our place meanwhile.
                    Some(put_aside) => {
                        let _ = put_aside.send(());
                    }
                    None => {
                        own_outcomes.insert(place, None);
                        late.push(left);
                    }
                }
            }
            Some((place, ended)) = own_reads.next() => {
                own_outcomes.insert(place, Some(ended));
            }
            Some((place, fate)) = drives.next() => {
                let result = match fate {
                    Fate::Ended(result) => result,
                    Fate::Aside(_) => {
                        settle(place, fate);
                        continue;
                    }
                };
                if let Some(sharing) = &mut sharing {
                    sharing.ended(place, result.is_ok());
                }
                let read = own_outcomes.get(&place).unwrap_or(&outcome);
                let had_all = fed[place].began_at >= source.size;
                match known_end(result, read.as_ref(), had_all, spooled) {
                    Ok(result) => settle(place, Fate::Ended(result)),
                    Err(fault) => open.push((place, fault)),
                }
            }
            _ = looks.tick(), if !late.is_empty() => {}
            else => return open,
        }
        // With a place of its own where one is free, else after the read that it was left behind by: who holds a place to write waits
        // for no other's place to read.
        while let Some(next) = late.pop() {
            let place = match source.endpoint.with_free_reading_place() {
                Some(endpoint) => SourceBlob {
                    endpoint,
                    ..source.clone()
                },
                None if outcome.is_some() => source.clone(),
                None => {
                    late.push(next);
                    break;
                }
            };
            own_reads.push(read_for_one(context, place, slot, *next));
        }
        // Nobody listens any more. What comes still is worth having where it is kept.
        if drives.is_empty() && !spooled {
            return open;
        }
    }
}

/// A sink's end where it is sure, else the fault that is to be looked into when all have ended. `read`: how the read that served
/// it ended, where it has.
fn known_end(
    result: Result<BlobWay, Fault>,
    read: Option<&Result<(), Fault>>,
    had_all: bool,
    spooled: bool,
) -> Result<Result<BlobWay, Fault>, Fault> {
    // It broke off because the source did; and what was there already is not done before we have seen, and hashed, all of it too.
    let by_source = match &result {
        Ok(_) => had_all,
        Err(fault) => fault.kind.is_temporary(),
    };
    let fault = match (result, read) {
        (_, Some(Err(fault))) if by_source => fault.clone(),
        (Ok(way), _) => return Ok(Ok(way)),
        (Err(fault), _) => fault,
    };
    // The bytes may be wrong for everybody, and a piece that could not be sent may have come from a spool that cannot be read.
    match fault.kind == ErrorKind::Corrupt || (spooled && fault.kind.is_temporary()) {
        true => Err(fault),
        false => Ok(Err(fault)),
    }
}

/// A sink that was left behind, with where the read stood then.
type Late = Box<(LeftBehind, Progress)>;

/// Goes on for a sink that was left behind where it stands: its upload is not broken off. Gives its place, and how the read ended.
async fn read_for_one(
    context: &TransferContext,
    source: SourceBlob,
    slot: &Slot,
    (sink, progress): (LeftBehind, Progress),
) -> (usize, Result<(), Fault>) {
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
    let _behind = context.pace.reads_anyhow();
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

/// Reads from where `progress` stands to the end. A source that breaks is opened again at the offset reached, so that sinks
/// notice nothing. `left_behind`: where to put sinks that hold up others.
async fn read(
    context: &TransferContext,
    source: &SourceBlob,
    mut progress: Progress,
    origin: Option<Reading<'_>>,
    audience: &mut Audience,
    left_behind: Option<mpsc::UnboundedSender<Late>>,
) -> Result<(), Fault> {
    let mut attempts = 0;
    let Some(mut origin) = origin else {
        return progress.check(source);
    };
    let mut gained_to = progress.offset;
    loop {
        let fault = match read_from(
            context,
            source,
            &mut origin,
            &mut progress,
            audience,
            left_behind.as_ref(),
        )
        .await
        {
            Ok(()) => return Ok(()),
            Err(fault) => at_source(fault),
        };
        if is_gain(progress.offset - gained_to, source.size.saturating_sub(gained_to)) {
            attempts = 0;
            gained_to = progress.offset;
        }
        attempts += 1;
        if !fault.kind.is_temporary() || audience.is_gone() || !context.control.may_start() {
            return Err(fault);
        }
        let decision = after_failure(
            fault.kind,
            attempts,
            context.retry,
            fault.retry_after,
            random_fraction(),
        );
        let RetryDecision::After(delay) = decision else {
            return Err(fault);
        };
        tracing::info!(
            source = source.endpoint.name(), digest = %source.digest, offset = progress.offset,
            "the source broke off, going on there: {fault}"
        );
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            // Others may wait for the turn of connections that are still open.
            never = origin.receive() => match never {},
            stop = context.control.wait_stop() => return Err(Fault::stopped(&stop.reason())),
        }
    }
}

/// How far the blob has been read and hashed.
#[derive(Clone)]
struct Progress {
    offset: u64,
    hasher: Hasher,
}

impl Progress {
    fn from(source: &SourceBlob, start: Option<Checkpoint>) -> Self {
        let algorithm = source.digest.algorithm();
        start
            .and_then(|checkpoint| {
                let hasher = Hasher::restore(algorithm, &checkpoint.state)?;
                let offset = checkpoint.offset;
                Some(Self { offset, hasher })
            })
            .unwrap_or_else(|| Self {
                offset: 0,
                hasher: Hasher::new(algorithm),
            })
    }

    fn check(&self, source: &SourceBlob) -> Result<(), Fault> {
        let found: Digest = self.hasher.clone().finish();
        if found == source.digest {
            return Ok(());
        }
        let place = format!("{}/{}@{}", source.endpoint.name(), source.repository, source.digest);
        Err(at_source(Fault::new(
            ErrorKind::Corrupt,
            format!(
                "the bytes of the blob {place} have the digest {found}: the source holds a damaged blob, push it again there"
            ),
        )))
    }
}

async fn read_from(
    context: &TransferContext,
    source: &SourceBlob,
    origin: &mut Reading<'_>,
    progress: &mut Progress,
    audience: &mut Audience,
    left_behind: Option<&mpsc::UnboundedSender<Late>>,
) -> Result<(), Fault> {
    let mut aborted = pin!(context.control.wait_abort());
    debug_assert_eq!(origin.offset(), progress.offset, "read where the hash stands");
    loop {
        let next = tokio::select! {
            next = origin.next() => next,
            reason = &mut aborted => return Err(Fault::stopped(&reason)),
        };
        let Some(bytes) = next.transpose()? else {
            return Ok(());
        };
        let end = progress.offset + bytes.len() as u64;
        if end > source.size {
            return Err(wrong_length(source, end));
        }
        for part in feed::cut(bytes, progress.offset) {
            progress.hasher.update(&part);
            progress.offset += part.len() as u64;
            // Before the last byte is handed over, so that a destination never completes a damaged blob.
            if progress.offset == source.size {
                progress.check(source)?;
            }
            let on_boundary = progress.offset.is_multiple_of(feed::STATE_EVERY);
            let chunk = Chunk {
                bytes: part,
                end: progress.offset,
                state: on_boundary.then(|| progress.hasher.save()).flatten(),
            };
            let listens = audience.hand_over(chunk, origin).await;
            for sink in audience.take_left_behind() {
                // Whoever serves them listens until the read ends.
                let late = Box::new((sink, progress.clone()));
                let _ = left_behind.map(|sender| sender.send(late));
            }
            if !listens {
                // Each sink knows why it ended.
                return Ok(());
            }
        }
    }
}
