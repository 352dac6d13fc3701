//! A failed login as a value that can be told to everybody who waited for it.

use std::time::Duration;

use crate::registry::{Error, ErrorKind, Operation, Place};

/// What [`Error`] holds, without its cause and place, so that it can be cloned.
#[derive(Clone, Debug)]
pub(in crate::registry::remote) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            status: None,
            retry_after: None,
        }
    }

    /// With the HTTP status that it came from.
    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// With a remark behind its message.
    pub(super) fn because(mut self, remark: &str) -> Self {
        self.message = format!("{} ({remark})", self.message);
        self
    }

    /// What can be told of an error to those who waited for the same thing.
    pub(super) fn of(error: &Error) -> Self {
        Self {
            kind: error.kind,
            message: error.message.clone(),
            status: error.status,
            retry_after: error.retry_after,
        }
    }

    pub(in crate::registry::remote) fn at(self, place: Place) -> Error {
        let mut error = Error::new(Operation::Authenticate, place, self.kind, self.message);
        error.status = self.status;
        error.retry_after = self.retry_after;
        error
    }
}

impl From<(ErrorKind, String)> for Failure {
    fn from((kind, message): (ErrorKind, String)) -> Self {
        Self::new(kind, message)
    }
}
