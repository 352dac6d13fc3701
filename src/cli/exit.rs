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
    pub fn of_run(report: &RunReport, strict: StrictArg) -> Self {
        let left = report
            .destinations
            .iter()
            .map(|destination| destination.images.held + destination.images.deferred + destination.deletes_blocked);
        Self::of_outcome(
            report.outcome,
            report.failures.is_empty(),
            strict.strict && left.sum::<u64>() > 0,
        )
    }

    /// The same from the parts that the API gives.
    ///
    /// `left_undone` where something was held, deferred or blocked and that counts as a failure.
    pub fn of_outcome(outcome: RunOutcome, nothing_failed: bool, left_undone: bool) -> Self {
        if outcome == RunOutcome::Ok && nothing_failed && !left_undone {
            Self::Fine
        } else {
            Self::Failed
        }
    }
}

/// `--strict`, for the commands whose exit status is a run's.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct StrictArg {
    /// End with 1 also where images were held or deferred, or deletes blocked
    #[arg(long)]
    pub strict: bool,
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::{DestinationReport, SourceBytes, SourceCounts};
    use crate::store::{RunId, Trigger};

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
        assert_eq!(Exit::of_outcome(RunOutcome::Ok, true, false), Exit::Fine);
        assert_eq!(Exit::of_outcome(RunOutcome::Ok, false, false), Exit::Failed);
        assert_eq!(Exit::of_outcome(RunOutcome::Ok, true, true), Exit::Failed);
        for outcome in [
            RunOutcome::Partial,
            RunOutcome::Failed,
            RunOutcome::Interrupted,
            RunOutcome::Cancelled,
        ] {
            assert_eq!(Exit::of_outcome(outcome, true, false), Exit::Failed);
        }
    }

    #[test]
    fn what_was_held_deferred_or_blocked_fails_a_strict_run_only() {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let report = |change: fn(&mut DestinationReport)| {
            let mut destination = DestinationReport::default();
            change(&mut destination);
            RunReport {
                id: RunId(1),
                rule: "a".into(),
                trigger: Trigger::Manual,
                outcome: RunOutcome::Ok,
                started_at: at,
                finished_at: at,
                source: SourceCounts::default(),
                destinations: vec![DestinationReport::default(), destination],
                bytes: SourceBytes::default(),
                requests: BTreeMap::new(),
                changes: Vec::new(),
                changes_left_out: 0,
                failures: Vec::new(),
                failures_left_out: 0,
                warnings: Vec::new(),
            }
        };
        let strict = StrictArg { strict: true };
        let kept = report(|destination| destination.images.kept = 1);
        assert_eq!(Exit::of_run(&kept, strict), Exit::Fine, "that was the rule's wish");
        for left in [
            report(|destination| destination.images.held = 1),
            report(|destination| destination.images.deferred = 1),
            report(|destination| destination.deletes_blocked = 1),
        ] {
            assert_eq!(Exit::of_run(&left, StrictArg::default()), Exit::Fine);
            assert_eq!(Exit::of_run(&left, strict), Exit::Failed);
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
