//! Final failures that are put aside.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::Row;

use super::Store;
use super::error::Result;
use super::jobs::kind;
use super::rows::{count, json, millis, parsed, time};
use crate::oci::RepositoryName;
use crate::plan::{ErrorKind, ParkedFailure, ParkingPlace};

impl Store {
    /// What is put aside of images that come from `source` (`registry/repository`) to a destination repository.
    pub async fn parked(
        &self,
        source: &str,
        registry: &str,
        repository: &RepositoryName,
    ) -> Result<BTreeMap<ParkingPlace, ParkedFailure>> {
        self.verb("read what is put aside", async {
            let rows = sqlx::query(
                "SELECT tag, digest, kind, status, code, message, attempts, times, until FROM parked \
                 WHERE registry = $1 AND repository = $2 AND source = $3",
            )
            .bind(registry)
            .bind(repository.as_str())
            .bind(source)
            .fetch_all(&mut *self.0.reader().await?)
            .await?;
            rows.iter()
                .map(|row| {
                    let place = (registry.to_owned(), repository.clone(), parsed(row, "tag")?);
                    let failure = ParkedFailure {
                        digest: parsed(row, "digest")?,
                        kind: kind(row)?.ok_or(sqlx::Error::RowNotFound)?,
                        status: row.try_get("status")?,
                        code: row.try_get("code")?,
                        message: row.try_get("message")?,
                        attempts: count(row, "attempts")?,
                        times: count(row, "times")?,
                        until: time(row, "until")?,
                    };
                    Ok((place, failure))
                })
                .collect()
        })
        .await
    }

    /// Puts an image aside that was to come from `source` under `rule`.
    pub async fn park(&self, place: &ParkingPlace, source: &str, rule: &str, failure: &ParkedFailure) -> Result<()> {
        let (registry, repository, tag) = place;
        self.verb("put a failure aside", async {
            let mut change = self.0.begin().await?;
            sqlx::query(
                "INSERT INTO parked (registry, repository, tag, source, rule, digest, kind, status, code, message, \
                 attempts, times, until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
                 ON CONFLICT (registry, repository, tag) DO UPDATE SET source = excluded.source, rule = excluded.rule, \
                 digest = excluded.digest, kind = excluded.kind, status = excluded.status, code = excluded.code, \
                 message = excluded.message, attempts = excluded.attempts, times = excluded.times, until = excluded.until",
            )
            .bind(registry)
            .bind(repository.as_str())
            .bind(tag.as_str())
            .bind(source)
            .bind(rule)
            .bind(failure.digest.to_string())
            .bind(failure.kind.as_str())
            .bind(failure.status)
            .bind(failure.code.as_deref())
            .bind(&failure.message)
            .bind(i64::from(failure.attempts))
            .bind(i64::from(failure.times))
            .bind(millis(failure.until))
            .execute(&mut *change)
            .await?;
            change.commit().await
        })
        .await
    }

    /// Ends the waiting of all failures of these kinds; how often they failed in a row stays. Gives how many had waited.
    pub async fn end_parking(&self, kinds: &[ErrorKind], now: Timestamp) -> Result<u64> {
        self.verb("end the waiting of what is put aside", async {
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
            let mut change = self.0.begin().await?;
            let done = sqlx::query(
                "UPDATE parked SET until = $2 WHERE until > $2 AND kind IN (SELECT value FROM json_each($1))",
            )
            .bind(json(&kinds)?)
            .bind(millis(now))
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(done.rows_affected())
        })
        .await
    }

    /// Forgets what was put aside of these images. With `rule`, only what failed last under that rule: what another
    /// rule selects is not this one's to forget.
    pub async fn unpark(&self, places: &[ParkingPlace], rule: Option<&str>) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        self.verb("forget what was put aside", async {
            let mut change = self.0.begin().await?;
            sqlx::query(
                "DELETE FROM parked WHERE (registry, repository, tag) IN \
                 (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each($1)) AND rule = coalesce($2, rule)",
            )
            .bind(json(places)?)
            .bind(rule)
            .execute(&mut *change)
            .await?;
            change.commit().await
        })
        .await
    }
}
