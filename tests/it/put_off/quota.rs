//! A source that counts the manifests that are read.

use std::time::Duration;

use http::{Method, StatusCode};
use transship::demo::registry::{Options, Registry};
use transship::engine::{Engine, Event, RunReport};
use transship::store::{JobFilter, JobOutcome, JobRow, RunId, RunOutcome};

use super::Scene;
use crate::support::command::Transship;
use crate::support::engine::{by_hand, scheduled};
use crate::support::ours::{repository, tag};
use crate::support::proxy::{Act, Exchange, Fault, Gate, Proxy, Pulls};

const WINDOW: Duration = Duration::from_secs(21_600);

/// Counts what is read of the source.
fn meter(scene: &Scene, left: u64, limit: u64) -> Pulls {
    let pulls = Pulls::new(left, limit, WINDOW.as_secs());
    scene.src.add(Fault::every("*", "", Act::Meter(pulls.clone())));
    pulls
}

/// Jobs that wait, by tag.
async fn waiting(engine: &Engine, run: RunId) -> Vec<JobRow> {
    let filter = JobFilter {
        run: Some(run),
        ..JobFilter::default()
    };
    let jobs = engine.store().jobs(&filter).await.expect("jobs");
    let mut waiting: Vec<JobRow> = jobs
        .into_iter()
        .filter(|job| job.outcome == Some(JobOutcome::Deferred))
        .collect();
    waiting.sort_by(|a, b| a.reference.cmp(&b.reference));
    waiting
}

fn counts(report: &RunReport) -> (u64, u64, u64) {
    let images = report.destinations[0].images;
    (images.copied, images.deferred, images.failed)
}

fn reads(scene: &Scene) -> usize {
    scene.src.count("GET", "/manifests/")
}

#[tokio::test]
async fn images_are_copied_as_far_as_the_quota_goes_and_the_others_put_off() {
    let scene = Scene::new().await;
    // Each has an index and two platforms: three reads.
    let images: Vec<_> = (1..=4).map(|n| scene.seed(&format!("v{n}"), n)).collect();
    let pulls = meter(&scene, 7, 100);
    let engine = scene.workshop.engine().await;
    let mut events = engine.events().listen();
    let report = scheduled(&engine, "web").await;
    assert_eq!(counts(&report), (2, 2, 0), "{:?}", report.failures);
    assert_eq!((report.outcome, report.failures.len()), (RunOutcome::Ok, 0));
    assert_eq!(scene.copied("v1"), Some(images[0].digest()));
    assert_eq!(scene.copied("v2"), Some(images[1].digest()));
    assert_eq!((scene.copied("v3"), scene.copied("v4")), (None, None));
    // The third image's top manifest told that it needs two more, of which none was read.
    assert_eq!((reads(&scene), pulls.left()), (7, 0));
    let refused = scene.src.exchanges();
    let refused = refused
        .iter()
        .filter(|e| e.status == Some(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(refused.count(), 0, "it is not run into");
    let fits = scene.workshop.clock.now() + WINDOW;
    let jobs = waiting(&engine, report.id).await;
    assert_eq!(
        jobs.iter().map(|job| job.reference.as_str()).collect::<Vec<_>>(),
        ["v3", "v4"]
    );
    for job in &jobs {
        assert_eq!(job.next_attempt_at, Some(fits));
        let message = job.message.as_deref().unwrap_or_default();
        assert!(
            message.contains("read 0 of 100 in 6 h") && message.contains(&fits.to_string()),
            "{message}"
        );
    }
    let mut warned = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::Warning { message, .. } = event {
            warned.push(message);
        }
    }
    let [warning] = warned.as_slice() else {
        panic!("{warned:?}")
    };
    assert!(warning.contains("put off: 2 of from"), "{warning}");

    // Another process, before anything came back: it asks what is free to ask, and reads nothing.
    let before = reads(&scene);
    let engine = scene.workshop.engine().await;
    let report = scheduled(&engine, "web").await;
    assert_eq!(counts(&report), (0, 2, 0));
    assert_eq!(reads(&scene), before);

    // What came back is used, without waiting for the whole window.
    pulls.set(3);
    let report = by_hand(&engine, "web").await;
    assert_eq!(counts(&report), (1, 1, 0), "{:?}", report.failures);
    assert_eq!(scene.copied("v3"), Some(images[2].digest()));
    pulls.set(100);
    let report = scheduled(&engine, "web").await;
    assert_eq!(counts(&report), (1, 0, 0));
    assert_eq!(scene.copied("v4"), Some(images[3].digest()));
    assert_eq!(reads(&scene), 12, "nothing was read twice");
}

#[tokio::test]
async fn the_longest_waiting_goes_first() {
    let scene = Scene::new().await;
    scene.seed("v5", 5);
    let pulls = meter(&scene, 0, 100);
    let engine = scene.workshop.engine().await;
    assert_eq!(counts(&scheduled(&engine, "web").await), (0, 1, 0));
    scene.workshop.pass(Duration::from_secs(3600));
    // By name this one would be first.
    scene.seed("v1", 1);
    pulls.set(4);
    let engine = scene.workshop.engine().await;
    let report = scheduled(&engine, "web").await;
    assert_eq!(counts(&report), (1, 1, 0));
    assert!(scene.copied("v5").is_some() && scene.copied("v1").is_none());
}

#[tokio::test]
async fn a_source_that_counts_is_asked_and_not_read_to_see_what_is_new() {
    let scene = Scene::new().await;
    for n in 1..=3 {
        scene.seed(&format!("v{n}"), n);
    }
    meter(&scene, 0, 100);
    let engine = scene.workshop.engine().await;
    let report = scheduled(&engine, "web").await;
    assert_eq!(counts(&report), (0, 3, 0));
    assert_eq!((reads(&scene), scene.src.count("HEAD", "/manifests/")), (0, 3));
    assert_eq!(
        scene.dst.exchanges().iter().filter(|e| e.method != Method::GET).count(),
        0
    );
}

#[tokio::test]
async fn what_is_put_off_fails_a_strict_run_only() {
    let scene = Scene::new().await;
    scene.seed("v1", 1);
    meter(&scene, 0, 100);
    let home = Transship::new(&scene.rules(""));
    let report = home.run(&["sync", "-o", "json"]).await.expect(0).json();
    let run = &report["runs"][0];
    assert_eq!(
        (&run["outcome"], &run["destinations"][0]["images"]["deferred"]),
        (&"ok".into(), &1.into())
    );
    assert_eq!(run["changes"][0]["outcome"], "deferred");
    home.run(&["sync", "--strict"]).await.expect(1);
    let text = home.run(&["sync"]).await.expect(0);
    assert!(text.stdout.contains("1 deferred"), "{}", text.stdout);
    assert!(text.stderr.contains("put off: 1 of from"), "{}", text.stderr);
}

#[tokio::test]
async fn the_rule_of_the_higher_priority_has_the_quota() {
    let mut scene = Scene::new().await;
    let rules = scene.rules("    tags: { include: [v1] }\n");
    let urgent = rules.split_once("rules:\n").expect("rules").1;
    let urgent = urgent.replace("name: web", "name: urgent").replace("[v1]", "[v2]");
    let urgent = urgent.replace("[app/web]", "[{ match: app/web, to: urgent }]");
    scene.workshop.set_rules(&format!("{rules}{urgent}    priority: 5\n"));
    scene.seed("v1", 1);
    scene.seed("v2", 2);
    let pulls = meter(&scene, 3, 100);
    let engine = scene.workshop.engine().await;
    // The urgent rule is still looking when the other one knows what it wants.
    let gate = Gate::new();
    let hold = Act::HoldBefore(gate.clone());
    scene.dst.add(Fault::once("GET", "/urgent/tags/list", hold));
    let other = async {
        let held = |all: &[Exchange]| all.iter().any(|exchange| exchange.held);
        scene.dst.wait_for("a rule that looks", held).await;
        scheduled(&engine, "web").await
    };
    let opening = async {
        let asked = |all: &[Exchange]| {
            all.iter()
                .any(|exchange| exchange.is("HEAD", "/manifests/v1") && exchange.done)
        };
        scene.src.wait_for("a rule that has looked", asked).await;
        gate.open();
    };
    let (urgent, other, ()) = tokio::join!(scheduled(&engine, "urgent"), other, opening);
    assert_eq!(counts(&urgent), (1, 0, 0), "{:?}", urgent.failures);
    assert_eq!(counts(&other), (0, 1, 0), "{:?}", other.failures);
    assert_eq!(pulls.left(), 0);
}

/// What a rule of the higher priority finds out late, for a destination that said nothing, is not what others have the quota for.
#[tokio::test]
async fn the_rule_of_the_higher_priority_has_the_quota_for_a_destination_that_is_planned_later_too() {
    let mut scene = Scene::new().await;
    let third = Registry::start(Options::default()).await.expect("a registry");
    let far = Proxy::start(&third.url()).await;
    let rules = scene.rules("    tags: { include: [v1] }\n");
    let (registries, web) = rules.split_once("rules:\n").expect("rules");
    let urgent = web.replace("name: web", "name: urgent").replace("[v1]", "[v2]");
    let urgent = urgent.replace("destinations: [to]", "destinations: [to, far]");
    scene.workshop.set_rules(&format!(
        "{registries}  far: {{ url: \"{}\" }}\nrules:\n{web}{urgent}    priority: 5\n",
        far.url()
    ));
    scene.seed("v1", 1);
    // One of the two destinations has it.
    let image = scene.seed("v2", 2);
    scene.destination.seed(&repository(), &tag("v2"), &image);
    let pulls = meter(&scene, 3, 100);
    let engine = scene.workshop.engine().await;
    let gate = Gate::new();
    far.add(Fault::every("GET", "/tags/list", Act::HoldReply(gate.clone())));
    let mut events = engine.events().listen();
    let other = async {
        // For the one that answers: the other is not waited for any more.
        while !matches!(events.recv().await.expect("an event"), Event::RepositoryPlanned { .. }) {}
        scheduled(&engine, "web").await
    };
    let opening = async {
        let looked = |exchange: &Exchange| exchange.is("HEAD", "/manifests/v1") && exchange.done;
        scene
            .src
            .wait_for("a rule that has looked", |all| all.iter().any(looked))
            .await;
        gate.open();
    };
    let (urgent, other, ()) = tokio::join!(scheduled(&engine, "urgent"), other, opening);
    assert_eq!(counts(&other), (0, 1, 0), "{:?}", other.failures);
    let far = urgent
        .destinations
        .iter()
        .find(|destination| destination.registry.as_str() == "far")
        .expect("a destination");
    assert_eq!(far.images.copied, 1, "{:?}", urgent.failures);
    assert_eq!(third.resolve(&repository(), &tag("v2")), Some(image.digest()));
    assert_eq!(pulls.left(), 0);
}

#[tokio::test]
async fn an_image_that_waited_keeps_its_place_over_a_passing_failure() {
    let scene = Scene::new().await;
    scene.seed("v1", 1);
    let pulls = meter(&scene, 0, 100);
    let engine = scene.workshop.engine().await;
    // What the registry says of its quota is heard with the first answer.
    scheduled(&engine, "web").await;
    let report = scheduled(&engine, "web").await;
    assert_eq!(counts(&report), (0, 1, 0), "{:?}", report.failures);
    let waiting = async || engine.store().deferred("web", "from").await.expect("a state");
    let before = waiting().await;
    assert_eq!(before.len(), 1);

    scene.workshop.pass(WINDOW + Duration::from_secs(1));
    pulls.set(100);
    let down = Act::Answer(StatusCode::BAD_GATEWAY, None);
    scene.dst.add(Fault::every("POST", "/blobs/uploads/", down));
    let report = scheduled(&engine, "web").await;
    assert_eq!(counts(&report), (0, 0, 1), "{:?}", report.failures);
    let after = waiting().await;
    assert_eq!(
        after.iter().map(|image| image.since).collect::<Vec<_>>(),
        [before[0].since]
    );

    scene.dst.heal();
    let report = scheduled(&engine, "web").await;
    assert_eq!(counts(&report), (1, 0, 0), "{:?}", report.failures);
    assert_eq!(waiting().await, []);
}
