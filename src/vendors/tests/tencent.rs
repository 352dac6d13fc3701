use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::super::tencent::{Surroundings, enterprise, personal};
use super::{Stage, answer, end_of, nothing, repository, with_headers};
use crate::registry::{CloudSettings, Endpoint, ErrorKind, TencentSettings};
use crate::telemetry::Secret;

const BEGIN: &str = "POST /v2/corp/web/blobs/uploads/";

fn is_personal(settings: &TencentSettings) -> bool {
    settings.registry_id.is_none()
}

fn end(stage: &Stage, settings: TencentSettings) -> Endpoint {
    let is_personal = is_personal(&settings);
    let settings = stage.settings(CloudSettings::Tencent(TencentSettings {
        secret_id: Some("AKID".to_owned()),
        secret_key: Some(Secret::new("a-key-that-nobody-may-read")),
        ..settings
    }));
    let vendor = match is_personal {
        true => personal(&settings, Surroundings::default()),
        false => enterprise(&settings, Surroundings::default()),
    };
    end_of(Arc::clone(&vendor), settings)
}

fn of_personal() -> TencentSettings {
    TencentSettings {
        region: Some("ap-test".to_owned()),
        ..TencentSettings::default()
    }
}

fn of_enterprise() -> TencentSettings {
    TencentSettings {
        registry_id: Some("tcr-test".to_owned()),
        ..of_personal()
    }
}

fn said(value: &Value) -> Response<Body> {
    answer(200, &json!({ "Response": value }))
}

fn refused(code: &str) -> Response<Body> {
    said(&json!({ "Error": { "Code": code, "Message": "so it is" }, "RequestId": "1" }))
}

fn empty_list() -> Response<Body> {
    said(&json!({ "RepositoryList": [], "TotalCount": 0, "RequestId": "1" }))
}

#[tokio::test]
async fn tencent_lists_that_fail_are_no_namespaces_that_are_missing() {
    for (settings, code, is_missing) in [
        (of_enterprise(), "ResourceNotFound.TcrResourceNotFound", true),
        (of_enterprise(), "ResourceNotFound", false),
        (of_enterprise(), "InternalError.ErrNotExist", false),
        (of_personal(), "ResourceNotFound.ErrNoNamespace", true),
        (of_personal(), "ResourceNotFound.ErrNoUser", false),
        (of_personal(), "", false),
    ] {
        let stage = Stage::open(move |what, _| match (what, code) {
            ("GET /v2/_catalog", _) => nothing(),
            (_, "") => with_headers(404, &[], "404 page not found"),
            _ => refused(code),
        })
        .await;
        let listed = end(&stage, settings).list_repositories(&["corp/".to_owned()]).await;
        match is_missing {
            true => assert_eq!(listed.expect(code), Some(Vec::new())),
            false => _ = listed.expect_err(code),
        }
    }
}

#[tokio::test]
async fn tencent_instances_that_are_not_there_are_nothing_that_the_registry_lacks() {
    let stage = Stage::open(|what, _| match what {
        "DescribeInstances" => said(&json!({ "Registries": [], "TotalCount": 0, "RequestId": "1" })),
        _ => with_headers(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
    })
    .await;
    let settings = TencentSettings {
        region: None,
        ..of_enterprise()
    };
    let end = end(&stage, settings);
    let begun = end.begin_write(&repository("corp/web")).await.expect_err("no login");
    let listed = end
        .list_digests(&repository("corp/web"))
        .await
        .expect_err("no instance");
    for error in [begun, listed] {
        assert_eq!(error.kind, ErrorKind::Config, "{error}");
        assert!(error.message.contains("tencent.registry_id"), "{error}");
    }
}

/// A push to what is not there, where the namespace was made by another at the same time, or by a request of ours whose answer
/// was lost.
#[tokio::test]
async fn tencent_namespaces_that_are_there_all_at_once_do_not_keep_repositories_from_being_made() {
    for settings in [of_enterprise(), of_personal()] {
        let stage = Stage::open(|what, before| match (what, before) {
            (BEGIN, 0) => nothing(),
            (BEGIN, _) => with_headers(202, &[("location", "/v2/upload")], ""),
            ("CreateRepository" | "CreateRepositoryPersonal", 0) => {
                refused("InvalidParameter.ErrorTcrInvalidParameter")
            }
            ("CreateNamespace" | "CreateNamespacePersonal", _) => refused("InvalidParameter.ErrNamespaceExist"),
            _ => said(&json!({ "RequestId": "1" })),
        })
        .await;
        let begun = end(&stage, settings).begin_write(&repository("corp/web")).await;
        assert!(begun.is_ok(), "{:?}", begun.err());
    }
}

#[tokio::test]
async fn tencent_repositories_are_not_made_by_what_is_no_answer_of_the_api() {
    let stage = Stage::open(|what, _| match what {
        BEGIN => nothing(),
        _ => with_headers(200, &[], "<html>"),
    })
    .await;
    let begun = end(&stage, of_enterprise()).begin_write(&repository("corp/web")).await;
    let error = begun.expect_err("a page");
    assert!(
        error.kind == ErrorKind::Invalid && error.message.contains("is not what its documents say"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn tencent_requests_that_waited_for_their_turn_are_signed_anew() {
    for (waits, outcome) in [(true, None), (false, Some(ErrorKind::Config))] {
        let stage = Stage::open(move |_, before| match (waits, before) {
            (true, 0) => with_headers(503, &[("retry-after", "250")], ""),
            (true, 1) | (false, 0) => refused("AuthFailure.SignatureExpire"),
            _ => empty_list(),
        })
        .await;
        let listed = end(&stage, of_enterprise())
            .list_repositories(&["corp/".to_owned()])
            .await;
        assert_eq!(listed.err().map(|error| error.kind), outcome);
    }
}

#[tokio::test(start_paused = true)]
async fn tencent_trouble_that_is_told_with_status_200_is_asked_again() {
    for (troubles, outcome) in [(3, None), (9, Some(ErrorKind::Server))] {
        let stage = Stage::open(move |_, before| match before < troubles {
            true => refused("InternalError.DbError"),
            false => empty_list(),
        })
        .await;
        let listed = end(&stage, of_enterprise())
            .list_repositories(&["corp/".to_owned()])
            .await;
        assert_eq!(listed.err().map(|error| error.kind), outcome);
        assert_eq!(stage.count("DescribeRepositories"), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn tencent_instances_that_cannot_be_found_are_looked_for_once_by_all_who_wait() {
    let stage = Stage::open(|_, before| match before {
        0..4 => with_headers(500, &[], ""),
        _ => said(&json!({ "Registries": [{ "RegistryId": "tcr-test", "RegionName": "ap-test" }], "RequestId": "1" })),
    })
    .await;
    let settings = TencentSettings {
        region: None,
        ..of_enterprise()
    };
    let end = end(&stage, settings);
    let below = ["corp/".to_owned()];
    let listed = join_all((0..4).map(|_| end.list_repositories(&below))).await;
    assert!(listed.iter().all(Result::is_err), "{listed:?}");
    assert_eq!(stage.count("DescribeInstances"), 4, "the attempts of one");
}

#[tokio::test]
async fn tencent_refusals_that_repeat_a_secret_are_not_told() {
    let stage = Stage::open(|what, _| match what {
        "GET /v2/_catalog" => nothing(),
        // With 200, as all of them.
        _ => said(&json!({ "Error": {
            "Code": "InvalidParameter.session-token", "Message": "no session-token",
        }, "RequestId": "1" })),
    })
    .await;
    let settings = TencentSettings {
        token: Some(Secret::new("session-token")),
        ..of_enterprise()
    };
    let error = end(&stage, settings).list_repositories(&["corp/".to_owned()]).await;
    let error = error.expect_err("refused");
    assert!(
        error.code.is_none() && !error.message.contains("session-token"),
        "{error}"
    );
}

#[tokio::test]
async fn tencent_lists_that_change_all_the_while_fail_for_a_while() {
    let stage = Stage::open(|_, before| {
        said(&json!({ "RepositoryList": [{ "Name": format!("corp/n{before}") }], "TotalCount": 5 + before, "RequestId": "1" }))
    })
    .await;
    let listed = end(&stage, of_enterprise())
        .list_repositories(&["corp/".to_owned()])
        .await;
    let error = listed.expect_err("restless");
    assert!(
        error.kind == ErrorKind::Server && error.message.contains("changed while it was read"),
        "{error}"
    );
}
