//! `status`: each rule's schedule and last run.

use clap::Args;

use super::client::ServerArgs;
use super::context::Context;
use super::exit::{Exit, Stop};
use super::output::{Format, FormatArg, table, time};
use super::views::{self, StatusView};
use crate::http;

/// Show each rule's schedule, its next and its last run
///
/// Asks the daemon; where none runs, reads the state.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  transship status\n  transship status --server http://127.0.0.1:9480 --format json"
)]
pub(super) struct Status {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    format: FormatArg,
}

impl Status {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let from_state = async |store: &crate::store::Store| Ok(http::status_of_state(store).await?);
        let document = self.server.read(context, "/api/v1/status", from_state).await?;
        match self.format.format {
            Format::Json => context.output.json(&document)?,
            Format::Text => context.output.line(render(&views::read(&document)?))?,
        }
        Ok(Exit::Fine)
    }
}

fn render(status: &StatusView) -> String {
    let mut lines = Vec::new();
    match &status.daemon {
        Some(daemon) => {
            lines.push(format!(
                "daemon: process {}, since {}",
                daemon.pid,
                time(daemon.started_at)
            ));
            if let Some(error) = &daemon.reload_error {
                lines.push(format!(
                    "the rules were changed and refused, the old ones are in use: {error}"
                ));
            }
        }
        None => lines.push("no daemon".to_owned()),
    }
    let rows = status.rules.iter().map(|rule| {
        let last = rule.last.as_ref();
        vec![
            rule.rule.clone(),
            rule.schedule.clone().unwrap_or_else(|| "-".to_owned()),
            rule.next_at.map_or_else(|| "-".to_owned(), time),
            rule.running.clone().unwrap_or_else(|| "-".to_owned()),
            last.map_or_else(
                || "-".to_owned(),
                |last| format!("{} ({})", last.outcome.as_deref().unwrap_or("running"), last.id),
            ),
            last.map_or_else(
                || "-".to_owned(),
                |last| time(last.finished_at.unwrap_or(last.started_at)),
            ),
        ]
    });
    let rules = table(
        &["rule", "schedule", "next", "running", "last run", "ended"],
        rows.collect(),
    );
    lines.push(if rules.is_empty() {
        "no run yet".to_owned()
    } else {
        rules
    });
    lines.join("\n")
}
