//! `status`: each rule's schedule and last run.

use clap::Args;

use super::client::ServerArgs;
use super::context::Context;
use super::exit::{Exit, Stop};
use super::output::{Format, FormatArg, table, time};
use super::views::{self, StatusView};
use crate::http;
use crate::store::Store;

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
        let from_state = async |store: &Store, gone| Ok(http::status_of_state(store, gone).await?);
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
    // That there is none has been said where the state is read.
    if let Some(daemon) = &status.daemon {
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
    let rows = status.rules.iter().map(|rule| {
        let last = rule.last.as_ref();
        let schedule = [
            rule.schedule.clone().unwrap_or_else(|| "-".to_owned()),
            rule.next_at.map_or_else(|| "-".to_owned(), time),
        ];
        let mut row = vec![rule.rule.clone()];
        // Schedules are known to a daemon only.
        if status.daemon.is_some() {
            row.extend(schedule);
        }
        row.extend([
            rule.running.clone().unwrap_or_else(|| "-".to_owned()),
            last.map_or_else(
                || "-".to_owned(),
                |last| format!("{} ({})", last.outcome.as_deref().unwrap_or("running"), last.id),
            ),
            last.map_or_else(
                || "-".to_owned(),
                |last| last.finished_at.map_or_else(|| "-".to_owned(), time),
            ),
        ]);
        row
    });
    let header: &[&str] = match status.daemon {
        Some(_) => &["rule", "schedule", "next", "running", "last run", "ended"],
        None => &["rule", "running", "last run", "ended"],
    };
    let rules = table(header, rows.collect());
    lines.push(if rules.is_empty() {
        "no run yet".to_owned()
    } else {
        rules
    });
    lines.join("\n")
}
