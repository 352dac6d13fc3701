//! Final failures: scheduled runs leave them alone for a while, people do not.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use transship::engine::{ControlHandle, Only, RunRequest};
use transship::plan::ErrorKind;
use transship::rules::RuleName;
use transship::store::{JobFilter, RunOutcome, Trigger};

use super::{Scene, repository, tag};
use crate::support::command::Transship;
use crate::support::engine::{by_hand, only_failure, scheduled};
use crate::support::proxy::{Act, Fault};

const HOUR: Duration = Duration::from_secs(3600);

/// The destination lets nobody begin an upload.
fn forbid_uploads(scene: &Scene) {
    let answer = Act::Answer(StatusCode::FORBIDDEN, None);
    scene.dst.add(Fault::every("POST", "/blobs/uploads/", answer));
}

fn in_hours(scene: &Scene, hours: i64) -> Option<Timestamp> {
    Some(scene.workshop.clock.now() + jiff::SignedDuration::from_hours(hours))
}

#[tokio::test]
async fn a_final_failure_is_left_alone_for_an_hour_then_two_and_listed_as_failed_all_the_while() {
    let scene = Scene::new().await;
    let (bad, good) = (scene.seed("v1", 1), scene.seed("v2", 2));
    // Only what v1 has for itself is refused.
    let manifest = format!("/manifests/{}", bad.children[0].digest());
    let refuse = Act::Answer(StatusCode::FORBIDDEN, None);
    scene.dst.add(Fault::every("PUT", &manifest, refuse));
    let tries = || scene.dst.count("PUT", &manifest);

    let first = scheduled(&scene.workshop.engine().await, "web").await;
    let failure = only_failure(&first).clone();
    assert_eq!((failure.kind, failure.status), (ErrorKind::Denied, Some(403)));
    assert_eq!(failure.next_attempt_at, in_hours(&scene, 1));
    assert_eq!(scene.copied("v2"), Some(good.digest()));
    assert_eq!(tries(), 1);

    // Half an hour later, in another process.
    scene.workshop.pass(HOUR / 2);
    let engine = scene.workshop.engine().await;
    let second = scheduled(&engine, "web").await;
    assert_eq!(second.outcome, RunOutcome::Partial);
    let again = only_failure(&second);
    assert_eq!(
        (
            again.kind,
            again.status,
            &again.message,
            again.attempts,
            again.next_attempt_at
        ),
        (
            failure.kind,
            failure.status,
            &failure.message,
            failure.attempts,
            failure.next_attempt_at
        )
    );
    assert_eq!(again.digest, failure.digest);
    let images = second.destinations[0].images;
    assert_eq!((images.failed, images.in_step, images.total()), (1, 1, 2));
    assert_eq!(tries(), 1, "it was left alone");
    let filter = JobFilter {
        failed: true,
        ..JobFilter::default()
    };
    let jobs = engine.store().jobs(&filter).await.expect("jobs");
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!(
        (jobs[0].run, jobs[0].next_attempt_at),
        (second.id, failure.next_attempt_at)
    );

    // At the same minute of the next hour it is tried, and then left alone for two.
    scene.workshop.pass(HOUR / 2);
    let third = scheduled(&engine, "web").await;
    assert_eq!(tries(), 2);
    assert_eq!(only_failure(&third).next_attempt_at, in_hours(&scene, 2));
    scene.workshop.pass(HOUR);
    scheduled(&engine, "web").await;
    assert_eq!(tries(), 2);
    scene.workshop.pass(HOUR);
    scene.dst.heal();
    let last = scheduled(&engine, "web").await;
    assert_eq!(last.outcome, RunOutcome::Ok, "{:?}", last.failures);
    assert_eq!(scene.copied("v1"), Some(bad.digest()));
}

#[tokio::test]
async fn somebody_who_asks_is_not_made_to_wait_and_success_begins_anew() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    forbid_uploads(&scene);
    let engine = scene.workshop.engine().await;
    let tries = || scene.dst.count("POST", "/blobs/uploads/");
    scheduled(&engine, "web").await;
    let before = tries();
    let report = by_hand(&engine, "web").await;
    assert!(tries() > before);
    assert_eq!(
        only_failure(&report).next_attempt_at,
        in_hours(&scene, 2),
        "that counts too"
    );
    scene.dst.heal();
    by_hand(&engine, "web").await;
    assert_eq!(scene.copied("v1"), Some(image.digest()));

    // The same image fails in the same way once more: not the third time in a row, but the first.
    let gone = scene.seed("v2", 1);
    assert_eq!(gone.digest(), image.digest());
    let refuse = Act::Answer(StatusCode::FORBIDDEN, None);
    scene.dst.add(Fault::every("PUT", "/manifests/v2", refuse));
    let report = scheduled(&engine, "web").await;
    assert_eq!(only_failure(&report).next_attempt_at, in_hours(&scene, 1));
    scene.dst.heal();
    by_hand(&engine, "web").await;
    let parked = engine.store().parked("from/app/web", "to", &repository()).await;
    assert!(parked.expect("a state").is_empty());
}

#[tokio::test]
async fn another_image_under_the_tag_is_tried_at_once() {
    let scene = Scene::new().await;
    scene.seed("v1", 1);
    forbid_uploads(&scene);
    let engine = scene.workshop.engine().await;
    scheduled(&engine, "web").await;
    scene.workshop.pass(HOUR / 2);
    let moved = scene.seed("v1", 2);
    let report = scheduled(&engine, "web").await;
    let failure = only_failure(&report);
    assert_eq!(failure.digest, Some(moved.digest()));
    assert_eq!(failure.next_attempt_at, in_hours(&scene, 1), "its own first failure");
}

#[tokio::test]
async fn an_outage_is_not_put_aside() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    let broken = Act::Answer(StatusCode::BAD_GATEWAY, None);
    scene.dst.add(Fault::every("POST", "/blobs/uploads/", broken));
    let engine = scene.workshop.engine().await;
    let report = scheduled(&engine, "web").await;
    let failure = only_failure(&report);
    assert_eq!((failure.kind, failure.next_attempt_at), (ErrorKind::Server, None));
    scene.dst.heal();
    let report = scheduled(&engine, "web").await;
    assert_eq!(report.outcome, RunOutcome::Ok);
    assert_eq!(scene.copied("v1"), Some(image.digest()));
}

#[tokio::test]
async fn what_the_rule_no_longer_selects_is_forgotten_and_a_retry_of_one_image_forgets_no_other() {
    let mut scene = Scene::new().await;
    scene.seed("v1", 1);
    scene.seed("v2", 2);
    forbid_uploads(&scene);
    let engine = scene.workshop.engine().await;
    scheduled(&engine, "web").await;
    let parked = async |engine: &transship::engine::Engine| {
        let parked = engine.store().parked("from/app/web", "to", &repository()).await;
        parked
            .expect("a state")
            .into_keys()
            .map(|(_, _, tag)| tag)
            .collect::<Vec<_>>()
    };
    assert_eq!(parked(&engine).await, [tag("v1"), tag("v2")]);
    let one = RunRequest {
        rule: RuleName::new("web"),
        trigger: Trigger::Manual,
        continues: None,
        only: vec![Only {
            repository: repository(),
            reference: "v1".to_owned(),
            destination: "to".to_owned(),
        }],
        at_once: true,
    };
    let (_handle, control) = ControlHandle::new();
    let report = Box::pin(engine.run(one, control)).await.expect("a run");
    assert_eq!(only_failure(&report).next_attempt_at, in_hours(&scene, 2));
    assert_eq!(parked(&engine).await, [tag("v1"), tag("v2")]);

    let rules = scene.rules("    tags: { include: [v2] }\n");
    scene.workshop.set_rules(&rules);
    let engine = scene.workshop.engine().await;
    scheduled(&engine, "web").await;
    assert_eq!(parked(&engine).await, [tag("v2")]);
}

#[tokio::test]
async fn the_commands_say_when_it_is_tried_again() {
    let scene = Scene::new().await;
    scene.seed("v1", 1);
    forbid_uploads(&scene);
    let home = Transship::new(&scene.rules(""));
    let report = home.run(&["sync", "-o", "json"]).await.expect(1).json();
    let next = &report["runs"][0]["failures"][0]["next_attempt_at"];
    assert!(next.is_string(), "{report}");
    let jobs = home.run(&["jobs", "--failed", "-o", "json"]).await.expect(0).json();
    assert_eq!(&jobs["jobs"][0]["next_attempt_at"], next);
    let text = home.run(&["jobs", "--failed"]).await.expect(0).stdout;
    assert!(
        text.contains("tried again by the first run of its rule from "),
        "{text}"
    );
    let tries = scene.dst.count("POST", "/blobs/uploads/");
    home.run(&["sync"]).await.expect(1);
    assert!(scene.dst.count("POST", "/blobs/uploads/") > tries, "sync tries at once");
}

#[tokio::test]
async fn how_often_an_image_failed_is_not_forgotten_while_it_waits_for_a_registry() {
    let scene = Scene::new().await;
    scene.seed("v1", 1);
    forbid_uploads(&scene);
    let first = scheduled(&scene.workshop.engine().await, "web").await;
    assert_eq!(only_failure(&first).next_attempt_at, in_hours(&scene, 1));
    scene.dst.heal();

    scene.workshop.pass(HOUR);
    let busy = Act::Answer(StatusCode::TOO_MANY_REQUESTS, Some("1800".to_owned()));
    scene.dst.add(Fault::every("POST", "/blobs/uploads/", busy));
    let second = scheduled(&scene.workshop.engine().await, "web").await;
    assert_eq!(second.destinations[0].images.deferred, 1, "{:?}", second.failures);
    scene.dst.heal();

    scene.workshop.pass(HOUR);
    forbid_uploads(&scene);
    let third = scheduled(&scene.workshop.engine().await, "web").await;
    assert_eq!(
        only_failure(&third).next_attempt_at,
        in_hours(&scene, 2),
        "the second time"
    );
}
