//! What the process tells its caller: exit statuses, and why a command stopped early.

use std::error::Error;
use std::fmt;

use crate::engine::{EngineError, RunReport};
use crate::store::{RunOutcome, StoreError};

/// An exit status. Scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing failed.
    Fine,
    /// A job failed, a listing is unknown, or `verify` or `ping` found a fault.
    Failed,
    /// Usage, rules or state cannot be used; nothing was started.
    Unusable,
    /// `plan --exit-code` found work.
    Work,
    /// Ended by a signal; the state is saved.
    Stopped(Signal),
}

/// A signal that ends a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: a person pressed Ctrl-C.
    Interrupt,
    /// SIGTERM: a service manager wants the process to end.
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

impl Exit {
    /// The number; for signals 128 plus the signal's, as shells have it.
    pub fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Failed => 1,
            Self::Unusable => 2,
            Self::Work => 3,
            Self::Stopped(Signal::Interrupt) => 130,
            Self::Stopped(Signal::Terminate) => 143,
        }
    }

    /// Of two things that happened: a signal says most, then what could not be started, then a failure, then work.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let rank = |exit| match exit {
            Self::Fine => 0,
            Self::Work => 1,
            Self::Failed => 2,
            Self::Unusable => 3,
            Self::Stopped(_) => 4,
        };
        if rank(other) > rank(self) { other } else { self }
    }

    /// What a finished run means for the exit status.
    pub fn of_run(report: &RunReport) -> Self {
        Self::of_outcome(report.outcome, report.failures.is_empty())
    }

    /// The same from the parts that the API gives.
    pub fn of_outcome(outcome: RunOutcome, nothing_failed: bool) -> Self {
        if outcome == RunOutcome::Ok && nothing_failed {
            Self::Fine
        } else {
            Self::Failed
        }
    }
}

/// A command that cannot go on: what it says on standard error and the status that it ends with.
#[derive(Debug)]
pub struct Stop {
    /// The status.
    pub exit: Exit,
    /// What happened, where and what to do; may be empty where everything has been said.
    pub message: String,
}

impl Stop {
    /// Usage, rules or state cannot be used.
    pub fn unusable(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Unusable,
            message: message.into(),
        }
    }

    /// Something failed after work had started.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            message: message.into(),
        }
    }
}

impl From<EngineError> for Stop {
    /// Everything that keeps the engine from starting leaves nothing started.
    fn from(error: EngineError) -> Self {
        Self::unusable(chain(&error))
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::unusable(chain(&error))
    }
}

/// An error with its causes on one line; a cause that the line has said already is left out.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_that_scripts_rely_on() {
        let codes = [
            Exit::Fine,
            Exit::Failed,
            Exit::Unusable,
            Exit::Work,
            Exit::Stopped(Signal::Interrupt),
            Exit::Stopped(Signal::Terminate),
        ]
        .map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 130, 143]);
    }

    #[test]
    fn a_failure_wins_over_work_and_a_signal_over_both() {
        assert_eq!(Exit::Work.worse(Exit::Failed), Exit::Failed);
        assert_eq!(Exit::Failed.worse(Exit::Work), Exit::Failed);
        let stopped = Exit::Stopped(Signal::Interrupt);
        assert_eq!(Exit::Failed.worse(stopped), stopped);
        assert_eq!(Exit::Fine.worse(Exit::Fine), Exit::Fine);
    }

    #[test]
    fn only_a_run_without_failures_is_fine() {
        assert_eq!(Exit::of_outcome(RunOutcome::Ok, true), Exit::Fine);
        assert_eq!(Exit::of_outcome(RunOutcome::Ok, false), Exit::Failed);
        for outcome in [
            RunOutcome::Partial,
            RunOutcome::Failed,
            RunOutcome::Interrupted,
            RunOutcome::Cancelled,
        ] {
            assert_eq!(Exit::of_outcome(outcome, true), Exit::Failed);
        }
    }

    #[test]
    fn causes_are_said_once() {
        let cause = std::io::Error::other("disk on fire");
        let error = StoreError::Open {
            path: "/x".into(),
            message: "disk on fire".into(),
            cause: None,
        };
        assert_eq!(chain(&error), "cannot open the state database /x: disk on fire");
        assert_eq!(chain(&cause), "disk on fire");
    }
}
