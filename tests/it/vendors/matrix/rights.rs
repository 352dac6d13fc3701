//! What is said where the vendor's API may not list the tags: by a run once, and by `ping` before any run.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use transship::demo::registry::{Options, Registry};
use transship::registry::{Kind, RemoteSettings};
use transship::vendors::for_registry;

use super::rows::{KINDS, NEXUS_WITH_SEARCH};
use super::{Bulk, End, Row, Site};
use crate::support::command::{Output, Transship};
use crate::support::fake::ecr_public::EcrPublic;
use crate::support::fake::github::Github;
use crate::support::fake::harbor::Harbor;
use crate::support::fake::huawei::Huawei;
use crate::support::fake::hub::Hub;
use crate::support::fake::nexus::Nexus;
use crate::support::fake::{alibaba, lock, tencent};
use crate::support::images::image;

const WARNING: &str = "listing is faster once this user has";

/// All that list tags with their digests.
fn rows() -> impl Iterator<Item = &'static Row> {
    let all = KINDS.iter().copied().chain([&NEXUS_WITH_SEARCH]);
    all.filter(|row| row.listing != Bulk::None)
}

/// What stands behind an end.
fn kept<T: 'static>(end: &End) -> &T {
    end._kept.downcast_ref().expect("what the row keeps")
}

/// From now on the API refuses to list tags, in its own words where the fake knows them.
fn deny(row: &Row, end: &End) {
    let fake = match &end.site {
        Site::Behind { store, .. } => return store.deny_listing(),
        Site::Fake(fake) => fake,
    };
    let forbid = |actions: &std::sync::Mutex<std::collections::BTreeSet<String>>, action: &str| {
        lock(actions).insert(action.to_owned());
    };
    match row.kind {
        "harbor" => kept::<Arc<Harbor>>(end).change(|state| state.denies_listing = true),
        "docker_hub" => kept::<Arc<Hub>>(end).change(|state| state.denies_listing = true),
        "github" => kept::<Arc<Github>>(end).denies_listing.store(true, Ordering::SeqCst),
        "nexus" => kept::<Arc<Nexus>>(end).denies.store(true, Ordering::SeqCst),
        "alibaba_enterprise" => forbid(&kept::<Arc<alibaba::Cloud>>(end).forbidden, "ListRepoTag"),
        "alibaba_personal" => forbid(&kept::<Arc<alibaba::Cloud>>(end).forbidden, "GetRepoTags"),
        "tencent_enterprise" => forbid(&kept::<Arc<tencent::Cloud>>(end).forbidden, "DescribeImages"),
        "huawei" => forbid(&kept::<Arc<Huawei>>(end).forbidden, "/tags"),
        "ecr_public" => forbid(&kept::<Arc<EcrPublic>>(end).forbidden, "DescribeImageTags"),
        "azure" => fake.deny("/acr/v1/"),
        "quay" => fake.deny("/api/v1/repository/"),
        "zot" => fake.deny("/_zot/ext/"),
        "gitlab" => fake.deny("/gitlab/v1/"),
        "artifactory" => fake.deny("/artifactory/api/storage/"),
        // It is the list of the protocol that has the digests.
        "google" => fake.deny("/tags/list"),
        kind => panic!("how the API of {kind} refuses is not written here"),
    }
}

/// What the user lacks, in the words of the kind.
fn right(row: &Row) -> &'static str {
    let settings = RemoteSettings {
        kind: Kind::from_word(row.kind),
        nexus_search: Some("a".to_owned()),
        ..RemoteSettings::default()
    };
    for_registry(&settings).1.ways().right_to_list
}

/// One of the kind whose API refuses, and rules that read `repositories` there.
async fn denied(row: &Row, repositories: &[&str]) -> (End, String) {
    let end = (row.start)().await;
    for repository in repositories {
        end.site.seed(repository, "v1", &image(1, "amd64", &[20])).await;
    }
    deny(row, &end);
    let (url, keys) = (end.site.url(), &end.keys);
    let rules = format!(
        "version: 1\nregistries:\n  src: {{ url: \"{url}\", {keys} }}\n  dst: {{ url: \"DST\" }}\nrules:\n  - {{ name: r, source: src, \
         destinations: [dst], repositories: [{}] }}\n",
        repositories.join(", ")
    );
    (end, rules)
}

async fn run(rules: &str, arguments: &[&str], status: i32) -> Output {
    let dst = Registry::start(Options::default()).await.expect("a registry");
    let home = Transship::new(&rules.replace("DST", &dst.url()));
    home.run(arguments).await.expect(status)
}

/// Google's names are in the same list, so that the run fails all the same.
fn status(row: &Row) -> i32 {
    i32::from(row.kind == "google")
}

#[tokio::test]
async fn a_refused_listing_of_each_kind_is_one_warning_with_the_missing_right() {
    for row in rows() {
        let (end, rules) = denied(row, &[row.repository, row.beside]).await;
        let told = run(&rules, &["sync"], status(row)).await.stderr;
        assert!(!right(row).is_empty(), "{}", row.kind);
        assert_eq!(told.matches(WARNING).count(), 1, "{}: {told}", row.kind);
        let wanted = format!("{WARNING} {}", right(row));
        assert!(
            told.contains(&wanted),
            "{}, which lacks {}: {told}",
            row.kind,
            right(row)
        );
        assert!(end.site.count("*", "") > 0);
    }
}

/// On a state in which nothing is known yet.
#[tokio::test]
async fn a_refused_listing_of_each_kind_is_told_by_ping_with_the_missing_right() {
    for row in rows() {
        let (_end, rules) = denied(row, &[row.repository, row.beside]).await;
        let document = run(&rules, &["ping", "src", "-o", "json"], status(row)).await.json();
        let steps = document["registries"][0]["steps"].as_array().expect("steps");
        let pull = steps.iter().find(|step| step["step"] == "pull").expect("the step");
        let message = pull["message"].as_str().expect("words");
        let wanted = format!("{WARNING} {}", right(row));
        assert_eq!(message.matches(&wanted).count(), 1, "{}: {message}", row.kind);
        assert_eq!(pull["ok"], status(row) == 0, "{}: {pull:#}", row.kind);
    }
}

/// Of a project one repository tells, of what counts its reads one does at all, and of hundreds a few.
#[tokio::test]
async fn ping_asks_for_no_more_lists_than_it_needs() {
    let row = |kind: &str| KINDS.iter().find(|row| row.kind == kind).expect("a row");
    let names = |before: &str| -> Vec<String> { (0..25).map(|number| format!("{before}/{number:02}")).collect() };
    for (kind, before, part, wanted) in [
        ("harbor", "team", "/artifacts", 1),
        ("docker_hub", "corp", "/hub/v2/namespaces/corp/repositories/", 1),
        ("zot", "team", "/_zot/ext/search", 20),
    ] {
        let end = (row(kind).start)().await;
        let names = names(before);
        for name in &names {
            end.site.seed(name, "v1", &image(1, "amd64", &[20])).await;
        }
        let rules = format!(
            "version: 1\nregistries:\n  src: {{ url: \"{}\", {} }}\n  dst: {{ url: \"DST\" }}\nrules:\n  - {{ name: r, source: src, \
             destinations: [dst], repositories: [{}] }}\n",
            end.site.url(),
            end.keys,
            names.join(", ")
        );
        run(&rules, &["ping", "src"], 0).await;
        assert_eq!(end.site.count("GET", part), wanted, "{kind}");
    }
}
