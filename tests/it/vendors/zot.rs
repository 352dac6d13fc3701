//! zot: its search, with and without, and its own answers to uploads, mounts, lists and manifests.

use std::sync::atomic::Ordering;

use transship::oci::Digest;
use transship::registry::{BodyStream, ErrorKind, SessionState};

use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::engine::{Workshop, by_hand, only_failure, scheduled};
use crate::support::fake::Fake;
use crate::support::fake::zot::Zot;
use crate::support::images::{image, noise};
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

/// From one zot to another.
fn workshop(src: &Fake, dst: &Fake, rules: &str) -> Workshop {
    let ends = [src.rules("src", &Zot::keys()), dst.rules("dst", &Zot::keys())].concat();
    Workshop::new(&format!("version: 1\nregistries:\n{ends}rules:\n{rules}"))
}

fn rule(name: &str, more: &str) -> String {
    format!("  - {{ name: {name}, source: src, destinations: [dst], {more} }}\n")
}

/// Statuses of the requests by a method with `part` in their target.
fn statuses(fake: &Fake, method: &str, part: &str) -> Vec<u16> {
    let all = fake.exchanges().into_iter();
    let of = all.filter(|one| one.method == method && one.target.contains(part));
    of.filter_map(|one| one.status).collect()
}

/// 416, which says that the upload stands elsewhere, is no end of it.
#[tokio::test]
async fn zot_refuses_a_piece_at_a_wrong_offset_and_the_upload_goes_on_where_it_stands() {
    let (fake, _zot) = Zot::start().await;
    let (src, _source) = Zot::start().await;
    let home = workshop(&src, &fake, &rule("r", "repositories: [a/b]"));
    let end = home.end("dst");
    let blob = noise(1, (6 << 20) + 5);
    let body = |from: u64, to: u64| {
        let bytes = blob.slice(from as usize..to as usize);
        Box::pin(futures_util::stream::iter([Ok(bytes)])) as BodyStream
    };
    let (repository, size, piece) = ("a/b".parse().expect("a name"), blob.len() as u64, 5 << 20);
    let write = end.begin_write(&repository).await.expect("opened");
    let sent = end.write_piece(&write, 0, piece, body(0, piece)).await;
    let (write, held) = sent.expect("a piece");
    assert_eq!(held, piece);
    let wrong = end
        .write_piece(&write, piece - 9, size - piece, body(piece, size))
        .await;
    let error = wrong.expect_err("a wrong offset");
    assert_eq!((error.status, error.kind), (Some(416), ErrorKind::Server), "{error}");
    let state = end.resume_write(&write).await.expect("asked");
    let SessionState::Open { write, offset } = state else {
        panic!("the upload is gone");
    };
    assert_eq!(offset, piece);
    let digest = Digest::of(&blob);
    let closed = end
        .finish_write(&write, &digest, offset, size - offset, body(offset, size))
        .await;
    closed.expect("closed");
    assert_eq!(end.head_blob(&repository, &digest).await.expect("answered"), Some(size));
    fake.finish();
}

#[tokio::test]
async fn zot_ends_an_upload_that_it_could_not_read_and_the_blob_starts_again() {
    // Where an upload of a few bytes stands is not worth a question.
    for (size, asked) in [(3000, vec![]), (9 << 20, vec![404])] {
        let (src, _source) = Zot::start().await;
        let (dst, destination) = Zot::start().await;
        let sample = image(1, "amd64", &[size]);
        let layer = &sample.blobs[1];
        src.seed("a/b", "v1", &sample);
        let home = workshop(&src, &dst, &rule("r", "repositories: [a/b]"));
        destination.broken_reads.lock().expect("not poisoned").push(layer.len());
        let report = by_hand(&home.engine().await, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(dst.resolve("a/b", "v1"), Some(sample.digest()));
        let digest = Digest::of(layer);
        assert_eq!(statuses(&dst, "GET", "/blobs/uploads/"), asked);
        assert_eq!(statuses(&dst, "POST", "/blobs/uploads/"), [202; 3]);
        assert_eq!(statuses(&dst, "PUT", digest.hex()), [500, 201]);
        let held = dst.book().registry.blob(&"a/b".parse().expect("a name"), &digest);
        assert_eq!(held.as_ref(), Some(layer));
    }
}

/// The next page of tags is not found where the tag that it goes on from was deleted meanwhile. No tag is taken for gone then.
#[tokio::test]
async fn zot_has_no_next_page_after_a_deleted_tag_and_the_tags_are_listed_again() {
    for (deleting, lists) in [(1, vec![200, 404, 200, 200]), (9, vec![200, 404, 200, 404, 200, 404])] {
        let (src, source) = Zot::start().await;
        let (dst, _destination) = Zot::start().await;
        let sample = image(1, "amd64", &[20]);
        // One page has 1,000; with 1,001 left there are two again.
        for number in 0..1001 + deleting {
            src.seed("a/b", &format!("v{number:04}"), &sample);
        }
        source.no_search.store(true, Ordering::SeqCst);
        source.deleting_pages.store(deleting, Ordering::SeqCst);
        let rules = rule("r", "repositories: [a/b], tags: { include: [\"v000*\"] }");
        let home = workshop(&src, &dst, &rules);
        let engine = home.engine().await;
        let report = by_hand(&engine, "r").await;
        assert_eq!(statuses(&src, "GET", "/tags/list"), lists);
        match deleting {
            1 => {
                assert!(report.failures.is_empty(), "{:?}", report.failures);
                assert_eq!((report.source.tags_listed, report.source.tags_selected), (1001, 10));
                assert_eq!(dst.resolve("a/b", "v0009"), Some(sample.digest()));
            }
            _ => {
                let told = &only_failure(&report).message;
                assert!(
                    told.contains("a later page of the list, 3 times from its start"),
                    "{told}"
                );
            }
        }
    }
}

/// It has one store of blobs for all repositories: what was copied to one that is gone is mounted all the same.
#[tokio::test]
async fn zot_mounts_a_blob_from_wherever_it_has_it() {
    let (src, _source) = Zot::start().await;
    let (dst, _destination) = Zot::start().await;
    let sample = image(1, "amd64", &[3000]);
    for repository in ["a/one", "a/two"] {
        src.seed(repository, "v1", &sample);
    }
    let rules = rule("one", "repositories: [a/one]") + &rule("two", "repositories: [a/two]");
    let home = workshop(&src, &dst, &rules);
    let engine = home.engine().await;
    assert!(by_hand(&engine, "one").await.failures.is_empty());
    dst.seed("other/place", "v1", &sample);
    let registry = &dst.book().registry;
    assert!(registry.delete_repository(&"a/one".parse().expect("a name")));
    dst.forget();
    let report = by_hand(&engine, "two").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.destinations[0].blobs.mounted, 2);
    assert_eq!(
        statuses(&dst, "POST", "from=other"),
        [] as [u16; 0],
        "another place was named"
    );
    assert_eq!(
        statuses(&dst, "POST", "&from=a%2Fone"),
        [201; 2],
        "{:#?}",
        dst.exchanges()
    );
    assert_eq!(dst.count("PATCH", ""), 0);
    assert_eq!(dst.resolve("a/two", "v1"), Some(sample.digest()));
    let two = "a/two".parse().expect("a name");
    assert!(
        sample
            .blobs
            .iter()
            .all(|blob| registry.blob(&two, &Digest::of(blob)).as_ref() == Some(blob))
    );
}

/// A blob that was there when it was looked for and was collected before the manifest came is sent, whatever the refusal's code.
#[tokio::test]
async fn zot_says_400_of_a_blob_that_a_manifest_lacks_and_gets_it() {
    for blob_unknown in [true, false] {
        let (src, _source) = Zot::start().await;
        let (dst, destination) = Zot::start().await;
        let sample = image(1, "amd64", &[3000]);
        src.seed("a/b", "v1", &sample);
        let lost = Digest::of(&sample.blobs[1]);
        destination.blob_unknown.store(blob_unknown, Ordering::SeqCst);
        *destination.collects.lock().expect("not poisoned") = Some(lost.clone());
        let home = workshop(&src, &dst, &rule("r", "repositories: [a/b]"));
        let engine = home.engine().await;
        let report = by_hand(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(
            statuses(&dst, "PUT", "/manifests/"),
            [400, 201],
            "{:#?}",
            dst.exchanges()
        );
        let held = dst.book().registry.blob(&"a/b".parse().expect("a name"), &lost);
        assert_eq!(held.as_ref(), Some(&sample.blobs[1]));
        assert_eq!(dst.resolve("a/b", "v1"), Some(sample.digest()));
    }
}
