//! An image's place among those that are copied at once, given back while all that it does is to wait for others.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Clones belong to the same image. Without a place ([`Turn::default`]) there is nothing to give back.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    places: Arc<Semaphore>,
    /// Held by the one blob that gets the image its place again. If each asked for one, images would hold their own place while
    /// a second blob of theirs waits for another, and no place would be left.
    regaining: tokio::sync::Mutex<()>,
    /// See [`Turn::leave`].
    leaving: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    place: Option<OwnedSemaphorePermit>,
    /// Blobs that are moving, or may begin to.
    active: usize,
    /// Blobs that others bring.
    waiting: usize,
    /// See [`Turn::leave`].
    left: bool,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rest(&mut self) {
        self.active = self.active.saturating_sub(1);
        if self.active == 0 && self.waiting > 0 {
            self.place = None;
        }
    }
}

impl Turn {
    /// An image that has a place.
    pub(super) fn new(places: Arc<Semaphore>, place: OwnedSemaphorePermit) -> Self {
        Self(Some(Arc::new(Inner {
            places,
            regaining: tokio::sync::Mutex::default(),
            leaving: Notify::new(),
            state: Mutex::new(State {
                place: Some(place),
                active: 0,
                waiting: 0,
                left: false,
            }),
        })))
    }

    /// The image begins to bring so many blobs.
    pub(super) fn begin(&self, blobs: usize) {
        if let Some(inner) = &self.0 {
            inner.state().active += blobs;
        }
    }

    /// One of them is done.
    pub(super) fn end(&self) {
        if let Some(inner) = &self.0 {
            inner.state().rest();
        }
    }

    /// The image goes on without a place: what it still does holds up nobody.
    pub(super) fn leave(&self) {
        if let Some(inner) = &self.0 {
            let mut state = inner.state();
            state.place = None;
            state.left = true;
            drop(state);
            inner.leaving.notify_waiters();
        }
    }

    /// One of them waits for somebody else. The place is given back when no blob of the image does anything else, and
    /// taken again before this returns.
    pub(super) async fn while_waiting<T>(&self, wait: impl Future<Output = T>) -> T {
        let Some(inner) = &self.0 else { return wait.await };
        {
            let mut state = inner.state();
            state.waiting += 1;
            state.rest();
        }
        let done = wait.await;
        let lacks_place = || {
            let state = inner.state();
            state.place.is_none() && !state.left
        };
        {
            let mut state = inner.state();
            state.waiting = state.waiting.saturating_sub(1);
            state.active += 1;
        }
        if lacks_place() {
            let _alone = inner.regaining.lock().await;
            let left = inner.leaving.notified();
            // Another blob of the image may have been quicker.
            if lacks_place() {
                tokio::select! {
                    place = Arc::clone(&inner.places).acquire_owned() => {
                        let mut state = inner.state();
                        // It may have left at the same moment. Never closed.
                        state.place = place.ok().filter(|_| !state.left);
                    }
                    () = left => {}
                }
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_place_is_free_while_all_blobs_wait_for_others() {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).acquire_owned().await.expect("open");
        let turn = Turn::new(Arc::clone(&places), place);
        turn.begin(2);
        let (go, gone) = oneshot::channel::<()>();
        let mut waiting = std::pin::pin!(turn.while_waiting(gone));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(places.available_permits(), 0, "its other blob moves");
        turn.end();
        assert_eq!(places.available_permits(), 1);
        let other = Arc::clone(&places)
            .try_acquire_owned()
            .expect("a place for another image");
        go.send(()).expect("somebody waits");
        assert!(futures_util::poll!(&mut waiting).is_pending(), "there is no place yet");
        drop(other);
        waiting.await.expect("sent");
        assert_eq!(places.available_permits(), 0, "it has its place again");
        turn.end();
        assert_eq!(places.available_permits(), 0, "the manifests are still to be put");
    }

    #[tokio::test]
    async fn an_image_that_leaves_takes_no_place_any_more() {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).acquire_owned().await.expect("open");
        let turn = Turn::new(Arc::clone(&places), place);
        turn.begin(1);
        turn.leave();
        assert_eq!(places.available_permits(), 1);
        turn.while_waiting(async {}).await;
        assert_eq!(places.available_permits(), 1);
        turn.end();
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test]
    async fn an_image_that_leaves_waits_for_no_place() {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).acquire_owned().await.expect("open");
        let turn = Turn::new(Arc::clone(&places), place);
        turn.begin(1);
        let (go, gone) = oneshot::channel::<()>();
        let mut waiting = std::pin::pin!(turn.while_waiting(gone));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let _other = Arc::clone(&places).try_acquire_owned().expect("given back");
        go.send(()).expect("somebody waits");
        assert!(futures_util::poll!(&mut waiting).is_pending());
        turn.leave();
        waiting.await.expect("sent");
    }

    #[tokio::test]
    async fn an_image_takes_one_place_however_many_of_its_blobs_have_waited() {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).acquire_owned().await.expect("open");
        let turn = Turn::new(Arc::clone(&places), place);
        turn.begin(2);
        let ((go, gone), (start, started)) = (oneshot::channel::<()>(), oneshot::channel::<()>());
        let mut first = std::pin::pin!(turn.while_waiting(gone));
        let mut second = std::pin::pin!(turn.while_waiting(started));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        let other = Arc::clone(&places)
            .try_acquire_owned()
            .expect("a place for another image");
        go.send(()).expect("somebody waits");
        start.send(()).expect("somebody waits");
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(other);
        assert!(futures_util::poll!(&mut first).is_ready());
        assert!(futures_util::poll!(&mut second).is_ready(), "the image has its place");
    }
}
