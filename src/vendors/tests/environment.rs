//! Keys of the environment beside a login that the rules write, which may be another account's.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use serde_json::json;

use super::super::{alibaba, huawei, tencent};
use super::{Stage, answer, end_of, repository, with_headers};
use crate::registry::{
    AlibabaSettings, CloudSettings, Credentials, HuaweiSettings, LoginSource, RemoteSettings, TencentSettings, Vendor,
};
use crate::telemetry::Secret;

/// The cloud's API shows what its key's account has, the registry's own catalogue what the login may see.
fn shown(what: &str) -> Response<Body> {
    let alibaba = json!([{
        "RepoNamespaceName": "corp", "RepoName": "ours", "repoNamespace": "corp", "repoName": "ours",
    }]);
    match what {
        "ListRepository" => answer(
            200,
            &json!({ "IsSuccess": true, "Repositories": alibaba, "TotalCount": "1" }),
        ),
        "GetRepoListByNamespace" => answer(200, &json!({ "data": { "repos": alibaba, "total": 1 } })),
        "DescribeRepositories" => {
            let list = json!([{ "Name": "corp/ours" }]);
            answer(
                200,
                &json!({ "Response": { "RepositoryList": list, "TotalCount": 1, "RequestId": "1" } }),
            )
        }
        "DescribeRepositoryFilterPersonal" => {
            let data = json!({ "RepoInfo": [{ "RepoName": "corp/ours" }], "TotalCount": 1 });
            answer(200, &json!({ "Response": { "Data": data, "RequestId": "1" } }))
        }
        "GET /v2/manage/repos" => with_headers(
            200,
            &[("content-range", "0-0/1")],
            json!([{ "namespace": "corp", "name": "ours" }]).to_string(),
        ),
        "GET /v2/_catalog" => answer(200, &json!({ "repositories": ["corp/theirs"] })),
        _ => with_headers(404, &[], ""),
    }
}

type Make = fn(&RemoteSettings) -> Arc<dyn Vendor>;

fn of_alibaba() -> alibaba::Surroundings {
    alibaba::Surroundings {
        access_key_id: Some("LTAIenv".to_owned()),
        access_key_secret: Some(Secret::new("of-the-environment")),
        ecs_role: Some("replicator".to_owned()),
        ..alibaba::Surroundings::default()
    }
}

fn of_tencent() -> tencent::Surroundings {
    tencent::Surroundings {
        secret_id: Some("AKIDenv".to_owned()),
        secret_key: Some(Secret::new("of-the-environment")),
        ..tencent::Surroundings::default()
    }
}

fn of_huawei() -> huawei::Surroundings {
    huawei::Surroundings {
        access_key: Some("AKenv".to_owned()),
        secret_key: Some(Secret::new("of-the-environment")),
        ..huawei::Surroundings::default()
    }
}

/// Each with what a rules file may say of its cloud without a key.
fn all() -> [(&'static str, CloudSettings, Make); 5] {
    let alibaba = CloudSettings::Alibaba(AlibabaSettings {
        region: Some("cn-test".to_owned()),
        instance_id: Some("cri-test".to_owned()),
        ..AlibabaSettings::default()
    });
    let tencent = CloudSettings::Tencent(TencentSettings {
        region: Some("ap-test".to_owned()),
        registry_id: Some("tcr-test".to_owned()),
        ..TencentSettings::default()
    });
    let huawei = CloudSettings::Huawei(HuaweiSettings {
        region: Some("cn-north-4".to_owned()),
        ..HuaweiSettings::default()
    });
    [
        ("alibaba_enterprise", alibaba.clone(), |remote| {
            alibaba::enterprise(remote, of_alibaba())
        }),
        ("alibaba_personal", alibaba, |remote| {
            alibaba::personal(remote, of_alibaba())
        }),
        ("tencent_enterprise", tencent.clone(), |remote| {
            tencent::enterprise(remote, of_tencent())
        }),
        ("tencent_personal", tencent, |remote| {
            tencent::personal(remote, of_tencent())
        }),
        ("huawei", huawei, |remote| huawei::of(remote, of_huawei())),
    ]
}

#[tokio::test]
async fn keys_of_the_environment_list_nothing_beside_a_login_of_the_rules_unless_those_speak_of_the_cloud() {
    let given = LoginSource::Given(Credentials {
        username: "somebody-else".to_owned(),
        password: Secret::new("p"),
    });
    for (kind, cloud, make) in all() {
        for (login, cloud, by_key) in [
            (given.clone(), CloudSettings::None, false),
            (LoginSource::Anonymous, CloudSettings::None, false),
            (given.clone(), cloud.clone(), true),
            (LoginSource::DockerConfig, cloud, true),
        ] {
            let stage = Stage::open(|what, _| shown(what)).await;
            let case = format!("{kind} {login:?} {cloud:?}");
            let settings = RemoteSettings {
                login,
                ..stage.settings(cloud)
            };
            let listed = end_of(make(&settings), settings)
                .list_repositories(&["corp/".to_owned()])
                .await;
            // Some have no catalogue that could say it instead.
            let listed = listed.expect(&case);
            match by_key {
                true => assert_eq!(listed, Some(vec![repository("corp/ours")]), "{case}"),
                false => assert!(
                    listed.is_none_or(|names| names == [repository("corp/theirs")]),
                    "{case}"
                ),
            }
        }
    }
}
