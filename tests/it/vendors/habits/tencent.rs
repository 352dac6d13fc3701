//! Tencent Container Registry: how often its API is asked, immutable tags, mounts.

use transship::vendors::habits_for;

use super::{mounts, refused_as_conflict};
use crate::support::fake::tencent;

/// What goharbor/harbor, adapter tencentcr, keeps to.
#[test]
fn tencent_has_a_pace_of_10_requests_a_second_for_its_api() {
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
    refused_as_conflict(&fake, &dst, "team/app", 412, "the tag may not be changed there").await;
}
