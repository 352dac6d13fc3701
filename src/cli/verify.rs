//! `verify`: destinations compared with sources, trusting no memory.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::exit::{Exit, Stop, StrictArg, chain};
use super::output::{Format, FormatArg, count, size};
use super::report;
use super::signals::Signals;
use crate::engine::{ControlHandle, SCHEMA_VERSION, VerifyFinding, VerifyReport, VerifyRequest};

/// Compare destinations with sources: is every tag, manifest and blob there?
///
/// Trusts nothing that transship remembers. Ends with 1 where something is missing or wrong.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  transship verify\n  transship verify platform --deep\n  transship verify platform --repair"
)]
pub(super) struct Verify {
    /// Rules to verify; all without any
    #[arg(value_name = "RULE")]
    names: Vec<String>,
    /// Read and hash every byte at the destinations
    #[arg(long)]
    deep: bool,
    /// Copy again what is missing or wrong
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    format: FormatArg,
}

impl Verify {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        // A repair is a run: no other process runs the same rule meanwhile.
        let (engine, _lock) = if self.repair {
            let lock = context.lock("verify --repair")?;
            (context.engine().await?, Some(lock))
        } else {
            (context.engine_to_look().await?, None)
        };
        let names = engine.rule_names(&self.names)?;
        let mut signals = Signals::listen()?;
        let (handle, control) = ControlHandle::new();
        let mut exit = Exit::Fine;
        let mut reports = Vec::new();
        for rule in names {
            let request = VerifyRequest {
                rule: rule.clone(),
                deep: self.deep,
                repair: self.repair,
            };
            let work = Box::pin(engine.verify(request, &control));
            let (done, signal) = signals
                .guard(&context.output, std::slice::from_ref(&handle), work)
                .await;
            match done {
                Some(Ok(report)) => {
                    exit = exit.worse(of_report(&report));
                    if self.format.format == Format::Text {
                        context.output.line(render(&report)?)?;
                    }
                    reports.push(report);
                }
                Some(Err(error)) => {
                    context.output.error(format!("rule {rule}: {}", chain(&error)));
                    exit = exit.worse(Exit::Failed);
                }
                None => {}
            }
            if let Some(signal) = signal {
                exit = Exit::Stopped(signal);
                break;
            }
        }
        if self.format.format == Format::Json {
            context
                .output
                .json(&json!({ "schema_version": SCHEMA_VERSION, "rules": reports }))?;
        }
        Ok(exit)
    }
}

/// A fault is a fault, also where it was repaired: somebody should ask how it came to be.
fn of_report(report: &VerifyReport) -> Exit {
    let repaired = report
        .repaired
        .as_ref()
        .map_or(Exit::Fine, |run| Exit::of_run(run, StrictArg::default()));
    if report.findings.is_empty() {
        repaired
    } else {
        Exit::Failed
    }
}

fn render(report: &VerifyReport) -> Result<String, Stop> {
    let mut text = format!(
        "{}: {}, {}, {} seen",
        report.rule,
        count(report.images, "image", "images"),
        count(report.manifests, "manifest", "manifests"),
        count(report.blobs, "blob", "blobs"),
    );
    if report.bytes > 0 {
        text.push_str(&format!(", {} read and hashed", size(report.bytes)));
    }
    for (count, word) in [
        (report.kept, "kept by the rule"),
        (report.skipped, "skipped"),
        (report.gone, "gone"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {count} {word}"));
        }
    }
    match report.findings.len() as u64 + report.findings_left_out {
        0 => text.push_str("; no fault"),
        1 => text.push_str("; 1 fault"),
        faults => text.push_str(&format!("; {faults} faults")),
    }
    for finding in &report.findings {
        text.push_str("\n  ");
        text.push_str(&fault(finding));
    }
    text.push_str(&left_out(report.findings_left_out, "faults"));
    if let Some(run) = &report.repaired {
        text.push_str("\nrepaired by ");
        text.push_str(&report::text(run)?);
    }
    for finding in &report.unrepaired {
        text.push_str("\n  not repaired: ");
        text.push_str(&fault(finding));
    }
    text.push_str(&left_out(report.unrepaired_left_out, "that are not repaired"));
    Ok(text)
}

/// A line that says how many more there were of something; nothing where there were no more.
fn left_out(count: u64, what: &str) -> String {
    match count {
        0 => String::new(),
        _ => format!("\n  {count} more {what} are not listed"),
    }
}

fn fault(finding: &VerifyFinding) -> String {
    let mut text = format!("{}: {}", finding.fault, finding.source);
    // A source that could not be listed has no destination yet.
    if !finding.destination.is_empty() {
        text.push_str(&format!(" -> {}", finding.destination));
    }
    text.push_str(&format!(": {}", finding.message));
    // Which of an image's blobs it is stands nowhere else.
    if let Some(digest) = &finding.digest
        && matches!(
            finding.fault,
            "blob_missing" | "corrupt" | "unreadable" | "manifest_missing"
        )
        && !finding.message.contains(&digest.to_string())
    {
        text.push_str(&format!(" ({digest})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn a_fault_is_a_failure() {
        let mut report = VerifyReport::default();
        assert_eq!(of_report(&report), Exit::Fine);
        report.findings.push(VerifyFinding {
            source: "a/x:1".into(),
            destination: "b/x:1".into(),
            fault: "missing",
            digest: None,
            message: "the tag is not there".into(),
        });
        assert_eq!(of_report(&report), Exit::Failed);
        let text = render(&report).unwrap();
        assert!(
            text.ends_with("1 fault\n  missing: a/x:1 -> b/x:1: the tag is not there"),
            "{text}"
        );
        let blob = Digest::of(b"x");
        report.findings[0].fault = "blob_missing";
        report.findings[0].digest = Some(blob.clone());
        report.unrepaired = vec![VerifyFinding {
            destination: String::new(),
            ..report.findings[0].clone()
        }];
        let text = render(&report).unwrap();
        assert!(
            text.contains(&format!("a/x:1 -> b/x:1: the tag is not there ({blob})")),
            "{text}"
        );
        let last = format!("not repaired: blob_missing: a/x:1: the tag is not there ({blob})");
        assert!(text.ends_with(&last), "{text}");
        report.findings_left_out = 3;
        report.unrepaired_left_out = 2;
        let text = render(&report).unwrap();
        assert!(
            text.contains("; 4 faults\n") && text.contains("\n  3 more faults are not listed\n  not repaired"),
            "{text}"
        );
        assert!(
            text.ends_with("\n  2 more that are not repaired are not listed"),
            "{text}"
        );
    }
}
