use axum::body::Body;
use axum::response::Response;
use serde_json::json;

use super::super::alibaba::{Surroundings, enterprise, personal};
use super::{Stage, answer, end_of, nothing, repository, with_headers};
use crate::registry::{AlibabaSettings, CloudSettings, Endpoint, ErrorKind};
use crate::telemetry::Secret;

const BEGIN: &str = "POST /v2/corp/web/blobs/uploads/";

fn end(stage: &Stage, is_personal: bool, instance_id: Option<&str>) -> Endpoint {
    let settings = stage.settings(CloudSettings::Alibaba(AlibabaSettings {
        instance_id: instance_id.map(str::to_owned),
        access_key_id: Some("LTAI".to_owned()),
        access_key_secret: Some(Secret::new("a-key-that-nobody-may-read")),
        ..AlibabaSettings::default()
    }));
    let vendor = match is_personal {
        true => personal(&settings, Surroundings::default()),
        false => enterprise(&settings, Surroundings::default()),
    };
    end_of(vendor, settings)
}

fn refused(code: &str) -> Response<Body> {
    answer(400, &json!({ "Code": code, "Message": "so it is", "IsSuccess": false }))
}

fn empty_list() -> Response<Body> {
    answer(
        200,
        &json!({ "IsSuccess": true, "Repositories": [], "TotalCount": "0" }),
    )
}

#[tokio::test]
async fn alibaba_namespaces_that_are_there_all_at_once_do_not_keep_repositories_from_being_made() {
    for is_personal in [false, true] {
        let stage = Stage::open(|what, before| match (what, before) {
            (BEGIN, 0) => nothing(),
            (BEGIN, _) => with_headers(202, &[("location", "/v2/upload")], ""),
            ("CreateRepository" | "CreateRepo", 0) => refused("INVALID_PARAMETER"),
            ("CreateNamespace", _) => refused("NAMESPACE_ALREADY_EXIST"),
            _ => answer(200, &json!({ "IsSuccess": true })),
        })
        .await;
        let begun = end(&stage, is_personal, Some("cri-test"))
            .begin_write(&repository("corp/web"))
            .await;
        assert!(begun.is_ok(), "{:?}", begun.err());
    }
}

#[tokio::test]
async fn alibaba_repositories_are_not_made_by_what_is_no_answer_of_the_api() {
    let stage = Stage::open(|what, _| match what {
        BEGIN => nothing(),
        _ => with_headers(200, &[], "<html>"),
    })
    .await;
    let begun = end(&stage, true, None).begin_write(&repository("corp/web")).await;
    let error = begun.expect_err("a page");
    assert!(
        error.kind == ErrorKind::Invalid && error.message.contains("is not what its documents say"),
        "{error}"
    );
}

#[tokio::test]
async fn alibaba_instances_that_a_challenge_did_not_name_are_found_in_a_later_one() {
    let stage = Stage::open(|what, before| match (what, before) {
        ("GET /v2/", 0) => with_headers(401, &[("www-authenticate", "Basic realm=\"a wall\"")], ""),
        ("GET /v2/", _) => {
            let challenge =
                r#"Bearer realm="http://r.example/auth",service="registry.aliyuncs.com:cn-test:china:cri-test""#;
            with_headers(401, &[("www-authenticate", challenge)], "")
        }
        _ => empty_list(),
    })
    .await;
    let (end, below) = (end(&stage, false, None), ["corp/".to_owned()]);
    let error = end.list_repositories(&below).await.expect_err("not known");
    assert_eq!(error.kind, ErrorKind::Config, "{error}");
    assert_eq!(end.list_repositories(&below).await.expect("known"), Some(Vec::new()));
    end.list_repositories(&below).await.expect("known");
    assert_eq!(stage.count("GET /v2/"), 2);
}

#[tokio::test(start_paused = true)]
async fn alibaba_requests_that_waited_for_their_turn_are_signed_anew() {
    for (waits, outcome) in [(true, None), (false, Some(ErrorKind::Config))] {
        let stage = Stage::open(move |_, before| match (waits, before) {
            (true, 0..3) => with_headers(503, &[("retry-after", "290")], ""),
            (true, 3) | (false, 0) => refused("InvalidTimeStamp.Expired"),
            _ => empty_list(),
        })
        .await;
        let listed = end(&stage, false, Some("cri-test"))
            .list_repositories(&["corp/".to_owned()])
            .await;
        let failed = listed.as_ref().err().map(|error| error.kind);
        assert_eq!(failed, outcome, "{listed:?}");
    }
}
