//! A run's report for people.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::exit::Stop;
use super::output::{count, size, span, table};
use super::views::{self, DestinationView, FailureView, ReportView};

/// What a reader of a report is told besides.
#[derive(Debug, Default)]
pub(super) struct Showing {
    /// Messages of failures and warnings that were shown while the run went on.
    pub(super) told: BTreeSet<String>,
    /// Leave out ids: commands that take one would look for it in another state.
    pub(super) without_ids: bool,
}

/// The report as text: a line for the run, one a destination, and each cause of failures with what to do.
pub(super) fn text(report: &impl Serialize) -> Result<String, Stop> {
    shown(report, &Showing::default())
}

/// The same for a reader who was told something already.
pub(super) fn shown(report: &impl Serialize, showing: &Showing) -> Result<String, Stop> {
    let value =
        serde_json::to_value(report).map_err(|error| Stop::failed(format!("cannot show the report: {error}")))?;
    let view: ReportView = views::read(&value)?;
    Ok(render(&view, showing))
}

fn render(view: &ReportView, showing: &Showing) -> String {
    let id = if showing.without_ids {
        String::new()
    } else {
        format!(" ({})", view.id)
    };
    let mut text = format!(
        "{}{id}: {} in {}; {}, {} of {}, {} read",
        view.rule,
        view.outcome,
        span(view.started_at, view.finished_at),
        count(view.source.repositories, "repository", "repositories"),
        view.source.tags_selected,
        count(view.source.tags_listed, "tag", "tags"),
        size(view.bytes.read),
    );
    let rows = view.destinations.iter().map(|destination| {
        let images = &destination.images;
        let failed = failed_at(view, destination);
        let others = [
            (images.failed.saturating_sub(failed), "not done"),
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
            failed.to_string(),
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
    for warning in view.warnings.iter().filter(|warning| !showing.told.contains(*warning)) {
        text.push_str("\n  warning: ");
        text.push_str(warning);
    }
    causes(view, showing, &mut text);
    text
}

/// Images that failed at a destination. The report counts those that a stopped run did not come to with them.
fn failed_at(view: &ReportView, destination: &DestinationView) -> u64 {
    let counted = destination.images.failed;
    if !matches!(view.outcome.as_str(), "interrupted" | "cancelled") {
        return counted;
    }
    let within = |place: &str| {
        place
            .strip_prefix(&destination.registry)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let failures = view
        .failures
        .iter()
        .filter(|failure| failure.kind != "cancelled" && failure.destination.as_deref().is_some_and(within));
    counted.min(failures.count() as u64)
}

/// Failures, each cause once.
fn causes(view: &ReportView, showing: &Showing, text: &mut String) {
    let mut groups: Vec<(&FailureView, u64)> = Vec::new();
    let mut index: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for failure in &view.failures {
        let next = groups.len();
        let at = *index.entry((&failure.kind, &failure.message)).or_insert(next);
        match groups.get_mut(at) {
            Some((_, others)) => *others += 1,
            None => groups.push((failure, 0)),
        }
    }
    let mut others_of_all = 0;
    for (failure, others) in groups {
        others_of_all += others;
        let told = showing.told.contains(&failure.message);
        if told && others == 0 {
            continue;
        }
        text.push_str("\n  failed: ");
        text.push_str(&failure.source);
        if let Some(destination) = &failure.destination {
            text.push_str(" -> ");
            text.push_str(destination);
        }
        text.push_str(&format!(" ({}", failure.kind));
        if let Some(job) = failure.job.as_ref().filter(|_| !showing.without_ids) {
            text.push_str(&format!(", {job}"));
        }
        text.push(')');
        if !told {
            text.push_str(&format!(": {}", failure.message));
        }
        if others > 0 {
            text.push_str(&format!(" (and {others} more)"));
        }
    }
    for (left_out, what) in [(view.failures_left_out, "failures"), (view.changes_left_out, "changes")] {
        if left_out > 0 {
            text.push_str(&format!("\n  {left_out} more {what} are not in this report"));
        }
    }
    if others_of_all + view.failures_left_out > 0 && !showing.without_ids {
        text.push_str(&format!("\n  each of them: transship jobs --failed --run {}", view.id));
    }
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
    #[test]
    fn a_cause_is_told_once_and_what_was_stopped_did_not_fail() {
        let failure = |number: u64| {
            serde_json::json!({
                "source": format!("harbor/app/web:{number}"), "destination": format!("ecr/app/web:{number}"),
                "job": format!("job-{number}"), "kind": "denied", "message": "may not push",
            })
        };
        let mut report = serde_json::json!({
            "id": "run-12", "rule": "platform", "outcome": "interrupted",
            "started_at": "2026-03-01T00:00:00Z", "finished_at": "2026-03-01T00:00:03Z",
            "source": { "repositories": 1, "tags_listed": 9, "tags_selected": 9 },
            "destinations": [{
                "registry": "ecr",
                "images": { "in_step": 0, "copied": 1, "kept": 0, "held": 0, "deferred": 0, "gone": 0, "skipped": 0, "failed": 8 },
                "bytes": { "written": 0, "resumed": 0 },
            }],
            "bytes": { "read": 0 },
            "failures": [failure(1), failure(2), failure(3)],
        });
        let all = text(&report).unwrap();
        insta::assert_snapshot!(all, @r"
        platform (run-12): interrupted in 3.0 s; 1 repository, 9 of 9 tags, 0 B read
          DESTINATION  COPIED  IN STEP  FAILED  OTHER       SENT  RESUMED
          ecr          1       0        3       5 not done  0 B   0 B
          failed: harbor/app/web:1 -> ecr/app/web:1 (denied, job-1): may not push (and 2 more)
          each of them: transship jobs --failed --run run-12
        ");
        report["failures_left_out"] = 5.into();
        report["changes_left_out"] = 7.into();
        let some = text(&report).unwrap();
        for line in [
            "5 more failures are not",
            "7 more changes are not",
            "each of them: transship jobs",
        ] {
            assert!(some.contains(line), "{some}");
        }
        report["failures_left_out"] = 0.into();
        report["failures"] = serde_json::json!([failure(1)]);
        let showing = Showing {
            told: BTreeSet::from(["may not push".to_owned()]),
            without_ids: true,
        };
        let rest = shown(&report, &showing).unwrap();
        assert!(rest.starts_with("platform: interrupted"), "{rest}");
        assert!(
            !rest.contains("failed:") && !rest.contains("job-") && !rest.contains("run-"),
            "{rest}"
        );
    }
}
