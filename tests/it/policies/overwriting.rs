//! `moved_tags` and `on_conflict`: a destination's tag that differs.

use http::StatusCode;
use serde_json::Value;
use transship::oci::Digest;

use super::{app, json_of, outcomes};
use crate::support::command::Transship;
use crate::support::images::{cosign_signature, image, rebuilt};
use crate::support::pair::Pair;
use crate::support::proxy::{Act, Exchange, Fault, Gate};
use crate::sync::only_run;

#[tokio::test]
async fn a_tag_that_moved_at_the_source_is_followed_kept_or_failed() {
    for (policy, code, outcome) in [("follow", 0, "copied"), ("keep", 0, "kept"), ("fail", 1, "failed")] {
        let pair = Pair::start().await;
        let (old, new) = (image(1, "amd64", &[100]), rebuilt(2, 100));
        pair.at_source().push("app", "v1", &old).await;
        // What is the other kind of difference must not matter here.
        let home = Transship::new(&pair.rules(&app(&format!("    moved_tags: {policy}\n    on_conflict: fail\n"))));
        home.run(&["sync"]).await.expect(0);
        pair.at_source().push("app", "v1", &new).await;
        let plan = json_of(&home, &["plan"], i32::from(outcome == "failed")).await;
        let planned = &plan["rules"][0]["repositories"][0]["images"][0]["destinations"][0];
        let action = match outcome {
            "copied" => "copy",
            "kept" => "keep",
            _ => "fail",
        };
        assert_eq!(planned["action"], action, "{planned}");
        let report = json_of(&home, &["sync"], code).await;
        assert_eq!(outcomes(only_run(&report), 0), [(outcome, 1)], "{policy}");
        let there = pair.at_destination().resolve("app", "v1").await;
        let expected = if outcome == "copied" {
            new.digest()
        } else {
            old.digest()
        };
        assert_eq!(there, Some(expected), "{policy}");
        if outcome == "failed" {
            let failure = &report["runs"][0]["failures"][0];
            assert_eq!(failure["kind"], "conflict");
            assert!(
                failure["message"]
                    .as_str()
                    .is_some_and(|text| text.contains("moved_tags: fail")),
                "{failure}"
            );
        }
    }
}

#[tokio::test]
async fn a_tag_that_somebody_else_wrote_is_overwritten_kept_or_failed() {
    for (policy, code, outcome) in [("overwrite", 0, "copied"), ("keep", 0, "kept"), ("fail", 1, "failed")] {
        let pair = Pair::start().await;
        let (ours, theirs) = (image(1, "amd64", &[100]), image(2, "amd64", &[100]));
        for tag in ["v1", "v2"] {
            pair.at_source().push("app", tag, &ours).await;
        }
        pair.at_destination().push("app", "v1", &theirs).await;
        let home = Transship::new(&pair.rules(&app(&format!("    moved_tags: fail\n    on_conflict: {policy}\n"))));
        let report = json_of(&home, &["sync"], code).await;
        let mut expected = vec![("copied", if outcome == "copied" { 2 } else { 1 })];
        if outcome != "copied" {
            expected.push((outcome, 1));
        }
        expected.sort_unstable();
        let mut found = outcomes(only_run(&report), 0);
        found.sort_unstable();
        assert_eq!(found, expected, "{policy}");
        let there = pair.at_destination().resolve("app", "v1").await;
        let wanted = if outcome == "copied" {
            ours.digest()
        } else {
            theirs.digest()
        };
        assert_eq!(there, Some(wanted), "{policy}");
        assert_eq!(pair.at_destination().resolve("app", "v2").await, Some(ours.digest()));
    }
}

/// The destination's tag changes while the image's layer is on its way.
async fn changed_meanwhile(keys: &str, code: i32) -> (Value, bool) {
    let pair = Pair::start().await;
    let (ours, theirs) = (image(1, "amd64", &[5000]), image(2, "amd64", &[100]));
    pair.at_source().push("app", "v1", &ours).await;
    pair.at_destination().push("app", "other", &theirs).await;
    let layer = Digest::of(&ours.blobs[1]);
    let gate = Gate::new();
    let hold = Act::HoldResponse(100, gate.clone());
    pair.src.add(Fault::once("GET", &format!("/blobs/{layer}"), hold));
    let home = Transship::new(&pair.rules(&app(keys)));
    let process = home.spawn(&["sync", "--format", "json"]);
    pair.src
        .wait_for("the layer to stand still", |all| {
            all.iter().any(|exchange| exchange.held)
        })
        .await;
    pair.at_destination().push("app", "v1", &theirs).await;
    gate.open();
    let report = process.finish().await.expect(code).json();
    let there = pair.at_destination().resolve("app", "v1").await;
    assert!(there == Some(ours.digest()) || there == Some(theirs.digest()));
    (only_run(&report).clone(), there == Some(ours.digest()))
}

#[tokio::test]
async fn a_tag_that_somebody_writes_while_its_image_is_copied_is_seen_before_the_put() {
    let (run, ours) = changed_meanwhile("    on_conflict: keep\n", 0).await;
    assert_eq!((outcomes(&run, 0), ours), (vec![("kept", 1)], false));
    let (run, ours) = changed_meanwhile("    on_conflict: fail\n", 1).await;
    assert_eq!((outcomes(&run, 0), ours), (vec![("failed", 1)], false));
    assert_eq!(run["failures"][0]["kind"], "conflict", "{run}");
    let (run, ours) = changed_meanwhile("", 0).await;
    assert_eq!((outcomes(&run, 0), ours), (vec![("copied", 1)], true));
    // What another wrote is a conflict, and of those the source wins, whatever is said of moved tags.
    let (run, ours) = changed_meanwhile("    moved_tags: keep\n", 0).await;
    assert_eq!((outcomes(&run, 0), ours), (vec![("copied", 1)], true));
}

#[tokio::test]
async fn a_tag_that_somebody_writes_while_its_put_waits_for_the_registry_is_kept() {
    let pair = Pair::start().await;
    let (ours, theirs) = (image(1, "amd64", &[100]), image(2, "amd64", &[100]));
    pair.at_source().push("app", "v1", &ours).await;
    let later = Act::Answer(StatusCode::TOO_MANY_REQUESTS, Some("3".to_owned()));
    pair.dst.add(Fault::once("PUT", "/manifests/v1", later));
    let home = Transship::new(&pair.rules(&app("    on_conflict: keep\n")));
    let process = home.spawn(&["sync", "--format", "json"]);
    let refused = |exchange: &Exchange| exchange.status == Some(StatusCode::TOO_MANY_REQUESTS);
    pair.dst
        .wait_for("the put to be refused", |all| all.iter().any(refused))
        .await;
    pair.at_destination().push("app", "v1", &theirs).await;
    let report = process.finish().await.expect(0).json();
    assert_eq!(outcomes(only_run(&report), 0), [("kept", 1)]);
    assert_eq!(pair.at_destination().resolve("app", "v1").await, Some(theirs.digest()));
}

#[tokio::test]
async fn an_attachments_tag_that_somebody_writes_while_it_is_copied_is_kept() {
    let pair = Pair::start().await;
    let sample = image(1, "amd64", &[100]);
    pair.at_source().push("app", "v1", &sample).await;
    let (tag, signature) = cosign_signature("app", &sample.digest());
    pair.at_source().push("app", tag.as_str(), &signature).await;
    let gate = Gate::new();
    let blob = Digest::of(&signature.blobs[1]);
    let hold = Act::HoldReply(gate.clone());
    pair.src.add(Fault::once("GET", &format!("/blobs/{blob}"), hold));
    let home = Transship::new(&pair.rules(&app("    on_conflict: keep\n")));
    let process = home.spawn(&["sync", "--format", "json"]);
    let held = |all: &[Exchange]| all.iter().any(|exchange| exchange.held);
    pair.src.wait_for("the signature to stand still", held).await;
    let theirs = image(2, "amd64", &[100]);
    pair.at_destination().push("app", tag.as_str(), &theirs).await;
    gate.open();
    let report = process.finish().await.expect(0).json();
    assert_eq!(outcomes(only_run(&report), 0), [("copied", 1)]);
    assert_eq!(
        pair.at_destination().resolve("app", tag.as_str()).await,
        Some(theirs.digest())
    );
}
