//! `cancel`: a run is stopped, whichever process executes it.

use clap::Args;
use serde_json::json;

use super::client::ServerArgs;
use super::context::Context;
use super::exit::{Exit, Stop};
use super::output::{Format, FormatArg};
use crate::engine::SCHEMA_VERSION;
use crate::store::RunId;

/// Stop a run; what it has copied stays, and the next run goes on from there
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  transship cancel run-12")]
pub(super) struct Cancel {
    /// The run, such as run-12
    #[arg(value_name = "RUN")]
    run: RunId,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    format: FormatArg,
}

impl Cancel {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let cancelled = match self.server.daemon(context).await? {
            Some(daemon) => {
                daemon.say_so(context);
                let answer = daemon
                    .post(&format!("/api/v1/runs/{}/cancel", self.run), &json!({}))
                    .await?;
                answer["cancelled"] == true
            }
            None => {
                // Refuses to make a state where there is none.
                context.store_read_only().await?.close().await;
                let store = context.store().await?;
                if store.run(self.run).await?.is_none() {
                    return Err(Stop::unusable(format!(
                        "there is no {}: see `transship runs`",
                        self.run
                    )));
                }
                let asked = store.request_cancel(self.run).await?;
                store.close().await;
                context.output.note("no daemon runs; asked through the state");
                asked
            }
        };
        match self.format.format {
            Format::Json => context.output.json(&json!({
                "schema_version": SCHEMA_VERSION,
                "run": self.run,
                "cancelled": cancelled,
            }))?,
            Format::Text if cancelled => context.output.line(format!("{} is being stopped", self.run))?,
            Format::Text => context.output.line(format!("{} is not running", self.run))?,
        }
        Ok(if cancelled { Exit::Fine } else { Exit::Failed })
    }
}
