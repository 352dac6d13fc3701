//! Content that is not what it says, and answers that break the protocol.

use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;
use transship::demo::registry::{Credentials, Options, Registry, Running};
use transship::oci::{Digest, RepositoryName, Tag};

use super::front::Front;
use super::table::{Row, arrived, fails, rules, succeeds};
use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{self, SampleImage, image};
use crate::support::origin::Origin;
use crate::support::proxy::{Act, Fault, Proxy};
use crate::support::wire::Wire;
use crate::support::{PASSWORD, USERNAME};

/// Two repositories from `src` to `dst`.
pub(super) fn home(source: &str, destination: &str) -> Transship {
    Transship::new(&rules(
        &[
            &format!("src: {{ url: \"{source}\" }}"),
            &format!("dst: {{ url: \"{destination}\" }}"),
        ],
        &[("both", "src", "dst", "bad, good")],
    ))
}

/// `bad:v1` and `good:v1`.
async fn pushed(registry: &DockerRegistry) -> SampleImage {
    let wire = Wire::new(&registry.url());
    let bad = image(1, "amd64", &[4000]);
    wire.push("bad", "v1", &bad).await;
    wire.push("good", "v1", &image(2, "amd64", &[3000])).await;
    bad
}

/// Where `docker-registry` keeps a blob.
fn file(registry: &DockerRegistry, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    let blobs = registry.storage().join("docker/registry/v2/blobs/sha256");
    blobs.join(&hex[..2]).join(hex).join("data")
}

pub(super) async fn memory() -> Running {
    Registry::start(Options::default()).await.expect("a registry")
}

pub(super) fn seed(registry: &Running, repository: &str, image: &SampleImage) {
    let name: RepositoryName = repository.parse().expect("a name");
    let tag: Tag = "v1".parse().expect("a tag");
    registry.seed(&name, &tag, image);
}

/// `bad:v1` and `good:v1` in memory.
async fn seeded() -> Running {
    let registry = memory().await;
    seed(&registry, "bad", &image(1, "amd64", &[4000]));
    seed(&registry, "good", &image(2, "amd64", &[3000]));
    registry
}

#[tokio::test]
async fn a_blob_whose_bytes_do_not_match_its_digest() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let layer = pushed(&source).await.blobs[1].clone();
    let digest = Digest::of(&layer);
    let mut spoilt = layer.to_vec();
    spoilt[1234] ^= 1;
    std::fs::write(file(&source, &digest), spoilt).expect("a file");
    let home = home(&source.url(), &destination.url());
    let row = Row {
        source: "src/bad:v1",
        destination: Some("dst/bad:v1"),
        kind: "corrupt",
        status: None,
        says: &[
            "src/bad",
            &digest.to_string(),
            "the source holds a damaged blob",
            "push it again there",
        ],
    };
    fails(&home, row).await;
    arrived(source.host(), destination.host(), "good").await;
    let wire = Wire::new(&destination.url());
    assert_eq!(wire.resolve("bad", "v1").await, None, "no tag before its content");

    std::fs::write(file(&source, &digest), &layer).expect("a file");
    succeeds(&home).await;
    arrived(source.host(), destination.host(), "bad").await;
}

#[tokio::test]
async fn a_blob_that_is_shorter_than_it_should_be() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let layer = pushed(&source).await.blobs[1].clone();
    let digest = Digest::of(&layer);
    let mut source = source;
    source.kill();
    std::fs::write(file(&source, &digest), &layer[..100]).expect("a file");
    source.restart().await;
    let home = home(&source.url(), &destination.url());
    let row = Row {
        source: "src/bad:v1",
        destination: Some("dst/bad:v1"),
        kind: "corrupt",
        status: None,
        says: &["src/bad", &digest.to_string(), "push"],
    };
    fails(&home, row).await;
    arrived(source.host(), destination.host(), "good").await;

    source.kill();
    std::fs::write(file(&source, &digest), &layer).expect("a file");
    source.restart().await;
    succeeds(&home).await;
    arrived(source.host(), destination.host(), "bad").await;
}

#[tokio::test]
async fn a_manifest_that_refers_to_a_missing_blob() {
    let (mut source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let bad = pushed(&source).await;
    let digest = Digest::of(&bad.blobs[1]);
    source.kill();
    std::fs::remove_file(file(&source, &digest)).expect("the blob's file");
    source.restart().await;
    let home = home(&source.url(), &destination.url());
    let row = Row {
        source: "src/bad:v1",
        destination: Some("dst/bad:v1"),
        kind: "not_found",
        status: Some(404),
        says: &["src/bad", &digest.to_string(), "push the image again"],
    };
    fails(&home, row).await;
    arrived(source.host(), destination.host(), "good").await;

    let wire = Wire::new(&source.url());
    wire.push("bad", "v1", &bad).await;
    succeeds(&home).await;
    arrived(source.host(), destination.host(), "bad").await;
}

#[tokio::test]
async fn an_index_that_refers_to_a_missing_child() {
    let (source, destination) = (memory().await, DockerRegistry::plain().await);
    let mut bad = images::two_platforms(1, &[500]);
    let whole = bad.clone();
    let lost = bad.children.remove(1).digest();
    seed(&source, "bad", &bad);
    seed(&source, "good", &image(2, "amd64", &[3000]));
    let home = home(&source.url(), &destination.url());
    let row = Row {
        source: "src/bad:v1",
        destination: Some("dst/bad:v1"),
        kind: "not_found",
        status: None,
        says: &["src/bad", &lost.to_string(), "push the image again"],
    };
    fails(&home, row).await;
    arrived(&source.addr().to_string(), destination.host(), "good").await;
    seed(&source, "bad", &whole);
    succeeds(&home).await;
    arrived(&source.addr().to_string(), destination.host(), "bad").await;
}

#[tokio::test]
async fn a_digest_header_that_does_not_fit_the_manifest() {
    let (source, destination) = (seeded().await, DockerRegistry::plain().await);
    let other = Digest::of(b"something else").to_string();
    let front = Front::start(&source.url(), move |_, path, answer| {
        if path.contains("/bad/manifests/") {
            let other = HeaderValue::from_str(&other).expect("a header value");
            answer.headers_mut().insert("docker-content-digest", other);
        }
    })
    .await;
    let home = home(&front.url(), &destination.url());
    let row = Row {
        source: "src/bad:v1",
        destination: Some("dst/bad:v1"),
        kind: "corrupt",
        status: None,
        says: &[
            "src/bad:v1",
            &Digest::of(b"something else").to_string(),
            "digest",
            "proxy",
        ],
    };
    fails(&home, row).await;
    arrived(&source.addr().to_string(), destination.host(), "good").await;
    front.mend();
    succeeds(&home).await;
    arrived(&source.addr().to_string(), destination.host(), "bad").await;
}

#[tokio::test]
async fn a_web_page_instead_of_a_list() {
    let (source, destination) = (seeded().await, DockerRegistry::plain().await);
    let front = Front::start(&source.url(), |_, path, answer| {
        if path.contains("/bad/") {
            *answer.status_mut() = StatusCode::OK;
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, html);
            *answer.body_mut() = Bytes::from_static(b"<html><h1>Please log in</h1>");
        }
    })
    .await;
    let home = home(&front.url(), &destination.url());
    let row = Row {
        source: "src/bad",
        destination: None,
        kind: "invalid",
        status: None,
        says: &["src/bad", "the answer is a web page", "check the url of the registry"],
    };
    fails(&home, row).await;
    arrived(&source.addr().to_string(), destination.host(), "good").await;
    front.mend();
    succeeds(&home).await;
    arrived(&source.addr().to_string(), destination.host(), "bad").await;
}

#[tokio::test]
async fn a_web_page_instead_of_a_manifest() {
    let (source, destination) = (seeded().await, DockerRegistry::plain().await);
    let front = Front::start(&source.url(), |_, path, answer| {
        if path.contains("/bad/manifests/") {
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, html);
            answer.headers_mut().remove("docker-content-digest");
            *answer.body_mut() = Bytes::from_static(b"<html><h1>Please log in</h1>");
        }
    })
    .await;
    let home = home(&front.url(), &destination.url());
    let row = Row {
        source: "src/bad:v1",
        destination: Some("dst/bad:v1"),
        kind: "invalid",
        status: None,
        says: &[
            "src/bad:v1",
            "the answer is a web page",
            "check the url of the registry",
        ],
    };
    fails(&home, row).await;
    arrived(&source.addr().to_string(), destination.host(), "good").await;
    front.mend();
    succeeds(&home).await;
    arrived(&source.addr().to_string(), destination.host(), "bad").await;
}

#[tokio::test]
async fn pages_of_tags_that_never_end() {
    let (source, destination) = (seeded().await, DockerRegistry::plain().await);
    let front = Front::start(&source.url(), |_, path, answer| {
        if path.ends_with("/bad/tags/list") {
            let link = HeaderValue::from_static("</v2/bad/tags/list?n=1&last=v1>; rel=\"next\"");
            answer.headers_mut().insert(header::LINK, link);
        }
    })
    .await;
    let home = home(&front.url(), &destination.url());
    let row = Row {
        source: "src/bad",
        destination: None,
        kind: "invalid",
        status: None,
        says: &["src/bad", "the pages go in a circle", "proxy"],
    };
    fails(&home, row).await;
    arrived(&source.addr().to_string(), destination.host(), "good").await;
    front.mend();
    succeeds(&home).await;
    arrived(&source.addr().to_string(), destination.host(), "bad").await;
}

#[tokio::test]
async fn a_link_to_pages_of_another_host_sees_no_credentials() {
    let nowhere = tempfile::TempDir::new().expect("a temporary directory");
    let other = Origin::start(nowhere.path().to_owned()).await;
    let account = Some(Credentials {
        username: USERNAME.to_owned(),
        password: PASSWORD.to_owned(),
    });
    let source = Registry::start(Options {
        basic: account,
        ..Options::default()
    })
    .await
    .expect("a registry");
    seed(&source, "bad", &image(1, "amd64", &[4000]));
    seed(&source, "good", &image(2, "amd64", &[3000]));
    let link = format!("<{}/v2/bad/tags/list?last=v1>; rel=\"next\"", other.url());
    let front = Front::start(&source.url(), move |_, path, answer| {
        if path.ends_with("/bad/tags/list") {
            let link = HeaderValue::from_str(&link).expect("a header value");
            answer.headers_mut().insert(header::LINK, link);
        }
    })
    .await;
    let destination = DockerRegistry::plain().await;
    let home = Transship::new(&rules(
        &[
            &format!(
                "src: {{ url: \"{}\", username: {USERNAME}, password: {PASSWORD} }}",
                front.url()
            ),
            &format!("dst: {{ url: \"{}\" }}", destination.url()),
        ],
        &[("both", "src", "dst", "bad, good")],
    ));
    let report = home.run(&["sync", "--format", "json"]).await.expect(1).json();
    let failures = super::table::failures(&report);
    assert_eq!(failures.len(), 1, "{failures:#?}");
    assert_eq!(failures[0]["source"], "src/bad");
    super::table::assert_readable(failures[0]["message"].as_str().expect("a message"));
    let there = Wire::new(&destination.url());
    assert!(there.resolve("good", "v1").await.is_some());
    assert_eq!(there.resolve("bad", "v1").await, None, "a list cut short is no list");
    assert!(other.credentials_seen().is_empty());
    front.mend();
    succeeds(&home).await;
    assert!(there.resolve("bad", "v1").await.is_some());
}

#[tokio::test]
async fn hostile_names_in_a_list_are_left_out() {
    let (source, destination) = (seeded().await, memory().await);
    let front = Front::start(&source.url(), |_, path, answer| {
        if path.ends_with("/bad/tags/list") {
            let tags = [
                "../../x",
                "v1",
                "v1/../../../etc/passwd",
                "",
                "a\u{0}b",
                "%2e%2e",
                "v1?n=1",
                "v1#x",
                "sha256:00",
            ];
            *answer.body_mut() = Bytes::from(json!({ "name": "bad", "tags": tags }).to_string());
        }
        if path.ends_with("/_catalog") {
            let names = ["../up", "bad", "good", "UPPER", "a//b", "/etc", "a/../b", "x?y", "x#y"];
            *answer.body_mut() = Bytes::from(json!({ "repositories": names }).to_string());
        }
    })
    .await;
    let home = Transship::new(&rules(
        &[
            &format!("src: {{ url: \"{}\" }}", front.url()),
            &format!("dst: {{ url: \"{}\" }}", destination.url()),
        ],
        &[("all", "src", "dst", "\"**\"")],
    ));
    let report = succeeds(&home).await;
    assert_eq!(
        report["runs"][0]["destinations"][0]["images"]["copied"], 2,
        "{report:#}"
    );
    for registry in [&source, &destination] {
        let strange = registry.log().into_iter().find(|logged| {
            let path = &logged.path;
            path.contains("..") || path.contains("passwd") || path.contains('%') || path.contains("/x")
        });
        assert_eq!(strange, None);
    }
    arrived(&source.addr().to_string(), &destination.addr().to_string(), "bad").await;
}

#[tokio::test]
async fn an_upload_sent_to_another_host_sees_no_credentials() {
    let nowhere = tempfile::TempDir::new().expect("a temporary directory");
    let other = Origin::start(nowhere.path().to_owned()).await;
    let source = seeded().await;
    let destination = Registry::start(Options {
        basic: Some(Credentials {
            username: USERNAME.to_owned(),
            password: PASSWORD.to_owned(),
        }),
        ..Options::default()
    })
    .await
    .expect("a registry");
    let elsewhere = format!("{}/upload/1?state=hidden", other.url());
    let front = Front::start(&destination.url(), move |method, path, answer| {
        if method == Method::POST && path.contains("/bad/blobs/uploads/") {
            let elsewhere = HeaderValue::from_str(&elsewhere).expect("a header value");
            answer.headers_mut().insert(header::LOCATION, elsewhere);
        }
    })
    .await;
    let home = Transship::new(&rules(
        &[
            &format!("src: {{ url: \"{}\" }}", source.url()),
            &format!(
                "dst: {{ url: \"{}\", username: {USERNAME}, password: {PASSWORD} }}",
                front.url()
            ),
        ],
        &[("both", "src", "dst", "bad, good")],
    ));
    let output = home.run(&["sync", "--format", "json"]).await.expect(1);
    let failures = super::table::failures(&output.json());
    assert_eq!(failures.len(), 1, "{failures:#?}");
    assert_eq!(failures[0]["destination"], "dst/bad:v1");
    let message = failures[0]["message"].as_str().expect("a message");
    super::table::assert_readable(message);
    for text in [&output.stdout, &output.stderr] {
        assert!(!text.contains("hidden"), "the query of an upload is told:\n{text}");
    }
    let resolve = |repository: &str| {
        let name: RepositoryName = repository.parse().expect("a name");
        destination.resolve(&name, &"v1".parse().expect("a tag"))
    };
    assert!(resolve("good").is_some());
    assert_eq!(resolve("bad"), None);
    assert!(other.credentials_seen().is_empty());
    front.mend();
    succeeds(&home).await;
    assert!(resolve("bad").is_some());
}

#[tokio::test]
async fn a_manifest_changed_on_the_way_is_never_pushed() {
    let (source, destination) = (seeded().await, DockerRegistry::plain().await);
    let front = Front::start(&source.url(), |method, path, answer| {
        if method == Method::GET && path.contains("/bad/manifests/") {
            let mut bytes = answer.body().to_vec();
            let at = bytes.iter().position(|byte| *byte == b'{').expect("an object") + 1;
            bytes.insert(at, b' ');
            *answer.body_mut() = Bytes::from(bytes);
        }
    })
    .await;
    let home = home(&front.url(), &destination.url());
    let row = Row {
        source: "src/bad:v1",
        destination: Some("dst/bad:v1"),
        kind: "corrupt",
        status: None,
        says: &["src/bad:v1", "digest", "proxy"],
    };
    fails(&home, row).await;
    arrived(&source.addr().to_string(), destination.host(), "good").await;
    assert_eq!(Wire::new(&destination.url()).resolve("bad", "v1").await, None);
    front.mend();
    succeeds(&home).await;
    arrived(&source.addr().to_string(), destination.host(), "bad").await;
}

#[tokio::test]
async fn a_blob_that_a_proxy_spoils_once_is_read_again() {
    let (source, destination) = (seeded().await, DockerRegistry::plain().await);
    let proxy = Proxy::start(&source.url()).await;
    proxy.add(Fault::once("GET", "/bad/blobs/", Act::FlipResponse(3)));
    let home = home(&proxy.url(), &destination.url());
    succeeds(&home).await;
    arrived(&source.addr().to_string(), destination.host(), "bad").await;
    arrived(&source.addr().to_string(), destination.host(), "good").await;
}
