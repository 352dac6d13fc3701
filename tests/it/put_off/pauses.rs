//! Registries that want to be left alone, for longer than a process lives.

use std::time::Duration;

use http::StatusCode;
use transship::plan::ErrorKind;
use transship::store::RunOutcome;

use super::Scene;
use crate::support::engine::{only_failure, scheduled};
use crate::support::proxy::{Act, Fault};

const HOURS: Duration = Duration::from_secs(6 * 3600);

fn refuse(method: &str, fragment: &str) -> Fault {
    let answer = Act::Answer(StatusCode::TOO_MANY_REQUESTS, Some(HOURS.as_secs().to_string()));
    Fault::every(method, fragment, answer)
}

#[tokio::test]
async fn a_pause_of_hours_puts_images_off_and_is_kept_across_a_restart() {
    let scene = Scene::new().await;
    let images: Vec<_> = (1..=3).map(|n| scene.seed(&format!("v{n}"), n)).collect();
    // The blobs of the source are refused: everything is planned by then.
    scene.src.add(refuse("GET", "/blobs/"));
    let report = scheduled(&scene.workshop.engine().await, "web").await;
    assert_eq!(
        (report.outcome, report.failures.len()),
        (RunOutcome::Ok, 0),
        "{:?}",
        report.failures
    );
    assert_eq!(report.destinations[0].images.deferred, 3);
    scene.src.heal();
    scene.src.reset();

    // A new process within the pause asks nothing, and says what waits.
    scene.workshop.pass(HOURS / 2);
    let engine = scene.workshop.engine().await;
    let report = scheduled(&engine, "web").await;
    assert_eq!(scene.src.count("*", ""), 0, "{:?}", scene.src.exchanges());
    assert_eq!(
        (report.outcome, report.destinations[0].images.deferred),
        (RunOutcome::Ok, 3)
    );
    assert_eq!(report.changes.len(), 3);

    // And one after it does what is left.
    scene.workshop.pass(HOURS / 2 + Duration::from_secs(5));
    let engine = scene.workshop.engine().await;
    let report = scheduled(&engine, "web").await;
    assert_eq!(report.destinations[0].images.copied, 3, "{:?}", report.failures);
    for (n, image) in (1..).zip(&images) {
        assert_eq!(scene.copied(&format!("v{n}")), Some(image.digest()));
    }
    // They wait no longer.
    let waiting = engine.store().deferred("web", "from").await.expect("a state");
    assert_eq!(waiting, []);
}

#[tokio::test]
async fn a_destination_that_wants_to_be_left_alone_fails_no_image() {
    let scene = Scene::new().await;
    scene.seed("v1", 1);
    scene.seed("v2", 2);
    scene.dst.add(refuse("POST", "/blobs/uploads/"));
    let report = scheduled(&scene.workshop.engine().await, "web").await;
    assert_eq!(report.destinations[0].images.deferred, 2, "{:?}", report.failures);
    scene.dst.heal();
    scene.dst.reset();
    let report = scheduled(&scene.workshop.engine().await, "web").await;
    assert_eq!(scene.dst.count("*", ""), 0);
    assert_eq!(report.destinations[0].images.deferred, 2, "{:?}", report.failures);
}

#[tokio::test]
async fn images_that_could_not_be_looked_at_wait_in_the_next_run_of_the_same_pause_too() {
    let scene = Scene::new().await;
    scene.seed("v1", 1);
    scene.seed("v2", 2);
    // Listed by then, and none of them read.
    scene.src.add(refuse("*", "/manifests/"));
    for run in 1..=2 {
        let report = scheduled(&scene.workshop.engine().await, "web").await;
        assert_eq!(
            (report.outcome, report.destinations[0].images.deferred),
            (RunOutcome::Ok, 2),
            "run {run}: {:?}",
            report.failures
        );
    }
}

#[tokio::test]
async fn what_could_not_be_listed_at_all_is_not_said_to_be_well() {
    let scene = Scene::new().await;
    scene.seed("v1", 1);
    scene.src.add(refuse("*", ""));
    let report = scheduled(&scene.workshop.engine().await, "web").await;
    assert_eq!(report.outcome, RunOutcome::Failed);
    assert_eq!(only_failure(&report).kind, ErrorKind::Throttled);
    assert_eq!(scene.src.count("*", ""), 1);
    let report = scheduled(&scene.workshop.engine().await, "web").await;
    assert_eq!(report.outcome, RunOutcome::Failed);
    assert_eq!(scene.src.count("*", ""), 1, "nothing more was asked");
}

#[tokio::test]
async fn a_short_pause_is_not_kept_and_one_that_is_over_holds_nothing_up() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    scene.src.add(refuse("GET", "/blobs/"));
    let engine = scene.workshop.engine().await;
    scheduled(&engine, "web").await;
    let (host, now) = (scene.src.host(), scene.workshop.clock.now());
    let kept = engine.store().rates("from", &host, now).await.expect("a state");
    let until = kept.paused_until.expect("a pause");
    let wanted = scene.workshop.clock.now() + HOURS;
    assert!(
        until.duration_since(wanted).unsigned_abs() <= Duration::from_secs(30),
        "{until}"
    );
    let other = engine
        .store()
        .rates("from", "elsewhere.example", now)
        .await
        .expect("a state");
    assert_eq!(other.paused_until, None, "another host of the same name is not paused");
    scene.src.heal();
    scene.workshop.pass(HOURS + Duration::from_secs(5));
    scheduled(&scene.workshop.engine().await, "web").await;
    assert_eq!(scene.copied("v1"), Some(image.digest()));
}

#[tokio::test]
async fn a_pause_that_was_kept_under_a_clock_that_was_ahead_is_not_obeyed() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    scene.src.add(refuse("GET", "/blobs/"));
    let report = scheduled(&scene.workshop.engine().await, "web").await;
    assert_eq!(report.destinations[0].images.deferred, 1, "{:?}", report.failures);
    scene.src.heal();
    // Somebody sets the clock right.
    let day = Duration::from_secs(24 * 3600);
    scene.workshop.clock.set(scene.workshop.clock.now() - day);
    let report = scheduled(&scene.workshop.engine().await, "web").await;
    assert_eq!(report.destinations[0].images.copied, 1, "{:?}", report.failures);
    assert_eq!(scene.copied("v1"), Some(image.digest()));
}
