//! Which of the processes that use one state at the same time a process is: what tells whose an open upload is.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::error::{Result, StoreError};
use super::lock::{create_directory, explain, open_lock_file, write_holder};

/// A number that no other process has meanwhile. Numbers are given again; what is left under one is its last owner's, who has ended.
#[derive(Debug)]
pub(super) struct Owner {
    number: u32,
    /// Open, and with it locked, as long as the process has the number. `None` where the [`super::StateLock`] stands for it.
    _lock: Option<File>,
}

/// That an owner has ended. While it lives, no process begins under the same number.
#[derive(Debug)]
pub(super) struct Ended {
    _lock: Option<File>,
}

impl Owner {
    /// The number of whoever holds the [`super::StateLock`].
    pub(super) fn of_state_lock() -> Self {
        Self { number: 0, _lock: None }
    }

    /// The least number that no process has, in the state at `path`, for `command`.
    pub(super) fn among_others(path: &Path, command: &str) -> Result<Self> {
        create_directory(path).map_err(|error| StoreError::file(path, error))?;
        let refused = |place: &Path, error| StoreError::open(path, explain(place, &error).to_string(), None);
        let mut number = 0;
        loop {
            let place = lock_path(path, number);
            if let Some(mut file) = locked(&place).map_err(|error| refused(&place, error))? {
                write_holder(&mut file, command).map_err(|error| refused(&place, error))?;
                return Ok(Self {
                    number,
                    _lock: Some(file),
                });
            }
            number += 1;
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// What holds an owner's number, where it is this process or has ended. `None` while it lives, and where that is not known.
    pub(super) fn ended(&self, path: &Path, owner: Option<u32>) -> Option<Ended> {
        let Some(other) = owner.filter(|owner| *owner != self.number) else {
            return Some(Ended { _lock: None });
        };
        let place = lock_path(path, other);
        match locked(&place) {
            Ok(lock) => lock.map(|lock| Ended { _lock: Some(lock) }),
            Err(error) => {
                tracing::warn!("{}", explain(&place, &error));
                None
            }
        }
    }
}

/// `<path>.lock`, which is that of the [`super::StateLock`] too, then `<path>.lock-1` and so on.
fn lock_path(path: &Path, number: u32) -> PathBuf {
    match number {
        0 => super::beside(path, ".lock"),
        _ => super::beside(path, &format!(".lock-{number}")),
    }
}

/// The file with its lock; `None` where another has it.
fn locked(place: &Path) -> io::Result<Option<File>> {
    let file = open_lock_file(place)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
