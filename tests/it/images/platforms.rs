//! `platforms:` cuts an index down to what is wanted, always to the same bytes.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use transship::oci::Digest;

use crate::support::command::Transship;
use crate::support::compare::{Reader, Side, assert_same_images};
use crate::support::ends::{Ends, images, sync};
use crate::support::images::{self as samples, SampleImage, image};

const AMD64: &str = "    repositories: [a]\n    platforms: [linux/amd64]\n";

/// An attested index written by hand: odd spaces, a number that no program writes so, fields nobody knows. Also what
/// it is without arm64 and its attestation: the same text, less these entries.
fn odd_index() -> (SampleImage, Bytes) {
    let mut sample = samples::attested_index(1);
    let document: Value = serde_json::from_slice(&sample.manifest).expect("a manifest");
    let entries: Vec<String> = document["manifests"]
        .as_array()
        .expect("entries")
        .iter()
        .map(Value::to_string)
        .collect();
    let text = |entries: &[&str]| {
        let entries = entries.join(" ,\n   ");
        Bytes::from(format!(
            "{{ \"schemaVersion\" : 2,\n \"x-unknown\": 1.50e2, \"manifests\" : [\n {entries}\n ] ,\t\
             \"mediaType\":\"application/vnd.oci.image.index.v1+json\" }}\n"
        ))
    };
    let all: Vec<&str> = entries.iter().map(String::as_str).collect();
    sample.manifest = text(&all);
    (sample, text(&all[..2]))
}

pub(super) fn lose_state(home: &Transship) {
    for entry in std::fs::read_dir(home.home()).expect("a home") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("transship.db") {
            std::fs::remove_file(&path).expect("removable");
        }
    }
    assert!(!home.state().exists());
}

#[tokio::test]
async fn only_the_wanted_platforms_arrive_and_a_lost_state_copies_nothing_again() {
    let ends = Ends::plain().await;
    let (sample, expected) = odd_index();
    ends.src_wire().push("a", "v1", &sample).await;
    let home = ends.home(AMD64);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    let expected = Digest::of(&expected);
    assert_eq!(ends.dst_wire().resolve("a", "v1").await, Some(expected.clone()));
    assert_eq!(run["changes"][0]["digest"], expected.to_string());

    // Of amd64 everything, attestation included; of arm64 nothing.
    let (src, dst) = (ends.src_side("a"), ends.dst_side("a"));
    let digests: Vec<String> = sample.children.iter().map(|child| child.digest().to_string()).collect();
    assert_same_images(&src, &dst, &[&digests[0], &digests[1]], Reader::Skopeo).await;
    assert_same_images(&dst, &dst, &["v1"], Reader::OciClient).await;
    for child in &sample.children[2..] {
        let digest = child.digest().to_string();
        assert_eq!(ends.dst_wire().resolve("a", &digest).await, None);
    }
    let unwanted = Digest::of(&sample.children[2].blobs[1]);
    let path = format!("/v2/a/blobs/{unwanted}");
    ends.dst_wire().send(Method::HEAD, &path, &[], "").await.expect(404);
    assert_eq!(ends.src_proxy.count("*", unwanted.hex()), 0);

    ends.forget().await;
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 1, "{run:#}");
    ends.assert_nothing_moved();

    lose_state(&home);
    ends.forget().await;
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 1, "{run:#}");
    ends.assert_nothing_moved();
}

#[tokio::test]
async fn a_missing_platform_is_a_warning_and_none_at_all_is_skipped() {
    let ends = Ends::plain().await;
    let wire = ends.src_wire();
    wire.push("a", "both", &samples::two_platforms(1, &[100])).await;
    wire.push("a", "helm", &samples::helm_chart(2)).await;
    wire.push("a", "nested", &samples::nested_index(3)).await;
    let arm = samples::index(vec![image(20, "arm64", &[50])], &["linux/arm64"]);
    wire.push("a", "only-arm-index", &arm).await;
    wire.push("a", "only-arm-image", &image(30, "arm64", &[50])).await;
    wire.push("a", "amd-image", &image(31, "amd64", &[50])).await;
    let home = ends.home("    repositories: [a]\n    platforms: [linux/amd64, linux/s390x]\n");
    // `nested` offers riscv64 and an index without a platform, of which nobody can say what it holds.
    let (run, output) = sync(&home, 0).await;
    let skipped: Vec<&str> = run["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|change| change["outcome"] == "skipped")
        .filter_map(|change| change["source"].as_str())
        .collect();
    for tag in ["only-arm-index", "only-arm-image"] {
        assert!(skipped.contains(&format!("src/a:{tag}").as_str()), "{run:#}");
        assert_eq!(ends.dst_wire().resolve("a", tag).await, None);
    }
    let warned = |tag: &str| {
        let line = output
            .stderr
            .lines()
            .find(|line| line.contains(&format!("src/a:{tag} ")));
        line.is_some_and(|line| line.contains("linux/s390x"))
    };
    assert!(warned("both"), "{}", output.stderr);
    assert!(!warned("helm"), "{}", output.stderr);
    let (src, dst) = (ends.src_side("a"), ends.dst_side("a"));
    assert_same_images(&src, &dst, &["helm", "amd-image"], Reader::OciClient).await;
    assert_same_images(&dst, &dst, &["both"], Reader::OciClient).await;
    assert_eq!(run["failures"], json!([]));

    ends.forget().await;
    let (again, _) = sync(&home, 0).await;
    assert_eq!(images(&again, "skipped"), images(&run, "skipped"));
    assert_eq!(images(&again, "copied"), 0, "{again:#}");
    ends.assert_nothing_moved();
}

#[tokio::test]
async fn an_index_that_has_only_what_is_wanted_stays_as_it_is() {
    let ends = Ends::plain().await;
    let sample = samples::two_platforms(1, &[100]);
    ends.src_wire().push("a", "v1", &sample).await;
    let home = ends.home("    repositories: [a]\n    platforms: [linux/amd64, linux/arm64]\n");
    sync(&home, 0).await;
    let (src, dst) = (ends.src_side("a"), Side::new(ends.dst.host(), "a"));
    assert_same_images(&src, &dst, &["v1"], Reader::OciClient).await;
    assert_eq!(ends.dst_wire().resolve("a", "v1").await, Some(sample.digest()));
}
