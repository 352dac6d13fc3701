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
async fn the_waiting_of_some_kinds_ends_and_that_of_the_others_does_not() {
    let (_folder, store) = fresh().await;
    let kinds = [ErrorKind::Denied, ErrorKind::Tls, ErrorKind::TooLarge];
    for (number, kind) in kinds.into_iter().enumerate() {
        let failure = ParkedFailure { kind, ..failure(1) };
        let place = place("ecr", &format!("v{number}"));
        store.park(&place, "hub/app", "nightly", &failure).await.unwrap();
    }
    let ended = store.end_parking(&[ErrorKind::Denied, ErrorKind::Tls], at(40)).await;
    assert_eq!(ended.unwrap(), 2);
    let parked = store.parked("hub/app", "ecr", &name("mirror/app")).await.unwrap();
    let parked: Vec<_> = parked
        .into_values()
        .map(|parked| (parked.until, parked.times))
        .collect();
    assert_eq!(parked, [(at(40), 3), (at(40), 3), (at(100), 3)]);
    let again = store.end_parking(&[ErrorKind::Denied, ErrorKind::Tls], at(50)).await;
    assert_eq!(again.unwrap(), 0, "none of them waits");
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
    assert!(store.forget_unconfirmed(at(100), at(DAY)).await.unwrap());
    assert_eq!(tags().await, ["v2"]);
    assert!(store.forget_unconfirmed(at(101), at(2 * DAY)).await.unwrap());
    assert!(tags().await.is_empty());
}

fn waiting(reference: &str, since: i64, until: i64) -> DeferredImage {
    DeferredImage {
        source: name("library/app"),
        registry: "ecr".to_owned(),
        repository: name("mirror/app"),
        tag: tag(reference),
        digest: Some(digest(1)),
        message: "it does not fit".to_owned(),
        since: at(since),
        until: at(until),
    }
}

#[tokio::test]
async fn images_wait_in_the_order_in_which_they_came() {
    let (_folder, store) = fresh().await;
    let read = async |rule| store.deferred(rule, "hub").await.unwrap();
    store
        .defer("nightly", "hub", &[waiting("v2", 10, 100), waiting("v1", 20, 100)])
        .await
        .unwrap();
    store.defer("hourly", "hub", &[waiting("v1", 30, 100)]).await.unwrap();
    // Put off again, it keeps its place.
    store.defer("nightly", "hub", &[waiting("v2", 50, 200)]).await.unwrap();
    store.defer("nightly", "hub", &[]).await.unwrap();
    assert_eq!(read("nightly").await, [waiting("v2", 10, 200), waiting("v1", 20, 100)]);
    assert_eq!(store.deferred("nightly", "quay").await.unwrap(), []);

    let (repository, one) = (name("mirror/app"), tag("v1"));
    store
        .end_deferral("nightly", &[("ecr", &repository, &one)])
        .await
        .unwrap();
    assert_eq!(read("nightly").await, [waiting("v2", 10, 200)]);
    assert_eq!(read("hourly").await.len(), 1, "another rule's stays");
    store.keep_claims(&["nightly"]).await.unwrap();
    assert_eq!(read("hourly").await, []);
    assert!(store.forget_unconfirmed(at(201), at(DAY)).await.unwrap());
    assert_eq!(read("nightly").await, []);
}

#[tokio::test]
async fn rates_are_kept_by_name_and_host() {
    let (_folder, store) = fresh().await;
    let read = async |host| store.rates("hub", host, at(6)).await.unwrap();
    assert_eq!(read("a.example").await, Rates::default());
    let quota = crate::plan::Quota {
        limit: None,
        remaining: 7,
        window: std::time::Duration::from_secs(21_600),
        seen_at: at(5),
    };
    let paused = Rates {
        paused_until: Some(at(900)),
        quota: Some(quota),
    };
    store.keep_rates("hub", "a.example", &paused, at(5)).await.unwrap();
    assert_eq!(read("a.example").await, paused);
    assert_eq!(read("b.example").await, Rates::default());
    let later = Rates {
        paused_until: None,
        quota: Some(crate::plan::Quota {
            limit: Some(100),
            ..quota
        }),
    };
    store.keep_rates("hub", "a.example", &later, at(6)).await.unwrap();
    assert_eq!(read("a.example").await, later);
    store.keep_rates("hub", "a.example", &paused, at(6)).await.unwrap();
    let before = store.rates("hub", "a.example", at(5)).await.unwrap();
    assert_eq!(before.paused_until, None, "it was kept under a clock that was ahead");
    assert!(store.forget_unconfirmed(at(7), at(DAY)).await.unwrap());
    assert_eq!(read("a.example").await, Rates::default());
}
