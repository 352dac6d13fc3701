//! Names of registries that come to lead elsewhere.

use std::collections::BTreeMap;

use sqlx::Row;

use super::*;
use crate::plan::{ErrorKind, ParkedFailure};

/// A row in each table that names registries, all under `registry`.
async fn fill(store: &Store, registry: &str) {
    let (here, there) = (name("platform/web"), name("platform/api"));
    store
        .remember_blobs(registry, &here, &[digest(1)], at(0))
        .await
        .unwrap();
    store
        .remember_mount_refusal(registry, &here, &there, at(900))
        .await
        .unwrap();
    store
        .learn(registry, "*", "referrers", "no", "404", at(0), at(900))
        .await
        .unwrap();
    let key = UploadKey {
        registry: registry.to_owned(),
        repository: here.clone(),
        digest: digest(2),
    };
    store.save_upload(&key, 10, "session", 0, at(0)).await.unwrap();
    store
        .record_seen_tags(registry, &here, &[(tag("v1"), digest(3))], at(0))
        .await
        .unwrap();
    store
        .record_attachments_checked(registry, &here, &digest(3), at(0))
        .await
        .unwrap();
    let manifest = NewManifest {
        registry: registry.to_owned(),
        repository: here.clone(),
        tag: Some(tag("v1")),
        digest: digest(3),
        media_type: "application/json".to_owned(),
        bytes: bytes::Bytes::from_static(b"3"),
    };
    store.keep_manifests(&[manifest], &[], at(0), None).await.unwrap();
    let failure = ParkedFailure {
        digest: digest(3),
        kind: ErrorKind::Denied,
        status: Some(403),
        code: None,
        message: "no".to_owned(),
        attempts: 1,
        times: 1,
        until: at(900),
    };
    let place = (registry.to_owned(), here.clone(), tag("v1"));
    store.park(&place, "elsewhere/app", "nightly", &failure).await.unwrap();
    let place = ("elsewhere".to_owned(), here.clone(), tag(registry));
    let source = format!("{registry}/app");
    store.park(&place, &source, "nightly", &failure).await.unwrap();
    let image = DeferredImage {
        source: here.clone(),
        registry: registry.to_owned(),
        repository: here.clone(),
        tag: tag("v1"),
        digest: None,
        message: "later".to_owned(),
        since: at(0),
        until: at(900),
    };
    store
        .defer("nightly", "elsewhere", std::slice::from_ref(&image))
        .await
        .unwrap();
    let from = DeferredImage {
        registry: "elsewhere".to_owned(),
        tag: tag(registry),
        ..image
    };
    store.defer("nightly", registry, &[from]).await.unwrap();
    let write = Write {
        run: None,
        job: None,
        rule: "nightly",
        source: "elsewhere/app",
        registry,
        repository: &here,
        tag: &tag("v1"),
        digest: &digest(3),
        previous: None,
    };
    store.record_write(&write, at(0)).await.unwrap();
    let intention = Intention {
        run: RunId(1),
        source: "elsewhere/app",
        previous: None,
        rule: "nightly",
        registry,
        repository: &here,
        tag: &tag("v2"),
        digest: &digest(3),
    };
    store.record_intention(&intention, &[], at(0)).await.unwrap();
    store
        .claim_tags(registry, &here, &[tag("v1")], "nightly", "elsewhere/app", at(0), at(0))
        .await
        .unwrap();
    store
        .keep_rates(registry, "one.example", &Rates::default(), at(0))
        .await
        .unwrap();
}

/// Rows by table in which one of the columns is a name, or begins with it.
async fn rows(store: &Store, registry: &str) -> BTreeMap<String, i64> {
    let mut writer = store.0.writer().await.unwrap();
    let columns = sqlx::query(
        "SELECT m.name AS tbl, c.name AS col FROM sqlite_schema m, pragma_table_info(m.name) c \
         WHERE m.type = 'table' AND m.name <> 'jobs' AND (c.name LIKE '%registry' OR c.name = 'source')",
    )
    .fetch_all(&mut *writer)
    .await
    .unwrap();
    let mut rows = BTreeMap::new();
    for column in &columns {
        let (table, column): (String, String) = (column.get("tbl"), column.get("col"));
        let count =
            format!("SELECT count(*) FROM {table} WHERE {column} = '{registry}' OR {column} LIKE '{registry}/%'");
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count))
            .fetch_one(&mut *writer)
            .await
            .unwrap();
        *rows.entry(table).or_default() += count;
    }
    rows
}

#[tokio::test]
async fn what_is_remembered_of_a_registry_is_forgotten_when_its_name_leads_elsewhere() {
    let (_folder, store) = fresh().await;
    let (one, two) = ("https://one.example", "https://two.example");
    assert_eq!(store.keep_address("ecr", one, at(0)).await.unwrap(), None);
    assert_eq!(store.keep_address("acr", one, at(0)).await.unwrap(), None);
    fill(&store, "ecr").await;
    fill(&store, "acr").await;
    let before = rows(&store, "ecr").await;
    // `choices` is of digests alone, whatever its column's name.
    let empty: Vec<&String> = before
        .iter()
        .filter(|(_, rows)| **rows == 0)
        .map(|(table, _)| table)
        .collect();
    assert_eq!(empty, ["choices"], "a table of registries that this test does not fill");

    assert_eq!(store.keep_address("ecr", one, at(1)).await.unwrap(), None);
    assert_eq!(rows(&store, "ecr").await, before, "it has not moved");

    let former = store.keep_address("ecr", two, at(2)).await.unwrap();
    assert_eq!(former.as_deref(), Some(one));
    let left = rows(&store, "ecr").await;
    let left: Vec<&String> = left
        .iter()
        .filter(|(_, rows)| **rows > 0)
        .map(|(table, _)| table)
        .collect();
    assert_eq!(left, ["addresses", "audit", "claimants", "claims", "rates", "written"]);
    assert_eq!(rows(&store, "acr").await, before, "another one's stays");
    assert_eq!(store.address("ecr").await.unwrap().as_deref(), Some(two));
}

#[tokio::test]
async fn what_a_run_of_before_remembered_is_forgotten_at_its_end() {
    let (_folder, store) = fresh().await;
    store.forget_former("ecr", "https://one.example").await.unwrap();
    store.keep_address("ecr", "https://two.example", at(0)).await.unwrap();
    let blobs = async || {
        let known = store.known_blobs("ecr", &[digest(1)]).await.unwrap();
        known.len()
    };
    fill(&store, "ecr").await;
    store.forget_former("ecr", "https://two.example").await.unwrap();
    assert_eq!(blobs().await, 1);
    store.forget_former("ecr", "https://one.example").await.unwrap();
    assert_eq!(blobs().await, 0);
    let kept = store.address("ecr").await.unwrap();
    assert_eq!(kept.as_deref(), Some("https://two.example"));
}
