//! Whole syncs between real registries: what is copied, what it costs, and what the report says of it.

use serde_json::{Value, json};
use transship::oci::Digest;

use crate::support::command::Transship;
use crate::support::images::{image, rebuilt};
use crate::support::pair::{Fleet, Pair};
use crate::support::proxy::{Act, Exchange, Fault, Gate};
use crate::support::report::{assert_sync_report, images};

const FLEET: &str =
    "rules:\n  - name: fleet\n    source: src\n    destinations: [dst]\n    repositories: [\"fleet/*\"]\n";

/// The one run of a report that was read strictly.
#[track_caller]
pub fn only_run(report: &Value) -> &Value {
    assert_sync_report(report);
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 1, "{report}");
    &runs[0]
}

/// The blob that an exchange's upload or mount was to bring.
fn digest_of(exchange: &Exchange, field: &str) -> Option<String> {
    let query = exchange.query.as_deref()?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == field).map(|(_, value)| value.into_owned())
}

/// How often a finished upload brought each blob, whatever the repository.
fn uploads(exchanges: &[Exchange]) -> Vec<String> {
    let finished = exchanges
        .iter()
        .filter(|exchange| exchange.is("PUT", "/blobs/uploads/"));
    let mut digests: Vec<String> = finished.filter_map(|exchange| digest_of(exchange, "digest")).collect();
    digests.sort();
    digests
}

/// How long a run took, for the reader of the test's output.
fn span(run: &Value) -> String {
    let read = |name: &str| run[name].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    read("finished_at")
        .zip(read("started_at"))
        .map(|(end, start)| format!("{} ms", end.duration_since(start).as_millis()))
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_two_hundred_images_are_copied_once_and_are_then_in_step() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(20, 10, 20_000);
    fleet.push(&pair.at_source()).await;
    let names: Vec<&str> = fleet.repositories.iter().map(|(name, _)| name.as_str()).collect();
    let named = format!("[{}]", names.join(", "));
    let home = Transship::new(&pair.rules(&FLEET.replace("[\"fleet/*\"]", &named)));

    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(
        run["requests"],
        pair.counted(),
        "the report counts what the proxies saw"
    );
    assert_eq!(run["outcome"], "ok");
    assert_eq!(
        run["source"],
        json!({ "repositories": 20, "tags_listed": 200, "tags_selected": 200 })
    );
    let destination = &run["destinations"][0];
    assert_eq!(
        (images(destination), &destination["images"]["copied"]),
        (200, &json!(200))
    );
    assert_eq!(run["changes"].as_array().map(Vec::len), Some(200));
    assert_eq!(run["failures"], json!([]));

    // Every blob passes once: it is read once, sent once and mounted wherever else it is needed.
    let blobs = fleet.blobs();
    assert_eq!(blobs.len(), 1 + 60 + 200 + 200);
    let bytes: u64 = blobs.values().sum();
    let sent: u64 = pair.dst.request_bytes("*", "/blobs/uploads/");
    assert_eq!((sent, pair.src.response_bytes("GET", "/blobs/")), (bytes, bytes));
    assert_eq!(
        (&destination["bytes"]["written"], &run["bytes"]["read"]),
        (&json!(bytes), &json!(bytes))
    );
    let digests: Vec<String> = blobs.keys().map(Digest::to_string).collect();
    assert_eq!(uploads(&pair.dst.exchanges()), digests);
    assert_eq!(destination["blobs"]["copied"], blobs.len());
    assert_eq!(destination["blobs"]["mounted"], 19, "the layer that all share");
    let (at_source, at_destination) = (pair.src.count("*", ""), pair.dst.count("*", ""));
    println!(
        "first run: {at_source} requests at the source, {at_destination} at the destination, {}",
        span(run)
    );
    // 20 listings, 200 manifests, 461 blobs, 19 questions before mounts, and once for the referrers API; at the destination 20
    // listings, 461 uploads of two requests, 19 mounts and 200 manifests.
    assert_eq!((at_source, at_destination), (701, 1161), "{}", pair.counted());
    for (name, tags) in &fleet.repositories[..3] {
        let tags: Vec<&str> = tags.iter().map(|(tag, _)| tag.as_str()).collect();
        pair.assert_same(name, name, &tags[..2]).await;
    }
    for (name, tags) in &fleet.repositories {
        for (tag, image) in tags {
            assert_eq!(pair.at_destination().resolve(name, tag).await, Some(image.digest()));
        }
    }

    pair.reset();
    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(run["requests"], pair.counted());
    let destination = &run["destinations"][0];
    assert_eq!(
        (images(destination), &destination["images"]["in_step"]),
        (200, &json!(200))
    );
    assert_eq!(destination["bytes"], json!({ "written": 0, "resumed": 0 }));
    assert_eq!((&run["bytes"]["read"], &run["changes"]), (&json!(0), &json!([])));
    pair.assert_no_write();
    assert_eq!(pair.src.count("*", "/blobs/") + pair.dst.count("*", "/blobs/"), 0);
    let (at_source, at_destination) = (pair.src.count("*", ""), pair.dst.count("*", ""));
    println!(
        "second run: {at_source} requests at the source, {at_destination} at the destination, {}",
        span(run)
    );
    // A listing and ten HEADs a repository a side. A pattern instead of names would ask for the catalogue too.
    assert_eq!((at_source, at_destination), (220, 220), "{}", pair.counted());
}

#[tokio::test]
async fn a_lost_state_file_copies_nothing_again() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(2, 3, 500);
    fleet.push(&pair.at_source()).await;
    let home = Transship::new(&pair.rules(FLEET));
    home.run(&["sync"]).await.expect(0);
    for suffix in ["", "-wal", "-shm"] {
        let mut name = home.state().into_os_string();
        name.push(suffix);
        // The side files may be gone already.
        let _ = std::fs::remove_file(name);
    }
    assert!(!home.state().exists());
    pair.reset();
    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(run["id"], "run-1", "the state is new");
    assert_eq!(run["destinations"][0]["images"]["in_step"], 6);
    pair.assert_no_write();
    assert_eq!(pair.src.count("*", "/blobs/") + pair.dst.count("*", "/blobs/"), 0);
}

#[tokio::test]
async fn the_report_has_every_field_and_its_sums_are_right() {
    let pair = Pair::start().await;
    let (at_source, at_destination) = (pair.at_source(), pair.at_destination());
    let first = image(1, "amd64", &[3000]);
    let foreign = image(2, "amd64", &[100]);
    for tag in ["v1", "v2", "v3", "other"] {
        at_source.push("app", tag, &first).await;
    }
    at_destination.push("app", "v3", &foreign).await;
    let home = Transship::new(&pair.rules(
        "rules:\n  - name: app\n    source: src\n    destinations: [dst]\n    repositories: [app]\n    \
         tags: { include: [\"v*\"] }\n    on_conflict: keep\n    retry: { attempts: 1 }\n",
    ));
    let output = home.run(&["sync", "--format", "json"]).await.expect(0);
    let lines = output.stdout.trim_end().lines().count();
    assert!(lines >= 1 && output.stdout.starts_with('{') && output.stdout.ends_with("}\n"));
    let report = output.json();
    let run = only_run(&report);
    assert_eq!(
        (&run["id"], &run["rule"], &run["trigger"]),
        (&json!("run-1"), &json!("app"), &json!("manual"))
    );
    assert_eq!(
        run["source"],
        json!({ "repositories": 1, "tags_listed": 4, "tags_selected": 3 })
    );
    let counts = &run["destinations"][0]["images"];
    assert_eq!(
        (&counts["copied"], &counts["kept"], images(&run["destinations"][0])),
        (&json!(2), &json!(1), 3)
    );
    let mut changes = run["changes"].as_array().expect("changes").clone();
    changes.sort_by_key(|change| change["source"].to_string());
    assert_eq!(
        changes[0],
        json!({ "source": "src/app:v1", "destination": "dst/app:v1", "digest": first.digest(), "previous_digest": null, "outcome": "copied" })
    );
    assert_eq!(
        changes[2],
        json!({ "source": "src/app:v3", "destination": "dst/app:v3", "digest": first.digest(), "previous_digest": foreign.digest(), "outcome": "kept" })
    );

    // A moved tag, a failed image: the manifest is refused for good.
    let second = rebuilt(3, 2000);
    at_source.push("app", "v1", &second).await;
    at_source.push("app", "v4", &second).await;
    let denied = Act::Answer(http::StatusCode::FORBIDDEN, None);
    pair.dst.add(Fault::every("PUT", "/manifests/v4", denied));
    let report = home.run(&["sync", "--format", "json"]).await.expect(1).json();
    let run = only_run(&report);
    assert_eq!((&run["id"], &run["outcome"]), (&json!("run-2"), &json!("partial")));
    let moved: Vec<&Value> = run["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .filter(|change| change["outcome"] == "copied")
        .collect();
    assert_eq!(
        moved,
        [
            &json!({ "source": "src/app:v1", "destination": "dst/app:v1", "digest": second.digest(), "previous_digest": first.digest(), "outcome": "copied" })
        ]
    );
    let failures = run["failures"].as_array().expect("failures");
    assert_eq!(failures.len(), 1, "{failures:?}");
    let failure = &failures[0];
    assert_eq!(
        (&failure["source"], &failure["destination"]),
        (&json!("src/app:v4"), &json!("dst/app:v4"))
    );
    assert_eq!(
        (&failure["kind"], &failure["status"], &failure["attempts"]),
        (&json!("denied"), &json!(403), &json!(1))
    );
    assert_eq!(failure["digest"], json!(second.digest()));
    assert!(failure["job"].is_string());
    let counts = &run["destinations"][0]["images"];
    assert_eq!(
        (
            &counts["copied"],
            &counts["in_step"],
            &counts["kept"],
            &counts["failed"],
            images(&run["destinations"][0])
        ),
        (&json!(1), &json!(1), &json!(1), &json!(1), 4)
    );

    // A source that cannot be listed has no destination and no job.
    pair.dst.heal();
    let gone = Act::Answer(http::StatusCode::FORBIDDEN, None);
    pair.src.add(Fault::every("GET", "/tags/list", gone));
    let report = home.run(&["sync", "--format", "json"]).await.expect(1).json();
    let run = only_run(&report);
    assert_eq!(run["outcome"], "failed");
    let failure = &run["failures"][0];
    assert_eq!(
        (&failure["source"], &failure["destination"], &failure["job"]),
        (&json!("src/app"), &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn text_is_one_line_an_image_on_standard_error_and_the_summary_on_standard_output() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(3, 20, 50);
    fleet.push(&pair.at_source()).await;
    let home = Transship::new(&pair.rules(FLEET));
    let output = home.run(&["sync"]).await.expect(0);
    let mut lines: Vec<&str> = output.stderr.lines().collect();
    lines.sort_unstable();
    let mut expected: Vec<String> = Vec::new();
    for (name, tags) in &fleet.repositories {
        expected.extend(
            tags.iter()
                .map(|(tag, _)| format!("copied   src/{name}:{tag} -> dst/{name}:{tag} (")),
        );
    }
    expected.sort_unstable();
    assert_eq!(lines.len(), expected.len(), "{}", output.stderr);
    for (line, start) in lines.iter().zip(&expected) {
        assert!(line.starts_with(start), "{line:?} is not of {start:?}");
    }
    assert!(output.stdout.starts_with("fleet (run-1): ok in "), "{}", output.stdout);
    let output = home.run(&["sync", "--format", "json"]).await.expect(0);
    assert_eq!(output.stderr, "", "nothing was to do");
}

#[tokio::test]
async fn copying_starts_before_the_last_repository_is_listed() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(6, 1, 500);
    fleet.push(&pair.at_source()).await;
    let gate = Gate::new();
    pair.src.add(Fault::every(
        "GET",
        "/fleet/app-05/tags/list",
        Act::HoldResponse(0, gate.clone()),
    ));
    let home = Transship::new(&pair.rules(FLEET));
    let process = home.spawn(&["sync", "--format", "json"]);
    pair.dst
        .wait_for("five images at the destination", |all| {
            let tags = all
                .iter()
                .filter(|exchange| exchange.is("PUT", "/manifests/v0") && exchange.done);
            tags.count() == 5
        })
        .await;
    let listing = pair
        .src
        .exchanges()
        .into_iter()
        .find(|exchange| exchange.is("GET", "/fleet/app-05/tags/list"));
    assert!(
        listing.is_some_and(|exchange| exchange.held),
        "the last repository is still being listed"
    );
    gate.open();
    let report = process.finish().await.expect(0).json();
    assert_eq!(only_run(&report)["destinations"][0]["images"]["copied"], 6);
}

#[tokio::test]
async fn two_rules_at_once_send_no_blob_twice() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(4, 2, 30_000);
    fleet.push(&pair.at_source()).await;
    let rule = |name: &str, repositories: &str| {
        format!("  - {{ name: {name}, source: src, destinations: [dst], repositories: [{repositories}] }}\n")
    };
    let text = format!(
        "rules:\n{}{}",
        rule("one", "fleet/app-00, fleet/app-01"),
        rule("two", "fleet/app-02, fleet/app-03")
    );
    let home = Transship::new(&pair.rules(&text));
    // The layer that all share stands still until the other rule has come to need it.
    let shared = Digest::of(&fleet.repositories[0].1[0].1.blobs[1]);
    let gate = Gate::new();
    pair.src.add(Fault::every(
        "GET",
        &format!("/blobs/{shared}"),
        Act::HoldResponse(1000, gate.clone()),
    ));
    let process = home.spawn(&["sync", "--format", "json"]);
    // Everything else of all images passes meanwhile: 4 × (3 of the repository + 2 own + 2 configs).
    pair.dst
        .wait_for("all blobs but the shared one", |all| uploads(all).len() >= 28)
        .await;
    assert_eq!(pair.src.count("GET", &format!("/blobs/{shared}")), 1);
    gate.open();
    let report = process.finish().await.expect(0).json();
    assert_sync_report(&report);
    assert_eq!(report["runs"].as_array().map(Vec::len), Some(2));
    let rules: Vec<&Value> = report["runs"]
        .as_array()
        .expect("runs")
        .iter()
        .map(|run| &run["rule"])
        .collect();
    assert_eq!(rules, ["one", "two"], "in the order of the rules");
    let digests: Vec<String> = fleet.blobs().keys().map(Digest::to_string).collect();
    assert_eq!(uploads(&pair.dst.exchanges()), digests);
    let bytes: u64 = fleet.blobs().values().sum();
    assert_eq!(pair.dst.request_bytes("*", "/blobs/uploads/"), bytes);
    assert_eq!(pair.src.response_bytes("GET", "/blobs/"), bytes);
    let total = |field: &str| -> u64 {
        let runs = report["runs"].as_array().expect("runs");
        runs.iter()
            .filter_map(|run| run["destinations"][0]["blobs"][field].as_u64())
            .sum()
    };
    assert_eq!((total("copied"), total("mounted")), (digests.len() as u64, 3));
    for (name, _) in &fleet.repositories {
        pair.assert_same(name, name, &["v0", "v1"]).await;
    }
}

#[tokio::test]
async fn a_blob_that_vanishes_from_the_destination_during_the_run_is_sent_again_in_the_same_job() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(1, 2, 600);
    fleet.push(&pair.at_source()).await;
    let (name, tags) = &fleet.repositories[0];
    // The second image stands still until the first is there and what both share is gone again.
    let (shared, own) = (Digest::of(&tags[1].1.blobs[1]), Digest::of(&tags[1].1.blobs[5]));
    let gate = Gate::new();
    pair.src.add(Fault::once(
        "GET",
        &format!("/blobs/{own}"),
        Act::HoldResponse(10, gate.clone()),
    ));
    let home = Transship::new(&pair.rules(FLEET));
    let process = home.spawn(&["sync", "--format", "json"]);
    pair.dst
        .wait_for("the first image", |all| {
            all.iter()
                .any(|exchange| exchange.is("PUT", "/manifests/v0") && exchange.done)
        })
        .await;
    let blob = format!("/v2/{name}/blobs/{shared}");
    let at_destination = pair.at_destination();
    at_destination
        .send(http::Method::DELETE, &blob, &[], "")
        .await
        .expect(202);
    gate.open();
    let report = process.finish().await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(
        (&run["destinations"][0]["images"]["copied"], &run["failures"]),
        (&json!(2), &json!([]))
    );
    let exchanges = pair.dst.exchanges();
    let puts = exchanges.iter().filter(|exchange| exchange.is("PUT", "/manifests/v1"));
    let puts: Vec<u16> = puts.filter_map(|put| Some(put.status?.as_u16())).collect();
    assert_eq!(puts, [400, 201], "refused once, healed once");
    let again = uploads(&exchanges)
        .iter()
        .filter(|digest| **digest == shared.to_string())
        .count();
    assert_eq!(again, 2);
    pair.assert_same(name, name, &["v0", "v1"]).await;
}

#[tokio::test]
async fn a_blob_that_the_source_lacks_is_not_mounted_from_another_repository() {
    use transship::demo::registry::{Options, Registry};

    let source = Registry::start(Options::default()).await.expect("a registry");
    let destination = Registry::start(Options::default()).await.expect("a registry");
    let secret = image(7, "amd64", &[5_000]);
    let (private, public) = (
        "team/private".parse().expect("a name"),
        "public/web".parse().expect("a name"),
    );
    let tag = "v1".parse().expect("a tag");
    source.seed(&private, &tag, &secret);
    let rules = |repository: &str| {
        format!(
            "version: 1\nregistries:\n  from: {{ url: \"{}\" }}\n  to: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: from, destinations: [to], repositories: [{repository}] }}\n",
            source.url(),
            destination.url()
        )
    };
    let home = Transship::new(&rules("team/private"));
    home.run(&["sync"]).await.expect(0);

    // Whoever pushes to a repository can name any digest in a manifest, without holding its bytes.
    source.seed(&public, &tag, &secret);
    let layer = secret.blobs.iter().max_by_key(|blob| blob.len()).expect("a layer");
    assert!(source.lose_blob(&Digest::of(layer)));
    home.set_rules(&rules("public/web"));
    let report = home.run(&["sync", "--format", "json"]).await.expect(1).json();
    assert_eq!(report["runs"][0]["failures"][0]["kind"], "not_found", "{report}");
    assert_eq!(destination.resolve(&public, &tag), None);
    assert_eq!(
        destination.blob(&public, &Digest::of(layer)),
        None,
        "the private layer stays where it is"
    );
}
