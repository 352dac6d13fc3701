//! Lists of tags whose digests are not known to be what a look at the tag gives: when that is found out, and what it costs.

use std::time::Duration;

use transship::engine::{Control, Engine, RunReport, VerifyRequest};

use transship::rules::RuleName;

use crate::support::engine::{Workshop, by_hand};
use crate::support::fake::huawei::Huawei;
use crate::support::fake::{Fake, lock};
use crate::support::images::{SampleImage, image, two_platforms};

const DAY: Duration = Duration::from_secs(24 * 3600);
const TAGS: u64 = 40;

/// Two registries of the kind, the same images at both, and a rule between them.
struct Scene {
    ends: [Fake; 2],
    kinds: [std::sync::Arc<Huawei>; 2],
    workshop: Workshop,
}

impl Scene {
    async fn start() -> Self {
        let (src, source) = Huawei::start(&["team"]).await;
        let (dst, destination) = Huawei::start(&["team"]).await;
        for kind in [&source, &destination] {
            kind.signatures.take_any_date();
        }
        let workshop = Workshop::new(&format!(
            "version: 1\nregistries:\n{}{}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [\"team/*\"] }}\n",
            src.rules("src", &Huawei::keys(&src)),
            dst.rules("dst", &Huawei::keys(&dst)),
        ));
        Self {
            ends: [src, dst],
            kinds: [source, destination],
            workshop,
        }
    }

    fn seed(&self, ends: &[&Fake], repository: &str, numbers: std::ops::Range<u64>, of: impl Fn(u64) -> SampleImage) {
        for number in numbers {
            for end in ends {
                end.seed(repository, &format!("v{number:03}"), &of(number));
            }
        }
    }

    /// Looks at tags of the source and of the destination in a run that finds all in step.
    async fn looks(&self, engine: &Engine) -> [usize; 2] {
        for end in &self.ends {
            end.forget();
        }
        let report = self.run(engine).await;
        assert!(report.changes.is_empty(), "{:?}", report.changes.first());
        [0, 1].map(|end: usize| self.ends[end].count("HEAD", "/manifests/"))
    }

    async fn run(&self, engine: &Engine) -> RunReport {
        let report = by_hand(engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        report
    }
}

fn plain(number: u64) -> SampleImage {
    image(number, "amd64", &[20])
}

/// One in forty is an index.
fn mixed(number: u64) -> SampleImage {
    match number % TAGS {
        7 => two_platforms(number, &[20]),
        _ => plain(number),
    }
}

/// Reading the source has shown what its lists are worth; of the destination a tag of each shape does.
#[tokio::test]
async fn a_look_at_a_few_tags_shows_what_a_list_is_worth() {
    let scene = Scene::start().await;
    scene.seed(&[&scene.ends[0]], "team/app", 0..TAGS, mixed);
    let engine = scene.workshop.engine().await;
    scene.run(&engine).await;
    assert_eq!(scene.looks(&engine).await, [0, 3], "an index and two others");
    assert_eq!(scene.looks(&engine).await, [0, 0]);
}

/// What lists of one repository are worth those of all are: of plain images alone it could not be told.
#[tokio::test]
async fn lists_of_plain_images_are_believed_where_an_index_was_seen_elsewhere() {
    let scene = Scene::start().await;
    let both = [&scene.ends[0], &scene.ends[1]];
    scene.seed(&both, "team/plain", 0..TAGS, plain);
    let engine = scene.workshop.engine().await;
    // Each tag is looked at as long as no index was seen: it might be listed by one of its images.
    for _ in 0..2 {
        assert_eq!(scene.looks(&engine).await, [TAGS as usize; 2]);
    }
    scene.seed(&both, "team/mixed", 0..8, mixed);
    scene.looks(&engine).await;
    assert_eq!(scene.looks(&engine).await, [0, 0]);
}

#[tokio::test]
async fn what_a_list_is_worth_is_looked_at_again_before_it_is_forgotten() {
    let scene = Scene::start().await;
    let both = [&scene.ends[0], &scene.ends[1]];
    scene.seed(&both, "team/app", 0..TAGS, mixed);
    let engine = scene.workshop.engine().await;
    scene.run(&engine).await;
    for _ in 0..3 {
        assert_eq!(scene.looks(&engine).await, [0, 0]);
        scene.workshop.pass(5 * DAY);
        assert_eq!(scene.looks(&engine).await, [3, 3]);
    }
}

/// It may be behind, or mean something else after all.
#[tokio::test]
async fn a_list_that_differs_is_not_believed_for_hours() {
    let scene = Scene::start().await;
    let both = [&scene.ends[0], &scene.ends[1]];
    scene.seed(&both, "team/app", 0..TAGS, mixed);
    scene.seed(&both, "team/other", 0..TAGS, mixed);
    let engine = scene.workshop.engine().await;
    scene.run(&engine).await;
    assert_eq!(scene.looks(&engine).await, [0, 0]);
    // Its tag is not what the list says, which is looked at as it would have to be copied.
    lock(&scene.kinds[1].stale).insert("v001".to_owned(), plain(999).digest());
    scene.looks(&engine).await;
    lock(&scene.kinds[1].stale).clear();
    let all = 2 * TAGS as usize;
    // The one that differed was the first of each; nothing is known of the others any more.
    let looks = scene.looks(&engine).await;
    assert_eq!(looks[0], 0);
    assert_eq!(looks[1], all, "both differed");
    scene.workshop.pass(DAY / 4);
    assert_eq!(scene.looks(&engine).await, [0, 6], "an index and two others of each");
    assert_eq!(scene.looks(&engine).await, [0, 0]);
}

/// That another list is right says nothing of one that is behind.
#[tokio::test]
async fn a_list_that_differed_has_to_prove_itself_whatever_others_show() {
    let scene = Scene::start().await;
    let both = [&scene.ends[0], &scene.ends[1]];
    scene.seed(&both, "team/app", 0..TAGS, mixed);
    scene.seed(&both, "team/other", 100..100 + TAGS, mixed);
    let engine = scene.workshop.engine().await;
    scene.run(&engine).await;
    assert_eq!(scene.looks(&engine).await, [0, 0]);
    lock(&scene.kinds[1].stale).insert("v001".to_owned(), plain(999).digest());
    scene.looks(&engine).await;
    let doubted = TAGS as usize;
    assert_eq!(
        scene.looks(&engine).await,
        [0, doubted + 3],
        "the other proves itself at once"
    );
    lock(&scene.kinds[1].stale).clear();
    scene.workshop.pass(DAY / 4);
    // It differed again in the second of these runs.
    assert_eq!(scene.looks(&engine).await, [0, 3], "an index and two others of its own");
    assert_eq!(scene.looks(&engine).await, [0, 0]);
}

/// A tag that somebody moved behind the back of the API.
#[tokio::test]
async fn verify_believes_no_list_that_is_not_known_to_be_right() {
    let scene = Scene::start().await;
    let both = [&scene.ends[0], &scene.ends[1]];
    scene.seed(&both, "team/app", 0..TAGS, mixed);
    let engine = scene.workshop.engine().await;
    scene.run(&engine).await;
    assert_eq!(scene.looks(&engine).await, [0, 0]);
    lock(&scene.kinds[1].stale).insert("v001".to_owned(), plain(1).digest());
    scene.ends[1].seed("team/app", "v001", &plain(999));
    let request = VerifyRequest {
        rule: RuleName::new("r"),
        deep: false,
        repair: false,
    };
    let report = engine.verify(request, &Control::never()).await.expect("a report");
    let found: Vec<&str> = report.findings.iter().map(|found| found.source.as_str()).collect();
    assert_eq!(found, ["src/team/app:v001"], "{:#?}", report.findings);
}
