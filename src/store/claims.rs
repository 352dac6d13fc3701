//! Claims on destination tags: two sources for one tag are found, not written over each other in turns.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sqlx::Row;

use super::Store;
use super::error::Result;
use super::rows::{json, millis, parsed};
use crate::oci::{RepositoryName, Tag};

/// A claim that was made or renewed within this time is not written again: runs with nothing to do write nothing for it.
/// Far less than what a claim lives.
const RENEWED_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// How many of some tags are not claimed by a source under a rule since some time.
const UNCLAIMED: &str = "SELECT count(*) FROM json_each($3) WHERE NOT EXISTS (SELECT 1 FROM claims \
     WHERE registry = $1 AND repository = $2 AND tag = value AND source = $4 AND rule = $5 AND renewed_at >= $6)";

/// Claims of other sources on some tags of a repository.
const OTHER_CLAIMS: &str = "SELECT tag, rule, source FROM claims \
     WHERE registry = $1 AND repository = $2 AND source <> $4 AND renewed_at >= $5 \
     AND tag IN (SELECT value FROM json_each($3)) ORDER BY tag, claimed_at DESC, source DESC";

fn others(rows: &[sqlx::sqlite::SqliteRow]) -> std::result::Result<BTreeMap<Tag, String>, sqlx::Error> {
    let mut others = BTreeMap::new();
    for row in rows {
        let (rule, source): (String, String) = (row.try_get("rule")?, row.try_get("source")?);
        // Of several the oldest stays, as it comes last.
        others.insert(parsed(row, "tag")?, format!("rule {rule} from {source}"));
    }
    Ok(others)
}

/// Who claims tags of a destination repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The rule's name.
    pub rule: String,
    /// `registry/repository` whose images it brings there.
    pub source: String,
    /// The destination registry's name.
    pub registry: String,
    /// The repository there.
    pub repository: String,
}

impl Store {
    /// Claims destination tags for a source (`rule`, `source registry/repository`); gives the tags that another source
    /// claims too, with the other claim in words. A claim by the same source is renewed, whatever the rule; one not renewed since
    /// `stale_before` is dropped.
    ///
    /// The claim of a source that is answered with another's stands all the same, so that the other is told as well: a
    /// tag that two sources want is refused to both. [`Store::keep_claims`] ends claims of rules that are no more.
    #[expect(
        clippy::too_many_arguments,
        reason = "the place, the claimant and two times, each of another meaning"
    )]
    pub async fn claim_tags(
        &self,
        registry: &str,
        repository: &RepositoryName,
        tags: &[Tag],
        rule: &str,
        source: &str,
        now: Timestamp,
        stale_before: Timestamp,
    ) -> Result<BTreeMap<Tag, String>> {
        if tags.is_empty() {
            return Ok(BTreeMap::new());
        }
        let unclaimed = self.verb("look for claims on tags", async {
            sqlx::query_scalar::<_, i64>(UNCLAIMED)
                .bind(registry)
                .bind(repository.as_str())
                .bind(json(tags)?)
                .bind(source)
                .bind(rule)
                .bind(millis(now.saturating_sub(RENEWED_EVERY).unwrap_or(Timestamp::MIN)))
                .fetch_one(&mut *self.0.reader().await?)
                .await
        });
        if unclaimed.await? == 0 {
            return self
                .claimed_tags(registry, repository, tags, source, stale_before)
                .await;
        }
        self.verb("claim tags", async {
            let tags = json(tags)?;
            let mut change = self.0.begin().await?;
            sqlx::query("DELETE FROM claims WHERE registry = $1 AND repository = $2 AND renewed_at < $3")
                .bind(registry)
                .bind(repository.as_str())
                .bind(millis(stale_before))
                .execute(&mut *change)
                .await?;
            sqlx::query(
                "INSERT INTO claims (registry, repository, tag, source, rule, claimed_at, renewed_at) \
                 SELECT $1, $2, value, $4, $5, $6, $6 FROM json_each($3) WHERE true \
                 ON CONFLICT (registry, repository, tag, source) \
                 DO UPDATE SET rule = excluded.rule, renewed_at = excluded.renewed_at",
            )
            .bind(registry)
            .bind(repository.as_str())
            .bind(&tags)
            .bind(source)
            .bind(rule)
            .bind(millis(now))
            .execute(&mut *change)
            .await?;
            sqlx::query(
                "INSERT INTO claimants (rule, source, registry, repository) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .bind(rule)
            .bind(source)
            .bind(registry)
            .bind(repository.as_str())
            .execute(&mut *change)
            .await?;
            let rows = sqlx::query(OTHER_CLAIMS)
                .bind(registry)
                .bind(repository.as_str())
                .bind(&tags)
                .bind(source)
                .bind(millis(stale_before))
                .fetch_all(&mut *change)
                .await?;
            let others = others(&rows)?;
            change.commit().await?;
            Ok(others)
        })
        .await
    }

    /// As [`Store::claim_tags`], without claiming anything: for plans that are only looked at.
    pub async fn claimed_tags(
        &self,
        registry: &str,
        repository: &RepositoryName,
        tags: &[Tag],
        source: &str,
        stale_before: Timestamp,
    ) -> Result<BTreeMap<Tag, String>> {
        self.verb("look for claims on tags", async {
            let rows = sqlx::query(OTHER_CLAIMS)
                .bind(registry)
                .bind(repository.as_str())
                .bind(json(tags)?)
                .bind(source)
                .bind(millis(stale_before))
                .fetch_all(&mut *self.0.reader().await?)
                .await?;
            others(&rows)
        })
        .await
    }

    /// Who has claims, each once; some may have none any more.
    pub async fn claimants(&self) -> Result<Vec<Claimant>> {
        self.verb("list who claims tags", async {
            let rows = sqlx::query("SELECT rule, source, registry, repository FROM claimants ORDER BY rule, source")
                .fetch_all(&mut *self.0.reader().await?)
                .await?;
            let claimant = |row: &sqlx::sqlite::SqliteRow| {
                Ok(Claimant {
                    rule: row.try_get("rule")?,
                    source: row.try_get("source")?,
                    registry: row.try_get("registry")?,
                    repository: row.try_get("repository")?,
                })
            };
            rows.iter().map(claimant).collect()
        })
        .await
    }

    /// Ends all claims of these.
    pub async fn end_claims(&self, claimants: &[Claimant]) -> Result<()> {
        self.verb("end claims on tags", async {
            let mut change = self.0.begin().await?;
            for claimant in claimants {
                for statement in [
                    "DELETE FROM claims WHERE rule = $1 AND source = $2 AND registry = $3 AND repository = $4",
                    "DELETE FROM claimants WHERE rule = $1 AND source = $2 AND registry = $3 AND repository = $4",
                ] {
                    sqlx::query(statement)
                        .bind(&claimant.rule)
                        .bind(&claimant.source)
                        .bind(&claimant.registry)
                        .bind(&claimant.repository)
                        .execute(&mut *change)
                        .await?;
                }
            }
            change.commit().await
        })
        .await
    }

    /// Ends the claims of all rules but these and forgets what of those is put aside or waits: for when rules are read, so that a rule
    /// taken out blocks no other.
    pub async fn keep_claims(&self, rules: &[&str]) -> Result<()> {
        self.verb("end the claims of rules that are no more", async {
            let rules = json(rules)?;
            let mut change = self.0.begin().await?;
            for statement in [
                "DELETE FROM claims WHERE rule NOT IN (SELECT value FROM json_each($1)) AND (registry, repository) IN \
                 (SELECT registry, repository FROM claimants WHERE rule NOT IN (SELECT value FROM json_each($1)))",
                "DELETE FROM claimants WHERE rule NOT IN (SELECT value FROM json_each($1))",
                "DELETE FROM parked WHERE rule NOT IN (SELECT value FROM json_each($1))",
                "DELETE FROM deferred WHERE rule NOT IN (SELECT value FROM json_each($1))",
            ] {
                sqlx::query(statement).bind(&rules).execute(&mut *change).await?;
            }
            change.commit().await
        })
        .await
    }
}
