//! Whether there is a referrers API.

use http::StatusCode;
use transship::demo::registry::{Options, Registry, Running};
use transship::oci::Tag;

use super::{HOURS, process};
use crate::support::engine::Workshop;
use crate::support::images::{SampleImage, image, referrer};
use crate::support::proxy::{Act, Fault, Proxy};

/// A source with the API behind a proxy, a destination that has it, too, and a rule.
pub(super) struct Scene {
    pub(super) src: Running,
    pub(super) dst: Running,
    pub(super) proxy: Proxy,
    pub(super) workshop: Workshop,
}

impl Scene {
    pub(super) async fn start() -> Self {
        let options = || Options {
            referrers_api: true,
            ..Options::default()
        };
        let (src, dst) = tokio::join!(Registry::start(options()), Registry::start(options()));
        let (src, dst) = (src.expect("a registry"), dst.expect("a registry"));
        let proxy = Proxy::start(&src.url()).await;
        let workshop = Workshop::new(&rules(&proxy.url(), &dst.url()));
        Self {
            src,
            dst,
            proxy,
            workshop,
        }
    }

    /// An image with a tag and a signature that only the API tells of; gives the signature.
    pub(super) fn seed(&self, number: u64) -> SampleImage {
        let name = "a".parse().expect("a name");
        let subject = image(number, "amd64", &[20]);
        let signature = referrer(&subject, "application/vnd.example.signature", number);
        self.src.seed(&name, &tag(number), &subject);
        self.src.seed(&name, &tag(number), &signature);
        self.src.seed(&name, &tag(number), &subject);
        signature
    }

    pub(super) fn has(&self, signature: &SampleImage) -> bool {
        let name = "a".parse().expect("a name");
        let held = self.dst.manifests(&name).unwrap_or_default();
        held.iter().any(|held| held.digest == signature.digest())
    }

    /// Questions for referrers since this was asked last.
    pub(super) fn asked(&self) -> usize {
        let asked = self.proxy.count("GET", "/referrers/");
        self.proxy.reset();
        asked
    }

    /// What is asked of the source for referrers is answered so.
    pub(super) fn answer(&self, status: StatusCode) {
        self.proxy
            .add(Fault::every("GET", "/referrers/", Act::Answer(status, None)));
    }
}

fn tag(number: u64) -> Tag {
    format!("v{number}").parse().expect("a tag")
}

pub(super) fn rules(src: &str, dst: &str) -> String {
    format!(
        "version: 1\nregistries:\n  src: {{ url: \"{src}\" }}\n  dst: {{ url: \"{dst}\" }}\nrules:\n  - name: r\n    source: src\n    \
         destinations: [dst]\n    repositories: [a]\n    retry: {{ attempts: 1 }}\n"
    )
}

#[tokio::test]
async fn that_there_is_no_referrers_api_is_known_to_later_processes_for_hours() {
    let scene = Scene::start().await;
    scene.answer(StatusCode::NOT_FOUND);
    let mut asked = Vec::new();
    for number in 0..3 {
        scene.seed(number);
        process(&scene.workshop).await;
        asked.push(scene.asked());
    }
    assert_eq!(asked, [1, 0, 0]);

    // The registry was upgraded: that is seen when the life of what was known is over, and costs nothing but waiting.
    scene.proxy.heal();
    let missed = scene.seed(3);
    process(&scene.workshop).await;
    assert_eq!((scene.asked(), scene.has(&missed)), (0, false));
    scene.workshop.pass(HOURS);
    let signature = scene.seed(4);
    process(&scene.workshop).await;
    assert!(scene.asked() > 0 && scene.has(&signature));
    // What was missed comes when attachments are compared again.
    scene.workshop.pass(4 * HOURS);
    process(&scene.workshop).await;
    assert!(scene.has(&missed));
}

/// What lists referrers in the first place is believed by later processes to be a reason for care, and no more.
#[tokio::test]
async fn an_api_that_is_gone_is_no_error_of_later_processes() {
    let scene = Scene::start().await;
    let signature = scene.seed(0);
    process(&scene.workshop).await;
    assert!(scene.asked() > 0 && scene.has(&signature));
    scene.answer(StatusCode::NOT_FOUND);
    scene.seed(1);
    process(&scene.workshop).await;
    assert_eq!(scene.asked(), 1);
    // That is what is known now.
    scene.seed(2);
    process(&scene.workshop).await;
    assert_eq!(scene.asked(), 0);
}
