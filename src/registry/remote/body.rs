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
use crate::registry::blob::BodyStream;

/// How long we wait for less than [`STALL_BYTES`] of a body: to come, or to be taken where we have them to give. TCP gives a
/// lost link some minutes; a registry that moves less than 1 KiB a second is not alive.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(60);
/// The least that must move in [`STALL_LIMIT`] of waiting: a byte now and then must not hold a connection forever.
pub(super) const STALL_BYTES: u64 = 60 * 1024;
/// The least time between two looks at an upload that waits for us.
const LOOK_EVERY: Duration = Duration::from_secs(1);
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

/// What has moved against the time that was waited for it, since the last [`STALL_BYTES`].
#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    waited: Duration,
    bytes: u64,
}

impl Floor {
    /// So many bytes moved after so long a wait.
    fn moved(&mut self, bytes: u64, waited: Duration) {
        self.waited += waited;
        self.bytes += bytes;
        if self.bytes >= STALL_BYTES {
            *self = Self::default();
        }
    }

    /// How much longer may be waited; zero where too little moved.
    fn left(self) -> Duration {
        STALL_LIMIT.saturating_sub(self.waited)
    }
}

/// An answer's body with the stall limit. Only the time spent waiting for the network counts.
#[derive(Debug)]
pub(super) struct Incoming {
    response: reqwest::Response,
    floor: Floor,
}

impl Incoming {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            floor: Floor::default(),
        }
    }

    /// The next bytes.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BodyFault> {
        let start = Instant::now();
        let chunk = tokio::time::timeout(self.floor.left(), self.response.chunk())
            .await
            .map_err(|_| BodyFault::Stalled)?
            .map_err(|error| BodyFault::Broken(error.without_url()))?;
        let bytes = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        self.floor.moved(bytes, start.elapsed());
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
    /// The connection has had bytes, or the body, since then and wants no more yet.
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
pub(super) struct Watch(Arc<Mutex<(Standing, Floor)>>);

impl Watch {
    fn new() -> Self {
        let standing = Standing::Taken(Instant::now());
        Self(Arc::new(Mutex::new((standing, Floor::default()))))
    }

    fn set(&self, to: Standing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = to;
    }

    /// The connection asks for bytes: until now it was busy with those that it had.
    fn asked(&self) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Standing::Taken(at) = watched.0 {
            watched.1.moved(0, at.elapsed());
            watched.0 = Standing::WaitingForUs;
        }
    }

    /// It was given these, and `left` are left to give.
    fn gave(&self, bytes: u64, left: u64) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.1.moved(bytes, Duration::ZERO);
        let now = Instant::now();
        watched.0 = if left == 0 {
            Standing::Sent(now)
        } else {
            Standing::Taken(now)
        };
    }

    fn look(&self) -> (Standing, Floor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when the bytes to send ended in an error, or in the wrong number.
    pub(super) fn source_failed(&self) -> bool {
        matches!(self.look().0, Standing::Failed)
    }

    /// Returns when the registry takes too little, or does not answer, for too long. The time in which we had nothing to give
    /// does not count.
    pub(super) async fn stalled(&self) {
        loop {
            let now = Instant::now();
            let (standing, floor) = self.look();
            let until = match standing {
                Standing::Taken(at) => at + floor.left(),
                Standing::Sent(at) => at + COMMIT_LIMIT,
                Standing::WaitingForUs if floor.left().is_zero() => now,
                Standing::WaitingForUs => now + floor.left().max(LOOK_EVERY),
                Standing::Failed => now + STALL_LIMIT,
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
        let watch = Watch::new();
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
        this.watch.asked();
        let Poll::Ready(item) = stream.poll_next_unpin(context) else {
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
                this.watch.gave(bytes.len() as u64, this.left);
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
    use http_body_util::BodyExt as _;

    use super::super::throttle::{Direction, Limiter};
    use super::*;
    use crate::registry::Limits;

    /// A flow of 100,000 bytes a second.
    fn flow(direction: Direction) -> Flow {
        let limits = Limits {
            bandwidth: Some(100_000),
            ..Limits::default()
        };
        Limiter::default()
            .throttle("there", "there", limits)
            .flow(direction, None)
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

    /// Takes `chunks` of `size` bytes each from a body that has them `ready_after` each time, with `pause` behind each. True
    /// where the watch found it alive all the while; else how long that took.
    async fn taken(chunks: u64, size: usize, ready_after: Duration, pause: Duration) -> Result<(), Duration> {
        let stream = futures_util::stream::unfold((), move |()| async move {
            if !ready_after.is_zero() {
                tokio::time::sleep(ready_after).await;
            }
            Some((Ok(Bytes::from(vec![0; size])), ()))
        });
        let (mut body, watch) = Outgoing::new(stream.boxed(), u64::MAX);
        let start = Instant::now();
        let taking = async {
            for _ in 0..chunks {
                let frame = body.frame().await;
                frame.expect("not the end").expect("bytes");
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = taking => Ok(()),
            () = watch.stalled() => Err(start.elapsed()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_of_which_a_little_is_taken_now_and_then_is_given_up() {
        let seconds = Duration::from_secs;
        for pause in [1, 30, 59] {
            let ended = taken(10_000, 512, Duration::ZERO, seconds(pause)).await;
            assert_eq!(ended, Err(STALL_LIMIT), "a chunk every {pause} s");
        }
        let ended = taken(100, 512, Duration::ZERO, Duration::MAX / 2).await;
        assert_eq!(ended, Err(STALL_LIMIT), "nothing more");
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_is_slow_but_alive_goes_on() {
        let size = usize::try_from(STALL_BYTES).expect("a size");
        let pause = STALL_LIMIT - Duration::from_secs(1);
        assert_eq!(taken(1_000, size, Duration::ZERO, pause).await, Ok(()));
        assert_eq!(taken(10_000, size / 40, Duration::ZERO, pause / 40).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_we_had_nothing_to_give_does_not_count_against_the_registry() {
        let seconds = Duration::from_secs;
        assert_eq!(taken(1_000, 1, seconds(600), Duration::ZERO).await, Ok(()));
        let ended = taken(1_000, 1, seconds(50), seconds(10)).await;
        let ended = ended.expect_err("the registry had a minute of six");
        assert!((seconds(350)..=seconds(420)).contains(&ended), "{ended:?}");
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
