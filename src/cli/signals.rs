//! SIGINT and SIGTERM: first nothing new starts, then what is under way is stopped.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::exit::{Signal, Stop};
use super::output::Output;
use crate::engine::ControlHandle;

/// How long requests under way may take to end by themselves.
const GRACE: Duration = Duration::from_secs(20);

/// Listens for the signals that end a command.
#[derive(Debug)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes the signals over: from now on they do not kill the process.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn listen() -> Result<Self, Stop> {
        let refused = |error| Stop::unusable(format!("cannot listen for signals: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(refused)?,
            terminate: signal(SignalKind::terminate()).map_err(refused)?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            else => std::future::pending().await,
        }
    }

    /// Does `work` to its end. The first signal drains every control, a second one (or 20 seconds) aborts them; after a third, work is
    /// left as it is. Gives what the work came to, if it ended, and the first signal.
    pub async fn guard<T>(
        &mut self,
        output: &Output,
        controls: &[ControlHandle],
        work: impl Future<Output = T>,
    ) -> (Option<T>, Option<Signal>) {
        let mut work = pin!(work);
        let first = tokio::select! {
            done = &mut work => return (Some(done), None),
            signal = self.next() => signal,
        };
        output.note(format!(
            "{first}: nothing new starts; what is under way gets {} s to end (once more to stop now)",
            GRACE.as_secs()
        ));
        controls.iter().for_each(|control| control.drain(first.to_string()));
        tokio::select! {
            done = &mut work => return (Some(done), Some(first)),
            _ = self.next() => {}
            () = tokio::time::sleep(GRACE) => {}
        }
        controls.iter().for_each(|control| control.abort(first.to_string()));
        tokio::select! {
            done = &mut work => (Some(done), Some(first)),
            _ = self.next() => (None, Some(first)),
        }
    }
}
