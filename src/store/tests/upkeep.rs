//! What is looked for at the begin and end of each `sync`.

use std::collections::BTreeMap;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::super::connection::MIGRATIONS;
use super::*;

const HOUR: i64 = 3600;

async fn claim(store: &Store, place: &str, tags: &[&str], rule: &str, source: &str, now: i64) {
    let tags: Vec<_> = tags.iter().map(|text| tag(text)).collect();
    let place = name(place);
    let claimed = store.claim_tags("ecr", &place, &tags, rule, source, at(now), at(0));
    assert_eq!(claimed.await.unwrap(), BTreeMap::new());
}

async fn claimants(store: &Store) -> Vec<String> {
    let claimants = store.claimants().await.unwrap();
    let word = |one: &Claimant| format!("{} {} {}/{}", one.rule, one.source, one.registry, one.repository);
    claimants.iter().map(word).collect()
}

async fn claims(store: &Store) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM claims");
    count.fetch_one(&mut *store.0.reader().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn what_was_not_confirmed_is_looked_for_about_once_a_day() {
    let (_folder, store) = fresh().await;
    store
        .remember_blobs("ecr", &name("a"), &[digest(1)], at(0))
        .await
        .unwrap();
    store.remember_choice(&digest(1), "all", "[1]", at(0)).await.unwrap();
    let left = async || {
        let blobs = store.known_blobs("ecr", &[digest(1)]).await.unwrap().len();
        let choices = usize::from(store.choice(&digest(1), "all").await.unwrap().is_some());
        assert_eq!(blobs, choices, "both or none");
        blobs
    };
    let forget = async |before, now| store.forget_unconfirmed(at(before), at(now)).await.unwrap();
    assert!(forget(0, 10 * DAY).await, "never before");
    assert!(!forget(1, 10 * DAY + 20 * HOUR - 1).await);
    assert_eq!(left().await, 1);
    assert!(forget(1, 10 * DAY + 20 * HOUR).await);
    assert_eq!(left().await, 0);
    assert!(forget(1, 9 * DAY).await, "the clock was ahead");
}

#[tokio::test]
async fn each_claimant_is_known_until_its_claims_end() {
    let (_folder, store) = fresh().await;
    claim(&store, "a", &["v1", "v2"], "one", "harbor/a", 0).await;
    claim(&store, "b", &["v1"], "one", "harbor/b", 0).await;
    claim(&store, "c", &["v1"], "one", "harbor/c", 0).await;
    claim(&store, "d", &["v1"], "two", "harbor/d", 0).await;
    // The same source by another rule: the claim is that rule's then.
    claim(&store, "b", &["v1"], "two", "harbor/b", 10).await;
    let all = [
        "one harbor/a ecr/a",
        "one harbor/b ecr/b",
        "one harbor/c ecr/c",
        "two harbor/b ecr/b",
        "two harbor/d ecr/d",
    ];
    assert_eq!(claimants(&store).await, all, "one may have none any more");

    let ended: Vec<_> = store.claimants().await.unwrap().into_iter().take(2).collect();
    store.end_claims(&ended).await.unwrap();
    assert_eq!(claims(&store).await, 3, "the other rule's stands");
    assert_eq!(claimants(&store).await, all[2..]);

    store.keep_claims(&["two"]).await.unwrap();
    assert_eq!(claims(&store).await, 2);
    assert_eq!(claimants(&store).await, all[3..]);

    // One claim is old, and its claimant goes with it.
    store.forget_unconfirmed(at(5), at(DAY)).await.unwrap();
    assert_eq!(claims(&store).await, 1);
    assert_eq!(claimants(&store).await, ["two harbor/b ecr/b"]);
}

#[tokio::test]
async fn claims_from_before_claimants_were_kept_have_theirs() {
    let (_folder, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut old: SqliteConnection = options.connect().await.unwrap();
    MIGRATIONS.run_direct(Some(7), &mut old, false).await.unwrap();
    for tag in ["v1", "v2"] {
        sqlx::query("INSERT INTO claims VALUES ('ecr', 'a', $1, 'harbor/a', 'one', 1, 1)")
            .bind(tag)
            .execute(&mut old)
            .await
            .unwrap();
    }
    old.close().await.unwrap();
    let store = Store::open(&path).await.unwrap();
    assert_eq!(claimants(&store).await, ["one harbor/a ecr/a"]);
    store.keep_claims(&["two"]).await.unwrap();
    assert_eq!(claims(&store).await, 0);
}
