//! `completions`: what shells need to complete our arguments.

use clap::Args;
use clap_complete::Shell;

use super::context::Context;
use super::exit::{Exit, Stop};

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  transship completions bash > /etc/bash_completion.d/transship\n  \
transship completions fish > ~/.config/fish/completions/transship.fish"
)]
pub(super) struct Completions {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Stop> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::definition(), "transship", &mut script);
        context.output.raw(&script)?;
        Ok(Exit::Fine)
    }
}
