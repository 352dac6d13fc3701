//! What `retry`, `jobs`, `runs` and `status` make of what happened before.

use http::StatusCode;
use jiff::SignedDuration;
use transship::clock::Clock;
use transship::demo::images::image;
use transship::store::{FinishedJob, JobFilter, JobOutcome, NewJob, NewRun, RunId, RunOutcome, Store, Trigger};

use super::{name, registry, resolve, rules, seed, shell};
use crate::support::command::Transship;
use crate::support::proxy::{Act, Fault, Gate, Proxy};

#[tokio::test]
async fn a_retry_takes_up_also_what_was_no_image() {
    let (from, to) = (registry().await, registry().await);
    let proxy = Proxy::start(&from.url()).await;
    let sample = image(1, "amd64", &[100]);
    seed(&from, "app/web", "v1", &sample);
    let home = Transship::new(&rules(&proxy.url(), &to.url()));
    let refused = Act::Answer(StatusCode::FORBIDDEN, None);
    proxy.add(Fault::every("GET", "/tags/list", refused));
    home.run(&["sync"]).await.expect(1);
    let failed = home.run(&["jobs", "--failed"]).await.expect(0).stdout;
    assert_eq!(failed, "run-1 failed without a job: transship runs run-1\n");
    home.run(&["retry", "run-1"]).await.expect(1);
    proxy.heal();
    home.run(&["retry", "run-1"]).await.expect(0);
    assert_eq!(resolve(&to, "app/web", "v1"), Some(sample.digest()));
    let failed = home.run(&["jobs", "--failed"]).await.expect(0).stdout;
    assert_eq!(failed, "no failed job\n", "that was mended");

    // Where nothing failed there is nothing to run.
    let nothing = home.run(&["retry", "run-3"]).await.expect(0).stdout;
    assert_eq!(nothing, "nothing failed in run-3\n");
    let runs = home.run(&["runs", "-o", "json"]).await.expect(0).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(3), "{runs}");
}

#[tokio::test]
async fn jobs_say_what_is_still_broken_and_that_there_are_more() {
    let (from, to) = (registry().await, registry().await);
    let proxy = Proxy::start(&from.url()).await;
    for (number, tag) in [(1, "v1"), (2, "v2"), (3, "v3")] {
        seed(&from, "app/web", tag, &image(number, "amd64", &[100]));
    }
    let home = Transship::new(&rules(&proxy.url(), &to.url()));
    for tag in ["v2", "v3"] {
        let refused = Act::Answer(StatusCode::FORBIDDEN, None);
        proxy.add(Fault::every("*", &format!("/manifests/{tag}"), refused));
    }
    home.run(&["sync"]).await.expect(1);
    let failed = |document: &serde_json::Value| document["jobs"].as_array().map(Vec::len);
    let all = home.run(&["jobs", "--failed", "-o", "json"]).await.expect(0).json();
    assert_eq!((failed(&all), &all["more"]), (Some(2), &false.into()), "{all}");
    let some = ["jobs", "--failed", "--limit", "1"];
    let text = home.run(&some).await.expect(0).stdout;
    assert!(text.ends_with("more: --limit 10, or --run run-1\n"), "{text}");
    let some = home.run(&[&some[..], &["-o", "json"]].concat()).await.expect(0).json();
    assert_eq!((failed(&some), &some["more"]), (Some(1), &true.into()), "{some}");

    proxy.heal();
    home.run(&["sync"]).await.expect(0);
    let none = home.run(&["jobs", "--failed", "-o", "json"]).await.expect(0).json();
    assert_eq!(failed(&none), Some(0), "{none}");
    let then = ["jobs", "--failed", "--run", "run-1", "-o", "json"];
    let then = home.run(&then).await.expect(0).json();
    assert_eq!(failed(&then), Some(2), "{then}");
    let unknown = home.run(&["jobs", "--run", "run-99"]).await.expect(2).stderr;
    assert!(unknown.contains("there is no run-99"), "{unknown}");
}

#[tokio::test]
async fn one_cause_is_told_once() {
    let (from, to) = (registry().await, registry().await);
    let proxy = Proxy::start(&to.url()).await;
    for (number, tag) in [(1, "v1"), (2, "v2"), (3, "v3")] {
        seed(&from, "app/web", tag, &image(number, "amd64", &[100]));
    }
    let refused = Act::Answer(StatusCode::FORBIDDEN, None);
    proxy.add(Fault::every("POST", "/blobs/uploads", refused));
    let home = Transship::new(&rules(&from.url(), &proxy.url()));
    let said = home.run(&["sync"]).await.expect(1);
    let failed = home.run(&["jobs", "--failed", "-o", "json"]).await.expect(0).json();
    let message = failed["jobs"][0]["message"].as_str().expect("a message");
    let times = |text: &str| text.matches(message).count();
    assert_eq!(
        (times(&said.stderr), times(&said.stdout)),
        (1, 0),
        "{}{}",
        said.stderr,
        said.stdout
    );
    assert!(said.stdout.contains("(and 2 more)"), "{}", said.stdout);
    assert!(
        said.stdout.contains("transship jobs --failed --run run-1"),
        "{}",
        said.stdout
    );
    let quiet = home.run(&["sync", "-q"]).await.expect(1);
    assert_eq!(times(&quiet.stdout), 1, "{}", quiet.stdout);

    // `copy` names no ids: they are those of its own state.
    let (source, destination) = (format!("{}/app/web:v1", from.url()), format!("{}/app/web", proxy.url()));
    let said = home.run(&["copy", &source, &destination]).await.expect(1);
    assert!(
        !said.stdout.contains("run-") && !said.stdout.contains("job-"),
        "{}",
        said.stdout
    );
    assert_eq!(
        said.stderr.matches("403 Forbidden").count() + said.stdout.matches("403 Forbidden").count(),
        1,
        "{}{}",
        said.stderr,
        said.stdout
    );
}

#[tokio::test]
async fn looking_needs_no_place_for_a_state() {
    let (from, to) = (registry().await, registry().await);
    seed(&from, "app/web", "v1", &image(1, "amd64", &[100]));
    let home = Transship::new(&rules(&from.url(), &to.url()));
    // No folder can be made below a file, whoever asks.
    std::fs::write(home.home().join("file"), "").expect("a file");
    let temporary = home.home().join("tmp");
    std::fs::create_dir(&temporary).expect("a folder");
    for (command, code) in [
        ("plan --exit-code", 3),
        ("ping", 0),
        ("verify", 1),
        ("verify --repair", 2),
        ("sync", 2),
    ] {
        let state = home.home().join("file/state.db");
        let script = format!(
            "TMPDIR={} \"$0\" --state {} {command}",
            temporary.display(),
            state.display()
        );
        let mut command_line = shell(&home, &script);
        // The registries answer on this thread.
        let output = tokio::task::spawn_blocking(move || command_line.output()).await;
        let output = output.expect("it ended").expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command}: {said}");
        assert_eq!(said.contains("an empty state"), code != 2, "{command}: {said}");
        let left = std::fs::read_dir(&temporary).expect("a folder").count();
        assert_eq!(left, 0, "{command} leaves something behind");
    }
}

#[tokio::test]
async fn a_run_whose_process_is_gone_does_not_run() {
    let (from, to) = (registry().await, registry().await);
    let proxy = Proxy::start(&from.url()).await;
    let sample = image(1, "amd64", &[100_000]);
    seed(&from, "app/web", "v1", &sample);
    let home = Transship::new(&rules(&proxy.url(), &to.url()));
    let gate = Gate::new();
    let layer = transship::oci::Digest::of(&sample.blobs[1]);
    proxy.add(Fault::once("GET", layer.hex(), Act::HoldResponse(1000, gate.clone())));
    let mut sync = home.spawn(&["sync"]);
    proxy
        .wait_for("the hold", |all| all.iter().any(|exchange| exchange.held))
        .await;
    let runs = home.run(&["runs"]).await.expect(0);
    assert!(runs.stdout.contains("running"), "{}", runs.stdout);
    sync.kill();
    sync.finish().await;
    gate.open();
    for command in [&["runs"][..], &["runs", "run-1"], &["status"]] {
        let said = home.run(command).await.expect(0);
        assert!(said.stdout.contains("interrupted"), "{command:?}: {}", said.stdout);
        assert!(
            said.stderr.contains("its process is gone"),
            "{command:?}: {}",
            said.stderr
        );
    }
    let status = home.run(&["status"]).await.expect(0).stdout;
    assert!(!status.contains("daemon") && !status.contains("SCHEDULE"), "{status}");
    let status = home.run(&["status", "-o", "json"]).await.expect(0).json();
    let rule = &status["rules"][0];
    assert_eq!(
        (&rule["running"], &rule["last"]["outcome"]),
        (&serde_json::Value::Null, &"interrupted".into())
    );
    home.run(&["sync"]).await.expect(0);
    assert!(
        home.run(&["runs"]).await.expect(0).stderr.lines().count() == 1,
        "nothing is left to say"
    );
}

#[tokio::test]
async fn images_in_step_are_counted_in_the_report_and_are_no_jobs() {
    let (from, to) = (registry().await, registry().await);
    for (number, tag) in [(1, "v1"), (2, "v2"), (3, "v3")] {
        seed(&from, "app/web", tag, &image(number, "amd64", &[100]));
    }
    let home = Transship::new(&rules(&from.url(), &to.url()));
    let references = async |run: &str| {
        let jobs = home.run(&["jobs", "--run", run, "-o", "json"]).await.expect(0).json();
        let jobs = jobs["jobs"].as_array().expect("jobs").iter();
        let mut references: Vec<String> = jobs
            .map(|job| job["reference"].as_str().expect("a tag").to_owned())
            .collect();
        references.sort();
        references
    };
    let in_step = async || {
        let report = home.run(&["sync", "-o", "json"]).await.expect(0).json();
        report["runs"][0]["destinations"][0]["images"]["in_step"].clone()
    };
    assert_eq!(in_step().await, 0);
    assert_eq!(references("run-1").await, ["v1", "v2", "v3"]);
    assert_eq!(in_step().await, 3);
    assert_eq!(references("run-2").await, [""; 0]);
    seed(&from, "app/web", "v2", &image(4, "amd64", &[100]));
    assert_eq!(in_step().await, 2);
    assert_eq!(references("run-3").await, ["v2"]);
}

#[tokio::test]
async fn a_sync_forgets_runs_that_ended_more_than_ninety_days_ago() {
    let (from, to) = (registry().await, registry().await);
    seed(&from, "app/web", "v1", &image(1, "amd64", &[100]));
    let home = Transship::new(&rules(&from.url(), &to.url()));
    let store = Store::open(&home.state()).await.expect("a state");
    let repository = name("app/web");
    for days in [91, 89] {
        let then = Clock::system().now() - SignedDuration::from_hours(days * 24);
        let run = NewRun {
            rule: "web",
            trigger: Trigger::Manual,
            continues: None,
        };
        let run = store.start_run(run, then).await.expect("a run");
        let job = NewJob {
            run,
            source_registry: "from",
            source_repository: &repository,
            reference: "v0",
            destination_registry: "to",
            destination_repository: &repository,
            digest: None,
            owner: "another",
        };
        let job = store.start_job(job, then).await.expect("a job");
        let gone = FinishedJob {
            outcome: JobOutcome::Gone,
            kind: None,
            status: None,
            code: None,
            message: None,
            attempts: 1,
            bytes_written: 0,
            next_attempt_at: None,
        };
        store.finish_job(job, &gone, None, then).await.expect("its end");
        let report = format!("{{\"days\":{days}}}");
        let ended = store.finish_run(run, RunOutcome::Ok, &report, then).await;
        ended.expect("its end");
    }
    store.close().await;

    home.run(&["sync"]).await.expect(0);
    let store = Store::open_read_only(&home.state()).await.expect("a state");
    let store = store.expect("a state");
    let runs: Vec<_> = store.runs(9).await.expect("runs");
    let runs: Vec<_> = runs.iter().map(|run| (run.id, run.report.as_deref())).collect();
    let [(RunId(3), Some(_)), (RunId(2), Some("{\"days\":89}"))] = runs[..] else {
        panic!("{runs:?}");
    };
    let jobs = store.jobs(&JobFilter::default()).await.expect("jobs");
    let jobs: Vec<_> = jobs.iter().map(|job| (job.run, job.reference.as_str())).collect();
    assert_eq!(jobs, [(RunId(3), "v1"), (RunId(2), "v0")]);
    assert!(store.run(RunId(1)).await.expect("an answer").is_none());
    store.close().await;
    let unknown = home.run(&["runs", "run-1"]).await.expect(2).stderr;
    assert!(unknown.contains("there is no run-1"), "{unknown}");
}
