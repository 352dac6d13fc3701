//! JFrog Artifactory: uploads, what stands among its tags, files that are not listed yet, mounts.

use http::StatusCode;
use serde_json::json;

use super::{Pull, Scene, mounts, refused_as_conflict, statuses};
use crate::support::fake::artifactory::Artifactory;
use crate::support::images::image;
use crate::support::proxy::{Act, Fault, Proxy};

/// Some versions lose what comes with the closing PUT alone (RTFACT-19344); the fake fails the test for it.
#[tokio::test]
async fn artifactory_bytes_of_a_blob_come_before_the_closing_put() {
    let fake = Artifactory::start().await;
    let scene = Scene::new(&fake.rules("dst", &Artifactory::keys()), &["docker/app"]).await;
    let sample = image(1, "amd64", &[3000]);
    scene.seed("docker/app", "v1", &sample);
    scene.passes("docker/app").await;
    assert_eq!(fake.resolve("docker/app", "v1"), Some(sample.digest()));
    assert_eq!(statuses(&fake, "PATCH", "/blobs/uploads/"), [202; 2]);
    assert_eq!(statuses(&fake, "PUT", "/blobs/uploads/"), [201; 2]);
    fake.finish();
}

/// containers/skopeo#2346.
#[tokio::test]
async fn artifactory_digests_among_its_tags_are_none() {
    let fake = Artifactory::start().await;
    let sample = image(1, "amd64", &[20]);
    fake.seed("docker/app", "v1", &sample);
    let keys = format!("{}, bulk_listing: false", Artifactory::keys());
    let pull = Pull::new(&fake.rules("src", &keys), "docker/app").await;
    let report = pull.run().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.source.tags_listed, 1);
    assert_eq!(pull.arrived("docker/app", "v1"), Some(sample.digest()));
}

#[tokio::test]
async fn artifactory_tags_whose_files_are_not_listed_yet_are_looked_at() {
    let fake = Artifactory::start().await;
    let (listed, new) = (image(1, "amd64", &[20]), image(2, "amd64", &[20]));
    fake.seed("docker/app", "listed", &listed);
    fake.seed("docker/app", "new", &new);
    let files = json!({ "files": [{ "uri": "/listed/manifest.json", "sha2": listed.digest().hex() }] });
    let proxy = Proxy::start(fake.url()).await;
    proxy.add(Fault::every(
        "GET",
        "/api/storage/",
        Act::AnswerAfter(StatusCode::OK, Box::leak(files.to_string().into_boxed_str())),
    ));
    let src = fake
        .rules("src", &Artifactory::keys())
        .replace(fake.url(), &proxy.url());
    let pull = Pull::new(&src, "docker/app").await;
    let report = pull.run().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(proxy.count("GET", "/api/storage/") > 0);
    assert_eq!(pull.arrived("docker/app", "listed"), Some(listed.digest()));
    assert_eq!(pull.arrived("docker/app", "new"), Some(new.digest()));
}

#[tokio::test]
async fn artifactory_mounts_blobs_of_the_same_key() {
    let fake = Artifactory::start().await;
    let dst = fake.rules("dst", &Artifactory::keys());
    mounts(&fake, &dst, ["docker/base", "docker/app"]).await;
}

#[tokio::test]
async fn artifactory_tags_that_the_user_may_not_delete_are_a_conflict() {
    let fake = Artifactory::start().await;
    refused_as_conflict(
        &fake,
        &fake.rules("dst", &Artifactory::keys()),
        "docker/app",
        403,
        "Delete/Overwrite",
    )
    .await;
}
