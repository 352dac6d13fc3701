//! What was learnt of registries.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::Store;
use super::error::Result;
use super::rows::{millis, time};

/// Something that was learnt of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Of which repositories; `*` for all.
    pub class: String,
    /// What.
    pub name: String,
    /// What of it.
    pub value: String,
    /// What showed it.
    pub evidence: String,
    /// When.
    pub learnt: Timestamp,
    /// Until when it is believed.
    pub expires: Timestamp,
}

impl Store {
    /// Keeps what was learnt of a registry (`class`: of which repositories, `*` for all).
    #[expect(
        clippy::too_many_arguments,
        reason = "the columns of one row, each of another meaning"
    )]
    pub async fn learn(
        &self,
        registry: &str,
        class: &str,
        name: &str,
        value: &str,
        evidence: &str,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<()> {
        self.verb("keep what was learnt of a registry", async {
            let mut change = self.0.begin().await?;
            let capability = Capability {
                class: class.to_owned(),
                name: name.to_owned(),
                value: value.to_owned(),
                evidence: evidence.to_owned(),
                learnt: now,
                expires,
            };
            insert(&mut change, registry, &capability).await?;
            change.commit().await
        })
        .await
    }

    /// Keeps all that was learnt of a registry at once.
    pub async fn learn_all(&self, registry: &str, learnt: &[Capability]) -> Result<()> {
        if learnt.is_empty() {
            return Ok(());
        }
        self.verb("keep what was learnt of a registry", async {
            let mut change = self.0.begin().await?;
            for capability in learnt {
                insert(&mut change, registry, capability).await?;
            }
            change.commit().await
        })
        .await
    }

    /// What was learnt, unless expired. What was learnt after `now` counts for nothing: the clock was ahead then, and the end
    /// of it is as far ahead.
    pub async fn capability(&self, registry: &str, class: &str, name: &str, now: Timestamp) -> Result<Option<String>> {
        self.verb("read what was learnt of a registry", async {
            sqlx::query_scalar(
                "SELECT value FROM capabilities WHERE registry = $1 AND class = $2 AND name = $3 \
                 AND learnt <= $4 AND expires > $4",
            )
            .bind(registry)
            .bind(class)
            .bind(name)
            .bind(millis(now))
            .fetch_optional(&mut *self.0.reader().await?)
            .await
        })
        .await
    }

    /// What holds of a registry at `now`.
    pub async fn capabilities(&self, registry: &str, now: Timestamp) -> Result<Vec<Capability>> {
        self.verb("list what was learnt of a registry", async {
            let rows = sqlx::query(
                "SELECT class, name, value, evidence, learnt, expires FROM capabilities WHERE registry = $1 \
                 AND learnt <= $2 AND expires > $2 ORDER BY class, name",
            )
            .bind(registry)
            .bind(millis(now))
            .fetch_all(&mut *self.0.reader().await?)
            .await?;
            rows.iter()
                .map(|row| {
                    Ok(Capability {
                        class: row.try_get("class")?,
                        name: row.try_get("name")?,
                        value: row.try_get("value")?,
                        evidence: row.try_get("evidence")?,
                        learnt: time(row, "learnt")?,
                        expires: time(row, "expires")?,
                    })
                })
                .collect()
        })
        .await
    }

    /// Forgets what proved wrong.
    pub async fn forget_capability(&self, registry: &str, class: &str, name: &str) -> Result<()> {
        self.verb("forget what was learnt of a registry", async {
            let mut change = self.0.begin().await?;
            sqlx::query("DELETE FROM capabilities WHERE registry = $1 AND class = $2 AND name = $3")
                .bind(registry)
                .bind(class)
                .bind(name)
                .execute(&mut *change)
                .await?;
            change.commit().await
        })
        .await
    }
}

async fn insert(connection: &mut SqliteConnection, registry: &str, capability: &Capability) -> sqlx::Result<()> {
    let insert = sqlx::query(
        "INSERT INTO capabilities (registry, class, name, value, evidence, learnt, expires) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (registry, class, name) DO UPDATE SET \
         value = excluded.value, evidence = excluded.evidence, learnt = excluded.learnt, \
         expires = excluded.expires",
    );
    let insert = insert
        .bind(registry)
        .bind(&capability.class)
        .bind(&capability.name)
        .bind(&capability.value)
        .bind(&capability.evidence)
        .bind(millis(capability.learnt))
        .bind(millis(capability.expires));
    insert.execute(connection).await.map(drop)
}
