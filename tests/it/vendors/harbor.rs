//! Harbor: what is told apart, what is asked and how often.

use std::sync::Arc;

use futures_util::future::join_all;
use transship::demo::registry::{Options, Registry};
use transship::oci::RepositoryName;
use transship::registry::{BulkListing, ErrorKind};

use crate::support::command::Transship;
use crate::support::engine::{Workshop, by_hand, only_failure, scheduled};
use crate::support::fake::Fake;
use crate::support::fake::harbor::{Harbor, Project, ROBOT, SECRET};
use crate::support::images::{cosign_signature, image};

/// Rules from one end named `src` to another named `dst`, each written by its fake.
fn rules(ends: &[String], repositories: &str) -> String {
    format!(
        "version: 1\nregistries:\n{}rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: {repositories}\n",
        ends.concat()
    )
}

/// A Harbor with the projects `team` and `base` on either side.
async fn two() -> ([Fake; 2], [Arc<Harbor>; 2]) {
    let (src, source) = Harbor::start(&["team", "base"]).await;
    let (dst, destination) = Harbor::start(&["team", "base"]).await;
    ([src, dst], [source, destination])
}

fn between(fakes: &[Fake; 2], repositories: &str) -> Workshop {
    let ends = [
        fakes[0].rules("src", &Harbor::keys()),
        fakes[1].rules("dst", &Harbor::keys()),
    ];
    Workshop::new(&rules(&ends, repositories))
}

#[tokio::test]
async fn harbor_lists_artifacts_by_pages_and_looks_at_no_tag() {
    let (fakes, _) = two().await;
    for number in 0..120 {
        let sample = image(number, "amd64", &[20]);
        for fake in &fakes {
            fake.seed("team/web/app", &format!("v{number}"), &sample);
        }
    }
    let workshop = between(&fakes, "[team/web/app]");
    let engine = workshop.engine().await;
    // The first run looks after attachments, once a day.
    assert!(by_hand(&engine, "r").await.failures.is_empty());
    for fake in &fakes {
        fake.forget();
    }
    let report = scheduled(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    for fake in &fakes {
        // A slash of the name is encoded twice; 120 artifacts are two pages.
        assert_eq!(fake.count("GET", "/repositories/web%252Fapp/artifacts"), 2);
        assert_eq!(fake.count("HEAD", "/manifests/"), 0);
        assert_eq!(fake.count("GET", "/manifests/"), 0);
        assert!(fake.count("*", "") <= 2 + 10, "{:?}", fake.exchanges());
    }
}

#[tokio::test]
async fn harbor_signatures_that_are_listed_as_accessories_travel() {
    let (fakes, _) = two().await;
    let sample = image(1, "amd64", &[20]);
    let (tag, signature) = cosign_signature("team/app", &sample.digest());
    fakes[0].seed("team/app", "v1", &sample);
    fakes[0].seed("team/app", tag.as_str(), &signature);
    let workshop = between(&fakes, "[team/app]");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(fakes[1].resolve("team/app", tag.as_str()), Some(signature.digest()));
    // The project is there and the repository is not, of which Harbor gives an empty list: no blob of the image is looked for
    // in it, and then those two of the signature are.
    assert_eq!(fakes[1].count("HEAD", "/blobs/"), 2);
}

#[tokio::test]
async fn harbor_makes_a_missing_project_once_for_all_that_need_it() {
    for (public, keys) in [(false, ""), (true, ", create_repositories: { public: true }")] {
        let (src, _) = Harbor::start(&["team"]).await;
        let (dst, destination) = Harbor::start(&[]).await;
        for name in ["a", "b", "c"] {
            src.seed(&format!("team/{name}"), "v1", &image(1, "amd64", &[20]));
        }
        let ends = [
            src.rules("src", &Harbor::keys()),
            dst.rules("dst", &format!("{}{keys}", Harbor::keys())),
        ];
        let workshop = Workshop::new(&rules(&ends, "[\"team/*\"]"));
        let report = by_hand(&workshop.engine().await, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let made = destination.made();
        assert_eq!(made.len(), 1, "{made:?}");
        assert_eq!(
            (made[0].0.as_str(), &made[0].1["metadata"]["public"]),
            ("team", &public.to_string().into())
        );
        for name in ["a", "b", "c"] {
            assert!(dst.resolve(&format!("team/{name}"), "v1").is_some());
        }
        // The repositories of the pattern came from the project's list, not from the catalogue.
        assert_eq!(
            (
                src.count("GET", "/projects/team/repositories?"),
                src.count("*", "_catalog")
            ),
            (1, 0)
        );
    }
}

#[tokio::test]
async fn harbor_takes_a_new_repository_from_who_may_push_and_not_make_projects() {
    for denies_listing in [false, true] {
        let (fakes, harbors) = two().await;
        harbors[1].change(|state| {
            state.denies_creation = true;
            // Who may push may not even be allowed to look at the project.
            state.denies_listing = denies_listing;
        });
        fakes[0].seed("team/new", "v1", &image(1, "amd64", &[20]));
        let workshop = between(&fakes, "[team/new]");
        let report = by_hand(&workshop.engine().await, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert!(fakes[1].resolve("team/new", "v1").is_some());
        assert_eq!(fakes[1].count("POST", "/api/v2.0/projects"), 0);
    }
}

#[tokio::test]
async fn harbor_gets_no_project_for_a_name_without_one() {
    let (fakes, harbors) = two().await;
    let end = between(&fakes, "[team/app]").end("dst");
    let refused = end.begin_write(&"web".parse().expect("a name")).await;
    let error = refused.map(|_| ()).expect_err("no name of Harbor's");
    assert_eq!(error.kind, ErrorKind::Denied);
    assert_eq!(harbors[1].made(), []);
}

#[tokio::test]
async fn harbor_that_nobody_named_is_known_by_its_challenge_and_makes_projects_too() {
    let (src, _) = Harbor::start(&["team"]).await;
    let (dst, destination) = Harbor::start(&[]).await;
    src.seed("team/app", "v1", &image(1, "amd64", &[20]));
    let login = format!("username: \"{ROBOT}\", password: {SECRET}");
    let ends = [src.rules("src", &login), dst.rules("dst", &login)];
    let workshop = Workshop::new(&rules(&ends, "[team/app]"));
    let report = by_hand(&workshop.engine().await, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(destination.made().len(), 1);
    assert!(dst.resolve("team/app", "v1").is_some());
}

#[tokio::test]
async fn harbor_refusals_are_told_apart() {
    type Change = fn(&Fake, &Harbor);
    let cases: [(Change, ErrorKind, &str); 9] = [
        (
            |_, harbor| harbor.change(|state| state.read_only = true),
            ErrorKind::Unsupported,
            "Harbor is read-only",
        ),
        (
            |_, harbor| harbor.change(|state| state.over_quota = true),
            ErrorKind::Quota,
            "the quota of the project is used up",
        ),
        (
            |fake, _| {
                fake.seed("team/app", "v1", &image(9, "amd64", &[20]));
                fake.immutable("v1");
            },
            ErrorKind::Conflict,
            "a rule of the project makes this tag immutable",
        ),
        (
            |_, harbor| {
                harbor.change(|state| {
                    state.projects.clear();
                    state.denies_creation = true;
                });
            },
            ErrorKind::Denied,
            "the project team is not there and this user may not make it",
        ),
        (
            |_, harbor| {
                harbor.project(
                    "team",
                    Project {
                        proxy: true,
                        ..Project::default()
                    },
                );
            },
            ErrorKind::Unsupported,
            "a proxy-cache project takes no pushes",
        ),
        (
            |_, harbor| {
                harbor.change(|state| state.early_proxies = true);
                harbor.project(
                    "team",
                    Project {
                        proxy: true,
                        ..Project::default()
                    },
                );
            },
            ErrorKind::Unsupported,
            "a proxy-cache project takes no pushes",
        ),
        (
            |_, harbor| {
                harbor.change(|state| {
                    state.projects.clear();
                    state.read_only = true;
                });
            },
            ErrorKind::Denied,
            "the project team is not there and cannot be made: Harbor is read-only",
        ),
        (
            |_, harbor| {
                harbor.change(|state| {
                    state.projects.clear();
                    state.over_quota = true;
                });
            },
            ErrorKind::Quota,
            "the project team is not there and cannot be made: a quota of Harbor's is used up",
        ),
        (
            |_, harbor| {
                harbor.change(|state| {
                    state.projects.clear();
                    state.denies_listing = true;
                    state.no_api = true;
                });
            },
            ErrorKind::Denied,
            "the project is missing there, or this user may not see it",
        ),
    ];
    for (change, kind, words) in cases {
        let (fakes, harbors) = two().await;
        fakes[0].seed("team/app", "v1", &image(1, "amd64", &[20]));
        change(&fakes[1], &harbors[1]);
        let rules = between(&fakes, "[team/app]\n    retry: { attempts: 1 }");
        let report = by_hand(&rules.engine().await, "r").await;
        let failure = only_failure(&report);
        let text = format!("{failure:?}");
        assert!(text.contains(words), "{words}: {text}");
        assert!(text.contains(&format!("{kind:?}")), "{kind:?}: {text}");
    }
}

#[tokio::test]
async fn harbor_robots_are_known_by_whatever_prefix() {
    for robot in ["robot$sync", "robot$team+sync", "svc-team+sync", "robot_${x}"] {
        let (fakes, harbors) = two().await;
        for harbor in &harbors {
            harbor.change(|state| state.robot = Some(robot.to_owned()));
        }
        fakes[0].seed("team/app", "v1", &image(1, "amd64", &[20]));
        // A reference begins with `${`, and with nothing else.
        let keys = format!(
            "kind: harbor, username: \"{}\", password: {SECRET}",
            robot.replace("${", "$${")
        );
        let ends = [fakes[0].rules("src", &keys), fakes[1].rules("dst", &keys)];
        let workshop = Workshop::new(&rules(&ends, "[team/*]"));
        let report = by_hand(&workshop.engine().await, "r").await;
        assert!(report.failures.is_empty(), "{robot}: {:?}", report.failures);
        assert_eq!(fakes[1].resolve("team/app", "v1"), fakes[0].resolve("team/app", "v1"));
    }
}

#[tokio::test]
async fn harbor_without_the_right_to_list_is_read_tag_by_tag() {
    for projects_by_id_alone in [false, true] {
        let (fakes, harbors) = two().await;
        harbors[0].change(|state| {
            state.denies_listing = true;
            state.projects_by_id_alone = projects_by_id_alone;
        });
        for number in 0..3 {
            fakes[0].seed("team/app", &format!("v{number}"), &image(number, "amd64", &[20]));
        }
        let workshop = between(&fakes, "[team/app]");
        let engine = workshop.engine().await;
        assert!(by_hand(&engine, "r").await.failures.is_empty());
        fakes[0].forget();
        let report = scheduled(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        // The refusal is remembered for six hours.
        assert_eq!(fakes[0].count("*", "/api/v2.0/"), 0);
        assert_eq!(fakes[0].count("HEAD", "/manifests/"), 3);
    }
}

#[tokio::test]
async fn harbor_whose_list_never_adds_up_has_its_digests_believed_all_the_same() {
    let (fakes, harbors) = two().await;
    harbors[0].change(|state| state.total_lies = true);
    fakes[0].seed("team/app", "v1", &image(1, "amd64", &[20]));
    let workshop = between(&fakes, "[team/app]");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(fakes[1].resolve("team/app", "v1").is_some());
    fakes[0].forget();
    let report = scheduled(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(fakes[0].count("HEAD", "/manifests/"), 0, "{:?}", fakes[0].exchanges());
    // One page, and what was said to be on the next.
    assert_eq!(fakes[0].count("GET", "/artifacts"), 2);
}

#[tokio::test]
async fn harbor_before_2_2_has_its_projects_found_in_their_list() {
    let (src, source) = Harbor::start(&["a-team", "base", "team"]).await;
    let (dst, destination) = Harbor::start(&["team-b"]).await;
    for harbor in [&source, &destination] {
        harbor.change(|state| state.projects_by_id_alone = true);
    }
    let proxy = Project {
        proxy: true,
        ..Project::default()
    };
    source.project("base", proxy);
    src.seed("team/app", "v1", &image(1, "amd64", &[20]));
    src.seed("base/app", "v1", &image(2, "amd64", &[20]));
    let fakes = [src, dst];
    let workshop = between(&fakes, "[team/app, base/app]");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let mut made: Vec<_> = destination.made().into_iter().map(|(name, _)| name).collect();
    made.sort();
    assert_eq!(made, ["base", "team"]);
    for fake in &fakes {
        fake.forget();
    }
    let report = scheduled(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    // The tag of the proxy-cache project is looked at where it comes from.
    assert_eq!(fakes.each_ref().map(|fake| fake.count("HEAD", "/manifests/")), [1, 0]);
    assert_eq!(fakes.each_ref().map(|fake| fake.count("GET", "/artifacts")), [1, 2]);
}

#[tokio::test]
async fn harbor_projects_named_by_digits_are_no_ids() {
    for projects_by_id_alone in [false, true] {
        let (src, source) = Harbor::start(&["123"]).await;
        let (dst, destination) = Harbor::start(&[]).await;
        for harbor in [&source, &destination] {
            harbor.change(|state| state.projects_by_id_alone = projects_by_id_alone);
            let another = Project {
                proxy: true,
                id: 123,
                ..Project::default()
            };
            harbor.project("another", another);
        }
        src.seed("123/app", "v1", &image(1, "amd64", &[20]));
        let fakes = [src, dst];
        let workshop = between(&fakes, "[123/app]");
        let engine = workshop.engine().await;
        let report = by_hand(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(destination.made().len(), 1);
        for fake in &fakes {
            fake.forget();
        }
        let report = scheduled(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        for fake in &fakes {
            assert_eq!(
                (fake.count("GET", "/artifacts"), fake.count("HEAD", "/manifests/")),
                (1, 0)
            );
        }
    }
}

#[tokio::test]
async fn harbor_is_asked_once_for_a_project_by_all_who_wait_for_it() {
    for is_missing in [false, true] {
        let (fakes, harbors) = two().await;
        harbors[1].change(|state| match is_missing {
            false => state.denies_listing = true,
            true => state.projects.clear(),
        });
        let end = between(&fakes, "[team/app]").end("dst");
        let names: Vec<RepositoryName> = (0..8).map(|n| format!("team/{n}").parse().expect("a name")).collect();
        let expected = match is_missing {
            false => BulkListing::None,
            true => BulkListing::Absent,
        };
        for listed in join_all(names.iter().map(|name| end.list_digests(name))).await {
            assert_eq!(listed.expect("an answer"), expected);
        }
        let asked = ["GET", "HEAD"].map(|method| fakes[1].count(method, "/api/v2.0/projects"));
        assert_eq!(asked, [1, 1], "{:?}", fakes[1].exchanges());
    }
}

#[tokio::test]
async fn harbor_project_that_is_hidden_takes_nothing_from_the_patterns_of_others() {
    let (fakes, harbors) = two().await;
    harbors[0].change(|state| state.hidden = Some("base".to_owned()));
    for name in ["team/app", "base/app"] {
        fakes[0].seed(name, "v1", &image(1, "amd64", &[20]));
    }
    let ends = [
        fakes[0].rules("src", &Harbor::keys()),
        fakes[1].rules("dst", &Harbor::keys()),
    ];
    let home = Transship::new(&rules(&ends, "[\"team/*\", \"base/*\", \"base/a*\"]"));
    // What is not known is a failure of the run, of each.
    for _ in 0..2 {
        let told = home.run(&["sync"]).await.expect(1).stderr;
        assert!(told.contains("patterns find nothing in base"), "{told}");
    }
    assert!(fakes[1].resolve("team/app", "v1").is_some());
    assert_eq!(fakes[0].count("*", "_catalog"), 0);
}

#[tokio::test]
async fn harbor_proxy_projects_are_read_past_what_they_have_cached() {
    let (fakes, harbors) = two().await;
    harbors[0].project(
        "base",
        Project {
            proxy: true,
            ..Project::default()
        },
    );
    fakes[0].seed("base/library/alpine", "3", &image(1, "amd64", &[20]));
    let workshop = between(&fakes, "[base/library/alpine]");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(fakes[0].count("GET", "/artifacts"), 0);
    assert!(fakes[1].resolve("base/library/alpine", "3").is_some());
}

#[tokio::test]
async fn harbor_public_projects_are_read_by_nobody() {
    let (src, source) = Harbor::start(&[]).await;
    let (dst, _) = Harbor::start(&["team"]).await;
    source.project(
        "team",
        Project {
            public: true,
            ..Project::default()
        },
    );
    src.seed("team/app", "v1", &image(1, "amd64", &[20]));
    let ends = [src.rules("src", "kind: harbor"), dst.rules("dst", &Harbor::keys())];
    let workshop = Workshop::new(&rules(&ends, "[team/app]"));
    let report = by_hand(&workshop.engine().await, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(dst.resolve("team/app", "v1"), src.resolve("team/app", "v1"));
}

#[tokio::test]
async fn harbor_says_its_version_to_who_has_logged_in() {
    let (fakes, _) = two().await;
    let end = between(&fakes, "[team/app]").end("dst");
    let version = end.version().await.expect("an answer");
    assert_eq!(version.as_deref(), Some("Harbor v2.13.1-abcdef"));
}

/// What a proxy-cache project has not fetched yet no pattern finds.
#[tokio::test]
async fn harbor_patterns_that_rely_on_proxy_projects_are_warned_of_once() {
    let (src, source) = Harbor::start(&["team"]).await;
    source.project(
        "hub",
        Project {
            proxy: true,
            ..Project::default()
        },
    );
    for name in ["team/app", "hub/alpine", "hub/nginx"] {
        src.seed(name, "v1", &image(1, "amd64", &[20]));
    }
    for (pattern, warned) in [("team/*", 0), ("hub/alpine", 0), ("hub/*", 1), ("**", 1)] {
        let dst = Registry::start(Options::default()).await.expect("a registry");
        let home = Transship::new(&format!(
            "version: 1\nregistries:\n{}  dst: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], repositories: \
             [\"{pattern}\"] }}\n  - {{ name: s, source: src, destinations: [{{ registry: dst, to: \"too/{{path}}\" }}], \
             repositories: [\"{pattern}\"] }}\n",
            src.rules("src", &Harbor::keys()),
            dst.url()
        ));
        let told = home.run(&["sync"]).await.expect(0).stderr;
        let warnings = told.matches("patterns may not find all there is in hub");
        assert_eq!(warnings.count(), warned, "{pattern}: {told}");
    }
}
