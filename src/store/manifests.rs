//! Manifests read earlier, by place and digest.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sqlx::Row;

use super::error::Result;
use super::rows::{json, millis, parsed, signed, time};
use super::{KeptManifest, NewManifest, Store};
use crate::oci::{Digest, RepositoryName, Tag};

impl Store {
    /// Keeps manifests that were read, and marks those `used` again as used now; in one transaction. With a limit those
    /// used longest ago are thrown away until at most so many bytes are left; that looks at every one, so not each time.
    pub async fn keep_manifests(
        &self,
        read: &[NewManifest],
        used: &[i64],
        now: Timestamp,
        limit: Option<u64>,
    ) -> Result<()> {
        self.verb("keep manifests", async {
            let mut change = self.0.begin().await?;
            for manifest in read {
                let id: i64 = sqlx::query_scalar(
                    "INSERT INTO manifests (registry, repository, digest, media_type, bytes, size, used_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (registry, repository, digest) DO UPDATE SET \
                     media_type = excluded.media_type, bytes = excluded.bytes, size = excluded.size, \
                     used_at = excluded.used_at RETURNING id",
                )
                .bind(&manifest.registry)
                .bind(manifest.repository.as_str())
                .bind(manifest.digest.to_string())
                .bind(&manifest.media_type)
                .bind(manifest.bytes.as_ref())
                .bind(signed(manifest.bytes.len() as u64)?)
                .bind(millis(now))
                .fetch_one(&mut *change)
                .await?;
                if let Some(tag) = &manifest.tag {
                    sqlx::query(
                        "INSERT INTO manifest_tags (registry, repository, tag, manifest_id) VALUES ($1, $2, $3, $4) \
                         ON CONFLICT (registry, repository, tag) DO UPDATE SET manifest_id = excluded.manifest_id",
                    )
                    .bind(&manifest.registry)
                    .bind(manifest.repository.as_str())
                    .bind(tag.as_str())
                    .bind(id)
                    .execute(&mut *change)
                    .await?;
                }
            }
            sqlx::query("UPDATE manifests SET used_at = $2 WHERE id IN (SELECT value FROM json_each($1))")
                .bind(json(used)?)
                .bind(millis(now))
                .execute(&mut *change)
                .await?;
            if let Some(limit) = limit {
                sqlx::query(
                    "DELETE FROM manifests WHERE id IN (SELECT id FROM (SELECT id, sum(size) OVER \
                     (ORDER BY used_at DESC, id DESC) AS reached FROM manifests) WHERE reached > $1)",
                )
                .bind(signed(limit)?)
                .execute(&mut *change)
                .await?;
            }
            change.commit().await
        })
        .await
    }

    /// A manifest as it was kept; whoever asks checks the bytes against the digest.
    pub async fn kept_manifest(
        &self,
        registry: &str,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<KeptManifest>> {
        self.verb("read a kept manifest", async {
            let row = sqlx::query(
                "SELECT id, media_type, bytes, used_at FROM manifests \
                 WHERE registry = $1 AND repository = $2 AND digest = $3",
            )
            .bind(registry)
            .bind(repository.as_str())
            .bind(digest.to_string())
            .fetch_optional(&mut *self.0.reader().await?)
            .await?;
            row.map(|row| {
                Ok(KeptManifest {
                    id: row.try_get("id")?,
                    media_type: row.try_get("media_type")?,
                    bytes: row.try_get("bytes")?,
                    used_at: time(&row, "used_at")?,
                })
            })
            .transpose()
        })
        .await
    }

    /// Those of `tags` whose manifest was kept when it was read; they may have moved since.
    pub async fn kept_tags(&self, registry: &str, repository: &RepositoryName, tags: &[Tag]) -> Result<BTreeSet<Tag>> {
        if tags.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.verb("look for kept manifests", async {
            let rows = sqlx::query(
                "SELECT tag FROM manifest_tags WHERE registry = $1 AND repository = $2 \
                 AND tag IN (SELECT value FROM json_each($3))",
            )
            .bind(registry)
            .bind(repository.as_str())
            .bind(json(tags)?)
            .fetch_all(&mut *self.0.reader().await?)
            .await?;
            rows.iter().map(|row| parsed(row, "tag")).collect()
        })
        .await
    }

    /// Media types of those of these manifests that a repository gave and that are kept.
    pub async fn kept_media_types(
        &self,
        registry: &str,
        repository: &RepositoryName,
        digests: &[&Digest],
    ) -> Result<BTreeMap<Digest, String>> {
        if digests.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.verb("look for kept manifests", async {
            let rows = sqlx::query(
                "SELECT digest, media_type FROM manifests WHERE registry = $1 AND repository = $2 \
                 AND digest IN (SELECT value FROM json_each($3))",
            )
            .bind(registry)
            .bind(repository.as_str())
            .bind(json(digests)?)
            .fetch_all(&mut *self.0.reader().await?)
            .await?;
            rows.iter()
                .map(|row| Ok((parsed(row, "digest")?, row.try_get("media_type")?)))
                .collect()
        })
        .await
    }

    /// Drops a kept manifest that proved damaged.
    pub async fn drop_manifest(&self, id: i64) -> Result<()> {
        self.verb("drop a damaged manifest", async {
            let mut change = self.0.begin().await?;
            sqlx::query("DELETE FROM manifests WHERE id = $1")
                .bind(id)
                .execute(&mut *change)
                .await?;
            change.commit().await
        })
        .await
    }
}
