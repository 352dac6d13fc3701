//! APIs that repeat what they were sent.

use super::server::{Server, answer};
use super::*;
use crate::registry::{Api, ApiCall, ApiLogin, Operation};

async fn api(said: &'static str) -> (Server, Api) {
    let server = Server::start(move |_, _| answer(403, &[], format!(r#"{{"message":"{said}"}}"#))).await;
    let settings = RemoteSettings {
        url: RegistryUrl {
            plain_http: true,
            host: server.host(),
            path: String::new(),
        },
        login: LoginSource::Given(Credentials {
            username: "u".into(),
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
    (server, registry.api())
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
    }
}
