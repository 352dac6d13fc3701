//! What we wrote: the audit trail and the digests under each tag.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::error::Result;
use super::rows::{json, millis, parsed, parsed_or_none, time};
use super::{AuditEntry, Intention, JobId, RunId, Store, Write, blobs};
use crate::oci::{Digest, RepositoryName, Tag};

/// Makes a line of the audit trail of a put that was not heard of.
const COMPLETE: [&str; 2] = [
    "INSERT INTO audit (at, run_id, rule, action, source, registry, repository, tag, digest, previous_digest) \
     SELECT at, run_id, rule, 'put_tag', source, registry, repository, tag, digest, previous_digest FROM about_to_put \
     WHERE registry = $1 AND repository = $2 AND tag = $3 AND run_id = $4",
    "DELETE FROM about_to_put WHERE registry = $1 AND repository = $2 AND tag = $3 AND run_id = $4",
];

/// Keeps that a digest is ours under a tag.
async fn insert(
    connection: &mut SqliteConnection,
    (registry, repository, tag): (&str, &RepositoryName, &Tag),
    digest: &Digest,
    rule: &str,
    now: Timestamp,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO written (registry, repository, tag, digest, rule, at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (registry, repository, tag, digest, rule) DO UPDATE SET at = excluded.at",
    )
    .bind(registry)
    .bind(repository.as_str())
    .bind(tag.as_str())
    .bind(digest.to_string())
    .bind(rule)
    .bind(millis(now))
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Records that a tag is about to be put, so that the digest is known for ours whether or not the put is heard of again, and
    /// remembers `blobs`, which were seen in its repository or brought there for it.
    pub async fn record_intention(&self, intention: &Intention<'_>, blobs: &[Digest], now: Timestamp) -> Result<()> {
        self.verb("record that a tag is about to be written", async {
            let mut change = self.0.begin().await?;
            blobs::insert(&mut change, intention.registry, intention.repository, blobs, now).await?;
            let place = (intention.registry, intention.repository, intention.tag);
            insert(&mut change, place, intention.digest, intention.rule, now).await?;
            sqlx::query(
                "INSERT OR REPLACE INTO about_to_put (registry, repository, tag, digest, run_id, rule, source, \
                 previous_digest, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(intention.registry)
            .bind(intention.repository.as_str())
            .bind(intention.tag.as_str())
            .bind(intention.digest.to_string())
            .bind(intention.run.0)
            .bind(intention.rule)
            .bind(intention.source)
            .bind(intention.previous.map(ToString::to_string))
            .bind(millis(now))
            .execute(&mut *change)
            .await?;
            change.commit().await
        })
        .await
    }

    /// Completes the audit trail after runs that ended before they heard of their puts: of `tags`, which were found at a destination
    /// with these digests. Gives how many lines were added; each is once.
    pub async fn complete_writes(
        &self,
        registry: &str,
        repository: &RepositoryName,
        tags: &BTreeMap<&Tag, &Digest>,
    ) -> Result<u64> {
        self.verb("complete the audit trail", async {
            let rows = sqlx::query(
                "SELECT tag, digest, run_id FROM about_to_put WHERE registry = $1 AND repository = $2 \
                 AND run_id NOT IN (SELECT id FROM runs WHERE outcome IS NULL) ORDER BY at",
            )
            .bind(registry)
            .bind(repository.as_str())
            .fetch_all(&mut *self.0.reader().await?)
            .await?;
            let mut heard = Vec::new();
            for row in &rows {
                let (tag, digest): (Tag, Digest) = (parsed(row, "tag")?, parsed(row, "digest")?);
                if tags.get(&tag) == Some(&&digest) {
                    heard.push((tag, row.try_get::<i64, _>("run_id")?));
                }
            }
            if heard.is_empty() {
                return Ok(0);
            }
            let mut change = self.0.begin().await?;
            for (tag, run) in &heard {
                for statement in COMPLETE {
                    sqlx::query(statement)
                        .bind(registry)
                        .bind(repository.as_str())
                        .bind(tag.as_str())
                        .bind(run)
                        .execute(&mut *change)
                        .await?;
                }
            }
            change.commit().await?;
            Ok(heard.len() as u64)
        })
        .await
    }

    /// Records that a tag was put: audit trail, history, and what it points to since.
    pub async fn record_write(&self, write: &Write<'_>, now: Timestamp) -> Result<()> {
        self.verb("record that a tag was written", async {
            let mut change = self.0.begin().await?;
            let digest = write.digest.to_string();
            sqlx::query(
                "INSERT INTO audit (at, run_id, job_id, rule, action, source, registry, repository, tag, digest, \
                 previous_digest) VALUES ($1, $2, $3, $4, 'put_tag', $5, $6, $7, $8, $9, $10)",
            )
            .bind(millis(now))
            .bind(write.run.map(|run| run.0))
            .bind(write.job.map(|job| job.0))
            .bind(write.rule)
            .bind(write.source)
            .bind(write.registry)
            .bind(write.repository.as_str())
            .bind(write.tag.as_str())
            .bind(&digest)
            .bind(write.previous.map(ToString::to_string))
            .execute(&mut *change)
            .await?;
            let place = (write.registry, write.repository, write.tag);
            insert(&mut change, place, write.digest, write.rule, now).await?;
            sqlx::query(
                "DELETE FROM about_to_put WHERE registry = $1 AND repository = $2 AND tag = $3 AND run_id = $4",
            )
            .bind(write.registry)
            .bind(write.repository.as_str())
            .bind(write.tag.as_str())
            .bind(write.run.map(|run| run.0))
            .execute(&mut *change)
            .await?;
            sqlx::query(
                "INSERT INTO seen_tags (registry, repository, tag, digest, at) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (registry, repository, tag) DO UPDATE SET digest = excluded.digest, at = excluded.at",
            )
            .bind(write.registry)
            .bind(write.repository.as_str())
            .bind(write.tag.as_str())
            .bind(&digest)
            .bind(millis(now))
            .execute(&mut *change)
            .await?;
            change.commit().await
        })
        .await
    }

    /// All digests that we wrote, or were about to write, under the tags of a repository.
    pub async fn written(
        &self,
        registry: &str,
        repository: &RepositoryName,
    ) -> Result<BTreeMap<Tag, BTreeSet<Digest>>> {
        self.verb("read what was written", async {
            let rows = sqlx::query("SELECT tag, digest FROM written WHERE registry = $1 AND repository = $2")
                .bind(registry)
                .bind(repository.as_str())
                .fetch_all(&mut *self.0.reader().await?)
                .await?;
            let mut written: BTreeMap<Tag, BTreeSet<Digest>> = BTreeMap::new();
            for row in &rows {
                written
                    .entry(parsed(row, "tag")?)
                    .or_default()
                    .insert(parsed(row, "digest")?);
            }
            Ok(written)
        })
        .await
    }

    /// As [`Store::written`], of these tags only.
    pub async fn written_under(
        &self,
        registry: &str,
        repository: &RepositoryName,
        tags: &[Tag],
    ) -> Result<BTreeMap<Tag, BTreeSet<Digest>>> {
        self.verb("read what was written", async {
            let rows = sqlx::query(
                "SELECT tag, digest FROM written WHERE registry = $1 AND repository = $2 \
                 AND tag IN (SELECT value FROM json_each($3))",
            )
            .bind(registry)
            .bind(repository.as_str())
            .bind(json(tags)?)
            .fetch_all(&mut *self.0.reader().await?)
            .await?;
            let mut written: BTreeMap<Tag, BTreeSet<Digest>> = BTreeMap::new();
            for row in &rows {
                let digests = written.entry(parsed(row, "tag")?).or_default();
                digests.insert(parsed(row, "digest")?);
            }
            Ok(written)
        })
        .await
    }

    /// The newest `limit` lines of the audit trail, newest first.
    pub async fn audit(&self, limit: u32) -> Result<Vec<AuditEntry>> {
        self.verb("read the audit trail", async {
            let rows = sqlx::query(
                "SELECT at, run_id, job_id, rule, action, source, registry, repository, tag, digest, previous_digest \
                 FROM audit ORDER BY id DESC LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&mut *self.0.reader().await?)
            .await?;
            rows.iter()
                .map(|row| {
                    Ok(AuditEntry {
                        at: time(row, "at")?,
                        run: row.try_get::<Option<i64>, _>("run_id")?.map(RunId),
                        job: row.try_get::<Option<i64>, _>("job_id")?.map(JobId),
                        rule: row.try_get("rule")?,
                        action: row.try_get("action")?,
                        source: row.try_get("source")?,
                        registry: row.try_get("registry")?,
                        repository: parsed(row, "repository")?,
                        tag: parsed(row, "tag")?,
                        digest: parsed(row, "digest")?,
                        previous_digest: parsed_or_none(row, "previous_digest")?,
                    })
                })
                .collect()
        })
        .await
    }
}
