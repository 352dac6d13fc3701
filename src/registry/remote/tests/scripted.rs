//! Odd and hostile servers.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Method;
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server::{Server, answer};
use super::{blob, body, end_at, end_with_user, open_under, repository};
use crate::oci::{Digest, Reference, media_type};
use crate::registry::{
    BlobWrite, ErrorKind, Habits, Limiter, Limits, LoginSource, MountOutcome, SessionState, TlsSettings, UploadHabit,
};

const IMAGE: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"m","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;

fn tag(text: &str) -> Reference {
    Reference::Tag(text.parse().expect("a tag"))
}

/// A registry that wants Basic and sends blobs to another origin, which answers 500 where it sees a login.
#[tokio::test]
async fn a_login_never_follows_a_redirect_to_another_origin() {
    let (bytes, digest) = blob(1000, 1);
    let stored = bytes.clone();
    let storage = Server::start(move |request, _| {
        if request.header("authorization").is_some() {
            return answer(500, &[], "a login came along");
        }
        match request.header("range") {
            Some("bytes=400-") => answer(206, &[("content-range", "bytes 400-999/1000")], stored.slice(400..)),
            None => answer(200, &[], stored.clone()),
            Some(_) => answer(416, &[], ""),
        }
    })
    .await;
    let target = format!("http://{}/signed?sig=secret", storage.host());
    let registry = Server::start(move |request, _| match request.header("authorization") {
        None => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
        Some(_) => answer(307, &[("location", &target)], ""),
    })
    .await;
    let (end, account) = end_with_user(&registry.host());
    let mut reader = end.open_blob(&repository("a/b"), &digest, 400).await.expect("a reader");
    assert_eq!((reader.offset, reader.total), (400, Some(1000)));
    let mut read = Vec::new();
    while let Some(piece) = reader.next().await {
        read.extend_from_slice(&piece.expect("bytes"));
    }
    assert_eq!(read, bytes[400..]);
    assert_eq!(storage.seen().len(), 1);
    let charged = account.requests();
    assert_eq!(charged["there"]["GET"], 2);
    assert_eq!(charged[&storage.host()]["GET"], 1);
    let identity = storage.seen()[0].header("accept-encoding").map(str::to_owned);
    assert_eq!(identity.as_deref(), Some("identity"));
}

#[tokio::test]
async fn a_registry_that_says_when_is_left_alone_until_then() {
    let registry = Server::start(|_, before| match before {
        0 => answer(429, &[("retry-after", "1")], ""),
        _ => answer(200, &[("content-length", "3")], "abc"),
    })
    .await;
    let (end, account) = end_at(&registry.host(), Habits::default());
    let start = tokio::time::Instant::now();
    let found = end.head_blob(&repository("a"), &Digest::of(b"abc")).await;
    assert_eq!(found.expect("found"), Some(3));
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "asked again after {:?}",
        start.elapsed()
    );
    assert_eq!(account.requests()["there"]["HEAD"], 2);
}

#[rstest]
#[case::of_a_request(false)]
#[case::of_a_login(true)]
#[tokio::test]
async fn a_registry_that_is_left_alone_holds_no_place_of_the_process(#[case] logs_in: bool) {
    let limiter = Limiter::default();
    limiter.set(Limits {
        concurrency: Some(2),
        ..Limits::default()
    });
    // It asks for a login at its own address, and then for minutes.
    let host = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let own = std::sync::Arc::clone(&host);
    let paused = Server::start(move |request, _| match (request.target.as_str(), own.get()) {
        ("/v2/", Some(host)) => {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            answer(401, &[("www-authenticate", &challenge)], "")
        }
        _ => answer(429, &[("retry-after", "250")], ""),
    })
    .await;
    host.set(paused.host()).expect("set once");
    let other = Server::start(|_, _| answer(200, &[("content-length", "3")], "abc")).await;
    let open = |host: &str| {
        let (login, tls) = (LoginSource::Anonymous, TlsSettings::default());
        open_under(&limiter, host, true, login, tls, Habits::default())
    };
    let (first, second) = (open(&paused.host()), open(&other.host()));
    let (name, digest) = (repository("a"), Digest::of(b"abc"));
    let waiting = async {
        if logs_in {
            let (one, other) = tokio::join!(first.ping(), first.ping());
            return (one.err(), other.err());
        }
        let reading = async { first.with_reading_place().await.open_blob(&name, &digest, 0).await };
        let (read, found) = tokio::join!(reading, first.head_blob(&name, &digest));
        (read.err(), found.err())
    };
    let asking = async {
        while first.penalty().is_none() {
            tokio::task::yield_now().await;
        }
        let found = second.head_blob(&name, &digest).await;
        let read = second.open_blob(&name, &digest, 0).await.map(drop);
        (found, read)
    };
    tokio::select! {
        answers = waiting => panic!("it waited for a pause: {answers:?}"),
        (found, read) = asking => {
            assert_eq!(found.expect("an answer"), Some(3));
            read.expect("a reader");
        }
    }
}

#[tokio::test]
async fn a_wait_of_hours_goes_up_to_the_caller() {
    let registry = Server::start(|_, _| answer(429, &[("retry-after", "21600")], "")).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let error = end
        .get_manifest(&repository("a"), &tag("v1"))
        .await
        .expect_err("throttled");
    assert_eq!((error.kind, error.status), (ErrorKind::Throttled, Some(429)));
    assert_eq!(error.retry_after, Some(Duration::from_secs(21600)));
    assert_eq!(registry.seen().len(), 1);
    // It holds for the registry as a whole, and nothing more is sent.
    let error = end.list_tags(&repository("b")).await.expect_err("throttled");
    assert_eq!((error.kind, error.status), (ErrorKind::Throttled, None));
    assert!(error.retry_after.is_some_and(|left| left > Duration::from_secs(21500)));
    assert_eq!(registry.seen().len(), 1);
}

#[tokio::test]
async fn a_pause_can_be_kept_by_another_process() {
    let registry = Server::start(|_, _| answer(429, &[("retry-after", "21600")], "")).await;
    let (first, _) = end_at(&registry.host(), Habits::default());
    assert_eq!(first.penalty(), None);
    first.ping().await.expect_err("throttled");
    let until = first.penalty().expect("a pause");
    let (second, _) = end_at(&registry.host(), Habits::default());
    second.set_penalty(until);
    let error = second.ping().await.expect_err("throttled");
    assert_eq!(error.kind, ErrorKind::Throttled);
    assert_eq!(registry.seen().len(), 1, "only the first asked");
    // What is over is over.
    let (third, _) = end_at(&registry.host(), Habits::default());
    third.set_penalty(jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(third.penalty(), None);
}

#[tokio::test]
async fn nothing_left_in_a_good_answer_is_a_pause_too() {
    let headers = [("content-length", "3"), ("ratelimit", "\"default\";r=0;t=1000")];
    let registry = Server::start(move |_, _| answer(200, &headers, "abc")).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let digest = Digest::of(b"abc");
    let found = end.head_blob(&repository("a"), &digest).await;
    assert_eq!(found.expect("found"), Some(3));
    let error = end.head_blob(&repository("a"), &digest).await.expect_err("a pause");
    assert_eq!(error.kind, ErrorKind::Throttled);
    assert_eq!(registry.seen().len(), 1);
}

#[tokio::test]
async fn a_reader_that_broke_off_finds_its_place_still_free() {
    let (bytes, digest) = blob(5000, 1);
    let registry = Server::start(move |request, _| match request.header("range") {
        Some("bytes=1000-") => answer(206, &[("content-range", "bytes 1000-4999/5000")], bytes.slice(1000..)),
        _ => answer(200, &[], bytes.clone()),
    })
    .await;
    // With a ceiling of one there is one place to read.
    let (end, _) = end_at(&registry.host(), Habits::default());
    let placed = end.with_reading_place().await;
    let name = repository("a");
    let first = placed.open_blob(&name, &digest, 0).await.expect("a reader");
    // Others wait for the place, before the reader and after it.
    let mut other = Box::pin(end.open_blob(&name, &digest, 0));
    assert!(futures_util::poll!(&mut other).is_pending());
    drop(first);
    let mut again = placed.open_blob(&name, &digest, 1000).await.expect("a reader");
    assert_eq!(again.offset, 1000);
    assert!(again.next().await.is_some());
    assert!(futures_util::poll!(&mut other).is_pending());
    assert_eq!(registry.seen().len(), 2);
    // The place is the reader's too.
    drop(placed);
    assert!(futures_util::poll!(&mut other).is_pending());
    drop(again);
    other.await.expect("a reader");
}

#[tokio::test]
async fn a_failing_registry_is_tried_four_times_and_upload_bytes_once() {
    let registry = Server::start(|_, _| answer(503, &[], "")).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let error = end.list_tags(&repository("a")).await.expect_err("unavailable");
    assert_eq!(error.kind, ErrorKind::Server);
    assert_eq!(registry.seen().len(), 4);
    let write = stored_write(&registry, "/upload/1");
    let error = end
        .write_piece(&write, 0, 3, body(b"abc", 3))
        .await
        .expect_err("unavailable");
    assert_eq!(error.kind, ErrorKind::Server);
    assert_eq!(registry.seen().len(), 5);
}

fn stored_write(server: &Server, path: &str) -> BlobWrite {
    let location = format!("http://{}{path}", server.host());
    let text = serde_json::json!({"repository": "a", "location": location, "min_piece": null}).to_string();
    BlobWrite::from_stored(&text).expect("a write")
}

#[tokio::test]
async fn pages_are_followed_as_the_links_say() {
    let registry = Server::start(|request, _| match request.target.as_str() {
        "/v2/a/tags/list?n=1000" => answer(
            200,
            &[("link", "</v2/a/tags/list?next=%2Fopaque>; rel=next")],
            r#"{"name":"a","tags":["v1",null,"","sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","v1"]}"#,
        ),
        "/v2/a/tags/list?next=%2Fopaque" => answer(
            200,
            &[("link", "<list?last=x>; rel=\"prev next\"")],
            r#"{"tags":["v2","v1"]}"#,
        ),
        "/v2/a/tags/list?last=x" => answer(200, &[], r#"{"tags":null}"#),
        _ => answer(404, &[], r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#),
    })
    .await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let tags = end.list_tags(&repository("a")).await.expect("listed").expect("there");
    assert_eq!(tags.iter().map(ToString::to_string).collect::<Vec<_>>(), ["v1", "v2"]);
    assert_eq!(end.list_tags(&repository("b")).await.expect("answered"), None);
    assert_eq!(end.list_repositories(&[String::new()]).await.expect("answered"), None);
}

#[rstest]
#[case::circle(&[("link", "</v2/a/tags/list?n=1000>; rel=next")], r#"{"tags":["v1"]}"#, "circle")]
#[case::web_page(&[("content-type", "text/html")], "<html>", "web page")]
#[case::no_list(&[], r#"{"name":"a"}"#, "no list")]
#[case::other_scheme(&[("link", "<ftp://x/y>; rel=next")], r#"{"tags":["v1"]}"#, "refused")]
#[tokio::test]
async fn lists_that_cannot_be_believed(
    #[case] headers: &'static [(&'static str, &'static str)],
    #[case] text: &'static str,
    #[case] words: &str,
) {
    let registry = Server::start(move |_, _| answer(200, headers, text)).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let error = end.list_tags(&repository("a")).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains(words), "{error}");
}

#[tokio::test]
async fn a_list_that_is_lost_half_way_is_an_error() {
    let registry = Server::start(|request, _| match request.target.contains("last=") {
        false => answer(
            200,
            &[("link", "</v2/a/tags/list?last=v1>; rel=next")],
            r#"{"tags":["v1"]}"#,
        ),
        true => answer(404, &[], ""),
    })
    .await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let error = end.list_tags(&repository("a")).await.expect_err("half a list");
    assert_eq!(error.kind, ErrorKind::NotFound);
    // It is read from its start again, but not for ever.
    assert_eq!(registry.seen().len(), 6);
}

#[tokio::test]
async fn a_page_size_that_is_refused_is_left_out() {
    let registry = Server::start(|request, _| match request.target.as_str() {
        "/v2/_catalog" => answer(200, &[], r#"{"repositories":["a/b"]}"#),
        _ => answer(400, &[], r#"{"errors":[{"code":"PAGINATION_NUMBER_INVALID"}]}"#),
    })
    .await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    assert_eq!(
        end.list_repositories(&[String::new()]).await.expect("listed"),
        Some(vec![repository("a/b")])
    );
}

#[tokio::test]
async fn manifests_that_cannot_be_believed() {
    let other = Digest::of(b"other").to_string();
    let registry = Server::start(move |request, _| match request.target.as_str() {
        "/v2/a/manifests/large" => {
            // No Content-Length: the limit must hold while reading.
            let piece = Bytes::from(vec![b' '; 64 * 1024]);
            let pieces = (0..80).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
            answer(200, &[], Body::from_stream(futures_util::stream::iter(pieces)))
        }
        "/v2/a/manifests/announced" => answer(200, &[("docker-content-digest", &other)], IMAGE),
        "/v2/a/manifests/plain" => answer(200, &[("content-type", media_type::OCI_MANIFEST)], IMAGE),
        "/v2/a/manifests/page" => answer(200, &[("content-type", "text/html")], "<html>"),
        _ => answer(200, &[], IMAGE),
    })
    .await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let name = repository("a");
    for (reference, kind) in [
        (tag("large"), ErrorKind::TooLarge),
        (tag("announced"), ErrorKind::Corrupt),
        (tag("page"), ErrorKind::Invalid),
        (Reference::Digest(Digest::of(b"another")), ErrorKind::Corrupt),
    ] {
        let error = end.get_manifest(&name, &reference).await.expect_err("refused");
        assert_eq!(error.kind, kind, "{error}");
    }
    // A HEAD without a digest is followed by a read.
    let head = end
        .head_manifest(&name, &tag("plain"))
        .await
        .expect("asked")
        .expect("there");
    assert_eq!(head.digest, Digest::of(IMAGE.as_bytes()));
    assert_eq!(head.media_type.as_deref(), Some(media_type::OCI_MANIFEST));
    let seen = registry.seen();
    assert!(
        seen.iter()
            .all(|request| request.header("accept") == Some(media_type::ACCEPT))
    );
}

#[tokio::test]
async fn a_put_is_compared_with_what_was_stored() {
    let other = Digest::of(b"other").to_string();
    let registry =
        Server::start(move |_, _| answer(201, &[("docker-content-digest", &other), ("oci-subject", "x")], "")).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let put = end
        .put_manifest(&repository("a"), &tag("v1"), media_type::OCI_MANIFEST, IMAGE.into())
        .await;
    assert_eq!(put.expect_err("changed").kind, ErrorKind::Corrupt);
}

#[rstest]
#[case::another_range(206, &[("content-range", "bytes 0-9/10")], ErrorKind::Invalid)]
#[case::no_range(206, &[], ErrorKind::Invalid)]
#[case::past_the_end(416, &[], ErrorKind::Invalid)]
#[case::gone(404, &[], ErrorKind::NotFound)]
#[tokio::test]
async fn ranges_that_are_not_as_asked(
    #[case] status: u16,
    #[case] headers: &'static [(&'static str, &'static str)],
    #[case] kind: ErrorKind,
) {
    let registry = Server::start(move |_, _| answer(status, headers, "0123456789")).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let error = end
        .open_blob(&repository("a"), &Digest::of(b"x"), 5)
        .await
        .expect_err("refused");
    assert_eq!(error.kind, kind, "{error}");
}

#[tokio::test]
async fn a_registry_without_ranges_starts_at_the_first_byte() {
    let registry = Server::start(|_, _| answer(200, &[], "0123456789")).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let reader = end
        .open_blob(&repository("a"), &Digest::of(b"x"), 5)
        .await
        .expect("a reader");
    assert_eq!((reader.offset, reader.total), (0, Some(10)));
}

/// A server that writes these bytes as its answer to each connection's first request, and closes.
async fn raw(text: &'static str) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    #[expect(clippy::disallowed_methods, reason = "a server of a test; aborted at its end")]
    let task = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                match socket.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&buffer[..read]),
                }
            }
            let _ = socket.write_all(text.as_bytes()).await;
        }
    });
    (host, task)
}

#[rstest]
#[case::cut("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234", ErrorKind::Network)]
#[case::cut_range(
    "HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\nContent-Range: bytes 5-6/10\r\n\r\n56",
    ErrorKind::Network
)]
#[case::too_many(
    "HTTP/1.1 206 Partial Content\r\nContent-Length: 9\r\nContent-Range: bytes 5-9/10\r\n\r\n56789abcd",
    ErrorKind::Corrupt
)]
#[tokio::test]
async fn bodies_of_another_length_than_announced(#[case] text: &'static str, #[case] kind: ErrorKind) {
    let (host, task) = raw(text).await;
    let (end, _) = end_at(&host, Habits::default());
    let mut reader = end
        .open_blob(&repository("a"), &Digest::of(b"x"), 5)
        .await
        .expect("a reader");
    let mut last = None;
    while let Some(piece) = reader.next().await {
        last = Some(piece);
    }
    let error = last.expect("something came").expect_err("the wrong length");
    assert_eq!(error.kind, kind, "{error}");
    task.abort();
}

#[tokio::test]
async fn an_upload_goes_on_from_the_newest_location() {
    let registry = Server::start(|request, _| match (&request.method, request.target.as_str()) {
        (&Method::POST, "/v2/a/blobs/uploads/") => answer(
            202,
            &[
                ("location", "/up/1?_state=a%2Bb"),
                ("oci-chunk-min-length", "2"),
                ("range", "0-0"),
            ],
            "",
        ),
        (&Method::PATCH, "/up/1?_state=a%2Bb") => answer(201, &[("location", "/up/1?_state=c"), ("range", "0-2")], ""),
        (&Method::PATCH, "/up/1?_state=c") => answer(202, &[("location", "/up/1?_state=d"), ("range", "0-99")], ""),
        (
            &Method::PUT,
            "/up/1?_state=d&digest=sha256%3A88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589",
        ) => answer(201, &[], ""),
        _ => answer(400, &[], ""),
    })
    .await;
    let (end, account) = end_at(&registry.host(), Habits::default());
    let digest: Digest = "sha256:88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"
        .parse()
        .expect("a digest");
    let write = end.begin_write(&repository("a")).await.expect("opened");
    assert_eq!(write.min_piece(), Some(2));
    let (write, held) = end.write_piece(&write, 0, 3, body(b"abc", 2)).await.expect("sent");
    assert_eq!(held, 3);
    let write = BlobWrite::from_stored(&write.to_stored()).expect("stored");
    let (write, held) = end.write_piece(&write, 3, 1, body(b"d", 1)).await.expect("sent");
    assert_eq!(held, 4, "more than was sent cannot be held");
    end.finish_write(&write, &digest, 4, 0, body(b"", 1))
        .await
        .expect("closed");
    let seen = registry.seen();
    let ranges: Vec<_> = seen.iter().map(|request| request.header("content-range")).collect();
    assert_eq!(ranges, [None, Some("0-2"), Some("3-3"), None]);
    let lengths: Vec<_> = seen.iter().map(|request| request.header("content-length")).collect();
    assert_eq!(lengths, [Some("0"), Some("3"), Some("1"), Some("0")]);
    assert_eq!(account.requests()["there"].values().sum::<u64>(), 4);
}

#[tokio::test]
async fn where_an_upload_stands_cannot_be_asked_of_every_registry() {
    for (status, gone) in [(404, true), (405, true), (410, true), (501, true), (403, false)] {
        let registry = Server::start(move |_, _| answer(status, &[], "")).await;
        let (end, _) = end_at(&registry.host(), Habits::default());
        let resumed = end.resume_write(&stored_write(&registry, "/up/1")).await;
        assert_eq!(matches!(resumed, Ok(SessionState::Gone)), gone, "{status}: {resumed:?}");
        assert_eq!(resumed.is_err(), !gone, "{status}");
    }
}

#[tokio::test]
async fn a_stale_range_is_ignored_where_the_kind_is_known_for_it() {
    let registry = Server::start(|_, _| answer(201, &[("range", "0-1")], "")).await;
    let habits = Habits {
        trust_upload_range: false,
        ..Habits::default()
    };
    let (end, _) = end_at(&registry.host(), habits);
    let write = stored_write(&registry, "/up/1");
    let (_, held) = end.write_piece(&write, 0, 5, body(b"abcde", 5)).await.expect("sent");
    assert_eq!(held, 5);
    assert!(matches!(end.resume_write(&write).await, Ok(SessionState::Gone)));
}

#[tokio::test]
async fn an_upload_on_another_host_gets_no_login() {
    let store = Server::start(|request, _| match request.header("authorization") {
        None => answer(201, &[], ""),
        Some(_) => answer(500, &[], "a login came along"),
    })
    .await;
    let registry = Server::start(|_, _| answer(500, &[], "")).await;
    let (end, account) = end_at(&registry.host(), Habits::default());
    let write = stored_write(&store, "/up/1");
    end.finish_write(&write, &Digest::of(b"abc"), 0, 3, body(b"abc", 3))
        .await
        .expect("closed");
    assert_eq!(account.requests()[&store.host()]["PUT"], 1);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_body_is_heard() {
    let registry = Server::start(|_, _| answer(413, &[], "")).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let write = stored_write(&registry, "/up/1");
    // The rest of the body never comes.
    let stream = futures_util::StreamExt::chain(body(b"abc", 3), futures_util::stream::pending());
    let sent = end
        .finish_write(&write, &Digest::of(b"x"), 0, 1 << 30, Box::pin(stream))
        .await;
    let error = sent.expect_err("too large");
    assert_eq!((error.kind, error.status), (ErrorKind::TooLarge, Some(413)));
}

#[tokio::test]
async fn bytes_that_cannot_be_had_are_not_blamed_on_the_registry() {
    let (host, task) = raw("").await;
    let (end, _) = end_at(&host, Habits::default());
    let location = format!("http://{host}/up/1");
    let text = serde_json::json!({"repository": "a", "location": location, "min_piece": null}).to_string();
    let write = BlobWrite::from_stored(&text).expect("a write");
    let error = end
        .write_piece(&write, 0, 9, body(b"abc", 3))
        .await
        .expect_err("too few bytes");
    assert!(error.message.contains("bytes to send"), "{error}");
    task.abort();
}

#[rstest]
#[case(201, &[], "mounted")]
#[case(202, &[("location", "/up/1")], "opened")]
#[case(202, &[], "refused")]
#[case(403, &[], "refused")]
#[case(404, &[], "refused")]
#[case(405, &[], "refused")]
#[case(507, &[], "error")]
#[tokio::test]
async fn mounts(#[case] status: u16, #[case] headers: &'static [(&'static str, &'static str)], #[case] outcome: &str) {
    let registry = Server::start(move |_, _| answer(status, headers, "")).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let mounted = end.mount(&repository("a"), &Digest::of(b"x"), &repository("b/c")).await;
    let found = match mounted {
        Ok(MountOutcome::Mounted) => "mounted",
        Ok(MountOutcome::Opened(_)) => "opened",
        Ok(MountOutcome::Refused) => "refused",
        Err(_) => "error",
    };
    assert_eq!(found, outcome);
    assert!(
        registry.seen()[0].target.ends_with("&from=b%2Fc"),
        "{}",
        registry.seen()[0].target
    );
}

#[tokio::test]
async fn referrers_by_the_api_go_over_pages() {
    let entry = |text: &str| {
        let digest = Digest::of(text.as_bytes());
        format!(r#"{{"manifests":[{{"mediaType":"m","digest":"{digest}","size":1,"artifactType":"{text}"}}]}}"#)
    };
    let (one, two) = (entry("one"), entry("two"));
    let registry = Server::start(move |request, _| {
        if request.target.contains("page=2") {
            answer(200, &[], two.clone())
        } else {
            answer(200, &[("link", "<?page=2>; rel=next")], one.clone())
        }
    })
    .await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let list = end
        .referrers(&repository("a"), &Digest::of(b"x"))
        .await
        .expect("listed");
    assert!(list.api);
    let types: Vec<_> = list
        .referrers
        .iter()
        .filter_map(|entry| entry.artifact_type.as_deref())
        .collect();
    assert_eq!(types, ["one", "two"]);
}

#[tokio::test]
async fn a_registry_without_the_api_is_asked_for_it_once() {
    let subject = Digest::of(b"x");
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{}","size":1}}]}}"#,
        Digest::of(b"y")
    );
    let registry = Server::start(move |request, _| {
        if request.target.contains("/referrers/") {
            answer(404, &[("content-type", "text/plain")], "404 page not found\n")
        } else if request.target.ends_with(&Digest::of(b"x").fallback_tag().to_string()) {
            answer(200, &[("content-type", media_type::OCI_INDEX)], index.clone())
        } else {
            answer(404, &[], "")
        }
    })
    .await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let list = end.referrers(&repository("a"), &subject).await.expect("listed");
    assert_eq!((list.api, list.referrers.len()), (false, 1));
    let list = end
        .referrers(&repository("a"), &Digest::of(b"z"))
        .await
        .expect("listed");
    assert_eq!((list.api, list.referrers.len()), (false, 0));
    let asked = registry
        .seen()
        .iter()
        .filter(|request| request.target.contains("/referrers/"))
        .count();
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_head_that_storage_refuses_becomes_a_read_of_one_byte() {
    let storage = Server::start(|request, _| match request.method {
        Method::HEAD => answer(403, &[], ""),
        _ => answer(206, &[("content-range", "bytes 0-0/77")], "x"),
    })
    .await;
    let target = format!("http://{}/signed", storage.host());
    let registry = Server::start(move |_, _| answer(307, &[("location", &target)], "")).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let length = end.head_blob(&repository("a"), &Digest::of(b"x")).await.expect("asked");
    assert_eq!(length, Some(77));
}

#[tokio::test]
async fn redirects_without_end_are_given_up() {
    let registry = Server::start(|_, before| answer(302, &[("location", &format!("/{before}"))], "")).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let error = end
        .open_blob(&repository("a"), &Digest::of(b"x"), 0)
        .await
        .expect_err("given up");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert_eq!(registry.seen().len(), 6);
}

#[tokio::test]
async fn habits_are_learnt_without_the_query_or_known_beforehand() {
    let registry = Server::start(|request, _| match request.target.as_str() {
        "/keeps/1" => answer(204, &[], ""),
        _ => answer(404, &[], ""),
    })
    .await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let keeps = end.upload_habit(&stored_write(&registry, "/keeps/1?_state=x")).await;
    assert_eq!(keeps.expect("learnt"), UploadHabit::KeepsBytes);
    let loses = end.upload_habit(&stored_write(&registry, "/loses/1?_state=x")).await;
    assert_eq!(loses.expect("learnt"), UploadHabit::KeepsPieces);
    let unasked = end.upload_habit(&stored_write(&registry, "/keeps/1")).await;
    assert_eq!(unasked.expect("careful"), UploadHabit::KeepsPieces);
}

#[tokio::test]
async fn names_at_docker_hub_and_its_host() {
    let registry = Server::start(|_, _| answer(404, &[], r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#)).await;
    let habits = Habits {
        api_host: Some(registry.host()),
        default_namespace: Some("library".into()),
        ..Habits::default()
    };
    let (end, _) = end_at("docker.invalid", habits);
    assert_eq!(end.list_tags(&repository("alpine")).await.expect("answered"), None);
    assert_eq!(
        end.list_tags(&repository("grafana/loki")).await.expect("answered"),
        None
    );
    let targets: Vec<_> = registry.seen().into_iter().map(|request| request.target).collect();
    assert_eq!(
        targets,
        [
            "/v2/library/alpine/tags/list?n=1000",
            "/v2/grafana/loki/tags/list?n=1000"
        ]
    );
}

#[tokio::test]
async fn a_registry_that_is_not_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let (end, _) = end_at(&host, Habits::default());
    let error = end.ping().await.expect_err("nobody there");
    assert_eq!(error.kind, ErrorKind::Network);
    assert!(error.message.contains("refused the connection"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_no_registry() {
    let registry = Server::start(|_, _| answer(404, &[], "")).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let error = end.ping().await.expect_err("no registry");
    assert!(error.message.contains("no /v2/"), "{error}");
}

#[tokio::test]
async fn bytes_sent_with_a_stale_login_may_be_sent_again() {
    let registry = Server::start(|request, _| match request.header("authorization") {
        None => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
        Some(_) => answer(202, &[("location", "/up/2")], ""),
    })
    .await;
    let (end, _) = end_with_user(&registry.host());
    let write = stored_write(&registry, "/up/1");
    let error = end
        .write_piece(&write, 0, 3, body(b"abc", 3))
        .await
        .expect_err("not logged in");
    assert!(error.login_was_renewed(), "{error}");
    let (_, held) = end.write_piece(&write, 0, 3, body(b"abc", 3)).await.expect("logged in");
    assert_eq!(held, 3);
    assert_eq!(registry.seen().len(), 2);
}

#[tokio::test]
async fn giving_an_upload_up_costs_one_request_whatever_the_answer() {
    let registry = Server::start(|_, _| answer(401, &[("www-authenticate", "Basic realm=\"r\"")], "")).await;
    let (end, _) = end_with_user(&registry.host());
    end.cancel_write(&stored_write(&registry, "/up/1")).await;
    let seen: Vec<_> = registry.seen().into_iter().map(|request| request.method).collect();
    assert_eq!(seen, [Method::DELETE]);
}

#[tokio::test]
async fn a_list_is_not_absent_because_its_second_page_is() {
    let registry = Server::start(|request, _| match request.target.contains("last=") {
        false => answer(
            200,
            &[("link", "</v2/a/tags/list?last=v1>; rel=next")],
            r#"{"tags":[]}"#,
        ),
        true => answer(404, &[], ""),
    })
    .await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    assert_eq!(
        end.list_tags(&repository("a")).await.expect_err("half a list").kind,
        ErrorKind::NotFound
    );
}

/// A firewall that shows the request which it blocks, as text and within JSON, at the end of more than is quoted.
#[rstest]
#[case("WAF: blocked, headers: authorization=")]
#[case(&"x".repeat(290))]
#[tokio::test]
async fn what_we_log_in_with_is_not_quoted(#[case] before: &str) {
    let before = before.to_owned();
    let registry = Server::start(move |request, _| match request.header("authorization") {
        None => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
        Some(login) if request.target.contains("manifests") => {
            let text = serde_json::json!({"errors": [{"code": login.trim_start_matches("Basic "), "message": before}]});
            answer(403, &[], text.to_string())
        }
        Some(login) => answer(403, &[("content-type", "text/plain")], format!("{before}{login}")),
    })
    .await;
    let (end, _) = end_with_user(&registry.host());
    let listed = end.list_tags(&repository("a")).await.expect_err("denied");
    let read = end
        .get_manifest(&repository("a"), &tag("v1"))
        .await
        .expect_err("denied");
    for error in [listed, read] {
        assert_eq!((error.kind, error.status), (ErrorKind::Denied, Some(403)));
        assert!(error.message.contains("403") && error.code.is_none(), "{error}");
        assert!(!format!("{error:?} {error}").contains("dTp"), "{error:?}");
    }
}

#[tokio::test]
async fn endless_lists_of_referrers_end() {
    let big = "x".repeat(8 * 1024 * 1024 - 400);
    let registry = Server::start(move |_, before| {
        let digest = Digest::of(&before.to_le_bytes());
        let page = format!(
            r#"{{"manifests":[{{"mediaType":"m","digest":"{digest}","size":1,"annotations":{{"a":"{big}"}}}}]}}"#
        );
        let link = format!("</v2/a/referrers/x?p={before}>; rel=next");
        answer(200, &[("link", &link)], page)
    })
    .await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let error = end
        .referrers(&repository("a"), &Digest::of(b"s"))
        .await
        .expect_err("too long");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("longer than 32 MiB"), "{error}");
    assert_eq!(registry.seen().len(), 5);

    let many = format!(r#"{{"mediaType":"m","digest":"{}","size":1}}"#, Digest::of(b"r"));
    let many = format!(r#"{{"manifests":[{}]}}"#, vec![many; 1001].join(","));
    let registry = Server::start(move |_, _| answer(200, &[], many.clone())).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let error = end
        .referrers(&repository("a"), &Digest::of(b"s"))
        .await
        .expect_err("too many");
    assert!(error.message.contains("more than 1000 referrers"), "{error}");
}

#[tokio::test]
async fn a_link_to_a_next_page_has_a_limit() {
    let link = format!("</v2/a/tags/list?p={}>; rel=next", "y".repeat(8 * 1024));
    let registry = Server::start(move |_, _| answer(200, &[("link", &link)], r#"{"tags":[]}"#)).await;
    let (end, _) = end_at(&registry.host(), Habits::default());
    let error = end.list_tags(&repository("a")).await.expect_err("a long link");
    assert!(error.message.contains("longer than 8192 bytes"), "{error}");
}
