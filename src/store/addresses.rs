//! Where registries' names lead, and forgetting what was remembered of another place.

use jiff::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::Store;
use super::error::Result;
use super::rows::millis;

/// What is remembered of a registry and says nothing of another one that takes its name. What else names registries stays:
/// `rates` knows the host by itself, and `runs`, `jobs` and `audit` are history. So is `written`: a digest that we put under a tag is
/// an image of ours wherever it is found, and a registry that has moved with all its content must not become a conflict. `claims`
/// follow the rules, not the registries.
const FORGET: [&str; 10] = [
    "DELETE FROM blobs WHERE registry = $1",
    "DELETE FROM mount_refusals WHERE registry = $1",
    "DELETE FROM capabilities WHERE registry = $1",
    "DELETE FROM uploads WHERE registry = $1",
    "DELETE FROM seen_tags WHERE registry = $1",
    "DELETE FROM about_to_put WHERE registry = $1",
    "DELETE FROM attachment_checks WHERE registry = $1",
    "DELETE FROM manifests WHERE registry = $1",
    // What one registry refuses another may take, and its quota is not the other's.
    "DELETE FROM parked WHERE registry = $1 OR substr(source, 1, length($1) + 1) = $1 || '/'",
    "DELETE FROM deferred WHERE registry = $1 OR source_registry = $1",
];

async fn forget(connection: &mut SqliteConnection, registry: &str) -> sqlx::Result<()> {
    for statement in FORGET {
        sqlx::query(statement).bind(registry).execute(&mut *connection).await?;
    }
    Ok(())
}

impl Store {
    /// Where a registry's name led when it was last used; `None` where it was not used since that is kept.
    pub async fn address(&self, registry: &str) -> Result<Option<String>> {
        self.verb("read where a registry was", async {
            sqlx::query_scalar("SELECT address FROM addresses WHERE registry = $1")
                .bind(registry)
                .fetch_optional(&mut *self.0.reader().await?)
                .await
        })
        .await
    }

    /// Keeps where a registry's name leads. Where it led elsewhere, all that was remembered under it is forgotten, and the place that it
    /// led to is given.
    pub async fn keep_address(&self, registry: &str, address: &str, now: Timestamp) -> Result<Option<String>> {
        // Nearly always nothing has changed, and nothing is written then.
        if self.address(registry).await?.as_deref() == Some(address) {
            return Ok(None);
        }
        self.verb("keep where a registry is", async {
            let mut change = self.0.begin().await?;
            let former: Option<String> = sqlx::query_scalar("SELECT address FROM addresses WHERE registry = $1")
                .bind(registry)
                .fetch_optional(&mut *change)
                .await?;
            let former = former.filter(|former| former != address);
            if former.is_some() {
                forget(&mut change, registry).await?;
            }
            sqlx::query(
                "INSERT INTO addresses (registry, address, since) VALUES ($1, $2, $3) \
                 ON CONFLICT (registry) DO UPDATE SET address = excluded.address, since = excluded.since",
            )
            .bind(registry)
            .bind(address)
            .bind(millis(now))
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(former)
        })
        .await
    }

    /// Forgets what was remembered under a registry's name if that leads elsewhere than to `address` by now: what a run remembered
    /// that had begun before the change.
    pub async fn forget_former(&self, registry: &str, address: &str) -> Result<()> {
        if self.address(registry).await?.is_none_or(|kept| kept == address) {
            return Ok(());
        }
        self.verb("forget what was remembered of a registry", async {
            let mut change = self.0.begin().await?;
            forget(&mut change, registry).await?;
            change.commit().await
        })
        .await
    }
}
