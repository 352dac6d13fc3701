//! What can go wrong with the state database, in words that help.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A failure of the state database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or created.
    #[error("cannot open the state database {path}: {message}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// What happened and what to do.
        message: String,
        /// The cause.
        #[source]
        cause: Option<sqlx::Error>,
    },
    /// The database was made by a newer version of transship.
    #[error("the state database {path} was made by a newer version of transship: use that version, or another --state")]
    Newer {
        /// Its path.
        path: PathBuf,
    },
    /// A statement failed.
    #[error("the state database {path} failed while trying to {verb}: {advice}")]
    Statement {
        /// Its path.
        path: PathBuf,
        /// What was tried, in words.
        verb: &'static str,
        /// What happened and what to do.
        advice: &'static str,
        /// The cause.
        #[source]
        cause: Arc<sqlx::Error>,
    },
}

pub(super) type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    pub(super) fn open(path: &Path, message: impl Into<String>, cause: Option<sqlx::Error>) -> Self {
        Self::Open {
            path: path.to_owned(),
            message: message.into(),
            cause,
        }
    }

    /// A failure of SQLite while the database was being opened.
    pub(super) fn while_opening(path: &Path, cause: sqlx::Error) -> Self {
        Self::open(path, advice(&cause), Some(cause))
    }

    /// A failure of the file system while the database was being opened.
    pub(super) fn file(path: &Path, cause: std::io::Error) -> Self {
        Self::open(path, file_advice(cause.kind()), Some(sqlx::Error::Io(cause)))
    }

    pub(super) fn statement(path: &Path, verb: &'static str, cause: sqlx::Error) -> Self {
        let cause = shared(cause);
        Self::Statement {
            path: path.to_owned(),
            verb,
            advice: advice(&cause),
            cause,
        }
    }
}

/// Why a transaction that several verbs share failed, for each of them.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct SharedCause(Arc<sqlx::Error>);

impl SharedCause {
    /// SQLite ended the transaction because of what one of the others did.
    pub(super) fn broken_off() -> Self {
        sqlx::Error::BeginFailed.into()
    }
}

impl From<sqlx::Error> for SharedCause {
    fn from(cause: sqlx::Error) -> Self {
        Self(Arc::new(cause))
    }
}

impl From<SharedCause> for sqlx::Error {
    fn from(shared: SharedCause) -> Self {
        Self::AnyDriverError(shared.into())
    }
}

/// The cause itself, where it came wrapped up for several verbs.
fn shared(cause: sqlx::Error) -> Arc<sqlx::Error> {
    match cause {
        sqlx::Error::AnyDriverError(wrapped) => match wrapped.downcast::<SharedCause>() {
            Ok(shared) => shared.0,
            Err(other) => Arc::new(sqlx::Error::AnyDriverError(other)),
        },
        cause => Arc::new(cause),
    }
}

/// SQLite's primary result code (<https://www.sqlite.org/rescode.html>): the low byte of the extended one.
pub(super) fn result_code(cause: &sqlx::Error) -> Option<i32> {
    let code = cause.as_database_error()?.code()?;
    Some(code.parse::<i32>().ok()? & 0xff)
}

/// True where another process holds the database just now.
pub(super) fn is_busy(cause: &sqlx::Error) -> bool {
    matches!(result_code(cause), Some(5 | 6))
}

pub(super) const DAMAGED: &str = "it is damaged: move it away together with its -wal and -shm files and start again; nothing that is \
     in step is copied again, lost are the history of runs and the record of which tags transship wrote";

const READ_ONLY: &str = "it was opened for reading only";

/// The error of a verb that writes, on a database opened for reading only.
pub(super) fn read_only() -> sqlx::Error {
    sqlx::Error::Configuration(READ_ONLY.into())
}

/// What happened and what to do about it.
fn advice(cause: &sqlx::Error) -> &'static str {
    match cause {
        sqlx::Error::PoolClosed => return "it was closed before",
        sqlx::Error::RowNotFound => return "it holds no such row: was it replaced or cleaned meanwhile?",
        sqlx::Error::Configuration(_) => return READ_ONLY,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            return "it holds a value that transship does not write: was it edited, or damaged?";
        }
        sqlx::Error::Encode(_) => return "a number is too large for it",
        sqlx::Error::BeginFailed => {
            return "writing to its disk failed for something else at the same time, which took this along: see that message, then try again";
        }
        sqlx::Error::Io(_) => return "its path cannot be used: choose another place with --state",
        _ => {}
    }
    match result_code(cause) {
        Some(3 | 8) => {
            "it is not writable: give this user the right to write the file and its directory, or choose another place with --state"
        }
        Some(5 | 6) => "another process has been holding it for over 5 s: find that process, then try again",
        Some(10) => "reading or writing its disk failed: see the system's log, and whether the disk is full",
        Some(11) => DAMAGED,
        Some(13) => "the disk is full: free some space on the disk that holds it, then try again",
        Some(14) => {
            "the file, or a -wal or -shm file beside it, cannot be opened: check that its directory exists and may be written"
        }
        Some(19) => "it refuses a row that breaks its rules; this is a mistake in transship",
        Some(26) => "it is not a database of transship: give another path with --state, or move the file away",
        _ => "the statement was refused",
    }
}

/// What to do where the operating system refuses a file.
pub(super) fn file_advice(kind: std::io::ErrorKind) -> &'static str {
    use std::io::ErrorKind as E;
    match kind {
        E::PermissionDenied => "this user may not write there: give it the right, or choose another place with --state",
        E::ReadOnlyFilesystem => "the file system is mounted read-only: choose another place with --state",
        E::StorageFull | E::QuotaExceeded => "the disk is full: free some space, or choose another place with --state",
        E::IsADirectory => "it is a directory: give the path of a file in it",
        E::NotADirectory | E::AlreadyExists => {
            "part of its path is a file, not a directory: choose another place with --state"
        }
        E::Unsupported => "its file system knows no locks: choose another place with --state",
        _ => "the operating system refuses it: choose another place with --state",
    }
}
