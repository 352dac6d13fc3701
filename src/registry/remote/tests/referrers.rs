//! Registries whose API of referrers fails, or never answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncReadExt;

use super::server::{Server, answer};
use super::{end_with_places, repository};
use crate::oci::Digest;
use crate::registry::ErrorKind;

/// Attempts of one question that fails.
const ATTEMPTS: usize = 4;

fn subjects(number: u8) -> Vec<Digest> {
    (0..number).map(|number| Digest::of(&[number])).collect()
}

/// A server that takes requests, counts them and never answers.
async fn silent() -> (String, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    #[expect(clippy::disallowed_methods, reason = "a server of a test; aborted at its end")]
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut first = [0; 1024];
            if matches!(socket.read(&mut first).await, Ok(1..)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            open.push(socket);
        }
    });
    (host, asked, task)
}

#[tokio::test]
async fn after_a_first_question_that_failed_the_others_are_asked_at_once() {
    let registry = Server::start(|_, _| answer(500, &[], "")).await;
    let end = end_with_places(&registry.host(), 16);
    let (name, all) = (repository("a"), subjects(4));
    let ended = join_all(all.iter().map(|subject| end.referrers_by_api(&name, subject))).await;
    assert!(ended.iter().all(Result::is_err));
    let asked: Vec<_> = registry.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(asked.len(), ATTEMPTS * all.len());
    let first: BTreeSet<_> = asked[..ATTEMPTS].iter().collect();
    assert_eq!(first.len(), 1, "one asks for all: {asked:?}");
    let next: BTreeSet<_> = asked[ATTEMPTS..ATTEMPTS + 3].iter().collect();
    assert_eq!(next.len(), 3, "not one behind the other: {asked:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_of_referrers_that_never_answers_is_waited_for_by_one_image_alone() {
    let (host, asked, server) = silent().await;
    let end = end_with_places(&host, 16);
    let (name, all) = (repository("a"), subjects(20));
    let ended = join_all(all.iter().map(|subject| end.referrers_by_api(&name, subject))).await;
    assert_eq!(asked.load(Ordering::Relaxed), ATTEMPTS);
    let kinds = ended.into_iter().map(|end| end.expect_err("no answer").kind);
    assert!(kinds.into_iter().all(|kind| kind == ErrorKind::Network));
    let error = end.referrers_by_api(&name, &all[0]).await.expect_err("still silent");
    assert!(error.message.contains("not asked again for"), "{error}");
    // Registries come back.
    tokio::time::advance(Duration::from_secs(10 * 60)).await;
    end.referrers_by_api(&name, &all[0]).await.expect_err("no answer");
    assert_eq!(asked.load(Ordering::Relaxed), 2 * ATTEMPTS);
    server.abort();
}
