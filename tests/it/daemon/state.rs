//! `status`, `runs`, `jobs` and `audit` say the same with a daemon and without.

use serde_json::Value;

use super::Scene;

const QUESTIONS: [&[&str]; 5] = [
    &["runs"],
    &["runs", "run-1"],
    &["jobs"],
    &["jobs", "--failed", "--run", "run-2"],
    &["audit"],
];

#[tokio::test]
async fn what_is_known_comes_from_the_daemon_or_from_the_state() {
    let scene = Scene::new().await;
    let image = scene.seed("v1", 1);
    for command in [&["status"][..], &["runs"], &["jobs"], &["audit"], &["cancel", "run-1"]] {
        let nothing = scene.home.run(command).await.expect(2).stderr;
        assert!(
            nothing.contains("there is no state") && nothing.contains("transship sync"),
            "{nothing}"
        );
    }
    assert!(!scene.home.state().exists(), "asking makes no state");
    let refused = scene.home.run(&["trigger", "web"]).await.expect(2).stderr;
    assert!(
        refused.contains("transship daemon") && refused.contains("transship sync"),
        "{refused}"
    );

    let daemon = scene.daemon().await;
    scene.home.run(&["trigger", "web", "--wait"]).await.expect(0);
    scene.home.run(&["trigger", "broken", "--wait"]).await.expect(1);
    let mut told: Vec<Value> = Vec::new();
    for question in QUESTIONS {
        let all: Vec<&str> = question.iter().copied().chain(["-o", "json"]).collect();
        let answer = scene.home.run(&all).await.expect(0);
        assert!(answer.stderr.contains("asked the daemon at unix:"), "{}", answer.stderr);
        told.push(answer.json());
        let text = scene.home.run(question).await.expect(0).stdout;
        assert!(!text.trim().is_empty(), "{question:?}");
    }
    let status = scene.ask(&["status"]).await;
    assert_eq!(status["daemon"]["pid"], daemon.id());
    let audit = &told[4]["entries"][0];
    assert_eq!((&audit["tag"], &audit["run"]), (&"v1".into(), &"run-1".into()));
    assert_eq!(audit["digest"], image.digest().to_string());
    assert!(audit["previous_digest"].is_null());

    daemon.signal("TERM");
    daemon.finish().await.expect(0);
    let before = std::fs::read(scene.home.state()).expect("the state");
    for (question, told) in QUESTIONS.iter().zip(&told) {
        let all: Vec<&str> = question.iter().copied().chain(["-o", "json"]).collect();
        let answer = scene.home.run(&all).await.expect(0);
        let state = scene.home.state().display().to_string();
        assert!(
            answer.stderr.contains("no daemon runs; read from the state") && answer.stderr.contains(&state),
            "{}",
            answer.stderr
        );
        assert_eq!(answer.json(), *told, "{question:?}");
    }
    let status = scene.ask(&["status"]).await;
    assert!(status["daemon"].is_null());
    let rules: Vec<(&str, &str)> = status["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .map(|rule| {
            (
                rule["rule"].as_str().unwrap_or(""),
                rule["last"]["outcome"].as_str().unwrap_or(""),
            )
        })
        .collect();
    assert_eq!(rules, [("broken", "failed"), ("web", "ok")]);
    assert_eq!(
        std::fs::read(scene.home.state()).expect("the state"),
        before,
        "reading changed the state"
    );
    let unknown = scene.home.run(&["runs", "run-99"]).await.expect(2).stderr;
    assert!(unknown.contains("there is no run-99"), "{unknown}");
}

#[tokio::test]
async fn a_daemon_that_was_named_must_answer() {
    let scene = Scene::new().await;
    scene.seed("v1", 1);
    scene.home.run(&["sync", "web"]).await.expect(0);
    for server in ["unix:/nonexistent/api.sock", "http://127.0.0.1:1"] {
        let refused = scene.home.run(&["status", "--server", server]).await.expect(2).stderr;
        assert!(refused.contains("no daemon answers at"), "{refused}");
    }
    scene.home.run(&["status", "--server", "nonsense"]).await.expect(2);
    // A server that is no daemon.
    let other = scene
        .home
        .run(&["status", "--server", &scene.source.url()])
        .await
        .expect(2)
        .stderr;
    assert!(other.contains("is it transship?"), "{other}");
    scene.home.run(&["status"]).await.expect(0);
}
