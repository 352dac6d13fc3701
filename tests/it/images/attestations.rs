//! `attestations: strip` takes BuildKit's attestations out of an index, always to the same bytes.

use bytes::Bytes;
use serde_json::{Value, json};
use transship::oci::Digest;
use transship::oci::media_type::{BUILDKIT_ATTESTATION, OCI_INDEX};

use super::platforms::lose_state;
use crate::support::compare::{Reader, assert_same_images};
use crate::support::docker_registry::DockerConfig;
use crate::support::ends::{Ends, images, sync};
use crate::support::images::{self as samples, SampleImage, image};

const KEEP: &str = "    repositories: [a]\n    retry: { attempts: 1 }\n";
const STRIP: &str = "    repositories: [a]\n    retry: { attempts: 1 }\n    attestations: strip\n";

/// What buildx makes by default: an image for each platform, and for each an attestation as an artifact with an empty config
/// that refers to it. Also what is left of the index without them.
fn buildx_index(seed: u64) -> (SampleImage, Bytes) {
    let (mut entries, mut attestations, mut children) = (Vec::new(), Vec::new(), Vec::new());
    for (offset, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
        let child = image(seed + offset as u64, architecture, &[400]);
        let attestation = samples::referrer(&child, BUILDKIT_ATTESTATION, seed + 50 + offset as u64);
        entries.push(json!({
            "mediaType": child.media_type, "digest": child.digest(), "size": child.manifest.len(),
            "platform": { "architecture": architecture, "os": "linux" },
        }));
        attestations.push(json!({
            "mediaType": attestation.media_type, "digest": attestation.digest(), "size": attestation.manifest.len(),
            "annotations": {
                "vnd.docker.reference.digest": child.digest(), "vnd.docker.reference.type": "attestation-manifest",
            },
            "platform": { "architecture": "unknown", "os": "unknown" },
        }));
        children.extend([child, attestation]);
    }
    // As buildx writes it: two spaces of indentation, attestations behind the images.
    let text = |entries: &[Value]| {
        let entries: Vec<String> = entries.iter().map(Value::to_string).collect();
        let entries = entries.join(",\n    ");
        Bytes::from(format!(
            "{{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"{OCI_INDEX}\",\n  \"manifests\": [\n    {entries}\n  ]\n}}"
        ))
    };
    let without = text(&entries);
    entries.extend(attestations);
    let manifest = text(&entries);
    let index = SampleImage {
        manifest,
        media_type: OCI_INDEX,
        blobs: Vec::new(),
        children,
    };
    (index, without)
}

fn verify_findings(report: &Value) -> &[Value] {
    report["rules"][0]["findings"].as_array().expect("findings")
}

#[tokio::test]
async fn stripped_attestations_stay_behind_and_later_runs_have_nothing_to_do() {
    let ends = Ends::plain().await;
    let (sample, expected) = buildx_index(1);
    let wire = ends.src_wire();
    wire.push("a", "v1", &sample).await;
    wire.push("a", "plain", &image(9, "amd64", &[100])).await;
    // The same attestations, found as referrers of the images; a scan's report stays.
    for child in [0, 2] {
        let report = samples::referrer(
            &sample.children[child],
            "application/vnd.example.report",
            70 + child as u64,
        );
        let of = &sample.children[child];
        let listed = samples::fallback_index(vec![sample.children[child + 1].clone(), report]);
        wire.push("a", of.digest().fallback_tag().as_str(), &listed).await;
    }
    let home = ends.home(STRIP);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 2, "{run:#}");
    let expected = Digest::of(&expected);
    assert_eq!(ends.dst_wire().resolve("a", "v1").await, Some(expected));

    let (src, dst) = (ends.src_side("a"), ends.dst_side("a"));
    let digest = |child: usize| sample.children[child].digest().to_string();
    assert_same_images(&src, &dst, &[&digest(0), &digest(2), "plain"], Reader::Skopeo).await;
    assert_same_images(&dst, &dst, &["v1"], Reader::OciClient).await;
    for child in [1, 3] {
        assert_eq!(ends.dst_wire().resolve("a", &digest(child)).await, None);
        assert_eq!(ends.src_proxy.count("*", sample.children[child].digest().hex()), 0);
    }
    let referrers = sample.children[0].digest().fallback_tag();
    let path = format!("/v2/a/manifests/{referrers}");
    let listed = ends.dst_wire().get(&path, &[("accept", OCI_INDEX)]).await.expect(200);
    let listed: Value = serde_json::from_slice(&listed.body).expect("an index");
    assert_eq!(listed["manifests"].as_array().map(Vec::len), Some(1), "{listed:#}");
    assert_eq!(listed["manifests"][0]["artifactType"], "application/vnd.example.report");

    for forgetful in [false, true] {
        if forgetful {
            lose_state(&home);
        }
        ends.forget().await;
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, "in_step"), 2, "{run:#}");
        ends.assert_nothing_moved();
    }
    let report = home
        .run(&["verify", "--deep", "--format", "json"])
        .await
        .expect(0)
        .json();
    assert_eq!(verify_findings(&report), [] as [Value; 0]);
}

#[tokio::test]
async fn a_registry_for_images_only_says_so_and_strip_is_the_way_out() {
    let images_only = DockerConfig {
        images_only: true,
        ..DockerConfig::default()
    };
    let ends = Ends::start(DockerConfig::default(), images_only).await;
    let (sample, expected) = buildx_index(1);
    ends.src_wire().push("a", "v1", &sample).await;
    ends.src_wire().push("a", "chart", &samples::helm_chart(7)).await;
    let home = ends.home(KEEP);
    let (run, _) = sync(&home, 1).await;
    let failures = run["failures"].as_array().expect("a list");
    let of = |tag: &str| {
        let place = format!("dst/a:{tag}");
        let found = failures.iter().find(|failure| failure["destination"] == place);
        found.unwrap_or_else(|| panic!("{run:#}"))
    };
    let message = of("v1")["message"].as_str().expect("a message");
    assert!(
        message.contains("unknown manifest class") && message.contains("attestations: strip"),
        "{message}"
    );
    assert_eq!(
        (&of("v1")["kind"], &of("v1")["attempts"]),
        (&json!("unsupported"), &json!(1))
    );
    let message = of("chart")["message"].as_str().expect("a message");
    assert!(
        message.contains("takes images only") && !message.contains("strip"),
        "{message}"
    );

    home.set_rules(&crate::support::ends::rules(
        &ends.src_proxy.url(),
        &ends.dst_proxy.url(),
        &format!("{STRIP}    tags: {{ include: [v1] }}\n"),
    ));
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert_eq!(ends.dst_wire().resolve("a", "v1").await, Some(Digest::of(&expected)));
}

#[tokio::test]
async fn a_copy_by_hand_strips_indexes_within_an_index_and_their_attestations_stay_behind() {
    let images_only = DockerConfig {
        images_only: true,
        ..DockerConfig::default()
    };
    let ends = Ends::start(DockerConfig::default(), images_only).await;
    let (inner, inner_left) = buildx_index(1);
    let children: Vec<_> = [0, 2].map(|child| inner.children[child].digest()).into();
    let attestations: Vec<_> = [1, 3].map(|child| inner.children[child].digest()).into();
    let describe = |bytes: &Bytes| json!({ "mediaType": OCI_INDEX, "digest": Digest::of(bytes), "size": bytes.len() });
    let top = |inner: &Bytes| {
        let entry = describe(inner);
        Bytes::from(format!(
            "{{\n \"schemaVersion\": 2, \"mediaType\": \"{OCI_INDEX}\",\n \"manifests\": [ {entry} ]\n}}\n"
        ))
    };
    let (sample, expected) = (top(&inner.manifest), Digest::of(&top(&inner_left)));
    let sample = SampleImage {
        manifest: sample,
        media_type: OCI_INDEX,
        blobs: Vec::new(),
        children: vec![inner],
    };
    ends.src_wire().push("a", "v1", &sample).await;
    let home = ends.home(STRIP);
    let from = format!("{}/a:v1", ends.src_proxy.url());
    let to = format!("{}/a:v1", ends.dst_proxy.url());

    let refused = home
        .run(&["copy", &from, &to, "--format", "json"])
        .await
        .expect(1)
        .json();
    let message = refused["runs"][0]["failures"][0]["message"]
        .as_str()
        .expect("a message");
    assert!(
        message.contains("`attestations: strip` in the rule") && message.contains("--attestations strip"),
        "{message}"
    );

    home.run(&["copy", &from, &to, "--attestations", "strip"])
        .await
        .expect(0);
    let wire = ends.dst_wire();
    assert_eq!(wire.resolve("a", "v1").await, Some(expected.clone()));
    assert_eq!(
        wire.resolve("a", &Digest::of(&inner_left).to_string()).await,
        Some(Digest::of(&inner_left))
    );
    for child in &children {
        assert_eq!(wire.resolve("a", &child.to_string()).await.as_ref(), Some(child));
    }
    for attestation in &attestations {
        assert_eq!(wire.resolve("a", &attestation.to_string()).await, None);
    }
    // A rule comes to the same, and so does a look after it.
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 1, "{run:#}");
    assert_eq!(wire.resolve("a", "v1").await, Some(expected));
    home.run(&["verify", "--deep"]).await.expect(0);
}
