//! Pauses that registries asked for, and their quotas.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::Row;

use super::Store;
use super::error::Result;
use super::rows::{count, millis, signed, time, time_or_none};
use crate::plan::Quota;

/// What one registry said about how much we may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// No request is sent before this.
    pub paused_until: Option<Timestamp>,
    /// Its metered quota, where it has one.
    pub quota: Option<Quota>,
}

impl Store {
    /// What is kept of a registry, by its name in the rules and its host. A pause that was kept under a clock that was ahead of `now` is
    /// not believed.
    pub async fn rates(&self, registry: &str, host: &str, now: Timestamp) -> Result<Rates> {
        self.verb("read what a registry said about rates", async {
            let row = sqlx::query(
                "SELECT paused_until, quota_limit, quota_remaining, quota_window, quota_seen_at, kept_at FROM rates \
                 WHERE registry = $1 AND host = $2",
            )
            .bind(registry)
            .bind(host)
            .fetch_optional(&mut *self.0.reader().await?)
            .await?;
            let Some(row) = row else { return Ok(Rates::default()) };
            let kept_at = time(&row, "kept_at")?;
            let quota = match time_or_none(&row, "quota_seen_at")? {
                None => None,
                Some(seen_at) => Some(Quota {
                    limit: match row.try_get::<Option<i64>, _>("quota_limit")? {
                        None => None,
                        Some(_) => Some(count(&row, "quota_limit")?),
                    },
                    remaining: count(&row, "quota_remaining")?,
                    window: Duration::from_millis(count(&row, "quota_window")?),
                    seen_at,
                }),
            };
            Ok(Rates {
                paused_until: time_or_none(&row, "paused_until")?.filter(|_| kept_at <= now),
                quota,
            })
        })
        .await
    }

    /// Keeps what a registry said.
    pub async fn keep_rates(&self, registry: &str, host: &str, rates: &Rates, now: Timestamp) -> Result<()> {
        self.verb("keep what a registry said about rates", async {
            let quota = rates.quota;
            let window = quota.map(|quota| u64::try_from(quota.window.as_millis()).unwrap_or(u64::MAX));
            sqlx::query(
                "INSERT INTO rates (registry, host, paused_until, quota_limit, quota_remaining, quota_window, \
                 quota_seen_at, kept_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                 ON CONFLICT (registry, host) DO UPDATE SET paused_until = excluded.paused_until, \
                 quota_limit = excluded.quota_limit, quota_remaining = excluded.quota_remaining, \
                 quota_window = excluded.quota_window, quota_seen_at = excluded.quota_seen_at, kept_at = excluded.kept_at",
            )
            .bind(registry)
            .bind(host)
            .bind(rates.paused_until.map(millis))
            .bind(quota.and_then(|quota| quota.limit).map(signed).transpose()?)
            .bind(quota.map(|quota| signed(quota.remaining)).transpose()?)
            .bind(window.map(signed).transpose()?)
            .bind(quota.map(|quota| millis(quota.seen_at)))
            .bind(millis(now))
            .execute(&mut *self.0.writer().await?)
            .await?;
            Ok(())
        })
        .await
    }
}
