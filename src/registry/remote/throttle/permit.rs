//! The right to have a request under way. The part of it that all registries share is held only while something is sent:
//! who waits for one registry keeps none from asking another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::class::Class;
use super::gate::Place;
use super::places::{Ceiling, Windows};
use super::turnstile::order;
use super::{Direction, PATIENCE, Throttle};

/// The right to have one request under way. Dropping it lets the next one in.
#[derive(Debug)]
pub(in crate::registry::remote) struct Permit {
    throttle: Arc<Throttle>,
    class: Class,
    _place: Place<Windows>,
    of_the_whole: Mutex<Option<Place<Ceiling>>>,
    /// See [`Permit::keep`].
    kept: AtomicBool,
}

impl Permit {
    /// Has a place at the registry, and none of the process yet.
    pub(super) fn new(throttle: &Arc<Throttle>, class: Class, place: Place<Windows>) -> Self {
        Self {
            throttle: Arc::clone(throttle),
            class,
            _place: place,
            of_the_whole: Mutex::default(),
            kept: AtomicBool::new(false),
        }
    }

    /// Has both places, and keeps them.
    pub(super) fn kept(throttle: &Arc<Throttle>, class: Class, place: Place<Windows>, whole: Place<Ceiling>) -> Self {
        Self {
            of_the_whole: Mutex::new(Some(whole)),
            kept: AtomicBool::new(true),
            ..Self::new(throttle, class, place)
        }
    }

    fn of_the_whole(&self) -> MutexGuard<'_, Option<Place<Ceiling>>> {
        self.of_the_whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the process's place until the end, whatever is waited for. For a blob that is being written while it is read:
    /// the write has a place by then, and two that wait for their reads could wait for each other's writes.
    pub(in crate::registry::remote) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Gives the process's place to others, as nothing is sent for now.
    pub(in crate::registry::remote) fn step_back(&self) {
        if !self.kept.load(Ordering::Relaxed) {
            let place = self.of_the_whole().take();
            // Whoever is let in by this does not find our lock held.
            drop(place);
        }
    }

    /// Waits for a place of the process, unless there is one. For a request to a host that is not the registry's.
    pub(in crate::registry::remote) async fn step_in(&self, priority: i32) {
        self.step_in_as(priority.into()).await;
    }

    async fn step_in_as(&self, priority: i64) {
        if self.of_the_whole().is_some() {
            return;
        }
        let place = self.throttle.whole.ceiling.enter(self.class, priority).await;
        *self.of_the_whole() = Some(place);
    }

    /// Waits for a place of the process when the registry has no pause, or one that is too long to be waited for: that is for
    /// the request to say.
    pub(super) async fn come_in(&self, priority: i32) {
        loop {
            let waited = self.throttle.pause.over(PATIENCE).await;
            self.step_in(priority).await;
            // Set while it waited for its place.
            if waited.is_err() || self.throttle.paused_for().is_none() {
                return;
            }
            self.step_back();
        }
    }

    /// Waits until a request may be sent: no pause is set, it is its turn, and it has a place of the process, which it does not
    /// hold while it waits for the registry. `again`: it was sent before and refused, so it goes first.
    ///
    /// # Errors
    /// The time that is left of a pause, where it is too long to be waited for.
    pub(in crate::registry::remote) async fn turn(&self, priority: i32, again: bool) -> Result<(), Duration> {
        let Throttle {
            rates,
            pause,
            whole,
            lines,
            ..
        } = &*self.throttle;
        if self.kept.load(Ordering::Relaxed) {
            return self.throttle.turn(priority, again).await;
        }
        let (priority, pace) = (order(priority, again), &rates.requests);
        let mut line = None;
        loop {
            if pause.left().is_some() {
                self.step_back();
                pause.over(PATIENCE).await?;
            }
            if line.is_none() && !pace.is_free() {
                self.step_back();
                line = Some(lines.enter(self.class, priority).await);
                continue;
            }
            if !pace.is_open() {
                self.step_back();
                pace.opened().await;
            }
            self.step_in_as(priority).await;
            // Both may have changed while it waited for its place.
            if pause.left().is_some() || !pace.try_pass(1) {
                continue;
            }
            // All registries wait for this alike.
            whole.rates.requests.pass_alone(1, priority).await;
            if pause.left().is_none() {
                return Ok(());
            }
        }
    }

    /// See [`Throttle::charge`]. The bytes of a blob wait for their turn instead ([`super::Flow`]).
    pub(in crate::registry::remote) fn charge(&self, direction: Direction, bytes: usize) {
        if !self.class.is_blob() {
            self.throttle.charge(direction, bytes);
        }
    }
}
