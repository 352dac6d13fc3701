//! Exit statuses, signals, and a reader that goes away.

use http::StatusCode;
use transship::demo::images::{image, two_platforms};
use transship::oci::Digest;

use super::{registry, resolve, rules, seed, shell};
use crate::support::command::Transship;
use crate::support::proxy::{Act, Fault, Gate, Proxy};

#[tokio::test]
async fn plan_says_by_its_exit_status_whether_there_is_work() {
    let (from, to) = (registry().await, registry().await);
    let proxy = Proxy::start(&from.url()).await;
    let home = Transship::new(&rules(&proxy.url(), &to.url()));
    seed(&from, "app/web", "v1", &image(1, "amd64", &[100]));
    home.run(&["plan"]).await.expect(0);
    home.run(&["plan", "--exit-code"]).await.expect(3);
    let planned = home.run(&["plan", "--exit-code", "-o", "json"]).await.expect(3).json();
    assert_eq!(planned["rules"][0]["work"], true);
    assert_eq!(resolve(&to, "app/web", "v1"), None, "planning changes nothing");
    home.run(&["sync", "--strict"]).await.expect(0);
    home.run(&["plan", "--exit-code"]).await.expect(0);

    // Work and something unknown: the failure wins.
    seed(&from, "app/web", "v2", &image(2, "amd64", &[100]));
    seed(&from, "app/web", "v3", &image(3, "amd64", &[100]));
    let refused = Act::Answer(StatusCode::FORBIDDEN, None);
    proxy.add(Fault::every("*", "/manifests/v3", refused));
    home.run(&["plan", "--exit-code"]).await.expect(1);
    home.run(&["plan"]).await.expect(1);
    home.run(&["sync"]).await.expect(1);
    proxy.heal();
    proxy.add(Fault::every(
        "GET",
        "/tags/list",
        Act::Answer(StatusCode::FORBIDDEN, None),
    ));
    home.run(&["plan", "--exit-code"]).await.expect(1);
    home.run(&["sync"]).await.expect(1);
    home.run(&["verify"]).await.expect(1);
    proxy.heal();
    home.run(&["sync"]).await.expect(0);
    home.run(&["verify"]).await.expect(0);
    for command in ["plan", "sync", "verify"] {
        let unknown = home.run(&[command, "wbe"]).await.expect(2).stderr;
        assert!(unknown.contains("wbe") && unknown.contains("web"), "{unknown}");
    }
}

#[tokio::test]
async fn signals_end_with_their_number_and_nothing_is_lost() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (from, to) = (registry().await, registry().await);
        let proxy = Proxy::start(&from.url()).await;
        let sample = two_platforms(1, &[200_000]);
        seed(&from, "app/web", "v1", &sample);
        let home = Transship::new(&rules(&proxy.url(), &to.url()));
        let layer = Digest::of(&sample.children[0].blobs[1]);
        let gate = Gate::new();
        proxy.add(Fault::once("GET", layer.hex(), Act::HoldResponse(1000, gate.clone())));
        let mut sync = home.spawn(&["sync", "-o", "json"]);
        proxy
            .wait_for("the hold", |all| all.iter().any(|exchange| exchange.held))
            .await;
        sync.signal(signal);
        sync.wait_for_line(&format!("SIG{signal}: nothing new starts")).await;
        gate.open();
        let report = sync.finish().await.expect(code).json();
        assert_eq!(report["runs"][0]["outcome"], "interrupted", "{report}");
        home.run(&["sync"]).await.expect(0);
        assert_eq!(resolve(&to, "app/web", "v1"), Some(sample.digest()));
        assert_eq!(proxy.count("GET", layer.hex()), 1, "the blob under way had arrived");
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let (from, to) = (registry().await, registry().await);
    let proxy = Proxy::start(&from.url()).await;
    let sample = image(1, "amd64", &[200_000]);
    seed(&from, "app/web", "v1", &sample);
    let home = Transship::new(&rules(&proxy.url(), &to.url()));
    let gate = Gate::new();
    proxy.add(Fault::every(
        "GET",
        Digest::of(&sample.blobs[1]).hex(),
        Act::HoldResponse(1000, gate),
    ));
    let mut sync = home.spawn(&["sync"]);
    proxy
        .wait_for("the hold", |all| all.iter().any(|exchange| exchange.held))
        .await;
    sync.signal("INT");
    sync.wait_for_line("SIGINT: nothing new starts").await;
    sync.signal("INT");
    sync.finish().await.expect(130);
    assert_eq!(resolve(&to, "app/web", "v1"), None);
}

#[tokio::test]
async fn rules_and_state_that_cannot_be_used_are_2() {
    let home = Transship::new("version: 1\nrulez: []\n");
    for command in [
        &["check"][..],
        &["plan"],
        &["sync"],
        &["verify"],
        &["ping"],
        &["daemon"],
        &["retry", "run-1"],
    ] {
        let refused = home.run(command).await.expect(2);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(
            said.contains("rulez") && said.contains("rules.yaml:2:1"),
            "{command:?}: {said}"
        );
    }
    std::fs::remove_file(home.rules()).expect("the rules");
    let none = home.run(&["sync"]).await.expect(2).stderr;
    assert!(none.contains("--rules"), "{none}");
    home.run(&["sync", "--frobnicate"]).await.expect(2);
    home.run(&[]).await.expect(2);
    home.run(&["--help"]).await.expect(0);
    home.run(&["--version"]).await.expect(0);

    let (from, to) = (registry().await, registry().await);
    home.set_rules(&rules(&from.url(), &to.url()));
    std::fs::write(
        home.state(),
        "this is no database, and longer than the header of one: ".repeat(10),
    )
    .expect("a file");
    let broken = home.run(&["sync"]).await.expect(2).stderr;
    assert!(broken.contains("transship.db"), "{broken}");
    let other = home.run(&["sync", "--state", "postgres://db/x"]).await.expect(2).stderr;
    assert!(other.contains("sqlite:PATH"), "{other}");
}

#[tokio::test]
async fn a_folder_of_rules_is_read_in_name_order() {
    let home = Transship::new("");
    let folder = home.home().join("rules.d");
    std::fs::create_dir(&folder).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
    write(
        "10-registries.yaml",
        "version: 1\nregistries:\n  a: { url: \"http://127.0.0.1:1\" }\n  b: { url: \"http://127.0.0.1:2\" }\n",
    );
    write(
        "20-rules.yml",
        "version: 1\nrules:\n  - { name: one, source: a, destinations: [b], repositories: [x] }\n",
    );
    write("README.md", "not rules");
    let path = folder.to_str().expect("text");
    let good = home.run(&["check", "--rules", path]).await.expect(0).stdout;
    assert!(good.contains("(1 rule, 2 registries)"), "{good}");
    write(
        "30-wrong.yaml",
        "version: 1\nrules:\n  - { name: one, source: c, destinations: [b], repositories: [\"[\"] }\n",
    );
    let bad = home
        .run(&["check", "--rules", path, "-o", "json"])
        .await
        .expect(2)
        .json();
    assert_eq!(bad["ok"], false);
    let mistakes = bad["mistakes"].as_array().expect("mistakes");
    assert!(
        mistakes.len() >= 3,
        "all at once: the name, the registry, the pattern: {bad}"
    );
    for mistake in mistakes {
        assert!(
            mistake["file"]
                .as_str()
                .is_some_and(|file| file.ends_with("30-wrong.yaml")),
            "{mistake}"
        );
        assert_eq!(
            (&mistake["line"], &mistake["severity"]),
            (&3.into(), &"error".into()),
            "{mistake}"
        );
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let home = Transship::new("version: 1\n");
    for command in ["schema", "completions bash", "--help", "copy --help"] {
        // The reader is gone before the program begins to write.
        let script = format!(
            "set -o pipefail; (sleep 0; exec \"$0\" {command}) | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
        );
        let output = shell(&home, &script).output().expect("bash");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{command}: {said}");
        assert_eq!(said, "", "{command}");
        let closed = format!("{{ \"$0\" {command}; echo $? >status; }} | true; while ! [ -s status ]; do :; done");
        let output = shell(&home, &closed).output().expect("bash");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command}");
        let status = std::fs::read_to_string(home.home().join("status")).expect("a status");
        assert_eq!(status.trim(), "0", "{command}");
        std::fs::remove_file(home.home().join("status")).expect("the status");
    }
}
