//! Forgetting what is too old to be of use, so that the file does not grow for ever.

use jiff::{SignedDuration, Timestamp};

use super::Store;
use super::error::Result;
use super::rows::{millis, time};

/// Runs deleted in one transaction: small enough that a copy under way never waits long for its turn to write.
const CLEAN_BATCH: i64 = 50;

/// Looking through all that is remembered takes a third of a second where a million tags are: once a day is enough for what lives three
/// months. A little less, so that a `sync` at the same hour each day does it each day.
const FORGET_EVERY: SignedDuration = SignedDuration::from_hours(20);

/// The row of `upkeep` that says when [`Store::forget_unconfirmed`] last looked.
const FORGET: &str = "forget_unconfirmed";

/// What was only remembered to save work, and claimants without claims.
const UNCONFIRMED: [&str; 13] = [
    "DELETE FROM blobs WHERE seen_at < $1",
    "DELETE FROM uploads WHERE updated_at < $1",
    "DELETE FROM mount_refusals WHERE until < $1",
    "DELETE FROM capabilities WHERE expires < $1",
    "DELETE FROM claims WHERE renewed_at < $1",
    "DELETE FROM claimants WHERE NOT EXISTS (SELECT 1 FROM claims WHERE claims.registry = claimants.registry \
     AND claims.repository = claimants.repository AND claims.source = claimants.source AND claims.rule = claimants.rule)",
    "DELETE FROM attachment_checks WHERE at < $1",
    "DELETE FROM parked WHERE until < $1",
    "DELETE FROM deferred WHERE until < $1",
    "DELETE FROM rates WHERE kept_at < $1",
    "DELETE FROM seen_tags WHERE at < $1",
    "DELETE FROM about_to_put WHERE at < $1",
    // Made again, and kept for as long again, by who needs it.
    "DELETE FROM choices WHERE made_at < $1",
];

impl Store {
    /// Deletes runs that ended before `before` with their jobs, except each rule's last; gives how many. The audit trail and what
    /// was written stay.
    pub async fn clean_runs(&self, before: Timestamp) -> Result<u64> {
        self.verb("clean old runs", async {
            let mut cleaned = 0;
            loop {
                let mut change = self.0.begin().await?;
                let deleted = sqlx::query(
                    "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE finished_at < $1 AND EXISTS \
                     (SELECT 1 FROM runs AS later WHERE later.rule = runs.rule AND later.id > runs.id) \
                     ORDER BY finished_at LIMIT $2)",
                )
                .bind(millis(before))
                .bind(CLEAN_BATCH)
                .execute(&mut *change)
                .await?
                .rows_affected();
                change.commit().await?;
                cleaned += deleted;
                if deleted == 0 {
                    break;
                }
            }
            // The daemon cleans now and then and may never close: so the statistics of the planner are kept up here too.
            sqlx::query("PRAGMA optimize")
                .execute(&mut *self.0.writer().await?)
                .await?;
            Ok(cleaned)
        })
        .await
    }

    /// Forgets what was only remembered to save work and was not confirmed since `before`: blobs, uploads (no registry keeps one that
    /// long), refused mounts, capabilities, claims, checks of attachments, failures that were put aside. Does nothing within 20 hours of
    /// the last time; true where it did.
    pub async fn forget_unconfirmed(&self, before: Timestamp, now: Timestamp) -> Result<bool> {
        self.verb("forget what was not confirmed for long", async {
            let last = sqlx::query("SELECT done_at FROM upkeep WHERE work = $1")
                .bind(FORGET)
                .fetch_optional(&mut *self.0.reader().await?)
                .await?;
            let last = last.map(|row| time(&row, "done_at")).transpose()?;
            // A time that is yet to come was written under a clock that was ahead.
            if last.is_some_and(|last| last <= now && now.duration_since(last) < FORGET_EVERY) {
                return Ok(false);
            }
            for statement in UNCONFIRMED {
                let mut change = self.0.begin().await?;
                sqlx::query(statement)
                    .bind(millis(before))
                    .execute(&mut *change)
                    .await?;
                change.commit().await?;
            }
            let mut change = self.0.begin().await?;
            sqlx::query(
                "INSERT INTO upkeep (work, done_at) VALUES ($1, $2) \
                 ON CONFLICT (work) DO UPDATE SET done_at = excluded.done_at",
            )
            .bind(FORGET)
            .bind(millis(now))
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(true)
        })
        .await
    }
}
