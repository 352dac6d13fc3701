//! Mirrors that are well, while our own requests wait for one another.

use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt as _;

use super::server::{Server, answer};
use super::*;
use crate::registry::Patience;

/// One that has every blob.
async fn full(bytes: Bytes) -> Server {
    Server::start(move |_, _| answer(200, &[], bytes.clone())).await
}

fn open_with(limiter: &Limiter, server: &Server, limits: Limits) -> Endpoint {
    open_login(limiter, server, limits, LoginSource::Anonymous)
}

fn open_login(limiter: &Limiter, server: &Server, limits: Limits, login: LoginSource) -> Endpoint {
    let settings = RemoteSettings {
        url: RegistryUrl {
            plain_http: true,
            host: server.host(),
            path: String::new(),
        },
        login,
        limits,
        ..RemoteSettings::default()
    };
    open_as(Arc::new(Generic(Kind::Generic)), limiter, settings, Habits::default())
}

/// The same as a source with this mirror.
fn mirrored(end: &Endpoint, mirror: Endpoint) -> Endpoint {
    end.set_mirrors(vec![(mirror, None)], false, None);
    end.with_mirrors_first()
}

#[tokio::test]
async fn waiting_for_a_place_of_the_process_is_no_fault_of_the_mirror() {
    let (bytes, digest) = blob(1000, 1);
    let (near, src) = (full(bytes.clone()).await, full(bytes).await);
    let limiter = Limiter::default();
    // One place to read blobs.
    limiter.set(Limits {
        concurrency: Some(2),
        ..Limits::default()
    });
    let any = Limits::default;
    let end = open_with(&limiter, &src, any());
    let source = mirrored(&end, open_with(&limiter, &near, any()));
    let elsewhere = Server::start(|_, _| answer(200, &[], "")).await;
    let held = open_with(&limiter, &elsewhere, any()).with_reading_place().await;
    let name = repository("a");
    let mut opening = Box::pin(source.open_blob(&name, &digest, 0));
    assert!(futures_util::poll!(&mut opening).is_pending());
    pass(Duration::from_secs(11)).await;
    assert!(futures_util::poll!(&mut opening).is_pending());
    drop(held);
    opening.await.expect("a reader");
    assert_eq!((near.seen().len(), src.seen().len()), (1, 0));
}

/// Registries refuse what they lack, too.
#[tokio::test]
async fn a_mirror_that_refuses_one_repository_is_asked_for_others() {
    let (bytes, digest) = blob(1000, 1);
    let given = bytes.clone();
    let near = Server::start(move |request, _| match request.target.contains("/secret/") {
        true => answer(403, &[], ""),
        false => answer(200, &[], given.clone()),
    })
    .await;
    let src = full(bytes).await;
    let (limiter, any) = (Limiter::default(), Limits::default);
    let end = open_with(&limiter, &src, any());
    let source = mirrored(&end, open_with(&limiter, &near, any()));
    let [secret, open] = ["secret", "open"].map(repository);
    for (name, minutes, of_mirror, of_source) in [
        (&secret, 0, 1, 1),
        (&secret, 1, 1, 2),
        (&open, 0, 2, 2),
        (&secret, 15, 3, 3),
    ] {
        pass(Duration::from_secs(60 * minutes)).await;
        let reader = source.open_blob(name, &digest, 0).await;
        drop(reader.expect("a reader"));
        assert_eq!(
            (near.seen().len(), src.seen().len()),
            (of_mirror, of_source),
            "{name} after {minutes} min"
        );
    }
}

#[tokio::test]
async fn a_mirror_that_may_not_be_asked_yet_is_passed_over_and_asked_later() {
    let (bytes, digest) = blob(1000, 1);
    let (near, src) = (full(bytes.clone()).await, full(bytes).await);
    let limiter = Limiter::default();
    let slow = Limits {
        requests_per_second: Some(0.05),
        ..Limits::default()
    };
    let end = open_with(&limiter, &src, Limits::default());
    let source = mirrored(&end, open_with(&limiter, &near, slow));
    let name = repository("a");
    for (time, of_mirror, of_source) in [(0, 1, 0), (0, 1, 1), (21, 2, 1)] {
        pass(Duration::from_secs(time)).await;
        let reader = source.open_blob(&name, &digest, 0).await;
        drop(reader.expect("a reader"));
        assert_eq!((near.seen().len(), src.seen().len()), (of_mirror, of_source));
    }
}

/// As registries with accounts of their own do whose password is wrong: each request is refused by itself.
#[tokio::test]
async fn a_mirror_that_refuses_everything_is_left_alone_and_found_well_again() {
    let (bytes, digest) = blob(1000, 1);
    let given = bytes.clone();
    let near = Server::start(move |_, number| match number {
        // With the password, and without it where nothing was learnt yet.
        0..6 => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
        _ => answer(200, &[], given.clone()),
    })
    .await;
    let src = full(bytes).await;
    let (limiter, any) = (Limiter::default(), Limits::default);
    let end = open_with(&limiter, &src, any());
    let login = LoginSource::Given(Credentials {
        username: "me".to_owned(),
        password: Secret::new("wrong"),
    });
    let source = mirrored(&end, open_login(&limiter, &near, any(), login));
    for (name, minutes, of_mirror) in [
        ("a/app", 0, 2),
        ("b/app", 0, 3),
        ("c/app", 0, 4),
        ("d/app", 0, 5),
        ("e/app", 0, 6),
        ("f/app", 0, 6),
        ("f/app", 14, 6),
        // Once its time is over, it is read again, and its password is right by now.
        ("f/app", 1, 7),
        ("a/app", 0, 8),
    ] {
        pass(Duration::from_secs(60 * minutes)).await;
        drop(source.open_blob(&repository(name), &digest, 0).await.expect("a reader"));
        assert_eq!(near.seen().len(), of_mirror, "{name} after {minutes} min");
    }
}

/// Where we have no login, those ask for one that we may not see; and a bare 401 is how Harbor tells of a project that is missing.
#[tokio::test]
async fn a_mirror_that_wants_a_login_for_one_repository_is_asked_for_others() {
    for challenge in [&[("www-authenticate", "Basic realm=\"r\"")][..], &[]] {
        let (bytes, digest) = blob(1000, 1);
        let given = bytes.clone();
        let near = Server::start(move |request, _| match request.target.contains("/secret/") {
            true => answer(401, challenge, ""),
            false => answer(200, &[], given.clone()),
        })
        .await;
        let src = full(bytes).await;
        let (limiter, any) = (Limiter::default(), Limits::default);
        let end = open_with(&limiter, &src, any());
        let source = mirrored(&end, open_with(&limiter, &near, any()));
        for (name, of_mirror) in [("secret", 1), ("open", 2), ("secret", 2), ("open", 3)] {
            drop(source.open_blob(&repository(name), &digest, 0).await.expect("a reader"));
            assert_eq!(near.seen().len(), of_mirror, "{name} {challenge:?}");
        }
    }
}

/// What is asked for in part and breaks off at the mirror is not more than that part, whatever the registry sends.
#[tokio::test]
async fn a_part_that_goes_on_at_a_registry_without_ranges_ends_where_it_was_to_end() {
    let bytes = Bytes::from((0..=255).collect::<Vec<u8>>());
    let all = bytes.clone();
    let registry = full(bytes.clone()).await;
    let (breaks, read_so_far) = (Arc::new(tokio::sync::Notify::new()), 30);
    let breaking = Arc::clone(&breaks);
    let mirror = Server::start(move |_, _| {
        let (begun, breaking) = (all.slice(10..10 + read_so_far), Arc::clone(&breaking));
        let broken = async move {
            breaking.notified().await;
            Err(std::io::Error::other("it breaks off"))
        };
        let begun = futures_util::stream::iter([Ok(begun)]);
        let body = Body::from_stream(begun.chain(futures_util::stream::once(broken)));
        answer(206, &[("content-range", "bytes 10-99/256")], body)
    })
    .await;
    let limiter = Limiter::default();
    let end = mirrored(
        &open_with(&limiter, &registry, Limits::default()),
        open_with(&limiter, &mirror, Limits::default()),
    );
    let (name, digest) = (repository("a"), Digest::of(&bytes));
    let reader = end.open_blob_range(&name, &digest, 10..100, Patience::Waits).await;
    let mut reader = reader.expect("opened").expect("asked");
    assert!(reader.mirrored && reader.gives_parts);
    let mut read = Vec::new();
    while let Some(part) = reader.next().await {
        read.extend_from_slice(&part.expect("bytes"));
        if read.len() == read_so_far {
            breaks.notify_one();
        }
    }
    assert_eq!((mirror.seen().len(), registry.seen().len()), (1, 1));
    assert_eq!(read, bytes[10..100]);
}
