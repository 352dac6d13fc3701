//! What `retry`, `jobs`, `runs` and `status` make of what happened before.

use http::StatusCode;
use transship::demo::images::image;

use super::{registry, resolve, rules, seed, shell};
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
