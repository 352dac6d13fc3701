//! Manifests that are kept.

use bytes::Bytes;

use super::*;

fn manifest(number: usize, repository: &str, under: Option<&str>, length: usize) -> NewManifest {
    let mut bytes = number.to_string().into_bytes();
    bytes.resize(length, b' ');
    NewManifest {
        registry: "hub".into(),
        repository: name(repository),
        tag: under.map(tag),
        digest: digest(number),
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: Bytes::from(bytes),
    }
}

async fn kept(store: &Store, repository: &str, number: usize) -> Option<KeptManifest> {
    let kept = store.kept_manifest("hub", &name(repository), &digest(number)).await;
    kept.unwrap()
}

#[tokio::test]
async fn a_manifest_is_kept_for_its_place_alone() {
    let (_folder, store) = fresh().await;
    let read = [manifest(1, "a", Some("v1"), 100), manifest(2, "a", None, 50)];
    store.keep_manifests(&read, &[], at(1), Some(1000)).await.unwrap();
    let found = kept(&store, "a", 1).await.unwrap();
    assert_eq!(found.bytes, read[0].bytes);
    assert_eq!(found.media_type, read[0].media_type);
    assert_eq!(found.used_at, at(1));
    assert_eq!(kept(&store, "b", 1).await, None, "another repository has other readers");
    let elsewhere = store.kept_manifest("acr", &name("a"), &digest(1)).await.unwrap();
    assert_eq!(elsewhere, None);
    let tags = [tag("v1"), tag("v2")];
    let known = async || store.kept_tags("hub", &name("a"), &tags).await.unwrap();
    assert_eq!(known().await, BTreeSet::from([tag("v1")]));

    // The tag moves to the other, and the first is dropped: the tag is known still.
    let moved = [manifest(2, "a", Some("v1"), 50)];
    store.keep_manifests(&moved, &[], at(2), None).await.unwrap();
    store.drop_manifest(found.id).await.unwrap();
    assert_eq!(kept(&store, "a", 1).await, None);
    assert_eq!(known().await, BTreeSet::from([tag("v1")]));
    let second = kept(&store, "a", 2).await.unwrap().id;
    store.drop_manifest(second).await.unwrap();
    assert_eq!(
        known().await,
        BTreeSet::new(),
        "without its manifest a tag is not known"
    );
}

#[tokio::test]
async fn those_used_longest_ago_go_first() {
    let (_folder, store) = fresh().await;
    for number in 0..4 {
        let read = [manifest(number, "a", None, 100)];
        let now = at(i64::try_from(number).unwrap());
        store.keep_manifests(&read, &[], now, None).await.unwrap();
    }
    let first = kept(&store, "a", 0).await.unwrap().id;
    store.keep_manifests(&[], &[first], at(9), Some(250)).await.unwrap();
    let mut left = Vec::new();
    for number in 0..4 {
        left.push(kept(&store, "a", number).await.is_some());
    }
    assert_eq!(left, [true, false, false, true]);
}
