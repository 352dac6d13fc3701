//! Arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    match transship::cli::parse() {
        Ok(cli) => transship::cli::run(cli).into(),
        Err(status) => status.into(),
    }
}
