//! A failure as jobs and reports carry it.

use std::time::Duration;

use crate::plan::{ErrorKind, Unknown};
use crate::registry::{self, Side};
use crate::store::StoreError;

/// What went wrong with one image or blob. Cloned to every job that waited for the same transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    pub(super) side: Option<Side>,
    pub(super) status: Option<u16>,
    pub(super) code: Option<String>,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
}

impl Fault {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            side: None,
            status: None,
            code: None,
            message: line(message.into()),
            retry_after: None,
        }
    }

    /// The run was stopped.
    pub(super) fn stopped(reason: &str) -> Self {
        Self::new(ErrorKind::Cancelled, format!("stopped: {reason}"))
    }

    /// It ended, and nobody heard how: a fault of our own.
    pub(super) fn untold() -> Self {
        Self::new(ErrorKind::Local, "the transfer ended without an answer")
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Characters of a message at most: registries may put any text into theirs.
const LONGEST: usize = 2_000;

/// A message as one printable line of a bounded length.
fn line(text: String) -> String {
    if text.len() <= LONGEST && !text.chars().any(char::is_control) {
        return text;
    }
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut cut: String = text.chars().take(LONGEST).map(printable).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// An error and its causes in one line. A cause whose text the line already holds is not said twice.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

impl From<registry::Error> for Fault {
    fn from(error: registry::Error) -> Self {
        Self {
            kind: error.kind,
            side: error.side,
            status: error.status,
            code: error.code.clone(),
            retry_after: error.retry_after,
            message: line(chain(&error)),
        }
    }
}

impl From<Fault> for Unknown {
    fn from(fault: Fault) -> Self {
        Self {
            kind: fault.kind,
            status: fault.status,
            code: fault.code,
            message: fault.message,
        }
    }
}

impl From<Unknown> for Fault {
    fn from(unknown: Unknown) -> Self {
        Self {
            status: unknown.status,
            code: unknown.code,
            ..Self::new(unknown.kind, unknown.message)
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::new(ErrorKind::Local, chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_short_line() {
        let fault = Fault::new(ErrorKind::Invalid, format!("a\nb\u{1b}[2J{}", "x".repeat(3_000_000)));
        assert!(fault.message.starts_with("a b [2Jxx") && fault.message.ends_with('…'));
        assert!(fault.message.len() < 2_100);
        assert_eq!(Fault::new(ErrorKind::Invalid, "größer").message, "größer");
    }
}
