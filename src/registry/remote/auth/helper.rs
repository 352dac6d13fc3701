//! Credential helpers: programs `docker-credential-<name>` that keep secrets elsewhere (docker-credential-helpers,
//! "Development": the host on standard input, JSON on standard output).

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::failure::Failure;
use crate::registry::{Credentials, ErrorKind};
use crate::telemetry::Secret;

/// A helper that asks a cloud needs a second or two; one that waits for a person never ends.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Far above what any helper prints.
const MAX_OUTPUT: u64 = 64 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks the helper `name` for the credential of `server`; `None` where it has none. Programs are looked for in `path`
/// where given, else on `$PATH`.
pub(super) async fn get(name: &str, server: &str, path: Option<&OsStr>) -> Result<Option<Credentials>, Failure> {
    // Becomes a program's name, so nothing that could leave the folders of `$PATH`.
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(word) {
        let message = format!("{name:?} cannot be the name of a credential helper (letters, digits, - _ .)");
        return Err(Failure::new(ErrorKind::Config, message));
    }
    let program = format!("docker-credential-{name}");
    match tokio::time::timeout(TIME_LIMIT, run(&program, server, path)).await {
        Ok(result) => result,
        // Dropping the future has killed the helper.
        Err(_) => Err(Failure::new(
            ErrorKind::Config,
            format!("the credential helper {program} gave no answer within 10 s and was stopped; try it by hand"),
        )),
    }
}

async fn run(program: &str, server: &str, path: Option<&OsStr>) -> Result<Option<Credentials>, Failure> {
    let config = |what: String| {
        Failure::new(
            ErrorKind::Config,
            format!("the credential helper {program} {what}; try: echo {server} | {program} get"),
        )
    };
    let mut command = tokio::process::Command::new(program);
    command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What it writes there might be anything; it must not reach the logs.
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new(
            ErrorKind::Config,
            format!(
                "the credential helper {program} is not installed (not on $PATH); install it or take it out of the file"
            ),
        ),
        _ => config(format!("cannot be started: {error}")),
    })?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read its input breaks the pipe; what it prints decides.
        let _ = input.write_all(server.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(MAX_OUTPUT + 1)
            .read_to_end(&mut output)
            .await
            .map_err(|error| config(format!("cannot be read: {error}")))?;
    }
    if output.len() as u64 > MAX_OUTPUT {
        return Err(config("printed more than 64 KiB".to_owned()));
    }
    let status = child
        .wait()
        .await
        .map_err(|error| config(format!("cannot be waited for: {error}")))?;
    if !status.success() {
        // The text by which docker-credential-helpers tells "none" from a failure.
        let said = String::from_utf8_lossy(&output).to_ascii_lowercase();
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(config(format!("failed ({status})")));
    }
    let Output { username, secret } =
        serde_json::from_slice(&output).map_err(|_| config("printed no JSON with Username and Secret".to_owned()))?;
    if username.is_empty() && secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credentials {
        username,
        password: Secret::new(secret),
    }))
}
