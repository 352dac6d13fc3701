//! What each kind does otherwise than any registry, with a test for each of these habits that bears the vendor's name.
//!
//! [`table`] says which test that is, and fails where a row of the habits table has something that it does not name.

mod alibaba;
mod artifactory;
mod azure;
mod distribution;
mod ecr_public;
mod github;
mod gitlab;
mod google;
mod harbor;
mod huawei;
mod hub;
mod nexus;
mod table;
mod tencent;
mod zot;

use serde_json::{Value, json};
use transship::demo::registry::{Options, Registry, Running};
use transship::engine::{Engine, RunReport};
use transship::oci::Digest;
use transship::registry::{BodyStream, Endpoint, ErrorKind};

use crate::support::engine::{Workshop, by_hand, only_failure};
use crate::support::fake::Fake;
use crate::support::images::{SampleImage, image};

/// The name of the rule for a repository.
fn rule_of(repository: &str) -> String {
    repository.replace('/', ".")
}

/// From a registry in memory to one of a kind, each repository by a rule of its own.
struct Scene {
    from: Running,
    engine: Engine,
    // The engine's state is in its folder.
    _workshop: Workshop,
}

impl Scene {
    /// With what stands below `registries:` for the registry named `dst`.
    async fn new(dst: &str, repositories: &[&str]) -> Self {
        let from = Registry::start(Options::default()).await.expect("a registry");
        let rules: String = repositories
            .iter()
            .map(|name| {
                let rule = rule_of(name);
                format!("  - {{ name: {rule}, source: src, destinations: [dst], repositories: [\"{name}\"] }}\n")
            })
            .collect();
        let workshop = Workshop::new(&format!(
            "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n{dst}rules:\n{rules}",
            from.url()
        ));
        Self {
            from,
            engine: workshop.engine().await,
            _workshop: workshop,
        }
    }

    fn seed(&self, repository: &str, tag: &str, sample: &SampleImage) {
        let (repository, tag) = (repository.parse().expect("a name"), tag.parse().expect("a tag"));
        self.from.seed(&repository, &tag, sample);
    }

    async fn run(&self, repository: &str) -> RunReport {
        by_hand(&self.engine, &rule_of(repository)).await
    }

    /// A run that fails nothing.
    #[track_caller]
    fn passes(&self, repository: &str) -> impl Future<Output = RunReport> {
        let caller = std::panic::Location::caller();
        async move {
            let report = self.run(repository).await;
            assert!(report.failures.is_empty(), "{caller}: {:?}", report.failures);
            report
        }
    }
}

/// From one of a kind to a registry in memory.
struct Pull {
    to: Running,
    engine: Engine,
    // The engine's state is in its folder.
    _workshop: Workshop,
}

impl Pull {
    /// With what stands below `registries:` for the registry named `src`.
    async fn new(src: &str, patterns: &str) -> Self {
        let to = Registry::start(Options::default()).await.expect("a registry");
        let workshop = Workshop::new(&format!(
            "version: 1\nregistries:\n{src}  dst: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], \
             repositories: [\"{patterns}\"] }}\n",
            to.url()
        ));
        Self {
            to,
            engine: workshop.engine().await,
            _workshop: workshop,
        }
    }

    async fn run(&self) -> RunReport {
        by_hand(&self.engine, "r").await
    }

    fn arrived(&self, repository: &str, tag: &str) -> Option<Digest> {
        let (repository, tag) = (repository.parse().expect("a name"), tag.parse().expect("a tag"));
        self.to.resolve(&repository, &tag)
    }
}

/// The end `dst` of rules that nobody runs.
fn destination(dst: &str) -> Endpoint {
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n  src: {{ url: \"http://src.example\" }}\n{dst}rules:\n  - {{ name: r, source: src, \
         destinations: [dst], repositories: [a/b] }}\n"
    ));
    workshop.end("dst")
}

/// A part of a blob, as it is sent.
fn body(blob: &bytes::Bytes, from: u64, to: u64) -> BodyStream {
    let bytes = blob.slice(from as usize..to as usize);
    Box::pin(futures_util::stream::iter([Ok(bytes)]))
}

/// Statuses of the requests by a method with `part` in their target, without those that were asked to log in.
fn statuses(fake: &Fake, method: &str, part: &str) -> Vec<u16> {
    let all = fake.exchanges().into_iter();
    let of = all.filter(|one| one.method == method && one.target.contains(part));
    of.filter_map(|one| one.status.filter(|status| *status != 401))
        .collect()
}

/// The same blobs under another manifest.
fn relabelled(sample: &SampleImage, label: &str) -> SampleImage {
    let mut manifest: Value = serde_json::from_slice(&sample.manifest).expect("a manifest");
    manifest["annotations"] = json!({ "label": label });
    SampleImage {
        manifest: manifest.to_string().into(),
        ..sample.clone()
    }
}

/// What a kind shows that refuses a manifest without its blobs: a blob that was seen once is not looked for again, and one that was lost
/// since is sent when the manifest is refused. `dst` is what stands below `registries:`.
async fn seen_blobs_are_believed(fake: &Fake, dst: &str, repository: &str) {
    let scene = Scene::new(dst, &[repository]).await;
    let sample = image(1, "amd64", &[3000]);
    // Under another tag, so that nothing of it is sent: an upload might tell what sort of registry it is.
    fake.seed(repository, "other", &sample);
    let (seen, believed, lost) = (
        relabelled(&sample, "1"),
        relabelled(&sample, "2"),
        relabelled(&sample, "3"),
    );
    scene.seed(repository, "v1", &seen);
    scene.passes(repository).await;
    assert_eq!(statuses(fake, "HEAD", "/blobs/"), [200; 2], "{:#?}", fake.exchanges());
    assert_eq!(fake.count("POST", "/blobs/uploads/"), 0);
    fake.forget();
    scene.seed(repository, "v2", &believed);
    scene.passes(repository).await;
    assert_eq!(fake.count("HEAD", "/blobs/"), 0, "{:#?}", fake.exchanges());
    let layer = Digest::of(&sample.blobs[1]);
    assert!(fake.book().registry.lose_blob(&layer));
    fake.forget();
    scene.seed(repository, "v3", &lost);
    scene.passes(repository).await;
    assert_eq!(
        statuses(fake, "PUT", "/manifests/v3"),
        [400, 201],
        "{:#?}",
        fake.exchanges()
    );
    let name = repository.parse().expect("a name");
    assert_eq!(
        fake.book().registry.blob(&name, &layer).as_ref(),
        Some(&sample.blobs[1])
    );
    assert_eq!(fake.resolve(repository, "v3"), Some(lost.digest()));
}

/// Copies an image to `first`, lets `change` happen, and copies it to `second`, which may mount what the first has.
async fn copied_twice(fake: &Fake, dst: &str, [first, second]: [&str; 2], change: impl FnOnce()) -> RunReport {
    let scene = Scene::new(dst, &[first, second]).await;
    let sample = image(1, "amd64", &[3000]);
    scene.seed(first, "v1", &sample);
    scene.seed(second, "v1", &sample);
    scene.passes(first).await;
    change();
    fake.forget();
    let report = scene.run(second).await;
    if report.failures.is_empty() {
        assert_eq!(fake.resolve(second, "v1"), Some(sample.digest()));
    }
    report
}

/// As [`copied_twice`], where the registry mounts both blobs.
async fn mounts(fake: &Fake, dst: &str, repositories: [&str; 2]) {
    let report = copied_twice(fake, dst, repositories, || {}).await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let blobs = &report.destinations[0].blobs;
    assert_eq!((blobs.mounted, blobs.copied), (2, 0), "{:#?}", fake.exchanges());
    assert_eq!(statuses(fake, "POST", "mount="), [201; 2], "{:#?}", fake.exchanges());
    assert_eq!(fake.count("PUT", "/blobs/uploads/"), 0);
}

/// A tag that may not be moved: refused once with this status, and told with these words.
async fn refused_as_conflict(fake: &Fake, dst: &str, repository: &str, status: u16, told: &str) {
    let scene = Scene::new(dst, &[repository]).await;
    fake.seed(repository, "v1", &image(1, "amd64", &[20]));
    fake.immutable("v1");
    scene.seed(repository, "v1", &image(2, "amd64", &[20]));
    let report = scene.run(repository).await;
    let failure = only_failure(&report);
    assert_eq!(
        (failure.kind, failure.status),
        (ErrorKind::Conflict, Some(status)),
        "{failure:?}"
    );
    assert!(failure.message.contains(told), "{failure:?}");
    assert_eq!(statuses(fake, "PUT", "/manifests/v1"), [status]);
}
