//! Registries that forbid the question for referrers.

use http::StatusCode;

use super::referrers::{Scene, rules};
use super::{HOURS, process};
use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::ends::{Ends, images, sync};
use crate::support::images::{fallback_index, image, referrer};
use crate::support::proxy::{Act, Fault};
use crate::support::wire::Wire;

const WARNING: &str = "signatures and other attachments are found by their tags alone";

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
        proxy.add(Fault::every(
            "GET",
            "/referrers/",
            Act::Answer(StatusCode::FORBIDDEN, None),
        ));
    }
    let home = Transship::new(&rules(&ends.src_proxy.url(), &ends.dst_proxy.url()));
    let (run, output) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert_eq!(
        output.stderr.matches(WARNING).count(),
        2,
        "once an end: {}",
        output.stderr
    );
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
    assert_eq!((asked, output.stderr.contains(WARNING)), (0, true), "{}", output.stderr);
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

#[tokio::test]
async fn a_right_that_is_granted_is_seen_after_hours() {
    let scene = Scene::start().await;
    scene.answer(StatusCode::FORBIDDEN);
    let mut asked = Vec::new();
    for number in 0..2 {
        scene.seed(number);
        process(&scene.workshop).await;
        asked.push(scene.asked());
    }
    assert_eq!(asked, [1, 0]);
    scene.proxy.heal();
    scene.workshop.pass(HOURS);
    let signature = scene.seed(2);
    process(&scene.workshop).await;
    assert!(scene.has(&signature));
}

/// Its rights are another account's.
#[tokio::test]
async fn what_one_account_is_refused_another_asks_for() {
    let (src, dst) = tokio::join!(DockerRegistry::plain(), DockerRegistry::plain());
    let proxy = crate::support::proxy::Proxy::start(&src.url()).await;
    proxy.add(Fault::every(
        "GET",
        "/referrers/",
        Act::Answer(StatusCode::FORBIDDEN, None),
    ));
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
