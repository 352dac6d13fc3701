//! JSON documents: one on standard output and nothing else, snake_case, a version, times in UTC.

use serde_json::Value;
use transship::demo::images::image;

use super::{registry, rules, seed};
use crate::support::command::Transship;

/// Keys under which names of others stand: registries, methods, tags.
const NAMES: [&str; 2] = ["requests", "excluded"];

fn check(path: &str, value: &Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                let snake = key
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
                assert!(snake, "{path} is not snake_case");
                if key == "at" || key.ends_with("_at") {
                    check_time(&path, value);
                }
                if !NAMES.contains(&key.as_str()) {
                    check(&path, value);
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| check(path, value)),
        _ => {}
    }
}

fn check_time(path: &str, value: &Value) {
    if value.is_null() {
        return;
    }
    let text = value.as_str().unwrap_or_else(|| panic!("{path} is no text: {value}"));
    assert!(text.ends_with('Z') && text.contains('T'), "{path} is not UTC: {text}");
    text.parse::<jiff::Timestamp>()
        .unwrap_or_else(|error| panic!("{path}: {error}"));
}

#[tokio::test]
async fn every_document_is_of_one_kind() {
    let (from, to) = (registry().await, registry().await);
    seed(&from, "app/web", "v1", &image(1, "amd64", &[100]));
    let home = Transship::new(&format!(
        "{}  - {{ name: broken, source: from, destinations: [to], repositories: [app/missing] }}\n",
        rules(&from.url(), &to.url())
    ));
    // The first run is of the rule that fails, whichever of two would be the faster.
    home.run(&["sync", "broken"]).await.expect(1);
    let source = format!("{}/app/web:v1", from.url());
    let copy = ["copy", &source, "oci:bundle"];
    for (command, code) in [
        (&["check"][..], 0),
        (&["plan"], 1),
        (&["sync", "web"], 0),
        (&["sync"], 1),
        (&copy, 0),
        (&["status"], 0),
        (&["runs"], 0),
        (&["runs", "run-1"], 0),
        (&["jobs"], 0),
        (&["jobs", "--failed"], 0),
        (&["audit"], 0),
        (&["retry", "run-1"], 1),
        (&["cancel", "run-1"], 1),
        (&["verify", "web", "--deep", "--repair"], 0),
        (&["ping"], 0),
    ] {
        let output = home.run(&[command, &["--format", "json"]].concat()).await.expect(code);
        let document = output.json();
        assert_eq!(document["schema_version"], 1, "{command:?}: {document}");
        check(&format!("{command:?}"), &document);
        assert_eq!(output.stdout.lines().count(), 1, "{command:?}");
        let text = home.run(command).await;
        assert!(!text.stdout.trim().is_empty(), "{command:?} says nothing to people");
        assert!(
            serde_json::from_str::<Value>(&text.stdout).is_err(),
            "{command:?} speaks JSON unasked"
        );
    }
}

#[tokio::test]
async fn the_report_is_as_promised() {
    let (from, to) = (registry().await, registry().await);
    let (one, two) = (image(1, "amd64", &[1000]), image(2, "amd64", &[1000]));
    seed(&from, "app/web", "v1", &one);
    seed(&from, "app/web", "v2", &two);
    let home = Transship::new(&rules(&from.url(), &to.url()));
    let report = home.run(&["sync", "-o", "json"]).await.expect(0).json();
    let run = &report["runs"][0];
    let keys = |value: &Value| -> Vec<String> { value.as_object().expect("an object").keys().cloned().collect() };
    let mut expected = vec![
        "id",
        "rule",
        "trigger",
        "outcome",
        "started_at",
        "finished_at",
        "source",
        "destinations",
        "bytes",
        "requests",
        "changes",
        "changes_left_out",
        "failures",
        "failures_left_out",
        "warnings",
    ];
    expected.sort_unstable();
    let mut found = keys(run);
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(
        (&run["id"], &run["trigger"], &run["outcome"]),
        (&"run-1".into(), &"manual".into(), &"ok".into())
    );
    assert_eq!(
        run["source"],
        serde_json::json!({ "repositories": 1, "tags_listed": 2, "tags_selected": 2 })
    );
    let destination = &run["destinations"][0];
    assert_eq!(destination["registry"], "to");
    let images = serde_json::json!({
        "in_step": 0, "copied": 2, "kept": 0, "held": 0, "deferred": 0, "gone": 0, "skipped": 0, "failed": 0
    });
    assert_eq!(destination["images"], images);
    assert_eq!(
        (&destination["tags_deleted"], &destination["deletes_blocked"]),
        (&0.into(), &0.into())
    );
    assert_eq!(destination["blobs"]["copied"], 4);
    let bytes: usize = [&one, &two]
        .iter()
        .flat_map(|image| &image.blobs)
        .map(bytes::Bytes::len)
        .sum();
    assert_eq!(
        destination["bytes"],
        serde_json::json!({ "written": bytes, "resumed": 0 })
    );
    assert_eq!(run["bytes"]["read"], bytes);
    assert_eq!(run["changes"].as_array().map(Vec::len), Some(2));
    assert_eq!(run["failures"], serde_json::json!([]));
    assert_eq!(
        (&run["failures_left_out"], &run["changes_left_out"]),
        (&0.into(), &0.into())
    );
    // Each attempt is counted where it was made: as many as the registries saw.
    for (name, registry) in [("from", &from), ("to", &to)] {
        let counted = run["requests"][name].as_object().expect("methods");
        for (method, count) in counted {
            let seen = registry
                .log()
                .iter()
                .filter(|entry| entry.method.as_str() == method)
                .count();
            assert_eq!(count, &Value::from(seen), "{name} {method}: {counted:?}");
        }
        let sum: u64 = counted.values().filter_map(Value::as_u64).sum();
        assert_eq!(
            usize::try_from(sum).ok(),
            Some(registry.log().len()),
            "{name}: {counted:?}"
        );
    }
}
