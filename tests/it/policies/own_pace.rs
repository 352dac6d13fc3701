//! Each of several destinations goes its own way: the quick one has its images, with their tags, signatures and records, while the
//! slow one is still busy.

use serde_json::json;

use super::destinations::{both, third};
use super::{json_of, outcomes};
use crate::support::command::Transship;
use crate::support::images::{cosign_signature, image};
use crate::support::pair::Pair;
use crate::support::proxy::{Act, Fault, Gate, Proxy};
use crate::support::wire::Wire;
use crate::sync::only_run;

/// Everything that would write a blob's bytes to `far` waits for the gate.
fn hold(far: &Proxy) -> Gate {
    let gate = Gate::new();
    for method in ["PUT", "PATCH"] {
        let held = Act::HoldRequest(1000, gate.clone());
        far.add(Fault::every(method, "/blobs/uploads/", held));
    }
    gate
}

/// Waits until the destination has answered that it has the tag.
async fn tagged(destination: &Proxy, tag: &str) {
    let path = format!("/manifests/{tag}");
    destination
        .wait_for("the tag", |all| {
            all.iter().any(|exchange| exchange.is("PUT", &path) && exchange.done)
        })
        .await;
}

#[tokio::test]
async fn the_tag_its_signature_and_its_record_wait_for_no_other_destination() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[300_000, 20]);
    let source = pair.at_source();
    source.push("app", "v1", &sample).await;
    let (tag, signature) = cosign_signature("app", &sample.digest());
    source.push("app", tag.as_str(), &signature).await;
    let gate = hold(&far);
    let home = Transship::new(&both(&pair, &far, ""));
    let process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "v1").await;
    tagged(&pair.dst, tag.as_str()).await;
    let records = loop {
        let jobs = json_of(&home, &["jobs"], 0).await;
        let of = |registry: &str| {
            let jobs = jobs["jobs"].as_array().expect("a list of jobs");
            let of = jobs.iter().find(|job| job["destination_registry"] == registry);
            of.expect("a job")["outcome"].clone()
        };
        if !of("dst").is_null() {
            break (of("dst"), of("far"));
        }
    };
    assert_eq!(records, (json!("copied"), json!(null)));
    assert_eq!(Wire::new(&registry.url()).resolve("app", "v1").await, None);
    gate.open();
    let report = process.finish().await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", 1)], vec![("copied", 1)])
    );
    for tag in ["v1", tag.as_str()] {
        let there = Wire::new(&registry.url()).resolve("app", tag).await;
        assert_eq!(there, source.resolve("app", tag).await, "{tag}");
    }
    let bytes: usize = sample.blobs.iter().map(bytes::Bytes::len).sum();
    let read = pair.src.response_bytes("GET", "/blobs/");
    let signed: usize = signature.blobs.iter().map(bytes::Bytes::len).sum();
    assert!(read <= (bytes + 2 * signed) as u64, "one read for both: {read}");
}

#[tokio::test]
async fn an_upload_that_does_not_open_is_not_waited_for() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[300_000, 20]);
    pair.at_source().push("app", "v1", &sample).await;
    let gate = Gate::new();
    far.add(Fault::every("POST", "/blobs/uploads/", Act::HoldReply(gate.clone())));
    let home = Transship::new(&both(&pair, &far, ""));
    let process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "v1").await;
    assert_eq!(far.request_bytes("*", "/blobs/uploads/"), 0);
    gate.open();
    process.finish().await.expect(0);
    pair.assert_same("app", "app", &["v1"]).await;
    assert_eq!(
        Wire::new(&registry.url()).resolve("app", "v1").await,
        Some(sample.digest())
    );
}

#[tokio::test]
async fn a_failed_attempt_is_made_again_while_another_destination_is_slow() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[300_000]);
    pair.at_source().push("app", "v1", &sample).await;
    let gate = hold(&far);
    let layer = sample.blobs.iter().map(bytes::Bytes::len).max().expect("a layer");
    // Of each blob the first attempt breaks.
    let cut = Act::CutRequest(layer as u64 / 2);
    pair.dst.add(Fault::times(1, "PUT", "/blobs/uploads/", cut.clone()));
    pair.dst.add(Fault::times(1, "PATCH", "/blobs/uploads/", cut));
    let home = Transship::new(&both(&pair, &far, ""));
    let process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "v1").await;
    assert_eq!(Wire::new(&registry.url()).resolve("app", "v1").await, None);
    gate.open();
    let report = process.finish().await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", 1)], vec![("copied", 1)])
    );
    pair.assert_same("app", "app", &["v1"]).await;
}

#[tokio::test]
async fn who_waits_for_a_blob_of_another_image_waits_for_its_own_destination_only() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    // Both have the same layer: one brings it, the other waits for it.
    let source = pair.at_source();
    let [first, second] = ["amd64", "arm64"].map(|architecture| image(1, architecture, &[300_000]));
    assert_ne!(first.digest(), second.digest());
    source.push("app", "v1", &first).await;
    source.push("app", "v2", &second).await;
    let gate = hold(&far);
    let home = Transship::new(&both(&pair, &far, ""));
    let process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "v1").await;
    tagged(&pair.dst, "v2").await;
    gate.open();
    process.finish().await.expect(0);
    for (tag, sample) in [("v1", &first), ("v2", &second)] {
        let there = Wire::new(&registry.url()).resolve("app", tag).await;
        assert_eq!(there, Some(sample.digest()));
    }
    let layer = first.blobs.iter().map(bytes::Bytes::len).max().expect("a layer") as u64;
    for to in [&pair.dst, &far] {
        assert!(to.request_bytes("*", "/blobs/uploads/") < 2 * layer, "the layer once");
    }
}

#[tokio::test]
async fn after_a_kill_the_quick_destination_is_in_step_and_only_the_slow_one_is_copied() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[300_000, 20]);
    pair.at_source().push("app", "v1", &sample).await;
    let gate = hold(&far);
    let home = Transship::new(&both(&pair, &far, ""));
    let mut process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "v1").await;
    process.kill();
    gate.open();
    far.heal();
    pair.dst.reset();
    let report = json_of(&home, &["sync"], 0).await;
    let run = report["runs"]
        .as_array()
        .and_then(|runs| runs.last())
        .expect("a run")
        .clone();
    assert_eq!(
        (outcomes(&run, 0), outcomes(&run, 1)),
        (vec![("in_step", 1)], vec![("copied", 1)])
    );
    assert_eq!(pair.dst.request_bytes("*", "/blobs/uploads/"), 0);
    assert_eq!(
        Wire::new(&registry.url()).resolve("app", "v1").await,
        Some(sample.digest())
    );
}

#[tokio::test]
async fn many_images_are_at_the_quick_destination_long_before_they_are_at_the_slow_one() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let source = pair.at_source();
    const IMAGES: usize = 60;
    for number in 0..IMAGES {
        let sample = image(number as u64, "amd64", &[1_000_000]);
        source.push("app", &format!("v{number}"), &sample).await;
    }
    // A minute for all.
    let slow = format!("{}\", limits: {{ bandwidth: 1MiB }} }}", far.url());
    let rules = both(&pair, &far, "").replace(&format!("{}\" }}", far.url()), &slow);
    let home = Transship::new(&rules);
    let mut process = home.spawn(&["sync", "--format", "json"]);
    pair.dst
        .wait_for("all tags at the quick destination", |all| {
            let tags = all
                .iter()
                .filter(|exchange| exchange.is("PUT", "/manifests/v") && exchange.done);
            tags.count() == IMAGES
        })
        .await;
    let at_far = far.count("PUT", "/manifests/v");
    assert!(
        at_far < IMAGES * 2 / 3,
        "the quick one waited for it: {at_far} of {IMAGES}"
    );
    // What the slow one has begun is not lost by its having been left behind.
    process.kill();
    let fast = both(&pair, &far, "");
    home.set_rules(&fast);
    json_of(&home, &["sync"], 0).await;
    let there = Wire::new(&registry.url());
    for number in 0..IMAGES {
        let tag = format!("v{number}");
        assert_eq!(there.resolve("app", &tag).await, source.resolve("app", &tag).await);
    }
}
