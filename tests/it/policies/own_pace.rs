//! Each of several destinations goes its own way: the quick one has its images, with their tags, signatures and records, while the
//! slow one is still busy.

use serde_json::json;

use super::destinations::{both, third};
use super::{app, json_of, outcomes};
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

/// A rule from `src` to `dst`, `far` and `slow`.
fn all_three(pair: &Pair, far: &Proxy, slow: &Proxy) -> String {
    let rule = app("").replace("[dst]", "[dst, far, slow]");
    pair.rules_with(&[("far", &far.url()), ("slow", &slow.url())], &rule)
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
async fn many_images_are_at_one_destination_while_the_other_stands_still() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let source = pair.at_source();
    const IMAGES: usize = 60;
    for number in 0..IMAGES {
        let sample = image(number as u64, "amd64", &[1_000_000]);
        source.push("app", &format!("v{number}"), &sample).await;
    }
    let gate = hold(&far);
    let home = Transship::new(&both(&pair, &far, ""));
    let mut process = home.spawn(&["sync", "--format", "json"]);
    pair.dst
        .wait_for("all tags at the quick destination", |all| {
            let tags = all
                .iter()
                .filter(|exchange| exchange.is("PUT", "/manifests/v") && exchange.done);
            tags.count() == IMAGES
        })
        .await;
    assert_eq!(far.count("PUT", "/manifests/"), 0);
    // What the slow one has begun is not lost by its having been left behind.
    process.kill();
    gate.open();
    far.heal();
    json_of(&home, &["sync"], 0).await;
    let there = Wire::new(&registry.url());
    for number in 0..IMAGES {
        let tag = format!("v{number}");
        assert_eq!(there.resolve("app", &tag).await, source.resolve("app", &tag).await);
    }
}

#[tokio::test]
async fn an_image_of_many_layers_is_there_although_each_of_them_is_slow_elsewhere() {
    let pair = Pair::start().await;
    let (_registry, far) = third().await;
    let sample = image(1, "amd64", &[20_000; 20]);
    pair.at_source().push("app", "v1", &sample).await;
    let gate = hold(&far);
    let home = Transship::new(&both(&pair, &far, ""));
    let mut process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "v1").await;
    assert_eq!(far.count("PUT", "/manifests/"), 0);
    process.kill();
    gate.open();
}

#[tokio::test]
async fn an_image_of_many_layers_is_there_although_no_upload_opens_elsewhere() {
    let pair = Pair::start().await;
    let (_registry, far) = third().await;
    let sample = image(1, "amd64", &[20_000; 20]);
    pair.at_source().push("app", "v1", &sample).await;
    let gate = Gate::new();
    far.add(Fault::every("POST", "/blobs/uploads/", Act::HoldReply(gate.clone())));
    let home = Transship::new(&both(&pair, &far, ""));
    let mut process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "v1").await;
    assert_eq!(far.request_bytes("*", "/blobs/uploads/"), 0);
    process.kill();
    gate.open();
}

#[tokio::test]
async fn two_destinations_that_stand_still_in_a_large_blob_do_not_cover_for_each_other() {
    let pair = Pair::start().await;
    let ((_registry, far), (_other, slow)) = (third().await, third().await);
    let sample = image(1, "amd64", &[24_000_000]);
    pair.at_source().push("app", "v1", &sample).await;
    let gates = [hold(&far), hold(&slow)];
    let mut home = Transship::new(&all_three(&pair, &far, &slow));
    home.set_env("RUST_LOG", "transship=info");
    let process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "v1").await;
    gates.iter().for_each(Gate::open);
    far.heal();
    slow.heal();
    let output = process.finish().await.expect(0);
    // Not given up as stalled.
    let left_behind = output.stderr.lines().filter(|line| line.contains("a read of its own"));
    assert_eq!(left_behind.count(), 2, "{}", output.stderr);
}

#[tokio::test]
async fn two_destinations_that_stand_still_leave_the_source_to_the_third() {
    let pair = Pair::start().await;
    let ((registry, far), (other, slow)) = (third().await, third().await);
    let source = pair.at_source();
    const IMAGES: usize = 40;
    for number in 0..IMAGES {
        let sample = image(number as u64, "amd64", &[3_000_000]);
        source.push("app", &format!("v{number}"), &sample).await;
    }
    let gates = [hold(&far), hold(&slow)];
    let home = Transship::new(&all_three(&pair, &far, &slow));
    let process = home.spawn(&["sync", "--format", "json"]);
    pair.dst
        .wait_for("all tags at the quick destination", |all| {
            let tags = all
                .iter()
                .filter(|exchange| exchange.is("PUT", "/manifests/v") && exchange.done);
            tags.count() == IMAGES
        })
        .await;
    assert_eq!(
        (far.count("PUT", "/manifests/"), slow.count("PUT", "/manifests/")),
        (0, 0)
    );
    gates.iter().for_each(Gate::open);
    far.heal();
    slow.heal();
    process.finish().await.expect(0);
    for there in [registry, other] {
        let there = Wire::new(&there.url());
        for number in 0..IMAGES {
            let tag = format!("v{number}");
            assert_eq!(there.resolve("app", &tag).await, source.resolve("app", &tag).await);
        }
    }
}

#[tokio::test]
async fn with_one_place_at_the_source_images_that_share_layers_wait_for_each_other_and_end() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let source = pair.at_source();
    let [first, second] = ["amd64", "arm64"].map(|architecture| image(1, architecture, &[20_000; 12]));
    source.push("app", "v1", &first).await;
    source.push("app", "v2", &second).await;
    let gate = hold(&far);
    let rules = both(&pair, &far, "");
    let limited = rules.replacen("\" }", "\", limits: { concurrency: 2 } }", 1);
    assert_ne!(rules, limited);
    let home = Transship::new(&limited);
    let process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "v1").await;
    tagged(&pair.dst, "v2").await;
    gate.open();
    far.heal();
    process.finish().await.expect(0);
    for (tag, sample) in [("v1", &first), ("v2", &second)] {
        let there = Wire::new(&registry.url()).resolve("app", tag).await;
        assert_eq!(there, Some(sample.digest()));
    }
}

#[tokio::test]
async fn manifests_that_one_destination_does_not_take_hold_up_no_image_of_the_other() {
    let pair = Pair::start().await;
    let (_registry, far) = third().await;
    let source = pair.at_source();
    const IMAGES: usize = 50;
    for number in 0..IMAGES {
        let sample = image(number as u64, "amd64", &[100]);
        source.push("app", &format!("v{number}"), &sample).await;
    }
    let gate = Gate::new();
    far.add(Fault::every("PUT", "/manifests/", Act::HoldBefore(gate.clone())));
    let home = Transship::new(&both(&pair, &far, ""));
    let mut process = home.spawn(&["sync", "--format", "json"]);
    pair.dst
        .wait_for("all tags at the quick destination", |all| {
            let tags = all
                .iter()
                .filter(|exchange| exchange.is("PUT", "/manifests/v") && exchange.done);
            tags.count() == IMAGES
        })
        .await;
    process.kill();
    gate.open();
}

#[tokio::test]
async fn a_new_destination_that_lacks_everything_holds_up_no_new_image_of_the_other() {
    let pair = Pair::start().await;
    let (_registry, far) = third().await;
    let source = pair.at_source();
    for number in 0..80 {
        let sample = image(number, "amd64", &[5_000]);
        source.push("app", &format!("v{number}"), &sample).await;
    }
    let home = Transship::new(&pair.rules(&app("")));
    json_of(&home, &["sync"], 0).await;
    source.push("app", "w1", &image(100, "amd64", &[5_000])).await;
    let gate = hold(&far);
    home.set_rules(&both(&pair, &far, ""));
    let mut process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "w1").await;
    assert_eq!(far.count("PUT", "/manifests/"), 0);
    process.kill();
    gate.open();
}
