//! Google Artifact Registry: blobs at another path of the same host, all tags in one answer, mounts.

use std::sync::atomic::Ordering;

use super::{Pull, destination, mounts};
use crate::support::fake::google::{Google, REPOSITORY};
use crate::support::images::image;
use transship::registry::BulkListing;

fn app(name: &str) -> String {
    format!("{REPOSITORY}/{name}")
}

#[tokio::test]
async fn google_blobs_are_read_where_a_302_at_its_own_host_leads() {
    let (fake, google) = Google::start().await;
    google.redirects.store(true, Ordering::SeqCst);
    let (name, sample) = (app("app"), image(1, "amd64", &[3000]));
    fake.seed(&name, "v1", &sample);
    let pull = Pull::new(&fake.rules("src", &Google::keys()), &name).await;
    let report = pull.run().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(pull.arrived(&name, "v1"), Some(sample.digest()));
    assert_eq!(fake.count("GET", "/artifacts-downloads/"), 2, "{:#?}", fake.exchanges());
}

/// Whatever is asked for: no link is followed and no tag looked at.
#[tokio::test]
async fn google_tags_come_with_their_digests_in_one_answer() {
    let (fake, _google) = Google::start().await;
    let name = app("app");
    for number in 0..1_500 {
        fake.seed(&name, &format!("v{number}"), &image(number % 3, "amd64", &[20]));
    }
    let end = destination(&fake.rules("dst", &Google::keys()));
    let listed = end.list_digests(&name.parse().expect("a name")).await;
    let Ok(BulkListing::Known { tags, comparable: true }) = listed else {
        panic!("{listed:?}");
    };
    assert!(tags.len() == 1_500 && tags.iter().all(|tag| tag.digest.is_some()));
    let lists = fake.exchanges().into_iter();
    let lists = lists.filter(|one| one.target.contains("/tags/list") && one.status == Some(200));
    assert_eq!(lists.count(), 1, "{:#?}", fake.exchanges());
    assert_eq!(fake.count("HEAD", "/manifests/"), 0);
}

#[tokio::test]
async fn google_mounts_blobs_of_another_image() {
    let (fake, _google) = Google::start().await;
    mounts(&fake, &fake.rules("dst", &Google::keys()), [&app("base"), &app("web")]).await;
}
