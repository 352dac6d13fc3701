//! What can go wrong with files, before it is known which operation it was for.

use std::io;
use std::path::Path;

use crate::registry::{Error, ErrorKind, Operation, Place};

#[derive(Debug)]
pub(super) struct Trouble {
    kind: ErrorKind,
    message: String,
    cause: Option<io::Error>,
}

impl Trouble {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            cause: None,
        }
    }

    /// A failed file operation: "cannot `verb` `path`".
    pub(super) fn io(verb: &str, path: &Path, error: io::Error) -> Self {
        let path = path.display();
        let (kind, message) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
                ErrorKind::Quota,
                format!("cannot {verb} {path}, as the disk is full (or the user's quota); make room there"),
            ),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => (
                ErrorKind::Denied,
                format!(
                    "may not {verb} {path}; give the user that transship runs as the right to, or mount the disk writable"
                ),
            ),
            // Ours, not the system's: a layout from elsewhere may hold anything.
            io::ErrorKind::InvalidInput if error.raw_os_error().is_none() => (
                ErrorKind::Invalid,
                format!(
                    "{path} is not a regular file (symlinks are not followed); copy the image into the layout again"
                ),
            ),
            _ => (ErrorKind::Local, format!("cannot {verb} {path}")),
        };
        Self {
            kind,
            message,
            cause: Some(error),
        }
    }

    /// The bytes to write stopped coming: the other end's failure, not the disk's.
    pub(super) fn broken_body(error: io::Error) -> Self {
        Self {
            kind: ErrorKind::Network,
            message: "the bytes to write broke off".to_owned(),
            cause: Some(error),
        }
    }

    /// True where the disk, or the user's share of it, is full.
    pub(super) fn is_full(&self) -> bool {
        self.kind == ErrorKind::Quota
    }

    pub(super) fn at(self, operation: Operation, place: Place) -> Error {
        let error = Error::new(operation, place, self.kind, self.message);
        match self.cause {
            Some(cause) => error.caused_by(cause),
            None => error,
        }
    }
}

/// Says what was done to which file when it failed.
pub(super) trait Doing<T> {
    /// An error that says "cannot `verb` `path`".
    fn doing(self, verb: &str, path: &Path) -> Result<T, Trouble>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, verb: &str, path: &Path) -> Result<T, Trouble> {
        self.map_err(|error| Trouble::io(verb, path, error))
    }
}
