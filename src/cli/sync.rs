//! `sync`: the rules now, in the foreground.

use clap::Args;

use super::context::Context;
use super::exit::{Exit, Stop, StrictArg};
use super::foreground;
use super::output::{Format, FormatArg};
use super::report::{self, Showing};
use crate::engine::{Engine, RunRequest, SCHEMA_VERSION, SyncReport};
use crate::store::Trigger;

/// Run the rules now, in the foreground
///
/// Compares each source with its destinations, copies what is missing and says what it did. A run that another process left in the
/// middle is gone on with. Only one `sync` or `daemon` uses a state at a time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  transship sync\n  transship sync platform --format json > report.json")]
pub(super) struct Sync {
    /// Rules to run; all without any
    #[arg(value_name = "RULE")]
    names: Vec<String>,
    #[command(flatten)]
    strict: StrictArg,
    #[command(flatten)]
    format: FormatArg,
}

impl Sync {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let config = context.rules()?;
        let _lock = context.lock("sync")?;
        let store = context.store().await?;
        let engine = Engine::new(config, store, context.clock.clone())?;
        let names = engine.rule_names(&self.names)?;
        let mut interrupted = engine.recover().await?;
        engine.end_old_claims().await?;
        let requests = names
            .into_iter()
            .map(|rule| {
                let left = interrupted.iter().position(|request| request.rule == rule);
                match left {
                    Some(index) => RunRequest {
                        at_once: true,
                        ..interrupted.swap_remove(index)
                    },
                    None => RunRequest {
                        rule,
                        trigger: Trigger::Manual,
                        continues: None,
                        only: Vec::new(),
                        at_once: true,
                    },
                }
            })
            .collect();
        let done = Box::pin(foreground::run(context, &engine, requests, self.strict)).await?;
        engine.forget_old_runs().await;
        show(context, self.format.format, done)
    }
}

/// Prints the reports of runs.
pub(super) fn show(context: &Context, format: Format, done: foreground::Done) -> Result<Exit, Stop> {
    let document = SyncReport {
        schema_version: SCHEMA_VERSION,
        runs: done.runs,
    };
    match format {
        Format::Json => context.output.json(&document)?,
        Format::Text => {
            let showing = Showing {
                told: done.told,
                without_ids: false,
            };
            for run in &document.runs {
                context.output.line(report::shown(run, &showing)?)?;
            }
        }
    }
    Ok(done.exit)
}
