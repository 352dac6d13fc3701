//! Huawei Cloud's API where it fails, or is not what answers.

use serde_json::json;

use super::super::huawei::{Surroundings, of};
use super::{Stage, answer, end_of, nothing, repository, with_headers};
use crate::registry::{BulkListing, CloudSettings, Endpoint, ErrorKind, HuaweiSettings};
use crate::telemetry::Secret;

const REPOSITORIES: &str = "GET /v2/manage/repos";
const TAGS: &str = "GET /v2/manage/namespaces/team/repos/app/tags";

fn end(stage: &Stage) -> Endpoint {
    let settings = stage.settings(CloudSettings::Huawei(HuaweiSettings {
        region: Some("cn-north-4".to_owned()),
        access_key: Some("AK".to_owned()),
        secret_key: Some(Secret::new("SK")),
        ..HuaweiSettings::default()
    }));
    end_of(of(&settings, Surroundings::default()), settings)
}

#[tokio::test(start_paused = true)]
async fn huawei_requests_that_waited_for_their_turn_are_signed_anew() {
    for (waits, asked) in [(3, 5), (0, 1)] {
        let stage = Stage::open(move |what, before| match what {
            REPOSITORIES if before < waits => with_headers(503, &[("retry-after", "290")], ""),
            REPOSITORIES if before == waits => {
                let message = "Incorrect IAM authentication information: calc ak sk signature fail:signature expired";
                answer(401, &json!({ "error_code": "APIGW.0301", "error_msg": message }))
            }
            REPOSITORIES => with_headers(
                200,
                &[("content-range", "0-1/1")],
                r#"[{ "namespace": "team", "name": "web$app" }]"#,
            ),
            _ => nothing(),
        })
        .await;
        let listed = end(&stage).list_repositories(&["team/".to_owned()]).await;
        match waits {
            0 => {
                let error = listed.expect_err("refused");
                assert_eq!(
                    (error.kind, error.code.as_deref()),
                    (ErrorKind::Unauthorized, Some("APIGW.0301"))
                );
                assert!(error.message.contains("the clock of this machine"), "{error}");
            }
            _ => assert_eq!(listed.expect("listed"), Some(vec![repository("team/web/app")])),
        }
        assert_eq!(stage.count(REPOSITORIES), asked);
    }
}

/// Fewer than were asked for are not the last where nobody says how many there are.
#[tokio::test]
async fn huawei_regions_that_cut_pages_and_do_not_count_are_read_to_the_end() {
    let stage = Stage::open(|what, before| match (what, before) {
        // Pages of two; the last and the first are looked at again.
        (REPOSITORIES, 0 | 3) => answer(
            200,
            &json!([{ "namespace": "team", "name": "a" }, { "namespace": "team", "name": "b" }]),
        ),
        (REPOSITORIES, 1 | 2) => answer(200, &json!([{ "namespace": "team", "name": "c" }])),
        _ => nothing(),
    })
    .await;
    let listed = end(&stage).list_repositories(&["team/".to_owned()]).await;
    let names = ["team/a", "team/b", "team/c"].map(repository);
    assert_eq!(listed.expect("listed"), Some(names.to_vec()));
}

/// The gateway before the API has its own words, in which no organisation is missing.
#[tokio::test]
async fn huawei_gateways_that_lack_the_api_do_not_make_the_list_empty() {
    let stage = Stage::open(|what, _| match what {
        REPOSITORIES => answer(
            404,
            &json!({ "error_code": "APIGW.0101", "error_msg": "The API does not exist or has not been published in the environment" }),
        ),
        _ => nothing(),
    })
    .await;
    let error = end(&stage)
        .list_repositories(&["team/".to_owned()])
        .await
        .expect_err("nothing is known");
    assert_eq!(
        (error.kind, error.code.as_deref()),
        (ErrorKind::Server, Some("APIGW.0101"))
    );
}

#[tokio::test]
async fn huawei_names_of_one_part_make_no_organisation() {
    let stage = Stage::open(|_, _| nothing()).await;
    let end = end(&stage);
    let error = end
        .begin_write(&repository("nginx"))
        .await
        .expect_err("no organisation");
    assert_eq!(error.kind, ErrorKind::Config);
    assert!(error.message.contains("to: organisation/{path}"), "{error}");
    assert_eq!(stage.count("POST /dockyard/v2/namespaces"), 0);
}

/// A repository is missing only where the API says so in its words, and the registry too.
#[tokio::test]
async fn huawei_addresses_without_the_api_are_trouble_and_no_word_of_repositories() {
    let stage = Stage::open(|what, _| match what {
        TAGS => with_headers(404, &[], "<html>"),
        "GET /v2/team/app/tags/list" => answer(200, &json!({ "name": "team/app", "tags": ["v1"] })),
        _ => nothing(),
    })
    .await;
    let end = end(&stage);
    let error = end.may_list_digests(&repository("team/app")).await;
    assert_eq!(error.expect_err("no API").kind, ErrorKind::Server);
    let listed = end.list_digests(&repository("team/app")).await.expect("its names");
    let BulkListing::Known { tags, .. } = listed else {
        panic!("{listed:?}");
    };
    assert_eq!((tags.len(), &tags[0].digest), (1, &None));
    // For a while alone: nobody has refused anything.
    assert_eq!(end.take_refusals(), []);
    assert_eq!(stage.count("GET /v2/team/app/tags/list"), 1);
}
