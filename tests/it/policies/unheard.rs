//! Tags that were put by a process that did not live to hear of it, or of which the answer was lost: they are its own.

use serde_json::Value;

use super::destinations::{both, third};
use super::{app, json_of, outcomes};
use crate::support::command::Transship;
use crate::support::images::{artifact, cosign_signature, image, noise, rebuilt};
use crate::support::pair::Pair;
use crate::support::proxy::{Act, Exchange, Fault, Gate, Proxy};
use crate::support::wire::Wire;
use crate::support::within;
use crate::sync::only_run;

const KEEP: &str = "    on_conflict: keep\n    retry: { attempts: 1 }\n";

/// Waits until a request stands still at a proxy's gate.
async fn held(proxy: &Proxy) {
    proxy
        .wait_for("a put to be held", |all| all.iter().any(|one| one.held))
        .await;
}

/// Runs `sync` until the answer to the put of such a manifest is held, and kills it.
async fn killed_before_the_answer(home: &Transship, destination: &Proxy, manifest: &str) {
    let hold = Act::HoldReply(Gate::new());
    destination.add(Fault::once("PUT", manifest, hold));
    let mut process = home.spawn(&["sync"]);
    held(destination).await;
    process.kill();
    let ended = |all: &[Exchange]| all.iter().all(|one| one.done || one.broken);
    destination
        .wait_for("the killed process' connections to end", ended)
        .await;
    destination.heal();
}

#[tokio::test]
async fn a_tag_whose_answer_a_killed_process_never_heard_is_followed() {
    let pair = Pair::start().await;
    let (old, new) = (image(1, "amd64", &[100]), rebuilt(2, 100));
    pair.at_source().push("app", "v1", &old).await;
    let home = Transship::new(&pair.rules(&app(KEEP)));
    killed_before_the_answer(&home, &pair.dst, "/manifests/v1").await;
    assert_eq!(pair.at_destination().resolve("app", "v1").await, Some(old.digest()));
    pair.at_source().push("app", "v1", &new).await;
    let report = json_of(&home, &["sync"], 0).await;
    assert_eq!(outcomes(only_run(&report), 0), [("copied", 1)]);
    assert_eq!(pair.at_destination().resolve("app", "v1").await, Some(new.digest()));
}

#[tokio::test]
async fn a_tag_whose_answer_was_lost_is_followed() {
    let pair = Pair::start().await;
    let (old, new) = (image(1, "amd64", &[100]), rebuilt(2, 100));
    pair.at_source().push("app", "v1", &old).await;
    pair.dst.add(Fault::every("PUT", "/manifests/v1", Act::DropReply));
    let home = Transship::new(&pair.rules(&app(KEEP)));
    json_of(&home, &["sync"], 1).await;
    assert_eq!(pair.at_destination().resolve("app", "v1").await, Some(old.digest()));
    pair.dst.heal();
    pair.at_source().push("app", "v1", &new).await;
    let report = json_of(&home, &["sync"], 0).await;
    assert_eq!(outcomes(only_run(&report), 0), [("copied", 1)]);
}

#[tokio::test]
async fn a_signature_whose_answer_a_killed_process_never_heard_is_followed() {
    let pair = Pair::start().await;
    let sample = image(1, "amd64", &[100]);
    pair.at_source().push("app", "v1", &sample).await;
    let (tag, signature) = cosign_signature("app", &sample.digest());
    pair.at_source().push("app", tag.as_str(), &signature).await;
    let home = Transship::new(&pair.rules(&app(KEEP)));
    killed_before_the_answer(&home, &pair.dst, &format!("/manifests/{tag}")).await;
    let there = || async { pair.at_destination().resolve("app", tag.as_str()).await };
    assert_eq!(there().await, Some(signature.digest()));
    let another = artifact("application/x.attached", &noise(99, 50));
    pair.at_source().push("app", tag.as_str(), &another).await;
    json_of(&home, &["sync"], 0).await;
    assert_eq!(there().await, Some(another.digest()));
}

#[tokio::test]
async fn a_tag_is_recorded_and_followed_while_another_destination_stands_still() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let (old, new) = (image(1, "amd64", &[100]), rebuilt(2, 100));
    pair.at_source().push("app", "v1", &old).await;
    far.add(Fault::every("PUT", "/manifests/", Act::HoldBefore(Gate::new())));
    let home = Transship::new(&both(&pair, &far, KEEP));
    let mut process = home.spawn(&["sync"]);
    held(&far).await;
    let audited = within("the tag that was put to be in the audit trail", async {
        loop {
            let audit = json_of(&home, &["audit"], 0).await;
            if let Some([entry]) = audit["entries"].as_array().map(Vec::as_slice) {
                return entry.clone();
            }
        }
    });
    assert_eq!(audited.await["digest"], Value::from(old.digest().to_string()));
    process.kill();
    far.heal();
    assert_eq!(pair.at_destination().resolve("app", "v1").await, Some(old.digest()));
    let there = Wire::new(&registry.url());
    assert_eq!(there.resolve("app", "v1").await, None);

    pair.at_source().push("app", "v1", &new).await;
    let report = json_of(&home, &["sync"], 0).await;
    let run = only_run(&report);
    let copied = vec![("copied", 1)];
    assert_eq!((outcomes(run, 0), outcomes(run, 1)), (copied.clone(), copied));
    assert_eq!(pair.at_destination().resolve("app", "v1").await, Some(new.digest()));
    assert_eq!(there.resolve("app", "v1").await, Some(new.digest()));
}
