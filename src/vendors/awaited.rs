//! One look for all who need what it finds: whoever asks meanwhile waits for it, and shares its failure, too.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::registry::{Error, Result};

/// What was found, by whoever looked last.
#[derive(Debug)]
pub(super) struct Awaited<T> {
    last: tokio::sync::Mutex<Option<(Result<T>, Duration)>>,
    /// Looks that came to an end, so that those who waited can tell whose outcome they see.
    finished: AtomicU64,
}

impl<T> Default for Awaited<T> {
    fn default() -> Self {
        Self {
            last: tokio::sync::Mutex::default(),
            finished: AtomicU64::new(0),
        }
    }
}

impl<T: Clone> Awaited<T> {
    /// What was found, while that is believed and `good`; else what `look` finds. `life` says for how long its outcome is believed
    /// by those who come after it; those who waited for it take it in any case. Who is cancelled while it looks leaves that to
    /// the next.
    ///
    /// # Errors
    /// Those of `look`, without their cause to all but the one who looked.
    pub(super) async fn get<F>(
        &self,
        clock: &Clock,
        good: impl Fn(&T) -> bool,
        life: impl FnOnce(&Result<T>) -> Duration,
        look: F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let seen = self.finished.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        let waited = self.finished.load(Ordering::Acquire) != seen;
        if let Some((outcome, until)) = &*last
            && (waited || clock.elapsed() < *until)
        {
            match outcome {
                Ok(found) if good(found) => return Ok(found.clone()),
                Ok(_) => {}
                Err(error) => return Err(copy(error)),
            }
        }
        let outcome = look.await;
        let kept = outcome.as_ref().map(T::clone).map_err(copy);
        *last = Some((kept, clock.elapsed() + life(&outcome)));
        self.finished.fetch_add(1, Ordering::AcqRel);
        outcome
    }
}

/// What can be told of an error to those who waited for the same thing.
pub(super) fn copy(error: &Error) -> Error {
    let mut told = Error::new(
        error.operation,
        (*error.place).clone(),
        error.kind,
        error.message.clone(),
    );
    told.status = error.status;
    told.code.clone_from(&error.code);
    told.retry_after = error.retry_after;
    told
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;

    use super::*;
    use crate::registry::{ErrorKind, Operation, Place};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// An API that never answers.
    async fn silence(asked: &Cell<u32>) -> Result<u32> {
        asked.set(asked.get() + 1);
        tokio::time::sleep(PATIENCE).await;
        let message = "no answer in 60 s";
        Err(Error::new(
            Operation::ListTags,
            Place::default(),
            ErrorKind::Network,
            message,
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_look_that_fails_makes_no_look_of_its_own() {
        let (clock, asked) = (Clock::system(), Cell::new(0));
        let awaited = Awaited::default();
        let ask = |rest: Duration| awaited.get(&clock, |_| true, move |_| rest, silence(&asked));
        let began = clock.elapsed();
        let outcomes = join_all((0..8).map(|_| ask(Duration::ZERO))).await;
        assert!(outcomes.iter().all(|outcome| {
            let error = outcome.as_ref().expect_err("no answer");
            error.kind == ErrorKind::Network && error.message == "no answer in 60 s"
        }));
        // The clock stands still but for what is waited for.
        assert_eq!((asked.get(), clock.elapsed() - began), (1, PATIENCE));
        // Who comes later asks, unless the failure is believed for a while.
        ask(PATIENCE).await.expect_err("no answer");
        assert_eq!(asked.get(), 2);
        ask(PATIENCE).await.expect_err("no answer");
        assert_eq!(asked.get(), 2);
        tokio::time::advance(PATIENCE).await;
        ask(PATIENCE).await.expect_err("no answer");
        assert_eq!(asked.get(), 3);
    }

    #[tokio::test]
    async fn what_is_found_is_believed_while_it_is_good() {
        let clock = Clock::system();
        let awaited = Awaited::default();
        let get = async |least: u32, found: u32| {
            let found = async move { Ok(found) };
            let life = |_: &Result<u32>| PATIENCE;
            awaited.get(&clock, |held| *held >= least, life, found).await.ok()
        };
        assert_eq!(get(0, 1).await, Some(1));
        assert_eq!(get(1, 2).await, Some(1));
        assert_eq!(get(2, 3).await, Some(3));
    }
}
