//! zot: its search, with and without.

use std::sync::atomic::Ordering;

use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::engine::{Workshop, by_hand, scheduled};
use crate::support::fake::zot::Zot;
use crate::support::images::image;
use crate::support::{PASSWORD, USERNAME};

#[tokio::test]
async fn zot_is_searched_where_it_can_be_and_read_tag_by_tag_where_not() {
    for (without, errors, searches, looks) in [(false, 0, 1, 0), (false, 2, 1, 3), (true, 0, 0, 3)] {
        let (src, source) = Zot::start().await;
        let (dst, _destination) = Zot::start().await;
        for number in 0..3 {
            src.seed("a/b", &format!("v{number}"), &image(number, "amd64", &[20]));
        }
        source.no_search.store(without, Ordering::SeqCst);
        source.errors.store(errors, Ordering::SeqCst);
        let ends = [src.rules("src", &Zot::keys()), dst.rules("dst", &Zot::keys())].concat();
        let workshop = Workshop::new(&format!(
            "version: 1\nregistries:\n{ends}rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: [a/b]\n"
        ));
        let engine = workshop.engine().await;
        assert!(by_hand(&engine, "r").await.failures.is_empty());
        src.forget();
        let report = scheduled(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        // Without search it is not asked for again; an error of the search is about this one question.
        let seen = (src.count("GET", "/ext/search"), src.count("HEAD", "/manifests/"));
        assert_eq!(seen, (searches, looks), "{:?}", src.exchanges());
        assert_eq!(dst.resolve("a/b", "v2"), src.resolve("a/b", "v2"));
    }
}

#[tokio::test]
async fn zot_that_nobody_named_is_found_out_where_there_are_many_tags() {
    let (src, _source) = Zot::start().await;
    let (dst, _destination) = Zot::start().await;
    for number in 0..20 {
        let sample = image(number, "amd64", &[20]);
        for fake in [&src, &dst] {
            fake.seed("a/b", &format!("v{number}"), &sample);
        }
    }
    let login = format!("username: {USERNAME}, password: {PASSWORD}");
    let ends = [src.rules("src", &login), dst.rules("dst", &login)].concat();
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n{ends}rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: [a/b]\n"
    ));
    let report = by_hand(&workshop.engine().await, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    for fake in [&src, &dst] {
        assert_eq!(
            (fake.count("GET", "/ext/search"), fake.count("HEAD", "/manifests/")),
            (1, 0)
        );
    }
}

/// As a mirror that fetches when it is asked for a tag has to be read.
#[tokio::test]
async fn zot_is_not_searched_where_the_rules_forbid_it() {
    let (src, _source) = Zot::start().await;
    let (dst, _destination) = Zot::start().await;
    src.seed("a/b", "v1", &image(1, "amd64", &[20]));
    let source = format!("{}, bulk_listing: false", Zot::keys());
    let ends = [src.rules("src", &source), dst.rules("dst", &Zot::keys())].concat();
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n{ends}rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: [a/b]\n"
    ));
    let engine = workshop.engine().await;
    for _ in 0..2 {
        assert!(by_hand(&engine, "r").await.failures.is_empty());
    }
    assert_eq!(src.count("GET", "/ext/search"), 0);
    assert!(src.count("HEAD", "/manifests/") > 0 && dst.count("GET", "/ext/search") > 0);
}

/// zot makes a repository for who opens an upload in it.
#[tokio::test]
async fn ping_makes_no_repository_at_zot() {
    let (fake, _zot) = Zot::start().await;
    fake.seed("team/there", "v1", &image(1, "amd64", &[20]));
    let plain = DockerRegistry::plain().await;
    let ends = fake.rules("zot", &Zot::keys());
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n{ends}  plain: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: plain, \
         destinations: [zot], repositories: [team/new, team/there] }}\n",
        plain.url()
    ));
    let told = home.run(&["ping", "zot"]).await.expect(0).stdout;
    assert!(told.contains("team/new is not there"), "{told}");
    let opened = |repository: &str| fake.count("POST", &format!("/{repository}/blobs/uploads/"));
    assert_eq!((opened("team/new"), opened("team/there")), (0, 1));
    fake.finish();
}
