//! What is put aside for a while.

use std::collections::BTreeMap;

use super::*;
use crate::plan::{ErrorKind, ParkedFailure, ParkingPlace};

fn place(registry: &str, reference: &str) -> ParkingPlace {
    (registry.to_owned(), name("mirror/app"), tag(reference))
}

fn failure(number: usize) -> ParkedFailure {
    ParkedFailure {
        digest: digest(number),
        kind: ErrorKind::TooLarge,
        status: Some(413),
        code: None,
        message: "over a limit".to_owned(),
        attempts: 1,
        times: 3,
        until: at(100),
    }
}

#[tokio::test]
async fn failures_are_kept_by_destination_and_forgotten() {
    let (_folder, store) = fresh().await;
    let (one, two, other) = (place("ecr", "v1"), place("ecr", "v2"), place("acr", "v1"));
    store.park(&one, "hub/app", "nightly", &failure(1)).await.unwrap();
    store.park(&two, "hub/app", "hourly", &failure(2)).await.unwrap();
    store.park(&other, "hub/app", "nightly", &failure(3)).await.unwrap();
    let read = async |source| store.parked(source, "ecr", &name("mirror/app")).await.unwrap();
    let both = BTreeMap::from([(one.clone(), failure(1)), (two.clone(), failure(2))]);
    assert_eq!(read("hub/app").await, both);
    assert_eq!(read("hub/other").await, BTreeMap::new());

    // The last failure counts.
    let later = ParkedFailure {
        kind: ErrorKind::Denied,
        status: None,
        code: Some("DENIED".to_owned()),
        until: at(500),
        ..failure(4)
    };
    store.park(&one, "hub/app", "nightly", &later).await.unwrap();
    assert_eq!(read("hub/app").await[&one], later);

    // What another rule put aside is not this one's to forget.
    let all = [one.clone(), two.clone()];
    store.unpark(&all, Some("nightly")).await.unwrap();
    assert_eq!(read("hub/app").await, BTreeMap::from([(two, failure(2))]));
    store.unpark(&all, None).await.unwrap();
    assert_eq!(read("hub/app").await, BTreeMap::new());
    let acr = store.parked("hub/app", "acr", &name("mirror/app")).await.unwrap();
    assert_eq!(acr.into_keys().collect::<Vec<_>>(), [other], "another registry's stays");
}

#[tokio::test]
async fn failures_end_with_their_rule_and_with_history() {
    let (_folder, store) = fresh().await;
    let (one, two) = (place("ecr", "v1"), place("ecr", "v2"));
    let tags = async || {
        let parked = store.parked("hub/app", "ecr", &name("mirror/app")).await.unwrap();
        parked
            .into_keys()
            .map(|(_, _, tag)| tag.to_string())
            .collect::<Vec<_>>()
    };
    store.park(&one, "hub/app", "nightly", &failure(1)).await.unwrap();
    store.park(&two, "hub/app", "hourly", &failure(2)).await.unwrap();
    store.keep_claims(&["hourly", "weekly"]).await.unwrap();
    assert_eq!(tags().await, ["v2"]);
    store.clean_runs(at(100)).await.unwrap();
    assert_eq!(tags().await, ["v2"]);
    store.clean_runs(at(101)).await.unwrap();
    assert!(tags().await.is_empty());
}
