//! A rule with several destinations.

use serde_json::json;

use super::{app, json_of, outcomes};
use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::image;
use crate::support::pair::Pair;
use crate::support::proxy::{Act, Fault, Gate, Proxy};
use crate::support::wire::Wire;
use crate::sync::only_run;

const RETRY: &str = "    retry: { attempts: 2, max_delay: 1s }\n";

/// A third registry, `far`, behind a proxy of its own.
pub(super) async fn third() -> (DockerRegistry, Proxy) {
    let registry = DockerRegistry::plain().await;
    let proxy = Proxy::start(&registry.url()).await;
    (registry, proxy)
}

/// A rule from `src` to `dst` and `far`, with these further keys.
pub(super) fn both(pair: &Pair, far: &Proxy, keys: &str) -> String {
    let rule = app(keys).replace("[dst]", "[dst, far]");
    pair.rules_with(&[("far", &far.url())], &rule)
}

#[tokio::test]
async fn two_destinations_cost_one_read() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[300_000, 20]);
    pair.at_source().push("app", "v1", &sample).await;
    let home = Transship::new(&both(&pair, &far, RETRY));
    let report = json_of(&home, &["sync"], 0).await;
    let run = only_run(&report);
    let bytes: usize = sample.blobs.iter().map(bytes::Bytes::len).sum();
    assert_eq!(pair.src.response_bytes("GET", "/blobs/"), bytes as u64);
    assert_eq!(pair.src.count("GET", "/blobs/"), 3);
    for (index, proxy) in [&pair.dst, &far].into_iter().enumerate() {
        assert_eq!(proxy.request_bytes("*", "/blobs/uploads/"), bytes as u64);
        assert_eq!(run["destinations"][index]["bytes"]["written"], bytes);
        assert_eq!(outcomes(run, index), [("copied", 1)]);
    }
    assert_eq!(run["bytes"]["read"], bytes);
    assert_eq!(
        Wire::new(&registry.url()).resolve("app", "v1").await,
        Some(sample.digest())
    );
    pair.assert_same("app", "app", &["v1"]).await;
}

#[tokio::test]
async fn a_destination_that_fails_does_not_disturb_the_other() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[300_000, 20]);
    pair.at_source().push("app", "v1", &sample).await;
    far.add(Fault::every("PUT", "/blobs/uploads/", Act::CutRequest(1000)));
    let home = Transship::new(&both(&pair, &far, RETRY));
    let report = json_of(&home, &["sync"], 1).await;
    let run = only_run(&report);
    assert_eq!(
        (&run["outcome"], outcomes(run, 0), outcomes(run, 1)),
        (&json!("partial"), vec![("copied", 1)], vec![("failed", 1)])
    );
    let failures = run["failures"].as_array().expect("failures");
    assert_eq!(failures.len(), 1);
    assert_eq!(
        (&failures[0]["destination"], &failures[0]["kind"]),
        (&json!("far/app:v1"), &json!("network"))
    );
    let bytes: usize = sample.blobs.iter().map(bytes::Bytes::len).sum();
    assert_eq!(
        pair.dst.request_bytes("*", "/blobs/uploads/"),
        bytes as u64,
        "nothing is sent twice to the one that works"
    );
    pair.assert_same("app", "app", &["v1"]).await;
    assert_eq!(Wire::new(&registry.url()).resolve("app", "v1").await, None);

    far.heal();
    let report = json_of(&home, &["sync"], 0).await;
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("in_step", 1)], vec![("copied", 1)])
    );
    assert_eq!(
        Wire::new(&registry.url()).resolve("app", "v1").await,
        Some(sample.digest())
    );
}

#[tokio::test]
async fn a_destination_that_stands_still_does_not_hold_up_the_other() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[8_000_000]);
    pair.at_source().push("app", "v1", &sample).await;
    let gate = Gate::new();
    far.add(Fault::every(
        "PUT",
        "/blobs/uploads/",
        Act::HoldRequest(1000, gate.clone()),
    ));
    far.add(Fault::every(
        "PATCH",
        "/blobs/uploads/",
        Act::HoldRequest(1000, gate.clone()),
    ));
    let home = Transship::new(&both(&pair, &far, RETRY));
    let process = home.spawn(&["sync", "--format", "json"]);
    // Every byte of the blobs gets to the one that works while the other has taken none of a blob's end.
    let bytes: u64 = sample.blobs.iter().map(|blob| blob.len() as u64).sum();
    pair.dst
        .wait_for("all blobs at the quick destination", |all| {
            let sent = all
                .iter()
                .filter(|exchange| exchange.is("*", "/blobs/uploads/") && exchange.done);
            sent.map(|exchange| exchange.request_bytes).sum::<u64>() == bytes
        })
        .await;
    assert!(far.request_bytes("*", "/blobs/uploads/") < bytes);
    gate.open();
    let report = process.finish().await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", 1)], vec![("copied", 1)])
    );
    assert_eq!(
        Wire::new(&registry.url()).resolve("app", "v1").await,
        Some(sample.digest())
    );
    pair.assert_same("app", "app", &["v1"]).await;
}

#[tokio::test]
async fn a_destination_that_is_only_slow_is_left_behind_and_reads_for_itself() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let sample = image(1, "amd64", &[30_000_000]);
    pair.at_source().push("app", "v1", &sample).await;
    let slow = format!("{}\", limits: {{ bandwidth: 1500KiB }} }}", far.url());
    let rules = both(&pair, &far, "").replace(&format!("{}\" }}", far.url()), &slow);
    let home = Transship::new(&rules);
    let report = json_of(&home, &["sync"], 0).await;
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", 1)], vec![("copied", 1)])
    );
    let layer = sample
        .blobs
        .iter()
        .map(|blob| blob.len() as u64)
        .max()
        .expect("a layer");
    let read = pair.src.response_bytes("GET", "/blobs/");
    assert!(read > layer + layer / 4, "the slow one read nothing of its own: {read}");
    // What it had taken by then is not sent again.
    let sent = far.request_bytes("*", "/blobs/uploads/");
    assert!(sent < layer + layer / 2, "{sent}");
    assert_eq!(
        Wire::new(&registry.url()).resolve("app", "v1").await,
        Some(sample.digest())
    );
    pair.assert_same("app", "app", &["v1"]).await;
}
