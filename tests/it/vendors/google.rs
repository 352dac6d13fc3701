//! Google: its logins, what its lists say beside names, and how its repositories are made.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use transship::demo::registry::{Options, Registry, Running};
use transship::oci::Digest;

use crate::support::command::{Output, Transship};
use crate::support::ends::images;
use crate::support::engine::{Workshop, by_hand, only_failure, scheduled};
use crate::support::fake::google::{Google, HOST, TOKEN};
use crate::support::fake::{Fake, lock};
use crate::support::images::{image, two_platforms};

fn pulling(fake: &Fake, dst: &Running, repositories: &str) -> Workshop {
    Workshop::new(&format!(
        "version: 1\nregistries:\n{}  dst: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], \
         repositories: [\"{repositories}\"] }}\n",
        fake.rules("src", &Google::keys()),
        dst.url()
    ))
}

#[tokio::test]
async fn google_lists_lead_from_folder_to_folder() {
    let (fake, _google) = Google::start().await;
    let dst = Registry::start(Options::default()).await.expect("a registry");
    fake.seed("project/images/app", "v1", &two_platforms(1, &[20]));
    fake.seed("project/images/app/cache", "v1", &image(2, "amd64", &[20]));
    fake.seed("project/images/deep/down", "v1", &image(3, "amd64", &[20]));
    fake.seed("project/others/app", "v1", &image(4, "amd64", &[20]));
    let workshop = pulling(&fake, &dst, "project/images/**");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let names: Vec<String> = dst.repositories().iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "project/images/app",
            "project/images/app/cache",
            "project/images/deep/down"
        ]
    );
    fake.forget();
    let report = scheduled(&engine, "r").await;
    assert!(report.failures.is_empty() && report.changes.is_empty(), "{report:?}");
    assert_eq!(fake.count("HEAD", "/manifests/"), 0);
    // The folders `images` and `deep`, and three repositories, each once for the pattern; then those three for their tags.
    assert_eq!(fake.count("GET", "/tags/list"), 8, "{:?}", fake.exchanges());
}

/// Google answers 200 with a page for people where it does not know a path: that is no empty list.
#[tokio::test]
async fn google_pages_for_people_are_no_lists() {
    let (fake, google) = Google::start().await;
    let dst = Registry::start(Options::default()).await.expect("a registry");
    fake.seed("project/images/app", "v1", &image(1, "amd64", &[20]));
    google.page_for_people.store(true, Ordering::SeqCst);
    let workshop = pulling(&fake, &dst, "project/images/app");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert_eq!(only_failure(&report).kind, transship::registry::ErrorKind::Invalid);
    google.page_for_people.store(false, Ordering::SeqCst);
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}

/// Rules that push from a plain registry to the fake at the vendor's own host.
fn home(fake: &Fake, src: &Running, login: &str, repository: &str) -> Transship {
    let at = fake.host();
    Transship::new(&format!(
        "version: 1\nregistries:\n  gar: {{ url: \"http://{HOST}\", resolve: {{ {HOST}: \"{at}\" }}, token_hosts: [\"{at}\"], endpoint: \
         \"{}\", proxy: none{login} }}\n  src: {{ url: \"{}\" }}\nrules:\n  - name: r\n    source: src\n    destinations: [gar]\n    \
         repositories: [\"{repository}\"]\n    retry: {{ attempts: 1 }}\n",
        fake.url(),
        src.url()
    ))
}

async fn sync(home: &Transship, status: i32) -> (Value, Output) {
    let output = home.run(&["sync", "--format", "json"]).await.expect(status);
    for secret in ["ya29.", "PRIVATE KEY", "fake-token"] {
        assert!(
            !output.stderr.contains(secret) && !output.stdout.contains(secret),
            "{}",
            output.stderr
        );
    }
    let mut report = output.json();
    (report["runs"][0].take(), output)
}

async fn source(repository: &str) -> Running {
    let src = Registry::start(Options::default()).await.expect("a registry");
    let (name, tag) = (repository.parse().expect("a name"), "v1".parse().expect("a tag"));
    src.seed(&name, &tag, &image(1, "amd64", &[300]));
    src
}

#[tokio::test]
async fn google_logins_of_every_kind_push() {
    let repository = "project/images/app";
    for kind in [
        "file",
        "environment",
        "written environment",
        "machine",
        "account",
        "password",
    ] {
        let (fake, google) = Google::start().await;
        let src = source(repository).await;
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = folder.path().join("key.json");
        std::fs::write(&file, google.new_key(&fake).to_string()).expect("written");
        let file = file.display().to_string();
        let login = match kind {
            "file" => format!(", google: {{ credentials_file: \"{file}\" }}"),
            "environment" => String::new(),
            "account" => ", google: { service_account: sync@project.iam.gserviceaccount.com }".to_owned(),
            "password" => format!(", username: oauth2accesstoken, password: {TOKEN}"),
            _ => ", google: {}".to_owned(),
        };
        let mut home = home(&fake, &src, &login, repository);
        home.set_env("GCE_METADATA_HOST", &fake.host());
        if ["environment", "written environment", "account", "password"].contains(&kind) {
            home.set_env("GOOGLE_APPLICATION_CREDENTIALS", &file);
        }
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, "copied"), 1, "{kind}: {run:#}");
        let asked = (
            fake.count("POST", "/oauth2/token"),
            fake.count("GET", "/computeMetadata/"),
        );
        let wanted = match kind {
            "machine" | "account" => (0, 1),
            "password" => (0, 0),
            _ => (1, 0),
        };
        assert_eq!(asked, wanted, "{kind}: {:#?}", fake.exchanges());
        fake.finish();
    }
}

#[tokio::test]
async fn google_credentials_that_are_none_are_told_where_they_are_meant() {
    let repository = "project/images/app";
    let (fake, google) = Google::start().await;
    let src = source(repository).await;
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("key.json");
    let (shown, key) = (file.display().to_string(), google.new_key(&fake));
    // Another key is the account's by now.
    google.new_key(&fake);
    std::fs::write(&file, key.to_string()).expect("written");
    let written = format!(", google: {{ credentials_file: \"{shown}\" }}");
    let (_, output) = sync(&home(&fake, &src, &written, repository), 1).await;
    for words in ["Invalid JWT Signature", "check the key of the service account"] {
        assert!(output.stdout.contains(words), "{}", output.stdout);
    }
    // What the environment has may be there for something else: it is told of, and not used.
    let mut elsewhere = home(&fake, &src, "", repository);
    elsewhere.set_env("GOOGLE_APPLICATION_CREDENTIALS", &shown);
    let not_used = async || {
        let (_, output) = sync(&elsewhere, 1).await;
        let told = output
            .stderr
            .matches("GOOGLE_APPLICATION_CREDENTIALS is not used")
            .count();
        assert_eq!(told, 1, "{}", output.stderr);
    };
    not_used().await;
    std::fs::write(&file, r#"{ "type": "gdch_service_account" }"#).expect("written");
    not_used().await;
    let (_, output) = sync(&home(&fake, &src, &written, repository), 1).await;
    assert!(
        output.stdout.contains("gdch_service_account") && output.stdout.contains(&shown),
        "{}",
        output.stdout
    );
    let nobody = ", google: { service_account: nobody }";
    let mut machine = home(&fake, &src, nobody, repository);
    machine.set_env("GCE_METADATA_HOST", &fake.host());
    let (_, output) = sync(&machine, 1).await;
    assert!(output.stdout.contains("google.credentials_file"), "{}", output.stdout);
    fake.finish();
}

#[tokio::test]
async fn google_repositories_are_made_on_the_way_and_a_missing_right_is_told() {
    let repository = "project/new/app";
    for kind in ["file", "json key", "token", "exceptions", "denied"] {
        let (fake, google) = Google::start().await;
        google.denies_creation.store(kind == "denied", Ordering::SeqCst);
        let src = source(repository).await;
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = folder.path().join("key.json");
        let key = google.new_key(&fake).to_string();
        std::fs::write(&file, &key).expect("written");
        let login = match kind {
            "file" => format!(", google: {{ credentials_file: \"{}\" }}", file.display()),
            "json key" => ", username: _json_key, password: \"${GAR_KEY}\"".to_owned(),
            _ => format!(", username: oauth2accesstoken, password: {TOKEN}"),
        };
        // It knows no exceptions: what would fix their tags, too, is not asked for.
        let (exceptions, docker) = match kind {
            "exceptions" => (", tag_mutability_exceptions: [latest]", json!({})),
            _ => ("", json!({ "immutableTags": true })),
        };
        let create =
            format!(", create_repositories: {{ tag_mutability: immutable{exceptions}, tags: {{ team: web }} }}");
        let mut home = home(&fake, &src, &format!("{login}{create}"), repository);
        home.set_env("GAR_KEY", &key);
        if kind == "denied" {
            let (_, output) = sync(&home, 1).await;
            let words = "artifactregistry.repositories.create";
            assert!(output.stdout.contains(words), "{}", output.stdout);
            continue;
        }
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, "copied"), 1, "{kind}: {run:#}");
        let wanted = json!({
            "format": "DOCKER", "dockerConfig": docker, "labels": { "team": "web" },
        });
        assert_eq!(lock(&google.made).get("project/new"), Some(&wanted), "{kind}");
        // It is asked for until it is there.
        assert_eq!(fake.count("GET", "/operations/op-1"), 1, "{kind}");
        fake.finish();
    }
}

#[tokio::test]
async fn google_tokens_are_renewed_once_under_32_uploads_before_and_after_their_end() {
    let (fake, google) = Google::start().await;
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("key.json");
    std::fs::write(&file, google.new_key(&fake).to_string()).expect("written");
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n{}",
        fake.rules(
            "gar",
            &format!("kind: google, google: {{ credentials_file: \"{}\" }}", file.display())
        )
    ));
    let end = Arc::new(workshop.end("gar"));
    let repository = "project/images/app".parse().expect("a name");
    let uploads = async |seed: u8| {
        let all = (0..32_u8).map(|number| {
            let (end, repository) = (Arc::clone(&end), &repository);
            async move {
                let blob = bytes::Bytes::from(vec![seed, number, 7]);
                let digest = Digest::of(&blob);
                let write = end.begin_write(repository).await?;
                end.finish_write(&write, &digest, 0, 3, Box::pin(futures_util::stream::iter([Ok(blob)])))
                    .await
            }
        });
        join_all(all).await
    };
    assert!(uploads(1).await.iter().all(Result::is_ok));
    assert_eq!(fake.count("POST", "/oauth2/token"), 1);
    // Four fifths of its hour are over: nobody waits for a refusal.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2_900)).await;
    tokio::time::resume();
    let done = uploads(2).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!(fake.count("POST", "/oauth2/token"), 2);
    // Both tokens end: the registry's own, and the access token that it was given for.
    google.end_tokens();
    fake.end_logins_before(http::Method::POST, "/blobs/uploads/", 3);
    let done = uploads(3).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert!(fake.logins_ended());
    assert_eq!(fake.count("POST", "/oauth2/token"), 3);
    fake.finish();
}
