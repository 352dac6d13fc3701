//! CNCF distribution 2.8, as a process.

use transship::oci::Digest;

use super::{Scene, relabelled};
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::image;
use crate::support::proxy::Proxy;
use crate::support::wire::Wire;

#[tokio::test]
async fn distribution_blobs_that_were_seen_are_believed_until_a_manifest_is_refused() {
    let mut registry = DockerRegistry::plain().await;
    let (wire, proxy) = (Wire::new(&registry.url()), Proxy::start(&registry.url()).await);
    let dst = format!("  dst: {{ url: \"{}\", kind: distribution }}\n", proxy.url());
    let scene = Scene::new(&dst, &["team/app"]).await;
    let sample = image(1, "amd64", &[3000]);
    wire.push("team/app", "other", &sample).await;
    scene.seed("team/app", "v1", &relabelled(&sample, "1"));
    scene.passes("team/app").await;
    assert_eq!((proxy.count("HEAD", "/blobs/"), proxy.count("POST", "")), (2, 0));
    proxy.reset();
    scene.seed("team/app", "v2", &relabelled(&sample, "2"));
    scene.passes("team/app").await;
    assert_eq!(proxy.count("HEAD", "/blobs/"), 0, "{:?}", proxy.exchanges());
    let layer = Digest::of(&sample.blobs[1]);
    registry.lose_blob("team/app", &layer);
    registry.restart().await;
    let last = relabelled(&sample, "3");
    scene.seed("team/app", "v3", &last);
    scene.passes("team/app").await;
    let put = proxy.exchanges().into_iter();
    let put: Vec<_> = put
        .filter(|one| one.method == "PUT" && one.path.ends_with("/manifests/v3"))
        .filter_map(|one| Some(one.status?.as_u16()))
        .collect();
    assert_eq!(put, [400, 201], "{:?}", proxy.exchanges());
    assert_eq!(wire.resolve("team/app", "v3").await, Some(last.digest()));
    wire.get(&format!("/v2/team/app/blobs/{layer}"), &[]).await.expect(200);
}
