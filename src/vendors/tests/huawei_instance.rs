//! Keys of an ECS instance of Huawei Cloud, by a stand-in for what it tells of itself and for the API that they sign for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::huawei::{Surroundings, of};
use super::super::sdk_hmac::{AccessKey, Unsigned, sign};
use super::{end_of, repository, serve, settings_at};
use crate::clock::Clock;
use crate::oci::RepositoryName;
use crate::registry::{CloudSettings, ErrorKind, HuaweiSettings, Result};
use crate::telemetry::Secret;

/// What the instance is like.
#[derive(Clone, Copy, Default)]
struct Like {
    /// Seconds for which its keys are good.
    life: i64,
    /// It knows no tokens.
    old: bool,
    /// What it answers from this question for a key on, in place of one.
    ends_at: Option<(usize, u16)>,
    /// The API takes no first key.
    first_is_refused: bool,
}

const TOKEN: &str = "PUT /meta-data/latest/api/token";
const KEY: &str = "GET /openstack/latest/securitykey";

fn key(number: usize) -> AccessKey {
    AccessKey {
        id: format!("HST{number}"),
        secret: Secret::new(format!("secret-{number}")),
        token: Some(Secret::new(format!("security-token-{number}"))),
    }
}

fn status(status: u16, body: &'static str) -> Response {
    (http::StatusCode::from_u16(status).expect("a status"), body).into_response()
}

/// Whatever is not as documented is 400, at which a test fails.
fn answer(like: Like, seen: &Mutex<Vec<String>>, request: &Request) -> Response {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let what = format!("{} {}", request.method(), request.uri().path());
    let logged = match header("x-security-token") {
        Some(token) => format!("{what} by {token}"),
        None => what.clone(),
    };
    let asked = {
        let mut seen = seen.lock().expect("not poisoned");
        seen.push(logged.clone());
        seen.iter().filter(|before| **before == logged).count()
    };
    let wanted = (!like.old).then_some("metadata-token");
    match what.as_str() {
        TOKEN if like.old => status(404, ""),
        TOKEN if header("x-metadata-token-ttl-seconds").is_none() => status(400, "no life"),
        TOKEN => "metadata-token\n".into_response(),
        KEY if header("x-metadata-token") != wanted || header("authorization").is_some() => status(400, "a token"),
        KEY => match like.ends_at {
            Some((from, 401)) if asked >= from => status(401, "Please configure Cloud Service Agency first"),
            Some((from, other)) if asked >= from => status(other, ""),
            _ => {
                let (key, ends) = (
                    key(asked),
                    Clock::system().now() + jiff::SignedDuration::from_secs(like.life),
                );
                axum::Json(json!({ "credential": {
                    "access": key.id, "secret": key.secret.expose(),
                    "securitytoken": key.token.as_ref().map(Secret::expose),
                    "expires_at": ends.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string(),
                }}))
                .into_response()
            }
        },
        "GET /v2/manage/repos" => listed(like, request),
        _ => status(404, ""),
    }
}

/// The API, which checks the signature by making it.
fn listed(like: Like, request: &Request) -> Response {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    let number = header("x-security-token").rsplit('-').next().unwrap_or_default();
    let key = key(number.parse().unwrap_or_default());
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let query: Vec<(&str, &str)> = query
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let unsigned = Unsigned {
        method: request.method().as_str(),
        host: header("host"),
        path: request.uri().path(),
        query: &query,
        project_id: None,
        body: b"",
    };
    let date = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", header("x-sdk-date")).expect("a date");
    let date = date.to_zoned(jiff::tz::TimeZone::UTC).expect("a date").timestamp();
    let wanted = sign(&unsigned, &key, date).expect("signed");
    if wanted["authorization"] != header("authorization") {
        return status(400, "the signature");
    }
    if like.first_is_refused && number == "1" {
        return (
            http::StatusCode::UNAUTHORIZED,
            axum::Json(json!({ "error_code": "APIGW.0301", "error_msg": "verify aksk signature fail" })),
        )
            .into_response();
    }
    let names = json!([{ "namespace": "team", "name": "web" }]);
    ([("content-range", "0-0/1")], axum::Json(names)).into_response()
}

/// Lists repositories, and once more after so many seconds; with what the stand-in saw.
async fn ask_twice(
    like: Like,
    cloud: CloudSettings,
    seconds: u64,
) -> (Vec<String>, [Result<Option<Vec<RepositoryName>>>; 2]) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let app = axum::Router::new().fallback(move |request: Request| {
        let log = Arc::clone(&log);
        async move { answer(like, &log, &request) }
    });
    let (at, _serving) = serve(app).await;
    let settings = settings_at(&at, cloud);
    let around = Surroundings {
        metadata: Some(format!("http://{}", at.host)),
        ..Surroundings::default()
    };
    let end = end_of(of(&settings, around), settings);
    let below = ["team/".to_owned()];
    let first = end.list_repositories(&below).await;
    tokio::time::advance(Duration::from_secs(seconds)).await;
    let again = end.list_repositories(&below).await;
    let seen = seen.lock().expect("not poisoned").clone();
    (seen, [first, again])
}

fn written() -> CloudSettings {
    CloudSettings::Huawei(HuaweiSettings {
        region: Some("cn-north-4".to_owned()),
        ..HuaweiSettings::default()
    })
}

fn list(number: usize) -> String {
    format!("GET /v2/manage/repos by security-token-{number}")
}

#[tokio::test(start_paused = true)]
async fn huawei_keys_of_an_ecs_instance_are_renewed_before_they_end() {
    let names = Some(vec![repository("team/web")]);
    // Good for ten minutes, and looked for anew in the last five.
    for (old, seconds, is_renewed) in [(false, 200, false), (false, 301, true), (true, 301, true)] {
        let like = Like {
            life: 600,
            old,
            ..Like::default()
        };
        let (seen, all) = ask_twice(like, written(), seconds).await;
        for listed in all {
            assert_eq!(listed.expect("listed"), names);
        }
        let again = match is_renewed {
            true => vec![TOKEN.to_owned(), KEY.to_owned(), list(2)],
            false => vec![list(1)],
        };
        assert_eq!(seen, [vec![TOKEN.to_owned(), KEY.to_owned(), list(1)], again].concat());
    }
    // One that the API does not take any more is got anew at once.
    let like = Like {
        life: 3600,
        first_is_refused: true,
        ..Like::default()
    };
    let (seen, [first, again]) = ask_twice(like, written(), 0).await;
    assert_eq!((first.expect("listed"), again.expect("listed")), (names.clone(), names));
    let wanted = [TOKEN, KEY, &list(1), TOKEN, KEY, &list(2), &list(2)];
    assert_eq!(seen, wanted);
}

#[tokio::test(start_paused = true)]
async fn huawei_instances_without_an_agency_have_no_key_and_those_that_had_one_are_in_trouble() {
    let like = |life, ends_at| Like {
        life,
        ends_at: Some(ends_at),
        ..Like::default()
    };
    // Who knows no tokens and refuses without words of Huawei's is of another cloud.
    for (status, old) in [(401, false), (404, false), (403, true)] {
        let like = Like {
            old,
            ..like(600, (1, status))
        };
        let (seen, all) = ask_twice(like, written(), 200).await;
        let asked: Vec<&String> = seen
            .iter()
            .filter(|what| [TOKEN, KEY].contains(&what.as_str()))
            .collect();
        assert_eq!(asked, [TOKEN, KEY], "{status}: it is not asked again for five minutes");
        assert!(!seen.iter().any(|what| what.contains("/manage/")), "{seen:?}");
        drop(all);
    }
    // Whatever else it answers is no word that there is none, and it is asked again.
    for (status, kind) in [(500, ErrorKind::Server), (429, ErrorKind::Throttled)] {
        let (seen, all) = ask_twice(like(600, (1, status)), written(), 0).await;
        assert_eq!(seen, [TOKEN, KEY, TOKEN, KEY], "{status}");
        for listed in all {
            assert_eq!(listed.err().map(|error| error.kind), Some(kind), "{status}");
        }
    }
    // In trouble when the key is about to end, and when it is over.
    for (seconds, kind) in [(301, None), (601, Some(ErrorKind::Server))] {
        let (_, [first, again]) = ask_twice(like(600, (2, 500)), written(), seconds).await;
        first.expect("listed");
        assert_eq!(again.err().map(|error| error.kind), kind, "{seconds}");
    }
    // Its agency was taken away.
    let (_, [_, again]) = ask_twice(like(600, (2, 401)), written(), 601).await;
    let error = again.expect_err("no agency");
    assert!(
        error.kind == ErrorKind::Config && error.message.contains("no agency"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn huawei_instances_are_not_asked_where_nobody_spoke_of_huawei_or_a_key_is_written() {
    let like = Like {
        life: 600,
        ..Like::default()
    };
    let of_rules = CloudSettings::Huawei(HuaweiSettings {
        region: Some("cn-north-4".to_owned()),
        access_key: Some("HST9".to_owned()),
        secret_key: Some(Secret::new("secret-9")),
        security_token: Some(Secret::new("security-token-9")),
        ..HuaweiSettings::default()
    });
    for (cloud, lists) in [(CloudSettings::None, 0), (of_rules, 2)] {
        let (seen, _) = ask_twice(like, cloud, 0).await;
        assert!(
            !seen.iter().any(|what| [TOKEN, KEY].contains(&what.as_str())),
            "{seen:?}"
        );
        assert_eq!(seen.iter().filter(|what| **what == list(9)).count(), lists, "{seen:?}");
    }
}
