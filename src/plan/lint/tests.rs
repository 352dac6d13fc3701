//! Each fault is planted in a good plan; a lint that stays silent about one is a lint that checks nothing.

use bytes::Bytes;

use super::*;
use crate::oci::RepositoryName;
use crate::plan::{BlobAction, BlobStep, ErrorKind, KnownContent, Unknown, image_plan, plan_repository};
use crate::rules::{Excluded, MovedTags, OnConflict, RegistryName, TagFilter};

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

/// Tags `new` (not at the destination), `same`, `ours`, `theirs`, `dark` (unknown there) and `lost` (unknown at the source).
fn inventory() -> RepositoryInventory {
    let wanted = |text: &str| {
        Observation::Known(WantedImage {
            source: digest("x"),
            digest: Ok(digest(text)),
            missing_platforms: Vec::new(),
        })
    };
    let unknown = Unknown::new(ErrorKind::Network, "broke");
    let all = ["new", "same", "ours", "theirs", "dark", "lost"];
    let mut seen = RepositoryInventory {
        registry: RegistryName::new("hub"),
        repository: "app".parse().expect("a name"),
        named: false,
        listed: Observation::Known(all.map(tag).to_vec()),
        wanted: all.iter().map(|text| (tag(text), wanted("x"))).collect(),
        destinations: vec![DestinationInventory {
            registry: RegistryName::new("ecr"),
            repository: "app".parse().expect("a name"),
            listed: Observation::Known(all[1..].iter().map(|text| tag(text)).collect()),
            digests: ["same", "ours", "theirs", "lost"]
                .map(|text| (tag(text), Observation::Known(digest("old"))))
                .into(),
            trusted: BTreeSet::new(),
            written: BTreeMap::from([(tag("ours"), BTreeSet::from([digest("old")]))]),
            claimed: BTreeMap::new(),
        }],
    };
    let digests = &mut seen.destinations[0].digests;
    digests.insert(tag("same"), Observation::Known(digest("x")));
    digests.insert(tag("dark"), Observation::Unknown(unknown.clone()));
    seen.wanted.insert(tag("lost"), Observation::Unknown(unknown));
    seen
}

fn good(inventory: &RepositoryInventory) -> RepositoryPlan {
    plan_repository(
        &TagFilter::default(),
        MovedTags::Follow,
        OnConflict::Overwrite,
        inventory,
    )
}

fn with_decision(text: &str, decision: Decision) -> usize {
    let seen = inventory();
    let mut plan = good(&seen);
    let image = plan.images.iter_mut().find(|image| image.tag == tag(text));
    image.expect("planned").destinations[0].decision = decision;
    lint_repository_plan(&seen, &plan).len()
}

#[test]
fn a_good_plan_has_no_notes() {
    let seen = inventory();
    assert_eq!(lint_repository_plan(&seen, &good(&seen)), []);
}

#[test]
fn finds_decisions_that_do_not_follow() {
    let copy = |reason| Decision::Copy { reason };
    let keep = |reason| Decision::Keep { reason };
    let fail = |reason| Decision::Fail {
        kind: ErrorKind::Conflict,
        reason,
    };
    let message = || "broke".to_owned();
    let unknown = || Unknown::new(ErrorKind::Network, message());
    for (text, decision) in [
        ("dark", copy(CopyReason::NewTag)),
        ("dark", copy(CopyReason::NewRepository)),
        ("dark", copy(CopyReason::Conflict)),
        ("dark", Decision::InStep),
        ("dark", Decision::Gone),
        ("lost", copy(CopyReason::Conflict)),
        ("lost", Decision::Gone),
        ("lost", Decision::InStep),
        ("same", copy(CopyReason::Moved)),
        ("same", copy(CopyReason::Conflict)),
        ("same", Decision::Skip { available: vec![] }),
        ("new", Decision::InStep),
        ("new", copy(CopyReason::NewRepository)),
        ("new", keep(CopyReason::NewTag)),
        ("new", fail(FailReason::SourceUnknown(unknown()))),
        ("new", fail(FailReason::DestinationUnknown(unknown()))),
        ("new", fail(FailReason::Ambiguous { claim: message() })),
        ("ours", Decision::InStep),
        ("ours", copy(CopyReason::Conflict)),
        ("ours", fail(FailReason::Conflict)),
        ("theirs", copy(CopyReason::Moved)),
        ("theirs", keep(CopyReason::Moved)),
        ("theirs", fail(FailReason::MovedTag)),
        ("theirs", copy(CopyReason::NewTag)),
    ] {
        assert_eq!(with_decision(text, decision.clone()), 1, "{text} {decision:?}");
    }
    assert_eq!(with_decision("ours", fail(FailReason::MovedTag)), 0);
    assert_eq!(with_decision("theirs", keep(CopyReason::Conflict)), 0);
}

#[test]
fn finds_a_claim_that_was_passed_over() {
    let mut seen = inventory();
    let plan = good(&seen);
    seen.destinations[0].claimed.insert(tag("new"), "rule b".into());
    assert_eq!(lint_repository_plan(&seen, &plan).len(), 1);
}

#[test]
fn finds_faults_of_the_whole_plan() {
    type Fault = fn(&mut RepositoryPlan);
    let faults: [(&str, Fault); 11] = [
        ("another repository", |plan| {
            plan.repository = "x".parse().expect("a name")
        }),
        ("a problem", |plan| plan.problem = Some(RepositoryProblem::Missing)),
        ("a wrong count", |plan| plan.tags_listed += 1),
        ("wrong order", |plan| plan.images.reverse()),
        ("a tag twice", |plan| plan.images.push(plan.images[5].clone())),
        ("a tag left out", |plan| drop(plan.images.pop())),
        ("a tag that is not listed", |plan| {
            plan.excluded.insert(tag("other"), Excluded::NotIncluded);
        }),
        ("two answers", |plan| {
            plan.excluded.insert(tag("new"), Excluded::NotIncluded);
        }),
        ("another digest", |plan| plan.images[0].digest = Some(digest("y"))),
        ("no destination", |plan| plan.images[0].destinations.clear()),
        ("another previous digest", |plan| {
            plan.images[0].destinations[0].previous = Some(digest("y"));
        }),
    ];
    let seen = inventory();
    for (what, plant) in faults {
        let mut plan = good(&seen);
        plant(&mut plan);
        assert_ne!(lint_repository_plan(&seen, &plan), [], "{what}");
    }
    let mut unlisted = inventory();
    let plan = good(&unlisted);
    unlisted.listed = Observation::Absent;
    assert_ne!(
        lint_repository_plan(&unlisted, &plan),
        [],
        "tags of an absent repository"
    );
    let why = Unknown::new(ErrorKind::Server, "500");
    let mut plan = good(&unlisted);
    unlisted.listed = Observation::Unknown(why);
    plan.problem = None;
    assert_ne!(lint_repository_plan(&unlisted, &plan), [], "unknown read as absent");
}

fn image_tree() -> ImageTree {
    let parse = |text: String| Manifest::parse(None, Bytes::from(text), None).expect("a manifest");
    let layer = |n: u64, more: &str| format!(r#"{{"digest":"{}","size":{n}{more}}}"#, digest(&n.to_string()));
    let away =
        r#","mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","urls":["https://x.example/"]"#;
    let child = parse(format!(
        r#"{{"config":{},"layers":[{},{}]}}"#,
        layer(1, ""),
        layer(2, ""),
        layer(3, away)
    ));
    let top = parse(format!(
        r#"{{"manifests":[{{"digest":"{}","size":1}}]}}"#,
        child.digest()
    ));
    ImageTree {
        root: top.digest().clone(),
        manifests: [child, top].map(|m| (m.digest().clone(), m)).into(),
    }
}

#[test]
fn finds_faults_of_an_image_plan() {
    type Fault = fn(&mut ImagePlan);
    let faults: [(&str, Fault); 13] = [
        ("parent first", |plan| plan.manifests.reverse()),
        ("the tag on a child", |plan| {
            plan.manifests[0].reference = Reference::Tag(tag("v1"));
        }),
        ("another digest as reference", |plan| {
            plan.manifests[1].reference = Reference::Digest(digest("x"));
        }),
        ("a manifest twice", |plan| {
            plan.manifests.insert(0, plan.manifests[0].clone())
        }),
        ("a child left out", |plan| drop(plan.manifests.remove(0))),
        ("the top left out", |plan| drop(plan.manifests.pop())),
        ("a foreign manifest", |plan| plan.manifests[0].digest = digest("x")),
        ("a blob twice", |plan| plan.blobs.push(plan.blobs[1].clone())),
        ("a blob left out", |plan| drop(plan.blobs.pop())),
        ("a wrong size", |plan| plan.blobs[0].size = 7),
        ("small blobs first", |plan| plan.blobs.reverse()),
        ("a foreign layer copied", |plan| {
            let step = BlobStep {
                digest: digest("3"),
                size: 3,
                action: BlobAction::Present,
            };
            plan.blobs.insert(0, step);
        }),
        ("a foreign layer forgotten", |plan| plan.foreign.clear()),
    ];
    let tree = image_tree();
    let known = KnownContent {
        mountable: BTreeMap::from([(digest("1"), "base".parse::<RepositoryName>().expect("a name"))]),
        ..KnownContent::default()
    };
    let plan = image_plan(&tree, Some(&tag("v1")), &known).expect("complete");
    assert_eq!(lint_image_plan(&tree, &plan), []);
    for (what, plant) in faults {
        let mut faulty = plan.clone();
        plant(&mut faulty);
        assert_ne!(lint_image_plan(&tree, &faulty), [], "{what}");
    }
    let mut incomplete = tree;
    incomplete.manifests.retain(|digest, _| *digest == incomplete.root);
    assert_ne!(lint_image_plan(&incomplete, &plan), [], "a manifest that was not read");
}
