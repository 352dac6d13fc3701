//! What destination tags were last seen to point to.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Store;
use super::error::Result;
use super::rows::{batches, millis, parsed};
use crate::oci::{Digest, RepositoryName, Tag};

impl Store {
    /// Records what tags of a repository were seen to point to, in one transaction.
    pub async fn record_seen_tags(
        &self,
        registry: &str,
        repository: &RepositoryName,
        tags: &[(Tag, Digest)],
        now: Timestamp,
    ) -> Result<()> {
        if tags.is_empty() {
            return Ok(());
        }
        self.verb("record what tags point to", async {
            let mut change = self.0.begin().await?;
            for batch in batches(tags) {
                sqlx::query(
                    "INSERT INTO seen_tags (registry, repository, tag, digest, at) \
                     SELECT $1, $2, value ->> 0, value ->> 1, $4 FROM json_each($3) WHERE true \
                     ON CONFLICT (registry, repository, tag) DO UPDATE SET digest = excluded.digest, at = excluded.at",
                )
                .bind(registry)
                .bind(repository.as_str())
                .bind(batch?)
                .bind(millis(now))
                .execute(&mut *change)
                .await?;
            }
            change.commit().await
        })
        .await
    }

    /// What those of `tags` point to that were seen or written at `since` or later, and not after `now`: what a clock that
    /// went back left in the future counts for nothing.
    pub async fn seen_tags(
        &self,
        registry: &str,
        repository: &RepositoryName,
        tags: &[Tag],
        since: Timestamp,
        now: Timestamp,
    ) -> Result<BTreeMap<Tag, Digest>> {
        self.verb("read what tags pointed to", async {
            let mut reader = self.0.reader().await?;
            let mut seen = BTreeMap::new();
            for batch in batches(tags) {
                let rows = sqlx::query(
                    "SELECT tag, digest FROM seen_tags WHERE registry = $1 AND repository = $2 AND at BETWEEN $4 AND $5 \
                     AND tag IN (SELECT value FROM json_each($3))",
                )
                .bind(registry)
                .bind(repository.as_str())
                .bind(batch?)
                .bind(millis(since))
                .bind(millis(now))
                .fetch_all(&mut *reader)
                .await?;
                for row in &rows {
                    seen.insert(parsed(row, "tag")?, parsed(row, "digest")?);
                }
            }
            Ok(seen)
        })
        .await
    }
}
