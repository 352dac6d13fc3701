//! Google: what its lists say beside names.

use std::sync::atomic::Ordering;

use transship::demo::registry::{Options, Registry, Running};

use crate::support::engine::{Workshop, by_hand, only_failure, scheduled};
use crate::support::fake::Fake;
use crate::support::fake::google::Google;
use crate::support::images::{image, two_platforms};

fn pulling(fake: &Fake, dst: &Running, repositories: &str) -> Workshop {
    Workshop::new(&format!(
        "version: 1\nregistries:\n{}  dst: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], \
         repositories: [\"{repositories}\"] }}\n",
        fake.rules("src", &Google::keys()),
        dst.url()
    ))
}

#[tokio::test]
async fn google_lists_lead_from_folder_to_folder() {
    let (fake, _google) = Google::start().await;
    let dst = Registry::start(Options::default()).await.expect("a registry");
    fake.seed("project/images/app", "v1", &two_platforms(1, &[20]));
    fake.seed("project/images/app/cache", "v1", &image(2, "amd64", &[20]));
    fake.seed("project/images/deep/down", "v1", &image(3, "amd64", &[20]));
    fake.seed("project/others/app", "v1", &image(4, "amd64", &[20]));
    let workshop = pulling(&fake, &dst, "project/images/**");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let names: Vec<String> = dst.repositories().iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "project/images/app",
            "project/images/app/cache",
            "project/images/deep/down"
        ]
    );
    fake.forget();
    let report = scheduled(&engine, "r").await;
    assert!(report.failures.is_empty() && report.changes.is_empty(), "{report:?}");
    assert_eq!(fake.count("HEAD", "/manifests/"), 0);
    // The folders `images` and `deep`, and three repositories, each once for the pattern; then those three for their tags.
    assert_eq!(fake.count("GET", "/tags/list"), 8, "{:?}", fake.exchanges());
}

/// Google answers 200 with a page for people where it does not know a path: that is no empty list.
#[tokio::test]
async fn google_pages_for_people_are_no_lists() {
    let (fake, google) = Google::start().await;
    let dst = Registry::start(Options::default()).await.expect("a registry");
    fake.seed("project/images/app", "v1", &image(1, "amd64", &[20]));
    google.page_for_people.store(true, Ordering::SeqCst);
    let workshop = pulling(&fake, &dst, "project/images/app");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert_eq!(only_failure(&report).kind, transship::registry::ErrorKind::Invalid);
    google.page_for_people.store(false, Ordering::SeqCst);
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}
