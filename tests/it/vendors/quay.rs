//! Quay: who may ask its API.

use transship::clock::Clock;
use transship::oci::Digest;
use transship::registry::{BodyStream, Endpoint, Limiter, SessionState};
use transship::rules::RegistryName;

use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::engine::{Workshop, by_hand, scheduled};
use crate::support::fake::quay::Quay;
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
    let seen = |fake: &crate::support::fake::Fake| (fake.count("GET", "/api/v1/"), fake.count("HEAD", "/manifests/"));
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
    let settings = &home.config().registries[&RegistryName::new("quay")];
    let (habits, vendor) = transship::vendors::for_settings(settings);
    let opened = Endpoint::open("quay", settings, habits, vendor, Clock::system(), &Limiter::default());
    let end = opened.expect("an end");
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
