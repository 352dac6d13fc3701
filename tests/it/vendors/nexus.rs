//! Sonatype Nexus: its search, where the rules ask for it.

use std::sync::atomic::Ordering;

use transship::engine::Engine;

use crate::support::engine::{Workshop, by_hand, scheduled};
use crate::support::fake::Fake;
use crate::support::fake::nexus::{Nexus, REPOSITORY, component};
use crate::support::images::{image, two_platforms};

const SEARCH: &str = "/service/rest/v1/search";

/// A rule from `src` to `dst`, both with these keys.
fn workshop(src: (&Fake, &str), dst: (&Fake, &str)) -> Workshop {
    Workshop::new(&format!(
        "version: 1\nregistries:\n{}{}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [team/app] }}\n",
        src.0.rules("src", src.1),
        dst.0.rules("dst", dst.1)
    ))
}

/// A run that fails nothing; how often the source was searched, and how many of its tags were looked at.
async fn seen(engine: &Engine, src: &Fake) -> (usize, usize) {
    src.forget();
    let report = scheduled(engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    (src.count("GET", SEARCH), src.count("HEAD", "/manifests/"))
}

#[tokio::test]
async fn nexus_is_searched_only_where_the_rules_ask_for_it() {
    let (src, _nexus) = Nexus::start_with_search().await;
    let dst = Nexus::start().await;
    for number in 0..230 {
        let sample = match number {
            7 => two_platforms(7, &[20]),
            _ => image(number % 5, "amd64", &[20]),
        };
        src.seed("team/app", &format!("v{number}"), &sample);
    }
    let plain = workshop((&src, &Nexus::keys()), (&dst, &Nexus::keys()));
    let engine = plain.engine().await;
    assert!(by_hand(&engine, "r").await.failures.is_empty());
    assert_eq!(seen(&engine, &src).await, (0, 230));
    drop(engine);

    let searching = workshop((&src, &Nexus::keys_with_search(&src)), (&dst, &Nexus::keys()));
    let engine = searching.engine().await;
    // Looks show first that the digests are those of the tags.
    assert!(by_hand(&engine, "r").await.failures.is_empty());
    // 230 tags and two children are five pages of 50.
    assert_eq!(seen(&engine, &src).await, (5, 0));
    // The catalogue of names is read beside it.
    assert_eq!(src.count("GET", "/tags/list"), 1);
    assert_eq!(dst.resolve("team/app", "v229"), src.resolve("team/app", "v229"));
    src.finish();
    dst.finish();
}

#[tokio::test]
async fn nexus_tags_that_the_index_does_not_have_yet_or_still_has_are_those_of_the_registry() {
    let (src, nexus) = Nexus::start_with_search().await;
    let dst = Nexus::start().await;
    for number in 0..3 {
        src.seed("team/app", &format!("v{number}"), &image(number, "amd64", &[20]));
    }
    let workshop = workshop((&src, &Nexus::keys_with_search(&src)), (&dst, &Nexus::keys()));
    let engine = workshop.engine().await;
    // What was never there, as far as the registry says.
    let gone = component(
        REPOSITORY,
        "team/app",
        "gone",
        image(9, "amd64", &[20]).digest().hex(),
        "",
    );
    nexus.add(src.book(), "team/app", gone);
    src.seed("team/app", "new", &image(4, "amd64", &[20]));
    assert!(by_hand(&engine, "r").await.failures.is_empty());
    assert_eq!(dst.resolve("team/app", "new"), src.resolve("team/app", "new"));
    assert_eq!(dst.resolve("team/app", "gone"), None);
    // The looks of the first run have shown that the digests are right. The new one is looked at, as the index does not have it.
    assert_eq!(seen(&engine, &src).await, (1, 1));

    // A tag that moves is seen to move once the index has caught up, and not before: so it is not the default.
    nexus.catch_up();
    nexus.freeze(src.book(), "team/app");
    let moved = image(7, "amd64", &[20]);
    src.seed("team/app", "v1", &moved);
    assert_eq!(seen(&engine, &src).await, (1, 0));
    assert_eq!(dst.resolve("team/app", "v1"), Some(image(1, "amd64", &[20]).digest()));
    nexus.catch_up();
    seen(&engine, &src).await;
    assert_eq!(dst.resolve("team/app", "v1"), Some(moved.digest()));
    src.finish();
    dst.finish();
}

/// An index that is behind at the destination leads to a look, never to a write.
#[tokio::test]
async fn nexus_as_destination_is_not_written_for_what_an_old_index_says() {
    let src = Nexus::start().await;
    let (dst, nexus) = Nexus::start_with_search().await;
    src.seed("team/app", "v1", &image(1, "amd64", &[20]));
    let workshop = workshop((&src, &Nexus::keys()), (&dst, &Nexus::keys_with_search(&dst)));
    let engine = workshop.engine().await;
    assert!(by_hand(&engine, "r").await.failures.is_empty());
    seen(&engine, &src).await;
    nexus.freeze(dst.book(), "team/app");
    src.seed("team/app", "v1", &image(2, "amd64", &[20]));
    seen(&engine, &src).await;
    assert_eq!(dst.resolve("team/app", "v1"), src.resolve("team/app", "v1"));
    dst.forget();
    seen(&engine, &src).await;
    assert_eq!(dst.count("PUT", ""), 0, "{:?}", dst.exchanges());
    src.finish();
    dst.finish();
}

/// The search is asked for one repository; what it finds elsewhere, or of another image, is nothing of ours.
#[tokio::test]
async fn nexus_components_of_other_repositories_and_images_are_not_believed() {
    let (src, nexus) = Nexus::start_with_search().await;
    let dst = Nexus::start().await;
    src.seed("team/app", "v1", &image(1, "amd64", &[20]));
    let workshop = workshop((&src, &Nexus::keys_with_search(&src)), (&dst, &Nexus::keys()));
    let engine = workshop.engine().await;
    assert!(by_hand(&engine, "r").await.failures.is_empty());
    let other = image(9, "amd64", &[20]);
    for (repository, name) in [("docker-other", "team/app"), (REPOSITORY, "team/app2")] {
        let strange = component(repository, name, "v1", other.digest().hex(), other.media_type);
        nexus.add(src.book(), "team/app", strange);
    }
    seen(&engine, &src).await;
    // Two digests of one tag would make it one without any, which is looked at.
    assert_eq!(seen(&engine, &src).await, (1, 0));
    src.finish();
    dst.finish();
}

#[tokio::test]
async fn nexus_whose_search_is_refused_or_without_end_is_looked_at_tag_by_tag() {
    for (denies, is_endless, searches) in [(true, false, 1), (false, true, 2)] {
        let (src, nexus) = Nexus::start_with_search().await;
        let dst = Nexus::start().await;
        for number in 0..3 {
            src.seed("team/app", &format!("v{number}"), &image(number, "amd64", &[20]));
        }
        nexus.denies.store(denies, Ordering::Relaxed);
        nexus.is_endless.store(is_endless, Ordering::Relaxed);
        let workshop = workshop((&src, &Nexus::keys_with_search(&src)), (&dst, &Nexus::keys()));
        let engine = workshop.engine().await;
        let report = by_hand(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(src.count("GET", SEARCH), searches, "{:?}", src.exchanges());
        // It is left alone for a while.
        assert_eq!(seen(&engine, &src).await, (0, 3));
        src.finish();
        dst.finish();
    }
}
