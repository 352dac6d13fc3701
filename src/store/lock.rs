//! The lock that `daemon` and `sync` hold on the state.

use std::path::Path;

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
pub struct StateLock {}

impl StateLock {
    /// Takes the lock beside the database at `path`; `Ok(Err(holder))` where another process holds it.
    /// # Errors
    /// The lock file cannot be made.
    pub fn acquire(path: &Path, command: &str) -> std::io::Result<Result<Self, Holder>> {
        let _ = (path, command);
        unimplemented!()
    }
    /// Who holds the lock, without taking it.
    /// # Errors
    /// The lock file cannot be read.
    pub fn holder(path: &Path) -> std::io::Result<Option<Holder>> {
        let _ = path;
        unimplemented!()
    }
}
