//! Several futures at once, but not all.

use std::future::Future;

use futures_util::stream::{self, BufferUnordered, Buffered, Iter, StreamExt};

/// The outputs as they come, with at most `limit` futures under way.
///
/// The futures are made before the first is polled: a stream that made them one by one would be part of the caller's
/// future, and the compiler could not tell that it may move between threads (rust-lang/rust#102211).
pub(super) fn unordered<F: Future>(
    futures: impl IntoIterator<Item = F>,
    limit: usize,
) -> BufferUnordered<Iter<std::vec::IntoIter<F>>> {
    let futures: Vec<F> = futures.into_iter().collect();
    stream::iter(futures).buffer_unordered(limit)
}

/// Futures that are made when they are needed, for lists so long that all of them at once would take much memory. The items
/// are owned, which is what lets the compiler tell that the whole may move between threads.
pub(super) fn one_by_one<T, F: Future>(
    items: impl IntoIterator<Item = T>,
    start: impl FnMut(T) -> F,
) -> impl stream::Stream<Item = F> {
    stream::iter(items).map(start)
}

/// As [`unordered`], with the outputs in the order of the futures.
pub(super) fn ordered<F: Future>(
    futures: impl IntoIterator<Item = F>,
    limit: usize,
) -> Buffered<Iter<std::vec::IntoIter<F>>> {
    let futures: Vec<F> = futures.into_iter().collect();
    stream::iter(futures).buffered(limit)
}
