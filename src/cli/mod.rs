//! The command line: a file a command. Nothing else of the program prints.

mod audit;
mod cancel;
mod check;
mod client;
mod completions;
mod context;
mod copy;
mod daemon;
mod demo;
mod exit;
mod folder;
mod foreground;
mod jobs;
mod output;
mod ping;
mod place;
mod places;
mod plan;
mod progress;
mod report;
mod retry;
mod runs;
mod schema;
mod signals;
mod status;
mod sync;
mod trigger;
mod verify;
mod views;

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

use crate::telemetry::log::LogFormat;
use context::Context;
pub use exit::{Exit, Signal};

/// Keeps container registries in step: compares tags between registries and copies exactly what is missing.
#[derive(Debug, Parser)]
#[command(
    name = "transship",
    version,
    propagate_version = false,
    max_term_width = 110,
    arg_required_else_help = true,
    after_help = "Exit status: 0 nothing failed; 1 something failed; 2 usage, rules or state cannot be used and nothing \
was started; 3 `plan --exit-code` found work; 130 and 143 ended by SIGINT or SIGTERM.\n\n\
Examples:\n  transship demo                           see it work, with nothing installed\n  \
transship check                          every mistake in ./rules.yaml\n  \
transship plan                           what a run would do, and why\n  \
transship sync                           do it now"
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
struct Global {
    /// The rules: a file, or a folder whose YAML files are read in name order
    ///
    /// Without it: $TRANSSHIP_RULES, ./rules.yaml, /etc/transship/rules.yaml.
    #[arg(
        long,
        global = true,
        value_name = "FILE|DIR",
        help_heading = "Options of every command"
    )]
    rules: Option<PathBuf>,
    /// The state database: sqlite:PATH or a path
    ///
    /// Without it: $TRANSSHIP_STATE, the state folder that systemd gives, the XDG state folder.
    #[arg(long, global = true, value_name = "URL", help_heading = "Options of every command")]
    state: Option<String>,
    /// What the log on standard error looks like
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Options of every command"
    )]
    log_format: LogFormat,
    /// Say more (twice: everything)
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Options of every command")]
    verbose: u8,
    /// Say less: no progress and no notes, warnings and errors only
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Options of every command"
    )]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Plan(plan::Plan),
    Sync(sync::Sync),
    Copy(Box<copy::Copy>),
    Daemon(daemon::Daemon),
    Trigger(trigger::Trigger),
    Status(status::Status),
    Runs(runs::Runs),
    Jobs(jobs::Jobs),
    Audit(audit::Audit),
    Retry(retry::Retry),
    Cancel(cancel::Cancel),
    Verify(verify::Verify),
    Ping(ping::Ping),
    Schema(schema::Schema),
    Demo(demo::Demo),
    Completions(completions::Completions),
}

/// The command line as clap sees it, for completions and for tests of its help.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Reads the arguments of the process; help, version and wrong usage are answered here.
///
/// # Errors
/// The exit status, where there is nothing to run.
pub fn parse() -> Result<Cli, u8> {
    Cli::try_parse().map_err(|error| {
        // A reader that went away (`--help | head`) is no failure.
        let _ = error.print();
        u8::try_from(error.exit_code()).unwrap_or(Exit::Unusable.code())
    })
}

/// Runs the command to its end and gives the exit status.
pub fn run(cli: Cli) -> u8 {
    let daemon = matches!(cli.command, Command::Daemon(_));
    let context = Context::new(cli.global, daemon);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            context
                .output
                .error(format!("transship: cannot start its threads: {error}"));
            return Exit::Unusable.code();
        }
    };
    let done = runtime.block_on(async {
        let done = Box::pin(execute(&context, cli.command)).await;
        context.close().await;
        done
    });
    // What a blocking call (a name being resolved) still does is not waited for.
    runtime.shutdown_background();
    match done {
        Ok(exit) => exit.code(),
        Err(stop) => {
            if !stop.message.is_empty() {
                context.output.error(format!("transship: {}", stop.message));
            }
            stop.exit.code()
        }
    }
}

async fn execute(context: &Context, command: Command) -> Result<Exit, exit::Stop> {
    match command {
        Command::Check(command) => command.run(context),
        Command::Plan(command) => Box::pin(command.run(context)).await,
        Command::Sync(command) => Box::pin(command.run(context)).await,
        Command::Copy(command) => Box::pin(command.run(context)).await,
        Command::Daemon(command) => Box::pin(command.run(context)).await,
        Command::Trigger(command) => Box::pin(command.run(context)).await,
        Command::Status(command) => Box::pin(command.run(context)).await,
        Command::Runs(command) => Box::pin(command.run(context)).await,
        Command::Jobs(command) => Box::pin(command.run(context)).await,
        Command::Audit(command) => Box::pin(command.run(context)).await,
        Command::Retry(command) => Box::pin(command.run(context)).await,
        Command::Cancel(command) => Box::pin(command.run(context)).await,
        Command::Verify(command) => Box::pin(command.run(context)).await,
        Command::Ping(command) => Box::pin(command.run(context)).await,
        Command::Schema(command) => command.run(context),
        Command::Demo(command) => Box::pin(command.run(context)).await,
        Command::Completions(command) => command.run(context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_takes_the_global_options_and_its_own() {
        for line in [
            "check",
            "plan one two --exit-code --all",
            "sync one --strict -o json",
            "copy --all-tags --platform linux/arm64 a.example/b oci:c --src-plain-http",
            "daemon --listen unix:/a --listen 127.0.0.1:0 --api-token-file t",
            "trigger one two --wait --strict --server http://127.0.0.1:1",
            "status",
            "runs run-1",
            "runs --limit 3",
            "jobs --failed --run 3",
            "audit --limit 1",
            "retry job-1 --wait --strict",
            "cancel run-1",
            "verify one --deep --repair",
            "ping one",
            "schema",
            "demo",
            "completions bash",
        ] {
            let words = line.split(' ');
            let all = std::iter::once("transship")
                .chain(words)
                .chain(["--rules", "r.yaml", "--state", "s.db", "-q"]);
            let cli = Cli::try_parse_from(all).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(
                cli.global.rules.as_deref(),
                Some(std::path::Path::new("r.yaml")),
                "{line}"
            );
        }
    }

    #[test]
    fn wrong_usage_is_2() {
        for line in [
            "",
            "frobnicate",
            "trigger",
            "copy one",
            "runs rule-1",
            "retry 12",
            "daemon --listen 0.0.0.0:1",
            "sync -q -v",
        ] {
            let words = line.split(' ').filter(|word| !word.is_empty());
            let error = Cli::try_parse_from(std::iter::once("transship").chain(words)).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
