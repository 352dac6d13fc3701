//! Mirrors that are well, while our own requests wait for one another.

use std::time::Duration;

use super::server::{Server, answer};
use super::*;

/// One that has every blob.
async fn full(bytes: Bytes) -> Server {
    Server::start(move |_, _| answer(200, &[], bytes.clone())).await
}

fn open_with(limiter: &Limiter, server: &Server, limits: Limits) -> Endpoint {
    let settings = RemoteSettings {
        url: RegistryUrl {
            plain_http: true,
            host: server.host(),
            path: String::new(),
        },
        login: LoginSource::Anonymous,
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
