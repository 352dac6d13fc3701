//! What a destination has lost since this process saw it there: an image is whole again after the next run that copies it.

use http::{Method, StatusCode};
use transship::demo::images::SampleImage;
use transship::demo::registry::{Options, Registry, Running};
use transship::engine::{ControlHandle, Engine, VerifyRequest};
use transship::oci::{Digest, RepositoryName, Tag};
use transship::rules::RuleName;
use transship::store::RunOutcome;

use crate::support::engine::{Workshop, by_hand};
use crate::support::images::image;
use crate::support::ours::{Ours, repository, tag};
use crate::support::pair::Fleet;
use crate::support::proxy::{Act, Exchange, Fault, Gate};
use crate::support::wire::Wire;

/// A source, and a destination that takes manifests whose blobs it lacks.
struct Scene {
    destination: Running,
    image: SampleImage,
    engine: Engine,
    _source: Running,
    _workshop: Workshop,
}

impl Scene {
    /// With one image, which is copied.
    async fn copied() -> Self {
        let careless = Options {
            takes_incomplete: true,
            ..Options::default()
        };
        let source = Registry::start(Options::default()).await.expect("a registry");
        let destination = Registry::start(careless).await.expect("a registry");
        let image = image(1, "amd64", &[3000, 200]);
        source.seed(&repository(), &tag("v1"), &image);
        let workshop = Workshop::new(&format!(
            "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n  dst: {{ url: \"{}\" }}\nrules:\n  - name: web\n    \
             source: src\n    destinations: [dst]\n    repositories: [app/web]\n",
            source.url(),
            destination.url()
        ));
        let engine = workshop.engine().await;
        assert_eq!(by_hand(&engine, "web").await.outcome, RunOutcome::Ok);
        let scene = Self {
            destination,
            image,
            engine,
            _source: source,
            _workshop: workshop,
        };
        scene.assert_whole();
        scene
    }

    #[track_caller]
    fn assert_whole(&self) {
        assert_whole(&self.destination, &repository(), &tag("v1"), &self.image);
    }

    /// Takes away the bytes of all blobs.
    fn lose_blobs(&self) {
        for blob in &self.image.blobs {
            assert!(self.destination.lose_blob(&Digest::of(blob)));
        }
    }
}

/// The tag is there and every blob of its image.
#[track_caller]
fn assert_whole(registry: &Running, repository: &RepositoryName, tag: &Tag, image: &SampleImage) {
    assert_eq!(registry.resolve(repository, tag), Some(image.digest()));
    for blob in &image.blobs {
        let digest = Digest::of(blob);
        assert_eq!(registry.blob(repository, &digest).as_ref(), Some(blob), "{digest}");
    }
}

#[tokio::test]
async fn a_repository_that_was_deleted_since_the_last_run_is_filled_again() {
    let scene = Scene::copied().await;
    assert!(scene.destination.delete_repository(&repository()));
    assert_eq!(by_hand(&scene.engine, "web").await.outcome, RunOutcome::Ok);
    scene.assert_whole();
}

#[tokio::test]
async fn a_repository_that_was_emptied_since_the_last_run_is_filled_again() {
    let scene = Scene::copied().await;
    let path = format!("/v2/{}/manifests/v1", repository());
    let wire = Wire::new(&scene.destination.url());
    wire.send(Method::DELETE, &path, &[], "").await.expect(202);
    scene.lose_blobs();
    assert_eq!(by_hand(&scene.engine, "web").await.outcome, RunOutcome::Ok);
    scene.assert_whole();
}

#[tokio::test]
async fn a_repair_sends_what_the_process_itself_has_sent_before() {
    let scene = Scene::copied().await;
    scene.lose_blobs();
    let request = VerifyRequest {
        rule: RuleName::new("web"),
        deep: false,
        repair: true,
    };
    let (_handle, control) = ControlHandle::new();
    let report = scene.engine.verify(request, &control).await.expect("a report");
    assert_eq!(report.findings.len(), scene.image.blobs.len(), "{report:?}");
    scene.assert_whole();
}

#[tokio::test]
async fn a_refusal_that_names_no_blob_is_healed_where_this_run_brought_some_of_them_before() {
    let ours = Ours::start().await;
    let fleet = Fleet::new(1, 2, 400);
    let [(_, first), (_, second)] = fleet.repositories[0].1.as_slice() else {
        panic!("two images")
    };
    let name = |text: &str| -> RepositoryName { text.parse().expect("a name") };
    ours.source.seed(&name("one"), &tag("v1"), first);
    ours.source.seed(&name("two"), &tag("v2"), second);
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n  dst: {{ url: \"{}\" }}\nrules:\n  - name: r\n    source: src\n    \
         destinations: [{{ registry: dst, to: all }}]\n    retry: {{ attempts: 1 }}\n    repositories:\n      \
         - {{ match: one, tags: {{ include: [v1] }} }}\n      - {{ match: two, tags: {{ include: [v2] }} }}\n",
        ours.src.url(),
        ours.dst.url()
    ));
    let engine = workshop.engine().await;
    let gate = Gate::new();
    ours.src
        .add(Fault::once("GET", "/two/tags/list", Act::HoldBefore(gate.clone())));
    let not_found = Act::Answer(StatusCode::NOT_FOUND, None);
    ours.dst.add(Fault::once("PUT", "/manifests/v2", not_found));
    let meanwhile = async {
        let put = |all: &[Exchange]| all.iter().any(|one| one.is("PUT", "/manifests/v1") && one.done);
        ours.dst.wait_for("the first image", put).await;
        assert!(ours.destination.delete_repository(&name("all")));
        gate.open();
    };
    let (report, ()) = tokio::join!(by_hand(&engine, "r"), meanwhile);
    assert_eq!(report.failures, []);
    assert_whole(&ours.destination, &name("all"), &tag("v2"), second);
}
