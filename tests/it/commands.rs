//! Each command from the outside: what it takes, what it says, how it ends.

mod copy;
mod documents;
mod endings;
mod history;
mod pages;
mod ping;
mod ping_rights;
mod terminal;

use std::process::{Command, Stdio};

use transship::demo::images::SampleImage;
use transship::demo::registry::{Options, Registry, Running};
use transship::oci::{Digest, RepositoryName, Tag};

use crate::support::command::Transship;

async fn registry() -> Running {
    Registry::start(Options::default()).await.expect("a registry")
}

fn name(text: &str) -> RepositoryName {
    text.parse().expect("a name")
}

fn seed(registry: &Running, repository: &str, tag: &str, image: &SampleImage) {
    registry.seed(&name(repository), &tag.parse::<Tag>().expect("a tag"), image);
}

fn resolve(registry: &Running, repository: &str, tag: &str) -> Option<Digest> {
    registry.resolve(&name(repository), &tag.parse::<Tag>().expect("a tag"))
}

/// A rule `web` for `app/web` from one registry to the other.
fn rules(from: &str, to: &str) -> String {
    format!(
        "version: 1\nregistries:\n  from: {{ url: \"{from}\" }}\n  to: {{ url: \"{to}\" }}\nrules:\n  - name: web\n    \
         source: from\n    destinations: [to]\n    repositories: [app/web]\n    retry: {{ attempts: 2, max_delay: 1s }}\n"
    )
}

/// A shell's command in the home, with the program as `$0`.
fn shell(home: &Transship, script: &str) -> Command {
    let mut command = Command::new("bash");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_transship")])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.home())
        .env("TRANSSHIP_RULES", home.rules())
        .env("TRANSSHIP_STATE", home.state())
        .env("TERM", "xterm")
        .current_dir(home.home())
        .stdin(Stdio::null());
    command
}
