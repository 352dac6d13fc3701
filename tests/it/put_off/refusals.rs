//! What is learnt of a registry that refuses manifests.

use http::StatusCode;
use transship::demo::registry::{Options, Registry};
use transship::plan::ErrorKind;

use super::Scene;
use crate::support::engine::{only_failure, scheduled};
use crate::support::proxy::{Act, Fault};

#[tokio::test]
async fn a_refusal_that_only_sounds_like_missing_blobs_teaches_nothing() {
    let scene = Scene::new().await;
    // One that does not tell by its addresses what it is.
    let options = Options {
        takes_incomplete: true,
        ..Options::default()
    };
    let destination = Registry::start(options).await.expect("a registry");
    scene.dst.retarget(&destination.url());
    let image = scene.seed("v1", 1);
    let text = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"unknown media type"}]}"#;
    let refuse = Act::AnswerAfter(StatusCode::BAD_REQUEST, text);
    scene.dst.add(Fault::every("PUT", "/manifests/", refuse));
    // One without children: of an index it may be a child that is missing.
    scene
        .source
        .seed(&super::repository(), &super::tag("v1"), &image.children[0]);
    let engine = scene.workshop.engine().await;
    let report = scheduled(&engine, "web").await;
    assert_eq!(only_failure(&report).kind, ErrorKind::MissingContent);
    let learnt = engine
        .store()
        .capability("to", "*", "refuses_missing_blobs", scene.workshop.clock.now());
    assert_eq!(learnt.await.expect("a state"), None);
}
