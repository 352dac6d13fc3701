//! `check`: every mistake in the rules at once.

use clap::Args;
use serde_json::json;

use super::context::{Context, ended, load, said};
use super::exit::{Exit, Stop};
use super::output::{Format, FormatArg, colours_on_stdout, count};
use crate::config::{self, LoadFailure, Mode};
use crate::engine::SCHEMA_VERSION;

/// Read the rules and report every mistake at once, each with its line and a hint
///
/// Works without secrets: a variable that is not set is a warning here, an error elsewhere. Connects to nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  transship check\n  transship check --rules /etc/transship/rules.d --format json")]
pub(super) struct Check {
    #[command(flatten)]
    format: FormatArg,
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Stop> {
        let path = context.rules_path();
        let (mistakes, sources, counts) = match load(&path, Mode::Check) {
            Ok(loaded) => {
                let counts = (loaded.config.rules.len(), loaded.config.registries.len());
                (loaded.warnings, loaded.sources, Some(counts))
            }
            Err(LoadFailure::Wrong { mistakes, sources }) => (mistakes, sources, None),
            Err(failure) => return Err(Stop::unusable(said(&failure))),
        };
        match self.format.format {
            Format::Json => context.output.json(&json!({
                "schema_version": SCHEMA_VERSION,
                "rules": path,
                "ok": counts.is_some(),
                "mistakes": mistakes,
            }))?,
            Format::Text => {
                if !mistakes.is_empty() {
                    let shown = config::render(&mistakes, &sources, colours_on_stdout());
                    context.output.raw(ended(shown).as_bytes())?;
                }
                if let Some((rules, registries)) = counts {
                    context.output.line(format!(
                        "{}: no mistakes ({}, {})",
                        path.display(),
                        count(rules as u64, "rule", "rules"),
                        count(registries as u64, "registry", "registries"),
                    ))?;
                }
            }
        }
        Ok(if counts.is_some() { Exit::Fine } else { Exit::Unusable })
    }
}
