//! The bounded queue between the one reader of a blob and one of its sinks.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::error::{SendError, TryRecvError, TrySendError};
use tokio::sync::{mpsc, watch};

use crate::engine::fault::Fault;
use crate::oci::HashState;

/// Boundaries at which the hash state goes along: any piece that ends on one can be taken up there.
pub(super) const STATE_EVERY: u64 = 1024 * 1024;

/// Longest chunk in bytes, and chunks that wait for a sink at most: together the window of 2 MiB by which a
/// sink may lag behind the reader.
const CHUNK: usize = 256 * 1024;
const WAITING: usize = 8;

/// Bytes that come in chunks shorter than this are put together where they wait: each chunk has a cost of its own, which would be
/// many times its length where a source, or somebody between, sends single bytes.
const SHORT: usize = 16 * 1024;

/// Puts bytes behind others that wait.
pub(super) fn append(waiting: &mut VecDeque<Bytes>, bytes: Bytes) {
    let Some(last) = waiting.back_mut().filter(|last| last.len() + bytes.len() <= SHORT) else {
        waiting.push_back(bytes);
        return;
    };
    // Copied once: what was put together is ours alone, with room for more.
    let mut joined = std::mem::take(last).try_into_mut().unwrap_or_else(|shared| {
        let mut joined = BytesMut::with_capacity(SHORT);
        joined.extend_from_slice(&shared);
        joined
    });
    joined.extend_from_slice(&bytes);
    *last = joined.freeze();
}

/// Some bytes of the blob, ready for a sink.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    /// Offset of the byte behind the last one.
    pub(super) end: u64,
    /// The hash state at `end`, on boundaries.
    pub(super) state: Option<HashState>,
}

/// What goes through the queue.
pub(super) type Fed = Result<Chunk, Fault>;

/// The reader's end.
#[derive(Debug)]
pub(super) struct Feeder {
    chunks: mpsc::Sender<Fed>,
    /// True while the sink has taken all there is and waits for more.
    idle: watch::Receiver<bool>,
}

impl Feeder {
    pub(super) fn try_send(&self, fed: Fed) -> Result<(), TrySendError<Fed>> {
        self.chunks.try_send(fed)
    }

    pub(super) async fn send(&self, fed: Fed) -> Result<(), SendError<Fed>> {
        self.chunks.send(fed).await
    }

    /// True where the sink has to take something before more can be sent.
    pub(super) fn is_full(&self) -> bool {
        self.chunks.capacity() == 0
    }

    /// Waits until the sink has taken all there is and waits for more, or is gone.
    pub(super) async fn idle(&self) {
        // An error: it is gone, and nobody's concern.
        let _ = self.idle.clone().wait_for(|idle| *idle).await;
    }
}

/// The sink's end.
#[derive(Debug)]
pub(super) struct Feed {
    chunks: mpsc::Receiver<Fed>,
    idle: watch::Sender<bool>,
    /// Bytes before this are not for the sink.
    wanted_from: u64,
}

/// A queue for a sink that wants the bytes from `wanted_from` on.
pub(super) fn queue(wanted_from: u64) -> (Feeder, Feed) {
    let (sender, chunks) = mpsc::channel(WAITING);
    let (idle, idles) = watch::channel(false);
    let feeder = Feeder {
        chunks: sender,
        idle: idles,
    };
    let feed = Feed {
        chunks,
        idle,
        wanted_from,
    };
    (feeder, feed)
}

impl Feed {
    /// The next bytes, or the reader's fault. `None` where the reader dropped this sink.
    pub(super) async fn next(&mut self) -> Option<Result<Chunk, Fault>> {
        loop {
            let mut chunk = match self.receive().await? {
                Ok(chunk) => chunk,
                Err(fault) => return Some(Err(fault)),
            };
            if chunk.end <= self.wanted_from {
                continue;
            }
            let start = chunk.end - chunk.bytes.len() as u64;
            if start < self.wanted_from {
                let skip = usize::try_from(self.wanted_from - start).unwrap_or(usize::MAX);
                chunk.bytes = chunk.bytes.slice(skip..);
            }
            return Some(Ok(chunk));
        }
    }
}

impl Feed {
    async fn receive(&mut self) -> Option<Fed> {
        match self.chunks.try_recv() {
            Ok(fed) => return Some(fed),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        self.idle.send_replace(true);
        let fed = self.chunks.recv().await;
        self.idle.send_replace(false);
        fed
    }
}

/// Cuts bytes that begin at `offset` so that no part crosses a boundary or is longer than a chunk.
pub(super) fn cut(mut bytes: Bytes, mut offset: u64) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let to_boundary = usize::try_from(STATE_EVERY - offset % STATE_EVERY).unwrap_or(CHUNK);
        let part = bytes.split_to(bytes.len().min(CHUNK).min(to_boundary));
        offset += part.len() as u64;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_chunks_that_wait_are_put_together_and_long_ones_are_not_copied() {
        let all: Vec<u8> = (0..SHORT * 4).map(|n| (n * 7 % 251) as u8).collect();
        // As a client gives them: parts of one buffer.
        let whole = Bytes::from(all.clone());
        for length in [1, 100, SHORT / 2 + 1, SHORT] {
            let mut waiting = VecDeque::new();
            for at in (0..all.len()).step_by(length) {
                append(&mut waiting, whole.slice(at..all.len().min(at + length)));
            }
            assert_eq!(waiting.iter().flatten().copied().collect::<Vec<_>>(), all);
            let fewest = all.len() / SHORT;
            assert!(waiting.len() <= 2 * fewest, "{} of {length}", waiting.len());
            let copied = |bytes: &&Bytes| !whole.as_ptr_range().contains(&bytes.as_ptr());
            match length {
                SHORT => assert_eq!(waiting.iter().filter(copied).count(), 0),
                1 | 100 => assert!(waiting.iter().all(|bytes| copied(&bytes))),
                _ => {}
            }
        }
    }

    #[test]
    fn parts_end_on_boundaries() {
        let bytes = Bytes::from(vec![7; 3 * 1024 * 1024 + 5]);
        for start in [0, 1, STATE_EVERY - 1, STATE_EVERY, 12_345_678] {
            let mut offset = start;
            let mut boundaries = 0;
            for part in cut(bytes.clone(), start) {
                assert!(!part.is_empty() && part.len() <= CHUNK);
                let end = offset + part.len() as u64;
                assert!(
                    offset / STATE_EVERY == (end - 1) / STATE_EVERY,
                    "{offset}..{end} crosses a boundary"
                );
                boundaries += u64::from(end.is_multiple_of(STATE_EVERY));
                offset = end;
            }
            assert_eq!(offset - start, bytes.len() as u64);
            assert_eq!(boundaries, offset / STATE_EVERY - start / STATE_EVERY);
        }
    }

    #[tokio::test]
    async fn a_sink_gets_only_what_it_lacks() {
        let (feeder, mut feed) = queue(5);
        for (text, end) in [("abcd", 4), ("efgh", 8), ("ij", 10)] {
            let chunk = Chunk {
                bytes: Bytes::from_static(text.as_bytes()),
                end,
                state: None,
            };
            feeder.send(Ok(chunk)).await.expect("the feed listens");
        }
        drop(feeder);
        let mut got = Vec::new();
        while let Some(chunk) = feed.next().await {
            got.extend_from_slice(&chunk.expect("no fault").bytes);
        }
        assert_eq!(got, b"fghij");
    }
}
