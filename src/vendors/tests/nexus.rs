//! Nexus's search where it has no end.

use serde_json::json;

use super::{Stage, answer, end_of, nothing, repository};
use crate::registry::{CloudSettings, ErrorKind, Kind, RemoteSettings};

#[tokio::test]
async fn nexus_searches_end_by_their_size() {
    const SEARCH: &str = "GET /service/rest/v1/search";
    let stage = Stage::open(|what, before| match what {
        SEARCH => answer(
            200,
            &json!({ "items": [], "continuationToken": format!("t{before}"), "more": " ".repeat(7 << 20) }),
        ),
        _ => nothing(),
    })
    .await;
    let settings = RemoteSettings {
        kind: Some(Kind::Nexus),
        nexus_search: Some("docker-hosted".to_owned()),
        ..stage.settings(CloudSettings::None)
    };
    let end = end_of(super::super::nexus::of(&settings), settings);
    let error = end.may_list_digests(&repository("team/app")).await.expect_err("no end");
    assert_eq!((error.kind, stage.count(SEARCH)), (ErrorKind::Invalid, 10));
    assert!(error.message.contains("64 MiB"), "{error}");
}
