//! The registry in memory answers as the registries that it stands for: the same requests go to it and to a real
//! `docker-registry` 2.8.2, and answers of distribution 3 are compared with what was seen of one.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use transship::demo::registry::{Credentials, Habits, Options, Registry, Running};
use transship::oci::{Digest, media_type};

use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{self, SampleImage, image, noise, two_platforms};
use crate::support::wire::{Answer, Wire, with_digest};
use crate::support::{PASSWORD, USERNAME, until, within};

async fn in_memory(habits: Habits) -> Running {
    let options = Options {
        habits,
        ..Options::default()
    };
    Registry::start(options).await.expect("a registry")
}

/// What was asked and what came, in words that do not depend on the registry's address or ids.
#[derive(Default)]
struct Transcript(Vec<String>);

impl Transcript {
    fn note(&mut self, row: &str, answer: &Answer) {
        let mut line = format!("{row}: {}", answer.status.as_u16());
        if let Some(code) = answer.code() {
            line += &format!(" {code}");
        }
        for name in [
            "range",
            "content-range",
            "docker-content-digest",
            "etag",
            "link",
            "content-type",
        ] {
            // What Go adds to an answer without a body says nothing.
            if name == "content-type" && (answer.body.is_empty() || answer.status.as_u16() >= 300) {
                continue;
            }
            if let Some(value) = answer.header(name) {
                let value = value.replace("; charset=utf-8", "");
                line += &format!(" {name}={value}");
            }
        }
        self.0.push(line);
    }
}

fn location(answer: &Answer) -> String {
    answer.header("location").expect("a location").to_owned()
}

async fn start_upload(wire: &Wire, repository: &str) -> String {
    let path = format!("/v2/{repository}/blobs/uploads/");
    location(&wire.send(Method::POST, &path, &[], "").await.expect(202))
}

/// A PATCH that announces `announced` bytes, sends `sent`, and ends. Held open where `hold` is set.
async fn broken_patch(wire: &Wire, target: &str, announced: usize, sent: &[u8]) -> TcpStream {
    let host = wire.url().strip_prefix("http://").expect("plain HTTP");
    let (_, path) = target.split_once(host).expect("a location at this host");
    let mut stream = TcpStream::connect(host).await.expect("a connection");
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(sent).await.expect("sent");
    stream.flush().await.expect("sent");
    stream
}

/// Requests whose answers are compared between two registries of the 2.8 family.
async fn conversation(wire: &Wire) -> Vec<String> {
    let mut seen = Transcript::default();
    let blob = noise(1, 5000);
    let digest = Digest::of(&blob);
    let octets = [("content-type", "application/octet-stream")];
    seen.note("base", &wire.get("/v2/", &[]).await);
    seen.note("missing blob", &wire.get(&format!("/v2/a/b/blobs/{digest}"), &[]).await);
    seen.note("missing tag", &wire.get("/v2/a/b/manifests/none", &[]).await);
    seen.note("tags of nothing", &wire.get("/v2/a/b/tags/list", &[]).await);
    seen.note("bad path", &wire.get("/v2/A/tags/list", &[]).await);

    // Uploads in pieces, with a Content-Range that is ignored.
    let start = wire.send(Method::POST, "/v2/a/b/blobs/uploads/", &[], "").await;
    seen.note("start", &start);
    let first = location(&start);
    seen.note("status", &wire.get(&first, &[]).await);
    let bare = first.split('?').next().expect("a path");
    seen.note("status without state", &wire.get(bare, &[]).await);
    let headers = [octets[0], ("content-range", "900-2899")];
    let patched = wire.send(Method::PATCH, &first, &headers, blob.slice(..2000)).await;
    seen.note("patch with a gap", &patched);
    seen.note("stale location", &wire.get(&first, &[]).await);
    let second = location(&patched);
    seen.note("status after a patch", &wire.get(&second, &[]).await);
    let done = wire
        .send(Method::PUT, &with_digest(&second, &digest), &octets, blob.slice(2000..))
        .await;
    seen.note("put", &done);
    seen.note("status when done", &wire.get(&second, &[]).await);

    // The wrong digest, giving up, and one request for all.
    let upload = start_upload(wire, "a/b").await;
    let wrong = with_digest(&upload, &Digest::of(b"other"));
    seen.note(
        "wrong digest",
        &wire.send(Method::PUT, &wrong, &octets, blob.clone()).await,
    );
    seen.note("after a wrong digest", &wire.get(&upload, &[]).await);
    let upload = start_upload(wire, "a/b").await;
    let patched = wire
        .send(Method::PATCH, &upload, &octets, blob.slice(..9))
        .await
        .expect(202);
    let upload = location(&patched);
    let wrong = with_digest(&upload, &Digest::of(b"other"));
    seen.note("wrong digest, no body", &wire.send(Method::PUT, &wrong, &[], "").await);
    seen.note("after a wrong digest, no body", &wire.get(&upload, &[]).await);
    let upload = start_upload(wire, "a/b").await;
    seen.note("cancel", &wire.send(Method::DELETE, &upload, &[], "").await);
    seen.note("after cancelling", &wire.get(&upload, &[]).await);
    let target = format!("/v2/a/b/blobs/uploads/?digest={digest}");
    seen.note(
        "post with digest",
        &wire.send(Method::POST, &target, &octets, blob.clone()).await,
    );
    let empty = wire.push_blob("a/b", &Bytes::new()).await;
    seen.note("empty blob", &wire.get(&format!("/v2/a/b/blobs/{empty}"), &[]).await);

    // Mounts.
    for (row, query) in [
        ("mount", format!("mount={digest}&from=a/b")),
        ("mount of nothing", format!("mount={}&from=a/b", Digest::of(b"none"))),
        ("mount without from", format!("mount={digest}")),
    ] {
        let target = format!("/v2/c/d/blobs/uploads/?{query}");
        seen.note(row, &wire.send(Method::POST, &target, &[], "").await);
    }

    // Reading blobs.
    let path = format!("/v2/a/b/blobs/{digest}");
    seen.note("blob", &wire.get(&path, &[]).await);
    seen.note("head of a blob", &wire.send(Method::HEAD, &path, &[], "").await);
    for range in ["bytes=10-19", "bytes=4990-", "bytes=-7", "bytes=0-0"] {
        seen.note(range, &wire.get(&path, &[("range", range)]).await);
    }
    let etag = format!("\"{digest}\"");
    seen.note("blob unchanged", &wire.get(&path, &[("if-none-match", &etag)]).await);

    // Manifests.
    let sample = image(3, "amd64", &[300]);
    let missing = wire
        .put_manifest("a/b", "v1", sample.media_type, &sample.manifest)
        .await;
    seen.note("manifest before its blobs", &missing);
    let index = two_platforms(4, &[300]);
    let early = wire
        .put_manifest("a/b", "index", index.media_type, &index.manifest)
        .await;
    seen.note("index before its children", &early);
    wire.push("a/b", "v1", &sample).await;
    wire.push("a/b", "index", &index).await;
    let docker = images::docker_image(5, &[300]);
    wire.push("a/b", "docker", &docker).await;
    let foreign = images::foreign_layer(6, "https://example.com/layer");
    for blob in &foreign.blobs {
        wire.push_blob("a/b", blob).await;
    }
    let answer = wire
        .put_manifest("a/b", "foreign", foreign.media_type, &foreign.manifest)
        .await;
    seen.note("foreign layer", &answer);
    let other = wire
        .put_manifest("a/b", "v2", media_type::OCI_INDEX, &sample.manifest)
        .await;
    seen.note("another content type", &other);
    let garbage = Bytes::from_static(b"{");
    let answer = wire.put_manifest("a/b", "v2", media_type::OCI_MANIFEST, &garbage).await;
    seen.note("garbage", &answer);
    let wrong = Digest::of(b"other").to_string();
    let answer = wire
        .put_manifest("a/b", &wrong, sample.media_type, &sample.manifest)
        .await;
    seen.note("manifest under another digest", &answer);
    let large = padded(&sample);
    let answer = wire.put_manifest("a/b", "large", sample.media_type, &large).await;
    seen.note("manifest over 4 MiB", &answer);
    let referrer = images::referrer(&sample, "application/x.test", 8);
    for blob in &referrer.blobs {
        wire.push_blob("a/b", blob).await;
    }
    let answer = wire
        .put_manifest("a/b", "referrer", referrer.media_type, &referrer.manifest)
        .await;
    assert_eq!(answer.header("oci-subject"), None);
    seen.note("manifest with a subject", &answer);
    let referrers = format!("/v2/a/b/referrers/{}", sample.digest());
    seen.note("referrers", &wire.get(&referrers, &[]).await);
    for tag in ["v1", "index", "docker"] {
        let path = format!("/v2/a/b/manifests/{tag}");
        let all = [("accept", media_type::ACCEPT)];
        let images = [("accept", "application/vnd.oci.image.manifest.v1+json, */*")];
        seen.note(&format!("{tag}, all types"), &wire.get(&path, &all).await);
        seen.note(&format!("{tag}, head"), &wire.send(Method::HEAD, &path, &all, "").await);
        // 2.8 turns a Docker image into schema 1 here, which is not imitated.
        if tag != "docker" {
            seen.note(
                &format!("{tag}, any type"),
                &wire.get(&path, &[("accept", "*/*")]).await,
            );
            seen.note(&format!("{tag}, OCI images"), &wire.get(&path, &images).await);
        }
    }
    let etag = format!("\"{}\"", sample.digest());
    let headers = [("accept", media_type::ACCEPT), ("if-none-match", &etag)];
    seen.note("manifest unchanged", &wire.get("/v2/a/b/manifests/v1", &headers).await);

    // Lists and removal.
    wire.push("z/y", "v1", &sample).await;
    for query in ["", "?n=1", "?n=1&last=a/b", "?last=z/y"] {
        let answer = wire.get(&format!("/v2/_catalog{query}"), &[]).await;
        seen.note(&format!("catalog{query}"), &answer);
        seen.0.push(answer.json().to_string());
    }
    let pages = wire.get("/v2/a/b/tags/list?n=1", &[]).await;
    seen.note("tags, n=1", &pages);
    seen.0
        .push(format!("{} tags", pages.json()["tags"].as_array().map_or(0, Vec::len)));
    for target in [
        "/v2/z/y/manifests/v1".to_owned(),
        format!("/v2/z/y/manifests/{}", sample.digest()),
    ] {
        let kind = if target.ends_with("v1") { "tag" } else { "digest" };
        seen.note(
            &format!("delete by {kind}"),
            &wire.send(Method::DELETE, &target, &[], "").await,
        );
    }
    let gone = wire.get("/v2/z/y/tags/list", &[]).await;
    seen.note("tags when all are gone", &gone);
    seen.0.push(gone.json().to_string());
    let target = format!("/v2/z/y/manifests/{}", sample.digest());
    seen.note("delete again", &wire.send(Method::DELETE, &target, &[], "").await);
    seen.0
}

/// The same document with blanks behind, beyond the limit.
fn padded(sample: &SampleImage) -> Bytes {
    let mut bytes = sample.manifest.to_vec();
    bytes.resize(4 * 1024 * 1024 + 1, b' ');
    Bytes::from(bytes)
}

#[tokio::test]
async fn habits_of_2_8_are_those_of_docker_registry() {
    let real = DockerRegistry::plain().await;
    let ours = in_memory(Habits::distribution_2_8()).await;
    let (real, ours) = (Wire::new(&real.url()), Wire::new(&ours.url()));
    let expected = conversation(&real).await;
    let found = conversation(&ours).await;
    assert_eq!(expected.len(), found.len());
    let differing: Vec<_> = expected.iter().zip(&found).filter(|(a, b)| a != b).collect();
    assert!(differing.is_empty(), "(docker-registry, in memory): {differing:#?}");
}

/// Breaks a PATCH, then asks at the upload's Location.
async fn after_a_broken_patch(wire: &Wire, sent: usize) -> Answer {
    let upload = start_upload(wire, "a/b").await;
    let stream = broken_patch(wire, &upload, 100_000, &noise(1, sent)).await;
    let fresh = if sent == 0 { Some(upload.clone()) } else { None };
    drop(stream);
    if let Some(upload) = fresh {
        return wire.get(&upload, &[]).await;
    }
    // The registry takes the bytes in its own time; until then the upload reads as empty.
    let mut last = wire.get(&upload, &[]).await;
    within("the broken bytes to arrive", async {
        while last.status == 204 && last.header("range") != Some(&format!("0-{}", sent - 1)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            last = wire.get(&upload, &[]).await;
        }
    })
    .await;
    last
}

#[tokio::test]
async fn a_broken_patch_ends_an_upload_of_2_8() {
    let real = DockerRegistry::plain().await;
    let ours = in_memory(Habits::distribution_2_8()).await;
    for url in [real.url(), ours.url()] {
        let wire = Wire::new(&url);
        let answer = after_a_broken_patch(&wire, 50_000).await;
        assert_eq!(answer.status, 404, "{url}");
        assert_eq!(answer.code().as_deref(), Some("BLOB_UPLOAD_INVALID"), "{url}");
        assert_eq!(after_a_broken_patch(&wire, 0).await.status, 204, "{url}");
    }
}

#[tokio::test]
async fn distribution_3_keeps_what_a_broken_request_brought() {
    let ours = in_memory(Habits::distribution_3()).await;
    let wire = Wire::new(&ours.url());
    let answer = after_a_broken_patch(&wire, 50_000).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("range"), Some("0-49999"));
    let blob = noise(1, 60_000);
    let octets = [("content-type", "application/octet-stream")];
    let target = with_digest(&location(&answer), &Digest::of(&blob));
    wire.send(Method::PUT, &target, &octets, blob.slice(50_000..))
        .await
        .expect(201);
}

#[tokio::test]
async fn an_upload_is_read_while_another_client_holds_its_patch_open() {
    let ours = in_memory(Habits::distribution_3()).await;
    let wire = Wire::new(&ours.url());
    let upload = start_upload(&wire, "a/b").await;
    let blob = noise(1, 1000);
    let mut held = broken_patch(&wire, &upload, 1000, &blob[..600]).await;
    within(
        "the bytes",
        ours.logged(|log| log.iter().any(|entry| entry.received == 600)),
    )
    .await;
    let answer = wire.get(&upload, &[]).await.expect(204);
    assert_eq!(answer.header("range"), Some("0-599"));
    held.write_all(&blob[600..]).await.expect("sent");
    let patched = |entry: &transship::demo::registry::Logged| entry.received == 1000 && entry.status.is_some();
    within("the rest", ours.logged(|log| log.iter().any(patched))).await;
    let target = with_digest(&upload, &Digest::of(&blob));
    wire.send(Method::PUT, &target, &[], "").await.expect(201);
}

#[tokio::test]
async fn answers_of_distribution_3() {
    let ours = in_memory(Habits::distribution_3()).await;
    let wire = Wire::new(&ours.url());
    let octets = ("content-type", "application/octet-stream");
    let blob = noise(1, 5000);
    let digest = Digest::of(&blob);

    let upload = start_upload(&wire, "a/b").await;
    let bare = upload.split('?').next().expect("a path").to_owned();
    assert_eq!(wire.get(&bare, &[]).await.expect(204).header("range"), Some("0-0"));
    wire.send(Method::PATCH, &upload, &[octets], blob.slice(..2000))
        .await
        .expect(202);
    for range in ["900-1899", "3000-3999"] {
        let headers = [octets, ("content-range", range)];
        let answer = wire
            .send(Method::PATCH, &bare, &headers, blob.slice(..1000))
            .await
            .expect(416);
        assert_eq!(answer.code().as_deref(), Some("RANGE_INVALID"));
    }
    let kept = wire.get(&bare, &[]).await.expect(204);
    assert_eq!(kept.header("range"), Some("0-1999"));
    let headers = [octets, ("content-range", "2000-2999")];
    let answer = wire
        .send(Method::PATCH, &bare, &headers, blob.slice(..10))
        .await
        .expect(400);
    assert_eq!(answer.code().as_deref(), Some("SIZE_INVALID"));
    let wrong = with_digest(&bare, &Digest::of(b"other"));
    let answer = wire
        .send(Method::PUT, &wrong, &[octets], blob.slice(2000..))
        .await
        .expect(400);
    assert_eq!(answer.code().as_deref(), Some("DIGEST_INVALID"));
    assert_eq!(wire.get(&bare, &[]).await.expect(204).header("range"), Some("0-4999"));
    wire.send(Method::PUT, &with_digest(&bare, &digest), &[], "")
        .await
        .expect(201);

    let path = format!("/v2/a/b/blobs/{digest}");
    let several = wire.get(&path, &[("range", "bytes=0-1,5-6")]).await.expect(200);
    assert_eq!(several.body, blob);
    let past = wire.get(&path, &[("range", "bytes=5000-")]).await.expect(416);
    assert_eq!(past.header("content-range"), Some("bytes */5000"));

    let index = two_platforms(4, &[300]);
    wire.push("a/b", "index", &index).await;
    wire.push("a/b", "1", &image(1, "amd64", &[10])).await;
    wire.push("a/b", "0", &image(2, "amd64", &[10])).await;
    wire.get("/v2/a/b/manifests/1", &[]).await.expect(404);
    let plain = wire
        .get("/v2/a/b/manifests/index", &[("accept", media_type::OCI_MANIFEST)])
        .await
        .expect(200);
    assert_eq!(plain.body, index.manifest);
    assert_eq!(
        wire.get("/v2/a/b/tags/list", &[]).await.json()["tags"],
        serde_json::json!(["0", "1", "index"])
    );
    let page = wire.get("/v2/a/b/tags/list?n=1&last=0", &[]).await.expect(200);
    assert_eq!(page.json()["tags"], serde_json::json!(["1"]));
    assert_eq!(
        page.header("link"),
        Some("</v2/a/b/tags/list?last=1&n=1>; rel=\"next\"")
    );
    let none = wire.get("/v2/a/b/tags/list?n=0", &[]).await.expect(200);
    assert_eq!(none.json()["tags"], serde_json::json!([]));
    wire.send(Method::DELETE, "/v2/a/b/manifests/1", &[], "")
        .await
        .expect(202);
    assert_eq!(wire.tags("a/b").await, ["0", "index"]);
}

#[tokio::test]
async fn options() {
    let refusing = Options {
        basic: Some(Credentials {
            username: USERNAME.to_owned(),
            password: PASSWORD.to_owned(),
        }),
        deny_push: true,
        ..Options::default()
    };
    let ours = Registry::start(refusing).await.expect("a registry");
    let answer = Wire::new(&ours.url()).get("/v2/", &[]).await.expect(401);
    assert!(
        answer
            .header("www-authenticate")
            .is_some_and(|value| value.starts_with("Basic "))
    );
    let wire = Wire::with_account(&ours.url());
    wire.get("/v2/", &[]).await.expect(200);
    wire.send(Method::POST, "/v2/a/blobs/uploads/", &[], "")
        .await
        .expect(403);

    let generous = Options {
        omit_digest_header: true,
        quota: Some(3000),
        allow_foreign: true,
        referrers_api: true,
        ..Options::default()
    };
    let ours = Registry::start(generous).await.expect("a registry");
    let wire = Wire::new(&ours.url());
    let subject = images::foreign_layer(1, "https://example.com/layer");
    wire.push("a", "v1", &subject).await;
    let referrer = images::referrer(&subject, "application/x.test", 2);
    for blob in &referrer.blobs {
        wire.push_blob("a", blob).await;
    }
    let path = referrer.digest().to_string();
    let answer = wire
        .put_manifest("a", &path, referrer.media_type, &referrer.manifest)
        .await
        .expect(201);
    assert_eq!(
        answer.header("oci-subject"),
        Some(subject.digest().to_string().as_str())
    );
    let query = format!("/v2/a/referrers/{}?artifactType=application/x.test", subject.digest());
    let list = wire.get(&query, &[]).await.expect(200);
    assert_eq!(list.json()["manifests"][0]["digest"], path);
    assert_eq!(list.header("oci-filters-applied"), Some("artifactType"));
    let query = format!("/v2/a/referrers/{}?artifactType=other", subject.digest());
    assert_eq!(wire.get(&query, &[]).await.json()["manifests"], serde_json::json!([]));
    let accept = [("accept", media_type::ACCEPT)];
    let manifest = wire.get("/v2/a/manifests/v1", &accept).await.expect(200);
    assert_eq!(manifest.header("docker-content-digest"), None);
    let large = noise(1, 4000);
    let upload = with_digest(&start_upload(&wire, "a").await, &Digest::of(&large));
    let answer = wire.send(Method::PUT, &upload, &[], large).await.expect(403);
    assert_eq!(answer.code().as_deref(), Some("DENIED"));
}

#[tokio::test]
async fn a_stopped_registry_is_gone() {
    let ours = in_memory(Habits::default()).await;
    let addr = ours.addr();
    let name = "a/b".parse().expect("a name");
    let tag = "v1".parse().expect("a tag");
    let sample = two_platforms(1, &[10]);
    ours.seed(&name, &tag, &sample);
    assert_eq!(ours.resolve(&name, &tag), Some(sample.digest()));
    assert_eq!(ours.tags(&name), [tag]);
    let blob = Digest::of(&sample.children[0].blobs[0]);
    assert!(ours.blob(&name, &blob).is_some());
    assert!(ours.lose_blob(&blob));
    assert!(ours.blob(&name, &blob).is_none());
    assert_eq!(Wire::new(&ours.url()).tags("a/b").await, ["v1"]);
    assert_eq!(
        ours.log().last().map(|entry| entry.path.clone()).as_deref(),
        Some("/v2/a/b/tags/list")
    );
    ours.stop().await;
    until("the port to be free", || std::net::TcpListener::bind(addr).ok()).await;
}
