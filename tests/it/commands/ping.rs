//! `ping` says which step failed.

use serde_json::Value;
use transship::demo::images::image;
use transship::demo::registry::{Credentials, Options, Registry};

use super::{registry, rules, seed};
use crate::support::command::Transship;
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::fake::Fake;
use crate::support::fake::alibaba;
use crate::support::fake::google::Google;
use crate::support::fake::harbor::Harbor;
use crate::support::fake::huawei::Huawei;
use crate::support::images as samples;
use crate::support::token_server::TokenServer;
use crate::support::wire::Wire;
use crate::support::{PASSWORD, USERNAME};

/// `step=ok|failed|-` of a registry, in order.
pub(super) fn steps(document: &Value, registry: &str) -> Vec<String> {
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
        [
            "name=ok",
            "address=ok",
            "tls=-",
            "login=ok",
            "kind=ok",
            "clock=ok",
            "list=-",
            "pull=ok",
            "push=-",
            "delete=-"
        ]
    );
    assert_eq!(
        steps(&good, "to"),
        [
            "name=ok",
            "address=ok",
            "tls=-",
            "login=ok",
            "kind=ok",
            "clock=ok",
            "list=-",
            "pull=-",
            "push=ok",
            "delete=-"
        ]
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
    assert_eq!(steps(&ping(&["from"], 0).await, "from")[6], "list=ok");

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
    assert_eq!(steps(&bad, "from"), ["name=ok", "address=ok", "tls=-", "login=failed"]);
    assert_eq!(steps(&bad, "to")[8], "push=failed");
    home.set_rules(&rules("http://127.0.0.1:1", &to.url()));
    let bad = ping(&[], 1).await;
    assert_eq!(steps(&bad, "from"), ["name=ok", "address=failed"]);
    assert_eq!(steps(&bad, "to")[8], "push=ok", "one stops no other");
    let text = home.run(&["ping"]).await.expect(1).stdout;
    assert!(text.contains("FAILED") && text.contains("127.0.0.1:1"), "{text}");

    let tls = DockerRegistry::start(DockerConfig {
        tls: true,
        ..DockerConfig::default()
    })
    .await;
    home.set_rules(&rules(&tls.url(), &to.url()));
    let bad = ping(&["from"], 1).await;
    assert_eq!(steps(&bad, "from"), ["name=ok", "address=ok", "tls=failed"]);
    let message = bad["registries"][0]["steps"][2]["message"].as_str().expect("words");
    assert!(message.contains("ca_file"), "{message}");
}

#[tokio::test]
async fn a_clock_that_is_hours_off_is_told_and_a_fault_where_it_breaks_signatures() {
    const HOURS: i64 = 3 * 3600;
    let clock = async |fake: &Fake, keys: &str, status: i32| {
        let repository = fake.book().registry.repositories().first().cloned();
        let rules = repository.map_or("[]".to_owned(), |repository| {
            format!("[{{ name: r, source: src, destinations: [dst], repositories: [{repository}] }}]")
        });
        let home = Transship::new(&format!(
            "version: 1\nregistries:\n{}  dst: {{ url: \"http://127.0.0.1:1\" }}\nrules: {rules}\n",
            fake.rules("src", keys)
        ));
        let document = home.run(&["ping", "src", "-o", "json"]).await.expect(status).json();
        let found = &document["registries"][0];
        let skew = found["clock_skew_seconds"].as_i64().expect("seconds");
        let steps = found["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["step"] == "clock").expect("the step");
        let message = step["message"].as_str().expect("words").to_owned();
        (skew, step["ok"].as_bool(), message)
    };
    let (fake, _harbor) = Harbor::start(&["team"]).await;
    for (ahead, way) in [(HOURS, "ahead of ours"), (-HOURS, "behind ours")] {
        fake.set_clock_ahead(ahead);
        let (skew, ok, message) = clock(&fake, &Harbor::keys(), 0).await;
        // An answer takes a moment, and its date has whole seconds.
        assert!((skew - ahead).abs() < 60, "{skew}");
        assert_eq!(ok, Some(true), "{message}");
        assert!(message.contains(way) && message.contains("tokens"), "{message}");
    }
    fake.set_clock_ahead(0);
    assert_eq!(clock(&fake, &Harbor::keys(), 0).await.2, "agrees with ours");

    let (fake, cloud) = alibaba::personal().await;
    cloud.signatures.take_any_date();
    fake.set_clock_ahead(HOURS);
    let (_, ok, message) = clock(&fake, &alibaba::keys(&fake, "alibaba_personal"), 1).await;
    assert_eq!(ok, Some(false), "{message}");
    assert!(message.contains("set this machine's clock"), "{message}");
    // By user and password nothing is signed, whatever the kind.
    let (fake, _cloud) = alibaba::personal().await;
    fake.set_clock_ahead(HOURS);
    let keys = "kind: alibaba_personal, username: cr_temp_user, password: temporary-0";
    let (_, ok, message) = clock(&fake, keys, 0).await;
    assert_eq!(ok, Some(true), "{message}");
    assert!(message.contains("tokens"), "{message}");

    // Its logins are made of the key without the time, and its lists are signed.
    let (fake, _huawei) = Huawei::start(&["team"]).await;
    fake.seed("team/app", "v1", &image(1, "amd64", &[20]));
    for (ahead, keys, broken) in [
        (HOURS, Huawei::keys(&fake), true),
        (10 * 60, Huawei::keys(&fake), false),
        (HOURS, Huawei::keys_of_user(), false),
    ] {
        fake.set_clock_ahead(ahead);
        let (_, ok, message) = clock(&fake, &keys, i32::from(broken)).await;
        assert_eq!(ok, Some(!broken), "{keys}: {message}");
    }

    let (fake, google) = Google::start().await;
    fake.seed("project/images/app", "v1", &image(1, "amd64", &[20]));
    let key = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(key.path(), google.new_key(&fake).to_string()).expect("written");
    fake.set_clock_ahead(HOURS);
    let of_key = format!("kind: google, google: {{ credentials_file: {} }}", key.path().display());
    for (keys, broken) in [(of_key, true), (Google::keys(), false)] {
        let (_, ok, message) = clock(&fake, &keys, i32::from(broken)).await;
        assert_eq!(ok, Some(!broken), "{message}");
    }
}

/// A real registry by TLS, and one whose token server grants everything to the account, and nothing but pulls to others.
#[tokio::test]
async fn who_we_are_what_it_is_and_what_we_may_do() {
    let realm = TokenServer::start(true).await;
    let by_tls = DockerConfig {
        tls: true,
        ..DockerConfig::default()
    };
    let by_token = DockerConfig {
        token: Some(realm.docker_auth()),
        ..DockerConfig::default()
    };
    let (from, to) = tokio::join!(DockerRegistry::start(by_tls), DockerRegistry::start(by_token));
    let wire = Wire::with_tls(&from.url(), &from.authority().ca_pem);
    wire.push("app/web", "v1", &samples::image(1, "amd64", &[100])).await;
    let auth = realm.docker_auth();
    let realm_host = auth.realm.split('/').nth(2).expect("a host").to_owned();
    let rules = |login: &str| {
        let ca = from.authority().ca_file.display();
        format!(
            "version: 1\nregistries:\n  from: {{ url: \"{}\", tls: {{ ca_file: \"{ca}\" }} }}\n  to: {{ url: \"{}\", token_hosts: [\"{realm_host}\"]{login} }}\n\
             rules:\n  - name: web\n    source: from\n    destinations: [to]\n    repositories: [app/web, app/none]\n",
            from.url(),
            to.url()
        )
    };
    let home = Transship::new(&rules(&format!(", username: {USERNAME}, password: \"{PASSWORD}\"")));
    // One of its repositories is not there.
    home.run(&["sync"]).await.expect(1);
    let before = walk(&to.storage());
    let document = home.run(&["ping", "-o", "json"]).await.expect(0).json();
    assert_eq!(walk(&to.storage()), before, "nothing stays behind");
    let found = &document["registries"][0];
    assert_eq!(
        steps(&document, "from"),
        [
            "name=ok",
            "address=ok",
            "tls=ok",
            "login=ok",
            "kind=ok",
            "clock=ok",
            "list=-",
            "pull=ok",
            "push=-",
            "delete=-"
        ]
    );
    assert_eq!(found["addresses"], serde_json::json!(["127.0.0.1"]));
    assert_eq!(found["certificate"]["issuer"], "transship test CA");
    assert!(
        found["certificate"]["days_left"].as_i64().expect("days") > 365,
        "{found:#}"
    );
    assert_eq!((&found["user"], &found["kind"]), (&Value::Null, &"distribution".into()));
    assert!(
        found["clock_skew_seconds"].as_i64().expect("seconds").abs() <= 2,
        "{found:#}"
    );
    let pull = &found["steps"][7];
    assert_eq!(pull["repositories"][0]["message"], "app/none does not exist");
    assert_eq!(pull["repositories"][1]["message"], "1 tags in app/web");

    let found = &document["registries"][1];
    assert_eq!(
        steps(&document, "to"),
        [
            "name=ok",
            "address=ok",
            "tls=-",
            "login=ok",
            "kind=ok",
            "clock=ok",
            "list=-",
            "pull=-",
            "push=ok",
            "delete=ok"
        ]
    );
    assert_eq!(
        (&found["user"], &found["certificate"]),
        (&USERNAME.into(), &Value::Null)
    );
    let learnt = found["capabilities"].as_array().expect("what the copy showed");
    assert!(!learnt.is_empty(), "{found:#}");
    assert_eq!(
        found["steps"][8]["repositories"].as_array().map(Vec::len),
        Some(2),
        "every one that a rule names"
    );
    let asked = realm.requests();
    assert!(
        asked
            .iter()
            .any(|request| request.scopes.iter().any(|scope| scope.contains("delete"))),
        "{asked:?}"
    );

    // Nobody may push, and the rights to delete are not granted: that alone is no fault.
    home.set_rules(&rules(""));
    let document = home.run(&["ping", "to", "-o", "json"]).await.expect(1).json();
    let steps = steps(&document, "to");
    assert_eq!(steps[3..6], ["login=ok", "kind=ok", "clock=ok"]);
    assert_eq!(steps[8..], ["push=failed", "delete=-"]);
    let text = home.run(&["ping"]).await.expect(1).stdout;
    for words in [
        "by transship test CA, good for",
        "anonymous",
        "distribution",
        "not granted on app/",
        "known: ",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// The files below a folder.
pub(super) fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else if !path.to_string_lossy().contains("/hashstates/") {
            // distribution 2.8 keeps the empty hash state of an upload that was given up.
            found.push(path);
        }
    }
    found
}
