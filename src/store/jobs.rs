//! Jobs: one image to one destination within a run.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::error::Result;
use super::rows::{count, json, millis, parsed, parsed_or_none, signed, time, time_or_none};
use super::{FinishedJob, JobFilter, JobId, JobRow, NewJob, RunId, Store};
use crate::oci::Digest;
use crate::plan::ErrorKind;

/// Rows that travel to SQLite in one text.
const BATCH: usize = 1_000;

/// Every kind, to read its word back.
pub(super) const KINDS: [ErrorKind; 17] = [
    ErrorKind::Network,
    ErrorKind::Throttled,
    ErrorKind::Server,
    ErrorKind::Corrupt,
    ErrorKind::Unauthorized,
    ErrorKind::Denied,
    ErrorKind::NotFound,
    ErrorKind::Conflict,
    ErrorKind::Invalid,
    ErrorKind::MissingContent,
    ErrorKind::Unsupported,
    ErrorKind::Quota,
    ErrorKind::TooLarge,
    ErrorKind::Tls,
    ErrorKind::Config,
    ErrorKind::Local,
    ErrorKind::Cancelled,
];

macro_rules! select_jobs {
    ($rest:literal) => {
        concat!(
            "SELECT jobs.id, run_id, rule, source_registry, source_repository, reference, destination_registry, \
             destination_repository, digest, jobs.outcome, kind, status, code, message, attempts, bytes_written, \
             jobs.started_at, jobs.finished_at, next_attempt_at FROM jobs JOIN runs ON runs.id = run_id ",
            $rest
        )
    };
}

fn job_row(row: &SqliteRow) -> sqlx::Result<JobRow> {
    Ok(JobRow {
        id: JobId(row.try_get("id")?),
        run: RunId(row.try_get("run_id")?),
        rule: row.try_get("rule")?,
        source_registry: row.try_get("source_registry")?,
        source_repository: parsed(row, "source_repository")?,
        reference: row.try_get("reference")?,
        destination_registry: row.try_get("destination_registry")?,
        destination_repository: parsed(row, "destination_repository")?,
        digest: parsed_or_none(row, "digest")?,
        outcome: parsed_or_none(row, "outcome")?,
        kind: kind(row)?,
        status: row.try_get("status")?,
        code: row.try_get("code")?,
        message: row.try_get("message")?,
        attempts: count(row, "attempts")?,
        bytes_written: count(row, "bytes_written")?,
        started_at: time(row, "started_at")?,
        finished_at: time_or_none(row, "finished_at")?,
        next_attempt_at: time_or_none(row, "next_attempt_at")?,
    })
}

/// The column `kind`, which may be empty.
pub(super) fn kind(row: &SqliteRow) -> sqlx::Result<Option<ErrorKind>> {
    let word: Option<String> = row.try_get("kind")?;
    let Some(word) = word else { return Ok(None) };
    match KINDS.into_iter().find(|kind| kind.as_str() == word) {
        Some(kind) => Ok(Some(kind)),
        None => Err(sqlx::Error::ColumnDecode {
            index: "kind".to_owned(),
            source: format!("unexpected value {word:?}").into(),
        }),
    }
}

impl Store {
    /// Adds a job, running.
    pub async fn start_job(&self, job: NewJob<'_>, now: Timestamp) -> Result<JobId> {
        self.verb("start a job", async {
            let mut change = self.0.begin().await?;
            let done = sqlx::query(
                "INSERT INTO jobs (run_id, source_registry, source_repository, reference, destination_registry, \
                 destination_repository, digest, owner, started_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(job.run.0)
            .bind(job.source_registry)
            .bind(job.source_repository.as_str())
            .bind(job.reference)
            .bind(job.destination_registry)
            .bind(job.destination_repository.as_str())
            .bind(job.digest.map(ToString::to_string))
            .bind(job.owner)
            .bind(millis(now))
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(JobId(done.last_insert_rowid()))
        })
        .await
    }

    /// Adds jobs that need nothing done (in step, kept, skipped …), in one transaction.
    pub async fn record_settled_jobs(&self, jobs: &[(NewJob<'_>, FinishedJob)], now: Timestamp) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        self.verb("record jobs", async {
            let mut change = self.0.begin().await?;
            for batch in jobs.chunks(BATCH) {
                let rows = batch
                    .iter()
                    .map(|(job, finished)| {
                        Ok((
                            job.run.0,
                            job.source_registry,
                            job.source_repository,
                            job.reference,
                            job.destination_registry,
                            job.destination_repository,
                            job.digest,
                            job.owner,
                            finished.outcome,
                            finished.kind,
                            finished.status,
                            &finished.code,
                            &finished.message,
                            finished.attempts,
                            signed(finished.bytes_written)?,
                            finished.next_attempt_at.map(millis),
                        ))
                    })
                    .collect::<sqlx::Result<Vec<_>>>()?;
                sqlx::query(
                    "INSERT INTO jobs (run_id, source_registry, source_repository, reference, destination_registry, \
                     destination_repository, digest, owner, outcome, kind, status, code, message, attempts, \
                     bytes_written, next_attempt_at, started_at, finished_at) \
                     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
                     value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, \
                     value ->> 14, value ->> 15, $2, $2 FROM json_each($1) ORDER BY key",
                )
                .bind(json(&rows)?)
                .bind(millis(now))
                .execute(&mut *change)
                .await?;
            }
            change.commit().await
        })
        .await
    }

    /// Ends a job. With `compared` its image's attachments were compared at the destination, under this digest of the image.
    /// An error where there is no such job.
    pub async fn finish_job(
        &self,
        job: JobId,
        finished: &FinishedJob,
        compared: Option<&Digest>,
        now: Timestamp,
    ) -> Result<()> {
        self.verb("end a job", async {
            let mut change = self.0.begin().await?;
            let done = sqlx::query(
                "UPDATE jobs SET outcome = $2, kind = $3, status = $4, code = $5, message = $6, attempts = $7, \
                 bytes_written = $8, next_attempt_at = $9, finished_at = $10, lease_until = NULL WHERE id = $1",
            )
            .bind(job.0)
            .bind(finished.outcome.as_str())
            .bind(finished.kind.map(ErrorKind::as_str))
            .bind(finished.status)
            .bind(finished.code.as_deref())
            .bind(finished.message.as_deref())
            .bind(i64::from(finished.attempts))
            .bind(signed(finished.bytes_written)?)
            .bind(finished.next_attempt_at.map(millis))
            .bind(millis(now))
            .execute(&mut *change)
            .await?;
            if done.rows_affected() == 0 {
                return Err(sqlx::Error::RowNotFound);
            }
            if let Some(subject) = compared {
                sqlx::query(
                    "INSERT INTO attachment_checks (registry, repository, subject, at) \
                     SELECT destination_registry, destination_repository, $2, $3 FROM jobs WHERE id = $1 \
                     ON CONFLICT (registry, repository, subject) DO UPDATE SET at = excluded.at",
                )
                .bind(job.0)
                .bind(subject.to_string())
                .bind(millis(now))
                .execute(&mut *change)
                .await?;
            }
            change.commit().await
        })
        .await
    }

    /// Jobs, newest first. Failed ones of all runs without those whose image was looked at again later, by the same rule for the
    /// same destination: they are mended, or failed anew.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>> {
        // A statement each, so that each can use the index made for it.
        let statement = match (filter.run, filter.failed) {
            (None, false) => select_jobs!("ORDER BY jobs.id DESC LIMIT $1"),
            // One pass over what is not older than the first failure; a search for each failure would read it all each time.
            (None, true) => select_jobs!(
                "WHERE jobs.outcome = 'failed' AND jobs.id IN (SELECT max(later.id) \
                 FROM jobs AS later JOIN runs AS later_run ON later_run.id = later.run_id \
                 WHERE later.id >= (SELECT min(id) FROM jobs WHERE outcome = 'failed') \
                 AND (later_run.rule, later.source_registry, later.source_repository, later.reference, \
                 later.destination_registry, later.destination_repository) IN (SELECT rule, source_registry, \
                 source_repository, reference, destination_registry, destination_repository \
                 FROM jobs JOIN runs ON runs.id = run_id WHERE jobs.outcome = 'failed') \
                 GROUP BY later_run.rule, later.source_registry, later.source_repository, later.reference, \
                 later.destination_registry, later.destination_repository) ORDER BY jobs.id DESC LIMIT $1"
            ),
            (Some(_), false) => select_jobs!("WHERE run_id = $2 ORDER BY jobs.id DESC LIMIT $1"),
            (Some(_), true) => {
                select_jobs!("WHERE run_id = $2 AND jobs.outcome = 'failed' ORDER BY jobs.id DESC LIMIT $1")
            }
        };
        self.verb("list jobs", async {
            // SQLite takes a negative limit for none.
            let limit = if filter.limit == 0 { -1 } else { i64::from(filter.limit) };
            let mut query = sqlx::query(statement).bind(limit);
            if let Some(run) = filter.run {
                query = query.bind(run.0);
            }
            let rows = query.fetch_all(&mut *self.0.reader().await?).await?;
            rows.iter().map(job_row).collect()
        })
        .await
    }

    /// One job.
    pub async fn job(&self, job: JobId) -> Result<Option<JobRow>> {
        self.verb("read a job", async {
            let row = sqlx::query(select_jobs!("WHERE jobs.id = $1"))
                .bind(job.0)
                .fetch_optional(&mut *self.0.reader().await?)
                .await?;
            row.as_ref().map(job_row).transpose()
        })
        .await
    }
}
