//! `audit`: which tag was put where, when, and what it pointed to before.

use clap::Args;

use super::client::ServerArgs;
use super::context::Context;
use super::exit::{Exit, Stop};
use super::output::{Format, FormatArg, table, time};
use super::views::{self, AuditView};
use crate::http;

/// Show the audit trail: every tag that was put, by which run, and what it pointed to before
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  transship audit\n  transship audit --limit 1000 --format json")]
pub(super) struct Audit {
    /// At most this many
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    format: FormatArg,
}

impl Audit {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let path = format!("/api/v1/audit?limit={}", self.limit);
        let from_state = async |store: &crate::store::Store, _| Ok(http::audit(store, self.limit).await?);
        let document = self.server.read(context, &path, from_state).await?;
        match self.format.format {
            Format::Json => context.output.json(&document)?,
            Format::Text => {
                let entries: Vec<AuditView> = views::read(&document["entries"])?;
                context.output.line(render(&entries))?;
            }
        }
        Ok(Exit::Fine)
    }
}

fn render(entries: &[AuditView]) -> String {
    let rows = entries.iter().map(|entry| {
        vec![
            time(entry.at),
            entry.action.clone(),
            format!("{}/{}:{}", entry.registry, entry.repository, entry.tag),
            short(&entry.digest),
            entry.previous_digest.as_deref().map_or_else(|| "-".to_owned(), short),
            entry.source.clone(),
            entry.run.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let entries = table(
        &["time", "action", "tag", "digest", "before", "source", "run"],
        rows.collect(),
    );
    if entries.is_empty() {
        "nothing was written yet".to_owned()
    } else {
        entries
    }
}

/// Enough of a digest to tell two apart; JSON has the whole.
fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}
