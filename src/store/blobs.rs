//! Blobs known to be at a destination, and mounts known to be refused there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::Store;
use super::error::Result;
use super::rows::{batches, millis, parsed, time};
use crate::oci::{Digest, RepositoryName};

/// How long a refused mount is not tried again.
const MOUNT_REFUSAL_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A mount that is not tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRefusal {
    /// The repository that had the blob.
    pub from: String,
    /// The one that was to get it.
    pub to: String,
    /// When it was refused.
    pub learnt: Timestamp,
    /// When it is tried again.
    pub expires: Timestamp,
}

/// Remembers blobs as part of a change.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    registry: &str,
    repository: &RepositoryName,
    digests: &[Digest],
    now: Timestamp,
) -> sqlx::Result<()> {
    for batch in batches(digests) {
        // `WHERE true`: without it SQLite takes ON CONFLICT for a join's condition.
        sqlx::query(
            "INSERT INTO blobs (registry, repository, digest, seen_at) \
             SELECT $1, $2, value, $4 FROM json_each($3) WHERE true \
             ON CONFLICT (registry, digest, repository) DO UPDATE SET seen_at = excluded.seen_at",
        )
        .bind(registry)
        .bind(repository.as_str())
        .bind(batch?)
        .bind(millis(now))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

impl Store {
    /// Remembers blobs seen in or written to a repository.
    pub async fn remember_blobs(
        &self,
        registry: &str,
        repository: &RepositoryName,
        digests: &[Digest],
        now: Timestamp,
    ) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        self.verb("remember blobs", async {
            let mut change = self.0.begin().await?;
            insert(&mut change, registry, repository, digests, now).await?;
            change.commit().await
        })
        .await
    }

    /// Which of `digests` are remembered, and in which repositories of the registry (at most four each, those seen last first).
    pub async fn known_blobs(
        &self,
        registry: &str,
        digests: &[Digest],
    ) -> Result<BTreeMap<Digest, Vec<RepositoryName>>> {
        if digests.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.verb("look for known blobs", async {
            let mut reader = self.0.reader().await?;
            let mut known: BTreeMap<Digest, Vec<RepositoryName>> = BTreeMap::new();
            for batch in batches(digests) {
                let rows = sqlx::query(
                    "SELECT digest, repository FROM (SELECT digest, repository, row_number() OVER \
                     (PARTITION BY digest ORDER BY seen_at DESC, repository) AS place FROM blobs \
                     WHERE registry = $1 AND digest IN (SELECT value FROM json_each($2))) \
                     WHERE place <= 4 ORDER BY digest, place",
                )
                .bind(registry)
                .bind(batch?)
                .fetch_all(&mut *reader)
                .await?;
                for row in &rows {
                    let repositories = known.entry(parsed(row, "digest")?).or_default();
                    let repository = parsed(row, "repository")?;
                    // A digest asked for in two batches answers in both.
                    if !repositories.contains(&repository) {
                        repositories.push(repository);
                    }
                }
            }
            Ok(known)
        })
        .await
    }

    /// Which of `digests` were seen in or written to a repository at `since` or later, and not after `now`: what a clock
    /// that went back left in the future counts for nothing.
    pub async fn blobs_seen(
        &self,
        registry: &str,
        repository: &RepositoryName,
        digests: &[Digest],
        since: Timestamp,
        now: Timestamp,
    ) -> Result<BTreeSet<Digest>> {
        if digests.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.verb("look for blobs seen lately", async {
            let mut reader = self.0.reader().await?;
            let mut seen = BTreeSet::new();
            for batch in batches(digests) {
                let rows = sqlx::query(
                    "SELECT digest FROM blobs WHERE registry = $1 AND repository = $2 AND seen_at BETWEEN $4 AND $5 \
                     AND digest IN (SELECT value FROM json_each($3))",
                )
                .bind(registry)
                .bind(repository.as_str())
                .bind(batch?)
                .bind(millis(since))
                .bind(millis(now))
                .fetch_all(&mut *reader)
                .await?;
                for row in &rows {
                    seen.insert(parsed(row, "digest")?);
                }
            }
            Ok(seen)
        })
        .await
    }

    /// Forgets blobs of a repository that proved not to be there.
    pub async fn forget_blobs(&self, registry: &str, repository: &RepositoryName, digests: &[Digest]) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        self.verb("forget blobs", async {
            let mut change = self.0.begin().await?;
            for batch in batches(digests) {
                sqlx::query(
                    "DELETE FROM blobs WHERE registry = $1 AND repository = $2 \
                     AND digest IN (SELECT value FROM json_each($3))",
                )
                .bind(registry)
                .bind(repository.as_str())
                .bind(batch?)
                .execute(&mut *change)
                .await?;
            }
            change.commit().await
        })
        .await
    }

    /// Remembers for a day that mounts between two repositories are refused.
    pub async fn remember_mount_refusal(
        &self,
        registry: &str,
        from: &RepositoryName,
        to: &RepositoryName,
        now: Timestamp,
    ) -> Result<()> {
        self.verb("remember a refused mount", async {
            let mut change = self.0.begin().await?;
            sqlx::query(
                "INSERT INTO mount_refusals (registry, from_repository, to_repository, until) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (registry, from_repository, to_repository) DO UPDATE SET until = excluded.until",
            )
            .bind(registry)
            .bind(from.as_str())
            .bind(to.as_str())
            .bind(millis(now + MOUNT_REFUSAL_LIFE))
            .execute(&mut *change)
            .await?;
            change.commit().await
        })
        .await
    }

    /// Mounts that are known to be refused at a registry, `most` at most.
    pub async fn mount_refusals(&self, registry: &str, most: usize, now: Timestamp) -> Result<Vec<MountRefusal>> {
        self.verb("list refused mounts", async {
            let rows = sqlx::query(
                "SELECT from_repository, to_repository, until FROM mount_refusals WHERE registry = $1 \
                 AND until > $2 AND until <= $3 ORDER BY from_repository, to_repository LIMIT $4",
            )
            .bind(registry)
            .bind(millis(now))
            .bind(millis(now + MOUNT_REFUSAL_LIFE))
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.0.reader().await?)
            .await?;
            let refusals = rows.iter().map(|row| {
                let expires = time(row, "until")?;
                Ok(MountRefusal {
                    from: row.try_get("from_repository")?,
                    to: row.try_get("to_repository")?,
                    learnt: expires - MOUNT_REFUSAL_LIFE,
                    expires,
                })
            });
            refusals.collect()
        })
        .await
    }

    /// True when mounts between two repositories are known to be refused. What ends more than a day from `now` was remembered
    /// under a clock that was ahead, and counts for nothing.
    pub async fn mount_refused(
        &self,
        registry: &str,
        from: &RepositoryName,
        to: &RepositoryName,
        now: Timestamp,
    ) -> Result<bool> {
        self.verb("look for refused mounts", async {
            let found: Option<i64> = sqlx::query_scalar(
                "SELECT 1 FROM mount_refusals WHERE registry = $1 AND from_repository = $2 AND to_repository = $3 \
                 AND until > $4 AND until <= $5",
            )
            .bind(registry)
            .bind(from.as_str())
            .bind(to.as_str())
            .bind(millis(now))
            .bind(millis(now + MOUNT_REFUSAL_LIFE))
            .fetch_optional(&mut *self.0.reader().await?)
            .await?;
            Ok(found.is_some())
        })
        .await
    }
}
