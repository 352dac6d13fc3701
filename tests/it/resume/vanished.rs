//! Uploads that the registry loses between two requests: restarted without its uploads, or one of several that do not share them.

use http::{Method, StatusCode};

use super::LAYER;
use crate::support::docker_registry::DockerRegistry;
use crate::support::link::{Link, only_run};
use crate::support::proxy::{Act, Exchange, Fault};

fn not_found() -> Act {
    Act::AnswerAfter(StatusCode::NOT_FOUND, "")
}

#[tokio::test]
async fn an_upload_that_vanishes_between_its_requests_starts_again() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    link.dst.add(Fault::once("PATCH", "/uploads/", not_found()));
    link.dst.add(Fault::times(2, "PUT", "/uploads/", not_found()));
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    let run = only_run(&output);
    assert_eq!(run["failures"].as_array().map(Vec::len), Some(0), "{run}");
    let told = |line: &str| line.contains("starts again") && line.contains(&link.layer());
    assert!(output.stderr.lines().any(told), "no word of it:\n{}", output.stderr);
    assert!(link.upload().await.is_none(), "what is done is forgotten");
    // Where one is gone nothing more is sent: each try has an upload of its own.
    let exchanges = link.dst.exchanges();
    let write = |exchange: &&Exchange| exchange.method != Method::GET && exchange.is("*", "/uploads/");
    let refused = |exchange: &&Exchange| write(exchange) && exchange.status == Some(StatusCode::NOT_FOUND);
    for gone in exchanges.iter().filter(refused) {
        let writes = exchanges.iter().filter(|other| other.path == gone.path);
        let after = writes.skip_while(|other| *other != gone).skip(1);
        let after: Vec<_> = after.filter(write).collect();
        assert!(after.is_empty(), "{after:?}");
    }
    assert_eq!(exchanges.iter().filter(refused).count(), 3);
}

#[tokio::test]
async fn an_upload_that_vanishes_again_and_again_fails_its_image() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), 300_000).await;
    link.dst.add(Fault::every("PUT", "/uploads/", not_found()));
    let output = link.sync().await.expect(1);
    let failures = only_run(&output)["failures"].clone();
    assert_eq!(failures.as_array().map(Vec::len), Some(1), "{failures}");
    assert_eq!(
        (&failures[0]["kind"], &failures[0]["status"]),
        (&"server".into(), &404.into())
    );
    assert_eq!(
        link.dst.count("PUT", "/uploads/"),
        2 * 6,
        "each blob as often as rules say by themselves"
    );
    assert!(
        failures[0]["next_attempt_at"].is_null(),
        "the next run tries it: {failures}"
    );
}
