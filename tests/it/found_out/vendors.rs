//! What the vendors' own APIs have.

use std::sync::atomic::Ordering;

use super::{HOURS, process, questions, run};
use crate::support::engine::Workshop;
use crate::support::fake::gitlab::Gitlab;
use crate::support::fake::harbor::{Harbor, Project};
use crate::support::fake::zot::Zot;
use crate::support::fake::{Fake, azure};
use crate::support::images::image;

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// From a fake to another of its kind.
fn workshop(src: &Fake, dst: &Fake, [of_src, of_dst]: [&str; 2], repositories: &str) -> Workshop {
    let ends = [src.rules("src", of_src), dst.rules("dst", of_dst)].concat();
    Workshop::new(&format!(
        "version: 1\nregistries:\n{ends}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [{repositories}] }}\n"
    ))
}

fn seed(fake: &Fake, repository: &str) {
    for number in 0..3 {
        fake.seed(repository, &format!("v{number}"), &image(number, "amd64", &[20]));
    }
}

/// Questions by GET for this since it was asked last, and looks at single tags.
fn asked(fake: &Fake, part: &str) -> (usize, usize) {
    let asked = (questions(fake, part), fake.count("HEAD", "/manifests/"));
    fake.forget();
    asked
}

#[tokio::test]
async fn that_zot_has_no_search_is_known_to_later_processes_for_hours() {
    let (src, source) = Zot::start().await;
    let (dst, _destination) = Zot::start().await;
    source.no_search.store(true, Ordering::SeqCst);
    seed(&src, "a/b");
    let workshop = workshop(&src, &dst, [&Zot::keys(), &Zot::keys()], "a/b");
    let search = "/ext/search";
    process(&workshop).await;
    assert_eq!(asked(&src, search).0, 1);
    process(&workshop).await;
    assert_eq!(asked(&src, search), (0, 3), "the next process knows it");
    source.no_search.store(false, Ordering::SeqCst);
    process(&workshop).await;
    assert_eq!(asked(&src, search), (0, 3), "what is wrong costs requests alone");
    workshop.pass(HOURS);
    process(&workshop).await;
    assert_eq!(asked(&src, search), (1, 0));
    // That it is there is nothing to rely on.
    source.no_search.store(true, Ordering::SeqCst);
    process(&workshop).await;
    assert_eq!(asked(&src, search), (1, 3));
}

#[tokio::test]
async fn that_gitlab_has_no_metadata_database_is_known_to_later_processes_for_hours() {
    let (src, source) = Gitlab::start().await;
    let (dst, _destination) = Gitlab::start().await;
    source.plain.store(true, Ordering::SeqCst);
    seed(&src, "group/project");
    let workshop = workshop(&src, &dst, [&Gitlab::keys(), &Gitlab::keys()], "group/project");
    let tags = "/gitlab/v1/";
    process(&workshop).await;
    assert_eq!(asked(&src, tags).0, 1);
    process(&workshop).await;
    assert_eq!(asked(&src, tags), (0, 3), "the next process knows it");
    source.plain.store(false, Ordering::SeqCst);
    process(&workshop).await;
    assert_eq!(asked(&src, tags), (0, 3), "what is wrong costs requests alone");
    workshop.pass(HOURS);
    process(&workshop).await;
    assert_eq!(asked(&src, tags), (1, 0));
    source.plain.store(true, Ordering::SeqCst);
    process(&workshop).await;
    assert_eq!(asked(&src, tags), (1, 3));
}

#[tokio::test]
async fn how_long_azures_pages_may_be_is_asked_for_once() {
    let (src, source) = azure::start().await;
    let (dst, _destination) = azure::start().await;
    source.refuses_size.store(true, Ordering::SeqCst);
    seed(&src, "app");
    seed(&src, "web");
    let workshop = workshop(&src, &dst, [&azure::keys(&src), &azure::keys(&dst)], "app, web");
    let tags = "/_tags";
    let engine = workshop.engine().await;
    run(&engine).await;
    // Each repository in turn, or both at once.
    let first = asked(&src, tags).0;
    assert!((3..=4).contains(&first), "{first}");
    run(&engine).await;
    assert_eq!(asked(&src, tags).0, 2);
    process(&workshop).await;
    assert_eq!(asked(&src, tags), (2, 0), "the next process knows it");
    source.refuses_size.store(false, Ordering::SeqCst);
    process(&workshop).await;
    assert_eq!(asked(&src, "n=1000").0, 0);
    workshop.pass(8 * DAY);
    process(&workshop).await;
    assert_eq!(asked(&src, "n=1000").0, 2);
    // Refused again, it is asked for in the other way at once.
    source.refuses_size.store(true, Ordering::SeqCst);
    process(&workshop).await;
    assert_eq!(asked(&src, "/_tags?n=1000").0, 2);
    process(&workshop).await;
    assert_eq!(asked(&src, "/_tags?n=1000").0, 0);
}

fn project(id: u64, proxy: bool) -> Project {
    Project {
        id,
        proxy,
        ..Project::default()
    }
}

#[tokio::test]
async fn what_harbors_projects_are_is_known_to_later_processes_for_hours() {
    let (src, harbor) = Harbor::start(&[]).await;
    let (dst, _destination) = Harbor::start(&["team", "hub"]).await;
    harbor.project("team", project(1, false));
    harbor.project("hub", project(2, true));
    seed(&src, "team/app");
    seed(&src, "hub/app");
    let workshop = workshop(&src, &dst, [&Harbor::keys(), &Harbor::keys()], "team/app, hub/app");
    // `projects/<name>` alone, not what is below it.
    let projects = || {
        let all = src.exchanges();
        let asked = all.iter().filter(|one| {
            let name = one.target.strip_prefix("/api/v2.0/projects/").unwrap_or_default();
            !name.is_empty() && !name.contains('/')
        });
        let asked = asked.count();
        let lists = src.count("GET", "/artifacts");
        src.forget();
        (asked, lists)
    };
    process(&workshop).await;
    assert_eq!(projects(), (2, 1));
    process(&workshop).await;
    assert_eq!(projects(), (0, 1), "the next process knows it");

    // Under the name of each there is another project by now.
    harbor.project("team", project(3, true));
    harbor.project("hub", project(4, false));
    process(&workshop).await;
    assert_eq!(projects(), (1, 1), "the list is one of another project");
    process(&workshop).await;
    assert_eq!(projects(), (0, 0), "one that was a proxy cache is looked at tag by tag");
    workshop.pass(HOURS);
    process(&workshop).await;
    assert_eq!(projects(), (2, 1));
}

/// A proxy cache has what it has not fetched yet; that its list does not know a repository says nothing.
#[tokio::test]
async fn a_harbor_project_that_became_a_proxy_cache_does_not_lack_what_it_has_not_fetched() {
    let (src, harbor) = Harbor::start(&[]).await;
    let (dst, _destination) = Harbor::start(&["team"]).await;
    harbor.project("team", project(1, false));
    let names = ["team/app", "team/base", "team/web"];
    names.iter().for_each(|name| seed(&src, name));
    let workshop = workshop(&src, &dst, [&Harbor::keys(), &Harbor::keys()], &names.join(", "));
    process(&workshop).await;
    harbor.project("team", project(2, true));
    harbor.change(|state| state.not_fetched.extend(names.map(str::to_owned)));
    src.seed("team/app", "v9", &image(9, "amd64", &[20]));
    src.forget();
    process(&workshop).await;
    assert!(dst.resolve("team/app", "v9").is_some());
    let asked = src.exchanges();
    let asked = asked.iter().filter(|one| one.target == "/api/v2.0/projects/team");
    assert_eq!(asked.count(), 1, "one asks for all");
}

#[tokio::test]
async fn a_harbor_project_that_is_gone_is_missing_whatever_was_known_of_it() {
    let (src, harbor) = Harbor::start(&["team"]).await;
    let (dst, _destination) = Harbor::start(&["team"]).await;
    seed(&src, "team/app");
    let workshop = workshop(&src, &dst, [&Harbor::keys(), &Harbor::keys()], "\"team/*\"");
    process(&workshop).await;
    harbor.change(|state| {
        state.projects.remove("team");
    });
    let report = process(&workshop).await;
    assert_eq!(report.source.repositories, 0, "{report:?}");
}
