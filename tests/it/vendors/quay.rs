//! Quay: who may ask its API.

use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::engine::{Workshop, by_hand, scheduled};
use crate::support::fake::quay::Quay;
use crate::support::images::image;

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
