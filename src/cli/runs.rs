//! `runs`: the last runs, or one with its report.

use clap::Args;
use serde_json::Value;

use super::client::ServerArgs;
use super::context::Context;
use super::exit::{Exit, Stop};
use super::output::{Format, FormatArg, span, table, time};
use super::report;
use super::views::{self, RunView};
use crate::http;
use crate::store::{RunId, Store};

/// Show the last runs, or one run with its report
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  transship runs\n  transship runs run-12\n  transship runs --limit 5 --format json"
)]
pub(super) struct Runs {
    /// A run, such as run-12
    #[arg(value_name = "ID")]
    id: Option<RunId>,
    /// At most this many
    #[arg(long, default_value_t = 20, value_name = "N", conflicts_with = "id")]
    limit: u32,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    format: FormatArg,
}

impl Runs {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let document = match self.id {
            None => {
                let path = format!("/api/v1/runs?limit={}", self.limit);
                let from_state = async |store: &Store, gone| Ok(http::runs(store, self.limit, gone).await?);
                self.server.read(context, &path, from_state).await?
            }
            Some(id) => {
                let path = format!("/api/v1/runs/{id}");
                let from_state = async |store: &Store, gone| {
                    http::run(store, id, gone)
                        .await?
                        .ok_or_else(|| Stop::unusable(format!("there is no {id}: see `transship runs`")))
                };
                self.server.read(context, &path, from_state).await?
            }
        };
        match (self.format.format, self.id) {
            (Format::Json, _) => context.output.json(&document)?,
            (Format::Text, None) => context
                .output
                .line(list(&views::read::<Vec<RunView>>(&document["runs"])?))?,
            (Format::Text, Some(_)) => context.output.line(one(&document)?)?,
        }
        Ok(Exit::Fine)
    }
}

fn list(runs: &[RunView]) -> String {
    let rows = runs.iter().map(|run| {
        vec![
            run.id.clone(),
            run.rule.clone(),
            run.trigger.clone(),
            run.outcome.clone().unwrap_or_else(|| "running".to_owned()),
            time(run.started_at),
            run.finished_at
                .map_or_else(|| "-".to_owned(), |at| span(run.started_at, at)),
        ]
    });
    let runs = table(
        &["run", "rule", "trigger", "outcome", "started", "took"],
        rows.collect(),
    );
    if runs.is_empty() { "no run yet".to_owned() } else { runs }
}

/// One run: its report, or what is known of it without one.
pub(super) fn one(document: &Value) -> Result<String, Stop> {
    // A run that was interrupted has no report, or none that is complete.
    if document["report"]["destinations"].is_array() {
        return report::text(&document["report"]);
    }
    let run: RunView = views::read(&document["run"])?;
    Ok(format!(
        "{} ({}): {} since {}",
        run.rule,
        run.id,
        run.outcome.as_deref().unwrap_or("running"),
        time(run.started_at)
    ))
}
