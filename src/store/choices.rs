//! What policies made of source digests, and when attachments were compared.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Store;
use super::error::Result;
use super::rows::{millis, parsed, time};
use crate::oci::{Digest, RepositoryName};

impl Store {
    /// What a policy made of a source digest: JSON text as given to [`Store::remember_choice`].
    pub async fn choice(&self, source: &Digest, policy: &str) -> Result<Option<String>> {
        self.verb("read what a policy chose", async {
            sqlx::query_scalar("SELECT choice FROM choices WHERE source = $1 AND policy = $2")
                .bind(source.to_string())
                .bind(policy)
                .fetch_optional(&mut *self.0.reader().await?)
                .await
        })
        .await
    }

    /// Remembers what a policy made of a source digest, as JSON text.
    pub async fn remember_choice(&self, source: &Digest, policy: &str, choice: &str, now: Timestamp) -> Result<()> {
        self.verb("remember what a policy chose", async {
            let mut change = self.0.begin().await?;
            sqlx::query(
                "INSERT INTO choices (source, policy, choice, made_at) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (source, policy) DO UPDATE SET choice = excluded.choice, made_at = excluded.made_at",
            )
            .bind(source.to_string())
            .bind(policy)
            .bind(choice)
            .bind(millis(now))
            .execute(&mut *change)
            .await?;
            change.commit().await
        })
        .await
    }

    /// When the attachments of these images were last compared at a destination repository.
    pub async fn attachments_checked(
        &self,
        registry: &str,
        repository: &RepositoryName,
    ) -> Result<BTreeMap<Digest, Timestamp>> {
        self.verb("read when attachments were compared", async {
            let rows = sqlx::query("SELECT subject, at FROM attachment_checks WHERE registry = $1 AND repository = $2")
                .bind(registry)
                .bind(repository.as_str())
                .fetch_all(&mut *self.0.reader().await?)
                .await?;
            rows.iter()
                .map(|row| Ok((parsed(row, "subject")?, time(row, "at")?)))
                .collect()
        })
        .await
    }

    /// Keeps when they were compared.
    pub async fn record_attachments_checked(
        &self,
        registry: &str,
        repository: &RepositoryName,
        subject: &Digest,
        now: Timestamp,
    ) -> Result<()> {
        self.verb("record that attachments were compared", async {
            let mut change = self.0.begin().await?;
            sqlx::query(
                "INSERT INTO attachment_checks (registry, repository, subject, at) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (registry, repository, subject) DO UPDATE SET at = excluded.at",
            )
            .bind(registry)
            .bind(repository.as_str())
            .bind(subject.to_string())
            .bind(millis(now))
            .execute(&mut *change)
            .await?;
            change.commit().await
        })
        .await
    }
}
