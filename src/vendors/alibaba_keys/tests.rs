//! Keys of an ECS instance, by a stand-in for what it tells of itself.

use std::sync::{Arc, Mutex};

use axum::response::IntoResponse;
use serde_json::json;

use super::super::alibaba::Account;
use super::super::alibaba_enterprise::Enterprise;
use super::super::tests::{end_of, serve, settings_at};
use super::*;
use crate::clock::Clock;
use crate::oci::RepositoryName;
use crate::registry::CloudSettings;

/// What an ECS instance tells of itself, and the API of a registry beside it.
#[derive(Clone, Default)]
struct Instance {
    seen: Arc<Mutex<Vec<String>>>,
    /// Seconds for which its keys are good.
    life: i64,
    /// It knows no tokens, as those of old.
    old: bool,
    /// It has no role from this question on; 0: it has one.
    bare_from: usize,
}

async fn answer(instance: Instance, request: axum::extract::Request) -> axum::response::Response {
    let target = request.uri().path().to_owned();
    let header = |name: &str| {
        let value = request.headers().get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let what = match target.strip_prefix("/latest/") {
        Some(path) => format!("{} {path}", request.method()),
        None => format!("{} by {}", header("x-acs-action"), header("x-acs-accesskey-id")),
    };
    let asked = {
        let mut seen = instance.seen.lock().expect("not poisoned");
        seen.push(what.clone());
        seen.iter().filter(|before| **before == what).count()
    };
    let bare = instance.bare_from > 0 && asked >= instance.bare_from;
    let token = if instance.old { "" } else { "the-token" };
    let refused = || http::StatusCode::FORBIDDEN.into_response();
    match target.as_str() {
        "/latest/api/token" if instance.old => http::StatusCode::NOT_FOUND.into_response(),
        "/latest/api/token" if header("x-aliyun-ecs-metadata-token-ttl-seconds").is_empty() => refused(),
        "/latest/api/token" => token.into_response(),
        path if path.starts_with("/latest/") && header("x-aliyun-ecs-metadata-token") != token => refused(),
        "/latest/meta-data/ram/security-credentials/" if bare => http::StatusCode::NOT_FOUND.into_response(),
        "/latest/meta-data/ram/security-credentials/" => "replicator\n".into_response(),
        "/latest/meta-data/ram/security-credentials/replicator" => {
            let ends = Clock::system().now() + jiff::SignedDuration::from_secs(instance.life);
            axum::Json(json!({
                "AccessKeyId": "STS.ecs", "AccessKeySecret": "s", "SecurityToken": "t", "Code": "Success",
                "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            }))
            .into_response()
        }
        "/" if header("x-acs-security-token") != "t" => refused(),
        "/" => axum::Json(json!({ "IsSuccess": true, "Repositories": [], "TotalCount": "0" })).into_response(),
        _ => http::StatusCode::NOT_FOUND.into_response(),
    }
}

/// Lists repositories twice by the key of the instance; what it saw.
async fn ask_twice(
    instance: Instance,
    settings: AlibabaSettings,
    written: bool,
) -> (Vec<String>, [Result<Option<Vec<RepositoryName>>>; 2]) {
    let serving = instance.clone();
    let app = axum::Router::new().fallback(move |request| answer(serving.clone(), request));
    let (at, _serving) = serve(app).await;
    let cloud = match written {
        true => CloudSettings::Alibaba(AlibabaSettings {
            instance_id: Some("cri-test".to_owned()),
            region: Some("cn-test".to_owned()),
            ..settings
        }),
        false => CloudSettings::None,
    };
    let remote = settings_at(&at, cloud);
    let around = Surroundings {
        metadata: Some(format!("http://{}", at.host)),
        ..Surroundings::default()
    };
    let vendor = Arc::new(Enterprise::new(Account::new(&remote, around)));
    let end = end_of(vendor, remote);
    let below = ["corp/".to_owned()];
    let first = end.list_repositories(&below).await;
    let again = end.list_repositories(&below).await;
    let seen = instance.seen.lock().expect("not poisoned").clone();
    (seen, [first, again])
}

#[tokio::test]
async fn alibaba_keys_of_an_ecs_instance_are_renewed_before_they_end() {
    let folder = "GET meta-data/ram/security-credentials/";
    let role = "GET meta-data/ram/security-credentials/replicator";
    let list = "ListRepository by STS.ecs";
    let instance = |life, old| Instance {
        life,
        old,
        ..Instance::default()
    };
    let (seen, all) = ask_twice(instance(3600, false), AlibabaSettings::default(), true).await;
    assert!(all.iter().all(|listed| matches!(listed, Ok(Some(_)))), "{all:?}");
    assert_eq!(seen, ["PUT api/token", folder, role, list, list]);

    // Named in the rules, of an instance of old, with a key that has ended already.
    let named = AlibabaSettings {
        ram_role: Some("replicator".to_owned()),
        ..AlibabaSettings::default()
    };
    let (seen, all) = ask_twice(instance(-10, true), named, true).await;
    assert!(all.iter().all(|listed| matches!(listed, Ok(Some(_)))), "{all:?}");
    assert_eq!(
        seen.iter().filter(|what| *what == role).count(),
        seen.iter().filter(|what| *what == "PUT api/token").count()
    );
    assert!(seen.iter().filter(|what| *what == role).count() > 1 && !seen.contains(&folder.to_owned()));

    // Without a role there is no key, which is asked once.
    let mut bare = instance(3600, false);
    bare.bare_from = 1;
    let (seen, _) = ask_twice(bare, AlibabaSettings::default(), true).await;
    let metadata: Vec<&String> = seen.iter().filter(|what| !what.contains(" by ")).collect();
    assert_eq!(metadata, ["PUT api/token", folder], "{seen:?}");

    // What had a key, which has ended, is not without one all at once.
    let mut away = instance(-10, false);
    away.bare_from = 2;
    let (_, [listed, _]) = ask_twice(away, AlibabaSettings::default(), true).await;
    assert_eq!(listed.expect_err("away").kind, ErrorKind::Network);

    // Nobody spoke of Alibaba's ways: nothing is asked.
    let (seen, _) = ask_twice(instance(3600, false), AlibabaSettings::default(), false).await;
    let asked = |what: &String| what.contains("meta-data") || what.contains("ListRepository");
    assert!(!seen.iter().any(asked), "{seen:?}");
}
