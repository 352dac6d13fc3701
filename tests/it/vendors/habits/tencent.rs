//! Tencent Container Registry: how often its API is asked, immutable tags, mounts.

use transship::registry::ErrorKind;
use transship::vendors::habits_for;

use super::{Scene, mounts};
use crate::support::engine::only_failure;
use crate::support::fake::tencent;
use crate::support::images::image;

/// What goharbor/harbor, adapter tencentcr, keeps to.
#[test]
fn tencent_api_is_asked_10_times_a_second_at_most() {
    for host in ["corp.tencentcloudcr.com", "ccr.ccs.tencentyun.com"] {
        assert_eq!(habits_for(host).api_per_second, Some(10), "{host}");
    }
}

#[tokio::test]
async fn tencent_mounts_blobs_of_another_repository() {
    for kind in ["tencent_enterprise", "tencent_personal"] {
        let (fake, cloud) = match kind {
            "tencent_enterprise" => tencent::enterprise().await,
            _ => tencent::personal().await,
        };
        cloud.namespace("team");
        cloud.signatures.take_any_date();
        mounts(
            &fake,
            &fake.rules("dst", &tencent::keys(&fake, kind)),
            ["team/base", "team/app"],
        )
        .await;
    }
}

/// Its rules are Harbor's.
#[tokio::test]
async fn tencent_immutable_tags_are_a_conflict() {
    let (fake, cloud) = tencent::enterprise().await;
    cloud.namespace("team");
    cloud.signatures.take_any_date();
    let dst = fake.rules("dst", &tencent::keys(&fake, "tencent_enterprise"));
    let scene = Scene::new(&dst, &["team/app"]).await;
    fake.seed("team/app", "v1", &image(1, "amd64", &[20]));
    fake.immutable("v1");
    scene.seed("team/app", "v1", &image(2, "amd64", &[20]));
    let report = scene.run("team/app").await;
    let failure = only_failure(&report);
    assert_eq!(
        (failure.kind, failure.status),
        (ErrorKind::Conflict, Some(412)),
        "{failure:?}"
    );
}
