//! JFrog Artifactory: what it holds, what it has fetched, and what patterns find in it.

use std::sync::atomic::Ordering;

use crate::support::command::Transship;
use crate::support::engine::{Workshop, by_hand, only_failure, scheduled};
use crate::support::fake::artifactory::{Artifactory, Links};
use crate::support::fake::{Exchange, Fake};
use crate::support::images::image;

/// A cache lists what it has, and asks where it fetches from only when a tag is looked at.
#[tokio::test]
async fn artifactory_remote_repositories_are_looked_at_tag_by_tag() {
    for (key, lists, looks) in [("docker-local", 1, 1), ("docker-remote", 0, 2)] {
        let (src, _source) = Artifactory::with_keys(&[("docker-remote", "REMOTE")]).await;
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

const KEYS: [(&str, &str); 4] = [
    ("docker-local", "LOCAL"),
    ("docker-remote", "REMOTE"),
    ("other", "FEDERATED"),
    ("secret", "LOCAL"),
];

/// A rule with these patterns.
fn rules(src: &Fake, dst: &Fake, patterns: &[&str]) -> String {
    let keys = Artifactory::keys();
    let ends = [src.rules("src", &keys), dst.rules("dst", &keys)].concat();
    format!(
        "version: 1\nregistries:\n{ends}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [\"{}\"] }}\n",
        patterns.join("\", \"")
    )
}

/// Requests with a login for the registry's own catalogue, for the list of keys, and for catalogues of keys.
fn asked(src: &Fake) -> (usize, usize, usize) {
    let exchanges = src.exchanges();
    let count = |part: &str| {
        let to = |exchange: &&Exchange| exchange.scheme.is_some() && exchange.target.starts_with(part);
        exchanges.iter().filter(to).count()
    };
    (
        count("/v2/_catalog"),
        count("/artifactory/api/repositories?"),
        count("/artifactory/api/docker/"),
    )
}

#[tokio::test]
async fn artifactory_repositories_under_a_glob_come_from_its_catalogue_or_from_those_of_the_keys() {
    let (src, source) = Artifactory::with_keys(&KEYS).await;
    for name in [
        "docker-local/app",
        "docker-local/team/web",
        "docker-remote/alpine",
        "other/tool",
    ] {
        src.seed(name, "v1", &image(1, "amd64", &[20]));
    }
    for (root, pattern, found, wanted) in [
        // The registry has a catalogue of all, as where the host is that of one key: keys are not asked for.
        (200, "docker-local/**", 2, (1, 0, 0)),
        (200, "**", 4, (1, 0, 0)),
        // It has none. Only the keys that the patterns begin with are read.
        (404, "docker-local/**", 2, (1, 1, 1)),
        (404, "docker-local/team/*", 1, (1, 1, 1)),
        (404, "other/*", 1, (1, 1, 1)),
        // A pattern may begin with any of them.
        (404, "*/t*", 1, (1, 1, 4)),
        // It is not for this user.
        (403, "docker-local/**", 2, (1, 1, 1)),
        // There is something else at its place.
        (400, "docker-local/**", 2, (1, 1, 1)),
    ] {
        let dst = Artifactory::start().await;
        source.root.store(root, Ordering::SeqCst);
        src.forget();
        let workshop = Workshop::new(&rules(&src, &dst, &[pattern]));
        let report = by_hand(&workshop.engine().await, "r").await;
        assert!(report.failures.is_empty(), "{root} {pattern}: {:?}", report.failures);
        assert_eq!(dst.book().registry.repositories().len(), found, "{root} {pattern}");
        assert_eq!(asked(&src), wanted, "{root} {pattern}: {:?}", src.exchanges());
        // What the list of keys says of them is not asked for again.
        let of_classes = src.count("GET", "/api/repositories/");
        assert_eq!(of_classes > 0, root == 200, "{root} {pattern}: {:?}", src.exchanges());
    }
}

/// Nobody says where the link to the next page leads, or whether there is one.
#[tokio::test]
async fn artifactory_catalogues_are_read_to_their_end_wherever_links_lead() {
    let (src, source) = Artifactory::with_keys(&KEYS).await;
    let sample = image(1, "amd64", &[20]);
    for number in 0..1000 {
        src.seed(&format!("docker-local/img{number:04}"), "v1", &sample);
    }
    for (links, short, pages) in [
        // A page that is full may be the last.
        (Links::None, 0, 2),
        (Links::Here, 400, 3),
        (Links::Root, 400, 3),
        (Links::Elsewhere, 400, 3),
    ] {
        let dst = Artifactory::start().await;
        *source.links.lock().expect("not poisoned") = links;
        source.short.store(short, Ordering::SeqCst);
        src.forget();
        let workshop = Workshop::new(&rules(&src, &dst, &["docker-local/img099?"]));
        let report = by_hand(&workshop.engine().await, "r").await;
        assert!(report.failures.is_empty(), "{links:?}: {:?}", report.failures);
        assert_eq!(dst.book().registry.repositories().len(), 10, "{links:?}");
        assert_eq!(asked(&src), (1, 1, pages), "{links:?}: {:?}", src.exchanges());
    }
}

#[tokio::test]
async fn artifactory_keys_that_are_refused_or_missing_are_told_and_others_found() {
    let (src, source) = Artifactory::with_keys(&KEYS).await;
    src.seed("docker-local/app", "v1", &image(1, "amd64", &[20]));
    src.seed("secret/app", "v1", &image(1, "amd64", &[20]));
    source.secret.lock().expect("not poisoned").insert("secret".to_owned());
    for (pattern, told) in [
        (
            "secret/**",
            "patterns need the permission to read the repository secret",
        ),
        ("missing/**", "shows this user no Docker repository missing"),
    ] {
        // Whether this user may list keys or not.
        for lists_keys in [200, 403] {
            source.lists_keys.store(lists_keys, Ordering::SeqCst);
            for (patterns, found) in [(&["docker-local/**", pattern][..], 1), (&[pattern], 0)] {
                let dst = Artifactory::start().await;
                let workshop = Workshop::new(&rules(&src, &dst, patterns));
                let report = by_hand(&workshop.engine().await, "r").await;
                let message = &only_failure(&report).message;
                assert!(message.contains(told), "{patterns:?}: {message}");
                assert_eq!(dst.book().registry.repositories().len(), found, "{patterns:?}");
            }
        }
    }
    // Without the keys there is nothing to begin with, where no pattern names one.
    source.root.store(403, Ordering::SeqCst);
    let dst = Artifactory::start().await;
    src.forget();
    let workshop = Workshop::new(&rules(&src, &dst, &["*/app"]));
    let report = by_hand(&workshop.engine().await, "r").await;
    let message = &only_failure(&report).message;
    assert!(
        message.contains("/artifactory/api/repositories") || message.contains("403"),
        "{message}"
    );
    assert!(message.contains("own catalogue cannot be read either"), "{message}");
    assert_eq!(asked(&src), (1, 1, 0), "{:?}", src.exchanges());
}

/// What a remote repository has not fetched yet, and what a virtual one's members do not list, no pattern finds.
#[tokio::test]
async fn artifactory_patterns_that_rely_on_remote_and_virtual_repositories_are_warned_of_once() {
    let (src, _source) = Artifactory::with_keys(&KEYS).await;
    for name in ["docker-local/app", "docker-remote/alpine"] {
        src.seed(name, "v1", &image(1, "amd64", &[20]));
    }
    for (pattern, warned) in [("docker-local/**", 0), ("docker-remote/**", 1), ("**", 1)] {
        let (one, two) = (Artifactory::start().await, Artifactory::start().await);
        // Two rules of one run ask for the same.
        let more = two.rules("two", &Artifactory::keys());
        let first = rules(&src, &one, &[pattern]).replace("rules:\n", &format!("{more}rules:\n"));
        let home = Transship::new(&format!(
            "{first}  - {{ name: s, source: src, destinations: [two], repositories: [\"{pattern}\"] }}\n"
        ));
        let told = home.run(&["sync"]).await.expect(0).stderr;
        let warnings = told.matches("patterns may not find all there is in docker-remote");
        assert_eq!(warnings.count(), warned, "{told}");
    }
}

/// Names have no key in them where the host or the path is that of one: what is refused there is all that there is.
#[tokio::test]
async fn artifactory_at_an_address_of_one_key_is_not_looked_for_in_others() {
    let (src, source) = Artifactory::with_keys(&KEYS).await;
    src.seed("docker-local/app", "v1", &image(1, "amd64", &[20]));
    source.root.store(403, Ordering::SeqCst);
    source
        .secret
        .lock()
        .expect("not poisoned")
        .insert("docker-local".to_owned());
    let port = src.host().rsplit_once(':').expect("a port").1.to_owned();
    let path = "/artifactory/api/docker/docker-local";
    for (url, of_keys) in [
        (format!("http://docker-local.corp.example:{port}"), 1),
        (format!("{}{path}", src.url()), 0),
    ] {
        let dst = Artifactory::start().await;
        src.forget();
        let text = rules(&src, &dst, &["**"]).replacen(
            &format!("url: \"{}\"", src.url()),
            &format!("url: \"{url}\", resolve: {{ docker-local.corp.example: 127.0.0.1 }}"),
            1,
        );
        let report = by_hand(&Workshop::new(&text).engine().await, "r").await;
        assert_eq!(report.failures.len(), 1, "{url}: {:?}", report.failures);
        assert_eq!(src.count("GET", "/artifactory/api/repositories"), of_keys, "{url}");
        assert_eq!(src.count("GET", "/artifactory/api/docker/other"), 0, "{url}");
        assert_eq!(dst.book().registry.repositories().len(), 0, "{url}");
    }
}

/// `team/app` at the host or path of `docker` is `docker/team/app`, however much another key is called as its first part.
#[tokio::test]
async fn artifactory_of_one_key_is_not_listed_by_the_storage_of_another() {
    for (host, path, lists) in [
        ("docker.corp.example", "", 0),
        ("localhost", "/artifactory/api/docker/docker", 1),
    ] {
        let (src, source) = Artifactory::with_keys(&[("docker", "LOCAL"), ("team", "LOCAL")]).await;
        source.is_strict.store(true, Ordering::SeqCst);
        let dst = Artifactory::start().await;
        for number in 0..2 {
            for name in ["docker/team/app", "team/app"] {
                src.seed(name, &format!("v{number}"), &image(number, "amd64", &[20]));
            }
        }
        let port = src.host().rsplit_once(':').expect("a port").1.to_owned();
        let text = rules(&src, &dst, &["team/app"]).replacen(
            &format!("url: \"{}\"", src.url()),
            &format!("url: \"http://{host}:{port}{path}\", resolve: {{ {host}: 127.0.0.1 }}"),
            1,
        );
        let workshop = Workshop::new(&text);
        let engine = workshop.engine().await;
        assert_eq!(by_hand(&engine, "r").await.failures, []);
        assert_eq!(scheduled(&engine, "r").await.failures, []);
        src.seed("docker/team/app", "v1", &image(7, "amd64", &[20]));
        src.forget();
        assert_eq!(scheduled(&engine, "r").await.failures, []);
        assert_eq!(
            dst.resolve("team/app", "v1"),
            src.resolve("docker/team/app", "v1"),
            "{host}{path}"
        );
        assert_eq!(src.count("GET", "/api/storage/"), lists, "{:?}", src.exchanges());
        assert_eq!(
            src.count("GET", "/api/storage/docker/team/app"),
            lists,
            "{:?}",
            src.exchanges()
        );
    }
}

/// Whoever says that it is Artifactory can name as many keys as it likes.
#[tokio::test]
async fn artifactory_keys_are_read_up_to_a_bound_for_all_of_them() {
    let (src, source) = Artifactory::with_keys(&[]).await;
    for (keys, padding, pattern, read, told) in [
        (
            1001,
            0,
            "*/t*",
            0,
            Some("has 1001 repositories for images, of which 1000 are read at most"),
        ),
        (1001, 0, "key0001/*", 1, None),
        // Of 64 MiB for all.
        (12, 7 << 20, "*/t*", 10, Some("more than 64 MiB together")),
    ] {
        let named = (0..keys).map(|number| (format!("key{number:04}"), "REMOTE"));
        *source.keys.lock().expect("not poisoned") = named.collect();
        source.padding.store(padding, Ordering::SeqCst);
        let dst = Artifactory::start().await;
        src.forget();
        let report = by_hand(&Workshop::new(&rules(&src, &dst, &[pattern])).engine().await, "r").await;
        assert_eq!(
            report.failures.len(),
            usize::from(told.is_some()),
            "{:?}",
            report.failures
        );
        if let Some(told) = told {
            assert!(
                report.failures[0].message.contains(told),
                "{}",
                report.failures[0].message
            );
        }
        assert_eq!(asked(&src), (1, 1, read), "{keys} {padding} {pattern}");
    }
}

/// That this user is shown nothing does not say that nothing is there.
#[tokio::test]
async fn artifactory_that_shows_a_user_nothing_is_no_empty_artifactory() {
    let (src, source) = Artifactory::with_keys(&[]).await;
    let dst = Artifactory::start().await;
    source.root.store(403, Ordering::SeqCst);
    let report = by_hand(&Workshop::new(&rules(&src, &dst, &["*/t*"])).engine().await, "r").await;
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    let message = &report.failures[0].message;
    assert!(
        message.contains("shows this user no repositories for images"),
        "{message}"
    );
    assert!(message.contains("403"), "{message}");
    assert_eq!(asked(&src), (1, 1, 0), "{:?}", src.exchanges());
}

/// The answer to the question for a catalogue, which it has not, is the first that shows what it is.
#[tokio::test]
async fn artifactory_that_nobody_named_is_asked_for_its_keys() {
    let (src, _source) = Artifactory::with_keys(&KEYS).await;
    let dst = Artifactory::start().await;
    src.seed("docker-local/app", "v1", &image(1, "amd64", &[20]));
    let text = rules(&src, &dst, &["docker-local/**"]).replacen("kind: artifactory, ", "", 1);
    let report = by_hand(&Workshop::new(&text).engine().await, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(dst.book().registry.repositories().len(), 1);
    assert_eq!(asked(&src), (2, 1, 1), "{:?}", src.exchanges());
}
