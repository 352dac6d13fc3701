//! Moves one body, piece by piece, through the faults that act on it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;
use http_body_util::BodyExt as _;

use super::{Act, Failed, Gate, Shared, flipped};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

enum Stop {
    Hold(Gate),
    Cut,
}

pub(super) struct Pump {
    body: Body,
    rest: Bytes,
    at: u64,
    rate: Option<u64>,
    stops: Vec<(u64, Stop)>,
    flips: Vec<u64>,
    direction: Direction,
    shared: Arc<Shared>,
    index: usize,
    ended: bool,
}

impl Pump {
    pub(super) fn new(body: Body, direction: Direction, acts: &[Act], shared: Arc<Shared>, index: usize) -> Self {
        let request = direction == Direction::Request;
        let mut pump = Self {
            body,
            rest: Bytes::new(),
            at: 0,
            rate: None,
            stops: Vec::new(),
            flips: Vec::new(),
            direction,
            shared,
            index,
            ended: false,
        };
        for act in acts {
            match act {
                Act::RequestRate(rate) if request => pump.rate = Some(*rate),
                Act::ResponseRate(rate) if !request => pump.rate = Some(*rate),
                Act::HoldRequest(at, gate) if request => pump.stops.push((*at, Stop::Hold(gate.clone()))),
                Act::HoldResponse(at, gate) if !request => pump.stops.push((*at, Stop::Hold(gate.clone()))),
                Act::CutRequest(at) if request => pump.stops.push((*at, Stop::Cut)),
                Act::CutResponse(at) if !request => pump.stops.push((*at, Stop::Cut)),
                Act::FlipRequest(at) if request => pump.flips.push(*at),
                Act::FlipResponse(at) if !request => pump.flips.push(*at),
                _ => {}
            }
        }
        pump.stops.sort_by_key(|(at, _)| *at);
        pump
    }

    pub(super) fn stream(self) -> impl Stream<Item = Result<Bytes, Failed>> + Send + 'static {
        futures_util::stream::unfold(self, |mut pump| async move {
            let piece = pump.next().await?;
            Some((piece, pump))
        })
    }

    async fn next(&mut self) -> Option<Result<Bytes, Failed>> {
        if self.ended {
            return None;
        }
        while let Some((at, _)) = self.stops.first()
            && *at == self.at
        {
            match self.stops.remove(0).1 {
                Stop::Hold(gate) => self.hold(&gate).await,
                Stop::Cut => {
                    // Each turn lets the connection write out what it has buffered.
                    for _ in 0..50 {
                        tokio::task::yield_now().await;
                    }
                    return Some(Err(self.broken("cut by a fault")));
                }
            }
        }
        while self.rest.is_empty() {
            match self.body.frame().await {
                None => {
                    self.finish();
                    return None;
                }
                Some(Err(error)) => return Some(Err(self.broken(error))),
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
            }
        }
        let mut length = self.rest.len() as u64;
        if let Some((at, _)) = self.stops.first() {
            length = length.min(at - self.at);
        }
        if let Some(rate) = self.rate {
            length = length.min((rate / 20).max(1));
            tokio::time::sleep(Duration::from_secs_f64(length as f64 / rate as f64)).await;
        }
        let mut piece = self.rest.split_to(length as usize);
        for flip in &self.flips {
            if (self.at..self.at + length).contains(flip) {
                piece = flipped(&piece, (flip - self.at) as usize);
            }
        }
        self.at += length;
        self.shared.note(self.index, |exchange| match self.direction {
            Direction::Request => exchange.request_bytes += length,
            Direction::Response => exchange.response_bytes += length,
        });
        Some(Ok(piece))
    }

    async fn hold(&mut self, gate: &Gate) {
        self.shared.note(self.index, |exchange| exchange.held = true);
        gate.pass().await;
        self.shared.note(self.index, |exchange| exchange.held = false);
    }

    fn finish(&mut self) {
        self.ended = true;
        if self.direction == Direction::Response {
            self.shared.note(self.index, |exchange| exchange.done = true);
        }
    }

    fn broken(&mut self, why: impl Into<Failed>) -> Failed {
        self.ended = true;
        self.shared.note(self.index, |exchange| exchange.broken = true);
        why.into()
    }
}

impl Drop for Pump {
    /// A pump that is dropped before its body's end: one of the sides went away. A body of known length is
    /// not always asked for its end.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let whole = self.rest.is_empty() && http_body::Body::is_end_stream(&self.body);
        self.shared.note(self.index, |exchange| match (whole, self.direction) {
            (true, Direction::Response) => exchange.done = true,
            (true, Direction::Request) => {}
            (false, _) => {
                exchange.broken = true;
                exchange.held = false;
            }
        });
    }
}
