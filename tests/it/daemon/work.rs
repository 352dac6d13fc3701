//! `trigger`, `cancel` and `retry`.

use http::StatusCode;
use serde_json::Value;
use transship::oci::Digest;

use super::Scene;
use crate::support::proxy::{Act, Fault};

#[tokio::test]
async fn trigger_waits_for_the_runs_and_ends_with_their_status() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    let _daemon = scene.daemon().await;
    let good = scene
        .home
        .run(&["trigger", "web", "--wait", "-o", "json"])
        .await
        .expect(0);
    let report = good.json();
    assert_eq!(report["schema_version"], 1);
    let run = &report["runs"][0];
    assert_eq!(
        (&run["rule"], &run["trigger"], &run["outcome"]),
        (&"web".into(), &"manual".into(), &"ok".into())
    );
    assert_eq!(run["destinations"][0]["images"]["copied"], 1);
    assert_eq!(scene.copied("v1"), Some(image.digest()));

    let bad = scene
        .home
        .run(&["trigger", "web", "broken", "--wait", "-o", "json"])
        .await
        .expect(1);
    let report = bad.json();
    assert_eq!(report["runs"][0]["outcome"], "ok");
    assert_eq!(report["runs"][1]["outcome"], "failed");
    assert_eq!(report["runs"][1]["failures"][0]["kind"], "not_found");
    let text = scene.home.run(&["trigger", "broken", "--wait"]).await.expect(1).stdout;
    assert!(text.contains("app/missing"), "{text}");

    let unknown = scene.home.run(&["trigger", "web", "wbe"]).await.expect(2);
    assert!(unknown.stderr.contains("wbe"), "{}", unknown.stderr);
    let runs = scene.ask(&["runs"]).await;
    assert_eq!(
        runs["runs"].as_array().map(Vec::len),
        Some(4),
        "nothing was started: {runs}"
    );
}

#[tokio::test]
async fn trigger_joins_a_run_and_cancel_ends_it() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    let (_, gate) = scene.hold(&image);
    let _daemon = scene.daemon().await;
    let started = scene.ask(&["trigger", "web"]).await;
    assert_eq!(started["runs"], serde_json::json!(["run-1"]));
    scene.wait_for_hold().await;
    assert_eq!(
        scene.ask(&["trigger", "web"]).await,
        started,
        "a running rule is joined"
    );
    let status = scene.ask(&["status"]).await;
    assert_eq!(status["rules"][0]["running"], "run-1");
    let refused = scene.home.run(&["retry", "run-1"]).await.expect(2).stderr;
    assert!(refused.contains("has not ended"), "{refused}");

    let waiting = scene.home.spawn(&["trigger", "web", "--wait", "-o", "json"]);
    let cancelled = scene.home.run(&["cancel", "run-1"]).await.expect(0);
    assert!(
        cancelled.stdout.contains("run-1 is being stopped"),
        "{}",
        cancelled.stdout
    );
    let waited = waiting.finish().await.expect(1).json();
    assert_eq!(waited["runs"][0]["id"], "run-1");
    assert_eq!(waited["runs"][0]["outcome"], "cancelled");
    assert_eq!(scene.copied("v1"), None);
    let again = scene.home.run(&["cancel", "run-1"]).await.expect(1);
    assert!(again.stdout.contains("not running"), "{}", again.stdout);
    scene.home.run(&["cancel", "run-99"]).await.expect(2);

    gate.open();
    scene.home.run(&["trigger", "web", "--wait"]).await.expect(0);
    assert_eq!(scene.copied("v1"), Some(image.digest()));
}

#[tokio::test]
async fn what_failed_is_listed_and_retried_after_mending() {
    let scene = Scene::new().await;
    let (good, bad) = (scene.seed("good", 1), scene.seed("bad", 2));
    let layer = Digest::of(&bad.children[0].blobs[1]);
    let lost = || Fault::every("GET", layer.hex(), Act::Answer(StatusCode::NOT_FOUND, None));
    scene.src.add(lost());
    let daemon = scene.daemon().await;
    scene.home.run(&["trigger", "web", "--wait"]).await.expect(1);
    assert_eq!(
        scene.copied("good"),
        Some(good.digest()),
        "one broken image stops no other"
    );
    assert_eq!(scene.copied("bad"), None);

    let failed = scene.ask(&["jobs", "--failed"]).await;
    let [job] = failed["jobs"].as_array().map(Vec::as_slice).expect("jobs") else {
        panic!("{failed}");
    };
    assert_eq!((&job["reference"], &job["outcome"]), (&"bad".into(), &"failed".into()));
    let id = job["id"].as_str().expect("an id").to_owned();
    let text = scene.home.run(&["jobs", "--failed"]).await.expect(0).stdout;
    assert!(
        text.contains(&format!("transship retry {id}")) && text.contains("app/web:bad"),
        "{text}"
    );

    scene.home.run(&["retry", &id, "--wait"]).await.expect(1);
    scene.src.heal();
    let before = scene.src.count("GET", "/manifests/good");
    let retried = scene
        .home
        .run(&["retry", &id, "--wait", "-o", "json"])
        .await
        .expect(0)
        .json();
    let images = &retried["runs"][0]["destinations"][0]["images"];
    assert_eq!(
        (&images["copied"], &images["in_step"]),
        (&Value::from(1), &Value::from(0)),
        "only that job: {retried}"
    );
    assert_eq!(scene.src.count("GET", "/manifests/good"), before);
    assert_eq!(scene.copied("bad"), Some(bad.digest()));

    // A whole run, and without a daemon.
    scene.src.add(lost());
    let moved = scene.seed("later", 2);
    scene.destination.lose_blob(&layer);
    let run = scene.home.run(&["trigger", "web", "--wait", "-o", "json"]).await;
    let run = run.expect(1).json()["runs"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    daemon.signal("TERM");
    daemon.finish().await.expect(0);
    scene.src.heal();
    let retried = scene.home.run(&["retry", &run]).await.expect(0);
    assert!(retried.stderr.contains("no daemon runs"), "{}", retried.stderr);
    assert_eq!(scene.copied("later"), Some(moved.digest()));
    scene.home.run(&["retry", "run-99"]).await.expect(2);
}

#[tokio::test]
async fn cancel_without_a_daemon_reaches_the_sync_that_runs() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    let (_, _gate) = scene.hold(&image);
    let sync = scene.home.spawn(&["sync", "web", "-o", "json"]);
    scene.wait_for_hold().await;
    let cancelled = scene.home.run(&["cancel", "run-1"]).await.expect(0);
    assert!(
        cancelled.stderr.contains("asked through the state"),
        "{}",
        cancelled.stderr
    );
    let report = sync.finish().await.expect(1).json();
    assert_eq!(report["runs"][0]["outcome"], "cancelled");
}

#[tokio::test]
async fn trigger_that_waits_says_whom_it_asked_and_that_the_daemon_was_stopped() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    let (_, gate) = scene.hold(&image);
    let mut daemon = scene.daemon().await;
    let waiting = scene.home.spawn(&["trigger", "web", "--wait"]);
    scene.wait_for_hold().await;
    daemon.signal("TERM");
    daemon.wait_for_line("SIGTERM: stopping").await;
    gate.open();
    let waited = waiting.finish().await.expect(1);
    assert!(waited.stderr.contains("asked the daemon at unix:"), "{}", waited.stderr);
    let stopped = "the daemon was stopped; it goes on at its next start";
    assert!(waited.stderr.contains(stopped), "{}", waited.stderr);
    assert!(waited.stdout.contains("interrupted"), "{}", waited.stdout);
    daemon.finish().await.expect(0);

    // It does, and who waits for a run that ends by itself is told nothing of the kind.
    let _daemon = scene.daemon().await;
    let waited = scene.home.run(&["trigger", "web", "--wait"]).await.expect(0);
    assert!(!waited.stderr.contains(stopped), "{}", waited.stderr);
    assert_eq!(scene.copied("v1"), Some(image.digest()));
}
