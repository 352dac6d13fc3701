//! GitLab's registry: its API, with and without.

use std::sync::atomic::Ordering;

use crate::support::engine::{Workshop, by_hand, scheduled};
use crate::support::fake::gitlab::Gitlab;
use crate::support::images::image;

#[tokio::test]
async fn gitlab_without_its_database_is_read_tag_by_tag() {
    for (plain, asked, looks) in [(false, 1, 0), (true, 0, 3)] {
        let (src, source) = Gitlab::start().await;
        let (dst, _destination) = Gitlab::start().await;
        source.plain.store(plain, Ordering::SeqCst);
        for number in 0..3 {
            src.seed(
                "group/project/app",
                &format!("v{number}"),
                &image(number, "amd64", &[20]),
            );
        }
        let ends = [src.rules("src", &Gitlab::keys()), dst.rules("dst", &Gitlab::keys())].concat();
        let workshop = Workshop::new(&format!(
            "version: 1\nregistries:\n{ends}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [group/project/app] }}\n"
        ));
        let engine = workshop.engine().await;
        assert!(by_hand(&engine, "r").await.failures.is_empty());
        src.forget();
        let report = scheduled(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        // Without it, it is not asked for again for a while.
        let seen = (src.count("GET", "/gitlab/v1/"), src.count("HEAD", "/manifests/"));
        assert_eq!(seen, (asked, looks), "{:?}", src.exchanges());
    }
}
