//! A piece of a blob that is sent from the spool: filled before its request begins, whatever its length.

use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::reading::BLOCK;
use super::tail::Tail;
use super::{DISK_PATIENCE, blocking};
use crate::registry::BodyStream;

/// Some bytes of a file that stays readable as long as this lives.
#[derive(Debug)]
pub(in crate::engine::transfer) struct Piece {
    tail: Arc<Tail>,
    range: Range<u64>,
}

impl Piece {
    pub(super) fn new(tail: Arc<Tail>, range: Range<u64>) -> Self {
        Self { tail, range }
    }

    /// Waits until the disk has taken all of it.
    ///
    /// # Errors
    /// Why it will not.
    pub(in crate::engine::transfer) async fn filled(&self) -> Result<(), String> {
        match tokio::time::timeout(DISK_PATIENCE, self.tail.wait_for(self.range.end)).await {
            Ok(filled) => filled,
            Err(_) => Err("the disk is too slow".to_owned()),
        }
    }

    /// The bytes, read as they are sent.
    pub(in crate::engine::transfer) fn body(self) -> BodyStream {
        stream::try_unfold(self, |mut piece| async move {
            let length = BLOCK.min(piece.range.end - piece.range.start);
            if length == 0 {
                return Ok(None);
            }
            let (tail, from) = (Arc::clone(&piece.tail), piece.range.start);
            let bytes = blocking(move || tail.read(from, usize::try_from(length).unwrap_or(usize::MAX))).await?;
            if bytes.len() as u64 != length {
                return Err(std::io::Error::other("the file of the spool is shorter than it was"));
            }
            piece.range.start += length;
            Ok(Some((bytes, piece)))
        })
        .boxed()
    }
}
