//! Waiting for a place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::class::Class;
use super::places::Rules;
use super::waiting::Waiting;

/// Lets in as many as its rules have room for; the others wait in [`Waiting`].
#[derive(Debug)]
pub(super) struct Gate<R: Rules>(Mutex<Inner<R>>);

#[derive(Debug)]
struct Inner<R> {
    rules: R,
    waiting: Waiting<oneshot::Sender<()>>,
}

/// The right to be under way. Dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Place<R: Rules> {
    gate: Arc<Gate<R>>,
    class: Class,
}

/// Somebody who waits and may stop waiting at any time.
struct Ticket<R: Rules> {
    gate: Arc<Gate<R>>,
    class: Class,
    called: oneshot::Receiver<()>,
}

impl<R: Rules + Default> Default for Gate<R> {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            rules: R::default(),
            waiting: Waiting::default(),
        }))
    }
}

impl<R: Rules> Gate<R> {
    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the rules, or asks them; whoever has room by now is let in.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut R) -> T) -> T {
        let mut inner = self.lock();
        let answer = change(&mut inner.rules);
        inner.admit();
        answer
    }

    /// Waits for a place. Who comes does not overtake who waits.
    pub(super) async fn enter(self: &Arc<Self>, class: Class, priority: i64) -> Place<R> {
        if let Some(place) = self.try_enter(class) {
            return place;
        }
        let called = {
            let mut inner = self.lock();
            let (call, called) = oneshot::channel();
            inner.waiting.push(class, priority, call);
            // Room may have come between the two looks.
            inner.admit();
            called
        };
        let mut ticket = Ticket {
            gate: Arc::clone(self),
            class,
            called,
        };
        // The sender is dropped only when it calls: the queue lives as long as the gate that the ticket holds.
        let _ = (&mut ticket.called).await;
        Place {
            gate: Arc::clone(self),
            class,
        }
    }

    /// A place, where one is free and nobody of this class waits for it.
    pub(super) fn try_enter(self: &Arc<Self>, class: Class) -> Option<Place<R>> {
        let mut inner = self.lock();
        let free = !inner.waiting.any(class) && inner.rules.room(class);
        free.then(|| {
            inner.rules.enter(class);
            Place {
                gate: Arc::clone(self),
                class,
            }
        })
    }
}

impl<R: Rules> Inner<R> {
    fn admit(&mut self) {
        while let Some((class, call)) = self.waiting.take(|class| self.rules.room(class)) {
            // Some have gone away meanwhile.
            if call.send(()).is_ok() {
                self.rules.enter(class);
            }
        }
    }
}

impl<R: Rules> Drop for Place<R> {
    fn drop(&mut self) {
        self.gate.with(|rules| rules.leave(self.class));
    }
}

impl<R: Rules> Drop for Ticket<R> {
    fn drop(&mut self) {
        self.called.close();
        // Called, and gone before it heard.
        if self.called.try_recv().is_ok() {
            self.gate.with(|rules| rules.leave(self.class));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::remote::throttle::places::{Ceiling, OneByOne};

    async fn soon<F: Future>(future: F) -> Option<F::Output> {
        tokio::time::timeout(std::time::Duration::from_secs(1), future)
            .await
            .ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_given_back_is_the_next_ones() {
        let gate: Arc<Gate<OneByOne>> = Arc::default();
        let first = gate.enter(Class::Read, 0).await;
        assert!(gate.try_enter(Class::Read).is_none());
        assert!(soon(gate.enter(Class::Read, 0)).await.is_none());
        let order = Mutex::new(Vec::new());
        let come = |number, priority| {
            let (gate, order) = (&gate, &order);
            async move {
                let _place = gate.enter(Class::Read, priority).await;
                order.lock().expect("no panic").push(number);
            }
        };
        let leave = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        tokio::join!(come(1, 0), come(2, 0), come(3, 7), leave);
        assert_eq!(*order.lock().expect("no panic"), [3, 1, 2]);
        assert!(gate.try_enter(Class::Read).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_leaves_no_place_taken() {
        let gate: Arc<Gate<OneByOne>> = Arc::default();
        let first = gate.enter(Class::Read, 0).await;
        let mut gone = Box::pin(gate.enter(Class::Read, 0));
        let mut stays = Box::pin(gate.enter(Class::Read, 0));
        assert!(futures_util::poll!(&mut gone).is_pending());
        assert!(futures_util::poll!(&mut stays).is_pending());
        // Called already when it goes.
        drop(first);
        drop(gone);
        let place = soon(stays).await.expect("a place");
        drop(place);
        assert!(gate.try_enter(Class::Read).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_higher_ceiling_lets_those_in_who_wait() {
        let gate: Arc<Gate<Ceiling>> = Arc::default();
        gate.with(|ceiling| ceiling.set(Some(2)));
        let _two = (gate.enter(Class::Read, 0).await, gate.enter(Class::Read, 0).await);
        let mut third = Box::pin(gate.enter(Class::Read, 0));
        assert!(futures_util::poll!(&mut third).is_pending());
        gate.with(|ceiling| ceiling.set(Some(3)));
        assert!(soon(third).await.is_some());
    }
}
