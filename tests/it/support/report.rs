//! The JSON report read strictly: every field that scripts may rely on, of its type, and no other.

use serde_json::Value;

/// A check of one value; the text says where it stands.
type Check = fn(&str, &Value);

#[track_caller]
fn fields(place: &str, value: &Value, expected: &[(&str, Check)]) {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("{place} is no object: {value}"));
    let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    for name in object.keys() {
        assert!(
            names.contains(&name.as_str()),
            "{place} has a field {name} of no known meaning"
        );
    }
    for (name, check) in expected {
        let field = object
            .get(*name)
            .unwrap_or_else(|| panic!("{place} has no {name}: {value}"));
        check(&format!("{place}.{name}"), field);
    }
}

#[track_caller]
fn each(place: &str, value: &Value, check: Check) {
    let list = value
        .as_array()
        .unwrap_or_else(|| panic!("{place} is no list: {value}"));
    for (index, item) in list.iter().enumerate() {
        check(&format!("{place}[{index}]"), item);
    }
}

fn text(place: &str, value: &Value) {
    assert!(value.as_str().is_some_and(|text| !text.is_empty()), "{place}: {value}");
}

fn count(place: &str, value: &Value) {
    assert!(value.is_u64(), "{place}: {value}");
}

fn time(place: &str, value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("{place}: {value}"));
    assert!(text.ends_with('Z'), "{place} is not in UTC: {text}");
    text.parse::<jiff::Timestamp>()
        .unwrap_or_else(|error| panic!("{place}: {error}"));
}

fn digest(place: &str, value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("{place}: {value}"));
    text.parse::<transship::oci::Digest>()
        .unwrap_or_else(|error| panic!("{place}: {error}"));
}

fn id(place: &str, value: &Value, prefix: &str) {
    let number = value
        .as_str()
        .and_then(|text| text.strip_prefix(prefix))
        .and_then(|text| text.parse::<u64>().ok());
    assert!(number.is_some_and(|number| number > 0), "{place}: {value}");
}

fn one_of(place: &str, value: &Value, words: &[&str]) {
    assert!(
        value.as_str().is_some_and(|word| words.contains(&word)),
        "{place}: {value} is none of {words:?}"
    );
}

fn or_null(place: &str, value: &Value, check: Check) {
    if !value.is_null() {
        check(place, value);
    }
}

const OUTCOMES: [&str; 8] = [
    "in_step", "copied", "kept", "held", "deferred", "gone", "skipped", "failed",
];
const KINDS: [&str; 17] = [
    "network",
    "throttled",
    "server",
    "unauthorized",
    "corrupt",
    "denied",
    "not_found",
    "conflict",
    "invalid",
    "unsupported",
    "quota",
    "too_large",
    "tls",
    "config",
    "local",
    "cancelled",
    "missing_content",
];

/// Panics where the document is not exactly what the commands' page promises.
#[track_caller]
pub fn assert_sync_report(report: &Value) {
    fields(
        "report",
        report,
        &[
            ("schema_version", |place, value| assert_eq!(value, 1, "{place}")),
            ("runs", |place, value| each(place, value, run)),
        ],
    );
}

fn run(place: &str, value: &Value) {
    fields(
        place,
        value,
        &[
            ("id", |place, value| id(place, value, "run-")),
            ("rule", text),
            ("trigger", |place, value| {
                one_of(place, value, &["schedule", "manual", "event", "recovery"])
            }),
            ("outcome", |place, value| {
                one_of(place, value, &["ok", "partial", "failed", "interrupted", "cancelled"])
            }),
            ("started_at", time),
            ("finished_at", time),
            ("source", |place, value| {
                fields(
                    place,
                    value,
                    &[
                        ("repositories", count),
                        ("tags_listed", count),
                        ("tags_selected", count),
                    ],
                );
            }),
            ("destinations", |place, value| each(place, value, destination)),
            ("bytes", |place, value| fields(place, value, &[("read", count)])),
            ("requests", requests),
            ("changes", |place, value| each(place, value, change)),
            ("changes_left_out", count),
            ("failures", |place, value| each(place, value, failure)),
            ("failures_left_out", count),
            ("warnings", |place, value| each(place, value, text)),
        ],
    );
    assert!(
        value["started_at"].as_str() <= value["finished_at"].as_str() || same_second(value),
        "{value}"
    );
}

/// Times of one second may have different numbers of digits, which do not compare as text.
fn same_second(value: &Value) -> bool {
    let read = |name: &str| {
        value[name]
            .as_str()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
    };
    read("started_at") <= read("finished_at")
}

fn destination(place: &str, value: &Value) {
    fields(
        place,
        value,
        &[
            ("registry", text),
            ("images", |place, value| {
                fields(place, value, &OUTCOMES.map(|name| (name, count as Check)))
            }),
            ("trusted", count),
            ("tags_deleted", count),
            ("deletes_blocked", count),
            ("blobs", |place, value| {
                fields(
                    place,
                    value,
                    &[
                        ("copied", count),
                        ("mounted", count),
                        ("present", count),
                        ("imported", count),
                    ],
                )
            }),
            ("bytes", |place, value| {
                fields(place, value, &[("written", count), ("resumed", count)])
            }),
        ],
    );
}

fn requests(place: &str, value: &Value) {
    let hosts = value.as_object().unwrap_or_else(|| panic!("{place}: {value}"));
    for (name, methods) in hosts {
        let methods = methods
            .as_object()
            .unwrap_or_else(|| panic!("{place}.{name}: {methods}"));
        for (method, number) in methods {
            assert!(
                ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()),
                "{place}.{name}: {method}"
            );
            assert!(
                number.as_u64().is_some_and(|number| number > 0),
                "{place}.{name}.{method}: {number}"
            );
        }
    }
}

fn change(place: &str, value: &Value) {
    fields(
        place,
        value,
        &[
            ("source", text),
            ("destination", text),
            ("digest", |place, value| or_null(place, value, digest)),
            ("previous_digest", |place, value| or_null(place, value, digest)),
            ("outcome", |place, value| one_of(place, value, &OUTCOMES)),
        ],
    );
}

fn failure(place: &str, value: &Value) {
    fields(
        place,
        value,
        &[
            ("source", text),
            ("destination", |place, value| or_null(place, value, text)),
            ("job", |place, value| {
                or_null(place, value, |place, value| id(place, value, "job-"))
            }),
            ("digest", |place, value| or_null(place, value, digest)),
            ("kind", |place, value| one_of(place, value, &KINDS)),
            ("status", |place, value| or_null(place, value, count)),
            ("code", |place, value| or_null(place, value, text)),
            ("message", text),
            ("attempts", count),
            ("next_attempt_at", |place, value| or_null(place, value, time)),
        ],
    );
}

/// The jobs of a destination that have an outcome, which must be all that were planned.
pub fn images(destination: &Value) -> u64 {
    OUTCOMES
        .iter()
        .map(|name| destination["images"][name].as_u64().expect("a count"))
        .sum()
}
