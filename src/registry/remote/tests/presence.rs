//! Answers that repositories are missing, by registries and by what stands before them.

use std::time::Duration;

use futures_util::future::join_all;
use rstest::rstest;

use super::server::{Server, answer};
use super::{end_with_places, pass, repository};
use crate::registry::ErrorKind;

/// What many a proxy says of a backend that it has lost.
const PLAIN: &str = "404 page not found\n";

fn asked(server: &Server, target: &str) -> usize {
    server.seen().iter().filter(|seen| seen.target == target).count()
}

#[tokio::test]
async fn a_repository_is_not_missing_as_a_proxy_says_so_while_the_registry_starts() {
    // It is back with the sixth request.
    let registry = Server::start(|seen, before| match (before, seen.target.as_str()) {
        (0..5, _) => answer(404, &[], PLAIN),
        (_, "/v2/") => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
        _ => answer(404, &[], PLAIN),
    })
    .await;
    let end = end_with_places(&registry.host(), 16);
    let names = ["a", "b", "c", "d"].map(repository);
    let listed = join_all(names.iter().map(|name| end.list_tags(name))).await;
    for listed in listed {
        let error = listed.expect_err("nothing is known");
        assert_eq!((error.kind, error.status), (ErrorKind::Server, Some(404)), "{error}");
        assert!(error.message.contains("it may be starting"), "{error}");
    }
    assert_eq!((asked(&registry, "/v2/"), registry.seen().len()), (1, 5));
    // Some seconds later it is there, and what a proxy before it says is believed.
    pass(Duration::from_secs(10)).await;
    for name in &names {
        assert_eq!(end.list_tags(name).await.expect("an answer"), None);
    }
    assert_eq!((asked(&registry, "/v2/"), registry.seen().len()), (2, 10));
}

#[rstest]
#[case::open(200)]
#[case::that_wants_a_login(401)]
#[tokio::test]
async fn a_registry_that_says_nothing_of_a_missing_repository_is_asked_once_whether_it_is_one(#[case] status: u16) {
    let registry = Server::start(move |seen, _| match seen.target.as_str() {
        "/v2/" => answer(status, &[], ""),
        _ => answer(404, &[], ""),
    })
    .await;
    // One request at a time: whoever asks whether it is there holds no place of it.
    let end = end_with_places(&registry.host(), 1);
    let names = ["a", "b", "c", "d"].map(repository);
    let listed = join_all(names.iter().map(|name| end.list_tags(name))).await;
    assert!(listed.into_iter().all(|listed| matches!(listed, Ok(None))));
    assert_eq!((asked(&registry, "/v2/"), registry.seen().len()), (1, 5));
}

#[tokio::test]
async fn a_registrys_own_word_for_a_missing_repository_needs_no_question() {
    let unknown = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
    let registry = Server::start(move |_, _| answer(404, &[], unknown)).await;
    let end = end_with_places(&registry.host(), 16);
    assert_eq!(end.list_tags(&repository("a")).await.expect("an answer"), None);
    assert_eq!(registry.seen().len(), 1);
}
