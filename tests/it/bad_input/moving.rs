//! Tags that change between the look at them and the copying.

use super::table::{arrived, rules, succeeds};
use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{SampleImage, image};
use crate::support::proxy::{Act, Fault, Gate, Proxy};
use crate::support::wire::Wire;

/// `bad:v1` is at both ends and has moved since at the source; `good:v1` is at the source only.
struct Scene {
    source: DockerRegistry,
    destination: DockerRegistry,
    proxy: Proxy,
    home: Transship,
    moved: SampleImage,
}

async fn scene() -> Scene {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let proxy = Proxy::start(&source.url()).await;
    let home = Transship::new(&rules(
        &[
            &format!("src: {{ url: \"{}\" }}", proxy.url()),
            &format!("dst: {{ url: \"{}\" }}", destination.url()),
        ],
        &[("both", "src", "dst", "bad, good")],
    ));
    let wire = Wire::new(&source.url());
    wire.push("bad", "v1", &image(1, "amd64", &[1000])).await;
    wire.push("good", "v1", &image(2, "amd64", &[1000])).await;
    succeeds(&home).await;
    let moved = image(3, "amd64", &[1500]);
    wire.push("bad", "v1", &moved).await;
    wire.push("good", "v1", &image(4, "amd64", &[1500])).await;
    Scene {
        source,
        destination,
        proxy,
        home,
        moved,
    }
}

impl Scene {
    /// Starts a sync and stops it between the look at the tag and the reading of what it named.
    async fn held(&self) -> (crate::support::command::Process, Gate) {
        let gate = Gate::new();
        let path = format!("/v2/bad/manifests/{}", self.moved.digest());
        self.proxy.add(Fault::once("GET", &path, Act::HoldBefore(gate.clone())));
        let process = self.home.spawn(&["sync", "--format", "json"]);
        let held = |all: &[crate::support::proxy::Exchange]| all.iter().any(|exchange| exchange.held);
        self.proxy.wait_for("the manifest to be asked for", held).await;
        (process, gate)
    }
}

#[tokio::test]
async fn a_tag_that_moves_in_the_middle_is_planned_once_more() {
    let scene = scene().await;
    let (process, gate) = scene.held().await;
    let wire = Wire::new(&scene.source.url());
    let newest = image(5, "amd64", &[1700]);
    wire.push("bad", "v1", &newest).await;
    wire.delete("bad", &scene.moved.digest()).await;
    gate.open();
    let report = process.finish().await.expect(0).json();
    let images = &report["runs"][0]["destinations"][0]["images"];
    assert_eq!(images["copied"], 2, "{report:#}");
    assert_eq!(report["runs"][0]["outcome"], "ok");
    let there = Wire::new(&scene.destination.url()).resolve("bad", "v1").await;
    assert_eq!(there, Some(newest.digest()));
    let changes = report["runs"][0]["changes"].as_array().expect("changes");
    let change = changes.iter().find(|change| change["source"] == "src/bad:v1");
    assert_eq!(change.expect("a change")["digest"], newest.digest().to_string());
    arrived(scene.source.host(), scene.destination.host(), "bad").await;
    arrived(scene.source.host(), scene.destination.host(), "good").await;
}

#[tokio::test]
async fn a_tag_that_vanishes_in_the_middle_is_gone_and_no_failure() {
    let scene = scene().await;
    let before = Wire::new(&scene.destination.url()).resolve("bad", "v1").await;
    let (process, gate) = scene.held().await;
    let wire = Wire::new(&scene.source.url());
    wire.delete("bad", &scene.moved.digest()).await;
    gate.open();
    let report = process.finish().await.expect(0).json();
    let images = &report["runs"][0]["destinations"][0]["images"];
    assert_eq!(
        (&images["gone"], &images["copied"]),
        (&1.into(), &1.into()),
        "{report:#}"
    );
    let changes = report["runs"][0]["changes"].as_array().expect("changes");
    let gone = changes.iter().find(|change| change["source"] == "src/bad:v1");
    assert_eq!(gone.expect("a change")["outcome"], "gone");
    // Nothing is taken from the destination.
    let after = Wire::new(&scene.destination.url()).resolve("bad", "v1").await;
    assert!(before.is_some());
    assert_eq!(after, before);
    arrived(scene.source.host(), scene.destination.host(), "good").await;

    wire.push("bad", "v1", &scene.moved).await;
    succeeds(&scene.home).await;
    arrived(scene.source.host(), scene.destination.host(), "bad").await;
}

#[tokio::test]
async fn a_tag_that_vanishes_after_the_listing_is_gone() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let proxy = Proxy::start(&source.url()).await;
    let home = Transship::new(&rules(
        &[
            &format!("src: {{ url: \"{}\" }}", proxy.url()),
            &format!("dst: {{ url: \"{}\" }}", destination.url()),
        ],
        &[("both", "src", "dst", "bad, good")],
    ));
    let wire = Wire::new(&source.url());
    let bad = image(1, "amd64", &[1000]);
    wire.push("bad", "v1", &bad).await;
    wire.push("bad", "v2", &image(6, "amd64", &[1000])).await;
    wire.push("good", "v1", &image(2, "amd64", &[1000])).await;
    let gate = Gate::new();
    proxy.add(Fault::once(
        "GET",
        "/v2/bad/manifests/v1",
        Act::HoldBefore(gate.clone()),
    ));
    let process = home.spawn(&["sync", "--format", "json"]);
    proxy
        .wait_for("the manifest to be asked for", |all| {
            all.iter().any(|exchange| exchange.held)
        })
        .await;
    wire.delete("bad", &bad.digest()).await;
    gate.open();
    let report = process.finish().await.expect(0).json();
    let images = &report["runs"][0]["destinations"][0]["images"];
    assert_eq!(
        (&images["gone"], &images["copied"]),
        (&1.into(), &2.into()),
        "{report:#}"
    );
    let tags = Wire::new(&destination.url()).tags("bad").await;
    assert_eq!(tags, ["v2"]);
}

/// As some registries do at once and others at night: what the old tag named goes away with its blobs, while its manifest
/// has been read already.
#[tokio::test]
async fn a_tag_that_moves_while_its_blobs_are_collected_is_planned_once_more() {
    let (mut source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let proxy = Proxy::start(&source.url()).await;
    let home = Transship::new(&rules(
        &[
            &format!("src: {{ url: \"{}\" }}", proxy.url()),
            &format!("dst: {{ url: \"{}\" }}", destination.url()),
        ],
        &[("both", "src", "dst", "bad, good")],
    ));
    let wire = Wire::new(&source.url());
    let bad = image(1, "amd64", &[1000]);
    wire.push("bad", "v1", &bad).await;
    wire.push("good", "v1", &image(2, "amd64", &[1000])).await;
    let gate = Gate::new();
    proxy.add(Fault::times(2, "GET", "/v2/bad/blobs/", Act::HoldBefore(gate.clone())));
    let process = home.spawn(&["sync", "--format", "json"]);
    proxy
        .wait_for("a blob to be asked for", |all| all.iter().any(|exchange| exchange.held))
        .await;
    let newest = image(5, "amd64", &[1700]);
    wire.push("bad", "v1", &newest).await;
    wire.delete("bad", &bad.digest()).await;
    let blobs = source.storage().join("docker/registry/v2/blobs/sha256");
    source.kill();
    for blob in &bad.blobs {
        let digest = transship::oci::Digest::of(blob);
        let hex = digest.hex();
        std::fs::remove_file(blobs.join(&hex[..2]).join(hex).join("data")).expect("the blob's file");
    }
    source.restart().await;
    gate.open();
    let report = process.finish().await.expect(0).json();
    assert_eq!(
        report["runs"][0]["destinations"][0]["images"]["copied"], 2,
        "{report:#}"
    );
    let there = Wire::new(&destination.url()).resolve("bad", "v1").await;
    assert_eq!(there, Some(newest.digest()));
}
