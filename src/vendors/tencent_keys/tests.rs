//! Keys of a CVM instance, by a stand-in for what it tells of itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::IntoResponse;
use serde_json::json;

use super::super::tencent::Account;
use super::super::tencent_enterprise::Enterprise;
use super::super::tests::{end_of, serve, settings_at};
use super::*;
use crate::clock::Clock;
use crate::oci::RepositoryName;
use crate::registry::CloudSettings;

/// What a CVM instance tells of itself, and the API of a registry beside it.
#[derive(Clone, Default)]
struct Instance {
    seen: Arc<Mutex<Vec<String>>>,
    /// Seconds for which its keys are good.
    life: i64,
    /// From this question on it answers that it is in trouble; 0: never.
    away_from: usize,
}

const ROLE: &str = "GET replicator/of the registry";

async fn answer(instance: Instance, request: axum::extract::Request) -> axum::response::Response {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let folder = "/latest/meta-data/cam/security-credentials/";
    let what = match request.uri().path().strip_prefix(folder) {
        Some(role) => format!("{} {}", request.method(), role.replace("%2F", "/").replace("%20", " ")),
        None => format!("{} by {}", header("x-tc-action"), header("x-tc-token")),
    };
    let asked = {
        let mut seen = instance.seen.lock().expect("not poisoned");
        seen.push(what.clone());
        seen.iter().filter(|before| **before == what).count()
    };
    match what.as_str() {
        ROLE if instance.away_from > 0 && asked >= instance.away_from => {
            http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        ROLE => axum::Json(json!({
            "TmpSecretId": "AKIDtmp", "TmpSecretKey": "s", "Token": format!("t{asked}"), "Code": "Success",
            "ExpiredTime": Clock::system().now().as_second() + instance.life, "Expiration": "2026-01-01T00:00:00Z",
        }))
        .into_response(),
        _ if what.starts_with("DescribeRepositories by t") => {
            axum::Json(json!({ "Response": { "RepositoryList": [], "TotalCount": 0, "RequestId": "1" } }))
                .into_response()
        }
        _ => axum::Json(json!({ "Code": "Failed" })).into_response(),
    }
}

/// Lists repositories by the key of the instance, and once more after so many seconds; what it saw.
async fn ask_twice(
    instance: Instance,
    role: &str,
    seconds: u64,
) -> (Vec<String>, [Result<Option<Vec<RepositoryName>>>; 2]) {
    let serving = instance.clone();
    let app = axum::Router::new().fallback(move |request| answer(serving.clone(), request));
    let (at, _serving) = serve(app).await;
    let cloud = CloudSettings::Tencent(TencentSettings {
        registry_id: Some("tcr-test".to_owned()),
        region: Some("ap-test".to_owned()),
        cvm_role: Some(role.to_owned()),
        ..TencentSettings::default()
    });
    let remote = settings_at(&at, cloud);
    // What the environment has is not meant where the rules name a role.
    let around = Surroundings {
        secret_id: Some("AKIDenv".to_owned()),
        secret_key: Some(Secret::new("env")),
        metadata: Some(format!("http://{}", at.host)),
        ..Surroundings::default()
    };
    let vendor = Arc::new(Enterprise::new(Account::new(&remote, around)));
    let end = end_of(vendor, remote);
    let below = ["corp/".to_owned()];
    let first = end.list_repositories(&below).await;
    tokio::time::advance(Duration::from_secs(seconds)).await;
    let again = end.list_repositories(&below).await;
    let seen = instance.seen.lock().expect("not poisoned").clone();
    (seen, [first, again])
}

#[tokio::test(start_paused = true)]
async fn tencent_keys_of_a_cvm_instance_are_renewed_before_they_end() {
    let role = "replicator/of the registry";
    let instance = |life, away_from| Instance {
        life,
        away_from,
        ..Instance::default()
    };
    let lists = |number: u32| format!("DescribeRepositories by t{number}");
    // Good for ten minutes, and looked for anew in the last five.
    for (seconds, is_renewed) in [(200, false), (301, true)] {
        let (seen, all) = ask_twice(instance(600, 0), role, seconds).await;
        assert!(all.iter().all(|listed| matches!(listed, Ok(Some(_)))), "{all:?}");
        let again = match is_renewed {
            true => vec![ROLE.to_owned(), lists(2)],
            false => vec![lists(1)],
        };
        assert_eq!(seen, [vec![ROLE.to_owned(), lists(1)], again].concat());
    }

    // The instance is in trouble when the key is about to end, and when it is over.
    for (seconds, is_over) in [(301, false), (601, true)] {
        let (seen, [first, again]) = ask_twice(instance(600, 2), role, seconds).await;
        assert!(matches!(first, Ok(Some(_))), "{first:?}");
        match is_over {
            true => assert_eq!(again.expect_err("away").kind, ErrorKind::Server),
            false => assert_eq!((again.is_ok(), seen.last()), (true, Some(&lists(1)))),
        }
    }

    // It has no such role.
    let (_, [listed, _]) = ask_twice(instance(600, 0), "other", 0).await;
    let error = listed.expect_err("no key");
    assert!(
        error.kind == ErrorKind::Config && error.message.contains("tencent.cvm_role"),
        "{error}"
    );
}
