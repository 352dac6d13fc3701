//! The tests' own tools: what they must notice, they notice.

use bytes::Bytes;
use http::{Method, StatusCode};
use transship::demo::registry::{Options, Registry, Running};
use transship::oci::Digest;

use crate::support::command::Transship;
use crate::support::compare::{Reader, Side, assert_same_images, same_image};
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::images::{self, image, noise};
use crate::support::origin::Origin;
use crate::support::proxy::{Act, Fault, Gate, Proxy};
use crate::support::token_server::TokenServer;
use crate::support::wire::{Wire, with_digest};
use crate::support::{USERNAME, within};

async fn registry() -> Running {
    Registry::start(Options::default()).await.expect("a registry")
}

async fn pushed(wire: &Wire) -> Vec<&'static str> {
    let all = [
        ("image", image(1, "amd64", &[4000, 10])),
        ("nested", images::nested_index(2)),
        ("attested", images::attested_index(3)),
        ("docker", images::docker_image(4, &[100])),
        ("list", images::docker_list(5)),
        ("helm", images::helm_chart(6)),
        ("oras", images::oras_artifact(7)),
        ("model", images::model_artifact(8, 9000)),
        ("twice", images::duplicate_layer(9)),
        ("tiny", images::tiny_layers(10)),
    ];
    for (tag, image) in &all {
        wire.push("a/b", tag, image).await;
    }
    let subject = &all[0].1;
    let (tag, signature) = images::cosign_signature("a/b", &subject.digest());
    wire.push("a/b", tag.as_str(), &signature).await;
    let referrers = vec![images::referrer(subject, "application/x.sbom", 11)];
    let fallback = images::fallback_index(referrers);
    wire.push("a/b", subject.digest().fallback_tag().as_str(), &fallback)
        .await;
    all.iter().map(|(tag, _)| *tag).collect()
}

#[tokio::test]
async fn equal_registries_are_found_equal() {
    let (real, ours) = (DockerRegistry::plain().await, registry().await);
    let tags = pushed(&Wire::new(&real.url())).await;
    pushed(&Wire::new(&ours.url())).await;
    let (src, dst) = (
        Side::new(real.host(), "a/b"),
        Side::new(&ours.addr().to_string(), "a/b"),
    );
    assert_same_images(&src, &dst, &tags, Reader::OciClient).await;
    assert_same_images(&src, &dst, &["nested", "list"], Reader::Skopeo).await;
}

#[tokio::test]
async fn differences_are_found() {
    let (left, right) = (registry().await, registry().await);
    let sample = images::two_platforms(1, &[100]);
    let (name, tag) = ("a/b".parse().expect("a name"), "v1".parse().expect("a tag"));
    left.seed(&name, &tag, &sample);
    let src = Side::new(&left.addr().to_string(), "a/b");
    for reader in [Reader::OciClient, Reader::Skopeo] {
        let dst = Side::new(&right.addr().to_string(), "a/b");
        let missing = same_image(&src, &dst, "v1", reader)
            .await
            .expect_err("nothing is there");
        assert!(missing.iter().any(|difference| difference.what == "v1"), "{missing:?}");
    }
    right.seed(&name, &tag, &sample);
    let dst = Side::new(&right.addr().to_string(), "a/b");
    assert_eq!(
        same_image(&src, &dst, "v1", Reader::OciClient).await,
        Ok(sample.digest())
    );

    // Another manifest under the tag; one changed byte of a blob, of a manifest.
    let other = registry().await;
    other.seed(&name, &tag, &images::two_platforms(2, &[100]));
    let dst = Side::new(&other.addr().to_string(), "a/b");
    assert!(same_image(&src, &dst, "v1", Reader::OciClient).await.is_err());
    let proxy = Proxy::start(&right.url()).await;
    let dst = Side::new(&proxy.host(), "a/b");
    let layer = Digest::of(&sample.children[0].blobs[1]);
    proxy.add(Fault::once("GET", &format!("/blobs/{layer}"), Act::FlipResponse(17)));
    let changed = same_image(&src, &dst, "v1", Reader::OciClient)
        .await
        .expect_err("a byte differs");
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(changed[0].what, layer.to_string());
    for reader in [Reader::OciClient, Reader::Skopeo] {
        let child = sample.children[1].digest();
        proxy.add(Fault::every(
            "GET",
            &format!("/manifests/{child}"),
            Act::FlipResponse(3),
        ));
        let changed = same_image(&src, &dst, "v1", reader).await.expect_err("a byte differs");
        assert!(
            changed.iter().any(|difference| difference.what == child.to_string()),
            "{changed:?}"
        );
        proxy.heal();
    }

    // A missing child, a missing blob.
    let child = sample.children[0].digest();
    proxy.add(Fault::every(
        "GET",
        &format!("/manifests/{child}"),
        Act::Answer(StatusCode::NOT_FOUND, None),
    ));
    assert!(same_image(&src, &dst, "v1", Reader::OciClient).await.is_err());
    proxy.heal();
    assert_eq!(
        same_image(&src, &dst, "v1", Reader::OciClient).await,
        Ok(sample.digest())
    );
    assert!(right.lose_blob(&layer));
    let missing = same_image(&src, &dst, "v1", Reader::OciClient)
        .await
        .expect_err("a blob is missing");
    assert_eq!(missing[0].what, layer.to_string());
}

#[tokio::test]
async fn docker_registry_with_basic_and_tls() {
    let registry = DockerRegistry::start(DockerConfig {
        htpasswd: true,
        tls: true,
        ..DockerConfig::default()
    })
    .await;
    let wire = Wire::with_tls(&registry.url(), &registry.authority().ca_pem);
    let sample = image(1, "amd64", &[10]);
    assert_eq!(wire.push("a", "v1", &sample).await, sample.digest());
    assert_eq!(wire.resolve("a", "v1").await, Some(sample.digest()));
    assert_eq!(wire.resolve("a", "v2").await, None);
}

#[tokio::test]
async fn docker_registry_with_tokens() {
    let tokens = TokenServer::start(true).await;
    let registry = DockerRegistry::start(DockerConfig {
        token: Some(tokens.docker_auth()),
        ..DockerConfig::default()
    })
    .await;
    let anonymous = Wire::new(&registry.url()).get("/v2/a/tags/list", &[]).await.expect(401);
    assert!(
        anonymous
            .header("www-authenticate")
            .is_some_and(|value| value.starts_with("Bearer "))
    );
    let wire = Wire::with_account(&registry.url());
    let sample = image(1, "amd64", &[10]);
    wire.push("a", "v1", &sample).await;
    assert_eq!(wire.resolve("a", "v1").await, Some(sample.digest()));
    let requests = tokens.requests();
    let asked = |scope: &str| {
        requests
            .iter()
            .any(|request| request.scopes == [scope] && request.status == 200)
    };
    assert!(asked("repository:a:pull,push"), "{requests:?}");
    assert!(requests.iter().all(|request| request.user.as_deref() == Some(USERNAME)));

    // oci-client gets by with what the server grants to everybody.
    let side = Side::new(registry.host(), "a");
    assert_same_images(&side, &side, &["v1"], Reader::OciClient).await;
    let realm = tokens.docker_auth().realm;
    for (query, status) in [("?service=other", 400), ("?service=test-registry&scope=nonsense", 400)] {
        Wire::new("").get(&format!("{realm}{query}"), &[]).await.expect(status);
    }
    let wrong = [("authorization", "Basic d3Jvbmc6d3Jvbmc=")];
    let target = format!("{realm}?service=test-registry");
    Wire::new("").get(&target, &wrong).await.expect(401);
}

#[tokio::test]
async fn docker_registry_with_redirects() {
    let storage = tempfile::TempDir::new().expect("a temporary directory");
    let origin = Origin::start(storage.path().to_owned()).await;
    let registry = DockerRegistry::start(DockerConfig {
        storage: Some(storage.path().to_owned()),
        redirect: Some(origin.url()),
        ..DockerConfig::default()
    })
    .await;
    let wire = Wire::new(&registry.url());
    let blob = noise(1, 5000);
    // A HEAD comes first and must not be taken for the blob.
    let digest = wire.push_blob("a", &blob).await;
    let answer = wire.get(&format!("/v2/a/blobs/{digest}"), &[]).await.expect(307);
    let target = answer.header("location").expect("a location").to_owned();
    assert!(target.starts_with(&origin.url()), "{target}");
    assert_eq!(wire.get(&target, &[]).await.expect(200).body, blob);
    let part = wire.get(&target, &[("range", "bytes=4000-4099")]).await.expect(206);
    assert_eq!(part.body, blob.slice(4000..4100));
    assert_eq!(part.header("content-range"), Some("bytes 4000-4099/5000"));
    assert_eq!(origin.paths().len(), 2);
    assert!(origin.credentials_seen().is_empty());
}

#[tokio::test]
#[should_panic(expected = "credentials left their host")]
async fn credentials_at_the_origin_fail_the_test() {
    let origin = Origin::start(std::env::temp_dir()).await;
    let credentials = [("authorization", "Bearer x")];
    Wire::new(&origin.url()).get("/none", &credentials).await.expect(404);
}

#[tokio::test]
async fn docker_registry_restarts_on_its_storage() {
    let mut registry = DockerRegistry::start(DockerConfig {
        foreign_urls: vec!["^https://example.com/".to_owned()],
        ..DockerConfig::default()
    })
    .await;
    let wire = Wire::new(&registry.url());
    let sample = images::foreign_layer(1, "https://example.com/layer");
    wire.push("a", "v1", &sample).await;
    assert!(registry.storage().join("docker/registry/v2/repositories/a").is_dir());
    registry.restart().await;
    assert_eq!(wire.resolve("a", "v1").await, Some(sample.digest()));
    registry.restart_with(|config| config.read_only = true).await;
    let refused = wire.send(Method::POST, "/v2/a/blobs/uploads/", &[], "").await;
    assert_eq!(refused.status, 405);
    registry.restart_with(|config| config.read_only = false).await;
    wire.delete("a", &sample.digest()).await;
    assert_eq!(wire.tags("a").await, Vec::<String>::new());
}

#[tokio::test]
async fn the_proxy_counts_and_keeps_locations_with_itself() {
    let registry = DockerRegistry::plain().await;
    let proxy = Proxy::start(&registry.url()).await;
    let wire = Wire::new(&proxy.url());
    let blob = noise(1, 300_000);
    let digest = wire.push_blob("a", &blob).await;
    assert_eq!(proxy.count("POST", "/uploads/"), 1);
    assert_eq!(
        proxy.count("PUT", "/uploads/"),
        1,
        "the Location leads through the proxy"
    );
    assert_eq!(proxy.request_bytes("PUT", "/uploads/"), 300_000);
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(wire.get(&path, &[]).await.expect(200).body, blob);
    let head = wire.send(Method::HEAD, &path, &[], "").await.expect(200);
    assert_eq!(head.header("content-length"), Some("300000"));
    assert_eq!(proxy.response_bytes("GET", digest.hex()), 300_000);
    proxy
        .wait_for("all to be done", |all| all.iter().all(|exchange| exchange.done))
        .await;
    proxy.reset();
    assert_eq!(proxy.count("*", ""), 0);
}

#[tokio::test]
async fn the_proxy_does_harm() {
    let registry = registry().await;
    let proxy = Proxy::start(&registry.url()).await;
    let wire = Wire::new(&proxy.url());
    let blob = noise(1, 300_000);
    let digest = wire.push_blob("a", &blob).await;
    let path = format!("/v2/a/blobs/{digest}");

    proxy.add(Fault::nth(
        2,
        "GET",
        digest.hex(),
        Act::Answer(StatusCode::TOO_MANY_REQUESTS, Some("7".to_owned())),
    ));
    wire.get(&path, &[]).await.expect(200);
    let limited = wire.get(&path, &[]).await.expect(429);
    assert_eq!(limited.header("retry-after"), Some("7"));
    wire.get(&path, &[]).await.expect(200);
    proxy.heal();

    proxy.add(Fault::once("GET", digest.hex(), Act::FlipResponse(299_999)));
    let flipped = wire.get(&path, &[]).await.expect(200).body;
    let differing: Vec<usize> = (0..blob.len()).filter(|at| flipped[*at] != blob[*at]).collect();
    assert_eq!(differing, [299_999]);
    assert_eq!(wire.get(&path, &[]).await.body, blob);

    // A response that is cut, a reply that is lost.
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    proxy.reset();
    proxy.add(Fault::once("GET", digest.hex(), Act::CutResponse(1234)));
    let cut = client
        .get(format!("{}{path}", proxy.url()))
        .send()
        .await
        .expect("a head");
    assert!(cut.bytes().await.is_err());
    assert_eq!(proxy.response_bytes("GET", digest.hex()), 1234);
    proxy.add(Fault::once("GET", digest.hex(), Act::DropReply));
    let lost = client.get(format!("{}{path}", proxy.url())).send().await;
    assert!(lost.is_err());
    assert_eq!(
        proxy.exchanges().last().and_then(|exchange| exchange.status),
        Some(StatusCode::OK)
    );

    // A request that is held, seen from the registry, and goes on.
    let gate = Gate::new();
    proxy.add(Fault::once("PUT", "/uploads/", Act::HoldRequest(100, gate.clone())));
    let other = noise(2, 200_000);
    let pushing = wire.push_blob("a", &other);
    let watching = async {
        proxy
            .wait_for("the hold", |all| all.iter().any(|exchange| exchange.held))
            .await;
        let there = |log: &[transship::demo::registry::Logged]| log.iter().any(|entry| entry.received == 100);
        within("100 bytes at the registry", registry.logged(there)).await;
        gate.open();
    };
    tokio::join!(pushing, watching);

    // A request that is cut: the registry keeps what came.
    let start = wire
        .send(Method::POST, "/v2/a/blobs/uploads/", &[], "")
        .await
        .expect(202);
    let upload = start.header("location").expect("a location").to_owned();
    proxy.add(Fault::once("PATCH", "/uploads/", Act::CutRequest(150_000)));
    let octets = "application/octet-stream";
    let request = client.patch(&upload).header("content-type", octets).body(other.clone());
    assert!(request.send().await.is_err());
    let came = |log: &[transship::demo::registry::Logged]| log.iter().any(|entry| entry.received == 150_000);
    within("150 000 bytes at the registry", registry.logged(came)).await;
    let status = wire.get(&upload, &[]).await.expect(204);
    assert_eq!(status.header("range"), Some("0-149999"));
    let rest = other.slice(150_000..);
    let target = with_digest(&upload, &Digest::of(&other));
    proxy.add(Fault::once("PUT", "/uploads/", Act::RequestRate(2_000_000)));
    proxy.add(Fault::once(
        "PUT",
        "/uploads/",
        Act::Delay(std::time::Duration::from_millis(1)),
    ));
    wire.send(Method::PUT, &target, &[("content-type", octets)], rest)
        .await
        .expect(201);

    // A client that goes away, and an upstream that is another.
    let gate = Gate::new();
    proxy.add(Fault::once("GET", digest.hex(), Act::HoldResponse(10, gate)));
    let held = client
        .get(format!("{}{path}", proxy.url()))
        .send()
        .await
        .expect("a head");
    proxy
        .wait_for("the hold", |all| all.iter().any(|exchange| exchange.held))
        .await;
    drop(held);
    proxy
        .wait_for("the break", |all| {
            all.last().is_some_and(|exchange| exchange.broken && !exchange.held)
        })
        .await;
    let empty = self::registry().await;
    proxy.retarget(&empty.url());
    wire.get(&path, &[]).await.expect(404);
}

#[tokio::test]
async fn the_program_runs_in_a_home_of_its_own() {
    let mut home = Transship::new("version: 1\n");
    home.set_env("TRANSSHIP_TEST", "1");
    assert!(home.rules().is_file());
    let output = home.run(&["--version"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    assert!(!home.home().join(".docker").exists());
    let mut process = home.spawn(&["--version"]);
    assert!(process.id() > 0);
    process.kill();
}

#[test]
fn images_are_the_same_at_every_run() {
    assert_eq!(images::attested_index(1).manifest, images::attested_index(1).manifest);
    assert_ne!(images::rebuilt(1, 10).digest(), image(1, "amd64", &[10]).digest());
    let one = Bytes::from_static(b"\x00");
    assert_eq!(images::tiny_layers(1).blobs[2].len(), one.len());
    assert_eq!(images::tiny_layers(1).blobs[1].len(), 0);
}
