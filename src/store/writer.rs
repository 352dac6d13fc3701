//! Writing: verbs take turns at one connection, and those that meet there share one commit.
//!
//! A commit waits for the disk, which takes longer than all else that a verb does. So a verb that is done while others wait
//! leaves the transaction open to them and queues up once more, behind them; the first to come back commits for all, and all
//! return then. Nobody waits for company: a verb that is alone commits at once, and the next ones gather meanwhile.
//!
//! There is no task that does this for the verbs, so any of them may be dropped at any time. What a verb did is undone by itself
//! (a savepoint), whoever is next finds out how the one before left the connection, and the last to leave an open
//! transaction rolls it back.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteTransactionManager};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};
// The guard that sqlx has for a transaction cannot outlive one loan of the connection; this is what the guard itself uses.
use sqlx_core::transaction::TransactionManager;
use tokio::sync::{Mutex, MutexGuard, watch};

use super::error::SharedCause;

/// What became of a transaction.
type Outcome = Result<(), SharedCause>;

/// The connection that writes, and the verbs that want it.
#[derive(Debug)]
pub(super) struct Writer {
    /// How it is opened again should it get stuck.
    options: SqliteConnectOptions,
    line: Mutex<Line>,
    /// Verbs that wait for their turn to write.
    waiting: AtomicUsize,
    /// Verbs from before their turn until they are told what became of it.
    visitors: AtomicUsize,
}

#[derive(Debug)]
struct Line {
    /// `None` once closed.
    connection: Option<SqliteConnection>,
    /// The open transaction, where a verb is done and waits for its commit: where those that do are told.
    open: Option<watch::Sender<Option<Outcome>>>,
    left: Left,
}

/// How the one before left the connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    /// Every command was answered.
    Clean,
    /// Something failed or was dropped: commands may be under way, and SQLite may have ended the transaction by itself.
    Unknown,
    /// Whoever committed was dropped before it had the answer.
    Committing,
}

/// The connection for one alone.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    line: MutexGuard<'a, Line>,
    /// After the lock, which must be free when this is dropped.
    visit: Visit<'a>,
}

/// What one verb changes: wholly on disk once [`Change::commit`] returned, undone where it is dropped before.
#[derive(Debug)]
pub(super) struct Change<'a> {
    /// `None` once it waits for the commit.
    turn: Option<Turn<'a>>,
}

/// A verb is here. The last one to leave rolls back what nobody waits for any more, or it would keep other processes from writing.
#[derive(Debug)]
struct Visit<'a>(&'a Writer);

/// One more while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl Writer {
    pub(super) fn new(connection: SqliteConnection, options: SqliteConnectOptions) -> Self {
        Self {
            options,
            line: Mutex::new(Line {
                connection: Some(connection),
                open: None,
                left: Left::Clean,
            }),
            waiting: AtomicUsize::new(0),
            visitors: AtomicUsize::new(0),
        }
    }

    /// Waits for a turn and begins a change.
    pub(super) async fn begin(&self) -> sqlx::Result<Change<'_>> {
        let mut turn = self.turn().await?;
        // IMMEDIATE: a transaction that begins by reading could not become a writing one while another process writes.
        let statement = match turn.line.open {
            None => Some("BEGIN IMMEDIATE".into_sql_str()),
            Some(_) => None,
        };
        turn.line.left = Left::Unknown;
        // Where this is dropped, sqlx rolls back what it began.
        SqliteTransactionManager::begin(&mut turn, statement).await?;
        Ok(Change { turn: Some(turn) })
    }

    /// Waits for a turn at the connection with no transaction open on it.
    pub(super) async fn alone(&self) -> sqlx::Result<Turn<'_>> {
        let mut turn = self.turn().await?;
        if turn.line.open.is_some() {
            // Those who wait for it are told.
            let _ = turn.line.commit().await;
            turn.line.ready(&self.options).await?;
        }
        turn.line.left = Left::Unknown;
        Ok(turn)
    }

    /// Waits for verbs under way, then gives the connection away; `None` where that was done before.
    pub(super) async fn close(&self) -> Option<SqliteConnection> {
        self.alone().await.ok()?.line.connection.take()
    }

    async fn turn(&self) -> sqlx::Result<Turn<'_>> {
        let visit = Visit::new(self);
        let waiting = Counted::new(&self.waiting);
        let mut line = self.line.lock().await;
        drop(waiting);
        line.ready(&self.options).await?;
        Ok(Turn { line, visit })
    }
}

impl Line {
    /// Makes sure that the connection is in the state that we take it to be in.
    async fn ready(&mut self, options: &SqliteConnectOptions) -> sqlx::Result<()> {
        loop {
            let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
            if self.left == Left::Clean {
                return Ok(());
            }
            // Waits for what was sent by those who were dropped.
            let alive = connection.ping().await.is_ok();
            let depth = SqliteTransactionManager::get_transaction_depth(connection);
            match (alive, depth) {
                (true, 0) if self.left == Left::Committing => {
                    // It was done. sqlx ignores the next rollback after a commit whose answer nobody took: this is the one.
                    SqliteTransactionManager::start_rollback(connection);
                    self.tell(Ok(()));
                }
                (true, 1) if self.left == Left::Committing => {
                    let _ = self.commit().await;
                    continue;
                }
                (true, depth) if depth == usize::from(self.open.is_some()) => {}
                // Where SQLite itself rolls a transaction back (disk full, I/O error), sqlx goes on believing in it and
                // refuses the next one for good.
                _ => {
                    *connection = options.connect().await?;
                    self.tell(Err(SharedCause::broken_off()));
                }
            }
            self.left = Left::Clean;
        }
    }

    /// Commits the open transaction and tells all who wait for it.
    async fn commit(&mut self) -> Outcome {
        let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed);
        let connection = connection.map_err(SharedCause::from)?;
        self.left = Left::Committing;
        let outcome = SqliteTransactionManager::commit(connection).await;
        self.left = Left::Clean;
        if outcome.is_err() {
            SqliteTransactionManager::start_rollback(connection);
            self.left = Left::Unknown;
        }
        let outcome = outcome.map_err(SharedCause::from);
        self.tell(outcome.clone());
        outcome
    }

    fn tell(&mut self, outcome: Outcome) {
        if let Some(open) = self.open.take() {
            open.send_replace(Some(outcome));
        }
    }

    /// The outcome that `told` waits for, committing where nobody did.
    async fn settle(&mut self, options: &SqliteConnectOptions, told: &watch::Receiver<Option<Outcome>>) -> Outcome {
        let ready = self.ready(options).await.map_err(SharedCause::from);
        let outcome = told.borrow().clone();
        match (outcome, ready) {
            (Some(outcome), _) => outcome,
            (None, Err(cause)) => Err(cause),
            (None, Ok(())) => self.commit().await,
        }
    }
}

impl Change<'_> {
    /// Returns once the change is on disk, maybe together with others.
    pub(super) async fn commit(mut self) -> sqlx::Result<()> {
        if let Some(turn) = &mut self.turn
            && turn.line.open.is_some()
        {
            // Ends the savepoint.
            SqliteTransactionManager::commit(turn).await?;
        }
        let Some(Turn { mut line, visit }) = self.turn.take() else {
            return Ok(());
        };
        let writer = visit.0;
        line.left = Left::Clean;
        let mut told = line.open.get_or_insert_with(|| watch::Sender::new(None)).subscribe();
        let outcome = if writer.waiting.load(Ordering::Relaxed) == 0 {
            let outcome = line.commit().await;
            drop(line);
            outcome
        } else {
            drop(line);
            tokio::select! {
                biased;
                Some(outcome) = outcome(&mut told) => outcome,
                mut line = writer.line.lock() => line.settle(&writer.options, &told).await,
            }
        };
        drop(visit);
        Ok(outcome?)
    }
}

/// Waits until a transaction's outcome is told.
async fn outcome(told: &mut watch::Receiver<Option<Outcome>>) -> Option<Outcome> {
    told.wait_for(Option::is_some).await.ok()?.clone()
}

impl<'a> Visit<'a> {
    fn new(writer: &'a Writer) -> Self {
        writer.visitors.fetch_add(1, Ordering::AcqRel);
        Self(writer)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        if self.0.visitors.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        // Only verbs that are here hold the lock. Where we do not get it, somebody has come meanwhile, and leaves after us.
        let Ok(mut line) = self.0.line.try_lock() else { return };
        if line.open.take().is_some()
            && let Some(connection) = &mut line.connection
        {
            SqliteTransactionManager::start_rollback(connection);
            line.left = Left::Unknown;
        }
    }
}

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.line.left = Left::Unknown;
            SqliteTransactionManager::start_rollback(turn);
        }
    }
}

impl Deref for Turn<'_> {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        self.line.connection.as_ref().expect("a closed one is not lent out")
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.line.connection.as_mut().expect("a closed one is not lent out")
    }
}

impl Deref for Change<'_> {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        self.turn.as_ref().expect("taken only by its end")
    }
}

impl DerefMut for Change<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.turn.as_mut().expect("taken only by its end")
    }
}
