//! Registries that forbid the question for referrers.

use std::time::Duration;

use http::StatusCode;
use rstest::rstest;

use super::referrers::{Scene, rules};
use super::{HOURS, process};
use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::ends::{Ends, images, sync};
use crate::support::images::{fallback_index, image, referrer};
use crate::support::proxy::{Act, Fault, Proxy};
use crate::support::wire::Wire;

const WARNING: &str = "signatures and other attachments are found by their tags alone";

fn forbidden() -> Fault {
    Fault::every("GET", "/referrers/", Act::Answer(StatusCode::FORBIDDEN, None))
}

/// Once of the source, in the report and where people look.
fn assert_warned(run: &serde_json::Value, stderr: &str) {
    let warnings = run["warnings"].as_array().expect("warnings");
    let told = warnings
        .iter()
        .filter(|line| line.as_str().is_some_and(|line| line.contains(WARNING)));
    assert_eq!(
        (told.count(), stderr.matches(WARNING).count()),
        (1, 1),
        "{run:#}\n{stderr}"
    );
}

/// Both ends answer every path that they do not know with 403.
#[tokio::test]
async fn registries_that_forbid_what_they_do_not_know_have_their_attachments_copied_by_tag() {
    let ends = Ends::plain().await;
    let sample = image(1, "amd64", &[100]);
    let signature = referrer(&sample, "application/vnd.example.signature", 2);
    let (wire, fallback) = (ends.src_wire(), sample.digest().fallback_tag());
    wire.push("a", "v1", &sample).await;
    let index = fallback_index(vec![signature.clone()]);
    wire.push("a", fallback.as_str(), &index).await;
    for proxy in [&ends.src_proxy, &ends.dst_proxy] {
        proxy.add(forbidden());
    }
    let home = Transship::new(&rules(&ends.src_proxy.url(), &ends.dst_proxy.url()));
    let (run, output) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert_warned(&run, &output.stderr);
    assert!(!output.stderr.contains("were not all copied"), "{}", output.stderr);
    let copied = ends.dst_wire().resolve("a", fallback.as_str()).await;
    assert_eq!(copied, Some(index.digest()));
    assert!(
        ends.dst_wire()
            .resolve("a", &signature.digest().to_string())
            .await
            .is_some()
    );

    // The next process knows it, and says it too.
    ends.forget().await;
    wire.push("a", "v2", &image(2, "amd64", &[100])).await;
    let (run, output) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    let asked = ends.src_proxy.count("GET", "/referrers/") + ends.dst_proxy.count("GET", "/referrers/");
    assert_eq!(asked, 0);
    assert_warned(&run, &output.stderr);
}

/// It has the API and lists what it is given: a tag beside that would only be seen by people, and by what cleans up tags.
#[tokio::test]
async fn a_destination_that_lists_referrers_and_forbids_the_question_gets_no_fallback_tag() {
    let mut scene = Scene::start().await;
    let wall = Proxy::start(&scene.dst.url()).await;
    scene.workshop.set_rules(&rules(&scene.src.url(), &wall.url()));
    for number in 0..3 {
        // At last it has been seen to answer.
        if number < 2 {
            wall.add(forbidden());
        } else {
            wall.heal();
            scene.workshop.pass(HOURS);
            scene.seed(8);
            process(&scene.workshop).await;
            wall.add(forbidden());
        }
        let signature = scene.seed(number);
        process(&scene.workshop).await;
        assert!(scene.has(&signature));
        assert_eq!(wall.count("PUT", "/manifests/sha256-"), 0, "{:?}", wall.exchanges());
    }
}

/// A right that is taken away hides signatures which were there.
#[tokio::test]
async fn where_referrers_were_listed_before_a_403_fails_and_is_told_in_each_run() {
    let scene = Scene::start().await;
    let signature = scene.seed(0);
    process(&scene.workshop).await;
    assert!(scene.has(&signature));
    scene.answer(StatusCode::FORBIDDEN);
    let signature = scene.seed(1);
    for _ in 0..2 {
        process(&scene.workshop).await;
        assert!(scene.asked() > 0 && !scene.has(&signature));
    }
    scene.proxy.heal();
    process(&scene.workshop).await;
    assert!(scene.has(&signature), "what failed is tried again in the next run");
}

/// After hours where the rules say who asks: who is logged in by other means may be somebody else at any time.
#[rstest]
#[case::of_the_rules(", username: reader, password: reader-secret-0123", HOURS)]
#[case::of_docker("", Duration::from_secs(301))]
#[tokio::test]
async fn a_right_that_is_granted_is_seen_in_time(#[case] login: &str, #[case] life: Duration) {
    let mut scene = Scene::start().await;
    let rules = rules(&scene.proxy.url(), &scene.dst.url());
    scene
        .workshop
        .set_rules(&rules.replacen("\" }", &format!("\"{login} }}"), 1));
    scene.answer(StatusCode::FORBIDDEN);
    let mut asked = Vec::new();
    for number in 0..2 {
        scene.seed(number);
        process(&scene.workshop).await;
        asked.push(scene.asked());
    }
    assert_eq!(asked, [1, 0]);
    scene.proxy.heal();
    scene.workshop.pass(life);
    let signature = scene.seed(2);
    process(&scene.workshop).await;
    assert!(scene.has(&signature));
}

/// Its rights are another account's.
#[tokio::test]
async fn what_one_account_is_refused_another_asks_for() {
    let (src, dst) = tokio::join!(DockerRegistry::plain(), DockerRegistry::plain());
    let proxy = Proxy::start(&src.url()).await;
    proxy.add(forbidden());
    let wire = Wire::new(&src.url());
    let account = |name: &str| {
        rules(&proxy.url(), &dst.url()).replacen(
            "\" }",
            &format!("\", username: {name}, password: {name}-secret-0123 }}"),
            1,
        )
    };
    let home = Transship::new(&account("first"));
    let mut asked = Vec::new();
    for (number, name) in ["first", "first", "second"].into_iter().enumerate() {
        home.set_rules(&account(name));
        let tag = format!("v{number}");
        wire.push("a", &tag, &image(number as u64, "amd64", &[20])).await;
        sync(&home, 0).await;
        asked.push(proxy.count("GET", "/referrers/"));
        proxy.reset();
    }
    assert_eq!(asked, [1, 0, 1]);
}
