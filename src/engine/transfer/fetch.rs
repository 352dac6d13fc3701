//! Reading one blob once, hashing it on the way and feeding every sink.

use std::pin::pin;

use tokio::sync::mpsc;

use super::attempts::{Attempt, Tell, Told};
use super::audience::{Audience, LeftBehind};
use super::feed::{self, Chunk};
use super::feeding::{Fate, FedSink, feed_all};
use super::origin::wrong_length;
use super::session::{self, Ready};
use super::spool::{Reading, Slot};
use super::trust::remember_wrong_ranges;
use super::{Sink, SourceBlob, TransferContext, at_source, random_fraction};
use crate::engine::fault::Fault;
use crate::engine::ledger::BlobWay;
use crate::engine::pace::LoneRead;
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

/// A sink that was left behind, with where the read stood then.
pub(super) type Late = Box<(LeftBehind, Progress)>;

/// Reads the source once from the least offset and feeds all sinks. Each one's end is told as it comes; only of bytes that turn
/// out to be wrong it takes all ends to say whose fault they are.
pub(super) async fn fetch(
    context: &TransferContext,
    source: &SourceBlob,
    slot: &Slot,
    sinks: Vec<OpenSink>,
    tell: Tell,
) {
    let lone = match sinks.as_slice() {
        [alone] => Some(context.pace.lone_read(alone.sink.endpoint.name()).await),
        _ => None,
    };
    let placed = source.with_reading_place().await;
    // Boxed: many wait for a place, and only who has one needs the memory for a read.
    Box::pin(fetch_in_place(context, source, placed, slot, sinks, lone, tell)).await;
}

/// As [`fetch`], in the place of `placed`.
async fn fetch_in_place(
    context: &TransferContext,
    source: &SourceBlob,
    placed: SourceBlob,
    slot: &Slot,
    sinks: Vec<OpenSink>,
    lone: Option<LoneRead>,
    tell: Tell,
) {
    let may_lose = sinks.iter().any(|sink| sink.upload.habit != UploadHabit::KeepsBytes);
    let (mut fed, mut uploads) = (Vec::with_capacity(sinks.len()), Vec::with_capacity(sinks.len()));
    for OpenSink { number, sink, upload } in sinks {
        // It may have been left behind while we waited, by what else they share. Each of those has a read of its own.
        if lone.is_none() && context.pace.is_behind(sink.endpoint.name()) {
            let _ = tell.send((number, Told::Aside(upload)));
            continue;
        }
        let began_at = upload.send_from();
        fed.push(FedSink { number, sink, began_at });
        uploads.push(upload);
    }
    if fed.is_empty() {
        return;
    }
    slot.prepare(context, source, may_lose).await;
    let excuses = slot.excuses();
    let mut copied = false;
    let open = feed_all(context, placed, source, slot, &fed, uploads, |place, fate| {
        let FedSink { number, began_at, .. } = fed[place];
        copied |= matches!(fate, Fate::Ended(Ok(BlobWay::Copied)));
        let attempt = match fate {
            Fate::Ended(result) => Attempt::ended(result, began_at),
            // It is opened again where it stands.
            Fate::Aside => Attempt {
                unproven: true,
                ..Attempt::ended(Err(Fault::untold()), began_at)
            },
        };
        // Who listens waits for us.
        let _ = tell.send((number, Told::Ended(attempt)));
    })
    .await;
    drop(lone);
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
    // What another fetch of the same bytes has found out meanwhile holds for these, too.
    let elsewhere = slot.excuses() != excuses;
    if damaged || mirrored || by_range || unread {
        slot.excuse();
    }
    if source.ranges.is_lost() && copied {
        remember_wrong_ranges(context, source).await;
    }
    let mut ends = Vec::with_capacity(open.len());
    for (place, fault) in open {
        let FedSink { number, sink, began_at } = &fed[place];
        let (doubted, broken) = (
            (damaged || mirrored || by_range || elsewhere) && corrupt(&fault),
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
                false if elsewhere && !by_range => tracing::debug!(
                    %destination, %digest,
                    "a blob was read together with one that was not what it should be; it is read again"
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
            unproven: doubted || ((unread || elsewhere) && broken),
            ..Attempt::ended(Err(fault), *began_at)
        };
        ends.push((*number, Told::Ended(attempt)));
    }
    // All at once, so that one read serves them again.
    for end in ends {
        let _ = tell.send(end);
    }
}

/// Reads from where `progress` stands to the end. A source that breaks is opened again at the offset reached, so that sinks
/// notice nothing. `left_behind`: where to put sinks that hold up others.
pub(super) async fn read(
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
pub(super) struct Progress {
    pub(super) offset: u64,
    hasher: Hasher,
}

impl Progress {
    pub(super) fn from(source: &SourceBlob, start: Option<Checkpoint>) -> Self {
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
