//! A piece of a blob that is sent from the spool: filled before its request begins, whatever its length.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::reading::BLOCK;
use super::tail::Tail;
use super::{DISK_PATIENCE, Spool, TOO_SLOW};
use crate::registry::BodyStream;

/// Some bytes of a file that stays readable as long as this lives.
#[derive(Debug)]
pub(in crate::engine::transfer) struct Piece {
    spool: Spool,
    tail: Arc<Tail>,
    range: Range<u64>,
    /// Set where it could not be read.
    failed: Arc<AtomicBool>,
}

impl Piece {
    /// The bytes of `range`. `failed` is set where they cannot be read.
    pub(super) fn new(spool: Spool, tail: Arc<Tail>, range: Range<u64>, failed: Arc<AtomicBool>) -> Self {
        Self {
            spool,
            tail,
            range,
            failed,
        }
    }

    /// Waits until the disk has taken all of it.
    ///
    /// # Errors
    /// Why it will not.
    pub(in crate::engine::transfer) async fn filled(&self) -> Result<(), String> {
        let filled = tokio::time::timeout(DISK_PATIENCE, self.tail.wait_for(self.range.end)).await;
        let filled = filled.unwrap_or_else(|_| Err(TOO_SLOW.to_owned()));
        if filled.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        filled
    }

    /// The bytes, read as they are sent.
    pub(in crate::engine::transfer) fn body(self) -> BodyStream {
        stream::try_unfold(self, |mut piece| async move {
            let length = BLOCK.min(piece.range.end - piece.range.start);
            if length == 0 {
                return Ok(None);
            }
            let bytes = piece
                .read(length)
                .await
                .inspect_err(|_| piece.failed.store(true, Ordering::Relaxed))?;
            piece.range.start += length;
            Ok(Some((bytes, piece)))
        })
        .boxed()
    }

    /// The next `length` bytes.
    async fn read(&self, length: u64) -> io::Result<Bytes> {
        let (tail, from) = (Arc::clone(&self.tail), self.range.start);
        let reading = move || tail.read(from, usize::try_from(length).unwrap_or(usize::MAX));
        let bytes = self.spool.0.threads.run(reading).await?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(io::Error::other("the file of the spool is shorter than it was")),
        }
    }
}
