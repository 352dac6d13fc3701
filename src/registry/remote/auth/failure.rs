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
    /// As [`Error::login_refused`].
    pub(super) login_refused: bool,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            status: None,
            retry_after: None,
            login_refused: false,
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
            login_refused: error.login_refused,
        }
    }

    /// As [`Failure::of`], of who gives out logins. That something is not there says nothing of what the login is for, whose
    /// upload or repository would else count as gone: in words of its own it is a matter of the settings, and a bare 404 one of
    /// what stands in between.
    pub(super) fn of_login(error: &Error) -> Self {
        let mut failure = Self::of(error);
        if failure.kind == ErrorKind::NotFound {
            failure.kind = match (error.status, &error.code) {
                (Some(404), None) => ErrorKind::Server,
                _ => ErrorKind::Config,
            };
        }
        failure.login_refused = matches!(failure.kind, ErrorKind::Unauthorized | ErrorKind::Denied);
        failure
    }

    pub(in crate::registry::remote) fn at(self, place: Place) -> Error {
        let mut error = Error::new(Operation::Authenticate, place, self.kind, self.message);
        error.status = self.status;
        error.retry_after = self.retry_after;
        error.login_refused = self.login_refused;
        error
    }
}

impl From<(ErrorKind, String)> for Failure {
    fn from((kind, message): (ErrorKind, String)) -> Self {
        Self::new(kind, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_login_lacks_is_nothing_that_the_registry_lacks() {
        for (kind, status, code, wanted) in [
            (ErrorKind::NotFound, Some(404), None, ErrorKind::Server),
            (
                ErrorKind::NotFound,
                Some(404),
                Some("EntityNotExist.Role"),
                ErrorKind::Config,
            ),
            (
                ErrorKind::NotFound,
                Some(200),
                Some("ResourceNotFound"),
                ErrorKind::Config,
            ),
            (ErrorKind::NotFound, None, None, ErrorKind::Config),
            (ErrorKind::Denied, Some(403), None, ErrorKind::Denied),
        ] {
            let mut error = Error::new(Operation::Authenticate, Place::default(), kind, "no");
            (error.status, error.code) = (status, code.map(str::to_owned));
            let failure = Failure::of_login(&error);
            assert_eq!(failure.kind, wanted, "{status:?} {code:?}");
            let error = Failure::of(&failure.at(Place::default())).at(Place::default());
            assert_eq!(error.login_refused, wanted == ErrorKind::Denied, "{status:?} {code:?}");
        }
    }
}
