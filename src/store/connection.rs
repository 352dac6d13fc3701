//! Opening the file, one connection that writes, a few that read.
//!
//! No pool of sqlx: its time-outs run on tokio's clock, which tests hold still, and its upkeep wakes an idle daemon.

use std::fs::OpenOptions;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::{DAMAGED, Result, StoreError, is_busy, read_only};
use super::owner::{Ended, Owner};
use super::writer::{Change, Turn, Writer};
use super::{StateLock, beside};

/// The schema, built into the program. A file added to the folder is seen when this file is compiled again.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations");

/// SQLite 3.7.0 to 3.51.2 can damage a WAL database that two connections use (<https://www.sqlite.org/wal.html>, the
/// WAL-reset bug).
const OLDEST_SQLITE: [u32; 3] = [3, 51, 3];

/// How long a statement waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Switching a new file to WAL does not wait for another process by itself; so we do, for as long as [`BUSY_TIMEOUT`].
const OPEN_ATTEMPTS: u32 = 50;
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// The log shrinks to this when it starts over; a large transaction makes it grow beyond for a while.
const JOURNAL_LIMIT: &str = "67108864";

/// Connections that read at a time. Each is a thread and up to 2 MiB of cache.
const READERS: u32 = 3;

/// Rows that `PRAGMA optimize` looks at per index, as <https://www.sqlite.org/lang_analyze.html> recommends.
const ANALYSIS_LIMIT: u32 = 400;

#[derive(Debug)]
pub(super) struct Connections {
    path: PathBuf,
    owner: Owner,
    /// `None` where the database is open for reading only.
    writer: Option<Writer>,
    idle_readers: SyncMutex<Vec<SqliteConnection>>,
    /// Connections of a database that is only read, which serve one verb each and are closed at its end: one that is
    /// merely dropped closes some time later, and a writer that ends meanwhile leaves its log behind.
    used_readers: SyncMutex<Vec<SqliteConnection>>,
    readers: Semaphore,
}

/// A connection that reads, lent out.
pub(super) struct Reader<'a> {
    connection: Option<SqliteConnection>,
    home: &'a Connections,
    _permit: SemaphorePermit<'a>,
}

impl Connections {
    /// Opens or creates the file and brings its schema up to date.
    pub(super) async fn open(path: &Path, owner: Owner) -> Result<Self> {
        prepare_file(path)?;
        let unclean = was_left_open(path);
        let options = options(path)?
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("journal_size_limit", JOURNAL_LIMIT)
            .optimize_on_close(true, ANALYSIS_LIMIT);
        let mut writer = connect_patiently(&options)
            .await
            .map_err(|cause| StoreError::while_opening(path, cause))?;
        check_library(path, &mut writer).await?;
        if unclean {
            tracing::info!(path = %path.display(), "the state database was not closed last time: checking it");
            check_integrity(path, &mut writer).await?;
        }
        migrate(path, &mut writer).await?;
        Ok(Self {
            path: path.to_owned(),
            owner,
            writer: Some(Writer::new(writer, options)),
            idle_readers: SyncMutex::default(),
            used_readers: SyncMutex::default(),
            readers: Semaphore::new(READERS as usize),
        })
    }

    /// Opens the file for reading; `None` where there is none, or nothing in it yet.
    pub(super) async fn open_read_only(path: &Path) -> Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                return Err(StoreError::file(path, std::io::ErrorKind::IsADirectory.into()));
            }
            // What a process that died while it created the database leaves behind; where there is a log, it holds the rest.
            Ok(found) if found.len() == 0 && !was_left_open(path) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::file(path, error)),
        }
        let store = Self {
            path: path.to_owned(),
            owner: Owner::of_state_lock(),
            writer: None,
            idle_readers: SyncMutex::default(),
            used_readers: SyncMutex::default(),
            readers: Semaphore::new(READERS as usize),
        };
        let opening = |cause| StoreError::while_opening(path, cause);
        let mut reader = store.reader().await.map_err(opening)?;
        check_library(path, &mut reader).await?;
        let ours = tables(&mut reader).await.map_err(opening)?;
        if ours.is_empty() {
            return Ok(None);
        }
        refuse_foreign(path, &ours)?;
        let found: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations ORDER BY version")
            .fetch_all(&mut *reader)
            .await
            .map_err(opening)?;
        drop(reader);
        let newest = newest_migration();
        match found.last() {
            Some(&version) if version > newest => Err(StoreError::Newer { path: path.to_owned() }),
            Some(&version) if version == newest => Ok(Some(store)),
            _ => Err(StoreError::open(
                path,
                "it was made by an older version of transship: run `transship sync` or the daemon once to bring it up to date",
                None,
            )),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of this process among those that use the database.
    pub(super) fn owner(&self) -> u32 {
        self.owner.number()
    }

    /// As [`Owner::ended`].
    pub(super) fn ended(&self, owner: Option<u32>) -> Option<Ended> {
        self.owner.ended(&self.path, owner)
    }

    /// Begins to change something; waits for its turn.
    pub(super) async fn begin(&self) -> sqlx::Result<Change<'_>> {
        self.writer.as_ref().ok_or_else(read_only)?.begin().await
    }

    /// The connection that writes, with no transaction open on it; waits for its turn. For what is no change of rows.
    pub(super) async fn writer(&self) -> sqlx::Result<Turn<'_>> {
        self.writer.as_ref().ok_or_else(read_only)?.alone().await
    }

    /// A connection that reads; waits while all are lent out.
    pub(super) async fn reader(&self) -> sqlx::Result<Reader<'_>> {
        let permit = self.readers.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect_reader().await?,
        };
        Ok(Reader {
            connection: Some(connection),
            home: self,
            _permit: permit,
        })
    }

    async fn connect_reader(&self) -> sqlx::Result<SqliteConnection> {
        let options = options(&self.path)
            .map_err(|error| sqlx::Error::Configuration(error.into()))?
            .read_only(true);
        // A database in WAL mode makes a log and its index when it is opened, even for reading. Where there is no log, no
        // process has the database open, and it can be read as a file that does not change. A writer that starts within
        // the one verb that this connection is for could be missed; it is opened anew for each.
        let immutable = self.writer.is_none() && !beside(&self.path, "-wal").exists();
        options.immutable(immutable).connect().await
    }

    /// Closes the connections that served their one verb.
    pub(super) async fn close_used(&self) {
        let used = std::mem::take(&mut *self.used_readers.lock().unwrap_or_else(PoisonError::into_inner));
        for reader in used {
            self.close_connection(reader).await;
        }
    }

    /// Waits for verbs under way, then closes.
    pub(super) async fn close(&self) {
        if let Ok(permits) = self.readers.acquire_many(READERS).await {
            self.readers.close();
            drop(permits);
        }
        let idle = std::mem::take(&mut *self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner));
        for reader in idle {
            self.close_connection(reader).await;
        }
        // Last, as only the last connection writes the log back into the file and removes it.
        if let Some(writer) = &self.writer
            && let Some(writer) = writer.close().await
        {
            self.close_connection(writer).await;
        }
    }

    async fn close_connection(&self, connection: SqliteConnection) {
        if let Err(error) = connection.close().await {
            // Nothing is lost: every verb was on disk when it returned.
            tracing::warn!(path = %self.path.display(), %error, "the state database did not close cleanly");
        }
    }
}

impl Deref for Reader<'_> {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        self.connection.as_ref().expect("taken only when dropped")
    }
}

impl DerefMut for Reader<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect("taken only when dropped")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if self.home.writer.is_some() {
            let mut idle = self.home.idle_readers.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(connection);
        } else {
            let mut used = self.home.used_readers.lock().unwrap_or_else(PoisonError::into_inner);
            used.push(connection);
        }
    }
}

/// What holds for every connection.
fn options(path: &Path) -> Result<SqliteConnectOptions> {
    // Absolute, so that SQLite takes neither `:memory:` nor `file:…` for anything but a file's name.
    let file = std::path::absolute(path).map_err(|error| StoreError::file(path, error))?;
    Ok(SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging())
}

/// Makes the directory and an empty file, both for this user alone; says what is wrong before SQLite says it less well.
fn prepare_file(path: &Path) -> Result<()> {
    super::lock::create_directory(path).map_err(|error| StoreError::file(path, error))?;
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = opened.map_err(|error| StoreError::file(path, error))?;
    // Made by a copy, a restored backup or an administrator: what it tells is for this user alone. SQLite gives the files beside it the
    // same mode when it makes them; those that are there are tightened too.
    tighten(&file, path);
    for end in ["-wal", "-shm"] {
        let path = beside(path, end);
        if let Ok(file) = OpenOptions::new().read(true).open(&path) {
            tighten(&file, &path);
        }
    }
    Ok(())
}

/// Takes the rights of group and others away.
fn tighten(file: &std::fs::File, path: &Path) {
    let done = file.metadata().and_then(|found| {
        let mode = found.permissions().mode();
        if mode & 0o077 == 0 {
            return Ok(());
        }
        file.set_permissions(std::fs::Permissions::from_mode(mode & 0o700))
    });
    if let Err(error) = done {
        // Another user's file, or a file system without modes: it can be used all the same.
        tracing::warn!(path = %path.display(), %error, "others may read the state, and that could not be changed");
    }
}

/// True where a log with content lies beside the file and no other process is at work on it. The log is the mark of an unclean stop: the last
/// connection to close removes it, and what a killed process leaves is there whoever else opened and closed the file meanwhile.
fn was_left_open(path: &Path) -> bool {
    let log = std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let elsewhere = || {
        StateLock::holder(path)
            .ok()
            .flatten()
            .is_some_and(|holder| holder.pid != Some(std::process::id()))
    };
    log && !elsewhere()
}

async fn connect_patiently(options: &SqliteConnectOptions) -> sqlx::Result<SqliteConnection> {
    let mut attempt = 1;
    loop {
        match options.connect().await {
            Err(error) if is_busy(&error) && attempt < OPEN_ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            done => return done,
        }
    }
}

async fn check_library(path: &Path, connection: &mut SqliteConnection) -> Result<()> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(connection)
        .await
        .map_err(|cause| StoreError::while_opening(path, cause))?;
    if is_old(&version) {
        let message = format!("SQLite {version} can damage it: build transship with its own SQLite, 3.51.3 or newer");
        return Err(StoreError::open(path, message, None));
    }
    Ok(())
}

/// True for versions older than [`OLDEST_SQLITE`], and for what is no version.
pub(super) fn is_old(version: &str) -> bool {
    let parts: std::result::Result<Vec<u32>, _> = version.split('.').map(str::parse).collect();
    parts.map_or(true, |parts| parts.as_slice() < OLDEST_SQLITE.as_slice())
}

async fn check_integrity(path: &Path, connection: &mut SqliteConnection) -> Result<()> {
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await
        .map_err(|cause| StoreError::while_opening(path, cause))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(StoreError::open(path, format!("{DAMAGED} ({verdict})"), None))
}

async fn tables(connection: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .fetch_all(connection)
        .await
}

/// Refuses a database that another program made, before we add a table to it.
fn refuse_foreign(path: &Path, tables: &[String]) -> Result<()> {
    if tables.is_empty() || tables.iter().any(|name| name == "_sqlx_migrations") {
        return Ok(());
    }
    Err(StoreError::open(
        path,
        "it is the database of another program: give another path with --state",
        None,
    ))
}

fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Brings the schema up to date, all or nothing, one process at a time.
async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<()> {
    let opening = |cause| StoreError::while_opening(path, cause);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(opening)?;
    let found = tables(&mut transaction).await.map_err(opening)?;
    refuse_foreign(path, &found)?;
    match MIGRATIONS.run_direct(None, &mut *transaction, false).await {
        Ok(()) => transaction.commit().await.map_err(opening),
        Err(MigrateError::VersionMissing(version)) if version > newest_migration() => {
            Err(StoreError::Newer { path: path.to_owned() })
        }
        Err(MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) => Err(opening(cause)),
        Err(other) => Err(StoreError::open(
            path,
            "its tables are not those of any version of transship: give another path with --state, or move the file away",
            Some(sqlx::Error::Migrate(Box::new(other))),
        )),
    }
}
