//! Quay: who may ask its API, and its own answers to uploads, blobs, lists, referrers and pushes.

use std::sync::atomic::Ordering;

use transship::oci::Digest;
use transship::registry::{BodyStream, ErrorKind, SessionState};

use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::engine::{Workshop, by_hand, only_failure, scheduled};
use crate::support::fake::Fake;
use crate::support::fake::quay::{DISABLED, QUOTA, Quay, READ_ONLY};
use crate::support::images::{image, noise};

#[tokio::test]
async fn quay_robots_are_for_the_registry_alone() {
    let (src, _source) = Quay::start().await;
    let (dst, _destination) = Quay::start().await;
    for number in 0..3 {
        src.seed("team/app", &format!("v{number}"), &image(number, "amd64", &[20]));
    }
    let ends = [src.rules("src", &Quay::robot()), dst.rules("dst", &Quay::keys())].concat();
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n{ends}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [team/app] }}\n"
    ));
    let engine = workshop.engine().await;
    assert!(by_hand(&engine, "r").await.failures.is_empty());
    for fake in [&src, &dst] {
        fake.forget();
    }
    let report = scheduled(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    // The robot's secret is not sent to the API; the application's token is, and no tag is looked at then.
    let seen = |fake: &Fake| (fake.count("GET", "/api/v1/"), fake.count("HEAD", "/manifests/"));
    assert_eq!((seen(&src), seen(&dst)), ((1, 3), (1, 0)));
    let sent = src
        .exchanges()
        .into_iter()
        .filter(|exchange| exchange.target.contains("/api/"));
    assert!(sent.into_iter().all(|exchange| exchange.scheme.is_none()));
}

/// Quay makes a repository for who asks for a token to push to it.
#[tokio::test]
async fn ping_makes_no_repository_at_quay() {
    let (fake, _quay) = Quay::start().await;
    fake.seed("team/there", "v1", &image(1, "amd64", &[20]));
    let plain = DockerRegistry::plain().await;
    let ends = fake.rules("quay", &Quay::robot());
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n{ends}  plain: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: plain, \
         destinations: [quay], repositories: [team/new, team/there] }}\n",
        plain.url()
    ));
    let told = home.run(&["ping", "quay"]).await.expect(0).stdout;
    assert!(told.contains("team/new is not there"), "{told}");
    assert!(fake.count("GET", "/v2/auth?") > 0);
    let asked = |repository: &str| {
        let exchanges = fake.exchanges();
        let pushes = exchanges.iter().filter(|one| one.target.contains("push"));
        pushes.filter(|one| one.target.contains(repository)).count()
    };
    assert_eq!(asked("new"), 0, "{:#?}", fake.exchanges());
    assert!(asked("there") > 0, "{:#?}", fake.exchanges());
    assert_eq!(fake.count("POST", "/new/blobs/uploads/"), 0);
    fake.finish();
}

/// It tells how many bytes it has, where others tell the last one's offset.
#[tokio::test]
async fn quay_uploads_go_on_where_they_stand() {
    let (fake, _quay) = Quay::start().await;
    let home = Workshop::new(&format!(
        "version: 1\nregistries:\n{}  plain: {{ url: \"http://plain.example\" }}\nrules:\n  - {{ name: r, source: plain, \
         destinations: [quay], repositories: [team/app] }}\n",
        fake.rules("quay", &Quay::keys())
    ));
    let end = home.end("quay");
    let blob = noise(1, (6 << 20) + 5);
    let body = |from: u64, to: u64| {
        let bytes = blob.slice(from as usize..to as usize);
        Box::pin(futures_util::stream::iter([Ok(bytes)])) as BodyStream
    };
    let (repository, size, piece) = ("team/app".parse().expect("a name"), blob.len() as u64, 5 << 20);
    let write = end.begin_write(&repository).await.expect("opened");
    let sent = end.write_piece(&write, 0, piece, body(0, piece)).await;
    let (write, held) = sent.expect("a piece");
    assert_eq!(held, piece);
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

/// From one Quay to another, by robots: names are listed, and tags looked at one by one.
fn workshop(src: &Fake, dst: &Fake) -> Workshop {
    let ends = [src.rules("src", &Quay::robot()), dst.rules("dst", &Quay::robot())].concat();
    Workshop::new(&format!(
        "version: 1\nregistries:\n{ends}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [team/app] }}\n"
    ))
}

/// The fake fails the test where the token goes to the storage, too.
#[tokio::test]
async fn quay_blobs_are_read_of_the_storage_that_a_302_names() {
    let (src, source) = Quay::start().await;
    let (dst, _destination) = Quay::start().await;
    let sample = image(1, "amd64", &[3000]);
    src.seed("team/app", "v1", &sample);
    source.redirects.store(true, Ordering::SeqCst);
    let home = workshop(&src, &dst);
    let report = by_hand(&home.engine().await, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(dst.resolve("team/app", "v1"), Some(sample.digest()));
    let of = |status: u16| {
        let all = src.exchanges().into_iter();
        all.filter(|one| one.target.contains("/blobs/") && one.status == Some(status))
            .count()
    };
    assert_eq!((of(302), of(200)), (2, 2), "{:#?}", src.exchanges());
    src.finish();
}

#[tokio::test]
async fn quay_says_denied_of_read_only_of_a_quota_and_of_a_namespace() {
    for (denial, kind, told) in [
        (READ_ONLY, ErrorKind::Unsupported, "Quay is read-only for maintenance"),
        (QUOTA, ErrorKind::Quota, "the quota of the organisation is used up"),
        (
            DISABLED,
            ErrorKind::Denied,
            "the organisation or user is disabled at Quay",
        ),
    ] {
        let (src, _source) = Quay::start().await;
        let (dst, destination) = Quay::start().await;
        src.seed("team/app", "v1", &image(1, "amd64", &[20]));
        *destination.denies.lock().expect("not poisoned") = Some(denial);
        let home = workshop(&src, &dst);
        let report = by_hand(&home.engine().await, "r").await;
        let failure = only_failure(&report);
        assert_eq!(
            (failure.kind, failure.status),
            (kind, Some(denial.0)),
            "{}",
            failure.message
        );
        assert!(failure.message.contains(told), "{}", failure.message);
        assert_eq!(dst.resolve("team/app", "v1"), None);
    }
}

/// Older versions go on from a token that they encrypted, and not from a name.
#[tokio::test]
async fn quay_pages_of_tags_are_followed_by_their_token() {
    let (src, source) = Quay::start().await;
    let (dst, _destination) = Quay::start().await;
    let sample = image(1, "amd64", &[20]);
    for number in 0..250 {
        src.seed("team/app", &format!("v{number}"), &sample);
    }
    source.page_tokens.store(true, Ordering::SeqCst);
    let home = workshop(&src, &dst);
    let listed = home.end("src").list_tags(&"team/app".parse().expect("a name")).await;
    assert_eq!(listed.expect("listed").expect("tags").len(), 250);
    // The first page is asked for once more, with a token.
    assert_eq!(
        (
            src.count("GET", "/tags/list"),
            src.count("GET", "next_page=gAAAA%3D%2B")
        ),
        (4, 2)
    );
    src.finish();
}

/// Where others have an empty list it has a 400, and it has the API all the same.
#[tokio::test]
async fn quay_knows_no_referrers_of_a_manifest_that_it_lacks() {
    let (src, _source) = Quay::start().await;
    let (dst, _destination) = Quay::start().await;
    let sample = image(1, "amd64", &[20]);
    src.seed("team/app", "v1", &sample);
    let home = workshop(&src, &dst);
    let end = home.end("src");
    let repository = "team/app".parse().expect("a name");
    for subject in [Digest::of(b"none"), sample.digest(), Digest::of(b"none")] {
        let list = end.referrers(&repository, &subject).await.expect("answered");
        assert!(list.referrers.is_empty() && list.api, "{subject}: {list:?}");
    }
    let asked = src
        .exchanges()
        .into_iter()
        .filter(|one| one.target.contains("/referrers/"));
    let statuses: Vec<_> = asked
        .filter_map(|one| one.status.filter(|status| *status != 401))
        .collect();
    assert_eq!(statuses, [400, 200, 400]);
    src.finish();
}
