//! `ping` says which step failed.

use serde_json::Value;
use transship::demo::images::image;
use transship::demo::registry::{Credentials, Options, Registry};

use super::{registry, rules, seed};
use crate::support::command::Transship;
use crate::support::docker_registry::{DockerConfig, DockerRegistry};

/// `step=ok|failed|-` of a registry, in order.
fn steps(document: &Value, registry: &str) -> Vec<String> {
    let registries = document["registries"].as_array().expect("registries");
    let found = registries
        .iter()
        .find(|found| found["registry"] == registry)
        .expect("the registry");
    let steps = found["steps"].as_array().expect("steps").iter();
    steps
        .map(|step| {
            let ok = match step["ok"].as_bool() {
                Some(true) => "ok",
                Some(false) => "failed",
                None => "-",
            };
            format!("{}={ok}", step["step"].as_str().expect("a name"))
        })
        .collect()
}

#[tokio::test]
async fn each_step_is_tried_and_the_broken_one_named() {
    let (from, to) = (registry().await, registry().await);
    seed(&from, "app/web", "v1", &image(1, "amd64", &[100]));
    let home = Transship::new(&rules(&from.url(), &to.url()));
    let ping = async |registries: &[&str], code: i32| {
        let arguments = [&["ping", "-o", "json"], registries].concat();
        home.run(&arguments).await.expect(code).json()
    };
    let good = ping(&[], 0).await;
    assert_eq!(
        steps(&good, "from"),
        ["address=ok", "tls=-", "login=ok", "list=-", "pull=ok", "push=-"]
    );
    assert_eq!(
        steps(&good, "to"),
        ["address=ok", "tls=-", "login=ok", "list=-", "pull=-", "push=ok"]
    );
    let one = ping(&["to"], 0).await;
    assert_eq!(one["registries"].as_array().map(Vec::len), Some(1));
    home.run(&["ping", "nobody"]).await.expect(2);
    // Nothing stays: the upload that tried the right to push was given up.
    assert!(
        to.log()
            .iter()
            .any(|entry| entry.method == "DELETE" && entry.path.contains("/uploads/"))
    );
    let text = home.run(&["ping"]).await.expect(0).stdout;
    assert!(
        text.contains("address") && text.contains("app/web accepts uploads"),
        "{text}"
    );

    // A catalogue is tried where a rule needs it.
    let globs = rules(&from.url(), &to.url()).replace("app/web", "app/*");
    home.set_rules(&globs);
    assert_eq!(steps(&ping(&["from"], 0).await, "from")[3], "list=ok");

    let locked = Registry::start(Options {
        basic: Some(Credentials {
            username: "a".into(),
            password: "b".into(),
        }),
        ..Options::default()
    });
    let (locked, denied) = (
        locked.await.expect("a registry"),
        Registry::start(Options {
            deny_push: true,
            ..Options::default()
        })
        .await
        .expect("a registry"),
    );
    home.set_rules(&rules(&locked.url(), &denied.url()));
    let bad = ping(&[], 1).await;
    assert_eq!(steps(&bad, "from"), ["address=ok", "tls=-", "login=failed"]);
    assert_eq!(steps(&bad, "to").last().map(String::as_str), Some("push=failed"));
    home.set_rules(&rules("http://127.0.0.1:1", &to.url()));
    let bad = ping(&[], 1).await;
    assert_eq!(steps(&bad, "from"), ["address=failed"]);
    assert_eq!(
        steps(&bad, "to").last().map(String::as_str),
        Some("push=ok"),
        "one stops no other"
    );
    let text = home.run(&["ping"]).await.expect(1).stdout;
    assert!(text.contains("FAILED") && text.contains("127.0.0.1:1"), "{text}");

    let tls = DockerRegistry::start(DockerConfig {
        tls: true,
        ..DockerConfig::default()
    })
    .await;
    home.set_rules(&rules(&tls.url(), &to.url()));
    let bad = ping(&["from"], 1).await;
    assert_eq!(steps(&bad, "from"), ["address=ok", "tls=failed"]);
    let message = bad["registries"][0]["steps"][1]["message"].as_str().expect("words");
    assert!(message.contains("ca_file"), "{message}");
}
