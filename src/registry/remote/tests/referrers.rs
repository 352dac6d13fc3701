//! Registries whose API of referrers fails, or never answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncReadExt;

use rstest::rstest;

use super::server::{Server, answer};
use super::{end_of_kind, end_with_places, pass, repository, settings_with_places};
use crate::oci::{Digest, media_type};
use crate::registry::{AwsSettings, CloudSettings, ErrorKind, Fact, FactNews, Finding, Kind, PRESENT, RemoteSettings};

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

const NONE: &str = r#"{"schemaVersion":2,"manifests":[]}"#;
const UNKNOWN: &str = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
const INVALID: &str = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid"}]}"#;
/// What docker-registry says of a route that it does not have, and many a proxy of a backend that it has lost.
const PLAIN: &str = "404 page not found\n";

/// An API that has answered before says nothing of a manifest by an answer that a registry did not write.
#[rstest]
#[case::forbidden(403, "", Some(ErrorKind::Denied))]
#[case::another_ones_404(404, PLAIN, Some(ErrorKind::Server))]
#[case::another_ones_400(400, "<html>", Some(ErrorKind::Server))]
#[case::no_method(405, "", Some(ErrorKind::Server))]
#[case::a_web_page(200, "<html>", Some(ErrorKind::Server))]
#[case::unknown_subject(404, UNKNOWN, None)]
#[case::quays_unknown_subject(400, INVALID, None)]
#[tokio::test]
async fn an_api_of_referrers_that_has_answered_is_not_taken_for_missing(
    #[case] status: u16,
    #[case] said: &'static str,
    #[case] kind: Option<ErrorKind>,
) {
    let registry = Server::start(move |_, before| {
        let html = [("content-type", "text/html")];
        let headers = if said.starts_with('<') { &html[..] } else { &[] };
        match before {
            1 => answer(status, headers, said),
            _ => answer(200, &[], NONE),
        }
    })
    .await;
    let end = end_with_places(&registry.host(), 16);
    let (name, subject) = (repository("a"), Digest::of(b"a"));
    let ask = || end.referrers_by_api(&name, &subject);
    assert_eq!(ask().await.expect("an answer"), Some(Vec::new()));
    match (ask().await, kind) {
        (Ok(found), None) => assert_eq!(found, Some(Vec::new())),
        (Err(error), Some(kind)) => assert_eq!((error.kind, error.status), (kind, Some(status)), "{error}"),
        (found, _) => panic!("{found:?}"),
    }
    // It is asked on, and believed.
    assert_eq!(ask().await.expect("an answer"), Some(Vec::new()));
    assert_eq!(registry.seen().len(), 3);
}

#[tokio::test]
async fn a_registry_without_an_api_of_referrers_is_asked_again_after_hours() {
    let registry = Server::start(|_, before| match before {
        0 => answer(404, &[], PLAIN),
        _ => answer(200, &[], NONE),
    })
    .await;
    let end = end_with_places(&registry.host(), 16);
    let (name, all) = (repository("a"), subjects(2));
    for subject in &all {
        assert_eq!(end.referrers_by_api(&name, subject).await.expect("an answer"), None);
    }
    assert_eq!(registry.seen().len(), 1);
    pass(Duration::from_secs(6 * 3600)).await;
    let found = end.referrers_by_api(&name, &all[0]).await.expect("an answer");
    assert_eq!((found, registry.seen().len()), (Some(Vec::new()), 2));
}

fn known(class: Option<&str>, value: &str) -> Finding {
    Finding {
        fact: Fact::ReferrersApi,
        class: class.map(str::to_owned),
        value: value.to_owned(),
        evidence: String::new(),
        left: Duration::from_secs(3600),
    }
}

/// A registry, or a wall before it, that forbids each path that it does not know.
#[tokio::test]
async fn where_the_api_never_answered_a_403_is_that_there_is_none_here() {
    let registry = Server::start(|_, _| answer(403, &[], "")).await;
    let end = end_with_places(&registry.host(), 16);
    let (one, other, all) = (repository("a"), repository("b"), subjects(3));
    for subject in &all {
        assert_eq!(end.referrers_by_api(&one, subject).await.expect("none"), None);
    }
    assert_eq!(registry.seen().len(), 1, "it is left alone there");
    // It says nothing of other repositories, of which a right may be granted.
    assert_eq!(end.referrers_by_api(&other, &all[0]).await.expect("none"), None);
    assert_eq!(registry.seen().len(), 2);
    let news = end.take_fact_news();
    let told = news.iter().map(|news| match news {
        FactNews::Found(found) => (found.class.as_deref(), found.value.as_str()),
        FactNews::Wrong { .. } => panic!("{news:?}"),
    });
    assert_eq!(
        told.collect::<BTreeSet<_>>(),
        BTreeSet::from([(Some("a"), "refused to nobody"), (Some("b"), "refused to nobody")])
    );
    pass(Duration::from_secs(6 * 3600)).await;
    assert_eq!(end.referrers_by_api(&one, &all[0]).await.expect("none"), None);
    assert_eq!(registry.seen().len(), 3);
}

#[tokio::test]
async fn where_the_api_answered_an_earlier_process_a_403_is_an_error() {
    let registry = Server::start(|_, _| answer(403, &[], "")).await;
    let end = end_with_places(&registry.host(), 16);
    end.assume_facts(vec![known(None, PRESENT), known(Some("a"), "refused to nobody")]);
    let (name, subject) = (repository("a"), Digest::of(b"a"));
    for _ in 0..2 {
        let error = end.referrers_by_api(&name, &subject).await.expect_err("refused");
        assert_eq!((error.kind, error.status), (ErrorKind::Denied, Some(403)), "{error}");
    }
    assert_eq!(end.take_fact_news(), []);
}

/// A 401 is about the login, of which all that is read depends.
#[tokio::test]
async fn a_login_that_is_refused_is_no_missing_api() {
    let registry = Server::start(|_, _| answer(401, &[], "")).await;
    let end = end_with_places(&registry.host(), 16);
    let (name, subject) = (repository("a"), Digest::of(b"a"));
    end.referrers_by_api(&name, &subject).await.expect_err("refused");
    assert_eq!(end.take_fact_news(), []);
}

/// What an earlier process was answered is gone only where a registry says so.
#[rstest]
#[case::a_registry(200, true)]
#[case::something_in_its_place(404, false)]
#[tokio::test]
async fn an_api_that_has_answered_an_earlier_process_is_gone_where_a_registry_says_so(
    #[case] greeting: u16,
    #[case] gone: bool,
) {
    let registry = Server::start(move |request, _| match request.target.as_str() {
        "/v2/" => answer(greeting, &[], ""),
        _ => answer(404, &[], PLAIN),
    })
    .await;
    let end = end_with_places(&registry.host(), 16);
    end.assume_facts(vec![known(None, PRESENT)]);
    let (name, subject) = (repository("a"), Digest::of(b"a"));
    match end.referrers_by_api(&name, &subject).await {
        Ok(found) => assert!(gone && found.is_none(), "{found:?}"),
        Err(error) => assert!(!gone && error.kind == ErrorKind::Server, "{error}"),
    }
    let asked = registry.seen().len();
    let again = end.referrers_by_api(&name, &subject).await;
    assert_eq!((again.is_ok(), registry.seen().len() > asked), (gone, !gone));
    assert_eq!(end.take_fact_news().len(), usize::from(gone));
}

/// Where the login is not of the rules the next one may have the right.
#[tokio::test]
async fn a_refusal_to_a_login_that_is_not_of_the_rules_is_believed_for_minutes() {
    let registry = Server::start(|_, _| answer(403, &[], "")).await;
    let settings = RemoteSettings {
        cloud: CloudSettings::Aws(AwsSettings::default()),
        ..settings_with_places(&registry.host(), 16)
    };
    let end = end_of_kind(Kind::Generic, settings);
    let (name, subject) = (repository("a"), Digest::of(b"a"));
    for _ in 0..2 {
        assert_eq!(end.referrers_by_api(&name, &subject).await.expect("none"), None);
        assert!(end.refuses_referrers(&name));
    }
    assert_eq!(registry.seen().len(), 1);
    pass(Duration::from_secs(5 * 60)).await;
    assert_eq!(end.referrers_by_api(&name, &subject).await.expect("none"), None);
    assert_eq!(registry.seen().len(), 2);
}

/// A list that is too long to be copied is one all the same.
#[tokio::test]
async fn that_there_is_an_api_is_told_by_the_first_page() {
    let digest = Digest::of(b"referrer");
    let entry = format!(
        r#"{{"mediaType":"{}","digest":"{digest}","size":1}}"#,
        media_type::OCI_MANIFEST
    );
    let entries = vec![entry; 600].join(",");
    let page = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{entries}]}}"#,
        media_type::OCI_INDEX
    );
    let registry = Server::start(move |_, number| {
        let link = format!("</v2/a/referrers/x?page={number}>; rel=\"next\"");
        answer(
            200,
            &[("content-type", media_type::OCI_INDEX), ("link", &link)],
            page.clone(),
        )
    })
    .await;
    let end = end_with_places(&registry.host(), 16);
    let (name, subject) = (repository("a"), Digest::of(b"a"));
    let error = end.referrers_by_api(&name, &subject).await.expect_err("too many");
    assert!(error.message.contains("more than 1000 referrers"), "{error}");
    let asked = registry.seen().len();
    assert!(end.has_referrers_api(&name, &subject).await.expect("an answer"));
    assert_eq!((asked, registry.seen().len()), (2, 3));
}

/// Quay says so of a subject that it does not have; elsewhere it is a router that takes the digest for a tag.
#[rstest]
#[case::quay(Kind::Quay, true)]
#[case::any(Kind::Generic, false)]
#[tokio::test]
async fn a_manifest_that_is_unknown_is_an_empty_list_of_quay_alone(#[case] kind: Kind, #[case] listed: bool) {
    let unknown = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid"}]}"#;
    let registry = Server::start(move |_, _| answer(400, &[], unknown)).await;
    let end = end_of_kind(kind, settings_with_places(&registry.host(), 16));
    let found = end.referrers_by_api(&repository("a"), &Digest::of(b"a")).await;
    assert_eq!(found.expect("an answer"), listed.then(Vec::new));
}
