//! Logging in at registries, and that credentials stay where they belong.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::json;

use crate::support::command::{Output, Transship};
use crate::support::compare::{Reader, Side, assert_same_images};
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::ends::{images, sync};
use crate::support::images::{self as samples, image};
use crate::support::origin::Origin;
use crate::support::proxy::{Act, Fault, Proxy};
use crate::support::token_server::TokenServer;
use crate::support::wire::Wire;
use crate::support::{PASSWORD, USERNAME};

const TAGS: [&str; 4] = ["v1", "v2", "v3", "v4"];

async fn push_tags(wire: &Wire) {
    for (seed, tag) in (1..).zip(TAGS) {
        wire.push("team/app", tag, &image(seed, "amd64", &[1000, 50])).await;
    }
}

/// One rule between registries with these keys.
fn rules(src: &str, dst: &str) -> String {
    format!(
        "version: 1\nregistries:\n  src: {{ {src} }}\n  dst: {{ {dst} }}\n\
         rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: [\"team/*\"]\n    \
         retry: {{ attempts: 2, max_delay: 1s }}\n"
    )
}

/// A home with these rules, and the password in the environment.
fn home(src: &str, dst: &str) -> Transship {
    let mut home = Transship::new(&rules(src, dst));
    home.set_env("TEST_PASSWORD", PASSWORD);
    home
}

fn url(url: &str) -> String {
    format!("url: \"{url}\"")
}

fn account(address: &str) -> String {
    format!(
        "{}, username: {USERNAME}, password: \"${{TEST_PASSWORD}}\"",
        url(address)
    )
}

fn htpasswd() -> DockerConfig {
    DockerConfig {
        htpasswd: true,
        ..DockerConfig::default()
    }
}

/// Fails where the password, alone or as in a header, is in anything that the program left.
fn assert_kept_secret(home: &Transship, outputs: &[&Output]) {
    let pair = STANDARD.encode(format!("{USERNAME}:{PASSWORD}"));
    let secrets = [PASSWORD, &pair];
    let holds = |bytes: &[u8], secret: &str| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
    for output in outputs {
        for secret in secrets {
            assert!(!output.stdout.contains(secret), "{}", output.stdout);
            assert!(!output.stderr.contains(secret), "{}", output.stderr);
        }
    }
    let mut databases = 0;
    for entry in std::fs::read_dir(home.home()).expect("a home") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("transship.db") || !path.is_file() {
            continue;
        }
        databases += 1;
        let bytes = std::fs::read(&path).expect("readable");
        for secret in secrets {
            assert!(!holds(&bytes, secret), "{} holds a secret", path.display());
        }
    }
    assert!(databases > 0, "there is a state");
}

#[tokio::test]
async fn a_password_over_tls_by_an_authority_of_its_own() {
    let config = DockerConfig {
        tls: true,
        ..htpasswd()
    };
    let (src, dst) = tokio::join!(DockerRegistry::start(config), DockerRegistry::plain());
    let wire = Wire::with_tls(&src.url(), &src.authority().ca_pem);
    push_tags(&wire).await;
    let trusting = format!(
        "{}, tls: {{ ca_file: \"{}\" }}",
        account(&src.url()),
        src.authority().ca_file.display()
    );

    // Not trusted: nothing is sent, and the message says what to do.
    let home = home(&account(&src.url()), &url(&dst.url()));
    let (run, strange) = sync(&home, 1).await;
    assert_eq!(run["outcome"], "failed", "{run:#}");
    let failure = &run["failures"][0];
    assert_eq!(failure["kind"], "tls", "{run:#}");
    let message = failure["message"].as_str().expect("a message");
    assert!(message.contains("ca_file") && message.contains(src.host()), "{message}");

    home.set_rules(&rules(&trusting, &url(&dst.url())));
    let (run, output) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), TAGS.len() as u64, "{run:#}");
    assert_kept_secret(&home, &[&strange, &output]);
    let there = Wire::new(&dst.url());
    for (seed, tag) in (1..).zip(TAGS) {
        let expected = image(seed, "amd64", &[1000, 50]).digest();
        assert_eq!(there.resolve("team/app", tag).await, Some(expected));
    }
    let side = Side::new(dst.host(), "team/app");
    assert_same_images(&side, &side, &TAGS, Reader::OciClient).await;
}

#[tokio::test]
async fn tokens_of_sixty_seconds_serve_many_requests() {
    let (tokens, plain) = tokio::join!(TokenServer::start(false), DockerRegistry::plain());
    let dst = DockerRegistry::start(DockerConfig {
        token: Some(tokens.docker_auth()),
        ..DockerConfig::default()
    })
    .await;
    let proxy = Proxy::start(&dst.url()).await;
    push_tags(&Wire::new(&plain.url())).await;
    let realm = tokens.docker_auth().realm;
    let token_host = realm.split('/').nth(2).expect("a host");

    // The token server is another host: credentials go there only where the rules say so.
    let home = home(&url(&plain.url()), &account(&proxy.url()));
    let (run, strange) = sync(&home, 1).await;
    assert_eq!(run["failures"][0]["kind"], "config", "{run:#}");
    let message = run["failures"][0]["message"].as_str().expect("a message");
    assert!(
        message.contains("token_hosts") && message.contains(token_host),
        "{message}"
    );
    assert_eq!(tokens.requests(), []);

    let dst_keys = format!("{}, token_hosts: [\"{token_host}\"]", account(&proxy.url()));
    home.set_rules(&rules(&url(&plain.url()), &dst_keys));
    proxy.reset();
    let (run, output) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), TAGS.len() as u64, "{run:#}");
    let asked = tokens.requests();
    assert!(!asked.is_empty());
    assert!(
        asked.iter().all(|request| request.user.as_deref() == Some(USERNAME)),
        "{asked:?}"
    );
    assert!(asked.iter().all(|request| request.status == 200), "{asked:?}");
    // One for pulls and one for pushes, plus one where several requests began before the first answer.
    let requests = proxy.exchanges().len();
    assert!(
        asked.len() <= 3 && requests >= 10 * asked.len(),
        "{requests} requests: {asked:?}"
    );
    let refused = proxy.exchanges();
    let refused = refused
        .iter()
        .filter(|one| one.status == Some(StatusCode::UNAUTHORIZED));
    assert!(refused.count() <= 3);
    let (src, dst) = (Side::new(plain.host(), "team/app"), Side::new(dst.host(), "team/app"));
    assert_same_images(&src, &dst.with_account(), &TAGS, Reader::OciClient).await;
    assert_kept_secret(&home, &[&strange, &output]);
}

#[tokio::test]
async fn blobs_from_another_origin_are_read_without_credentials() {
    let storage = tempfile::TempDir::new().expect("a temporary directory");
    let origin = Origin::start(storage.path().to_owned()).await;
    let src = DockerRegistry::start(DockerConfig {
        storage: Some(storage.path().to_owned()),
        redirect: Some(origin.url()),
        ..htpasswd()
    })
    .await;
    let dst = DockerRegistry::start(htpasswd()).await;
    push_tags(&Wire::with_account(&src.url())).await;
    let home = home(&account(&src.url()), &account(&dst.url()));
    let before = origin.paths().len();
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), TAGS.len() as u64, "{run:#}");
    // Config and two layers of each image came from there; that none bore credentials, it says itself.
    assert!(origin.paths().len() - before >= 3 * TAGS.len());
    assert_eq!(origin.credentials_seen(), Vec::<String>::new());
    let there = Wire::with_account(&dst.url());
    for (seed, tag) in (1..).zip(TAGS) {
        let expected = image(seed, "amd64", &[1000, 50]).digest();
        assert_eq!(there.resolve("team/app", tag).await, Some(expected));
    }
    let side = Side::new(dst.host(), "team/app").with_account();
    assert_same_images(&side, &side, &TAGS, Reader::OciClient).await;
}

#[tokio::test]
async fn what_docker_login_stored_is_used() {
    let (src, dst) = tokio::join!(DockerRegistry::start(htpasswd()), DockerRegistry::start(htpasswd()));
    push_tags(&Wire::with_account(&src.url())).await;
    let mut home = home(&url(&src.url()), &url(&dst.url()));
    let (run, without) = sync(&home, 1).await;
    assert_eq!(run["failures"][0]["kind"], "unauthorized", "{run:#}");

    // The source's account stands in config.json, the destination's is with a helper.
    let encoded = STANDARD.encode(format!("{USERNAME}:{PASSWORD}"));
    let mut auths = serde_json::Map::new();
    auths.insert(src.host().to_owned(), json!({ "auth": encoded }));
    let mut helpers = serde_json::Map::new();
    helpers.insert(dst.host().to_owned(), json!("vault"));
    let config = json!({ "auths": auths, "credHelpers": helpers });
    std::fs::write(home.home().join("config.json"), config.to_string()).expect("a file");
    let folder = home.home().join("bin");
    helper(&folder, dst.host());
    let path = std::env::var("PATH").expect("a path");
    home.set_env("PATH", &format!("{}:{path}", folder.display()));
    let (run, output) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), TAGS.len() as u64, "{run:#}");
    let asked = std::fs::read_to_string(folder.join("asked")).expect("the helper ran");
    assert!(
        asked.lines().all(|line| line == format!("get {}", dst.host())),
        "{asked}"
    );
    assert!(asked.lines().count() <= 2, "asked again and again: {asked}");
    assert_kept_secret(&home, &[&without, &output]);
    let (src, dst) = (Side::new(src.host(), "team/app"), Side::new(dst.host(), "team/app"));
    assert_same_images(&src.with_account(), &dst.with_account(), &TAGS, Reader::OciClient).await;
}

/// `docker-credential-vault`, which knows one host and notes what it is asked.
fn helper(folder: &Path, host: &str) {
    std::fs::create_dir(folder).expect("a folder");
    let file = folder.join("docker-credential-vault");
    let asked = folder.join("asked");
    let script = format!(
        "#!/bin/sh\nread -r host\necho \"$1 $host\" >> '{}'\n[ \"$host\" = '{host}' ] || {{ echo 'credentials not \
         found in native keychain'; exit 1; }}\n\
         echo '{{\"ServerURL\":\"{host}\",\"Username\":\"{USERNAME}\",\"Secret\":\"{PASSWORD}\"}}'\n",
        asked.display(),
    );
    std::fs::write(&file, script).expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("our file");
}

#[tokio::test]
async fn credentials_appear_nowhere_even_where_everything_is_told() {
    let (src, dst) = tokio::join!(DockerRegistry::start(htpasswd()), DockerRegistry::start(htpasswd()));
    let wire = Wire::with_account(&src.url());
    push_tags(&wire).await;
    wire.push("team/app", "helm", &samples::helm_chart(9)).await;
    let proxy = Proxy::start(&dst.url()).await;
    // Some of it fails, so that errors are told too.
    proxy.add(Fault::every(
        "PUT",
        "/manifests/v2",
        Act::Answer(StatusCode::FORBIDDEN, None),
    ));
    proxy.add(Fault::every("PUT", "/manifests/v3", Act::DropReply));
    let home = home(&account(&src.url()), &account(&proxy.url()));
    let mut outputs = Vec::new();
    for arguments in [
        vec!["-vv", "check"],
        vec!["-vv", "ping"],
        vec!["-vv", "plan", "--format", "json"],
        vec!["-vv", "--log-format", "json", "sync", "--format", "json"],
        vec!["-vv", "verify"],
        vec!["-vv", "jobs"],
        vec!["-vv", "runs", "run-1"],
        vec!["-vv", "audit"],
        vec!["-vv", "status"],
    ] {
        outputs.push(home.run(&arguments).await);
    }
    let said: usize = outputs.iter().map(|output| output.stderr.len()).sum();
    assert!(said > 1000, "something was told");
    assert_eq!(outputs[3].status.code(), Some(1), "{}", outputs[3].stderr);
    let all: Vec<&Output> = outputs.iter().collect();
    assert_kept_secret(&home, &all);
}
