//! Open uploads and the hash states along them: what lets a broken transfer go on.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::error::Result;
use super::rows::{count, millis, parsed, signed, time};
use super::{Store, StoredUpload, UploadId, UploadKey};
use crate::oci::HashState;
use crate::plan::Checkpoint;

/// Hash states kept per upload. At one every 8 MiB they reach 64 MiB back, more than a registry was seen to lose.
const CHECKPOINTS: i64 = 8;

macro_rules! select_uploads {
    ($rest:literal) => {
        concat!(
            "SELECT uploads.id, registry, repository, digest, size, write, acknowledged, updated_at, owner, hashed, state \
             FROM uploads LEFT JOIN checkpoints ON upload_id = uploads.id ",
            $rest,
            " ORDER BY uploads.id, hashed"
        )
    };
}

/// Uploads from rows ordered by upload, a row a checkpoint.
fn uploads(rows: &[SqliteRow]) -> sqlx::Result<Vec<StoredUpload>> {
    let mut uploads: Vec<StoredUpload> = Vec::new();
    for row in rows {
        let id = UploadId(row.try_get("id")?);
        if uploads.last().is_none_or(|last| last.id != id) {
            uploads.push(StoredUpload {
                id,
                key: UploadKey {
                    registry: row.try_get("registry")?,
                    repository: parsed(row, "repository")?,
                    digest: parsed(row, "digest")?,
                },
                size: count(row, "size")?,
                write: row.try_get("write")?,
                offset: count(row, "acknowledged")?,
                checkpoints: Vec::new(),
                used_at: time(row, "updated_at")?,
                owner: row.try_get("owner")?,
            });
        }
        let state: Option<Vec<u8>> = row.try_get("state")?;
        if let (Some(state), Some(upload)) = (state, uploads.last_mut()) {
            upload.checkpoints.push(Checkpoint {
                offset: count(row, "hashed")?,
                state: HashState::from_bytes(state),
            });
        }
    }
    Ok(uploads)
}

/// Adds a checkpoint, unless the upload was forgotten meanwhile, and drops all but the last ones. One made again at an old offset
/// counts as new: after a restart the states around the offset of now matter, not those further along.
async fn add_checkpoint(
    connection: &mut SqliteConnection,
    upload: UploadId,
    checkpoint: &Checkpoint,
) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM checkpoints WHERE upload_id = $1 AND hashed = $2")
        .bind(upload.0)
        .bind(signed(checkpoint.offset)?)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO checkpoints (upload_id, hashed, state) SELECT id, $2, $3 FROM uploads WHERE id = $1")
        .bind(upload.0)
        .bind(signed(checkpoint.offset)?)
        .bind(checkpoint.state.as_bytes())
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM checkpoints WHERE upload_id = $1 AND id NOT IN \
         (SELECT id FROM checkpoints WHERE upload_id = $1 ORDER BY id DESC LIMIT $2)",
    )
    .bind(upload.0)
    .bind(CHECKPOINTS)
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Remembers an open upload of ours, before its first byte; replaces one that we had for the same key, with its checkpoints.
    pub async fn save_upload(
        &self,
        key: &UploadKey,
        size: u64,
        write: &str,
        offset: u64,
        now: Timestamp,
    ) -> Result<UploadId> {
        self.verb("remember an upload", async {
            let mut change = self.0.begin().await?;
            let digest = key.digest.to_string();
            sqlx::query("DELETE FROM uploads WHERE registry = $1 AND repository = $2 AND digest = $3 AND owner = $4")
                .bind(&key.registry)
                .bind(key.repository.as_str())
                .bind(&digest)
                .bind(self.0.owner())
                .execute(&mut *change)
                .await?;
            let done = sqlx::query(
                "INSERT INTO uploads (registry, repository, digest, size, write, acknowledged, opened_at, updated_at, \
                 owner) VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)",
            )
            .bind(&key.registry)
            .bind(key.repository.as_str())
            .bind(&digest)
            .bind(signed(size)?)
            .bind(write)
            .bind(signed(offset)?)
            .bind(millis(now))
            .bind(self.0.owner())
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(UploadId(done.last_insert_rowid()))
        })
        .await
    }

    /// Remembers the newest location and the acknowledged offset, with the hash state there if known, in one transaction.
    /// Nothing happens where the upload was forgotten or replaced meanwhile.
    pub async fn record_offset(
        &self,
        upload: UploadId,
        write: &str,
        offset: u64,
        checkpoint: Option<&Checkpoint>,
        now: Timestamp,
    ) -> Result<()> {
        self.verb("remember how far an upload came", async {
            let mut change = self.0.begin().await?;
            sqlx::query("UPDATE uploads SET write = $2, acknowledged = $3, updated_at = $4 WHERE id = $1")
                .bind(upload.0)
                .bind(write)
                .bind(signed(offset)?)
                .bind(millis(now))
                .execute(&mut *change)
                .await?;
            if let Some(checkpoint) = checkpoint {
                add_checkpoint(&mut change, upload, checkpoint).await?;
            }
            change.commit().await
        })
        .await
    }

    /// Remembers a hash state while streaming; the last eight are kept. Nothing happens where the upload was forgotten or
    /// replaced meanwhile.
    pub async fn record_checkpoint(&self, upload: UploadId, checkpoint: &Checkpoint, now: Timestamp) -> Result<()> {
        self.verb("remember a hash state", async {
            let mut change = self.0.begin().await?;
            sqlx::query("UPDATE uploads SET updated_at = $2 WHERE id = $1")
                .bind(upload.0)
                .bind(millis(now))
                .execute(&mut *change)
                .await?;
            add_checkpoint(&mut change, upload, checkpoint).await?;
            change.commit().await
        })
        .await
    }

    /// The open upload for a key to go on with: ours, or the furthest of those whose process has ended, which becomes ours. Those of
    /// processes that live are left alone.
    pub async fn upload(&self, key: &UploadKey) -> Result<Option<StoredUpload>> {
        let mut found = self
            .verb("read an upload", async {
                let rows = sqlx::query(select_uploads!(
                    "WHERE registry = $1 AND repository = $2 AND digest = $3"
                ))
                .bind(&key.registry)
                .bind(key.repository.as_str())
                .bind(key.digest.to_string())
                .fetch_all(&mut *self.0.reader().await?)
                .await?;
                uploads(&rows)
            })
            .await?;
        let is_ours = |upload: &StoredUpload| upload.owner == Some(self.0.owner());
        if let Some(ours) = found.iter().position(is_ours) {
            return Ok(Some(found.swap_remove(ours)));
        }
        found.sort_by_key(|upload| std::cmp::Reverse(upload.offset));
        for upload in &found {
            if let Some(taken) = self.take_over(upload).await? {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    /// Makes an upload ours, as it stands now; `None` where its process lives, or it was forgotten or taken meanwhile.
    async fn take_over(&self, upload: &StoredUpload) -> Result<Option<StoredUpload>> {
        let Some(_ended) = self.0.ended(upload.owner) else {
            return Ok(None);
        };
        self.verb("take up an upload", async {
            let mut change = self.0.begin().await?;
            let done = sqlx::query("UPDATE OR IGNORE uploads SET owner = $2 WHERE id = $1 AND owner IS $3")
                .bind(upload.id.0)
                .bind(self.0.owner())
                .bind(upload.owner)
                .execute(&mut *change)
                .await?;
            if done.rows_affected() == 0 {
                return Ok(None);
            }
            let rows = sqlx::query(select_uploads!("WHERE uploads.id = $1"))
                .bind(upload.id.0)
                .fetch_all(&mut *change)
                .await?;
            let taken = uploads(&rows)?.pop();
            change.commit().await?;
            Ok(taken)
        })
        .await
    }

    /// What was left under our number is nobody's: whoever needs it takes it up, though a process has the number again.
    pub(super) async fn disown_uploads(&self) -> Result<()> {
        self.verb("leave the uploads of a process that has ended", async {
            let mut change = self.0.begin().await?;
            sqlx::query("UPDATE uploads SET owner = NULL WHERE owner = $1")
                .bind(self.0.owner())
                .execute(&mut *change)
                .await?;
            change.commit().await
        })
        .await
    }

    /// All open uploads.
    pub async fn uploads(&self) -> Result<Vec<StoredUpload>> {
        self.verb("list uploads", async {
            let rows = sqlx::query(select_uploads!(""))
                .fetch_all(&mut *self.0.reader().await?)
                .await?;
            uploads(&rows)
        })
        .await
    }

    /// Forgets an upload (finished or gone) and its checkpoints.
    pub async fn forget_upload(&self, upload: UploadId) -> Result<()> {
        self.verb("forget an upload", async {
            let mut change = self.0.begin().await?;
            sqlx::query("DELETE FROM uploads WHERE id = $1")
                .bind(upload.0)
                .execute(&mut *change)
                .await?;
            change.commit().await
        })
        .await
    }

    /// Forgets an upload that was not used since it was read. False where it was, or a process that lives has it.
    pub async fn forget_idle_upload(&self, upload: &StoredUpload) -> Result<bool> {
        let Some(_ended) = self.0.ended(upload.owner) else {
            return Ok(false);
        };
        self.verb("forget an old upload", async {
            let mut change = self.0.begin().await?;
            let done = sqlx::query("DELETE FROM uploads WHERE id = $1 AND owner IS $2 AND updated_at = $3")
                .bind(upload.id.0)
                .bind(upload.owner)
                .bind(millis(upload.used_at))
                .execute(&mut *change)
                .await?;
            change.commit().await?;
            Ok(done.rows_affected() > 0)
        })
        .await
    }
}
