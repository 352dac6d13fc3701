//! The lock that `daemon` and `sync` hold on the state.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::file_advice;

/// Which process holds the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id, where it could be read.
    pub pid: Option<u32>,
    /// Its command (`sync`, `daemon`), where it could be read.
    pub command: Option<String>,
}

/// Held while it lives; the operating system drops it when the process dies, however it dies.
#[derive(Debug)]
pub struct StateLock {
    /// Open for as long as the lock is held: closing the file gives it back.
    _file: File,
}

/// [`StateLock::holder`] takes a shared lock for an instant to see whether it could: whoever wants the real one in that
/// instant looks again for this long before it believes that somebody holds it.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// The lock file has one short line; anything longer is not ours.
const LINE_LIMIT: u64 = 256;

impl StateLock {
    /// Takes the lock beside the database at `path`; `Ok(Err(holder))` where another process holds it.
    ///
    /// The lock is on `<path>.lock`, which stays when the lock is given back: were it removed, two processes could hold
    /// locks on two files of the same name.
    /// # Errors
    /// The lock file cannot be made, or the file system knows no locks.
    pub fn acquire(path: &Path, command: &str) -> io::Result<Result<Self, Holder>> {
        Self::try_acquire(path, command).map_err(|error| explain(&lock_path(path), &error))
    }

    fn try_acquire(path: &Path, command: &str) -> io::Result<Result<Self, Holder>> {
        create_directory(path)?;
        let mut file = open_lock_file(&lock_path(path))?;
        let first = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if first.elapsed() < SECOND_LOOK => std::thread::yield_now(),
                Err(TryLockError::WouldBlock) => return Ok(Err(read_holder(&mut file))),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        write_holder(&mut file, command)?;
        Ok(Ok(Self { _file: file }))
    }

    /// Who holds the lock, without taking it.
    /// # Errors
    /// The lock file cannot be read, or the file system knows no locks.
    pub fn holder(path: &Path) -> io::Result<Option<Holder>> {
        Self::try_holder(path).map_err(|error| explain(&lock_path(path), &error))
    }

    fn try_holder(path: &Path) -> io::Result<Option<Holder>> {
        let mut file = match File::open(lock_path(path)) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => {
                file.unlock()?;
                Ok(None)
            }
            Err(TryLockError::WouldBlock) => Ok(Some(read_holder(&mut file))),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// `<path>.lock`.
fn lock_path(path: &Path) -> PathBuf {
    super::beside(path, ".lock")
}

/// Opens or makes a lock file, for this user alone.
pub(super) fn open_lock_file(lock: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock)
}

/// Writes who holds a lock into its file.
pub(super) fn write_holder(file: &mut File, command: &str) -> io::Result<()> {
    file.set_len(0)?;
    // One write, so that whoever reads beside us sees all of it or nothing.
    file.write_all(format!("{} {command}\n", std::process::id()).as_bytes())
}

/// The same error with the lock file and what to do.
pub(super) fn explain(lock: &Path, error: &io::Error) -> io::Error {
    let advice = file_advice(error.kind());
    io::Error::new(
        error.kind(),
        format!("cannot use the lock file {}: {advice} ({error})", lock.display()),
    )
}

/// Makes the directory of `path`, with all above it that is missing, for this user alone.
pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => DirBuilder::new().recursive(true).mode(0o700).create(parent),
        _ => Ok(()),
    }
}

/// Reads `pid command`; what cannot be read stays unknown, as the lock itself says enough.
fn read_holder(file: &mut File) -> Holder {
    let mut bytes = Vec::new();
    let text = match file.take(LINE_LIMIT).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    };
    let (pid, command) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    Holder {
        pid: pid.parse().ok(),
        command: (!command.is_empty()).then(|| command.to_owned()),
    }
}
