//! What a registry says about how much it takes, and what follows from it: pauses, its quota, how much is asked at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use tokio::time::Instant;

use super::broken::is_reset;
use super::call::Call;
use super::rates::{PullQuota, RateNews};
use super::refusal::temporary;
use super::throttle::{Class, Throttle};
use crate::clock::Clock;
use crate::plan::{Quota, newer_quota};
use crate::registry::{Answers, Operation};

/// What one registry has said so far.
#[derive(Debug)]
pub(super) struct Heed {
    throttle: Arc<Throttle>,
    quota: Mutex<Option<Quota>>,
    small_answers: AtomicU64,
    clock: Clock,
}

impl Heed {
    /// Has heard nothing yet.
    pub(super) fn new(throttle: Arc<Throttle>, clock: Clock) -> Self {
        Self {
            throttle,
            quota: Mutex::default(),
            small_answers: AtomicU64::new(0),
            clock,
        }
    }

    /// Until when the registry wants to be left alone; `None` when it does not.
    pub(super) fn penalty(&self) -> Option<Timestamp> {
        let left = self.throttle.paused_for()?;
        Some(self.clock.now() + left)
    }

    /// Leaves the registry alone until then, or longer where it wants that by itself.
    pub(super) fn set_penalty(&self, until: Timestamp) {
        let left = until.duration_since(self.clock.now());
        if let Ok(left) = Duration::try_from(left) {
            self.throttle.pause(left);
        }
    }

    /// Its metered quota as it last said, or as an earlier process was told.
    pub(super) fn quota(&self) -> Option<Quota> {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a quota, unless a newer one is known.
    pub(super) fn set_quota(&self, quota: Quota) {
        let mut known = self.quota.lock().unwrap_or_else(PoisonError::into_inner);
        *known = newer_quota(*known, quota, self.clock.now());
    }

    /// Answers so far to small questions, whoever asked, but for those that tell of trouble and will be asked again.
    pub(super) fn small_answers(&self) -> u64 {
        self.small_answers.load(Ordering::Relaxed)
    }

    /// Takes note of what an answer of the registry itself says about rates.
    pub(super) fn answer(&self, status: StatusCode, news: RateNews) {
        if let Some(PullQuota {
            limit,
            remaining,
            window,
        }) = news.quota
        {
            self.set_quota(Quota {
                limit,
                remaining,
                window,
                seen_at: self.clock.now(),
            });
        }
        if let Some(pause) = news.pause(temporary(status)) {
            self.throttle.pause(pause);
        }
    }

    /// Takes note of how a request went that was sent at `sent`. A token realm's and an object store's troubles are told
    /// apart by the class alone: the store's are those of the registry's blobs.
    pub(super) fn learn(&self, call: &Call, sent: Instant, answer: &Result<reqwest::Response, reqwest::Error>) {
        if call.operation == Operation::Authenticate {
            return;
        }
        if let Ok(answer) = answer
            && !temporary(answer.status())
        {
            Answers::note();
            if matches!(call.class, Class::Read | Class::List) {
                self.small_answers.fetch_add(1, Ordering::Relaxed);
            }
        }
        if call.api {
            return;
        }
        let too_much = match answer {
            Ok(answer) => matches!(answer.status().as_u16(), 429 | 503),
            Err(error) => is_reset(error),
        };
        match answer {
            _ if too_much => self.throttle.congested(call.class, sent),
            Ok(_) => self.throttle.answered(call.class),
            Err(_) => {}
        }
    }
}
