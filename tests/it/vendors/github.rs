//! GitHub: its API and the lengths that it takes.

use std::sync::atomic::Ordering;

use transship::demo::registry::{Options, Registry, Running};
use transship::oci::Digest;
use transship::registry::BodyStream;

use crate::support::engine::{Workshop, by_hand, scheduled};
use crate::support::fake::github::Github;
use crate::support::fake::{Fake, Nobody};
use crate::support::images::{image, noise, two_platforms};

async fn plain() -> Running {
    Registry::start(Options::default()).await.expect("a registry")
}

fn pulling(fake: &Fake, keys: &str, dst: &Running, repositories: &str) -> Workshop {
    Workshop::new(&format!(
        "version: 1\nregistries:\n{}  dst: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], \
         repositories: [\"{repositories}\"] }}\n",
        fake.rules("src", keys),
        dst.url()
    ))
}

#[tokio::test]
async fn github_packages_of_organisations_and_users_are_found_by_patterns() {
    let (fake, _github) = Github::start().await;
    let dst = plain().await;
    let (sample, other) = (two_platforms(1, &[20]), image(2, "amd64", &[20]));
    fake.seed("octo-org/team/app", "v1", &sample);
    fake.seed("octocat/tool", "v1", &other);
    for (pattern, repository, digest) in [
        ("octo-org/**", "octo-org/team/app", sample.digest()),
        ("octocat/*", "octocat/tool", other.digest()),
    ] {
        let workshop = pulling(&fake, &Github::keys(&fake), &dst, pattern);
        let engine = workshop.engine().await;
        let report = by_hand(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let found = dst.resolve(&repository.parse().expect("a name"), &"v1".parse().expect("a tag"));
        assert_eq!(found, Some(digest));
        // The digests of the listing hold from then on, and the sort of the owner is known.
        fake.forget();
        let report = scheduled(&engine, "r").await;
        assert!(
            report.failures.is_empty() && report.changes.is_empty(),
            "{:?}",
            report.failures
        );
        assert_eq!(fake.count("HEAD", "/manifests/"), 0, "{:?}", fake.exchanges());
        assert_eq!(fake.count("GET", "/api/"), 2, "{:?}", fake.exchanges());
    }
}

#[tokio::test]
async fn github_tags_are_looked_at_where_the_token_may_not_list_packages() {
    let (fake, github) = Github::start().await;
    github.denies_listing.store(true, Ordering::SeqCst);
    let dst = plain().await;
    fake.seed("octo-org/app", "v1", &image(1, "amd64", &[20]));
    let workshop = pulling(&fake, &Github::keys(&fake), &dst, "octo-org/app");
    let engine = workshop.engine().await;
    for _ in 0..2 {
        let report = by_hand(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
    }
    // Asked once, as an organisation: the refusal is none that a user's packages would change.
    assert_eq!(fake.count("GET", "/api/"), 1, "{:?}", fake.exchanges());
    assert!(fake.count("HEAD", "/manifests/v1") > 0);
}

#[tokio::test]
async fn github_limits_of_the_api_are_waited_for() {
    let (fake, github) = Github::start().await;
    github.over_limit.store(1, Ordering::SeqCst);
    let dst = plain().await;
    fake.seed("octo-org/app", "v1", &image(1, "amd64", &[20]));
    let workshop = pulling(&fake, &Github::keys(&fake), &dst, "octo-org/app");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(fake.count("GET", "/versions?"), 2, "{:?}", fake.exchanges());
}

/// The registry has limits of its own.
#[tokio::test]
async fn github_whose_api_is_used_up_is_read_tag_by_tag_and_its_api_left_alone() {
    let (fake, github) = Github::start().await;
    github.spent.store(true, Ordering::SeqCst);
    let dst = plain().await;
    for number in 0..8 {
        fake.seed(&format!("octo-org/app{number}"), "v1", &image(number, "amd64", &[20]));
    }
    // Another host than the registry's.
    let keys = Github::keys(&fake).replace("http://127.0.0.1:", "http://localhost:");
    let names: Vec<_> = (0..8).map(|number| format!("octo-org/app{number}")).collect();
    let workshop = pulling(&fake, &keys, &dst, &names.join("\", \""));
    let report = by_hand(&workshop.engine().await, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(fake.count("GET", "/manifests/v1"), 8, "{:?}", fake.exchanges());
    // Those that were under way when it said so.
    let asked = fake.count("GET", "/api/");
    assert!((1..=4).contains(&asked), "{asked}: {:?}", fake.exchanges());
}

/// A token is for GitHub, and this may be somebody else's registry that is like it.
#[tokio::test]
async fn github_tokens_stay_at_the_registry_where_its_api_is_not_named() {
    let (fake, _github) = Github::start().await;
    let dst = plain().await;
    fake.seed("octo-org/app", "v1", &image(1, "amd64", &[20]));
    let elsewhere = Nobody::listen();
    let keys = Github::keys(&fake).replace(
        &format!("endpoint: \"{}/api\"", fake.url()),
        &format!("resolve: {{ api.github.com: \"{}\" }}", elsewhere.address()),
    );
    assert!(!keys.contains("endpoint"));
    let workshop = pulling(&fake, &keys, &dst, "octo-org/app");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{report:?}");
    assert_eq!((fake.count("GET", "/api/"), elsewhere.has_callers()), (0, false));
}

#[tokio::test]
async fn github_pieces_of_an_upload_have_4_mib_at_most() {
    let (fake, _github) = Github::start().await;
    let dst = plain().await;
    let end = pulling(&fake, &Github::keys(&fake), &dst, "octo-org/app").end("src");
    let piece = end.habits().max_piece.expect("a limit");
    assert_eq!((end.habits().min_piece, piece), (4 << 20, 4 << 20));
    let blob = noise(1, (9 << 20) + 5);
    let body = |from: u64, to: u64| {
        let bytes = blob.slice(from as usize..to as usize);
        Box::pin(futures_util::stream::iter([Ok(bytes)])) as BodyStream
    };
    let (repository, size) = ("octo-org/app".parse().expect("a name"), blob.len() as u64);
    let mut write = end.begin_write(&repository).await.expect("opened");
    for number in 0..2 {
        let from = number * piece;
        let sent = end.write_piece(&write, from, piece, body(from, from + piece)).await;
        let (next, held) = sent.expect("a piece");
        assert_eq!(held, from + piece);
        write = next;
    }
    let (digest, from) = (Digest::of(&blob), 2 * piece);
    end.finish_write(&write, &digest, from, size - from, body(from, size))
        .await
        .expect("closed");
    assert_eq!(end.head_blob(&repository, &digest).await.expect("answered"), Some(size));
    // The fake fails the test for a longer piece.
    fake.finish();
}
