//! The bytes of one source blob in order, wherever they come from.

use std::time::Duration;

use bytes::Bytes;

use super::feed::STATE_EVERY;
use super::{SourceBlob, TransferContext, at_source};
use crate::engine::fault::Fault;
use crate::plan::ErrorKind;
use crate::registry::BlobReader;

/// Gives the bytes of a blob from an offset on. Faults are the source's.
pub(super) struct Origin {
    context: TransferContext,
    source: SourceBlob,
    reader: BlobReader,
    /// Offset of the next byte of `reader`: before `offset` where the source ignores ranges.
    position: u64,
    /// Offset of the next byte to give.
    offset: u64,
    meter: Meter,
}

impl Origin {
    /// Opens the blob at an offset; `None` where nothing is left to read.
    pub(super) async fn open(
        context: &TransferContext,
        source: &SourceBlob,
        offset: u64,
    ) -> Result<Option<Self>, Fault> {
        if offset >= source.size {
            return Ok(None);
        }
        let opened = source
            .endpoint
            .open_blob(&source.repository, &source.digest, offset)
            .await;
        let reader = opened.map_err(|error| at_source(error.into()))?;
        if let Some(total) = reader.total
            && total != source.size
        {
            return Err(wrong_length(source, total));
        }
        Ok(Some(Self {
            context: context.clone(),
            source: source.clone(),
            position: reader.offset,
            offset,
            reader,
            meter: Meter::default(),
        }))
    }

    /// Offset of the first byte that [`Origin::next`] gives.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, never none of them; `None` behind the blob's last byte. A source that gives more bytes than the blob
    /// has is noticed by who counts them.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        while self.offset < self.source.size {
            let asked = self.context.clock.elapsed();
            let bytes = match self.reader.next().await {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) => return Some(Err(at_source(error.into()))),
                None => return Some(Err(self.ended_early())),
            };
            let waited = self.context.clock.elapsed().saturating_sub(asked);
            self.meter.add(bytes.len(), waited);
            self.context.ledger.read(bytes.len() as u64);
            // A source that ignores ranges gives everything from the start.
            let known = self.offset.saturating_sub(self.position);
            self.position += bytes.len() as u64;
            let Ok(known) = usize::try_from(known) else { continue };
            if known >= bytes.len() {
                continue;
            }
            let bytes = bytes.slice(known..);
            let before = self.offset;
            self.offset += bytes.len() as u64;
            if before / STATE_EVERY != self.offset / STATE_EVERY
                && let Some(rate) = self.meter.rate()
            {
                self.context.pool.record_rate(self.source.endpoint.name(), rate);
            }
            return Some(Ok(bytes));
        }
        None
    }

    fn ended_early(&self) -> Fault {
        at_source(Fault::new(
            ErrorKind::Network,
            format!(
                "{} ended the blob {} after {} of {} bytes",
                self.source.endpoint.name(),
                self.source.digest,
                self.position,
                self.source.size
            ),
        ))
    }
}

/// The fault of a blob that has more bytes than its manifest says, or a length that is said to be another.
pub(super) fn wrong_length(source: &SourceBlob, found: u64) -> Fault {
    at_source(Fault::new(
        ErrorKind::Corrupt,
        format!(
            "the blob {}/{}@{} has {found} bytes or more, but its manifest says {}: push the image again at the source",
            source.endpoint.name(),
            source.repository,
            source.digest,
            source.size
        ),
    ))
}

/// Measures what the source gives while we wait for it; time spent waiting for sinks does not count.
#[derive(Default)]
struct Meter {
    bytes: u64,
    waited: Duration,
}

/// Bytes after which a rate is believed: the first ones come out of buffers that were filled before we asked.
const MEASURED_FROM: u64 = 4 * 1024 * 1024;

impl Meter {
    fn add(&mut self, bytes: usize, waited: Duration) {
        self.bytes += bytes as u64;
        self.waited += waited;
    }

    fn rate(&self) -> Option<u64> {
        if self.bytes < MEASURED_FROM {
            return None;
        }
        let micros = u64::try_from(self.waited.as_micros()).unwrap_or(u64::MAX).max(1);
        Some(self.bytes.saturating_mul(1_000_000) / micros)
    }
}
