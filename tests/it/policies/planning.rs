//! `plan`: what a run would do, and why.

use serde_json::{Value, json};

use super::{app, json_of};
use crate::support::command::Transship;
use crate::support::images::{image, rebuilt};
use crate::support::pair::Pair;
use crate::support::proxy::{Act, Fault};

#[tokio::test]
async fn plan_says_what_would_be_done_and_why_and_changes_nothing() {
    let pair = Pair::start().await;
    let (at_source, at_destination) = (pair.at_source(), pair.at_destination());
    let sample = image(1, "amd64", &[10]);
    for tag in ["v1", "v2"] {
        at_source.push("app", tag, &sample).await;
    }
    let home = Transship::new(&pair.rules(&app("    tags: { include: [\"v*\"] }\n")));
    home.run(&["sync"]).await.expect(0);
    home.run(&["plan", "--exit-code"]).await.expect(0);

    let moved = rebuilt(2, 10);
    at_source.push("app", "v1", &moved).await;
    at_source.push("app", "v3", &sample).await;
    at_source.push("app", "v4", &sample).await;
    at_source.push("app", "other", &sample).await;
    at_destination.push("app", "v4", &image(3, "amd64", &[10])).await;
    pair.reset();
    let runs = json_of(&home, &["runs"], 0).await;
    let plan = json_of(&home, &["plan", "--exit-code"], 3).await;
    pair.assert_no_write();
    assert_eq!(plan["schema_version"], 1);
    let rule = &plan["rules"][0];
    assert_eq!(
        (&rule["rule"], &rule["work"], &rule["failed"]),
        (&json!("app"), &json!(true), &json!(false))
    );
    let repository = &rule["repositories"][0];
    assert_eq!(
        (&repository["tags_listed"], &repository["problem"]),
        (&json!(5), &Value::Null)
    );
    let images = repository["images"].as_array().expect("images");
    let why: Vec<[&str; 3]> = images
        .iter()
        .map(|image| {
            let destination = &image["destinations"][0];
            [&image["tag"], &destination["action"], &destination["reason"]].map(|field| field.as_str().unwrap_or("-"))
        })
        .collect();
    let expected = [
        ["v1", "copy", "moved"],
        ["v2", "in_step", "-"],
        ["v3", "copy", "new_tag"],
        ["v4", "copy", "conflict"],
    ];
    assert_eq!(why, expected);
    assert_eq!(
        (&images[0]["digest"], &images[0]["destinations"][0]["previous"]),
        (&json!(moved.digest()), &json!(sample.digest()))
    );
    assert!(
        repository["excluded"]["other"].to_string().contains("not_included"),
        "{repository}"
    );

    let text = home.run(&["plan"]).await.expect(0).stdout;
    for part in [
        "moved at the source",
        "new tag",
        "did not write",
        "3 to copy, 1 in step, 1 tags left out",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(!text.contains("v2"), "what is in step is not shown:\n{text}");
    let text = home.run(&["plan", "--all"]).await.expect(0).stdout;
    assert!(
        text.contains("matches no include pattern") && text.contains("v2"),
        "{text}"
    );
    assert_eq!(json_of(&home, &["runs"], 0).await, runs, "the state is as it was");
    pair.assert_no_write();

    home.run(&["sync"]).await.expect(0);
    home.run(&["plan", "--exit-code"]).await.expect(0);
    // What is unknown wins over work.
    at_source.push("app", "v5", &sample).await;
    pair.dst.add(Fault::every(
        "GET",
        "/tags/list",
        Act::Answer(http::StatusCode::FORBIDDEN, None),
    ));
    home.run(&["plan", "--exit-code"]).await.expect(1);
}
