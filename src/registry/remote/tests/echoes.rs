//! APIs that repeat what they were sent, want what they should not have, or have no end.

use super::server::{Server, answer};
use super::*;
use crate::registry::{Api, ApiCall, ApiLogin, ApiPages, ErrorKind, Operation};

async fn api(said: &'static str) -> (Server, Api) {
    let server = Server::start(move |_, _| answer(403, &[], format!(r#"{{"message":"{said}"}}"#))).await;
    let api = api_at(&server, "u");
    (server, api)
}

fn api_at(server: &Server, user: &str) -> Api {
    let settings = RemoteSettings {
        url: RegistryUrl {
            plain_http: true,
            host: server.host(),
            path: String::new(),
        },
        login: LoginSource::Given(Credentials {
            username: user.into(),
            password: Secret::new("hunter2"),
        }),
        headers: vec![(http::HeaderName::from_static("x-gateway"), Secret::new("open-sesame"))],
        ..RemoteSettings::default()
    };
    let vendor = Arc::new(Generic(Kind::Generic));
    let end = open_as(vendor, &Limiter::default(), settings, Habits::default());
    let Endpoint::Registry(registry) = end else {
        panic!("no registry");
    };
    registry.api()
}

#[tokio::test]
async fn an_api_that_repeats_a_secret_is_not_quoted() {
    for (said, quoted) in [
        ("no team/app for u", true),
        ("no hunter2", false),
        ("no dTpodW50ZXIy", false),
        ("no open-sesame", false),
        ("no posted-secret", false),
        ("no session-token", false),
        ("no 1234", true),
    ] {
        let (_server, api) = api(said).await;
        let body = r#"{"name":"team/app","password":"posted-secret","page":"1234"}"#;
        let url = api.own("/api/x").expect("an address");
        let mut call = ApiCall::post(Operation::CreateRepository, api.place(None), url, body);
        call.login = ApiLogin::Basic;
        call.headers
            .insert("x-security-token", http::HeaderValue::from_static("session-token"));
        let answer = api.call(call).await.expect("an answer");
        // As vendors quote it.
        let error = answer.refused(said);
        assert_eq!(error.message.contains(said), quoted, "{error}");
        assert!(error.message.contains("answered 403"), "{error}");
        assert_eq!(answer.told(Some(said.to_owned())).is_some(), quoted, "{said}");
    }
}

#[tokio::test]
async fn an_identity_token_is_sent_to_no_api() {
    let server = Server::start(|_, _| answer(200, &[], "")).await;
    for (user, sent) in [("<token>", false), ("u", true)] {
        let api = api_at(&server, user);
        let mut call = ApiCall::get(
            Operation::ListTags,
            api.place(None),
            api.own("/api/x").expect("an address"),
        );
        call.login = ApiLogin::Basic;
        api.call(call).await.expect("an answer");
        let seen = server.seen();
        let last = seen.last().expect("a request");
        assert_eq!(last.header("authorization").is_some(), sent, "{user}");
    }
}

#[tokio::test]
async fn lists_of_an_api_end_where_a_link_leads_elsewhere_or_they_grow_too_long() {
    let page = "x".repeat(8 * 1024 * 1024 - 1);
    let server = Server::start(move |seen, number| match seen.target.as_str() {
        "/elsewhere" => answer(200, &[("link", "<http://other.example/2>; rel=\"next\"")], "[]"),
        _ => answer(
            200,
            &[("link", &format!("</long/{number}>; rel=\"next\""))],
            page.clone(),
        ),
    })
    .await;
    let api = api_at(&server, "u");
    for (path, pages, said) in [
        ("/elsewhere", 1, "the link to the next page leads to other.example"),
        ("/long/first", 9, "the list has more than 64 MiB"),
    ] {
        let mut list = ApiPages::new(Operation::ListTags, api.place(None));
        let mut next = api.own(path).map(Some);
        let mut read = 0;
        while let Ok(Some(url)) = next {
            let answer = api.call(ApiCall::get(Operation::ListTags, api.place(None), url)).await;
            next = list.next(&answer.expect("a page"));
            read += 1;
        }
        let error = next.expect_err("given up");
        assert_eq!((error.kind, read), (ErrorKind::Invalid, pages), "{error}");
        assert!(error.message.contains(said), "{error}");
    }
}
