//! Credential helpers: programs `docker-credential-<name>` that keep secrets elsewhere (docker-credential-helpers,
//! "Development": the host on standard input, JSON on standard output).

use std::ffi::OsStr;
use std::time::Duration;

use serde::Deserialize;

use super::failure::Failure;
use crate::registry::program::{NoOutput, output_of};
use crate::registry::{Credentials, ErrorKind};
use crate::telemetry::Secret;

/// A helper that asks a cloud needs a second or two; one that waits for a person never ends.
const TIME_LIMIT: Duration = Duration::from_secs(10);

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
    let config = |what: String| {
        Failure::new(
            ErrorKind::Config,
            format!("the credential helper {program} {what}; try: echo {server} | {program} get"),
        )
    };
    let mut command = tokio::process::Command::new(&program);
    command.arg("get");
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let (status, output) = match output_of(command, server.as_bytes(), TIME_LIMIT).await {
        Ok(output) => output,
        Err(NoOutput::Missing) => {
            let message = format!(
                "the credential helper {program} is not installed (not on $PATH); install it or take it out of the file"
            );
            return Err(Failure::new(ErrorKind::Config, message));
        }
        Err(NoOutput::Late) => {
            let message =
                format!("the credential helper {program} gave no answer within 10 s and was stopped; try it by hand");
            return Err(Failure::new(ErrorKind::Config, message));
        }
        Err(other) => return Err(config(other.to_string())),
    };
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
