use std::collections::BTreeSet;

use super::*;
use crate::oci::Platform;
use crate::plan::lint_repository_plan;

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

fn broken(kind: ErrorKind) -> Unknown {
    Unknown {
        status: Some(503),
        ..Unknown::new(kind, format!("{kind} at hub"))
    }
}

fn wanted(text: &str) -> WantedImage {
    WantedImage {
        source: digest(text),
        digest: Ok(digest(text)),
        missing_platforms: Vec::new(),
    }
}

/// One tag `v1` that points to `new` at the source, and one destination whose tag is there with the digest `held`.
fn inventory(held: Observation<Digest>) -> RepositoryInventory {
    RepositoryInventory {
        registry: RegistryName::new("hub"),
        repository: "app".parse().expect("a name"),
        named: true,
        listed: Observation::Known(vec![tag("v1")]),
        wanted: BTreeMap::from([(tag("v1"), Observation::Known(wanted("new")))]),
        destinations: vec![DestinationInventory {
            registry: RegistryName::new("ecr"),
            repository: "mirror/app".parse().expect("a name"),
            listed: Observation::Known(BTreeSet::from([tag("v1")])),
            digests: BTreeMap::from([(tag("v1"), held)]),
            trusted: BTreeSet::new(),
            written: BTreeMap::from([(tag("v1"), BTreeSet::from([digest("ours")]))]),
            claimed: BTreeMap::new(),
        }],
    }
}

fn plan(moved: MovedTags, conflict: OnConflict, inventory: &RepositoryInventory) -> RepositoryPlan {
    let plan = plan_repository(&TagFilter::default(), moved, conflict, inventory);
    assert_eq!(lint_repository_plan(inventory, &plan), []);
    plan
}

fn decision(inventory: &RepositoryInventory) -> Decision {
    let plan = plan(MovedTags::Follow, OnConflict::Overwrite, inventory);
    plan.images[0].destinations[0].decision.clone()
}

fn copy(reason: CopyReason) -> Decision {
    Decision::Copy { reason }
}

#[test]
fn what_the_destination_holds_decides() {
    for (held, expected) in [
        (Observation::Known(digest("new")), Decision::InStep),
        (Observation::Known(digest("ours")), copy(CopyReason::Moved)),
        (Observation::Known(digest("theirs")), copy(CopyReason::Conflict)),
        (Observation::Absent, copy(CopyReason::NewTag)),
        (
            Observation::Unknown(broken(ErrorKind::Network)),
            Decision::Fail {
                kind: ErrorKind::Network,
                reason: FailReason::DestinationUnknown(broken(ErrorKind::Network)),
            },
        ),
    ] {
        assert_eq!(decision(&inventory(held.clone())), expected, "{held:?}");
    }
}

#[test]
fn policies_for_what_differs() {
    let moved = inventory(Observation::Known(digest("ours")));
    let foreign = inventory(Observation::Known(digest("theirs")));
    let decide = |m, c, inventory| plan(m, c, inventory).images[0].destinations[0].clone();
    let kept = decide(MovedTags::Keep, OnConflict::Fail, &moved);
    assert_eq!(
        kept.decision,
        Decision::Keep {
            reason: CopyReason::Moved
        }
    );
    assert_eq!(kept.previous, Some(digest("ours")));
    let fail = |reason| Decision::Fail {
        kind: ErrorKind::Conflict,
        reason,
    };
    assert_eq!(
        decide(MovedTags::Fail, OnConflict::Overwrite, &moved).decision,
        fail(FailReason::MovedTag)
    );
    assert_eq!(
        decide(MovedTags::Fail, OnConflict::Keep, &foreign).decision,
        Decision::Keep {
            reason: CopyReason::Conflict
        }
    );
    assert_eq!(
        decide(MovedTags::Follow, OnConflict::Fail, &foreign).decision,
        fail(FailReason::Conflict)
    );
}

#[test]
fn listings_of_the_destination() {
    let held = || Observation::Known(digest("theirs"));
    let mut seen = inventory(held());
    seen.destinations[0].listed = Observation::Absent;
    assert_eq!(decision(&seen), copy(CopyReason::NewRepository));
    seen.destinations[0].listed = Observation::Known(BTreeSet::from([tag("v2")]));
    assert_eq!(decision(&seen), copy(CopyReason::NewTag));
    seen.destinations[0].listed = Observation::Unknown(broken(ErrorKind::Denied));
    let expected = Decision::Fail {
        kind: ErrorKind::Denied,
        reason: FailReason::DestinationUnknown(broken(ErrorKind::Denied)),
    };
    assert_eq!(decision(&seen), expected);
    let mut seen = inventory(held());
    seen.destinations[0].digests.clear();
    assert!(matches!(
        decision(&seen),
        Decision::Fail {
            reason: FailReason::DestinationUnknown(_),
            ..
        }
    ));
}

#[test]
fn trust_is_told_of_images_in_step_only() {
    for (held, told) in [("new", true), ("ours", false)] {
        let mut seen = inventory(Observation::Known(digest(held)));
        seen.destinations[0].trusted.insert(tag("v1"));
        let plan = plan_images(MovedTags::Follow, OnConflict::Overwrite, &seen, &[tag("v1")]);
        assert_eq!(plan[0].destinations[0].trusted, told, "{held}");
    }
}

#[test]
fn what_the_source_holds_comes_first() {
    let mut seen = inventory(Observation::Known(digest("new")));
    seen.destinations[0].claimed.insert(tag("v1"), "rule b: hub/x".into());
    let expected = Decision::Fail {
        kind: ErrorKind::Config,
        reason: FailReason::Ambiguous {
            claim: "rule b: hub/x".into(),
        },
    };
    assert_eq!(decision(&seen), expected);
    seen.wanted.insert(tag("v1"), Observation::Absent);
    assert_eq!(decision(&seen), Decision::Gone);
    seen.wanted
        .insert(tag("v1"), Observation::Unknown(broken(ErrorKind::Throttled)));
    assert!(matches!(
        decision(&seen),
        Decision::Fail {
            kind: ErrorKind::Throttled,
            reason: FailReason::SourceUnknown(_)
        }
    ));
    seen.wanted.clear();
    assert!(matches!(
        decision(&seen),
        Decision::Fail {
            reason: FailReason::SourceUnknown(_),
            ..
        }
    ));
    let amd64 = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        ..Platform::default()
    };
    let nothing = WantedImage {
        digest: Err(vec![amd64]),
        ..wanted("new")
    };
    seen.wanted.insert(tag("v1"), Observation::Known(nothing));
    let available = vec!["linux/amd64".to_owned()];
    assert_eq!(decision(&seen), Decision::Skip { available });
}

#[test]
fn listings_of_the_source() {
    let plan = |listed, named| {
        let mut seen = inventory(Observation::Absent);
        (seen.listed, seen.named) = (listed, named);
        let plan = plan(MovedTags::Follow, OnConflict::Overwrite, &seen);
        assert!(plan.images.is_empty() && plan.excluded.is_empty());
        plan.problem
    };
    assert_eq!(plan(Observation::Absent, true), Some(RepositoryProblem::Missing));
    assert_eq!(plan(Observation::Absent, false), None);
    assert_eq!(plan(Observation::Known(vec![]), true), None);
    let why = broken(ErrorKind::Server);
    for named in [true, false] {
        assert_eq!(
            plan(Observation::Unknown(why.clone()), named),
            Some(RepositoryProblem::Unknown(why.clone()))
        );
    }
}

#[test]
fn a_plan_as_json() {
    let seen = inventory(Observation::Known(digest("theirs")));
    let plan = plan(MovedTags::Follow, OnConflict::Fail, &seen);
    let json = serde_json::to_value(&plan).expect("serialisable");
    let destination = &json["images"][0]["destinations"][0];
    assert_eq!(destination["action"], "fail");
    assert_eq!(destination["kind"], "conflict");
    assert_eq!(destination["reason"]["because"], "conflict");
    assert_eq!(destination["previous"], digest("theirs").to_string());
    let mut unlisted = seen;
    unlisted.listed = Observation::Unknown(broken(ErrorKind::Server));
    let plan = plan_repository(&TagFilter::default(), MovedTags::Follow, OnConflict::Fail, &unlisted);
    let json = serde_json::to_value(&plan).expect("serialisable");
    assert_eq!(json["problem"]["problem"], "unknown");
    assert_eq!(json["problem"]["kind"], "server");
}
