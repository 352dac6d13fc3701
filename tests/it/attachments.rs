//! Signatures, attestations, SBOMs and other referrers travel with the image that they name.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Value, json};
use transship::demo::registry::{Options, Registry, Running};
use transship::oci::{AttachmentKind, AttachmentTag, Digest, RepositoryName, Tag};

use crate::support::command::Transship;
use crate::support::compare::{Reader, Side, assert_same_images};
use crate::support::docker_registry::DockerRegistry;
use crate::support::ends::{Ends, images, rules, sync};
use crate::support::images::{self as samples, SampleImage, image};
use crate::support::proxy::{Act, Exchange, Fault, Gate};
use crate::support::wire::Wire;

const RULE: &str = "    repositories: [a]\n    retry: { attempts: 1 }\n";

fn tag(subject: &Digest, kind: AttachmentKind) -> String {
    let subject = subject.clone();
    AttachmentTag { subject, kind }.tag().to_string()
}

async fn sign(wire: &Wire, subject: &Digest) -> String {
    let (tag, signature) = samples::cosign_signature("a", subject);
    wire.push("a", tag.as_str(), &signature).await;
    tag.to_string()
}

/// Pushes referrers and lists them under the fallback tag, as clients do at registries without the API.
async fn refer(wire: &Wire, subject: &SampleImage, referrers: Vec<SampleImage>) -> String {
    let fallback = subject.digest().fallback_tag().to_string();
    wire.push("a", &fallback, &samples::fallback_index(referrers)).await;
    fallback
}

/// The digests that a fallback tag lists, with their artifact types.
async fn listed(wire: &Wire, tag: &str) -> BTreeSet<(String, String)> {
    let accept = [("accept", transship::oci::media_type::OCI_INDEX)];
    let index = wire.get(&format!("/v2/a/manifests/{tag}"), &accept).await.expect(200);
    entries(&index.json())
}

fn entries(index: &Value) -> BTreeSet<(String, String)> {
    let entries = index["manifests"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let pairs = entries
        .iter()
        .map(|entry| (text(entry, "digest"), text(entry, "artifactType")));
    pairs.collect()
}

fn expected(referrers: &[&SampleImage]) -> BTreeSet<(String, String)> {
    let each = referrers.iter().map(|referrer| {
        let document: Value = serde_json::from_slice(&referrer.manifest).expect("a manifest");
        let kind = document["artifactType"].as_str().unwrap_or_default();
        (referrer.digest().to_string(), kind.to_owned())
    });
    each.collect()
}

#[tokio::test]
async fn attachments_of_an_image_an_index_and_its_children_travel_along() {
    let ends = Ends::plain().await;
    let wire = ends.src_wire();
    let (plain, index) = (image(1, "amd64", &[300]), samples::two_platforms(2, &[200]));
    wire.push("a", "plain", &plain).await;
    wire.push("a", "index", &index).await;
    let mut tags = vec![
        sign(&wire, &plain.digest()).await,
        sign(&wire, &index.digest()).await,
        sign(&wire, &index.children[1].digest()).await,
    ];
    for (kind, seed) in [(AttachmentKind::Attestation, 31), (AttachmentKind::Sbom, 32)] {
        let name = tag(&plain.digest(), kind);
        wire.push(
            "a",
            &name,
            &samples::artifact("application/x.attached", &samples::noise(seed, 50)),
        )
        .await;
        tags.push(name);
    }
    // Names something that is not there.
    let orphan = sign(&wire, &Digest::of(b"nobody")).await;

    // `**` and `/sha/` would match the tags of attachments, if these were tags.
    let home = ends.home(&format!("{RULE}    tags: {{ include: [\"*\", \"/sha256/\"] }}\n"));
    let (run, output) = sync(&home, 0).await;
    assert_eq!(run["outcome"], "ok");
    assert_eq!(run["source"]["tags_listed"], 2, "attachments are no tags: {run:#}");
    assert_eq!(run["source"]["tags_selected"], 2);
    assert_eq!(images(&run, "copied"), 2);
    assert_eq!(run["changes"].as_array().map(Vec::len), Some(2), "{run:#}");
    let (src, dst) = (ends.src_side("a"), ends.dst_side("a"));
    let names: Vec<&str> = tags.iter().map(String::as_str).collect();
    assert_same_images(&src, &dst, &names, Reader::Skopeo).await;
    assert_same_images(&src, &dst, &["plain", "index"], Reader::OciClient).await;
    assert_eq!(ends.dst_wire().resolve("a", &orphan).await, None);
    assert!(
        !output.stderr.contains("warn") && !output.stderr.contains("WARN"),
        "{}",
        output.stderr
    );

    ends.forget().await;
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 2);
    ends.assert_nothing_moved();
}

#[tokio::test]
async fn attachments_do_not_count_among_the_newest() {
    let ends = Ends::plain().await;
    let wire = ends.src_wire();
    for (name, seed) in [("v1", 1), ("v2", 2), ("v3", 3)] {
        let sample = image(seed, "amd64", &[60]);
        wire.push("a", name, &sample).await;
        sign(&wire, &sample.digest()).await;
    }
    let home = ends.home(&format!("{RULE}    tags: {{ newest: {{ count: 2, by: name }} }}\n"));
    let (run, _) = sync(&home, 0).await;
    assert_eq!(
        (&run["source"]["tags_listed"], &run["source"]["tags_selected"]),
        (&json!(3), &json!(2))
    );
    let there = ends.dst_wire().tags("a").await;
    let signatures = [2, 3].map(|seed| tag(&image(seed, "amd64", &[60]).digest(), AttachmentKind::Signature));
    let wanted = BTreeSet::from(["v2".to_owned(), "v3".to_owned()])
        .into_iter()
        .chain(signatures);
    assert_eq!(there.into_iter().collect::<BTreeSet<_>>(), wanted.collect());
}

#[tokio::test]
async fn fallback_tags_become_the_union_of_both_ends() {
    let ends = Ends::plain().await;
    let (src, dst) = (ends.src_wire(), ends.dst_wire());
    let index = samples::two_platforms(1, &[100]);
    let child = &index.children[0];
    let sbom = samples::referrer(&index, "application/x.sbom", 11);
    let scan = samples::referrer(&index, "application/x.scan", 12);
    let of_child = samples::referrer(child, "application/x.sbom", 13);
    let of_sbom = samples::referrer(&sbom, "application/x.signature", 14);
    src.push("a", "v1", &index).await;
    let fallback = refer(&src, &index, vec![sbom.clone(), scan.clone()]).await;
    let child_fallback = refer(&src, child, vec![of_child.clone()]).await;
    let sbom_fallback = refer(&src, &sbom, vec![of_sbom.clone()]).await;
    // The destination has one of these and one of its own.
    let local = samples::referrer(&index, "application/x.local", 15);
    refer(&dst, &index, vec![local.clone(), scan.clone()]).await;

    let home = ends.home(RULE);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert_eq!(run["source"]["tags_listed"], 1);
    assert_eq!(listed(&dst, &fallback).await, expected(&[&local, &scan, &sbom]));
    assert_eq!(listed(&dst, &child_fallback).await, expected(&[&of_child]));
    assert_eq!(listed(&dst, &sbom_fallback).await, expected(&[&of_sbom]));
    let referrers: Vec<String> = [&sbom, &scan, &of_child, &of_sbom]
        .iter()
        .map(|referrer| referrer.digest().to_string())
        .collect();
    let referrers: Vec<&str> = referrers.iter().map(String::as_str).collect();
    assert_same_images(&ends.src_side("a"), &ends.dst_side("a"), &referrers, Reader::Skopeo).await;

    ends.forget().await;
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 1);
    ends.assert_nothing_moved();
}

/// A put that failed is repeated seconds or minutes later: what others have listed meanwhile must not go.
#[tokio::test]
async fn a_fallback_tag_is_read_again_before_a_put_that_failed_is_repeated() {
    let ends = Ends::plain().await;
    let (src, dst) = (ends.src_wire(), ends.dst_wire());
    let sample = image(1, "amd64", &[100]);
    let sbom = samples::referrer(&sample, "application/x.sbom", 11);
    let (first, second) = (
        samples::referrer(&sample, "application/x.local", 12),
        samples::referrer(&sample, "application/x.scan", 13),
    );
    src.push("a", "v1", &sample).await;
    let fallback = refer(&src, &sample, vec![sbom.clone()]).await;
    refer(&dst, &sample, vec![first.clone()]).await;
    let (path, gate) = (format!("/manifests/{fallback}"), Gate::new());
    let busy = Act::Answer(StatusCode::SERVICE_UNAVAILABLE, None);
    ends.dst_proxy.add(Fault::nth(1, "PUT", &path, busy));
    // Whatever follows a read and the put that failed.
    ends.dst_proxy
        .add(Fault::nth(3, "*", &path, Act::HoldBefore(gate.clone())));
    let home = ends.home("    repositories: [a]\n    retry: { attempts: 2 }\n");
    let syncing = sync(&home, 0);
    let listing = async {
        let held = |all: &[Exchange]| all.iter().any(|exchange| exchange.held);
        ends.dst_proxy.wait_for("something follows the put", held).await;
        refer(&dst, &sample, vec![first.clone(), second.clone()]).await;
        gate.open();
    };
    let ((run, _), ()) = tokio::join!(syncing, listing);
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert_eq!(listed(&dst, &fallback).await, expected(&[&first, &second, &sbom]));
}

/// What is attached later to an image that cannot be read any more at the source is missed, and that is said.
#[tokio::test]
async fn attachments_that_cannot_be_looked_for_are_a_warning_each_time() {
    let ends = Ends::plain().await;
    let index = samples::two_platforms(1, &[100]);
    ends.src_wire().push("a", "v1", &index).await;
    let home = ends.home(RULE);
    sync(&home, 0).await;
    // The new state knows no manifest, and the image is in step.
    let home = ends.home(RULE);
    let child = format!("/manifests/{}", index.children[0].digest());
    let missing = Act::Answer(StatusCode::NOT_FOUND, None);
    ends.src_proxy.add(Fault::every("GET", &child, missing));
    for _ in 0..2 {
        let (run, output) = sync(&home, 0).await;
        assert_eq!(images(&run, "in_step"), 1, "{run:#}");
        let warnings = run["warnings"].as_array().expect("warnings");
        let warned = warnings.iter().filter_map(Value::as_str);
        assert_eq!(
            warned
                .filter(|line| line.contains("attachments were not all copied"))
                .count(),
            1,
            "{run:#}\n{}",
            output.stderr
        );
    }
}

async fn with_api() -> Running {
    let options = Options {
        referrers_api: true,
        ..Options::default()
    };
    Registry::start(options).await.expect("a registry")
}

async fn by_api(registry: &Running, subject: &Digest) -> BTreeSet<(String, String)> {
    let path = format!("/v2/a/referrers/{subject}");
    entries(&Wire::new(&registry.url()).get(&path, &[]).await.expect(200).json())
}

#[tokio::test]
async fn referrers_of_an_api_are_listed_under_the_fallback_tag_where_there_is_none() {
    let (src, dst) = (with_api().await, DockerRegistry::plain().await);
    let wire = Wire::new(&src.url());
    let subject = image(1, "amd64", &[100]);
    let referrers = [("application/x.sbom", 2), ("application/x.scan", 3)]
        .map(|(kind, seed)| samples::referrer(&subject, kind, seed));
    wire.push("a", "v1", &subject).await;
    for referrer in &referrers {
        wire.push_untagged("a", referrer).await;
    }
    let all: Vec<&SampleImage> = referrers.iter().collect();
    assert_eq!(by_api(&src, &subject.digest()).await, expected(&all));
    let home = Transship::new(&rules(&src.url(), &dst.url(), RULE));
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    let fallback = subject.digest().fallback_tag().to_string();
    assert_eq!(listed(&Wire::new(&dst.url()), &fallback).await, expected(&all));
    let sides = (Side::new(&src.addr().to_string(), "a"), Side::new(dst.host(), "a"));
    for referrer in &referrers {
        let digest = referrer.digest().to_string();
        assert_same_images(&sides.0, &sides.1, &["v1", &digest], Reader::OciClient).await;
    }
}

#[tokio::test]
async fn referrers_of_a_fallback_tag_are_listed_by_the_api_where_there_is_one() {
    let (src, dst) = (DockerRegistry::plain().await, with_api().await);
    let wire = Wire::new(&src.url());
    let subject = samples::two_platforms(1, &[100]);
    let sbom = samples::referrer(&subject, "application/x.sbom", 2);
    let of_child = samples::referrer(&subject.children[1], "application/x.scan", 3);
    wire.push("a", "v1", &subject).await;
    refer(&wire, &subject, vec![sbom.clone()]).await;
    refer(&wire, &subject.children[1], vec![of_child.clone()]).await;
    let home = Transship::new(&rules(&src.url(), &dst.url(), RULE));
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert_eq!(by_api(&dst, &subject.digest()).await, expected(&[&sbom]));
    assert_eq!(
        by_api(&dst, &subject.children[1].digest()).await,
        expected(&[&of_child])
    );
    let name: RepositoryName = "a".parse().expect("a name");
    let v1: Tag = "v1".parse().expect("a tag");
    assert_eq!(dst.tags(&name), [v1], "no fallback tags beside the API");
}

#[tokio::test]
async fn a_signature_added_later_comes_with_the_next_sync() {
    let ends = Ends::plain().await;
    let sample = image(1, "amd64", &[100]);
    ends.src_wire().push("a", "v1", &sample).await;
    let home = ends.home(RULE);
    sync(&home, 0).await;
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 1);
    let signature = sign(&ends.src_wire(), &sample.digest()).await;
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 1, "{run:#}");
    let (src, dst) = (ends.src_side("a"), ends.dst_side("a"));
    assert_same_images(&src, &dst, &["v1", &signature], Reader::OciClient).await;
}

#[tokio::test]
async fn a_failed_attachment_is_a_warning_and_is_tried_again() {
    let ends = Ends::plain().await;
    let sample = image(1, "amd64", &[100]);
    ends.src_wire().push("a", "v1", &sample).await;
    let signature = sign(&ends.src_wire(), &sample.digest()).await;
    let path = format!("/manifests/{signature}");
    let refused = Act::Answer(StatusCode::FORBIDDEN, None);
    ends.dst_proxy.add(Fault::every("PUT", &path, refused));
    let home = ends.home(RULE);
    let (run, output) = sync(&home, 0).await;
    assert_eq!((&run["outcome"], images(&run, "copied")), (&json!("ok"), 1), "{run:#}");
    assert!(
        output.stderr.contains("attachments were not all copied"),
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains(&signature), "{}", output.stderr);
    assert_eq!(ends.dst_wire().resolve("a", "v1").await, Some(sample.digest()));
    assert_eq!(ends.dst_wire().resolve("a", &signature).await, None);

    // It stays a warning while it fails, and comes once it can.
    let (_, output) = sync(&home, 0).await;
    assert!(
        output.stderr.contains("attachments were not all copied"),
        "{}",
        output.stderr
    );
    ends.dst_proxy.heal();
    let (run, output) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 1);
    assert!(!output.stderr.contains("attachments"), "{}", output.stderr);
    let (src, dst) = (ends.src_side("a"), ends.dst_side("a"));
    assert_same_images(&src, &dst, &["v1", &signature], Reader::OciClient).await;
}

#[tokio::test]
async fn signatures_of_a_rewritten_index_stay_behind_and_those_of_its_images_do_not() {
    let ends = Ends::plain().await;
    let wire = ends.src_wire();
    let index = samples::two_platforms(1, &[100]);
    wire.push("a", "v1", &index).await;
    let of_index = sign(&wire, &index.digest()).await;
    let of_amd64 = sign(&wire, &index.children[0].digest()).await;
    let of_arm64 = sign(&wire, &index.children[1].digest()).await;
    let home = ends.home(&format!("{RULE}    platforms: [linux/amd64]\n"));
    sync(&home, 0).await;
    let dst = ends.dst_wire();
    assert_eq!(dst.resolve("a", &of_index).await, None);
    assert_eq!(dst.resolve("a", &of_arm64).await, None);
    assert_same_images(
        &ends.src_side("a"),
        &ends.dst_side("a"),
        &[&of_amd64],
        Reader::OciClient,
    )
    .await;

    ends.forget().await;
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 1);
    ends.assert_nothing_moved();
    let reads = |fragment: &str| ends.src_proxy.count("GET", fragment);
    assert_eq!(reads("/manifests/"), 0, "nothing is looked after that cannot come");
}

/// A signature that is not the one that [`sign`] pushes.
fn another_signature() -> SampleImage {
    samples::artifact("application/x.attached", &samples::noise(99, 50))
}

#[tokio::test]
async fn an_attachment_tag_that_somebody_else_wrote_is_overwritten_kept_or_warned_of() {
    for (policy, wins, warns) in [
        ("overwrite", true, false),
        ("keep", false, false),
        ("fail", false, true),
    ] {
        let ends = Ends::plain().await;
        let sample = image(1, "amd64", &[100]);
        ends.src_wire().push("a", "v1", &sample).await;
        let signature = sign(&ends.src_wire(), &sample.digest()).await;
        let attestation = tag(&sample.digest(), AttachmentKind::Attestation);
        let ours = samples::artifact("application/x.attached", &samples::noise(31, 50));
        ends.src_wire().push("a", &attestation, &ours).await;
        ends.dst_wire().push("a", &attestation, &another_signature()).await;
        // What is said of moved tags must not matter here.
        let home = ends.home(&format!("{RULE}    moved_tags: fail\n    on_conflict: {policy}\n"));
        let (run, output) = sync(&home, 0).await;
        assert_eq!((&run["outcome"], images(&run, "copied")), (&json!("ok"), 1), "{run:#}");
        let expected = if wins { &ours } else { &another_signature() };
        let held = ends.dst_wire().resolve("a", &attestation).await;
        assert_eq!(held, Some(expected.digest()), "{policy}");
        let told = output.stderr.contains("attachments were not all copied") && output.stderr.contains(&attestation);
        assert_eq!(told, warns, "{policy}: {}", output.stderr);
        let reported = run["warnings"].to_string();
        assert_eq!(reported.contains(&attestation), warns, "{policy}: {reported}");
        // One that may not be written stops no other.
        let (src, dst) = (ends.src_side("a"), ends.dst_side("a"));
        assert_same_images(&src, &dst, &["v1", &signature], Reader::OciClient).await;
    }
}

#[tokio::test]
async fn an_attachment_tag_that_moved_at_the_source_is_followed_kept_or_warned_of() {
    for (policy, follows, warns) in [("follow", true, false), ("keep", false, false), ("fail", false, true)] {
        let ends = Ends::plain().await;
        let sample = image(1, "amd64", &[100]);
        ends.src_wire().push("a", "v1", &sample).await;
        let signature = sign(&ends.src_wire(), &sample.digest()).await;
        let first = ends.src_wire().resolve("a", &signature).await;
        let home = ends.home(&format!("{RULE}    moved_tags: {policy}\n    on_conflict: fail\n"));
        sync(&home, 0).await;
        assert_eq!(ends.dst_wire().resolve("a", &signature).await, first);
        // Another person signs, which changes the same tag. The SBOM, a new tag, has the image looked after at once.
        ends.src_wire().push("a", &signature, &another_signature()).await;
        let sbom = tag(&sample.digest(), AttachmentKind::Sbom);
        let content = samples::artifact("application/x.attached", &samples::noise(32, 50));
        ends.src_wire().push("a", &sbom, &content).await;
        let (run, output) = sync(&home, 0).await;
        assert_eq!(images(&run, "in_step"), 1, "{run:#}");
        let expected = if follows {
            Some(another_signature().digest())
        } else {
            first
        };
        assert_eq!(ends.dst_wire().resolve("a", &signature).await, expected, "{policy}");
        assert_eq!(
            ends.dst_wire().resolve("a", &sbom).await,
            Some(content.digest()),
            "{policy}"
        );
        let told = output.stderr.contains("attachments were not all copied") && output.stderr.contains(&signature);
        assert_eq!(told, warns, "{policy}: {}", output.stderr);
    }
}
