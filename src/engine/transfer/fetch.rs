//! Reading one blob once, hashing it on the way and feeding every sink.

use std::collections::BTreeMap;
use std::pin::pin;

use futures_util::StreamExt;
use futures_util::future::{join, join_all};
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::audience::{Audience, LeftBehind};
use super::feed::{self, Chunk};
use super::origin::wrong_length;
use super::session::{self, Opened, Ready};
use super::sink;
use super::spool::{Reading, Slot};
use super::trust::remember_wrong_ranges;
use super::{Attempt, Sink, SourceBlob, TransferContext, at_source, open_all, random_fraction};
use crate::engine::event::Event;
use crate::engine::fault::Fault;
use crate::engine::ledger::BlobWay;
use crate::oci::{Digest, Hasher};
use crate::plan::{Checkpoint, ErrorKind, RetryDecision, UploadHabit, after_failure, is_gain};

/// One attempt at all sinks: opens them, reads the source once from the least offset, feeds all.
pub(super) async fn attempt(
    context: &TransferContext,
    source: &SourceBlob,
    slot: &Slot,
    sinks: Vec<&Sink>,
) -> Vec<Attempt> {
    let opened = open_all(context, source, &sinks).await;
    let mut attempts: Vec<Option<Attempt>> = Vec::with_capacity(sinks.len());
    let mut ready: Vec<(usize, Ready)> = Vec::new();
    for (index, opened) in opened.into_iter().enumerate() {
        attempts.push(match opened {
            Ok(Opened::There(way)) => Some(ended(Ok(way), 0)),
            Err(fault) => Some(ended(Err(fault), 0)),
            Ok(Opened::Ready(sink)) => {
                ready.push((index, sink));
                None
            }
        });
    }
    if !ready.is_empty() {
        let began: Vec<u64> = ready.iter().map(|(_, sink)| sink.send_from()).collect();
        let indices: Vec<usize> = ready.iter().map(|(index, _)| *index).collect();
        let may_lose = ready.iter().any(|(_, sink)| sink.habit != UploadHabit::KeepsBytes);
        slot.prepare(context, source, may_lose).await;
        let results = feed_all(context, source, slot, &sinks, ready).await;
        let corrupt =
            |result: &Result<BlobWay, Fault>| matches!(result, Err(fault) if fault.kind == ErrorKind::Corrupt);
        let broken = |result: &Result<BlobWay, Fault>| matches!(result, Err(fault) if fault.kind.is_temporary());
        let any_corrupt = results.iter().any(corrupt);
        let damaged = any_corrupt && slot.damaged().await;
        let unread = !damaged && results.iter().any(broken) && slot.failed().await;
        let by_range = any_corrupt && !damaged && source.ranges.lose();
        if source.ranges.is_lost() && results.iter().any(|result| matches!(result, Ok(BlobWay::Copied))) {
            remember_wrong_ranges(context, source).await;
        }
        for ((index, began), result) in indices.into_iter().zip(began).zip(results) {
            if by_range && corrupt(&result) {
                tracing::warn!(
                    destination = %sinks[index].place(), digest = %source.digest,
                    "a blob of which parts were asked for is not what it should be; it is read again as a whole"
                );
            } else if damaged && corrupt(&result) {
                tracing::warn!(
                    destination = %sinks[index].place(), digest = %source.digest,
                    "what the spool held of a blob is damaged and was removed; the blob is read from the source again"
                );
            } else if (damaged || by_range) && result.is_err() {
                // It may have some of the same bytes, and would find out at its end only.
                session::discard(context, source, sinks[index]).await;
            }
            attempts[index] = Some(Attempt {
                unproven: ((damaged || by_range) && corrupt(&result)) || (unread && broken(&result)),
                ..ended(result, began)
            });
        }
    }
    attempts.into_iter().flatten().collect()
}

fn ended(result: Result<BlobWay, Fault>, began_at: u64) -> Attempt {
    Attempt {
        result,
        began_at,
        unproven: false,
    }
}

async fn feed_all(
    context: &TransferContext,
    source: &SourceBlob,
    slot: &Slot,
    sinks: &[&Sink],
    ready: Vec<(usize, Ready)>,
) -> Vec<Result<BlobWay, Fault>> {
    let alone = ready.len() == 1;
    let start = ready
        .iter()
        .map(|(_, sink)| sink.checkpoint())
        .min_by_key(|checkpoint| checkpoint.map_or(0, |c| c.offset))
        .flatten()
        .cloned();
    let indices: Vec<usize> = ready.iter().map(|(index, _)| *index).collect();
    let source = &source.with_reading_place().await;
    let progress = Progress::from(source, start);
    // The read is open before the first write begins: who waits for a place to write holds its place to read, never the
    // other way round, so that no two fetches wait for each other.
    let origin = match Reading::open(context, source, slot, progress.offset).await {
        Ok(origin) => origin,
        Err(fault) => return ready.iter().map(|_| Err(fault.clone())).collect(),
    };
    source.endpoint.keep_reading_place();
    let mut feeders = Vec::with_capacity(ready.len());
    let mut drives = Vec::with_capacity(ready.len());
    for (index, sink) in ready {
        context.events.tell(Event::TransferStarted {
            run: context.run,
            digest: source.digest.clone(),
            destination: sinks[index].place(),
            size: source.size,
            resumed_from: sink.send_from(),
        });
        let (feeder, feed) = feed::queue(sink.send_from());
        feeders.push(feeder);
        drives.push(sink::drive(context, source, slot, sinks[index], sink, feed, alone));
    }
    let (left_behind, left) = mpsc::unbounded_channel();
    let reading = async {
        let mut audience = Audience::new(feeders);
        let outcome = read(context, source, progress, origin, &mut audience, Some(left_behind)).await;
        if let Err(fault) = &outcome {
            audience.break_off(fault);
        }
        outcome
    };
    let served = serve_left_behind(context, source, slot, left);
    let ((read, served), driven) = join(join(reading, served), join_all(drives)).await;
    let mut results = Vec::with_capacity(driven.len());
    for (place, (mut result, index)) in driven.into_iter().zip(indices).enumerate() {
        let read = served.get(&place).unwrap_or(&read);
        // A sink broke off because the source did; and one that had all bytes already is not done before we have seen,
        // and hashed, all of them too.
        let by_source = !matches!(&result, Err(fault) if !fault.kind.is_temporary());
        if let (true, Err(read_fault)) = (by_source, read) {
            result = Err(read_fault.clone());
        }
        if matches!(&result, Err(fault) if fault.kind == ErrorKind::Corrupt) {
            session::discard(context, source, sinks[index]).await;
        }
        results.push(result);
    }
    results
}

/// A sink that was left behind, with where the read stood then.
type Late = Box<(LeftBehind, Progress)>;

/// Gives each sink that is left behind a read of its own, which goes on where it stands: its upload is not broken off. How these
/// reads ended, by the sinks' places.
async fn serve_left_behind(
    context: &TransferContext,
    source: &SourceBlob,
    slot: &Slot,
    mut left: mpsc::UnboundedReceiver<Late>,
) -> BTreeMap<usize, Result<(), Fault>> {
    let mut served = BTreeMap::new();
    let mut reads = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(late) = left.recv() => {
                let (sink, progress) = *late;
                let place = sink.index;
                reads.push(async move { (place, read_for_one(context, source, slot, sink, progress).await) });
            }
            Some((place, outcome)) = reads.next() => {
                served.insert(place, outcome);
            }
            else => return served,
        }
    }
}

async fn read_for_one(
    context: &TransferContext,
    source: &SourceBlob,
    slot: &Slot,
    sink: LeftBehind,
    progress: Progress,
) -> Result<(), Fault> {
    let LeftBehind { feeder, lacks, .. } = sink;
    tracing::info!(
        source = source.endpoint.name(), digest = %source.digest, offset = progress.offset,
        "a destination takes the bytes more slowly than the others and gets a read of its own"
    );
    if let Some(chunk) = lacks
        && feeder.send(Ok(chunk)).await.is_err()
    {
        // It knows why it ended.
        return Ok(());
    }
    let mut audience = Audience::new(vec![feeder]);
    // With a place of its own where one is free. Else after the read that it was left behind by: who holds a place to write waits for
    // no other's place to read.
    let source = &source.with_other_reading_place();
    let outcome = match Reading::open(context, source, slot, progress.offset).await {
        Ok(origin) => {
            source.endpoint.keep_reading_place();
            read(context, source, progress, origin, &mut audience, None).await
        }
        Err(fault) => Err(fault),
    };
    if let Err(fault) = &outcome {
        audience.break_off(fault);
    }
    outcome
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
        for part in feed::cut(bytes, progress.offset) {
            progress.hasher.update(&part);
            progress.offset += part.len() as u64;
            if progress.offset > source.size {
                return Err(wrong_length(source, progress.offset));
            }
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
