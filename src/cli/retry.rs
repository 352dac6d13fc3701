//! `retry`: what failed, again, now.

use std::str::FromStr;

use clap::Args;
use serde_json::json;

use super::client::ServerArgs;
use super::context::Context;
use super::exit::{Exit, Stop, StrictArg, chain};
use super::foreground;
use super::output::{Format, FormatArg};
use super::sync;
use super::trigger;
use crate::engine::{Engine, RunRequest, SCHEMA_VERSION};
use crate::http::{NothingToRetry, Target, selection};
use crate::store::Trigger;

/// Run again what failed in a run, or one job, now
///
/// Asks the daemon; where none runs, does it in the foreground.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  transship retry run-12\n  transship retry job-345 --wait")]
pub(super) struct Retry {
    /// A run or a job, such as run-12 or job-345
    #[arg(value_name = "RUN|JOB")]
    target: TargetArg,
    /// Wait until the daemon's run ends, and end with its exit status
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    strict: StrictArg,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TargetArg(Target);

impl FromStr for TargetArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('-') {
            Some(("run", _)) => text.parse().map(|run| Self(Target::Run(run))),
            Some(("job", _)) => text.parse().map(|job| Self(Target::Job(job))),
            _ => Err("write run-NUMBER or job-NUMBER, as `transship runs` and `transship jobs` show them".to_owned()),
        }
    }
}

impl Retry {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let target = self.target.0;
        if let Some(daemon) = self.server.daemon(context).await? {
            daemon.say_so(context);
            let body = match target {
                Target::Run(run) => json!({ "run": run }),
                Target::Job(job) => json!({ "job": job }),
            };
            let answer = daemon.post("/api/v1/retry", &body).await?;
            let run: Option<String> = super::views::read(&answer["run"])?;
            let Some(run) = run else {
                return self.nothing(context);
            };
            if self.wait {
                return trigger::wait(context, &daemon, &[run], self.strict, self.format.format).await;
            }
            match self.format.format {
                Format::Json => context.output.json(&answer)?,
                Format::Text => context.output.line(run)?,
            }
            return Ok(Exit::Fine);
        }
        let config = context.rules()?;
        let _lock = context.lock("retry")?;
        let store = context.store().await?;
        let engine = Engine::new(config, store, context.clock.clone())?;
        // What a dead process left open is closed first, so that it can be named.
        engine.recover().await?;
        engine.end_old_claims().await?;
        let selected = selection(engine.store(), target).await.map_err(|error| match error {
            NothingToRetry::Store(error) => error.into(),
            other => Stop::unusable(chain(&other)),
        })?;
        let Some((rule, only)) = selected else {
            return self.nothing(context);
        };
        let rules = engine.rule_names(&[rule])?;
        let requests = rules
            .into_iter()
            .map(|rule| RunRequest {
                rule,
                trigger: Trigger::Manual,
                continues: None,
                only: only.clone(),
                at_once: true,
            })
            .collect();
        context.output.note("no daemon runs; running in the foreground");
        let done = Box::pin(foreground::run(context, &engine, requests, self.strict)).await?;
        sync::show(context, self.format.format, done)
    }

    fn nothing(&self, context: &Context) -> Result<Exit, Stop> {
        match self.format.format {
            Format::Json => context
                .output
                .json(&json!({ "schema_version": SCHEMA_VERSION, "runs": [] }))?,
            Format::Text => context.output.line(match self.target.0 {
                Target::Run(run) => format!("nothing failed in {run}"),
                Target::Job(job) => format!("nothing is left to do of {job}"),
            })?,
        }
        Ok(Exit::Fine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{JobId, RunId};

    #[test]
    fn targets_say_what_they_are() {
        assert_eq!("run-12".parse(), Ok(TargetArg(Target::Run(RunId(12)))));
        assert_eq!("job-3".parse(), Ok(TargetArg(Target::Job(JobId(3)))));
        for bad in ["12", "rule-1", "run-", "job-x", ""] {
            assert!(bad.parse::<TargetArg>().is_err(), "{bad}");
        }
    }
}
