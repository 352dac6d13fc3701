//! What a cloud gives out for a while: found once for all who need it, and found anew before it ends.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::registry::Result;

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

/// The place of one such thing. Whoever asks while it is looked for waits for that.
#[derive(Debug)]
pub(super) struct Kept<T>(tokio::sync::Mutex<Option<Held<T>>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(tokio::sync::Mutex::default())
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

impl<T: Clone> Kept<T> {
    /// What is there, looked for by `find` where it is not known or about to end. While it has not ended, a look that failed for
    /// a while changes nothing.
    ///
    /// # Errors
    /// Those of `find`.
    pub(super) async fn current<F>(&self, clock: &Clock, find: F) -> Result<Current<T>>
    where
        F: Future<Output = Result<Option<Found<T>>>>,
    {
        let mut held = self.0.lock().await;
        let now = clock.elapsed();
        if let Some(held) = &*held
            && held.life.is_none_or(|life| now < life.renew_at)
        {
            return Ok(held.value.clone().map_or(Current::Nothing, Current::Is));
        }
        let found = match find.await {
            Ok(found) => found,
            Err(error) => {
                if error.kind.is_temporary()
                    && let Some(Held {
                        value: Some(value),
                        life: Some(life),
                    }) = &mut *held
                    && now < life.ends_at
                {
                    life.renew_at = now + (life.ends_at - now) / 2;
                    return Ok(Current::Is(value.clone()));
                }
                return Err(error);
            }
        };
        let Some(found) = found else {
            if held.as_ref().is_some_and(|held| held.value.is_some()) {
                return Ok(Current::Gone);
            }
            let ends_at = now + NOBODY_LIFE;
            *held = Some(Held {
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
        *held = Some(Held {
            value: Some(found.value.clone()),
            life,
        });
        Ok(Current::Is(found.value))
    }

    /// It is not taken any more: the next who asks looks for it anew.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::registry::{Error, ErrorKind, Operation, Place};

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
        // It lives on for ten hours: nobody is asked.
        assert_eq!(kept.current(&clock, found(1, 36_000)).await.ok(), Some(Current::Is(1)));
        assert_eq!(kept.current(&clock, found(2, 36_000)).await.ok(), Some(Current::Is(1)));
        kept.forget().await;
        assert_eq!(kept.current(&clock, found(3, 0)).await.ok(), Some(Current::Is(3)));
        // It is over.
        assert!(kept.current(&clock, failed(ErrorKind::Network)).await.is_err());
        assert_eq!(kept.current(&clock, none()).await.ok(), Some(Current::Gone));
        kept.forget().await;
        assert_eq!(kept.current(&clock, none()).await.ok(), Some(Current::Nothing));
        assert_eq!(kept.current(&clock, found(4, 60)).await.ok(), Some(Current::Nothing));

        // About to end, as it would be after four fifths of its life.
        let now = clock.elapsed();
        *kept.0.lock().await = Some(Held {
            value: Some(5),
            life: Some(Life {
                renew_at: now,
                ends_at: now + Duration::from_secs(60),
            }),
        });
        assert_eq!(
            kept.current(&clock, failed(ErrorKind::Server)).await.ok(),
            Some(Current::Is(5))
        );
        // Who gives it out gets a rest.
        assert_eq!(kept.current(&clock, found(6, 60)).await.ok(), Some(Current::Is(5)));
        kept.forget().await;
        assert!(kept.current(&clock, failed(ErrorKind::Denied)).await.is_err());
    }
}
