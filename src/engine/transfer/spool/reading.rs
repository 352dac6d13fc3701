//! The bytes of a blob in order: out of the spool as far as it holds them, then from the source, which fills the spool.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Mutex;

use super::disk::Effort;
use super::piece::Piece;
use super::{Claimed, SpoolFile};
use crate::engine::fault::Fault;
use crate::engine::transfer::origin::Origin;
use crate::engine::transfer::session::must_hold;
use crate::engine::transfer::{SourceBlob, TransferContext};
use crate::plan::{ErrorKind, SpoolDecision, SpoolFacts, keep_in_spool, may_be_spooled, spool_decision};
use crate::registry::Endpoint;

/// Bytes that are read from the file at once.
pub(super) const BLOCK: u64 = 512 * 1024;

/// Bytes that are read again so that the file has no hole: what a killed process had sent but not written yet is less.
const LARGEST_GAP: u64 = 8 * 1024 * 1024;

/// One blob's file over all attempts of a transfer.
#[derive(Debug, Default)]
pub(in crate::engine::transfer) struct Slot {
    state: Mutex<State>,
    excuses: AtomicU64,
}

#[derive(Debug, Default)]
enum State {
    /// Nobody has asked for it yet.
    #[default]
    Unasked,
    /// This transfer goes without. `gave`: destinations have bytes of the file that it had.
    Without {
        gave: bool,
    },
    Ours(SpoolFile),
}

impl Slot {
    /// Asks for the blob's file where it is worth it, once a destination wants bytes.
    pub(in crate::engine::transfer) async fn prepare(
        &self,
        context: &TransferContext,
        source: &SourceBlob,
        may_lose: bool,
    ) {
        let Some(spool) = context.spool.as_ref().filter(|_| may_be_spooled(source.size)) else {
            return;
        };
        let mut state = self.state.lock().await;
        if !matches!(*state, State::Unasked) {
            return;
        }
        let effort = match spool_decision(facts(context, source, may_lose, 0)) {
            SpoolDecision::Spool => Effort::Make,
            _ => Effort::Take,
        };
        let mut claimed = spool.claim(&source.digest, source.size, effort).await;
        // A manifest may give any length: other blobs make room only for one that is known to be so long.
        if matches!(claimed, Claimed::Crowded) && must_hold(source).await.ok() == Some(source.size) {
            claimed = spool.claim(&source.digest, source.size, Effort::MakeRoom).await;
        }
        *state = match claimed {
            Claimed::Ours(file) => {
                if file.held > 0 {
                    // A manifest may name any digest, with any length: what another source's transfer left here is not for
                    // whoever names it, nor to be dropped when the length turns out to be wrong.
                    if must_hold(source).await.ok() != Some(source.size) {
                        file.keep().await;
                        *state = State::Without { gave: false };
                        return;
                    }
                    tracing::info!(
                        digest = %source.digest, held = file.held,
                        "what the spool holds of a blob is not read from the source again"
                    );
                }
                State::Ours(file)
            }
            Claimed::Absent => State::Unasked,
            Claimed::Without | Claimed::Crowded => State::Without { gave: false },
        };
    }

    /// True where this transfer has the blob's file.
    pub(in crate::engine::transfer) async fn is_used(&self) -> bool {
        matches!(&*self.state.lock().await, State::Ours(_))
    }

    /// Bytes of the blob that the file holds or is about to; `None` where it is not spooled.
    pub(in crate::engine::transfer) async fn piece(&self, range: Range<u64>) -> Option<Piece> {
        match &mut *self.state.lock().await {
            // A file that was made anew while the destination held a part already lacks what comes before.
            State::Ours(file) if file.grows && file.end >= range.start => {
                file.sends = true;
                let (spool, tail) = (file.spool.clone(), Arc::clone(&file.tail));
                Some(Piece::new(spool, tail, range, Arc::clone(&file.failed)))
            }
            _ => None,
        }
    }

    /// After bytes that do not have the blob's digest: drops the file. True where they may have been the file's, so that nobody
    /// else is to blame.
    pub(in crate::engine::transfer) async fn damaged(&self) -> bool {
        let mut state = self.state.lock().await;
        match std::mem::take(&mut *state) {
            State::Ours(file) => {
                let used = file.is_used();
                if used {
                    *state = State::Without { gave: false };
                }
                file.remove().await;
                used
            }
            State::Without { gave } => {
                *state = State::Without { gave: false };
                gave
            }
            State::Unasked => false,
        }
    }

    /// True where a piece could not be read, so that no destination is to blame: gives the file up.
    pub(in crate::engine::transfer) async fn failed(&self) -> bool {
        let mut state = self.state.lock().await;
        let failed = matches!(&*state, State::Ours(file) if file.failed.load(Ordering::Relaxed));
        if failed {
            give_up(&mut state, "a piece cannot be read from it").await;
        }
        failed
    }

    /// How often it was found out that wrong or missing bytes were not the source's own, nor a destination's fault. That is found
    /// once: a fetch during which it was by another one has the same excuse.
    pub(in crate::engine::transfer) fn excuses(&self) -> u64 {
        self.excuses.load(Ordering::Relaxed)
    }

    /// It was found out.
    pub(in crate::engine::transfer) fn excuse(&self) {
        self.excuses.fetch_add(1, Ordering::Relaxed);
    }

    /// After the last attempt: the file stays where a later transfer has use for it. `ends`: how each destination ended.
    pub(in crate::engine::transfer) async fn end(
        self,
        context: &TransferContext,
        source: &SourceBlob,
        ends: Vec<Option<ErrorKind>>,
    ) {
        match self.state.into_inner() {
            State::Ours(file) if keep_in_spool(ends.iter().copied()) => file.keep().await,
            State::Ours(file) => file.remove().await,
            // A process that was killed just before the end may have left one.
            State::Unasked if may_be_spooled(source.size) && ends.iter().all(Option::is_none) => {
                if let Some(spool) = &context.spool {
                    spool.forget(&source.digest).await;
                }
            }
            State::Unasked | State::Without { .. } => {}
        }
    }
}

fn facts(context: &TransferContext, source: &SourceBlob, may_lose: bool, held: u64) -> SpoolFacts {
    SpoolFacts {
        size: source.size,
        source_rate: context.pool.rate(source.endpoint.name()),
        local_source: matches!(source.endpoint, Endpoint::Layout(_)),
        may_lose,
        held,
    }
}

/// Gives the bytes of a blob from an offset on. Faults are the source's, after which the next call goes on where it came: those of
/// the spool cost its help only.
pub(in crate::engine::transfer) struct Reading<'a> {
    context: &'a TransferContext,
    source: &'a SourceBlob,
    slot: &'a Slot,
    /// Offset of the next byte to give.
    offset: u64,
    /// The source, once the spool has nothing more.
    origin: Option<Origin>,
}

impl<'a> Reading<'a> {
    /// Opens the blob at an offset; `None` where nothing is left to read.
    pub(in crate::engine::transfer) async fn open(
        context: &'a TransferContext,
        source: &'a SourceBlob,
        slot: &'a Slot,
        offset: u64,
    ) -> Result<Option<Self>, Fault> {
        if offset >= source.size {
            return Ok(None);
        }
        let mut reading = Self {
            context,
            source,
            slot,
            offset,
            origin: None,
        };
        let held = matches!(&*slot.state.lock().await, State::Ours(file) if file.end > offset);
        if !held {
            reading.origin = reading.at_source().await?;
        }
        Ok(Some(reading))
    }

    /// Offset of the first byte that [`Reading::next`] gives.
    pub(in crate::engine::transfer) fn offset(&self) -> u64 {
        self.offset
    }

    /// The source where the spool ends, or where we stand.
    async fn at_source(&mut self) -> Result<Option<Origin>, Fault> {
        let from = match &*self.slot.state.lock().await {
            State::Ours(file) if file.grows && file.end < self.offset && self.offset - file.end <= LARGEST_GAP => {
                file.end
            }
            _ => self.offset,
        };
        Origin::open(self.context, self.source, from).await
    }

    /// The next bytes, never none of them; `None` behind the blob's last byte.
    pub(in crate::engine::transfer) async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        while self.offset < self.source.size {
            if let Some(bytes) = self.spooled().await {
                self.offset += bytes.len() as u64;
                return Some(Ok(bytes));
            }
            if self.origin.is_none() {
                self.origin = match self.at_source().await {
                    Ok(origin) => origin,
                    Err(fault) => return Some(Err(fault)),
                };
            }
            let origin = self.origin.as_mut()?;
            let begin = origin.offset();
            let mut bytes = match origin.next().await? {
                Ok(bytes) => bytes,
                // It goes on there when it is asked again.
                Err(fault) => return Some(Err(fault)),
            };
            self.fill(begin, bytes.clone()).await;
            let known = usize::try_from(self.offset.saturating_sub(begin)).unwrap_or(usize::MAX);
            if known >= bytes.len() {
                continue;
            }
            let new = bytes.split_off(known);
            self.offset += new.len() as u64;
            return Some(Ok(new));
        }
        None
    }

    /// Goes on receiving what the source was asked for: see [`Origin::receive`]. Never ends.
    pub(in crate::engine::transfer) async fn receive(&mut self) -> Infallible {
        match &mut self.origin {
            Some(origin) => origin.receive().await,
            None => std::future::pending().await,
        }
    }

    /// Leaves the source alone until more is wanted: see [`Origin::stand_still`].
    pub(in crate::engine::transfer) fn stand_still(&mut self) {
        if let Some(origin) = &mut self.origin {
            origin.stand_still();
        }
    }

    /// The next bytes where the spool holds them.
    async fn spooled(&mut self) -> Option<Bytes> {
        let mut state = self.slot.state.lock().await;
        let State::Ours(file) = &mut *state else {
            return None;
        };
        if file.end <= self.offset {
            return None;
        }
        match file.read(self.offset, BLOCK).await {
            Ok(bytes) => {
                file.gave = true;
                Some(bytes)
            }
            Err(why) => {
                give_up(&mut state, &why).await;
                None
            }
        }
    }

    /// Adds bytes of the source to the spool, unless it turns out that reading them again would cost little.
    async fn fill(&mut self, begin: u64, bytes: Bytes) {
        let mut state = self.slot.state.lock().await;
        let State::Ours(file) = &mut *state else {
            return;
        };
        // That a destination may lose what it was sent has not changed; and what was needed once may be needed again.
        let held = if file.gave { file.end } else { file.held };
        let now = spool_decision(facts(self.context, self.source, true, held));
        // A piece that is being filled needs what is there.
        if now != SpoolDecision::Spool && Arc::strong_count(&file.tail) == 1 {
            if let State::Ours(file) = std::mem::take(&mut *state) {
                *state = State::Without { gave: file.is_used() };
                tracing::debug!(digest = %self.source.digest, "the source is fast, so its blob is not spooled");
                file.remove().await;
            }
            return;
        }
        if let Err(why) = file.add(begin, bytes).await {
            give_up(&mut state, &why).await;
        }
    }
}

async fn give_up(state: &mut State, why: &str) {
    if let State::Ours(file) = std::mem::take(state) {
        *state = State::Without { gave: file.is_used() };
        tracing::warn!(
            digest = %file.digest,
            "the spool's file of a blob is given up, which goes on without: {why}"
        );
        file.remove().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{folder, ours, spool};
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[tokio::test]
    async fn no_piece_waits_for_a_file_that_lacks_its_beginning() {
        let folder = folder();
        let file = ours(&spool(folder.path(), 20 * MIB), "a", 16 * MIB).await;
        // The destination holds five already, and the file was made anew.
        let slot = Slot {
            state: Mutex::new(State::Ours(file)),
            ..Slot::default()
        };
        assert!(slot.piece(5 * MIB..10 * MIB).await.is_none());
        assert!(slot.piece(0..5 * MIB).await.is_some(), "what comes next will be there");
        for part in 0..5 {
            if let State::Ours(file) = &mut *slot.state.lock().await {
                let bytes = vec![7; MIB as usize - u64::from(part == 4) as usize];
                file.add(part * MIB, bytes.into()).await.expect("added");
            }
        }
        assert!(slot.piece(5 * MIB..10 * MIB).await.is_none(), "a byte is missing");
        if let State::Ours(file) = &mut *slot.state.lock().await {
            file.add(5 * MIB - 1, vec![7].into()).await.expect("added");
        }
        assert!(slot.piece(5 * MIB..10 * MIB).await.is_some());
        assert!(slot.damaged().await, "pieces may have been sent");
        assert!(slot.piece(5 * MIB..10 * MIB).await.is_none());
        assert!(!slot.damaged().await, "only once");
    }

    #[tokio::test]
    async fn a_piece_that_cannot_be_read_gives_the_file_up() {
        let folder = folder();
        let mut file = ours(&spool(folder.path(), 20 * MIB), "a", 16 * MIB).await;
        file.add(0, vec![7; MIB as usize].into()).await.expect("added");
        let tail = Arc::clone(&file.tail);
        let slot = Slot {
            state: Mutex::new(State::Ours(file)),
            ..Slot::default()
        };
        let piece = slot.piece(0..MIB).await.expect("it is there");
        piece.filled().await.expect("it is on disk");
        assert!(!slot.failed().await);
        tail.file().set_len(100).expect("cut");
        let body: Vec<_> = futures_util::StreamExt::collect(piece.body()).await;
        assert!(body.iter().any(Result::is_err));
        assert!(slot.failed().await);
        assert!(slot.piece(0..MIB).await.is_none());
        assert!(slot.damaged().await, "a part of it may have been sent");
    }
}
