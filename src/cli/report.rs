//! A run's report for people.

use serde::Serialize;

use super::exit::Stop;
use super::output::{size, span, table};
use super::views::{self, ReportView};

/// The report as text: a line for the run, one a destination, and each failure with what to do.
pub(super) fn text(report: &impl Serialize) -> Result<String, Stop> {
    let value =
        serde_json::to_value(report).map_err(|error| Stop::failed(format!("cannot show the report: {error}")))?;
    let view: ReportView = views::read(&value)?;
    Ok(render(&view))
}

fn render(view: &ReportView) -> String {
    let mut text = format!(
        "{} ({}): {} in {}; {} repositories, {} of {} tags, {} read",
        view.rule,
        view.id,
        view.outcome,
        span(view.started_at, view.finished_at),
        view.source.repositories,
        view.source.tags_selected,
        view.source.tags_listed,
        size(view.bytes.read),
    );
    let rows = view.destinations.iter().map(|destination| {
        let images = &destination.images;
        let others = [
            (images.kept, "kept"),
            (images.held, "held"),
            (images.deferred, "deferred"),
            (images.gone, "gone"),
            (images.skipped, "skipped"),
        ];
        let others: Vec<String> = others
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        vec![
            destination.registry.clone(),
            images.copied.to_string(),
            images.in_step.to_string(),
            images.failed.to_string(),
            others.join(", "),
            size(destination.bytes.written),
            size(destination.bytes.resumed),
        ]
    });
    let header = ["destination", "copied", "in step", "failed", "other", "sent", "resumed"];
    let destinations = table(&header, rows.collect());
    for line in destinations.lines() {
        text.push_str("\n  ");
        text.push_str(line);
    }
    for failure in &view.failures {
        text.push_str("\n  failed: ");
        text.push_str(&failure.source);
        if let Some(destination) = &failure.destination {
            text.push_str(" -> ");
            text.push_str(destination);
        }
        text.push_str(&format!(" ({}", failure.kind));
        if let Some(job) = &failure.job {
            text.push_str(&format!(", {job}"));
        }
        text.push_str(&format!("): {}", failure.message));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_for_people() {
        let report = serde_json::json!({
            "schema_version": 1, "id": "run-12", "rule": "platform", "trigger": "manual", "outcome": "partial",
            "started_at": "2026-03-01T00:00:00Z", "finished_at": "2026-03-01T00:00:03Z",
            "source": { "repositories": 2, "tags_listed": 9, "tags_selected": 4 },
            "destinations": [{
                "registry": "ecr",
                "images": { "in_step": 1, "copied": 1, "kept": 1, "held": 0, "deferred": 0, "gone": 0, "skipped": 0, "failed": 1 },
                "tags_deleted": 0, "deletes_blocked": 0,
                "blobs": { "copied": 3, "mounted": 0, "present": 0 },
                "bytes": { "written": 2048, "resumed": 0 },
            }],
            "bytes": { "read": 2048 }, "requests": {}, "changes": [],
            "failures": [{
                "source": "harbor/app/web:1", "destination": "ecr/app/web:1", "job": "job-3", "digest": null,
                "kind": "denied", "status": 403, "code": "DENIED", "message": "may not push: ask for the right to",
                "attempts": 1, "next_attempt_at": null,
            }],
        });
        insta::assert_snapshot!(text(&report).unwrap(), @r"
        platform (run-12): partial in 3.0 s; 2 repositories, 4 of 9 tags, 2.00 KiB read
          DESTINATION  COPIED  IN STEP  FAILED  OTHER   SENT      RESUMED
          ecr          1       1        1       1 kept  2.00 KiB  0 B
          failed: harbor/app/web:1 -> ecr/app/web:1 (denied, job-3): may not push: ask for the right to
        ");
    }
}
