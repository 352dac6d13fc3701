//! Programs that hold a login: what they print is read, and nothing of it is told.

use std::fmt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Far above what any of them prints.
const MAX_OUTPUT: u64 = 64 * 1024;

/// Why what a program prints could not be had.
#[derive(Debug)]
pub enum NoOutput {
    /// There is no such program.
    Missing,
    /// It cannot be started, or not be read.
    Broken(std::io::Error),
    /// More than 64 KiB.
    TooLong,
    /// Nothing until its time was over; it was stopped.
    Late,
}

impl fmt::Display for NoOutput {
    /// As it goes on after the program's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is not installed"),
            Self::Broken(error) => write!(f, "cannot be started or read: {error}"),
            Self::TooLong => f.write_str("printed more than 64 KiB"),
            Self::Late => f.write_str("gave no answer in time and was stopped"),
        }
    }
}

/// Runs a program with this on its standard input, and gives what it printed. It is killed where it takes longer.
///
/// # Errors
/// See [`NoOutput`]. A program that fails by its exit status is an answer.
pub async fn output_of(
    mut command: Command,
    input: &[u8],
    time_limit: Duration,
) -> Result<(ExitStatus, Vec<u8>), NoOutput> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What it writes there might be anything; it must not reach the logs.
        .stderr(Stdio::null())
        .kill_on_drop(true);
    // Dropping the future kills the program.
    let ended = tokio::time::timeout(time_limit, run(command, input)).await;
    ended.unwrap_or(Err(NoOutput::Late))
}

async fn run(mut command: Command, input: &[u8]) -> Result<(ExitStatus, Vec<u8>), NoOutput> {
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => NoOutput::Missing,
        _ => NoOutput::Broken(error),
    })?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input breaks the pipe; what it prints decides.
        let _ = pipe.write_all(input).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut limited = stdout.take(MAX_OUTPUT + 1);
        limited.read_to_end(&mut output).await.map_err(NoOutput::Broken)?;
    }
    if output.len() as u64 > MAX_OUTPUT {
        return Err(NoOutput::TooLong);
    }
    let status = child.wait().await.map_err(NoOutput::Broken)?;
    Ok((status, output))
}
