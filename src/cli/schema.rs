//! `schema`: the JSON Schema of the rules.

use clap::Args;

use super::context::{Context, ended};
use super::exit::{Exit, Stop};
use crate::config;

/// Print the JSON Schema of the rules file, for editors
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  transship schema > rules.schema.json\n\n\
and as first line of the rules: # yaml-language-server: $schema=rules.schema.json")]
pub(super) struct Schema {}

impl Schema {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Stop> {
        let text = serde_json::to_string_pretty(&config::json_schema())
            .map_err(|error| Stop::failed(format!("cannot write the schema: {error}")))?;
        context.output.raw(ended(text).as_bytes())?;
        Ok(Exit::Fine)
    }
}
