//! What `ping` tells of all that, and asks for itself.

use std::sync::atomic::Ordering;

use http::StatusCode;
use serde_json::Value;

use super::questions;
use super::referrers::rules;
use crate::support::command::Transship;
use crate::support::ends::{Ends, sync};
use crate::support::fake::Fake;
use crate::support::fake::harbor::{Harbor, Project};
use crate::support::fake::zot::Zot;
use crate::support::images::image;
use crate::support::proxy::{Act, Fault};

/// `class name = value: message` of all that is known of a registry, of these names.
fn known(document: &Value, registry: &str, names: &[&str]) -> Vec<String> {
    let registries = document["registries"].as_array().expect("registries");
    let found = registries.iter().find(|found| found["registry"] == registry);
    let known = found.expect("the registry")["capabilities"].as_array().expect("a list");
    let known = known
        .iter()
        .filter(|known| names.iter().any(|name| known["name"] == *name));
    known
        .map(|known| {
            let text = |key: &str| known[key].as_str().expect("a text");
            assert!(
                !text("evidence").is_empty() && text("learnt") < text("expires"),
                "{known}"
            );
            format!(
                "{} {} = {}: {}",
                text("class"),
                text("name"),
                text("value"),
                text("message")
            )
        })
        .collect()
}

async fn ping(home: &Transship) -> Value {
    home.run(&["ping", "-o", "json"]).await.expect(0).json()
}

fn between(src: &Fake, dst: &Fake, keys: &str, repository: &str) -> Transship {
    let ends = [src.rules("src", keys), dst.rules("dst", keys)].concat();
    Transship::new(&format!(
        "version: 1\nregistries:\n{ends}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [{repository}] }}\n"
    ))
}

#[tokio::test]
async fn ping_asks_once_what_nobody_has_asked_and_leaves_nothing_behind() {
    let (src, source) = Zot::start().await;
    let (dst, _destination) = Zot::start().await;
    src.seed("a/b", "v1", &image(1, "amd64", &[20]));
    source.no_search.store(true, Ordering::SeqCst);
    let home = between(&src, &dst, &Zot::keys(), "a/b");
    let facts = ["referrers_api", "search"];
    let document = ping(&home).await;
    assert_eq!(
        known(&document, "src", &facts),
        [
            "* referrers_api = present: it has the referrers API",
            "* search = absent: it has no search extension: each tag is looked at by itself"
        ]
    );
    assert_eq!(
        known(&document, "dst", &facts),
        [
            "* referrers_api = present: it has the referrers API",
            "* search = present: it has the search extension, which lists tags with their digests"
        ]
    );
    assert!(dst.book().registry.repositories().is_empty());

    // What is there is not asked for again; what is missing is, as it may have come.
    source.no_search.store(false, Ordering::SeqCst);
    src.forget();
    dst.forget();
    let document = ping(&home).await;
    assert_eq!(
        known(&document, "src", &["search"]),
        ["* search = present: it has the search extension, which lists tags with their digests"]
    );
    let asked = |fake: &Fake| (questions(fake, "/referrers/"), questions(fake, "/ext/search"));
    // The list itself is asked for each time: a right to it may have been taken away.
    assert_eq!((asked(&src), asked(&dst)), ((0, 1), (0, 1)));
    // Runs know it.
    src.forget();
    home.run(&["sync"]).await.expect(0);
    assert_eq!(questions(&src, "/ext/search"), 1);
    let text = home.run(&["ping"]).await.expect(0).stdout;
    let line =
        "  known: it has the search extension, which lists tags with their digests (its search listed tags; just now)";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn ping_tells_of_the_api_that_is_missing_and_of_the_mounts_that_are_refused() {
    let ends = Ends::plain().await;
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n  one: {{ url: \"{}\" }}\nrules:\n  - name: r\n    source: one\n    \
         destinations: [{{ registry: one, to: \"copy/{{name}}\" }}]\n    repositories: [team/app]\n",
        ends.src_proxy.url()
    ));
    ends.src_wire().push("team/app", "v1", &image(1, "amd64", &[20])).await;
    let refused = Act::Answer(StatusCode::METHOD_NOT_ALLOWED, None);
    ends.src_proxy
        .add(Fault::once("POST", "/copy/app/blobs/uploads/", refused));
    sync(&home, 0).await;
    let document = ping(&home).await;
    assert_eq!(
        known(&document, "one", &["referrers_api", "mounts"]),
        [
            "* mounts = done: blobs are mounted from one repository into another",
            "* referrers_api = absent: it has no referrers API: attachments are found by their tags",
            "copy/app mounts = refused from team/app: blobs are not mounted from team/app into copy/app: they are sent"
        ]
    );
}

#[tokio::test]
async fn ping_tells_what_is_forbidden_and_to_whom() {
    let ends = Ends::plain().await;
    ends.src_wire().push("a", "v1", &image(1, "amd64", &[20])).await;
    ends.src_proxy.add(Fault::every(
        "GET",
        "/referrers/",
        Act::Answer(StatusCode::FORBIDDEN, None),
    ));
    let home = Transship::new(&rules(&ends.src_proxy.url(), &ends.dst_proxy.url()));
    let document = ping(&home).await;
    assert_eq!(
        known(&document, "src", &["referrers_api"]),
        [
            "a referrers_api = refused: referrers of a are refused, or there is no referrers API: attachments are found by their tags"
        ]
    );
    // It is asked again, and its age begins anew.
    ends.forget().await;
    ping(&home).await;
    assert_eq!(ends.src_proxy.count("GET", "/referrers/"), 1);
}

#[tokio::test]
async fn ping_tells_what_harbors_projects_are() {
    let (src, harbor) = Harbor::start(&["team"]).await;
    let (dst, _destination) = Harbor::start(&["hub"]).await;
    harbor.project(
        "hub",
        Project {
            proxy: true,
            id: 7,
            ..Project::default()
        },
    );
    let home = between(&src, &dst, &Harbor::keys(), "hub/app");
    let document = ping(&home).await;
    assert_eq!(
        known(&document, "src", &["project"]),
        ["hub project = proxy 7: the project hub is a proxy cache: its tags are looked at one by one"]
    );
    assert_eq!(
        known(&document, "dst", &["project"]),
        ["hub project = own 0: the project hub holds what was pushed to it"]
    );
}
