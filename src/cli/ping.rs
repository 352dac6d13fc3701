//! `ping`: can the registries be used, and if not, which step fails?

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::context::Context;
use super::exit::{Exit, Stop};
use super::output::{Format, FormatArg};
use super::signals::Signals;
use crate::engine::{PingReport, SCHEMA_VERSION};

/// Try the registries of the rules: name, address, certificate, login, kind, clock, rights to list, pull, push and delete
///
/// Says which step failed and what to do, and what is known of each registry. Leaves nothing behind there: uploads that are
/// opened are given up, no repository is made, nothing is deleted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  transship ping\n  transship ping harbor ecr --format json")]
pub(super) struct Ping {
    /// Registries to try, by their names in the rules; all without any
    #[arg(value_name = "REGISTRY")]
    registries: Vec<String>,
    #[command(flatten)]
    format: FormatArg,
}

impl Ping {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let engine = context.engine_to_look().await?;
        let mut signals = Signals::listen()?;
        let reports = tokio::select! {
            reports = Box::pin(engine.ping(&self.registries)) => reports?,
            signal = signals.next() => return Ok(Exit::Stopped(signal)),
        };
        let failed = reports
            .iter()
            .any(|report| report.steps.iter().any(|step| step.ok == Some(false)));
        match self.format.format {
            Format::Json => context
                .output
                .json(&json!({ "schema_version": SCHEMA_VERSION, "registries": reports }))?,
            Format::Text => reports
                .iter()
                .try_for_each(|report| context.output.line(render(report, engine.clock().now())))?,
        }
        Ok(if failed { Exit::Failed } else { Exit::Fine })
    }
}

fn render(report: &PingReport, now: Timestamp) -> String {
    let mut text = format!("{} ({})", report.registry, report.address);
    for step in &report.steps {
        let mark = match step.ok {
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "not tried",
        };
        text.push_str(&format!("\n  {:<8} {mark}: {}", step.step, step.message));
        // Where all are the same, the step says it.
        let differ = step.repositories.iter().any(|right| right.ok != step.ok);
        for right in step.repositories.iter().filter(|_| differ) {
            let mark = match right.ok {
                Some(true) => "ok",
                Some(false) => "FAILED",
                None => "not tried",
            };
            text.push_str(&format!("\n    {} {mark}: {}", right.repository, right.message));
        }
    }
    let habit = match report.upload_habit {
        "keeps_bytes" => "every byte that arrived",
        "keeps_pieces" => "whole pieces",
        "keeps_nothing" => "nothing",
        _ => "not known yet",
    };
    text.push_str(&format!("\n  kept of a broken upload: {habit}"));
    for known in &report.capabilities {
        let age = ago(now.duration_since(known.learnt));
        text.push_str(&format!("\n  known: {} ({}; {age})", known.message, known.evidence));
    }
    if report.capabilities_left_out > 0 {
        let more = report.capabilities_left_out;
        text.push_str(&format!("\n  known: and {more} more, of other repositories"));
    }
    text
}

/// How long ago something was, by its largest unit.
fn ago(age: SignedDuration) -> String {
    match (age.as_hours(), age.as_mins()) {
        (hours @ 48.., _) => format!("{} days ago", hours / 24),
        (hours @ 1.., _) => format!("{hours} h ago"),
        (_, minutes @ 1..) => format!("{minutes} min ago"),
        _ => "just now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_by_their_largest_unit() {
        for (seconds, told) in [
            (-5, "just now"),
            (59, "just now"),
            (60, "1 min ago"),
            (3_599, "59 min ago"),
            (3_600, "1 h ago"),
            (47 * 3_600, "47 h ago"),
            (5 * 86_400 + 1, "5 days ago"),
        ] {
            assert_eq!(ago(SignedDuration::from_secs(seconds)), told);
        }
    }
}
