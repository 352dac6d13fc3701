//! What rules say, seen at real registries.

use serde_json::{Value, json};
use transship::demo::images::SampleImage;
use transship::oci::Digest;

use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{image, rebuilt};
use crate::support::pair::Pair;
use crate::support::proxy::{Act, Fault, Gate, Proxy};
use crate::support::wire::Wire;
use crate::sync::only_run;

/// One rule from `src` to `dst` for the repository `app`, with these further keys.
fn app(keys: &str) -> String {
    format!("rules:\n  - name: app\n    source: src\n    destinations: [dst]\n    repositories: [app]\n{keys}")
}

fn outcomes(run: &Value, destination: usize) -> Vec<(&str, u64)> {
    let images = run["destinations"][destination]["images"].as_object().expect("images");
    let counts = images
        .iter()
        .filter_map(|(name, count)| Some((name.as_str(), count.as_u64()?)));
    counts.filter(|(_, count)| *count > 0).collect()
}

async fn json_of(home: &Transship, arguments: &[&str], code: i32) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
    home.run(&arguments).await.expect(code).json()
}

#[tokio::test]
async fn a_tag_that_moved_at_the_source_is_followed_kept_or_failed() {
    for (policy, code, outcome) in [("follow", 0, "copied"), ("keep", 0, "kept"), ("fail", 1, "failed")] {
        let pair = Pair::start().await;
        let (old, new) = (image(1, "amd64", &[100]), rebuilt(2, 100));
        pair.at_source().push("app", "v1", &old).await;
        // What is the other kind of difference must not matter here.
        let home = Transship::new(&pair.rules(&app(&format!("    moved_tags: {policy}\n    on_conflict: fail\n"))));
        home.run(&["sync"]).await.expect(0);
        pair.at_source().push("app", "v1", &new).await;
        let plan = json_of(&home, &["plan"], i32::from(outcome == "failed")).await;
        let planned = &plan["rules"][0]["repositories"][0]["images"][0]["destinations"][0];
        let action = match outcome {
            "copied" => "copy",
            "kept" => "keep",
            _ => "fail",
        };
        assert_eq!(planned["action"], action, "{planned}");
        let report = json_of(&home, &["sync"], code).await;
        assert_eq!(outcomes(only_run(&report), 0), [(outcome, 1)], "{policy}");
        let there = pair.at_destination().resolve("app", "v1").await;
        let expected = if outcome == "copied" {
            new.digest()
        } else {
            old.digest()
        };
        assert_eq!(there, Some(expected), "{policy}");
        if outcome == "failed" {
            let failure = &report["runs"][0]["failures"][0];
            assert_eq!(failure["kind"], "conflict");
            assert!(
                failure["message"]
                    .as_str()
                    .is_some_and(|text| text.contains("moved_tags: fail")),
                "{failure}"
            );
        }
    }
}

#[tokio::test]
async fn a_tag_that_somebody_else_wrote_is_overwritten_kept_or_failed() {
    for (policy, code, outcome) in [("overwrite", 0, "copied"), ("keep", 0, "kept"), ("fail", 1, "failed")] {
        let pair = Pair::start().await;
        let (ours, theirs) = (image(1, "amd64", &[100]), image(2, "amd64", &[100]));
        for tag in ["v1", "v2"] {
            pair.at_source().push("app", tag, &ours).await;
        }
        pair.at_destination().push("app", "v1", &theirs).await;
        let home = Transship::new(&pair.rules(&app(&format!("    moved_tags: fail\n    on_conflict: {policy}\n"))));
        let report = json_of(&home, &["sync"], code).await;
        let mut expected = vec![("copied", if outcome == "copied" { 2 } else { 1 })];
        if outcome != "copied" {
            expected.push((outcome, 1));
        }
        expected.sort_unstable();
        let mut found = outcomes(only_run(&report), 0);
        found.sort_unstable();
        assert_eq!(found, expected, "{policy}");
        let there = pair.at_destination().resolve("app", "v1").await;
        let wanted = if outcome == "copied" {
            ours.digest()
        } else {
            theirs.digest()
        };
        assert_eq!(there, Some(wanted), "{policy}");
        assert_eq!(pair.at_destination().resolve("app", "v2").await, Some(ours.digest()));
    }
}

/// The destination's tag changes while the image's layer is on its way.
async fn changed_meanwhile(keys: &str, code: i32) -> (Value, bool) {
    let pair = Pair::start().await;
    let (ours, theirs) = (image(1, "amd64", &[5000]), image(2, "amd64", &[100]));
    pair.at_source().push("app", "v1", &ours).await;
    pair.at_destination().push("app", "other", &theirs).await;
    let layer = Digest::of(&ours.blobs[1]);
    let gate = Gate::new();
    let hold = Act::HoldResponse(100, gate.clone());
    pair.src.add(Fault::once("GET", &format!("/blobs/{layer}"), hold));
    let home = Transship::new(&pair.rules(&app(keys)));
    let process = home.spawn(&["sync", "--format", "json"]);
    pair.src
        .wait_for("the layer to stand still", |all| {
            all.iter().any(|exchange| exchange.held)
        })
        .await;
    pair.at_destination().push("app", "v1", &theirs).await;
    gate.open();
    let report = process.finish().await.expect(code).json();
    let there = pair.at_destination().resolve("app", "v1").await;
    assert!(there == Some(ours.digest()) || there == Some(theirs.digest()));
    (only_run(&report).clone(), there == Some(ours.digest()))
}

#[tokio::test]
async fn a_tag_that_somebody_writes_while_its_image_is_copied_is_seen_before_the_put() {
    let (run, ours) = changed_meanwhile("    on_conflict: keep\n", 0).await;
    assert_eq!((outcomes(&run, 0), ours), (vec![("kept", 1)], false));
    let (run, ours) = changed_meanwhile("    on_conflict: fail\n", 1).await;
    assert_eq!((outcomes(&run, 0), ours), (vec![("failed", 1)], false));
    assert_eq!(run["failures"][0]["kind"], "conflict", "{run}");
    let (run, ours) = changed_meanwhile("", 0).await;
    assert_eq!((outcomes(&run, 0), ours), (vec![("copied", 1)], true));
    // What another wrote is a conflict, and of those the source wins, whatever is said of moved tags.
    let (run, ours) = changed_meanwhile("    moved_tags: keep\n", 0).await;
    assert_eq!((outcomes(&run, 0), ours), (vec![("copied", 1)], true));
}

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

/// A third registry, `far`, behind a proxy of its own.
async fn third() -> (DockerRegistry, Proxy) {
    let registry = DockerRegistry::plain().await;
    let proxy = Proxy::start(&registry.url()).await;
    (registry, proxy)
}

fn both(pair: &Pair, far: &Proxy) -> String {
    let rule = app("    retry: { attempts: 2, max_delay: 1s }\n").replace("[dst]", "[dst, far]");
    pair.rules_with(&[("far", &far.url())], &rule)
}

#[tokio::test]
async fn two_destinations_cost_one_read() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[300_000, 20]);
    pair.at_source().push("app", "v1", &sample).await;
    let home = Transship::new(&both(&pair, &far));
    let report = json_of(&home, &["sync"], 0).await;
    let run = only_run(&report);
    let bytes: usize = sample.blobs.iter().map(bytes::Bytes::len).sum();
    assert_eq!(pair.src.response_bytes("GET", "/blobs/"), bytes as u64);
    assert_eq!(pair.src.count("GET", "/blobs/"), 3);
    for (index, proxy) in [&pair.dst, &far].into_iter().enumerate() {
        assert_eq!(proxy.request_bytes("*", "/blobs/uploads/"), bytes as u64);
        assert_eq!(run["destinations"][index]["bytes"]["written"], bytes);
        assert_eq!(outcomes(run, index), [("copied", 1)]);
    }
    assert_eq!(run["bytes"]["read"], bytes);
    assert_eq!(
        Wire::new(&registry.url()).resolve("app", "v1").await,
        Some(sample.digest())
    );
    pair.assert_same("app", "app", &["v1"]).await;
}

#[tokio::test]
async fn a_destination_that_fails_does_not_disturb_the_other() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[300_000, 20]);
    pair.at_source().push("app", "v1", &sample).await;
    far.add(Fault::every("PUT", "/blobs/uploads/", Act::CutRequest(1000)));
    let home = Transship::new(&both(&pair, &far));
    let report = json_of(&home, &["sync"], 1).await;
    let run = only_run(&report);
    assert_eq!(
        (&run["outcome"], outcomes(run, 0), outcomes(run, 1)),
        (&json!("partial"), vec![("copied", 1)], vec![("failed", 1)])
    );
    let failures = run["failures"].as_array().expect("failures");
    assert_eq!(failures.len(), 1);
    assert_eq!(
        (&failures[0]["destination"], &failures[0]["kind"]),
        (&json!("far/app:v1"), &json!("network"))
    );
    let bytes: usize = sample.blobs.iter().map(bytes::Bytes::len).sum();
    assert_eq!(
        pair.dst.request_bytes("*", "/blobs/uploads/"),
        bytes as u64,
        "nothing is sent twice to the one that works"
    );
    pair.assert_same("app", "app", &["v1"]).await;
    assert_eq!(Wire::new(&registry.url()).resolve("app", "v1").await, None);

    far.heal();
    let report = json_of(&home, &["sync"], 0).await;
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("in_step", 1)], vec![("copied", 1)])
    );
    assert_eq!(
        Wire::new(&registry.url()).resolve("app", "v1").await,
        Some(sample.digest())
    );
}

#[tokio::test]
async fn a_destination_that_stands_still_does_not_hold_up_the_other() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[8_000_000]);
    pair.at_source().push("app", "v1", &sample).await;
    let gate = Gate::new();
    far.add(Fault::every(
        "PUT",
        "/blobs/uploads/",
        Act::HoldRequest(1000, gate.clone()),
    ));
    far.add(Fault::every(
        "PATCH",
        "/blobs/uploads/",
        Act::HoldRequest(1000, gate.clone()),
    ));
    let home = Transship::new(&both(&pair, &far));
    let process = home.spawn(&["sync", "--format", "json"]);
    // Every byte of the blobs gets to the one that works while the other has taken none of a blob's end.
    let bytes: u64 = sample.blobs.iter().map(|blob| blob.len() as u64).sum();
    pair.dst
        .wait_for("all blobs at the quick destination", |all| {
            let sent = all
                .iter()
                .filter(|exchange| exchange.is("*", "/blobs/uploads/") && exchange.done);
            sent.map(|exchange| exchange.request_bytes).sum::<u64>() == bytes
        })
        .await;
    assert!(far.request_bytes("*", "/blobs/uploads/") < bytes);
    gate.open();
    let report = process.finish().await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", 1)], vec![("copied", 1)])
    );
    assert_eq!(
        Wire::new(&registry.url()).resolve("app", "v1").await,
        Some(sample.digest())
    );
    pair.assert_same("app", "app", &["v1"]).await;
}

#[tokio::test]
async fn a_destination_that_is_only_slow_is_left_behind_and_reads_for_itself() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[30_000_000]);
    pair.at_source().push("app", "v1", &sample).await;
    let slow = format!("{}\", limits: {{ bandwidth: 1500KiB }} }}", far.url());
    let rules = both(&pair, &far).replace(&format!("{}\" }}", far.url()), &slow);
    let home = Transship::new(&rules);
    let report = json_of(&home, &["sync"], 0).await;
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", 1)], vec![("copied", 1)])
    );
    let layer = sample
        .blobs
        .iter()
        .map(|blob| blob.len() as u64)
        .max()
        .expect("a layer");
    let read = pair.src.response_bytes("GET", "/blobs/");
    assert!(read > layer + layer / 4, "the slow one read nothing of its own: {read}");
    // What it had taken by then is not sent again.
    let sent = far.request_bytes("*", "/blobs/uploads/");
    assert!(sent < layer + layer / 2, "{sent}");
    assert_eq!(
        Wire::new(&registry.url()).resolve("app", "v1").await,
        Some(sample.digest())
    );
    pair.assert_same("app", "app", &["v1"]).await;
}

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

/// Where `docker-registry` keeps a blob's bytes.
fn stored(registry: &DockerRegistry, blob: &Digest) -> std::path::PathBuf {
    let folder = registry.storage().join("docker/registry/v2/blobs/sha256");
    folder.join(&blob.hex()[..2]).join(blob.hex()).join("data")
}

async fn synced(sample: &SampleImage) -> (Pair, Transship) {
    let pair = Pair::start().await;
    for tag in ["v1", "v2"] {
        pair.at_source().push("app", tag, sample).await;
    }
    let home = Transship::new(&pair.rules(&app("")));
    home.run(&["sync"]).await.expect(0);
    (pair, home)
}

fn faults(report: &Value) -> Vec<[String; 3]> {
    let findings = report["rules"][0]["findings"].as_array().expect("findings");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut faults: Vec<[String; 3]> = findings
        .iter()
        .map(|finding| {
            [
                text(&finding["destination"]),
                text(&finding["fault"]),
                text(&finding["digest"]),
            ]
        })
        .collect();
    faults.sort();
    faults
}

#[tokio::test]
async fn verify_finds_and_mends_a_missing_and_a_changed_tag() {
    let sample = image(1, "amd64", &[5000]);
    let (pair, home) = synced(&sample).await;
    assert_eq!(
        faults(&json_of(&home, &["verify", "--deep"], 0).await),
        [] as [[String; 3]; 0]
    );
    pair.at_source().push("app", "v3", &sample).await;
    pair.at_destination().push("app", "v2", &image(2, "amd64", &[10])).await;
    let report = json_of(&home, &["verify"], 1).await;
    let digest = sample.digest().to_string();
    let expected = [
        ["dst/app:v2".to_owned(), "different".to_owned(), digest.clone()],
        ["dst/app:v3".to_owned(), "missing".to_owned(), digest],
    ];
    assert_eq!(faults(&report), expected);
    let report = json_of(&home, &["verify", "--repair"], 1).await;
    assert_eq!(report["rules"][0]["repaired"]["destinations"][0]["images"]["copied"], 2);
    json_of(&home, &["verify", "--deep"], 0).await;
    pair.assert_same("app", "app", &["v1", "v2", "v3"]).await;
}

#[tokio::test]
async fn verify_finds_and_mends_a_blob_whose_bytes_are_gone() {
    let sample = image(1, "amd64", &[5000]);
    let (mut pair, home) = synced(&sample).await;
    let layer = Digest::of(&sample.blobs[1]);
    pair.destination.kill();
    std::fs::remove_file(stored(&pair.destination, &layer)).expect("the blob's file");
    pair.destination.restart().await;
    let report = json_of(&home, &["verify"], 1).await;
    let missing = |tag: &str| [format!("dst/app:{tag}"), "blob_missing".to_owned(), layer.to_string()];
    assert_eq!(faults(&report), [missing("v1"), missing("v2")]);
    let text = home.run(&["verify"]).await.expect(1).stdout;
    assert!(text.contains("blob_missing: src/app:v1 -> dst/app:v1"), "{text}");
    pair.dst.reset();
    json_of(&home, &["verify", "--repair"], 1).await;
    assert_eq!(
        pair.dst.request_bytes("*", "/blobs/uploads/"),
        5000,
        "the one blob, once"
    );
    json_of(&home, &["verify", "--deep"], 0).await;
    pair.assert_same("app", "app", &["v1", "v2"]).await;
}

/// Changes one byte of a file.
fn flip(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).expect("the blob's file");
    bytes[1234] ^= 1;
    std::fs::write(path, &bytes).expect("the blob's file");
}

#[tokio::test]
async fn deep_verify_finds_and_mends_a_changed_byte() {
    let pair = Pair::start().await;
    let sample = image(1, "amd64", &[5000, 40]);
    for tag in ["v1", "v2"] {
        pair.at_source().push("app", tag, &sample).await;
    }
    let home = Transship::new("");
    let bundle = home.home().join("bundle");
    home.set_rules(&format!(
        "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n  dst: {{ layout: {bundle:?} }}\n{}",
        pair.src.url(),
        app("")
    ));
    home.run(&["sync"]).await.expect(0);
    json_of(&home, &["verify", "--deep"], 0).await;
    let layer = Digest::of(&sample.blobs[1]);
    flip(&bundle.join("blobs/sha256").join(layer.hex()));
    json_of(&home, &["verify"], 0).await;
    pair.reset();
    let report = json_of(&home, &["verify", "--deep", "--repair"], 1).await;
    let corrupt = |tag: &str| [format!("dst/app:{tag}"), "corrupt".to_owned(), layer.to_string()];
    assert_eq!(faults(&report), [corrupt("v1"), corrupt("v2")]);
    assert_eq!(report["rules"][0]["unrepaired"], json!([]));
    assert_eq!(
        pair.src.response_bytes("GET", "/blobs/"),
        5000,
        "only the damaged blob, once"
    );
    json_of(&home, &["verify", "--deep"], 0).await;
}

#[tokio::test]
async fn a_registry_that_keeps_damaged_bytes_is_said_to_be_unrepaired() {
    let sample = image(1, "amd64", &[5000]);
    let (mut pair, home) = synced(&sample).await;
    let layer = Digest::of(&sample.blobs[1]);
    pair.destination.kill();
    flip(&stored(&pair.destination, &layer));
    pair.destination.restart().await;
    json_of(&home, &["verify"], 0).await;
    pair.dst.reset();
    let report = json_of(&home, &["verify", "--deep", "--repair"], 1).await;
    let corrupt = |tag: &str| [format!("dst/app:{tag}"), "corrupt".to_owned(), layer.to_string()];
    assert_eq!(faults(&report), [corrupt("v1"), corrupt("v2")]);
    // docker-registry takes the right bytes and throws them away, as it has a blob of that name.
    assert_eq!(pair.dst.request_bytes("*", "/blobs/uploads/"), 5000);
    let left = report["rules"][0]["unrepaired"].as_array().expect("findings").clone();
    assert_eq!(left.len(), 2, "{report}");
    let message = left[0]["message"].as_str().expect("a message");
    assert!(message.contains("remove the blob from its storage"), "{message}");

    // What the message asks for helps.
    pair.destination.kill();
    std::fs::remove_file(stored(&pair.destination, &layer)).expect("the blob's file");
    pair.destination.restart().await;
    let report = json_of(&home, &["verify", "--repair"], 1).await;
    assert_eq!(report["rules"][0]["unrepaired"], json!([]));
    json_of(&home, &["verify", "--deep"], 0).await;
    pair.assert_same("app", "app", &["v1", "v2"]).await;
}

#[tokio::test]
async fn deep_verify_mends_a_blob_that_a_registry_only_thinks_it_has() {
    let mut pair = Pair::start().await;
    pair.destination
        .restart_with(|config| config.descriptor_cache = true)
        .await;
    let sample = image(1, "amd64", &[5000]);
    pair.at_source().push("app", "v1", &sample).await;
    let home = Transship::new(&pair.rules(&app("    retry: { attempts: 2 }\n")));
    home.run(&["sync"]).await.expect(0);
    let layer = Digest::of(&sample.blobs[1]);
    let there = format!("/v2/app/blobs/{layer}");
    pair.at_destination()
        .send(http::Method::HEAD, &there, &[], "")
        .await
        .expect(200);
    std::fs::remove_file(stored(&pair.destination, &layer)).expect("the blob's file");
    pair.at_destination()
        .send(http::Method::HEAD, &there, &[], "")
        .await
        .expect(200);
    json_of(&home, &["verify"], 0).await;
    let report = json_of(&home, &["verify", "--deep", "--repair"], 1).await;
    let unreadable = ["dst/app:v1".to_owned(), "unreadable".to_owned(), layer.to_string()];
    assert_eq!(faults(&report), [unreadable]);
    assert_eq!(report["rules"][0]["unrepaired"], json!([]), "{report}");
    json_of(&home, &["verify", "--deep"], 0).await;
    pair.assert_same("app", "app", &["v1"]).await;
}

#[tokio::test]
async fn verify_finds_and_mends_a_manifest_whose_bytes_are_gone() {
    let sample = crate::support::images::attested_index(1);
    let (mut pair, home) = synced(&sample).await;
    let child = sample.children[0].digest();
    pair.destination.kill();
    std::fs::remove_file(stored(&pair.destination, &child)).expect("the manifest's file");
    pair.destination.restart().await;
    let report = json_of(&home, &["verify"], 1).await;
    assert_eq!(
        faults(&report)
            .iter()
            .map(|fault| fault[1].as_str())
            .collect::<Vec<_>>(),
        ["manifest_missing"; 2]
    );
    json_of(&home, &["verify", "--repair"], 1).await;
    json_of(&home, &["verify", "--deep"], 0).await;
    pair.assert_same("app", "app", &["v1", "v2"]).await;
}
