//! Alibaba Container Registry: how often its API is asked, its catalogue, mounts.

use transship::vendors::habits_for;

use super::{Pull, mounts, refused_as_conflict};
use crate::support::fake::alibaba;
use crate::support::images::image;
use crate::support::{PASSWORD, USERNAME};

/// What goharbor/harbor, adapter aliacr, keeps to.
#[test]
fn alibaba_has_a_pace_of_15_requests_a_second_for_its_api() {
    for host in [
        "registry.cn-hangzhou.aliyuncs.com",
        "corp-registry.cn-hangzhou.cr.aliyuncs.com",
    ] {
        assert_eq!(habits_for(host).api_per_second, Some(15), "{host}");
    }
}

/// Where nobody may ask the API.
#[tokio::test]
async fn alibaba_has_no_catalogue_to_be_asked_for() {
    for kind in ["alibaba_enterprise", "alibaba_personal"] {
        let (fake, _cloud) = match kind {
            "alibaba_enterprise" => alibaba::enterprise().await,
            _ => alibaba::personal().await,
        };
        fake.seed("team/app", "v1", &image(1, "amd64", &[20]));
        let keys = format!("kind: {kind}, username: {USERNAME}, password: {PASSWORD}");
        let pull = Pull::new(&fake.rules("src", &keys), "team/*").await;
        let report = pull.run().await;
        assert_eq!(
            (report.failures.len(), report.source.repositories),
            (1, 0),
            "{report:?}"
        );
        assert_eq!(fake.count("GET", "/_catalog"), 0, "{:#?}", fake.exchanges());
        fake.finish();
    }
}

#[tokio::test]
async fn alibaba_mounts_blobs_of_another_repository() {
    for kind in ["alibaba_enterprise", "alibaba_personal"] {
        let (fake, cloud) = match kind {
            "alibaba_enterprise" => alibaba::enterprise().await,
            _ => alibaba::personal().await,
        };
        cloud.namespace("team", true);
        cloud.signatures.take_any_date();
        mounts(
            &fake,
            &fake.rules("dst", &alibaba::keys(&fake, kind)),
            ["team/base", "team/app"],
        )
        .await;
    }
}

#[tokio::test]
async fn alibaba_immutable_tags_are_a_conflict() {
    let (fake, cloud) = alibaba::enterprise().await;
    cloud.namespace("team", true);
    cloud.signatures.take_any_date();
    refused_as_conflict(
        &fake,
        &fake.rules("dst", &alibaba::keys(&fake, "alibaba_enterprise")),
        "team/app",
        403,
        "the repository's tags are immutable",
    )
    .await;
}
