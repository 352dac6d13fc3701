//! A process that dies or is in the way: what the next one finds, says and does.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use transship::engine::Engine;
use transship::oci::{Algorithm, Digest, Hasher};
use transship::plan::Checkpoint;
use transship::store::{RunOutcome, UploadKey};

use crate::support::docker_registry::DockerRegistry;
use crate::support::engine::{Workshop, scheduled};
use crate::support::images::image;
use crate::support::link::{Link, MIB, REPOSITORY, only_run};
use crate::support::ours::Ours;
use crate::support::proxy::{Act, Exchange, Fault, Gate};
use crate::support::within;

async fn standing(link: &Link) {
    let held = |all: &[Exchange]| all.iter().any(|exchange| exchange.held);
    link.src.wait_for("the source to be held", held).await;
}

async fn runs(link: &Link) -> Vec<Value> {
    let output = link.home.run(&["runs", "--format", "json"]).await.expect(0);
    output.json()["runs"].as_array().expect("runs").clone()
}

#[tokio::test]
async fn a_killed_run_is_closed_and_the_next_sync_continues_it() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), 300_000).await;
    // What the tag names before: another image.
    let old = image(7, "amd64", &[1000]);
    link.destination_wire().push(REPOSITORY, "v1", &old).await;
    // One image is done before the process dies in the middle of the other.
    let small = image(8, "amd64", &[2000]);
    link.source_wire().push(REPOSITORY, "v0", &small).await;
    link.src.add(Fault::once(
        "GET",
        &link.layer(),
        Act::HoldResponse(100_000, Gate::new()),
    ));
    let mut first = link.start();
    standing(&link).await;
    let tagged = |all: &[Exchange]| {
        let puts = all.iter().filter(|exchange| exchange.is("PUT", "/manifests/v0"));
        puts.filter(|exchange| exchange.done).count() == 1
    };
    link.dst.wait_for("the other image to be tagged", tagged).await;
    // The tag is put before the job's end is recorded; what is asserted below is about a job that has ended.
    within("the other image's job to be recorded", async {
        let ended = |job: &(String, String, String)| job.1 == "v0" && job.2 == "copied";
        while !jobs(&link).await.iter().any(ended) {}
    })
    .await;

    // Beside the run.
    let beside = runs(&link).await;
    assert_eq!(beside.len(), 1, "{beside:?}");
    assert_eq!(beside[0]["outcome"], Value::Null, "it runs");
    assert_eq!(beside[0]["trigger"], "manual");
    first.kill();
    assert_eq!(
        link.destination_wire().resolve(REPOSITORY, "v1").await,
        Some(old.digest()),
        "an interrupted job leaves the old tag"
    );

    let second = link.sync().await.expect(0);
    let run = only_run(&second);
    assert_eq!(run["trigger"], "recovery");
    assert_eq!(run["outcome"], "ok");
    let images = &run["destinations"][0]["images"];
    assert_eq!((&images["in_step"], &images["copied"]), (&1.into(), &1.into()), "{run}");
    link.assert_copied(&["v0", "v1"]).await;
    assert_eq!(
        link.dst.count("PUT", "/manifests/v0"),
        1,
        "what was done is not done again"
    );

    let all = runs(&link).await;
    assert_eq!(all.len(), 2, "{all:?}");
    let [newest, dead] = [&all[0], &all[1]];
    assert_eq!(dead["outcome"], "interrupted");
    assert_eq!(dead["finished_at"].as_str().map(|at| at.is_empty()), Some(false));
    assert_eq!(newest["continues"], dead["id"]);
    assert_eq!(newest["id"], run["id"]);
    let text = link.home.run(&["runs"]).await.expect(0).stdout;
    assert!(text.contains("interrupted") && text.contains("recovery"), "{text}");
    let dead = dead["id"].as_str().expect("an id").to_owned();
    let jobs = jobs(&link).await;
    let has = |run: &str, reference: &str, outcome: &str| {
        jobs.iter()
            .any(|job| *job == (run.to_owned(), reference.to_owned(), outcome.to_owned()))
    };
    assert!(has(&dead, "v1", "interrupted"), "{jobs:?}");
    assert!(has(&dead, "v0", "copied"), "{jobs:?}");
    assert!(has(newest["id"].as_str().expect("an id"), "v1", "copied"), "{jobs:?}");

    // And the one after that is nobody's successor.
    let third = link.sync().await.expect(0);
    assert_eq!(only_run(&third)["trigger"], "manual");
}

/// Run, reference and outcome of every job.
async fn jobs(link: &Link) -> Vec<(String, String, String)> {
    let jobs = link.home.run(&["jobs", "--format", "json"]).await.expect(0).json();
    jobs["jobs"]
        .as_array()
        .expect("jobs")
        .iter()
        .map(|job| {
            let word = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
            (word("run"), word("reference"), word("outcome"))
        })
        .collect()
}

#[tokio::test]
async fn one_sync_at_a_time_and_readers_beside_it() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), 5 * MIB).await;
    let gate = Gate::new();
    link.src
        .add(Fault::once("GET", &link.layer(), Act::HoldResponse(MIB, gate.clone())));
    let first = link.start();
    standing(&link).await;

    let second = link.sync().await.expect(2);
    assert!(second.stdout.is_empty(), "{}", second.stdout);
    let holder = format!("process {} (sync)", first.id());
    assert!(second.stderr.contains(&holder), "{}", second.stderr);
    assert!(
        second.stderr.contains("transship trigger") && second.stderr.contains("--wait"),
        "{}",
        second.stderr
    );
    let daemon = link.home.run(&["daemon"]).await.expect(2);
    assert!(daemon.stderr.contains(&holder), "{}", daemon.stderr);

    let status = link.home.run(&["status", "--format", "json"]).await.expect(0).json();
    assert_eq!(status["rules"][0]["rule"], "app", "{status}");
    assert_eq!(runs(&link).await.len(), 1);
    let jobs = link.home.run(&["jobs", "--format", "json"]).await.expect(0).json();
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1), "{jobs}");
    assert_eq!(jobs["jobs"][0]["outcome"], Value::Null, "{jobs}");
    link.home.run(&["audit", "--format", "json"]).await.expect(0);
    let plan = link.home.run(&["plan", "--exit-code"]).await;
    assert_eq!(plan.status.code(), Some(3), "{}", plan.stderr);

    gate.open();
    first.finish().await.expect(0);
    link.assert_copied(&["v1"]).await;
    link.sync().await.expect(0);
}

#[tokio::test]
async fn a_state_that_cannot_be_written_starts_nothing() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), 1000).await;
    let file = link.home.home().join("file");
    std::fs::write(&file, "").expect("a file");
    let below = format!("sqlite:{}/state/transship.db", file.display());
    // Not even root may make files there.
    let kernel = "sqlite:/proc/transship/transship.db".to_owned();
    let inside = "sqlite:/proc/transship.db".to_owned();
    for state in [below, kernel, inside] {
        let output = link.home.run(&["sync", "--state", &state]).await.expect(2);
        let path = state.trim_start_matches("sqlite:");
        let folder = path.rsplit_once('/').expect("a folder").0;
        assert!(output.stderr.contains(folder), "{}", output.stderr);
        assert!(output.stderr.contains("--state"), "{}", output.stderr);
        assert!(output.stdout.is_empty(), "{}", output.stdout);
    }
    assert_eq!(link.dst.count("*", ""), 0, "nothing was started");
    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
}

/// A rule that copies one tag and tries once.
fn web_rules(ours: &Ours, tag: &str) -> String {
    format!(
        "version: 1\nregistries:\n  from: {{ url: \"{}\" }}\n  to: {{ url: \"{}\" }}\nrules:\n  - name: web\n    source: from\n    \
         destinations: [to]\n    repositories: [app/web]\n    tags: {{ include: [{tag}] }}\n    retry: {{ attempts: 1 }}\n",
        ours.src.url(),
        ours.dst.url()
    )
}

#[tokio::test]
async fn an_upload_that_no_rule_needs_any_more_is_given_up_after_a_day() {
    let ours = Ours::start().await;
    let layer = 5 * usize::try_from(MIB).expect("a length");
    ours.seed_layers("large", 1, layer);
    ours.seed_layers("small", 2, 1000);
    let mut workshop = Workshop::new(&web_rules(&ours, "large"));
    ours.dst
        .add(Fault::every("PUT", "/blobs/uploads/", Act::CutRequest(MIB)));
    let engine = workshop.engine().await;
    assert_eq!(scheduled(&engine, "web").await.outcome, RunOutcome::Failed);
    let open = async |engine: &Engine| engine.store().uploads().await.expect("uploads").len();
    let left = open(&engine).await;
    assert!(left > 0, "the large layers' uploads are remembered");
    ours.dst.heal();

    workshop.set_rules(&web_rules(&ours, "small"));
    let engine = workshop.engine().await;
    let given_up = || ours.dst.count("DELETE", "/blobs/uploads/");
    assert_eq!(scheduled(&engine, "web").await.outcome, RunOutcome::Ok);
    workshop.pass(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(scheduled(&engine, "web").await.outcome, RunOutcome::Ok);
    assert_eq!((open(&engine).await, given_up()), (left, 0), "it may still be wanted");
    workshop.pass(Duration::from_secs(1));
    let forbidden = Act::Answer(StatusCode::FORBIDDEN, None);
    ours.src.add(Fault::every("GET", "/tags/list", forbidden));
    assert_eq!(scheduled(&engine, "web").await.outcome, RunOutcome::Failed);
    assert_eq!((open(&engine).await, given_up()), (left, 0), "what failed may need it");
    ours.src.heal();
    assert_eq!(scheduled(&engine, "web").await.outcome, RunOutcome::Ok);
    assert_eq!((open(&engine).await, given_up()), (0, left), "here and at the registry");
    let answers = ours.dst.exchanges();
    let mut answers = answers
        .iter()
        .filter(|exchange| exchange.is("DELETE", "/blobs/uploads/"));
    assert!(answers.all(|exchange| exchange.status == Some(StatusCode::NO_CONTENT)));
}

#[tokio::test]
async fn an_upload_that_came_further_within_the_day_is_kept_however_old_it_is() {
    let ours = Ours::start().await;
    ours.seed_layers("small", 1, 1000);
    let workshop = Workshop::new(&web_rules(&ours, "small"));
    let engine = workshop.engine().await;
    let key = |number: u8| UploadKey {
        registry: "to".to_owned(),
        repository: "app/other".parse().expect("a name"),
        digest: Digest::of(&[number]),
    };
    let (store, clock) = (engine.store(), engine.clock());
    let mut opened = Vec::new();
    for number in 1..=3 {
        let id = store.save_upload(&key(number), 1000, "nowhere", 0, clock.now()).await;
        opened.push(id.expect("an upload"));
    }
    workshop.pass(Duration::from_secs(23 * 3600));
    let recorded = store.record_offset(opened[1], "nowhere", 500, None, clock.now()).await;
    recorded.expect("recorded");
    workshop.pass(Duration::from_secs(3600));
    let checkpoint = Checkpoint {
        offset: 500,
        state: Hasher::new(Algorithm::Sha256).save().expect("a state"),
    };
    let recorded = store.record_checkpoint(opened[2], &checkpoint, clock.now()).await;
    recorded.expect("recorded");
    let left = async || {
        assert_eq!(scheduled(&engine, "web").await.outcome, RunOutcome::Ok);
        let uploads = engine.store().uploads().await.expect("uploads");
        uploads.iter().map(|upload| upload.id).collect::<Vec<_>>()
    };
    assert_eq!(left().await, opened[1..], "a day after all were opened");
    workshop.pass(Duration::from_secs(23 * 3600));
    assert_eq!(left().await, opened[2..], "a day after the second came further");
    workshop.pass(Duration::from_secs(3600));
    assert_eq!(left().await, [], "a day after the last hash state");
}

#[tokio::test]
async fn a_tag_whose_put_was_not_heard_of_is_in_the_audit_trail_all_the_same() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), 10_000).await;
    let old = image(7, "amd64", &[1000]);
    link.destination_wire().push(REPOSITORY, "v1", &old).await;
    let hold = Act::HoldReply(Gate::new());
    link.dst.add(Fault::once("PUT", "/manifests/v1", hold));
    let mut first = link.start();
    let held = |all: &[Exchange]| all.iter().any(|exchange| exchange.held);
    link.dst.wait_for("the tag to be put", held).await;
    first.kill();
    for _ in 0..2 {
        link.sync().await.expect(0);
        let audit = link.home.run(&["audit", "--format", "json"]).await.expect(0).json();
        let [entry] = audit["entries"].as_array().expect("entries").as_slice() else {
            panic!("not once: {audit}");
        };
        assert_eq!(
            (&entry["tag"], &entry["run"]),
            (&"v1".into(), &"run-1".into()),
            "{entry}"
        );
        assert_eq!(entry["digest"], link.image.digest().to_string());
        assert_eq!(entry["previous_digest"], old.digest().to_string());
    }
}
