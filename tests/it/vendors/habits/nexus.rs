//! Sonatype Nexus: what stands among its tags, mounts.

use super::{Pull, mounts, refused_as_conflict};
use crate::support::fake::nexus::Nexus;
use crate::support::images::image;

/// containers/skopeo#2409.
#[tokio::test]
async fn nexus_nulls_among_its_tags_are_none() {
    let fake = Nexus::start().await;
    let sample = image(1, "amd64", &[20]);
    fake.seed("team/app", "v1", &sample);
    let pull = Pull::new(&fake.rules("src", &Nexus::keys()), "team/app").await;
    let report = pull.run().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.source.tags_listed, 1);
    assert_eq!(pull.arrived("team/app", "v1"), Some(sample.digest()));
}

#[tokio::test]
async fn nexus_mounts_blobs_of_a_hosted_repository() {
    let fake = Nexus::start().await;
    mounts(&fake, &fake.rules("dst", &Nexus::keys()), ["team/base", "team/app"]).await;
}

#[tokio::test]
async fn nexus_tags_that_may_not_be_redeployed_are_a_conflict() {
    let fake = Nexus::start().await;
    refused_as_conflict(
        &fake,
        &fake.rules("dst", &Nexus::keys()),
        "team/app",
        400,
        "`Disable redeploy`",
    )
    .await;
}
