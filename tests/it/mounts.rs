//! Blobs that are mounted: within one registry none of their bytes moves, and a place that lost one is not tried again.

use http::StatusCode;
use serde_json::json;
use transship::engine::Engine;
use transship::oci::Digest;

use crate::support::command::Transship;
use crate::support::compare::{Reader, Side, assert_same_images};
use crate::support::docker_registry::DockerRegistry;
use crate::support::engine::{Workshop, by_hand};
use crate::support::images::SampleImage;
use crate::support::pair::{Fleet, Pair};
use crate::support::proxy::{Act, Fault, Proxy};
use crate::support::wire::Wire;
use crate::sync::only_run;

/// A registry with a fleet, and a rule that copies it to other names there.
async fn scene(fleet: &Fleet) -> (DockerRegistry, Proxy, Transship) {
    let registry = DockerRegistry::plain().await;
    fleet.push(&Wire::new(&registry.url())).await;
    let proxy = Proxy::start(&registry.url()).await;
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n  one: {{ url: \"{}\" }}\nrules:\n  - name: within\n    source: one\n    \
         destinations: [{{ registry: one, to: \"copy/{{name}}\" }}]\n    repositories: [\"fleet/*\"]\n",
        proxy.url()
    ));
    (registry, proxy, home)
}

async fn assert_copied(registry: &DockerRegistry, fleet: &Fleet) {
    for (name, tags) in &fleet.repositories {
        let copy = name.replace("fleet/", "copy/");
        let tags: Vec<&str> = tags.iter().map(|(tag, _)| tag.as_str()).collect();
        let (from, to) = (Side::new(registry.host(), name), Side::new(registry.host(), &copy));
        assert_same_images(&from, &to, &tags, Reader::OciClient).await;
    }
}

#[tokio::test]
async fn within_one_registry_every_blob_is_mounted_and_none_is_read() {
    let fleet = Fleet::new(2, 2, 50_000);
    let (registry, proxy, home) = scene(&fleet).await;
    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    let run = only_run(&report);
    let destination = &run["destinations"][0];
    // A repository has the layer of all, three of its own, and of each of its two images a layer and a config.
    assert_eq!(
        destination["blobs"],
        json!({ "copied": 0, "mounted": 2 * (1 + 3 + 2 * 2), "present": 2 * 4, "imported": 0 })
    );
    assert_eq!(
        (&run["bytes"]["read"], &destination["bytes"]["written"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(proxy.count("GET", "/blobs/"), 0, "{:?}", proxy.exchanges());
    assert_eq!(
        proxy.request_bytes("*", "/blobs/uploads/"),
        0,
        "{:?}",
        proxy.exchanges()
    );
    assert_copied(&registry, &fleet).await;
}

#[tokio::test]
async fn within_a_registry_that_refuses_mounts_blobs_are_read_and_sent() {
    let fleet = Fleet::new(1, 1, 50_000);
    let (registry, proxy, home) = scene(&fleet).await;
    let refusal = Act::Answer(StatusCode::METHOD_NOT_ALLOWED, None);
    proxy.add(Fault::once("POST", "/copy/app-00/blobs/uploads/", refusal));
    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    let run = only_run(&report);
    assert!(run["destinations"][0]["blobs"]["copied"].as_u64() >= Some(1), "{run}");
    assert_eq!(run["bytes"]["read"], run["destinations"][0]["bytes"]["written"]);
    // Taken for a mount, the refusal would show when the manifest is refused, and all be mended then.
    assert_eq!(
        proxy.count("PUT", "/copy/app-00/manifests/"),
        1,
        "{:?}",
        proxy.exchanges()
    );
    assert_copied(&registry, &fleet).await;
}

/// To another registry.
const RULE: &str =
    "rules:\n  - name: fleet\n    source: src\n    destinations: [dst]\n    repositories: [\"fleet/*\"]\n";

/// Copies one repository more; gives how many of its blobs were mounted.
async fn copy(pair: &Pair, engine: &Engine, (name, tags): &(String, Vec<(String, SampleImage)>)) -> u64 {
    pair.at_source().push(name, "v0", &tags[0].1).await;
    let run = by_hand(engine, "fleet").await;
    assert_eq!(run.destinations[0].images.copied, 1, "{:?}", run.failures);
    run.destinations[0].blobs.mounted
}

#[tokio::test]
async fn a_repository_that_lost_a_blob_is_asked_for_it_once() {
    let mut pair = Pair::start().await;
    let fleet = Fleet::new(7, 1, 400);
    let (first, others) = fleet.repositories.split_first().expect("seven");
    let workshop = Workshop::new(&pair.rules(RULE));
    let engine = workshop.engine().await;
    copy(&pair, &engine, first).await;
    let shared = Digest::of(&first.1[0].1.blobs[1]);
    pair.destination.lose_blob(&first.0, &shared);
    pair.destination.restart().await;
    let mut mounted = Vec::new();
    for other in others {
        mounted.push(copy(&pair, &engine, other).await);
    }
    assert_eq!(mounted, [0, 1, 1, 1, 1, 1], "sent once more, and mounted from there");
    let asked = pair.dst.count("HEAD", &format!("{}/blobs/{shared}", first.0));
    assert_eq!(asked, 1, "where it is gone, nobody looks again");
    for (name, _) in others {
        pair.assert_same(name, name, &["v0"]).await;
    }
}
