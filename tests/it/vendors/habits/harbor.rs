//! Harbor: mounts, uploads that break off, policies, immutable tags that stay as they are.

use transship::registry::ErrorKind;

use super::{Pull, Scene, copied_twice, mounts, relabelled, seen_blobs_are_believed, statuses};
use crate::support::engine::only_failure;
use crate::support::fake::harbor::Harbor;
use crate::support::images::{image, manifest};
use crate::support::proxy::{Act, Fault, Proxy};
use serde_json::json;
use transship::oci::media_type;

const PROJECTS: [&str; 2] = ["team", "base"];
/// In two projects.
const REPOSITORIES: [&str; 2] = ["base/os", "team/app"];

#[tokio::test]
async fn harbor_mounts_blobs_across_projects() {
    let (fake, _harbor) = Harbor::start(&PROJECTS).await;
    mounts(&fake, &fake.rules("dst", &Harbor::keys()), REPOSITORIES).await;
}

/// It answers 401 where the source may not be pulled from, and an upload where the source has the blob no more: what is refused is sent.
#[tokio::test]
async fn harbor_mounts_that_are_refused_with_401_or_202_are_uploads() {
    for unreadable in [true, false] {
        let (fake, harbor) = Harbor::start(&PROJECTS).await;
        let change = || match unreadable {
            true => harbor.change(|state| state.unreadable = Some("base".to_owned())),
            false => {
                let registry = &fake.book().registry;
                assert!(registry.delete_repository(&"base/os".parse().expect("a name")));
            }
        };
        let report = copied_twice(&fake, &fake.rules("dst", &Harbor::keys()), REPOSITORIES, change).await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let blobs = &report.destinations[0].blobs;
        assert_eq!((blobs.mounted, blobs.copied), (0, 2), "{:#?}", fake.exchanges());
        // An upload that a mount became is the one that is used.
        assert_eq!(
            statuses(&fake, "POST", "/team/app/blobs/uploads/"),
            [202; 2],
            "{:#?}",
            fake.exchanges()
        );
        let refused = fake.exchanges().into_iter();
        let refused = refused.filter(|one| one.target.contains("mount=") && one.status == Some(401));
        assert_eq!(refused.count() > 0, unreadable, "{:#?}", fake.exchanges());
        // The token for the pushes is not spoilt by that.
        assert_eq!(statuses(&fake, "PUT", "/blobs/uploads/"), [201; 2]);
    }
}

/// The quota is counted where an upload is opened, by a mount too.
#[tokio::test]
async fn harbor_mounts_beyond_the_quota_are_told_as_one() {
    let (fake, harbor) = Harbor::start(&PROJECTS).await;
    let change = || harbor.change(|state| state.over_quota = true);
    let report = copied_twice(&fake, &fake.rules("dst", &Harbor::keys()), REPOSITORIES, change).await;
    let failure = only_failure(&report);
    assert_eq!(
        (failure.kind, failure.status),
        (ErrorKind::Quota, Some(403)),
        "{failure:?}"
    );
    assert_eq!(fake.resolve("team/app", "v1"), None);
}

/// Its registry is distribution 2.8: what a broken request brought is out of reach, and with it all that came before.
#[tokio::test]
async fn harbor_loses_an_upload_that_broke_off_and_the_blob_starts_again() {
    let (fake, _harbor) = Harbor::start(&PROJECTS).await;
    let proxy = Proxy::start(fake.url()).await;
    proxy.add(Fault::once("PUT", "/blobs/uploads/", Act::CutRequest(1 << 20)));
    // Its token server is at its own address.
    let keys = format!("{}, token_hosts: [\"{}\"]", Harbor::keys(), fake.host());
    let dst = fake.rules("dst", &keys).replace(fake.url(), &proxy.url());
    let scene = Scene::new(&dst, &["team/app"]).await;
    let sample = image(1, "amd64", &[23 << 20]);
    scene.seed("team/app", "v1", &sample);
    // Its config is there, so that the layer alone is sent.
    let config = json!({ "mediaType": media_type::OCI_CONFIG });
    fake.seed(
        "team/app",
        "other",
        &manifest(&config, &sample.blobs[0], &[], json!({})),
    );
    let report = scene.passes("team/app").await;
    assert_eq!(report.destinations[0].images.copied, 1);
    assert_eq!(fake.resolve("team/app", "v1"), Some(sample.digest()));
    // How it treats broken uploads was found out before; then where this one stands is asked once, at the place that the last piece gave.
    let asked = proxy.exchanges().into_iter();
    let asked: Vec<_> = asked
        .filter(|one| one.method == "GET" && one.path.contains("/blobs/uploads/"))
        .map(|one| (one.query.is_some(), one.status.map(|status| status.as_u16())))
        .collect();
    assert_eq!(asked, [(false, Some(404)), (true, Some(404))]);
    assert_eq!(statuses(&fake, "POST", "/blobs/uploads/"), [202; 2]);
    // A piece that came before is lost, too.
    let pieces = proxy.request_bytes("*", "/blobs/uploads/");
    assert!(pieces > (23 << 20) + (5 << 20), "{pieces}");
}

#[tokio::test]
async fn harbor_blobs_that_were_seen_are_believed_until_a_manifest_is_refused() {
    let (fake, _harbor) = Harbor::start(&PROJECTS).await;
    seen_blobs_are_believed(&fake, &fake.rules("dst", &Harbor::keys()), "team/app").await;
}

#[tokio::test]
async fn harbor_policies_that_forbid_a_pull_are_told_and_not_tried_again() {
    let (fake, harbor) = Harbor::start(&PROJECTS).await;
    fake.seed("team/app", "v1", &image(1, "amd64", &[20]));
    harbor.change(|state| state.forbids_pulls = true);
    let pull = Pull::new(&fake.rules("src", &Harbor::keys()), "team/app").await;
    let report = pull.run().await;
    let failure = only_failure(&report);
    assert_eq!(
        (failure.kind, failure.status),
        (ErrorKind::Denied, Some(412)),
        "{failure:?}"
    );
    let told = "a policy of the project (vulnerabilities, signatures) forbids the pull";
    assert!(failure.message.contains(told), "{failure:?}");
    assert_eq!(fake.count("GET", "/manifests/"), 1, "{:#?}", fake.exchanges());
    assert_eq!(pull.arrived("team/app", "v1"), None);
}

/// It refuses a push to an immutable tag though nothing would change.
#[tokio::test]
async fn harbor_immutable_tags_that_are_right_are_not_written() {
    let (fake, _harbor) = Harbor::start(&PROJECTS).await;
    let scene = Scene::new(&fake.rules("dst", &Harbor::keys()), &["team/app"]).await;
    let sample = image(1, "amd64", &[20]);
    scene.seed("team/app", "v1", &sample);
    fake.seed("team/app", "v1", &sample);
    fake.immutable("v1");
    let report = scene.passes("team/app").await;
    assert_eq!(report.destinations[0].images.in_step, 1);
    assert_eq!(fake.count("PUT", ""), 0);
    scene.seed("team/app", "v1", &relabelled(&sample, "moved"));
    let report = scene.run("team/app").await;
    assert_eq!(only_failure(&report).kind, ErrorKind::Conflict);
    assert_eq!(statuses(&fake, "PUT", "/manifests/v1"), [412]);
}
