//! Blobs that are mounted from another repository of the destination, or cannot be.

use transship::engine::Engine;
use transship::oci::Digest;

use crate::support::engine::{Workshop, by_hand};
use crate::support::images::SampleImage;
use crate::support::pair::{Fleet, Pair};

const RULE: &str =
    "rules:\n  - name: fleet\n    source: src\n    destinations: [dst]\n    repositories: [\"fleet/*\"]\n";

/// Copies one repository more; gives how many of its blobs were mounted.
async fn copy(pair: &Pair, engine: &Engine, (name, tags): &(String, Vec<(String, SampleImage)>)) -> u64 {
    pair.at_source().push(name, "v0", &tags[0].1).await;
    let run = by_hand(engine, "fleet").await;
    assert_eq!(run.destinations[0].images.copied, 1, "{:?}", run.failures);
    run.destinations[0].blobs.mounted
}

#[tokio::test]
async fn a_repository_that_lost_a_blob_is_asked_for_it_once() {
    let mut pair = Pair::start().await;
    let fleet = Fleet::new(7, 1, 400);
    let (first, others) = fleet.repositories.split_first().expect("seven");
    let workshop = Workshop::new(&pair.rules(RULE));
    let engine = workshop.engine().await;
    copy(&pair, &engine, first).await;
    let shared = Digest::of(&first.1[0].1.blobs[1]);
    pair.destination.lose_blob(&first.0, &shared);
    pair.destination.restart().await;
    let mut mounted = Vec::new();
    for other in others {
        mounted.push(copy(&pair, &engine, other).await);
    }
    assert_eq!(mounted, [0, 1, 1, 1, 1, 1], "sent once more, and mounted from there");
    let asked = pair.dst.count("HEAD", &format!("{}/blobs/{shared}", first.0));
    assert_eq!(asked, 1, "where it is gone, nobody looks again");
    for (name, _) in others {
        pair.assert_same(name, name, &["v0"]).await;
    }
}
