//! Runs: one execution of one rule each.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::error::Result;
use super::rows::{json, millis, parsed, parsed_or_none, time, time_or_none};
use super::{NewRun, RunId, RunOutcome, RunRow, Store};

macro_rules! select_runs {
    ($rest:literal) => {
        concat!(
            "SELECT id, rule, trigger, continues, outcome, started_at, finished_at, report FROM runs ",
            $rest
        )
    };
}

fn run_row(row: &SqliteRow) -> sqlx::Result<RunRow> {
    Ok(RunRow {
        id: RunId(row.try_get("id")?),
        rule: row.try_get("rule")?,
        trigger: parsed(row, "trigger")?,
        continues: row.try_get::<Option<i64>, _>("continues")?.map(RunId),
        outcome: parsed_or_none(row, "outcome")?,
        started_at: time(row, "started_at")?,
        finished_at: time_or_none(row, "finished_at")?,
        report: row.try_get("report")?,
    })
}

fn run_rows(rows: &[SqliteRow]) -> sqlx::Result<Vec<RunRow>> {
    rows.iter().map(run_row).collect()
}

impl Store {
    /// Starts a run.
    pub async fn start_run(&self, run: NewRun<'_>, now: Timestamp) -> Result<RunId> {
        self.verb("start a run", async {
            let mut change = self.0.begin().await?;
            // Not RETURNING: sqlx hands out the row before the statement has ended, which is when it is on disk.
            let done = sqlx::query("INSERT INTO runs (rule, trigger, continues, started_at) VALUES ($1, $2, $3, $4)")
                .bind(run.rule)
                .bind(run.trigger.as_str())
                .bind(run.continues.map(|run| run.0))
                .bind(millis(now))
                .execute(&mut *change)
                .await?;
            change.commit().await?;
            Ok(RunId(done.last_insert_rowid()))
        })
        .await
    }

    /// Ends a run with its report as JSON. An error where there is no such run.
    pub async fn finish_run(&self, run: RunId, outcome: RunOutcome, report: &str, now: Timestamp) -> Result<()> {
        self.verb("end a run", async {
            let mut change = self.0.begin().await?;
            let done = sqlx::query("UPDATE runs SET outcome = $2, report = $3, finished_at = $4 WHERE id = $1")
                .bind(run.0)
                .bind(outcome.as_str())
                .bind(report)
                .bind(millis(now))
                .execute(&mut *change)
                .await?;
            if done.rows_affected() == 0 {
                return Err(sqlx::Error::RowNotFound);
            }
            change.commit().await
        })
        .await
    }

    /// Closes runs (and their open jobs) that a dead process left open, as `interrupted`; gives them, oldest first.
    /// To be called under the [`super::StateLock`] before the first run is started: every open run then is a dead one.
    pub async fn close_interrupted(&self, now: Timestamp) -> Result<Vec<RunRow>> {
        self.verb("close interrupted runs", async {
            let mut change = self.0.begin().await?;
            let open: Vec<i64> = sqlx::query_scalar("SELECT id FROM runs WHERE outcome IS NULL ORDER BY id")
                .fetch_all(&mut *change)
                .await?;
            sqlx::query(
                "UPDATE jobs SET outcome = 'interrupted', finished_at = $1, lease_until = NULL WHERE outcome IS NULL",
            )
            .bind(millis(now))
            .execute(&mut *change)
            .await?;
            sqlx::query("UPDATE runs SET outcome = 'interrupted', finished_at = $1 WHERE outcome IS NULL")
                .bind(millis(now))
                .execute(&mut *change)
                .await?;
            let rows = sqlx::query(select_runs!(
                "WHERE id IN (SELECT value FROM json_each($1)) ORDER BY id"
            ))
            .bind(json(&open)?)
            .fetch_all(&mut *change)
            .await?;
            let closed = run_rows(&rows)?;
            change.commit().await?;
            Ok(closed)
        })
        .await
    }

    /// The newest `limit` runs, newest first.
    pub async fn runs(&self, limit: u32) -> Result<Vec<RunRow>> {
        self.verb("list runs", async {
            let rows = sqlx::query(select_runs!("ORDER BY id DESC LIMIT $1"))
                .bind(i64::from(limit))
                .fetch_all(&mut *self.0.reader().await?)
                .await?;
            run_rows(&rows)
        })
        .await
    }

    /// One run.
    pub async fn run(&self, run: RunId) -> Result<Option<RunRow>> {
        self.verb("read a run", async {
            let row = sqlx::query(select_runs!("WHERE id = $1"))
                .bind(run.0)
                .fetch_optional(&mut *self.0.reader().await?)
                .await?;
            row.as_ref().map(run_row).transpose()
        })
        .await
    }

    /// The newest run of each rule, by the rule's name.
    pub async fn last_runs(&self) -> Result<Vec<RunRow>> {
        self.verb("list the last run of each rule", async {
            let rows = sqlx::query(select_runs!(
                "WHERE id IN (SELECT max(id) FROM runs GROUP BY rule) ORDER BY rule"
            ))
            .fetch_all(&mut *self.0.reader().await?)
            .await?;
            run_rows(&rows)
        })
        .await
    }

    /// When a rule last started, for missed schedules.
    pub async fn last_started(&self, rule: &str) -> Result<Option<Timestamp>> {
        self.verb("read when a rule last started", async {
            let row = sqlx::query("SELECT started_at FROM runs WHERE rule = $1 ORDER BY id DESC LIMIT 1")
                .bind(rule)
                .fetch_optional(&mut *self.0.reader().await?)
                .await?;
            row.as_ref().map(|row| time(row, "started_at")).transpose()
        })
        .await
    }

    /// Asks whichever process executes the run to stop it. False where it is not running.
    pub async fn request_cancel(&self, run: RunId) -> Result<bool> {
        self.verb("ask for a run to be cancelled", async {
            let mut change = self.0.begin().await?;
            let done = sqlx::query("UPDATE runs SET cancel_requested = 1 WHERE id = $1 AND outcome IS NULL")
                .bind(run.0)
                .execute(&mut *change)
                .await?;
            change.commit().await?;
            Ok(done.rows_affected() > 0)
        })
        .await
    }

    /// Of these runs, those for which a stop was asked.
    pub async fn cancel_requested(&self, runs: &[RunId]) -> Result<Vec<RunId>> {
        self.verb("look for cancelled runs", async {
            let ids: Vec<i64> = runs.iter().map(|run| run.0).collect();
            let found: Vec<i64> = sqlx::query_scalar(
                "SELECT id FROM runs WHERE id IN (SELECT value FROM json_each($1)) AND cancel_requested = 1 ORDER BY id",
            )
            .bind(json(&ids)?)
            .fetch_all(&mut *self.0.reader().await?)
            .await?;
            Ok(found.into_iter().map(RunId).collect())
        })
        .await
    }
}
