//! What a cloud gives out for a while: found once for all who need it, and found anew before it ends.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::awaited::copy;
use crate::clock::Clock;
use crate::registry::{Error, Result};

/// It is not used any more when it ends so soon; of what lives but a short time, in its last fifth.
const LEAST_LIFE: Duration = Duration::from_secs(300);
/// How long it is believed that there is none: asking a machine that is none of the cloud's takes seconds.
const NOBODY_LIFE: Duration = Duration::from_secs(5 * 60);

/// Something, and when it ends.
pub(super) struct Found<T> {
    pub(super) value: T,
    /// `None` where it does not end.
    pub(super) ends: Option<Timestamp>,
}

/// The place of one such thing. Whoever asks while it is looked for waits for that, and shares its failure, too.
#[derive(Debug)]
pub(super) struct Kept<T> {
    last: tokio::sync::Mutex<Last<T>>,
    /// Looks that brought nothing, so that those who waited can tell whose failure they see.
    failed: AtomicU64,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            last: tokio::sync::Mutex::default(),
            failed: AtomicU64::new(0),
        }
    }
}

#[derive(Debug)]
struct Last<T> {
    held: Option<Held<T>>,
    failure: Option<Failure>,
}

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self {
            held: None,
            failure: None,
        }
    }
}

/// How a look brought nothing.
#[derive(Debug)]
enum Failure {
    Gone,
    Error(Error),
}

impl Failure {
    fn outcome<T>(&self) -> Result<Current<T>> {
        match self {
            Self::Gone => Ok(Current::Gone),
            Self::Error(error) => Err(copy(error)),
        }
    }
}

#[derive(Clone, Debug)]
struct Held<T> {
    /// `None`: there is none anywhere.
    value: Option<T>,
    /// By the clock's monotonic time; `None` where it does not end.
    life: Option<Life>,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    renew_at: Duration,
    ends_at: Duration,
}

/// What a look came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Current<T> {
    /// It.
    Is(T),
    /// There is none.
    Nothing,
    /// There was one, and there is none now.
    Gone,
}

impl<T: Clone + PartialEq> Kept<T> {
    /// What is there, looked for by `find` where it is not known or about to end. While it has not ended, a look that failed for
    /// a while changes nothing.
    ///
    /// # Errors
    /// Those of `find`, without their cause to all but the one who looked.
    pub(super) async fn current<F>(&self, clock: &Clock, find: F) -> Result<Current<T>>
    where
        F: Future<Output = Result<Option<Found<T>>>>,
    {
        let seen = self.failed.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        let now = clock.elapsed();
        if let Some(held) = &last.held
            && held.life.is_none_or(|life| now < life.renew_at)
        {
            return Ok(held.value.clone().map_or(Current::Nothing, Current::Is));
        }
        if self.failed.load(Ordering::Acquire) != seen
            && let Some(failure) = &last.failure
        {
            return failure.outcome();
        }
        let found = match find.await {
            Ok(found) => found,
            Err(error) => {
                if error.kind.is_temporary()
                    && let Some(Held {
                        value: Some(value),
                        life: Some(life),
                    }) = &mut last.held
                    && now < life.ends_at
                {
                    life.renew_at = now + (life.ends_at - now) / 2;
                    return Ok(Current::Is(value.clone()));
                }
                last.failure = Some(Failure::Error(copy(&error)));
                self.failed.fetch_add(1, Ordering::AcqRel);
                return Err(error);
            }
        };
        last.failure = None;
        let Some(found) = found else {
            if last.held.as_ref().is_some_and(|held| held.value.is_some()) {
                last.failure = Some(Failure::Gone);
                self.failed.fetch_add(1, Ordering::AcqRel);
                return Ok(Current::Gone);
            }
            let ends_at = now + NOBODY_LIFE;
            last.held = Some(Held {
                value: None,
                life: Some(Life {
                    renew_at: ends_at,
                    ends_at,
                }),
            });
            return Ok(Current::Nothing);
        };
        let life = found.ends.map(|ends| {
            let left = Duration::try_from(ends.duration_since(clock.now())).unwrap_or_default();
            Life {
                renew_at: now + left.saturating_sub(LEAST_LIFE).max(left / 5),
                ends_at: now + left,
            }
        });
        last.held = Some(Held {
            value: Some(found.value.clone()),
            life,
        });
        Ok(Current::Is(found.value))
    }

    /// This one is not taken any more: the next who asks looks for another, unless there is one already. That there was one is
    /// known still.
    pub(super) async fn forget(&self, refused: &T) {
        let mut last = self.last.lock().await;
        if let Some(held) = &mut last.held
            && held.value.as_ref() == Some(refused)
        {
            held.life = Some(Life {
                renew_at: Duration::ZERO,
                ends_at: Duration::ZERO,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use futures_util::future::join_all;

    use super::*;
    use crate::registry::{ErrorKind, Operation, Place};

    #[tokio::test]
    async fn what_is_about_to_end_is_used_on_while_nobody_gives_a_new_one() {
        let clock = Clock::system();
        let kept = Kept::default();
        let found = |value: u32, left: i64| {
            let ends = Some(clock.now() + jiff::SignedDuration::from_secs(left));
            ready(Ok(Some(Found { value, ends })))
        };
        let failed = |kind| ready(Err(Error::new(Operation::Authenticate, Place::default(), kind, "no")));
        let none = || ready(Ok(None));
        assert_eq!(kept.current(&clock, none()).await.ok(), Some(Current::Nothing));
        assert_eq!(kept.current(&clock, found(4, 60)).await.ok(), Some(Current::Nothing));

        let kept = Kept::default();
        // It lives on for ten hours: nobody is asked.
        assert_eq!(kept.current(&clock, found(1, 36_000)).await.ok(), Some(Current::Is(1)));
        assert_eq!(kept.current(&clock, found(2, 36_000)).await.ok(), Some(Current::Is(1)));
        // Whoever is refused with one that is not there any more changes nothing.
        kept.forget(&7).await;
        assert_eq!(kept.current(&clock, found(2, 36_000)).await.ok(), Some(Current::Is(1)));
        kept.forget(&1).await;
        assert_eq!(kept.current(&clock, none()).await.ok(), Some(Current::Gone));
        assert_eq!(kept.current(&clock, found(3, 0)).await.ok(), Some(Current::Is(3)));
        // It is over.
        assert!(kept.current(&clock, failed(ErrorKind::Network)).await.is_err());
        assert_eq!(kept.current(&clock, none()).await.ok(), Some(Current::Gone));

        // About to end, as it would be after four fifths of its life.
        let about_to_end = async |value| {
            let now = clock.elapsed();
            kept.last.lock().await.held = Some(Held {
                value: Some(value),
                life: Some(Life {
                    renew_at: now,
                    ends_at: now + Duration::from_secs(60),
                }),
            });
        };
        about_to_end(5).await;
        assert_eq!(
            kept.current(&clock, failed(ErrorKind::Server)).await.ok(),
            Some(Current::Is(5))
        );
        // Who gives it out gets a rest.
        assert_eq!(kept.current(&clock, found(6, 60)).await.ok(), Some(Current::Is(5)));
        // What says that there will be no other is heard.
        about_to_end(5).await;
        assert!(kept.current(&clock, failed(ErrorKind::Denied)).await.is_err());
        assert_eq!(
            kept.current(&clock, failed(ErrorKind::Server)).await.ok(),
            Some(Current::Is(5))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_what_cannot_be_had_does_not_look_for_it_again() {
        let (clock, looks) = (Clock::system(), Cell::new(0));
        let kept = Kept::<u32>::default();
        let ask = || {
            kept.current(&clock, async {
                looks.set(looks.get() + 1);
                tokio::time::sleep(Duration::from_secs(80)).await;
                let (operation, place) = (Operation::Authenticate, Place::default());
                Err(Error::new(operation, place, ErrorKind::Network, "no answer"))
            })
        };
        let outcomes = join_all((0..4).map(|_| ask())).await;
        assert!(outcomes.iter().all(Result::is_err));
        assert_eq!((looks.get(), clock.elapsed()), (1, Duration::from_secs(80)));
        // Who comes later looks.
        ask().await.expect_err("no answer");
        assert_eq!(looks.get(), 2);
    }
}
