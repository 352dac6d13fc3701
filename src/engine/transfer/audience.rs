//! The sinks of one read: a slow one is waited for, but not for ever.

use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::feed::{Chunk, Feeder};
use super::spool::Reading;
use crate::engine::fault::Fault;
use crate::plan::{HELD_UP, is_left_behind};

/// How long no sink may take a byte until the source's connection is closed. Long enough for the pauses of a healthy
/// registry, well within the time after which servers end connections that nobody reads.
const STANDSTILL: Duration = Duration::from_secs(5);

/// How often it is looked whether a sink that has no room is left behind, once it has held up the others long enough.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The sinks of one read. Who holds up the others too long is left behind, to be served by a read of its own.
pub(super) struct Audience {
    listeners: Vec<Option<Listener>>,
    since: Instant,
    left_behind: Vec<LeftBehind>,
}

/// A sink that the read goes on without. It has all bytes up to `lacks`, or up to where the read stands.
pub(super) struct LeftBehind {
    /// Its place among those that the read began with.
    pub(super) index: usize,
    pub(super) feeder: Feeder,
    /// What it had no room for.
    pub(super) lacks: Option<Chunk>,
}

/// What came of waiting for a sink.
enum Room {
    Made,
    Gone,
    /// It is left behind; with the chunk where it did not get that.
    TooLate(Option<Chunk>),
}

struct Listener {
    feeder: Feeder,
    /// Time in which another one had taken everything, and this one had no room for more.
    held_up: Duration,
}

impl Audience {
    pub(super) fn new(feeders: Vec<Feeder>) -> Self {
        let listener = |feeder| {
            Some(Listener {
                feeder,
                held_up: Duration::ZERO,
            })
        };
        Self {
            listeners: feeders.into_iter().map(listener).collect(),
            since: Instant::now(),
            left_behind: Vec::new(),
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.listeners.iter().all(Option::is_none)
    }

    /// Tells all that still listen why nothing more comes.
    pub(super) fn break_off(&self, fault: &Fault) {
        for listener in self.listeners.iter().flatten() {
            // A sink that is gone, or too slow to take even this, ends by its dropped queue.
            let _ = listener.feeder.try_send(Err(fault.clone()));
        }
    }

    /// Gives a chunk to every sink that still listens; false when none does.
    pub(super) async fn hand_over(&mut self, chunk: Chunk, origin: &mut Reading<'_>) -> bool {
        for index in 0..self.listeners.len() {
            let Some(listener) = &self.listeners[index] else {
                continue;
            };
            let room = match listener.feeder.try_send(Ok(chunk.clone())) {
                Ok(()) => Room::Made,
                Err(TrySendError::Closed(_)) => Room::Gone,
                Err(TrySendError::Full(_)) => self.wait_for_room(index, &chunk, origin).await,
            };
            match room {
                Room::Made => {}
                Room::Gone => self.listeners[index] = None,
                Room::TooLate(lacks) => {
                    let listener = self.listeners[index].take();
                    self.left_behind
                        .extend(listener.map(|Listener { feeder, .. }| LeftBehind { index, feeder, lacks }));
                }
            }
        }
        !self.is_gone()
    }

    /// Who was left behind since this was asked.
    pub(super) fn take_left_behind(&mut self) -> Vec<LeftBehind> {
        std::mem::take(&mut self.left_behind)
    }

    /// Gives a chunk to a sink that has no room for it now.
    async fn wait_for_room(&mut self, index: usize, chunk: &Chunk, origin: &mut Reading<'_>) -> Room {
        let Some(listener) = &self.listeners[index] else {
            return Room::Gone;
        };
        let others: Vec<&Feeder> = self
            .listeners
            .iter()
            .enumerate()
            .filter_map(|(other, listener)| {
                listener
                    .as_ref()
                    .filter(|_| other != index)
                    .map(|listener| &listener.feeder)
            })
            .collect();
        let alone = others.is_empty();
        let (began, held_up) = (self.since, listener.held_up);
        let mut idle_since = None;
        let sent = {
            let mut sent = pin!(listener.feeder.send(Ok(chunk.clone())));
            let mut others_idle: FuturesUnordered<_> = others.into_iter().map(Feeder::idle).collect();
            let mut standstill = pin!(tokio::time::sleep(STANDSTILL));
            let mut stood = false;
            loop {
                let so_far = held_up + idle_since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
                let verdict = tokio::time::sleep(HELD_UP.saturating_sub(so_far).max(LOOK_AGAIN));
                tokio::select! {
                    sent = &mut sent => break Some(sent.is_ok()),
                    never = origin.receive() => match never {},
                    // One is enough: others may be as slow.
                    Some(()) = others_idle.next(), if idle_since.is_none() => idle_since = Some(Instant::now()),
                    () = &mut standstill, if !stood => {
                        stood = true;
                        origin.stand_still();
                    }
                    () = verdict, if idle_since.is_some() => {
                        let now = idle_since.map_or(Duration::ZERO, |since| since.elapsed());
                        if is_left_behind(held_up + now, began.elapsed()) {
                            break None;
                        }
                    }
                }
            }
        };
        let now = idle_since.map_or(Duration::ZERO, |since| since.elapsed());
        // Others that have no room either hold up the rest as long.
        for (other, listener) in self.listeners.iter_mut().enumerate() {
            if let Some(listener) = listener
                && (other == index || listener.feeder.is_full())
            {
                listener.held_up += now;
            }
        }
        match sent {
            Some(false) => Room::Gone,
            None => Room::TooLate(Some(chunk.clone())),
            Some(true) if !alone && is_left_behind(held_up + now, began.elapsed()) => Room::TooLate(None),
            Some(true) => Room::Made,
        }
    }
}
