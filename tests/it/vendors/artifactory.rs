//! JFrog Artifactory: what it holds, and what it has fetched.

use crate::support::engine::{Workshop, by_hand, scheduled};
use crate::support::fake::artifactory::Artifactory;
use crate::support::images::image;

/// A cache lists what it has, and asks where it fetches from only when a tag is looked at.
#[tokio::test]
async fn artifactory_remote_repositories_are_looked_at_tag_by_tag() {
    for (key, lists, looks) in [("docker-local", 1, 1), ("docker-remote", 0, 2)] {
        let src = Artifactory::start_with_remote("docker-remote").await;
        let dst = Artifactory::start().await;
        let repository = format!("{key}/app");
        for number in 0..2 {
            src.seed(&repository, &format!("v{number}"), &image(number, "amd64", &[20]));
        }
        let keys = Artifactory::keys();
        let ends = [src.rules("src", &keys), dst.rules("dst", &keys)].concat();
        let workshop = Workshop::new(&format!(
            "version: 1\nregistries:\n{ends}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [{repository}] }}\n"
        ));
        let engine = workshop.engine().await;
        let report = by_hand(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        // The listing proves itself by this one.
        assert!(scheduled(&engine, "r").await.failures.is_empty());
        src.forget();
        src.seed(&repository, "v1", &image(7, "amd64", &[20]));
        let report = scheduled(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(dst.resolve(&repository, "v1"), src.resolve(&repository, "v1"));
        // What it is was asked for once; and a tag that seems to have moved is looked at anyhow.
        assert_eq!(src.count("GET", "/api/repositories/"), 0, "{:?}", src.exchanges());
        let seen = (src.count("GET", "/api/storage/"), src.count("HEAD", "/manifests/"));
        assert_eq!(seen, (lists, looks), "{:?}", src.exchanges());
    }
}
