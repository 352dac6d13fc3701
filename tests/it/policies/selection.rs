//! Which repositories and tags a rule means, and what they are called at the destination.

use serde_json::json;

use super::{app, json_of, outcomes};
use crate::support::command::Transship;
use crate::support::images::image;
use crate::support::pair::Pair;
use crate::support::wire::Wire;
use crate::sync::only_run;

#[tokio::test]
async fn tags_are_narrowed_by_include_exclude_semver_and_newest() {
    let pair = Pair::start().await;
    let sample = image(1, "amd64", &[10]);
    let all = [
        "1.9",
        "v1.20.0",
        "v1.21.3",
        "v1.21.4-rc1",
        "v2.0.0",
        "v3.0.0",
        "latest",
        "edge",
        "1.20-alpine",
        "1.22-alpine",
    ];
    for tag in all {
        pair.at_source().push("app", tag, &sample).await;
    }
    let cases: [(&str, &[&str]); 7] = [
        (
            "{ include: [\"v*\"], exclude: [\"*-rc*\"] }",
            &["v1.20.0", "v1.21.3", "v2.0.0", "v3.0.0"],
        ),
        (
            "{ include: [\"/^v1\\\\./\", edge] }",
            &["edge", "v1.20.0", "v1.21.3", "v1.21.4-rc1"],
        ),
        ("{ semver: \">=1.20, <3\" }", &["v1.20.0", "v1.21.3", "v2.0.0"]),
        (
            "{ semver: \">=1.20, <2\", suffix: alpine }",
            &["1.20-alpine", "1.22-alpine"],
        ),
        ("{ include: [\"v*\"], newest: { count: 2 } }", &["v2.0.0", "v3.0.0"]),
        (
            "{ exclude: [\"v3*\"], semver: \">=1\", newest: { count: 2, by: semver } }",
            &["v1.21.3", "v2.0.0"],
        ),
        ("{ newest: { count: 2, by: name } }", &["v2.0.0", "v3.0.0"]),
    ];
    for (number, (tags, expected)) in cases.iter().enumerate() {
        let rule = format!(
            "rules:\n  - name: tags-{number}\n    source: src\n    destinations: [{{ registry: dst, to: out-{number} }}]\n    \
             repositories: [app]\n    tags: {tags}\n"
        );
        let home = Transship::new(&pair.rules(&rule));
        let report = json_of(&home, &["sync"], 0).await;
        let run = only_run(&report);
        assert_eq!(
            pair.at_destination().tags(&format!("out-{number}")).await,
            *expected,
            "{tags}"
        );
        assert_eq!(
            run["source"],
            json!({ "repositories": 1, "tags_listed": all.len(), "tags_selected": expected.len() })
        );
    }
}

async fn repositories(wire: &Wire) -> Vec<String> {
    let document = wire.get("/v2/_catalog", &[]).await.expect(200).json();
    let names = document["repositories"].as_array().cloned().unwrap_or_default();
    names
        .iter()
        .filter_map(|name| Some(name.as_str()?.to_owned()))
        .collect()
}

#[tokio::test]
async fn repositories_are_matched_left_out_and_named_as_the_rule_says() {
    let pair = Pair::start().await;
    let sample = image(1, "amd64", &[10]);
    for name in [
        "team/web",
        "team/deep/api",
        "base/alpine",
        "base/tmp-1",
        "base/debian",
        "exact",
        "other",
    ] {
        for tag in ["1.0", "3.1"] {
            pair.at_source().push(name, tag, &sample).await;
        }
    }
    let rule = "rules:\n  - name: names\n    source: src\n    destinations: [dst]\n    repositories:\n      \
                - { match: \"team/**\", to: \"all/{flat}\" }\n      \
                - { match: \"base/*\", exclude: [\"base/tmp-*\"], to: \"mirror/{name}/{1}\", tags: { include: [\"3.*\"] } }\n      \
                - exact\n    tags: { include: [\"1.*\"] }\n";
    let home = Transship::new(&pair.rules(rule));
    let report = json_of(&home, &["sync"], 0).await;
    assert_eq!(only_run(&report)["source"]["repositories"], 5);
    let there = pair.at_destination();
    let expected = [
        "all/team-deep-api",
        "all/team-web",
        "exact",
        "mirror/alpine/alpine",
        "mirror/debian/debian",
    ];
    assert_eq!(repositories(&there).await, expected);
    assert_eq!(there.tags("all/team-web").await, ["1.0"], "the rule's tags");
    assert_eq!(
        there.tags("mirror/alpine/alpine").await,
        ["3.1"],
        "the entry's own tags"
    );

    // A destination's own `to` wins over the entry's.
    let rule = rule.replace(
        "destinations: [dst]",
        "destinations: [{ registry: dst, to: \"second/{path}\" }]",
    );
    home.set_rules(&pair.rules(&rule));
    json_of(&home, &["sync"], 0).await;
    let second: Vec<String> = repositories(&there)
        .await
        .into_iter()
        .filter(|name| name.starts_with("second/"))
        .collect();
    let expected = [
        "second/base/alpine",
        "second/base/debian",
        "second/exact",
        "second/team/deep/api",
        "second/team/web",
    ];
    assert_eq!(second, expected);
}

#[tokio::test]
async fn a_tag_that_two_sources_want_is_refused_with_both_named_and_the_rest_goes_on() {
    let pair = Pair::start().await;
    let sample = image(1, "amd64", &[10]);
    for name in ["a/app", "b/app", "b/more"] {
        pair.at_source().push(name, "v1", &sample).await;
    }
    let rule = |name: &str| {
        format!(
            "  - {{ name: {name}, source: src, destinations: [dst], repositories: [{{ match: \"{name}/*\", to: \"out/{{name}}\" }}] }}\n"
        )
    };
    let home = Transship::new(&pair.rules(&format!("rules:\n{}{}", rule("a"), rule("b"))));
    home.run(&["sync", "a"]).await.expect(0);
    let report = json_of(&home, &["sync", "b"], 1).await;
    let run = only_run(&report);
    assert_eq!(run["outcome"], "partial");
    let failures = run["failures"].as_array().expect("failures");
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(
        (
            &failures[0]["source"],
            &failures[0]["destination"],
            &failures[0]["kind"]
        ),
        (&json!("src/b/app:v1"), &json!("dst/out/app:v1"), &json!("config"))
    );
    let message = failures[0]["message"].as_str().expect("a message");
    assert!(message.contains("src/a/app") && message.contains("rule a"), "{message}");
    assert_eq!(outcomes(run, 0), [("copied", 1), ("failed", 1)]);
    assert_eq!(pair.at_destination().tags("out/more").await, ["v1"]);
}

#[tokio::test]
async fn defaults_are_merged_under_each_rule() {
    let pair = Pair::start().await;
    let sample = image(1, "amd64", &[10]);
    for tag in ["v1", "v2-rc1", "edge"] {
        pair.at_source().push("app", tag, &sample).await;
    }
    pair.at_destination().push("app", "v1", &image(2, "amd64", &[10])).await;
    let rules = format!(
        "defaults:\n  tags: {{ exclude: [\"*-rc*\"] }}\n  on_conflict: keep\n{}",
        app("    tags: { include: [\"v*\"] }\n")
    );
    let home = Transship::new(&pair.rules(&rules));
    let report = json_of(&home, &["sync"], 0).await;
    assert_eq!(
        outcomes(only_run(&report), 0),
        [("kept", 1)],
        "both include and exclude, and the policy"
    );
    home.set_rules(&pair.rules(&format!("{rules}    on_conflict: overwrite\n")));
    let report = json_of(&home, &["sync"], 0).await;
    assert_eq!(
        outcomes(only_run(&report), 0),
        [("copied", 1)],
        "the rule says otherwise"
    );
}

#[tokio::test]
async fn patterns_that_match_nothing_are_told_of_and_stand_in_the_report() {
    let pair = Pair::start().await;
    let sample = image(1, "amd64", &[10]);
    for (name, tag) in [
        ("app", "v1"),
        ("app", "v2"),
        ("team/web", "v1"),
        ("team/api", "old"),
        ("base/a", "edge"),
    ] {
        pair.at_source().push(name, tag, &sample).await;
    }
    let rule = "rules:\n  - name: app\n    source: src\n    destinations: [dst]\n    tags: { include: [\"v*\"] }\n    repositories:\n      \
                - \"taem/*\"\n      - \"team/*\"\n      - \"base/*\"\n      - { match: app, tags: { include: [\"1.*\"] } }\n";
    let home = Transship::new(&pair.rules(rule));
    let none = "taem/* matches none of the 4 repositories of src";
    let advice = "see its `tags`, or `transship plan --all`";
    let expected = json!([
        none,
        format!("the rule leaves out every tag of app in src (2 in all): {advice}"),
        format!("the rule leaves out every tag of base/* in src (1 in all): {advice}"),
    ]);
    let plan = json_of(&home, &["plan"], 0).await;
    assert_eq!(plan["rules"][0]["warnings"], expected);
    let text = home.run(&["plan"]).await.expect(0).stdout;
    assert!(text.contains(&format!("warning: {none}")), "{text}");

    let output = home.run(&["sync", "--format", "json"]).await.expect(0);
    let report = output.json();
    let run = only_run(&report);
    assert_eq!((&run["outcome"], &run["warnings"]), (&json!("ok"), &expected));
    assert_eq!(outcomes(run, 0), [("copied", 1)], "what matches is copied");
    for warning in expected.as_array().expect("warnings") {
        let warning = warning.as_str().expect("text");
        assert!(output.stderr.contains(warning), "{}", output.stderr);
    }
    // Later, and to people.
    let id = run["id"].as_str().expect("an id");
    let text = home.run(&["runs", id]).await.expect(0).stdout;
    assert!(text.contains(&format!("warning: {none}")), "{text}");
    // Who was told already is not told again.
    let output = home.run(&["sync"]).await.expect(0);
    assert_eq!(output.stderr.matches(none).count(), 1, "{}", output.stderr);
    assert!(!output.stdout.contains(none), "{}", output.stdout);

    // Where some tags are wanted, nothing is said of the others.
    home.set_rules(&pair.rules(&app("    tags: { include: [v1] }\n")));
    let report = json_of(&home, &["sync"], 0).await;
    assert_eq!(only_run(&report)["warnings"], json!([]));
}

#[tokio::test]
async fn a_rule_whose_source_or_entry_is_changed_is_not_in_its_own_way() {
    let pair = Pair::start().await;
    for (name, number) in [("old/app", 1), ("new/app", 2)] {
        pair.at_source().push(name, "v1", &image(number, "amd64", &[10])).await;
    }
    let rules = |source: &str, repository: &str| {
        let more = format!("  other: {{ url: \"{}\" }}\n", pair.src.url());
        let rule = format!(
            "rules:\n  - {{ name: web, source: {source}, destinations: [dst], repositories: [{{ match: {repository}, to: app }}] }}\n"
        );
        pair.rules(&rule)
            .replacen("registries:\n", &format!("registries:\n{more}"), 1)
    };
    let home = Transship::new(&rules("src", "old/app"));
    home.run(&["sync"]).await.expect(0);
    // Another rule may have the tag when this one has gone elsewhere with its images.
    let elsewhere = rules("src", "old/app").replace("to: app", "to: moved");
    let second =
        "  - { name: second, source: src, destinations: [dst], repositories: [{ match: new/app, to: app }] }\n";
    home.set_rules(&format!("{elsewhere}{second}"));
    json_of(&home, &["sync"], 0).await;
    home.run(&["sync"]).await.expect(0);
    for (source, repository) in [("src", "new/app"), ("other", "new/app")] {
        home.set_rules(&rules(source, repository));
        let report = json_of(&home, &["sync"], 0).await;
        assert_eq!(only_run(&report)["failures"], json!([]), "{source}/{repository}");
    }
    assert_eq!(
        pair.at_destination().resolve("app", "v1").await,
        Some(image(2, "amd64", &[10]).digest())
    );
}
