//! What an administrator of Artifactory or Nexus has to make before images can be pushed: who is told what, and what is made where
//! the rules ask for it.

use std::sync::atomic::Ordering;

use http::Method;
use transship::demo::registry::{Options, Registry, Running};
use transship::registry::ErrorKind;

use crate::support::engine::{Workshop, by_hand, only_failure, scheduled};
use crate::support::fake::Fake;
use crate::support::fake::artifactory::Artifactory;
use crate::support::fake::harbor::Harbor;
use crate::support::fake::nexus::Nexus;
use crate::support::images::image;

/// A source with two images, and rules that bring them to the destination of this entry.
async fn workshop(entry: &str, repositories: [&str; 2]) -> (Running, Workshop) {
    let from = Registry::start(Options::default()).await.expect("a registry");
    for (number, repository) in repositories.iter().enumerate() {
        let (name, tag) = (repository.parse().expect("a name"), "v1".parse().expect("a tag"));
        from.seed(&name, &tag, &image(number as u64, "amd64", &[20, 30]));
    }
    let rules = Workshop::new(&format!(
        "version: 1\nregistries:\n  from: {{ url: \"{}\" }}\n{entry}rules:\n  - {{ name: r, source: from, destinations: [dst], \
         repositories: [{}], retry: {{ attempts: 1 }} }}\n",
        from.url(),
        repositories.join(", ")
    ));
    (from, rules)
}

#[tokio::test]
async fn artifactory_key_that_is_missing_is_told_with_who_makes_it() {
    let (fake, artifactory) = Artifactory::with_keys(&[("docker-remote", "REMOTE")]).await;
    artifactory.is_strict.store(true, Ordering::SeqCst);
    let dst = fake.rules("dst", &Artifactory::keys());
    let (_from, workshop) = workshop(&dst, ["docker-new/app", "docker-new/web"]).await;
    let report = by_hand(&workshop.engine().await, "r").await;
    assert_eq!(report.failures.len(), 2, "{:?}", report.failures);
    for failure in &report.failures {
        assert_eq!(failure.kind, ErrorKind::Unsupported);
        for words in [
            "Artifactory has no repository docker-new",
            "an administrator makes it (Administration, Repositories, Create a Repository, Local, Docker)",
            "`create_repositories: { artifactory_local: true }`",
        ] {
            assert!(failure.message.contains(words), "{}", failure.message);
        }
    }
    assert_eq!(fake.count("PUT", ""), 0, "{:?}", fake.exchanges());
    fake.finish();
}

#[tokio::test]
async fn artifactory_key_is_made_once_where_the_rules_ask_for_it() {
    let (fake, artifactory) = Artifactory::with_keys(&[]).await;
    artifactory.is_strict.store(true, Ordering::SeqCst);
    artifactory.makes_keys.store(200, Ordering::SeqCst);
    let keys = format!(
        "{}, create_repositories: {{ artifactory_local: true }}",
        Artifactory::keys()
    );
    let (_from, workshop) = workshop(&fake.rules("dst", &keys), ["docker-new/app", "docker-new/web"]).await;
    let report = by_hand(&workshop.engine().await, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    for repository in ["docker-new/app", "docker-new/web"] {
        assert!(fake.resolve(repository, "v1").is_some());
    }
    assert_eq!(fake.count("PUT", "/artifactory/api/repositories/docker-new"), 1);
    fake.finish();
}

#[tokio::test]
async fn artifactory_key_that_cannot_be_made_and_one_that_takes_no_pushes_are_told() {
    for (key, class, status, words) in [
        ("docker-new", None, 403, "this user may not make it"),
        ("docker-new", None, 500, "the API at"),
        // It is not there for pushes.
        ("docker-remote", Some("REMOTE"), 0, "takes no pushes"),
    ] {
        let keys: Vec<(&str, &str)> = class.into_iter().map(|class| (key, class)).collect();
        let (fake, artifactory) = Artifactory::with_keys(&keys).await;
        artifactory.is_strict.store(true, Ordering::SeqCst);
        artifactory.makes_keys.store(status, Ordering::SeqCst);
        artifactory.refuses_pushes.store(class.is_some(), Ordering::SeqCst);
        let keys = format!(
            "{}, create_repositories: {{ artifactory_local: true }}",
            Artifactory::keys()
        );
        let (app, web) = (format!("{key}/app"), format!("{key}/web"));
        let (_from, workshop) = workshop(&fake.rules("dst", &keys), [&app, &web]).await;
        let report = by_hand(&workshop.engine().await, "r").await;
        assert_eq!(report.failures.len(), 2, "{:?}", report.failures);
        for failure in &report.failures {
            assert!(failure.message.contains(words), "{}", failure.message);
        }
    }
}

/// The first part of a name is no key where the host, the path or the port has one.
#[tokio::test]
async fn artifactory_of_one_key_gets_no_other_keys_made() {
    for (host, path, makes, told) in [
        (
            "docker-new.corp.example",
            "",
            false,
            "nor docker-new where this host is that of one",
        ),
        ("docker-new.corp.example", "", true, "names do not begin with keys"),
        (
            "localhost",
            "/artifactory/api/docker/docker-new",
            false,
            "Artifactory has no repository docker-new, which",
        ),
        // The key is there, and refuses for a reason of its own.
        ("docker-old.corp.example", "", true, "NAME_UNKNOWN"),
    ] {
        let (fake, artifactory) = Artifactory::with_keys(&[("docker-old", "LOCAL"), ("empty", "LOCAL")]).await;
        artifactory.is_strict.store(true, Ordering::SeqCst);
        artifactory
            .refuses_pushes
            .store(host == "docker-old.corp.example", Ordering::SeqCst);
        fake.seed("docker-old/web", "v1", &image(1, "amd64", &[20]));
        let (_from, workshop) = workshop(&at(&fake, host, path, makes), ["team/app", "base/app"]).await;
        let report = by_hand(&workshop.engine().await, "r").await;
        assert_eq!(report.failures.len(), 2, "{:?}", report.failures);
        for failure in &report.failures {
            assert!(failure.message.contains(told), "{host}{path}: {}", failure.message);
        }
        assert_eq!(fake.count("PUT", ""), 0, "{:?}", fake.exchanges());
        fake.finish();
    }
}

/// A key that merely has the name of the host's first part is neither what is pushed to nor what takes no pushes.
#[tokio::test]
async fn artifactory_key_that_is_named_as_the_host_stands_in_the_way_of_no_other() {
    for class in ["VIRTUAL", "LOCAL", "REMOTE"] {
        let (fake, artifactory) = Artifactory::with_keys(&[("docker", class), ("docker-old", "LOCAL")]).await;
        artifactory.is_strict.store(true, Ordering::SeqCst);
        artifactory.makes_keys.store(200, Ordering::SeqCst);
        fake.seed("docker-old/web", "v1", &image(1, "amd64", &[20]));
        let entry = at(&fake, "docker.other.example", "", true);
        let (_from, workshop) = workshop(&entry, ["team/app", "team/app"]).await;
        let report = by_hand(&workshop.engine().await, "r").await;
        assert!(report.failures.is_empty(), "{class}: {:?}", report.failures);
        assert!(fake.resolve("team/app", "v1").is_some(), "{:?}", fake.exchanges());
        assert_eq!(fake.count("PUT", "/artifactory/api/repositories/"), 1);
        fake.finish();
    }
    // Without that word it is told who makes it; and nothing is made where no image tells whether the host has the key.
    for (image_of, makes, told) in [
        (
            Some("docker-old/web"),
            false,
            "has no repository team for names to begin with:",
        ),
        (None, true, "no image tells whether names begin with keys here"),
    ] {
        let (fake, artifactory) = Artifactory::with_keys(&[("docker", "REMOTE"), ("docker-old", "LOCAL")]).await;
        artifactory.is_strict.store(true, Ordering::SeqCst);
        if let Some(name) = image_of {
            fake.seed(name, "v1", &image(1, "amd64", &[20]));
        }
        let entry = at(&fake, "docker.other.example", "", makes);
        let (_from, workshop) = workshop(&entry, ["team/app", "team/app"]).await;
        let report = by_hand(&workshop.engine().await, "r").await;
        let message = &only_failure(&report).message;
        assert!(message.contains(told), "{message}");
        assert_eq!(fake.count("PUT", ""), 0, "{:?}", fake.exchanges());
        fake.finish();
    }
    // The host is that of a remote one.
    let (fake, artifactory) = Artifactory::with_keys(&[("docker", "REMOTE"), ("docker-old", "LOCAL")]).await;
    artifactory.is_strict.store(true, Ordering::SeqCst);
    artifactory.refuses_pushes.store(true, Ordering::SeqCst);
    fake.seed("docker-old/web", "v1", &image(1, "amd64", &[20]));
    let (_from, workshop) = workshop(&at(&fake, "docker.corp.example", "", true), ["team/app", "team/app"]).await;
    let report = by_hand(&workshop.engine().await, "r").await;
    let message = &only_failure(&report).message;
    assert!(
        message.contains("docker is a remote repository of Artifactory"),
        "{message}"
    );
    fake.finish();
}

/// What the path says is made; and where an image of another key is found by its name, names begin with keys.
#[tokio::test]
async fn artifactory_key_is_made_where_it_is_known_to_be_one() {
    for (host, path, made, others) in [
        (
            "localhost",
            "/artifactory/api/docker/docker-new",
            "docker-new",
            "docker-new/team/app",
        ),
        ("artifactory.other.example", "", "team", "team/app"),
    ] {
        let (fake, artifactory) = Artifactory::with_keys(&[("docker-old", "LOCAL")]).await;
        artifactory.is_strict.store(true, Ordering::SeqCst);
        artifactory.makes_keys.store(200, Ordering::SeqCst);
        fake.seed("docker-old/web", "v1", &image(1, "amd64", &[20]));
        let (_from, workshop) = workshop(&at(&fake, host, path, true), ["team/app", "team/app"]).await;
        let report = by_hand(&workshop.engine().await, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert!(fake.resolve(others, "v1").is_some(), "{:?}", fake.exchanges());
        assert_eq!(fake.count("PUT", "/artifactory/api/repositories/"), 1);
        assert_eq!(fake.count("PUT", &format!("/artifactory/api/repositories/{made}")), 1);
        fake.finish();
    }
}

/// The entry of one at another host and path.
fn at(fake: &Fake, host: &str, path: &str, makes: bool) -> String {
    let port = fake.host().rsplit_once(':').expect("a port").1.to_owned();
    let url = format!("http://{host}:{port}{path}");
    let keys = format!(
        "{}, resolve: {{ {host}: 127.0.0.1 }}, create_repositories: {{ artifactory_local: {makes} }}",
        Artifactory::keys()
    );
    fake.rules("dst", &keys).replacen(fake.url(), &url, 1)
}

#[tokio::test]
async fn nexus_repository_that_is_missing_is_told_with_who_makes_it() {
    // To anybody, and to who has logged in alone.
    for (name, is_tried) in [("docker-new", false), ("docker-hidden", true)] {
        let fake = Nexus::start().await;
        let entry = format!(
            "  dst: {{ url: \"{}/repository/{name}\", {} }}\n",
            fake.url(),
            Nexus::keys()
        );
        let (_from, workshop) = workshop(&entry, ["team/app", "team/app"]).await;
        let report = by_hand(&workshop.engine().await, "r").await;
        let message = &only_failure(&report).message;
        for words in [
            "Nexus has no repository of this name",
            "Settings, Repositories, Create repository, docker (hosted)",
            "POST /service/rest/v1/repositories/docker/hosted",
        ] {
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(
            fake.count("POST", "/blobs/uploads/") > 0,
            is_tried,
            "{:?}",
            fake.exchanges()
        );
        assert_eq!(fake.count("*", "/service/"), 0);
        fake.finish();
    }
}

/// 404 is not always about the repository.
#[tokio::test]
async fn nexus_manifests_that_lack_something_are_not_told_to_lack_a_repository() {
    for code in ["BLOB_UNKNOWN", "MANIFEST_UNKNOWN"] {
        let (fake, nexus) = Nexus::start_with_search().await;
        *nexus.lacks.lock().expect("not poisoned") = Some(code);
        let dst = fake.rules("dst", &Nexus::keys());
        let (_from, workshop) = workshop(&dst, ["team/app", "team/app"]).await;
        let report = by_hand(&workshop.engine().await, "r").await;
        let message = &only_failure(&report).message;
        assert!(!message.contains("no repository"), "{message}");
    }
}

/// A proxy that answers 404 in the place of a registry that starts again says nothing of a repository: the images are not put aside.
#[tokio::test]
async fn registries_that_start_again_during_a_push_are_not_told_to_lack_a_repository() {
    for (method, part) in [(Method::POST, "/blobs/uploads/"), (Method::PUT, "/manifests/")] {
        let (artifactory, keys) = Artifactory::with_keys(&[("team", "LOCAL")]).await;
        keys.is_strict.store(true, Ordering::SeqCst);
        for (fake, keys) in [
            (Nexus::start().await, Nexus::keys()),
            (artifactory, Artifactory::keys()),
            (Harbor::start(&["team"]).await.0, Harbor::keys()),
        ] {
            let (_from, workshop) = workshop(&fake.rules("dst", &keys), ["team/app", "team/app"]).await;
            let engine = workshop.engine().await;
            fake.go_away_before(method.clone(), part);
            let report = by_hand(&engine, "r").await;
            let failure = only_failure(&report);
            assert_eq!(failure.kind, ErrorKind::Server, "{keys}: {}", failure.message);
            assert!(failure.message.contains("it may be starting"), "{}", failure.message);
            assert!(fake.come_back(), "{keys}: it was never away");
            let report = scheduled(&engine, "r").await;
            assert!(report.failures.is_empty(), "{keys}: {:?}", report.failures);
            assert!(fake.resolve("team/app", "v1").is_some(), "{keys}");
            fake.finish();
        }
    }
}
