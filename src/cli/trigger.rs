//! `trigger`: a running daemon runs rules now.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Daemon, ServerArgs};
use super::context::Context;
use super::exit::{Exit, Stop, StrictArg};
use super::output::{Format, FormatArg};
use super::runs;
use crate::engine::SCHEMA_VERSION;
use crate::store::RunOutcome;

/// Ask a running daemon to run rules now
///
/// A rule that runs already is joined, not run twice. With --wait, waits for the runs and ends with their exit status.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  transship trigger platform\n  transship trigger platform base --wait")]
pub(super) struct Trigger {
    /// Rules to run
    #[arg(value_name = "RULE", required = true)]
    names: Vec<String>,
    /// Wait until the runs end
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    strict: StrictArg,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    format: FormatArg,
}

impl Trigger {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let Some(daemon) = self.server.daemon(context).await? else {
            return Err(Stop::unusable(
                "no daemon runs here: start one with `transship daemon`, name one with --server, or run the rules in the \
                 foreground with `transship sync`",
            ));
        };
        daemon.say_so(context);
        let started = daemon.trigger(&self.names).await?;
        if self.wait {
            return wait(context, &daemon, &started, self.strict, self.format.format).await;
        }
        match self.format.format {
            Format::Json => context
                .output
                .json(&json!({ "schema_version": SCHEMA_VERSION, "runs": started }))?,
            Format::Text => started.iter().try_for_each(|run| context.output.line(run))?,
        }
        Ok(Exit::Fine)
    }
}

/// Waits for runs of a daemon and shows them; the exit status is theirs.
pub(super) async fn wait(
    context: &Context,
    daemon: &Daemon,
    started: &[String],
    strict: StrictArg,
    format: Format,
) -> Result<Exit, Stop> {
    let mut exit = Exit::Fine;
    let mut documents = Vec::new();
    for run in started {
        let document = daemon.get(&format!("/api/v1/runs/{run}/wait")).await?;
        exit = exit.worse(of_document(&document, strict));
        if document["run"]["outcome"] == "interrupted" {
            context
                .output
                .note("the daemon was stopped; it goes on at its next start");
        }
        match format {
            Format::Json => documents.push(document),
            Format::Text => context.output.line(runs::one(&document)?)?,
        }
    }
    if format == Format::Json {
        // The same document as that of `sync`, so that scripts read both alike.
        let reports: Vec<Value> = documents.into_iter().map(report).collect();
        context
            .output
            .json(&json!({ "schema_version": SCHEMA_VERSION, "runs": reports }))?;
    }
    Ok(exit)
}

/// The report of a run; what is known of a run without one.
fn report(mut document: Value) -> Value {
    if document["report"].is_object() {
        document["report"].take()
    } else {
        document["run"].take()
    }
}

fn of_document(document: &Value, strict: StrictArg) -> Exit {
    let outcome = document["run"]["outcome"]
        .as_str()
        .and_then(|word| word.parse::<RunOutcome>().ok());
    let failures = document["report"]["failures"].as_array().map_or(0, Vec::len);
    let destinations = document["report"]["destinations"].as_array();
    let left_undone = strict.strict
        && destinations.into_iter().flatten().any(|destination| {
            let images = &destination["images"];
            let left = [&images["held"], &images["deferred"], &destination["deletes_blocked"]];
            left.into_iter().any(|count| count.as_u64() != Some(0))
        });
    outcome.map_or(Exit::Failed, |outcome| {
        Exit::of_outcome(outcome, failures == 0, left_undone)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runs_exit_status() {
        let document = |outcome: Value, failures: Value| json!({ "run": { "outcome": outcome }, "report": { "failures": failures } });
        let of_document = |document: &Value| super::of_document(document, StrictArg::default());
        assert_eq!(of_document(&document(json!("ok"), json!([]))), Exit::Fine);
        assert_eq!(of_document(&document(json!("ok"), json!([{}]))), Exit::Failed);
        assert_eq!(of_document(&document(json!("partial"), json!([]))), Exit::Failed);
        assert_eq!(of_document(&document(Value::Null, json!([]))), Exit::Failed);
        assert_eq!(
            of_document(&json!({ "run": { "outcome": "interrupted" }, "report": null })),
            Exit::Failed
        );
    }

    #[test]
    fn a_strict_wait_wants_nothing_left_undone() {
        let document = |held: u64, blocked: u64| {
            json!({ "run": { "outcome": "ok" }, "report": { "failures": [], "destinations": [
                { "images": { "held": held, "deferred": 0 }, "deletes_blocked": blocked },
            ] } })
        };
        let strict = StrictArg { strict: true };
        assert_eq!(of_document(&document(0, 0), strict), Exit::Fine);
        for left in [document(1, 0), document(0, 1)] {
            assert_eq!(of_document(&left, strict), Exit::Failed);
            assert_eq!(of_document(&left, StrictArg::default()), Exit::Fine);
        }
    }
}
