//! Docker Hub with a proxy-cache project of a Harbor as its mirror.

use transship::oci::Digest;

use crate::support::docker_registry::DockerRegistry;
use crate::support::engine::{Workshop, by_hand};
use crate::support::fake::Fake;
use crate::support::fake::harbor::{Harbor, Project};
use crate::support::fake::hub::Hub;
use crate::support::images::{SampleImage, image, two_platforms};
use crate::support::wire::Wire;

use std::sync::Arc;

/// Its official images stand at Docker Hub, and in the project `hub-proxy` of the Harbor as far as they were pulled through it.
struct Scene {
    hub: Fake,
    meter: Arc<Hub>,
    proxy: Fake,
    harbor: Arc<Harbor>,
    dst: DockerRegistry,
}

impl Scene {
    async fn start() -> Self {
        let (hub, meter) = Hub::start().await;
        let (proxy, harbor) = Harbor::start(&[]).await;
        let project = Project {
            proxy: true,
            ..Project::default()
        };
        harbor.project("hub-proxy", project);
        Self {
            hub,
            meter,
            proxy,
            harbor,
            dst: DockerRegistry::plain().await,
        }
    }

    fn workshop(&self, more: &str) -> Workshop {
        let source = format!(
            "{}, mirrors: [{{ registry: harbor, prefix: hub-proxy }}]{more}",
            Hub::keys(&self.hub)
        );
        let ends = [
            self.hub.rules("hub", &source),
            self.proxy.rules("harbor", &Harbor::keys()),
        ];
        Workshop::new(&format!(
            "version: 1\nregistries:\n{}  dst: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: hub, destinations: [dst], \
             repositories: [alpine] }}\n",
            ends.concat(),
            self.dst.url()
        ))
    }

    /// At Docker Hub, and at the proxy where it was pulled through it.
    fn seed(&self, tag: &str, image: &SampleImage, pulled_through: bool) {
        self.hub.seed("library/alpine", tag, image);
        if pulled_through {
            self.proxy.seed("hub-proxy/library/alpine", tag, image);
        }
    }

    async fn copies(&self, workshop: &Workshop, tag: &str, image: &SampleImage) {
        let report = by_hand(&workshop.engine().await, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(
            Wire::new(&self.dst.url()).resolve("alpine", tag).await,
            Some(image.digest())
        );
    }
}

/// What was read of a kind (`manifests`, `blobs`): what was answered, with the rest of its path.
fn read(fake: &Fake, repository: &str, kind: &str) -> Vec<String> {
    let before = format!("/v2/{repository}/{kind}/");
    let all = fake.exchanges().into_iter();
    let read = all.filter(|one| one.method == "GET" && one.status.is_some_and(|status| status < 400));
    read.filter_map(|one| one.target.strip_prefix(&before).map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn docker_hub_is_read_through_a_harbor_proxy_project_by_digest() {
    let scene = Scene::start().await;
    let (old, new) = (image(1, "amd64", &[100]), two_platforms(2, &[5_000]));
    // The tag has moved since it was pulled through the proxy, which has the new image by its digests.
    scene.seed("3", &new, true);
    scene.proxy.seed("hub-proxy/library/alpine", "3", &old);
    scene.copies(&scene.workshop(""), "3", &new).await;
    let manifests = read(&scene.proxy, "hub-proxy/library/alpine", "manifests");
    assert!(!manifests.is_empty());
    assert!(
        manifests.iter().all(|reference| reference.parse::<Digest>().is_ok()),
        "{manifests:?}"
    );
    let blobs = new.children.iter().flat_map(|child| &child.blobs).count();
    let through = read(&scene.proxy, "hub-proxy/library/alpine", "blobs").len();
    let direct = read(&scene.hub, "library/alpine", "blobs").len();
    assert_eq!((through, direct), (blobs, 0), "{:?}", scene.hub.exchanges());
    // What the tag means is Docker Hub's word, and the proxy's tags are not looked at.
    assert_eq!(
        scene.proxy.count("*", "/tags/list") + scene.proxy.count("*", "/manifests/3"),
        0
    );
    assert_eq!(scene.proxy.count("*", "/api/v2.0/"), 0, "its lists are not asked for");
    assert_eq!(scene.meter.pulled(), 0, "nothing of it counts as a pull");
}

#[tokio::test]
async fn what_a_harbor_proxy_project_lacks_or_fails_to_give_comes_from_docker_hub() {
    // It cannot reach Docker Hub and has nothing; it fails; it is gone, or hidden from us.
    for trouble in ["nothing", "fails", "gone"] {
        let scene = Scene::start().await;
        let sample = two_platforms(3, &[5_000]);
        scene.seed("3", &sample, trouble != "nothing");
        scene.harbor.change(|state| match trouble {
            "fails" => state.broken_proxies = true,
            "gone" => drop(state.projects.remove("hub-proxy")),
            _ => {}
        });
        scene.copies(&scene.workshop(""), "3", &sample).await;
        let blobs = sample.children.iter().flat_map(|child| &child.blobs).count();
        let direct = read(&scene.hub, "library/alpine", "blobs").len();
        assert_eq!(direct, blobs, "{trouble}: {:?}", scene.hub.exchanges());
        assert!(scene.proxy.count("GET", "/hub-proxy/library/alpine/") > 0, "{trouble}");
        assert!(scene.meter.pulled() > 0, "{trouble}");
        if trouble != "nothing" {
            // It is left alone: a few were under way when the first failed.
            let asked = scene.proxy.count("GET", "/hub-proxy/library/alpine/blobs/");
            assert_eq!(asked, 0, "{trouble}: {:?}", scene.proxy.exchanges());
        }
    }
}

/// As the rules may want where Docker Hub is out of reach: the tags of the proxy are fetched when they are asked for.
#[tokio::test]
async fn a_harbor_proxy_project_says_what_tags_mean_where_the_rules_want_that() {
    let scene = Scene::start().await;
    let sample = two_platforms(4, &[5_000]);
    scene.seed("3", &sample, true);
    let workshop = scene.workshop(", mirrors_resolve_tags: true, bulk_listing: false");
    scene.copies(&workshop, "3", &sample).await;
    assert!(scene.proxy.count("*", "/hub-proxy/library/alpine/manifests/3") > 0);
    assert_eq!(scene.hub.count("*", "/manifests/"), 0, "{:?}", scene.hub.exchanges());
}
