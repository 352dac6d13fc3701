//! Headers of the rules, addresses and times, against scripted servers.

use std::time::Duration;

use super::server::{Server, answer};
use super::*;
use crate::registry::{ErrorKind, ProxySettings, Timeouts};

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn settings(host: &str) -> RemoteSettings {
    RemoteSettings {
        url: RegistryUrl {
            plain_http: true,
            host: host.to_owned(),
            path: String::new(),
        },
        login: LoginSource::Anonymous,
        headers: vec![(http::HeaderName::from_static("x-gateway"), Secret::new("hunter2"))],
        ..RemoteSettings::default()
    }
}

fn end(settings: RemoteSettings) -> Endpoint {
    open_as(
        Arc::new(Generic(Kind::Generic)),
        &Limiter::default(),
        settings,
        Habits::default(),
    )
}

fn repository() -> RepositoryName {
    "team/app".parse().expect("a name")
}

/// The object store is another origin, and so is the way back from it: a redirect must not make us speak for the gateway.
#[tokio::test]
async fn headers_go_to_the_registry_alone() {
    let back = Arc::new(std::sync::OnceLock::<String>::new());
    let to = Arc::clone(&back);
    let store = Server::start(move |seen, _| match seen.target.as_str() {
        "/back" => answer(307, &[("location", to.get().expect("started"))], ""),
        _ => answer(200, &[("content-length", "3")], "abc"),
    })
    .await;
    let away = format!("http://{}", store.host());
    let registry = Server::start(move |seen, before| match seen.target.as_str() {
        "/blob" => answer(200, &[("content-length", "3")], "abc"),
        _ if before == 0 => answer(307, &[("location", &format!("{away}/blob"))], ""),
        _ => answer(307, &[("location", &format!("{away}/back"))], ""),
    })
    .await;
    back.set(format!("http://{}/blob", registry.host())).expect("once");
    let end = end(settings(&registry.host()));
    let digest = DIGEST.parse().expect("a digest");
    for _ in 0..2 {
        let blob = end.open_blob(&repository(), &digest, 0).await;
        blob.expect("a blob");
    }
    let sent = |seen: Vec<server::Seen>| -> Vec<(String, bool)> {
        let line = |seen: &server::Seen| (seen.target.clone(), seen.header("x-gateway") == Some("hunter2"));
        seen.iter().map(line).collect()
    };
    let blob = format!("/v2/team/app/blobs/{DIGEST}");
    let expected = [(blob.clone(), true), (blob, true), ("/blob".to_owned(), false)];
    assert_eq!(sent(registry.seen()), expected);
    assert_eq!(
        sent(store.seen()),
        ["/blob", "/back"].map(|target| (target.to_owned(), false))
    );
}

#[tokio::test]
async fn a_registry_that_repeats_a_header_is_not_quoted() {
    let registry = Server::start(|seen, _| {
        let text = seen.header("x-gateway").unwrap_or_default();
        let body = serde_json::json!({ "errors": [{ "code": "DENIED", "message": format!("not {text}") }] });
        answer(403, &[], body.to_string())
    })
    .await;
    let error = end(settings(&registry.host()))
        .list_tags(&repository())
        .await
        .expect_err("denied");
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn a_host_is_found_where_the_rules_say() {
    let registry = Server::start(|_, _| answer(200, &[], "{}")).await;
    let port = registry.address.port();
    let settings = RemoteSettings {
        resolve: [(
            "registry.invalid".to_owned(),
            "127.0.0.1:0".parse().expect("an address"),
        )]
        .into(),
        ..settings(&format!("registry.invalid:{port}"))
    };
    end(settings).ping().await.expect("reached");
    assert_eq!(
        registry.seen()[0].header("host"),
        Some(&*format!("registry.invalid:{port}"))
    );
}

#[tokio::test]
async fn who_does_not_answer_is_waited_for_as_long_as_the_rules_say() {
    // Its backlog takes connections, and nobody is there.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let settings = RemoteSettings {
        timeouts: Timeouts {
            connect: None,
            answer: Some(Duration::from_millis(20)),
        },
        ..settings(&host)
    };
    let error = end(settings).ping().await.expect_err("nobody");
    assert_eq!(error.kind, ErrorKind::Network);
    assert!(error.message.contains("did not answer in time"), "{error}");
}

/// What a proxy answers itself to a request that is not https.
#[tokio::test]
async fn a_proxy_that_wants_a_login_is_told_as_one() {
    let proxy = Server::start(|seen, _| {
        assert!(seen.header("proxy-authorization").is_none());
        answer(407, &[("proxy-authenticate", "Basic realm=\"p\"")], "who?")
    })
    .await;
    let settings = RemoteSettings {
        proxy: ProxySettings::Through {
            url: format!("http://{}", proxy.host()).parse().expect("a URL"),
            login: None,
        },
        ..settings("registry.invalid")
    };
    let error = end(settings).ping().await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Config);
    assert!(error.message.contains("proxy: { url, username, password }"), "{error}");
}
