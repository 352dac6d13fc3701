//! Bodies on their way: limits of time and length.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::throttle::Flow;
use crate::registry::endpoint::BodyStream;

/// How long a body may bring less than [`STALL_BYTES`] while we wait for it, and how long an upload may take none of the
/// bytes that we have for it. TCP gives a lost link some minutes; a registry that gives less than 1 KiB a second is not alive.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(60);
/// The least that a body must bring in [`STALL_LIMIT`] of waiting: a byte now and then must not hold a connection forever.
const STALL_BYTES: u64 = 60 * 1024;
/// For the answer after the last byte of an upload: registries on object stores copy and hash the whole blob then,
/// at some 100 MiB a second, and blobs of tens of GiB exist.
const COMMIT_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyFault {
    /// Too slow.
    #[error("no more than {STALL_BYTES} bytes came in {} s", STALL_LIMIT.as_secs())]
    Stalled,
    /// Over the limit of whoever reads it.
    #[error("the answer has more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The connection broke.
    #[error("the connection broke in the middle of the answer")]
    Broken(#[source] reqwest::Error),
}

/// An answer's body with the stall limit. Only the time spent waiting for the network counts.
#[derive(Debug)]
pub(super) struct Incoming {
    response: reqwest::Response,
    waited: Duration,
    bytes: u64,
}

impl Incoming {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// The next bytes.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BodyFault> {
        let start = Instant::now();
        let left = STALL_LIMIT.saturating_sub(self.waited);
        let chunk = tokio::time::timeout(left, self.response.chunk())
            .await
            .map_err(|_| BodyFault::Stalled)?
            .map_err(|error| BodyFault::Broken(error.without_url()))?;
        self.waited += start.elapsed();
        self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.bytes >= STALL_BYTES {
            self.bytes = 0;
            self.waited = Duration::ZERO;
        }
        Ok(chunk)
    }

    /// The whole body, if it is no longer than `limit` bytes.
    pub(super) async fn collect(mut self, limit: usize) -> Result<Bytes, BodyFault> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.next().await? {
            if whole.len() + chunk.len() > limit {
                return Err(BodyFault::TooLarge { limit });
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    }
}

/// Where an upload's body stands, for the watch over it.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// The last bytes were taken (or the body was made) then.
    Taken(Instant),
    /// The connection wants bytes, we have none: nobody's fault at the registry.
    WaitingForUs,
    /// The last byte was taken then.
    Sent(Instant),
    /// Our own bytes ended in an error.
    Failed,
}

/// Looks at an upload's body from outside.
#[derive(Clone, Debug)]
pub(super) struct Watch(Arc<Mutex<Standing>>);

impl Watch {
    fn set(&self, standing: Standing) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    fn standing(&self) -> Standing {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when the bytes to send ended in an error, or in the wrong number.
    pub(super) fn source_failed(&self) -> bool {
        matches!(self.standing(), Standing::Failed)
    }

    /// Returns when the registry takes nothing, or does not answer, for too long.
    pub(super) async fn stalled(&self) {
        loop {
            let now = Instant::now();
            let until = match self.standing() {
                Standing::Taken(at) => at + STALL_LIMIT,
                Standing::Sent(at) => at + COMMIT_LIMIT,
                Standing::WaitingForUs | Standing::Failed => now + STALL_LIMIT,
            };
            if until <= now {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// A body of exactly `left` bytes, so that it is sent with `Content-Length`: several registries refuse chunked uploads.
pub(super) struct Outgoing {
    // Never locked: `reqwest` wants a body that is `Sync`, which a stream behind a mutex is.
    stream: Mutex<BodyStream>,
    left: u64,
    watch: Watch,
}

impl Outgoing {
    pub(super) fn new(stream: BodyStream, length: u64) -> (Self, Watch) {
        let watch = Watch(Arc::new(Mutex::new(Standing::Taken(Instant::now()))));
        let body = Self {
            stream: Mutex::new(stream),
            left: length,
            watch: watch.clone(),
        };
        (body, watch)
    }
}

/// The same bytes in parts that keep to the bandwidth.
pub(super) fn paced(body: BodyStream, flow: Flow) -> BodyStream {
    struct Paced {
        body: BodyStream,
        rest: Bytes,
        flow: Flow,
    }
    let paced = Paced {
        body,
        rest: Bytes::new(),
        flow,
    };
    futures_util::stream::unfold(paced, |mut paced| async move {
        if paced.rest.is_empty() {
            match paced.body.next().await? {
                Ok(bytes) => paced.rest = bytes,
                Err(error) => return Some((Err(error), paced)),
            }
        }
        let length = paced.rest.len();
        let part = paced
            .rest
            .split_to(paced.flow.part().map_or(length, |part| part.min(length)));
        paced.flow.pass(part.len()).await;
        Some((Ok(part), paced))
    })
    .boxed()
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let stream = this.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let Poll::Ready(item) = stream.poll_next_unpin(context) else {
            this.watch.set(Standing::WaitingForUs);
            return Poll::Pending;
        };
        let fault = |kind, text: &'static str| Err(std::io::Error::new(kind, text));
        let item = match item {
            None => fault(std::io::ErrorKind::UnexpectedEof, "the bytes to send ended early"),
            Some(Ok(bytes)) if bytes.len() as u64 > this.left => fault(
                std::io::ErrorKind::InvalidData,
                "there are more bytes to send than announced",
            ),
            Some(item) => item,
        };
        match &item {
            Ok(bytes) => {
                this.left -= bytes.len() as u64;
                let now = Instant::now();
                this.watch.set(if this.left == 0 {
                    Standing::Sent(now)
                } else {
                    Standing::Taken(now)
                });
            }
            Err(_) => this.watch.set(Standing::Failed),
        }
        Poll::Ready(Some(item.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::super::throttle::{Direction, Limiter};
    use super::*;
    use crate::registry::Limits;

    /// A flow of 100,000 bytes a second.
    fn flow(direction: Direction) -> Flow {
        let limits = Limits {
            bandwidth: Some(100_000),
            ..Limits::default()
        };
        Limiter::default().throttle("there", "there", limits).flow(direction)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_keeps_to_the_bandwidth_part_by_part() {
        let chunks = (0..4_u8).map(|number| Ok(Bytes::from(vec![number; 250_000])));
        let mut body = paced(futures_util::stream::iter(chunks).boxed(), flow(Direction::Up));
        let start = Instant::now();
        let mut sent = Vec::new();
        while let Some(part) = body.next().await {
            sent.extend_from_slice(&part.expect("bytes"));
            let should = start.elapsed().as_secs_f64() * 100_000.0;
            assert!(
                (sent.len() as f64 - should).abs() <= 0.02 * 1_000_000.0,
                "{} of {should}",
                sent.len()
            );
        }
        let wanted: Vec<u8> = (0..4_u8).flat_map(|number| vec![number; 250_000]).collect();
        assert!(sent == wanted);
        let time = start.elapsed().as_secs_f64();
        assert!((9.5..=10.0).contains(&time), "{time}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_passes_and_an_empty_chunk_does_no_harm() {
        let chunks = vec![
            Ok(Bytes::new()),
            Ok(Bytes::from_static(b"abc")),
            Err(std::io::Error::other("broken")),
        ];
        let mut body = paced(futures_util::stream::iter(chunks).boxed(), flow(Direction::Up));
        let mut sent = Vec::new();
        let fault = loop {
            match body.next().await.expect("not the end") {
                Ok(part) => sent.extend_from_slice(&part),
                Err(fault) => break fault,
            }
        };
        assert_eq!((sent.as_slice(), fault.to_string().as_str()), (&b"abc"[..], "broken"));
        assert!(body.next().await.is_none());
    }
}
