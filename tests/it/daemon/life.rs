//! Signals, the death of the daemon, reload and the schedule.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use transship::clock::Clock;
use transship::store::{NewRun, RunOutcome, Store, Trigger};

use super::Scene;
use crate::support::proxy::{Act, Exchange, Fault};

#[tokio::test]
async fn a_stopped_daemon_lets_the_transfer_under_way_end() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    let (layer, gate) = scene.hold(&image);
    let mut daemon = scene.daemon().await;
    scene.home.run(&["trigger", "web"]).await.expect(0);
    scene.wait_for_hold().await;
    daemon.signal("TERM");
    daemon.wait_for_line("SIGTERM: stopping").await;
    gate.open();
    daemon.finish().await.expect(0);
    assert!(
        !scene.home.home().join("api.sock").exists(),
        "a socket on which nobody listens was left"
    );
    // What was on its way has arrived: nobody sends it again.
    assert!(scene.destination.blob(&super::repository(), &layer).is_some());
    scene.home.run(&["sync", "web"]).await.expect(0);
    assert_eq!(scene.copied("v1"), Some(image.digest()));
    assert_eq!(scene.src.count("GET", layer.hex()), 1);
}

#[tokio::test]
async fn a_killed_daemon_goes_on_where_it_was() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    let (_, gate) = scene.hold(&image);
    let mut daemon = scene.daemon().await;
    let started = scene.ask(&["trigger", "web"]).await["runs"][0].clone();
    scene.wait_for_hold().await;
    daemon.kill();
    gate.open();
    scene.src.heal();
    assert_eq!(scene.copied("v1"), None);

    let daemon = scene.daemon().await;
    let runs = scene
        .ask_until("the recovery to end", &["runs"], |runs| {
            runs["runs"][0]["trigger"] == "recovery" && runs["runs"][0]["outcome"].is_string()
        })
        .await;
    let (recovery, first) = (&runs["runs"][0], &runs["runs"][1]);
    assert_eq!(recovery["continues"], started);
    assert_eq!(recovery["outcome"], "ok");
    assert_eq!(
        (&first["id"], &first["outcome"]),
        (&started, &Value::from("interrupted"))
    );
    assert_eq!(scene.copied("v1"), Some(image.digest()));
    daemon.signal("TERM");
    daemon.finish().await.expect(0);
}

#[tokio::test]
async fn a_daemon_that_is_stopped_in_the_middle_goes_on_at_its_next_start() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    let (_, gate) = scene.hold(&image);
    let mut daemon = scene.daemon().await;
    let started = scene.ask(&["trigger", "web"]).await["runs"][0].clone();
    scene.wait_for_hold().await;
    daemon.signal("TERM");
    daemon.wait_for_line("SIGTERM: stopping").await;
    // Twice: it need not wait for the transfer.
    daemon.signal("TERM");
    daemon.finish().await;
    gate.open();
    scene.src.heal();
    assert_eq!(scene.copied("v1"), None);
    // A sync of another rule does not take the place of the one that was broken off.
    scene.home.run(&["sync", "broken"]).await.expect(1);

    let daemon = scene.daemon().await;
    let runs = scene
        .ask_until("the recovery to end", &["runs"], |runs| {
            runs["runs"][0]["trigger"] == "recovery" && runs["runs"][0]["outcome"].is_string()
        })
        .await;
    assert_eq!(runs["runs"][0]["continues"], started);
    assert_eq!(runs["runs"][0]["outcome"], "ok");
    assert_eq!(scene.copied("v1"), Some(image.digest()));
    daemon.signal("TERM");
    daemon.finish().await.expect(0);
}

#[tokio::test]
async fn hangup_swaps_right_rules_in_and_keeps_the_old_ones_for_wrong_ones() {
    let scene = Scene::new().await;
    let mut daemon = scene.daemon().await;
    let names = |status: &Value| -> Vec<String> {
        let rules = status["rules"].as_array().expect("rules");
        rules
            .iter()
            .map(|rule| rule["rule"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(names(&scene.ask(&["status"]).await), ["web", "broken"]);

    scene.home.set_rules(&scene.rules(&[("other", "app/web")]));
    daemon.signal("HUP");
    daemon.wait_for_line("are in use").await;
    let status = scene.ask(&["status"]).await;
    assert_eq!(names(&status), ["other"]);
    assert!(status["daemon"]["reload_error"].is_null());
    scene.home.run(&["trigger", "web"]).await.expect(2);

    scene.home.set_rules(&scene.rules(&[("third", "app/web;semver: 1")]));
    daemon.signal("HUP");
    daemon.wait_for_line("the rules were refused, the old ones stay").await;
    let status = scene.ask(&["status"]).await;
    assert_eq!(names(&status), ["other"]);
    let error = status["daemon"]["reload_error"].as_str().expect("a reason");
    assert!(error.contains("rules.yaml:11:5") && error.contains("semver"), "{error}");
    let shown = scene.home.run(&["status"]).await.expect(0).stdout;
    assert!(shown.contains("refused") && shown.contains("semver"), "{shown}");
    scene.home.run(&["trigger", "other", "--wait"]).await.expect(1);

    // The next right ones end the complaint.
    scene.home.set_rules(&scene.rules(&[("fourth", "app/web")]));
    daemon.signal("HUP");
    scene
        .ask_until("the fourth rules", &["status"], |status| {
            names(status) == ["fourth"] && status["daemon"]["reload_error"].is_null()
        })
        .await;
}

#[tokio::test]
async fn a_second_process_on_the_state_is_refused_and_told_who_has_it() {
    let scene = Scene::new().await;
    let daemon = scene.daemon().await;
    for command in [&["daemon"][..], &["sync"], &["sync", "web"], &["verify", "--repair"]] {
        let refused = scene.home.run(command).await.expect(2).stderr;
        assert!(
            refused.contains(&format!("process {} (daemon)", daemon.id())) && refused.contains("trigger RULE --wait"),
            "{command:?}: {refused}"
        );
    }
    // What needs no lock works beside it.
    scene.seed("v1", 1);
    scene.home.run(&["plan", "web", "--exit-code"]).await.expect(3);
    scene.home.run(&["ping"]).await.expect(0);
    scene.home.run(&["trigger", "web", "--wait"]).await.expect(0);
    scene.home.run(&["verify", "web"]).await.expect(0);
}

/// A schedule that was due ten minutes ago and is not due again before tomorrow.
fn ten_minutes_ago() -> String {
    let at = Clock::system().now() - Duration::from_secs(600);
    at.strftime("schedule: \"%M %H * * *\"").to_string()
}

#[tokio::test]
async fn a_run_that_was_missed_is_made_up_for_at_the_start() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    let due = ten_minutes_ago();
    scene.home.set_rules(&scene.rules(&[
        ("run", &format!("app/web;{due};missed: run")),
        ("skip", &format!("app/web;{due};missed: skip")),
    ]));
    // Both ran an hour ago for the last time.
    let store = Store::open(&scene.home.state()).await.expect("a state");
    let earlier = Clock::system().now() - Duration::from_secs(3600);
    for rule in ["run", "skip"] {
        let run = NewRun {
            rule,
            trigger: Trigger::Schedule,
            continues: None,
        };
        let id = store.start_run(run, earlier).await.expect("a run");
        store
            .finish_run(id, RunOutcome::Ok, "", earlier)
            .await
            .expect("its end");
    }
    store.close().await;

    let _daemon = scene.daemon().await;
    let runs = scene
        .ask_until("the missed run to end", &["runs"], |runs| {
            runs["runs"][0]["id"] == "run-3" && runs["runs"][0]["outcome"].is_string()
        })
        .await;
    let run = &runs["runs"][0];
    assert_eq!(
        (&run["rule"], &run["trigger"], &run["outcome"]),
        (&"run".into(), &"schedule".into(), &"ok".into())
    );
    assert_eq!(scene.copied("v1"), Some(image.digest()));
    let status = scene.ask(&["status"]).await;
    for rule in status["rules"].as_array().expect("rules") {
        let next: Timestamp = rule["next_at"].as_str().expect("a time").parse().expect("RFC 3339");
        let wait = next.duration_since(Clock::system().now());
        assert!(wait > jiff::SignedDuration::from_hours(23), "{rule}");
        assert!(rule["running"].is_null(), "{rule}");
    }
    assert_eq!(
        status["rules"][1]["last"]["id"], "run-2",
        "missed: skip ran nevertheless"
    );
}

#[tokio::test]
async fn limits_that_are_read_again_on_hangup_hold_from_then_on() {
    let scene = Scene::new().await;
    let rules = scene.rules(&[("web", "app/web")]);
    scene.home.set_rules(&rules);
    for number in 0..8 {
        scene.seed(&format!("first-{number}"), 10 * number + 1);
    }
    scene
        .src
        .add(Fault::every("*", "/v2/", Act::Delay(Duration::from_millis(10))));
    let mut daemon = scene.daemon().await;
    scene.home.run(&["trigger", "web", "--wait"]).await.expect(0);
    let free = scene.src.most_at_once();
    assert!(free > 2, "without a limit it is asked for more at once: {free}");

    let url = format!("url: \"{}\"", scene.src.url());
    let limited = rules.replace(&url, &format!("{url}, limits: {{ concurrency: 1 }}"));
    assert_ne!(limited, rules);
    scene.home.set_rules(&limited);
    daemon.signal("HUP");
    daemon.wait_for_line("are in use").await;
    let ended = |all: &[Exchange]| all.iter().all(|exchange| exchange.done || exchange.broken);
    scene.src.wait_for("all exchanges to be over", ended).await;
    scene.src.reset();
    for number in 0..8 {
        scene.seed(&format!("second-{number}"), 10 * number + 1001);
    }
    scene.home.run(&["trigger", "web", "--wait"]).await.expect(0);
    assert!(scene.copied("second-7").is_some());
    // One counts as two, as a copy within one registry reads and writes at once.
    let most = scene.src.most_at_once();
    assert!((1..=2).contains(&most), "{most}");
}
