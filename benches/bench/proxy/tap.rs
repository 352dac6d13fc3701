//! A body on its way: counted, and slowed or changed where asked.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

/// The speed of one connection, shared by the bodies that follow each other on it.
#[derive(Clone)]
pub(super) struct Pacer {
    rate: u64,
    free: Arc<Mutex<Instant>>,
}

impl Pacer {
    /// Bytes a second.
    pub(super) fn new(rate: u64) -> Self {
        Self {
            rate,
            free: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// When so many bytes have passed.
    fn due(&self, length: usize) -> Instant {
        let time = Duration::from_secs_f64(length as f64 / self.rate as f64);
        match self.free.lock() {
            Ok(mut free) => {
                *free = (*free).max(Instant::now()) + time;
                *free
            }
            Err(_) => Instant::now() + time,
        }
    }
}

/// A body that passes through.
pub(super) struct Tap {
    inner: Incoming,
    counter: Arc<AtomicU64>,
    pacer: Option<Pacer>,
    corrupt: bool,
    waiting: Option<(Pin<Box<Sleep>>, Bytes)>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Tap {
    pub(super) fn new(inner: Incoming, counter: Arc<AtomicU64>) -> Self {
        Self {
            inner,
            counter,
            pacer: None,
            corrupt: false,
            waiting: None,
            permit: None,
        }
    }

    /// Changes the first byte.
    pub(super) fn corrupt(&mut self, corrupt: bool) {
        self.corrupt = corrupt;
    }

    pub(super) fn slow(&mut self, pacer: Option<Pacer>) {
        self.pacer = pacer;
    }

    /// Keeps a permit until the body has passed.
    pub(super) fn hold(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.permit = permit;
    }
}

impl Body for Tap {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some((sleep, _)) = self.waiting.as_mut() {
            ready!(sleep.as_mut().poll(context));
            let (_, data) = self.waiting.take().unwrap_or_else(|| unreachable!("it was there"));
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        self.counter.fetch_add(data.len() as u64, Ordering::Relaxed);
        if self.corrupt && !data.is_empty() {
            self.corrupt = false;
            let mut bytes = data.to_vec();
            bytes[0] ^= 0x20;
            data = Bytes::from(bytes);
        }
        match &self.pacer {
            None => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(pacer) => {
                let sleep = Box::pin(tokio::time::sleep_until(pacer.due(data.len())));
                self.waiting = Some((sleep, data));
                self.poll_frame(context)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked before the first byte only.
        self.inner.size_hint()
    }
}
