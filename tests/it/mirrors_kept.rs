//! What is remembered of mirrors when the rules are read again.

use std::sync::Arc;

use http::StatusCode;
use transship::config::Config;
use transship::engine::Engine;

use crate::support::docker_registry::DockerRegistry;
use crate::support::ends::Ends;
use crate::support::engine::{Workshop, by_hand};
use crate::support::images::image;
use crate::support::proxy::{Act, Fault, Proxy};

/// A source, its mirror `near`, and an engine that has found out that the mirror fails.
struct Scene {
    ends: Ends,
    _mirror: DockerRegistry,
    near: Proxy,
    images: u64,
}

impl Scene {
    async fn start() -> Self {
        let (ends, mirror) = tokio::join!(Ends::plain(), DockerRegistry::plain());
        let near = Proxy::start(&mirror.url()).await;
        near.add(Fault::every(
            "GET",
            "",
            Act::Answer(StatusCode::SERVICE_UNAVAILABLE, None),
        ));
        Self {
            ends,
            _mirror: mirror,
            near,
            images: 0,
        }
    }

    /// With these keys of the mirror, and these mirrors of the source.
    fn rules(&self, near: &str, mirrors: &str) -> Arc<Config> {
        let rules = format!(
            "version: 1\nregistries:\n  near: {{ url: \"{}\"{near} }}\n  src: {{ url: \"{}\", mirrors: [{mirrors}] }}\n  \
             dst: {{ url: \"{}\" }}\nrules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: [app]\n",
            self.near.url(),
            self.ends.src_proxy.url(),
            self.ends.dst_proxy.url()
        );
        Workshop::new(&rules).config()
    }

    /// How often the mirror is asked for a new image, by the rules as they are read now.
    async fn asked(&mut self, engine: &Engine, rules: Arc<Config>) -> usize {
        self.asked_by(&engine.with_config(rules).expect("an engine")).await
    }

    async fn asked_by(&mut self, engine: &Engine) -> usize {
        self.images += 1;
        let (tag, image) = (format!("v{}", self.images), image(self.images, "amd64", &[100]));
        self.ends.src_wire().push("app", &tag, &image).await;
        self.near.reset();
        let report = by_hand(engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(self.ends.dst_wire().resolve("app", &tag).await, Some(image.digest()));
        self.near.exchanges().len()
    }
}

const CACHE: &str = "{ registry: near, prefix: cache }";

#[tokio::test]
async fn a_mirror_that_rests_rests_on_when_the_rules_are_read_again() {
    let mut scene = Scene::start().await;
    let workshop = Workshop::new("version: 1\nregistries: {}\nrules: []\n");
    let before = workshop
        .engine()
        .await
        .with_config(scene.rules("", CACHE))
        .expect("an engine");
    assert!(scene.asked_by(&before).await > 0);
    assert_eq!(scene.asked_by(&before).await, 0, "it rests");

    let rules = scene.rules("", CACHE);
    assert_eq!(scene.asked(&before, rules).await, 0);
    // Beside another one, too, and a second time.
    let rules = scene.rules("", &format!("\"http://127.0.0.1:1\", {CACHE}"));
    let beside = before.with_config(rules).expect("an engine");
    assert_eq!(scene.asked_by(&beside).await, 0);
    let rules = scene.rules("", CACHE);
    assert_eq!(scene.asked(&beside, rules).await, 0);

    // What another mirror would say is not known.
    let rules = scene.rules("", "{ registry: near, prefix: other }");
    assert!(scene.asked(&before, rules).await > 0, "another prefix");
    let rules = scene.rules(", username: me, password: corrected-0123", CACHE);
    assert!(scene.asked(&before, rules).await > 0, "another login");
}

#[tokio::test]
async fn a_mirror_by_its_address_rests_on_when_the_rules_are_read_again() {
    let mut scene = Scene::start().await;
    let address = format!("\"{}\"", scene.near.url());
    let workshop = Workshop::new("version: 1\nregistries: {}\nrules: []\n");
    let rules = scene.rules("", &address);
    let before = workshop.engine().await.with_config(rules).expect("an engine");
    assert!(scene.asked_by(&before).await > 0);
    let rules = scene.rules("", &address);
    assert_eq!(scene.asked(&before, rules).await, 0);
}
