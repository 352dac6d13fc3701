//! Images that wait for a quota or for the end of a pause.

use jiff::Timestamp;
use sqlx::Row;

use super::Store;
use super::error::Result;
use super::rows::{json, millis, parsed, parsed_or_none, time};
use crate::oci::{Digest, RepositoryName, Tag};

/// An image that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeferredImage {
    /// Source repository.
    pub source: RepositoryName,
    /// Destination registry's name.
    pub registry: String,
    /// Destination repository.
    pub repository: RepositoryName,
    /// The tag at both ends.
    pub tag: Tag,
    /// What the source's tag pointed to, where that is known.
    pub digest: Option<Digest>,
    /// For what it waits.
    pub message: String,
    /// Since when. The oldest goes first.
    pub since: Timestamp,
    /// When it fits, at the latest.
    pub until: Timestamp,
}

impl Store {
    /// The images of a rule that wait for its source or a destination, the longest waiting first.
    pub async fn deferred(&self, rule: &str, source_registry: &str) -> Result<Vec<DeferredImage>> {
        self.verb("read what waits", async {
            let rows = sqlx::query(
                "SELECT source_repository, registry, repository, tag, digest, message, since, until FROM deferred \
                 WHERE rule = $1 AND source_registry = $2 ORDER BY since, source_repository, tag, registry, repository",
            )
            .bind(rule)
            .bind(source_registry)
            .fetch_all(&mut *self.0.reader().await?)
            .await?;
            rows.iter()
                .map(|row| {
                    Ok(DeferredImage {
                        source: parsed(row, "source_repository")?,
                        registry: row.try_get("registry")?,
                        repository: parsed(row, "repository")?,
                        tag: parsed(row, "tag")?,
                        digest: parsed_or_none(row, "digest")?,
                        message: row.try_get("message")?,
                        since: time(row, "since")?,
                        until: time(row, "until")?,
                    })
                })
                .collect()
        })
        .await
    }

    /// Lets images of a rule wait. One that waits already keeps its place in the queue.
    pub async fn defer(&self, rule: &str, source_registry: &str, images: &[DeferredImage]) -> Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        self.verb("let images wait", async {
            let rows: Vec<_> = images
                .iter()
                .map(|image| {
                    (
                        &image.registry,
                        &image.repository,
                        &image.tag,
                        &image.source,
                        &image.digest,
                        &image.message,
                        millis(image.since),
                        millis(image.until),
                    )
                })
                .collect();
            sqlx::query(
                // An upsert behind a SELECT needs its WHERE, else the parser takes ON for a join's.
                "INSERT INTO deferred (registry, repository, tag, rule, source_registry, source_repository, digest, \
                 message, since, until) SELECT value ->> 0, value ->> 1, value ->> 2, $2, $3, value ->> 3, value ->> 4, \
                 value ->> 5, value ->> 6, value ->> 7 FROM json_each($1) WHERE true \
                 ON CONFLICT (registry, repository, tag, rule) DO UPDATE SET source_registry = excluded.source_registry, \
                 source_repository = excluded.source_repository, digest = excluded.digest, message = excluded.message, \
                 until = excluded.until",
            )
            .bind(json(&rows)?)
            .bind(rule)
            .bind(source_registry)
            .execute(&mut *self.0.writer().await?)
            .await?;
            Ok(())
        })
        .await
    }

    /// These images of a rule wait no longer: they were copied, failed, or are no longer wanted.
    pub async fn end_deferral(&self, rule: &str, images: &[(&str, &RepositoryName, &Tag)]) -> Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        self.verb("end the wait of images", async {
            sqlx::query(
                "DELETE FROM deferred WHERE rule = $2 AND (registry, repository, tag) IN \
                 (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each($1))",
            )
            .bind(json(images)?)
            .bind(rule)
            .execute(&mut *self.0.writer().await?)
            .await?;
            Ok(())
        })
        .await
    }
}
