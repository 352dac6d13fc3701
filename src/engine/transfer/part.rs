//! A part of a blob on its way over a connection of its own.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;

use super::feed::append;
use super::pool::Memory;
use crate::engine::fault::Fault;
use crate::registry::{BlobReader, Error};

/// The bytes of a blob from one offset to another: what came, and what is to come.
pub(super) struct Part {
    /// Offset of the next byte to come.
    pub(super) at: u64,
    /// Offset behind the last one.
    pub(super) end: u64,
    /// True where the request said where to end.
    pub(super) bounded: bool,
    /// Where the request under way began.
    pub(super) began: u64,
    /// Bytes to throw away before those that are wanted: the source ignores ranges.
    pub(super) skip: u64,
    /// Came, and were not given yet.
    pub(super) waiting: VecDeque<Bytes>,
    /// The connection.
    pub(super) flow: Flow,
    /// Where there is memory for all of it, it comes before its turn.
    pub(super) memory: Option<Memory>,
    /// It failed once before its turn.
    pub(super) failed: bool,
}

/// A connection, and how it fares.
pub(super) enum Flow {
    /// None yet, or no longer.
    Idle,
    /// The request was sent.
    Opening(BoxFuture<'static, Result<Option<BlobReader>, Error>>),
    /// Bytes come.
    Reading(BlobReader),
    /// It ended with a fault that nobody was told yet.
    Broken(Fault),
    /// All came.
    Done,
}

/// What happened on a connection.
pub(super) enum Step {
    /// The answer came; `None`: nothing was asked.
    Opened(Result<Option<BlobReader>, Error>),
    /// Bytes came.
    Came(Bytes),
    /// It broke.
    Failed(Error),
    /// It ended.
    Ended,
}

impl Part {
    pub(super) fn new(at: u64, end: u64, memory: Option<Memory>) -> Self {
        Self {
            at,
            end,
            bounded: false,
            began: at,
            skip: 0,
            waiting: VecDeque::new(),
            flow: Flow::Idle,
            memory,
            failed: false,
        }
    }

    /// Takes note of bytes that came; true when they were the last ones.
    pub(super) fn came(&mut self, mut bytes: Bytes) -> bool {
        let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
        self.skip -= skipped as u64;
        let bytes = bytes.split_off(skipped);
        if !bytes.is_empty() {
            self.at += bytes.len() as u64;
            append(&mut self.waiting, bytes);
        }
        let done = self.at >= self.end;
        if done {
            self.flow = Flow::Done;
        }
        done
    }
}

impl Flow {
    /// True while a connection is in use.
    pub(super) fn is_active(&self) -> bool {
        matches!(self, Self::Opening(_) | Self::Reading(_))
    }

    /// What happened. Pending where nothing is under way.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        match self {
            Self::Opening(opening) => opening.as_mut().poll(context).map(Step::Opened),
            Self::Reading(reader) => Pin::new(reader).poll_next(context).map(|next| match next {
                Some(Ok(bytes)) => Step::Came(bytes),
                Some(Err(error)) => Step::Failed(error),
                None => Step::Ended,
            }),
            Self::Idle | Self::Broken(_) | Self::Done => Poll::Pending,
        }
    }
}
