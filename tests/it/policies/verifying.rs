//! `verify`: what is wrong at a destination, and what `--repair` makes of it.

use serde_json::{Value, json};
use transship::demo::images::SampleImage;
use transship::oci::Digest;

use super::{app, json_of};
use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::image;
use crate::support::pair::Pair;

/// Where `docker-registry` keeps a blob's bytes.
fn stored(registry: &DockerRegistry, blob: &Digest) -> std::path::PathBuf {
    let folder = registry.storage().join("docker/registry/v2/blobs/sha256");
    folder.join(&blob.hex()[..2]).join(blob.hex()).join("data")
}

async fn synced(sample: &SampleImage) -> (Pair, Transship) {
    let pair = Pair::start().await;
    for tag in ["v1", "v2"] {
        pair.at_source().push("app", tag, sample).await;
    }
    let home = Transship::new(&pair.rules(&app("")));
    home.run(&["sync"]).await.expect(0);
    (pair, home)
}

fn faults(report: &Value) -> Vec<[String; 3]> {
    let findings = report["rules"][0]["findings"].as_array().expect("findings");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut faults: Vec<[String; 3]> = findings
        .iter()
        .map(|finding| {
            [
                text(&finding["destination"]),
                text(&finding["fault"]),
                text(&finding["digest"]),
            ]
        })
        .collect();
    faults.sort();
    faults
}

#[tokio::test]
async fn verify_finds_and_mends_a_missing_and_a_changed_tag() {
    let sample = image(1, "amd64", &[5000]);
    let (pair, home) = synced(&sample).await;
    assert_eq!(
        faults(&json_of(&home, &["verify", "--deep"], 0).await),
        [] as [[String; 3]; 0]
    );
    pair.at_source().push("app", "v3", &sample).await;
    pair.at_destination().push("app", "v2", &image(2, "amd64", &[10])).await;
    let report = json_of(&home, &["verify"], 1).await;
    let digest = sample.digest().to_string();
    let expected = [
        ["dst/app:v2".to_owned(), "different".to_owned(), digest.clone()],
        ["dst/app:v3".to_owned(), "missing".to_owned(), digest],
    ];
    assert_eq!(faults(&report), expected);
    let report = json_of(&home, &["verify", "--repair"], 1).await;
    assert_eq!(report["rules"][0]["repaired"]["destinations"][0]["images"]["copied"], 2);
    json_of(&home, &["verify", "--deep"], 0).await;
    pair.assert_same("app", "app", &["v1", "v2", "v3"]).await;
}

#[tokio::test]
async fn verify_finds_and_mends_a_blob_whose_bytes_are_gone() {
    let sample = image(1, "amd64", &[5000]);
    let (mut pair, home) = synced(&sample).await;
    let layer = Digest::of(&sample.blobs[1]);
    pair.destination.kill();
    std::fs::remove_file(stored(&pair.destination, &layer)).expect("the blob's file");
    pair.destination.restart().await;
    let report = json_of(&home, &["verify"], 1).await;
    let missing = |tag: &str| [format!("dst/app:{tag}"), "blob_missing".to_owned(), layer.to_string()];
    assert_eq!(faults(&report), [missing("v1"), missing("v2")]);
    let text = home.run(&["verify"]).await.expect(1).stdout;
    assert!(text.contains("blob_missing: src/app:v1 -> dst/app:v1"), "{text}");
    pair.dst.reset();
    json_of(&home, &["verify", "--repair"], 1).await;
    assert_eq!(
        pair.dst.request_bytes("*", "/blobs/uploads/"),
        5000,
        "the one blob, once"
    );
    json_of(&home, &["verify", "--deep"], 0).await;
    pair.assert_same("app", "app", &["v1", "v2"]).await;
}

/// Changes one byte of a file.
fn flip(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).expect("the blob's file");
    bytes[1234] ^= 1;
    std::fs::write(path, &bytes).expect("the blob's file");
}

#[tokio::test]
async fn deep_verify_finds_and_mends_a_changed_byte() {
    let pair = Pair::start().await;
    let sample = image(1, "amd64", &[5000, 40]);
    for tag in ["v1", "v2"] {
        pair.at_source().push("app", tag, &sample).await;
    }
    let home = Transship::new("");
    let bundle = home.home().join("bundle");
    home.set_rules(&format!(
        "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n  dst: {{ layout: {bundle:?} }}\n{}",
        pair.src.url(),
        app("")
    ));
    home.run(&["sync"]).await.expect(0);
    json_of(&home, &["verify", "--deep"], 0).await;
    let layer = Digest::of(&sample.blobs[1]);
    flip(&bundle.join("blobs/sha256").join(layer.hex()));
    json_of(&home, &["verify"], 0).await;
    pair.reset();
    let report = json_of(&home, &["verify", "--deep", "--repair"], 1).await;
    let corrupt = |tag: &str| [format!("dst/app:{tag}"), "corrupt".to_owned(), layer.to_string()];
    assert_eq!(faults(&report), [corrupt("v1"), corrupt("v2")]);
    assert_eq!(report["rules"][0]["unrepaired"], json!([]));
    assert_eq!(
        pair.src.response_bytes("GET", "/blobs/"),
        5000,
        "only the damaged blob, once"
    );
    json_of(&home, &["verify", "--deep"], 0).await;
}

#[tokio::test]
async fn a_registry_that_keeps_damaged_bytes_is_said_to_be_unrepaired() {
    let sample = image(1, "amd64", &[5000]);
    let (mut pair, home) = synced(&sample).await;
    let layer = Digest::of(&sample.blobs[1]);
    pair.destination.kill();
    flip(&stored(&pair.destination, &layer));
    pair.destination.restart().await;
    json_of(&home, &["verify"], 0).await;
    pair.dst.reset();
    let report = json_of(&home, &["verify", "--deep", "--repair"], 1).await;
    let corrupt = |tag: &str| [format!("dst/app:{tag}"), "corrupt".to_owned(), layer.to_string()];
    assert_eq!(faults(&report), [corrupt("v1"), corrupt("v2")]);
    // docker-registry takes the right bytes and throws them away, as it has a blob of that name.
    assert_eq!(pair.dst.request_bytes("*", "/blobs/uploads/"), 5000);
    let left = report["rules"][0]["unrepaired"].as_array().expect("findings").clone();
    assert_eq!(left.len(), 2, "{report}");
    let message = left[0]["message"].as_str().expect("a message");
    assert!(message.contains("remove the blob from its storage"), "{message}");

    // What the message asks for helps.
    pair.destination.kill();
    std::fs::remove_file(stored(&pair.destination, &layer)).expect("the blob's file");
    pair.destination.restart().await;
    let report = json_of(&home, &["verify", "--repair"], 1).await;
    assert_eq!(report["rules"][0]["unrepaired"], json!([]));
    json_of(&home, &["verify", "--deep"], 0).await;
    pair.assert_same("app", "app", &["v1", "v2"]).await;
}

#[tokio::test]
async fn deep_verify_mends_a_blob_that_a_registry_only_thinks_it_has() {
    let mut pair = Pair::start().await;
    pair.destination
        .restart_with(|config| config.descriptor_cache = true)
        .await;
    let sample = image(1, "amd64", &[5000]);
    pair.at_source().push("app", "v1", &sample).await;
    let home = Transship::new(&pair.rules(&app("    retry: { attempts: 2 }\n")));
    home.run(&["sync"]).await.expect(0);
    let layer = Digest::of(&sample.blobs[1]);
    let there = format!("/v2/app/blobs/{layer}");
    pair.at_destination()
        .send(http::Method::HEAD, &there, &[], "")
        .await
        .expect(200);
    std::fs::remove_file(stored(&pair.destination, &layer)).expect("the blob's file");
    pair.at_destination()
        .send(http::Method::HEAD, &there, &[], "")
        .await
        .expect(200);
    json_of(&home, &["verify"], 0).await;
    let report = json_of(&home, &["verify", "--deep", "--repair"], 1).await;
    let unreadable = ["dst/app:v1".to_owned(), "unreadable".to_owned(), layer.to_string()];
    assert_eq!(faults(&report), [unreadable]);
    assert_eq!(report["rules"][0]["unrepaired"], json!([]), "{report}");
    json_of(&home, &["verify", "--deep"], 0).await;
    pair.assert_same("app", "app", &["v1"]).await;
}

#[tokio::test]
async fn verify_finds_and_mends_a_manifest_whose_bytes_are_gone() {
    let sample = crate::support::images::attested_index(1);
    let (mut pair, home) = synced(&sample).await;
    let child = sample.children[0].digest();
    pair.destination.kill();
    std::fs::remove_file(stored(&pair.destination, &child)).expect("the manifest's file");
    pair.destination.restart().await;
    let report = json_of(&home, &["verify"], 1).await;
    assert_eq!(
        faults(&report)
            .iter()
            .map(|fault| fault[1].as_str())
            .collect::<Vec<_>>(),
        ["manifest_missing"; 2]
    );
    json_of(&home, &["verify", "--repair"], 1).await;
    json_of(&home, &["verify", "--deep"], 0).await;
    pair.assert_same("app", "app", &["v1", "v2"]).await;
}

#[tokio::test]
async fn verify_counts_what_the_rule_keeps_apart_from_what_it_compares() {
    let pair = Pair::start().await;
    let sample = image(1, "amd64", &[5000]);
    for tag in ["v1", "v2", "v3"] {
        pair.at_source().push("app", tag, &sample).await;
    }
    // One that another wrote, and one that moves on at the source.
    let theirs = image(2, "amd64", &[10]);
    pair.at_destination().push("app", "v1", &theirs).await;
    let home = Transship::new(&pair.rules(&app("    on_conflict: keep\n    moved_tags: keep\n")));
    home.run(&["sync"]).await.expect(0);
    pair.at_source().push("app", "v2", &image(3, "amd64", &[10])).await;
    let report = json_of(&home, &["verify", "--repair"], 0).await;
    let rule = &report["rules"][0];
    assert_eq!(
        [&rule["images"], &rule["kept"], &rule["skipped"], &rule["gone"]].map(Value::as_u64),
        [Some(1), Some(2), Some(0), Some(0)],
        "{report}"
    );
    assert_eq!((&rule["findings"], &rule["repaired"]), (&json!([]), &Value::Null));
    let text = home.run(&["verify"]).await.expect(0).stdout;
    assert!(
        text.contains("app: 1 image, 1 manifest, 2 blobs seen; 2 kept by the rule; no fault"),
        "{text}"
    );
    assert_eq!(pair.at_destination().resolve("app", "v1").await, Some(theirs.digest()));
}
