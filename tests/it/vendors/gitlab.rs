//! GitLab's registry: its API, with and without, and the lists of GitLab itself.

use std::sync::atomic::Ordering;

use crate::support::engine::{Workshop, by_hand, scheduled};
use crate::support::fake::Fake;
use crate::support::fake::gitlab::Gitlab;
use crate::support::images::image;

/// A rule with these patterns.
fn pulling(src: &Fake, keys: &str, dst: &Fake, patterns: &[&str]) -> Workshop {
    let ends = [src.rules("src", keys), dst.rules("dst", &Gitlab::keys())].concat();
    Workshop::new(&format!(
        "version: 1\nregistries:\n{ends}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [\"{}\"] }}\n",
        patterns.join("\", \"")
    ))
}

#[tokio::test]
async fn gitlab_without_its_database_is_read_tag_by_tag() {
    for (plain, asked, looks) in [(false, 1, 0), (true, 0, 3)] {
        let (src, source) = Gitlab::start().await;
        let (dst, _destination) = Gitlab::start().await;
        source.plain.store(plain, Ordering::SeqCst);
        for number in 0..3 {
            src.seed(
                "group/project/app",
                &format!("v{number}"),
                &image(number, "amd64", &[20]),
            );
        }
        let ends = [src.rules("src", &Gitlab::keys()), dst.rules("dst", &Gitlab::keys())].concat();
        let workshop = Workshop::new(&format!(
            "version: 1\nregistries:\n{ends}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [group/project/app] }}\n"
        ));
        let engine = workshop.engine().await;
        assert!(by_hand(&engine, "r").await.failures.is_empty());
        src.forget();
        let report = scheduled(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        // Without it, it is not asked for again for a while.
        let seen = (src.count("GET", "/gitlab/v1/"), src.count("HEAD", "/manifests/"));
        assert_eq!(seen, (asked, looks), "{:?}", src.exchanges());
    }
}

#[tokio::test]
async fn gitlab_repositories_under_a_glob_come_from_groups_and_projects() {
    let (src, source) = Gitlab::start().await;
    for number in 0..120 {
        src.seed(
            &format!("group/project/img{number:03}"),
            "v1",
            &image(1, "amd64", &[20]),
        );
    }
    src.seed("group/sub/tool", "v1", &image(2, "amd64", &[20]));
    src.seed("octocat/tool/cli", "v1", &image(3, "amd64", &[20]));
    for (uncounted, pattern, found, asked) in [
        // The project has two pages, of which the first is read again, and the last where nobody counts them.
        (false, "group/project/img11?", 10, 3),
        (true, "group/project/img11?", 10, 4),
        // No project, so it is a group; and a path in a project is none of its own.
        (false, "group/sub/*", 1, 2),
        (false, "octocat/tool/*", 1, 1),
        (false, "group/*/tool", 1, 3),
        (false, "group/project/below/**", 0, 5),
    ] {
        let (dst, _destination) = Gitlab::start().await;
        source.uncounted.store(uncounted, Ordering::SeqCst);
        src.forget();
        let workshop = pulling(&src, &Gitlab::keys_with_api(&src), &dst, &[pattern]);
        let report = by_hand(&workshop.engine().await, "r").await;
        assert!(report.failures.is_empty(), "{pattern}: {:?}", report.failures);
        assert_eq!(dst.book().registry.repositories().len(), found, "{pattern}");
        let seen = (src.count("GET", "/api/v4/"), src.count("GET", "/_catalog"));
        assert_eq!(seen, (asked, 0), "{pattern}: {:?}", src.exchanges());
    }
}

/// What may be there and is not shown is no empty list.
#[tokio::test]
async fn gitlab_groups_that_are_refused_or_hidden_are_told_and_others_found() {
    for (pattern, told) in [
        ("secret/**", "the role Reporter"),
        ("secret/project/**", "the role Reporter"),
        ("hidden/project/**", "shows this user no group or project"),
        ("octocat/**", "`user/project/**`"),
    ] {
        let (src, _source) = Gitlab::start().await;
        for repository in ["group/project", "secret/project", "hidden/project", "octocat/tool"] {
            src.seed(repository, "v1", &image(1, "amd64", &[20]));
        }
        for (patterns, found) in [(&["group/**", pattern][..], 1), (&[pattern], 0)] {
            let (dst, _destination) = Gitlab::start().await;
            let workshop = pulling(&src, &Gitlab::keys_with_api(&src), &dst, patterns);
            let report = by_hand(&workshop.engine().await, "r").await;
            assert_eq!(report.failures.len(), 1, "{patterns:?}: {:?}", report.failures);
            let message = format!("{:?}", report.failures);
            assert!(message.contains(told), "{patterns:?}: {message}");
            assert_eq!(dst.book().registry.repositories().len(), found, "{patterns:?}");
        }
    }
}

#[tokio::test]
async fn gitlab_catalogue_is_for_administrators_and_others_are_told_what_patterns_need() {
    // Neither: it is not said where GitLab is, or the login is for the registry alone.
    for (is_named, told) in [(false, "endpoint: https://gitlab.example"), (true, "`read_api`")] {
        for administers in [false, true] {
            let (src, source) = Gitlab::start().await;
            let (dst, _destination) = Gitlab::start().await;
            source.registry_only.store(true, Ordering::SeqCst);
            source.administers.store(administers, Ordering::SeqCst);
            src.seed("group/project", "v1", &image(1, "amd64", &[20]));
            let keys = match is_named {
                true => Gitlab::keys_with_api(&src),
                false => Gitlab::keys(),
            };
            let workshop = pulling(&src, &keys, &dst, &["group/**"]);
            let report = by_hand(&workshop.engine().await, "r").await;
            let message = format!("{:?}", report.failures);
            assert_eq!(report.failures.is_empty(), administers, "{message}");
            assert_eq!(message.contains(told), !administers, "{message}");
            assert_eq!(dst.book().registry.repositories().len(), usize::from(administers));
            assert_eq!(src.count("GET", "/api/v4/"), usize::from(is_named));
        }
    }
}
