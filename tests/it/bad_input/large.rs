//! Content that is larger than what is read of its kind.

use bytes::Bytes;
use serde_json::{Value, json};
use transship::oci::media_type;

use super::content::{home, memory, seed};
use super::table::{Row, arrived, fails, succeeds};
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{self, SampleImage, image};
use crate::support::proxy::Proxy;

/// A manifest with so many bytes of notes.
fn noted(number: usize, bytes: usize) -> SampleImage {
    images::manifest(
        &json!({ "mediaType": media_type::OCI_CONFIG }),
        &Bytes::from(format!("{{\"number\":{number}}}")),
        &[],
        json!({ "annotations": { "notes": "x".repeat(bytes) } }),
    )
}

#[tokio::test]
async fn a_manifest_over_four_mebibytes() {
    let (source, destination) = (memory().await, DockerRegistry::plain().await);
    seed(&source, "bad", &noted(0, 5 << 20));
    seed(&source, "good", &image(2, "amd64", &[3000]));
    let home = home(&source.url(), &destination.url());
    let row = Row {
        source: "src/bad:v1",
        destination: Some("dst/bad:v1"),
        kind: "too_large",
        status: None,
        says: &["src/bad:v1", "4 MiB", "annotations"],
    };
    fails(&home, row).await;
    arrived(&source.addr().to_string(), destination.host(), "good").await;
    seed(&source, "bad", &image(1, "amd64", &[400]));
    succeeds(&home).await;
    arrived(&source.addr().to_string(), destination.host(), "bad").await;
}

#[tokio::test]
async fn an_index_whose_manifests_are_too_large_together() {
    let (source, destination) = (memory().await, DockerRegistry::plain().await);
    let proxy = Proxy::start(&destination.url()).await;
    // Each is below its own limit of four mebibytes.
    let children: Vec<SampleImage> = (0..9).map(|number| noted(number, (4 << 20) - 4096)).collect();
    let bad = images::index(children, &["linux/amd64"; 9]);
    seed(&source, "bad", &bad);
    seed(&source, "good", &image(2, "amd64", &[3000]));
    let home = home(&source.url(), &proxy.url());
    let row = Row {
        source: "src/bad:v1",
        destination: Some("dst/bad:v1"),
        kind: "too_large",
        status: None,
        says: &[&format!("src/bad@{}", bad.digest()), "32 MiB", "select platforms"],
    };
    let report = fails(&home, row).await;
    assert_eq!(report["runs"][0]["outcome"], Value::from("partial"));
    arrived(&source.addr().to_string(), destination.host(), "good").await;
    for method in ["POST", "PUT", "PATCH"] {
        assert_eq!(proxy.count(method, "/v2/bad/"), 0, "{:?}", proxy.exchanges());
    }
    seed(&source, "bad", &image(1, "amd64", &[400]));
    succeeds(&home).await;
    arrived(&source.addr().to_string(), destination.host(), "bad").await;
}
