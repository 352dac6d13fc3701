use std::collections::BTreeSet;

use super::*;
use crate::plan::{
    CopyReason, DestinationInventory, Observation, RepositoryInventory, Unknown, WantedImage, plan_repository,
};
use crate::rules::{MovedTags, OnConflict, RegistryName, TagFilter};

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

fn at(hours: i64, seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + hours * 3600 + seconds).expect("a time")
}

fn failed(image: &str, kind: ErrorKind, times: u32, until: Timestamp) -> ParkedFailure {
    ParkedFailure {
        digest: digest(image),
        kind,
        status: Some(403),
        code: Some("DENIED".to_owned()),
        message: "the account needs push rights".to_owned(),
        attempts: 2,
        times,
        until,
    }
}

#[test]
fn the_time_doubles_up_to_a_day_and_counts_from_the_start_of_the_run() {
    let mut before: Option<ParkedFailure> = None;
    let mut waits = Vec::new();
    for _ in 0..7 {
        let (times, until) = park(before.as_ref(), &digest("a"), ErrorKind::Denied, at(0, 0)).expect("final");
        waits.push(until.duration_since(at(0, 0)).as_hours());
        before = Some(failed("a", ErrorKind::Denied, times, until));
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 24, 24]);
    let most = failed("a", ErrorKind::Denied, u32::MAX, at(0, 0));
    let (times, until) = park(Some(&most), &digest("a"), ErrorKind::Denied, at(0, 0)).expect("final");
    assert_eq!((times, until), (u32::MAX, at(24, 0)));
}

#[test]
fn another_digest_or_another_kind_begins_anew() {
    let before = failed("a", ErrorKind::Denied, 4, at(0, 0));
    let times = |image: &str, kind| park(Some(&before), &digest(image), kind, at(0, 0)).map(|(times, _)| times);
    assert_eq!(times("a", ErrorKind::Denied), Some(5));
    assert_eq!(times("b", ErrorKind::Denied), Some(1));
    assert_eq!(times("a", ErrorKind::Invalid), Some(1));
    assert_eq!(times("a", ErrorKind::Network), None);
}

#[test]
fn what_mends_itself_is_not_put_aside() {
    use ErrorKind::*;
    let kinds = [
        Network,
        Throttled,
        Server,
        Corrupt,
        Unauthorized,
        Denied,
        NotFound,
        Conflict,
        Invalid,
        MissingContent,
        Unsupported,
        Quota,
        TooLarge,
        Tls,
        Config,
        Local,
        Cancelled,
    ];
    let passing: Vec<ErrorKind> = kinds
        .into_iter()
        .filter(|kind| park(None, &digest("a"), *kind, at(0, 0)).is_none())
        .collect();
    assert_eq!(passing, [Network, Throttled, Server, Local, Cancelled]);
}

/// Tags `lacking`, `held` (in step), `moved` (the destination holds another digest) and `unseen` (the destination could not say), each with its own name as
/// content.
fn plan() -> RepositoryPlan {
    let names = ["lacking", "held", "moved", "unseen"];
    let wanted = names.iter().map(|name| {
        let wanted = WantedImage {
            source: digest(name),
            digest: Ok(digest(name)),
            missing_platforms: Vec::new(),
        };
        (tag(name), Observation::Known(wanted))
    });
    let unknown = Unknown::new(ErrorKind::Network, "no answer");
    let inventory = RepositoryInventory {
        registry: RegistryName::new("hub"),
        repository: "app".parse().expect("a name"),
        named: true,
        listed: Observation::Known(names.iter().map(|name| tag(name)).collect()),
        wanted: wanted.collect(),
        destinations: vec![DestinationInventory {
            registry: RegistryName::new("ecr"),
            repository: "app".parse().expect("a name"),
            listed: Observation::Known(BTreeSet::from([tag("held"), tag("moved"), tag("unseen")])),
            digests: BTreeMap::from([
                (tag("held"), Observation::Known(digest("held"))),
                (tag("moved"), Observation::Known(digest("older"))),
                (tag("unseen"), Observation::Unknown(unknown)),
            ]),
            trusted: BTreeSet::new(),
            written: BTreeMap::new(),
            claimed: BTreeMap::new(),
        }],
    };
    plan_repository(
        &TagFilter::default(),
        MovedTags::Follow,
        OnConflict::Overwrite,
        &inventory,
    )
}

fn place(name: &str) -> ParkingPlace {
    ("ecr".to_owned(), "app".parse().expect("a name"), tag(name))
}

fn decision<'a>(plan: &'a RepositoryPlan, name: &str) -> &'a Decision {
    let image = plan.images.iter().find(|image| image.tag == tag(name)).expect("a tag");
    &image.destinations[0].decision
}

#[test]
fn an_image_waits_until_its_time_and_counts_as_failed() {
    let failure = failed("lacking", ErrorKind::Denied, 1, at(1, 0));
    let parked = || BTreeMap::from([(place("lacking"), failure.clone())]);
    let mut waiting = plan();
    let unchanged = decision(&waiting, "moved").clone();
    assert_eq!(put_aside(&mut waiting, parked(), true, at(0, 3539)), Parking::default());
    let expected = Decision::Fail {
        kind: ErrorKind::Denied,
        reason: FailReason::Parked(Box::new(failure.clone())),
    };
    assert_eq!(decision(&waiting, "lacking"), &expected);
    assert_eq!(decision(&waiting, "moved"), &unchanged, "only that image");

    // Its time has come, all but a minute; or somebody wants it at once; or the clock was ahead when it was put down.
    for (obeys, now) in [(true, at(0, 3540)), (false, at(0, 0)), (true, at(-24, 0))] {
        let mut tried = plan();
        let parking = put_aside(&mut tried, parked(), obeys, now);
        assert_eq!(parking.tried, parked());
        assert_eq!((parking.over.len(), parking.unwanted.len()), (0, 0));
        let reason = CopyReason::NewTag;
        assert_eq!(decision(&tried, "lacking"), &Decision::Copy { reason });
    }
}

#[test]
fn what_no_longer_holds_is_forgotten() {
    let mut now = plan();
    let parked = [
        ("held", "held"),
        ("moved", "before it moved"),
        ("unseen", "unseen"),
        ("gone", "gone"),
    ];
    let parked = parked.map(|(name, image)| (place(name), failed(image, ErrorKind::Denied, 1, at(9, 0))));
    let parking = put_aside(&mut now, BTreeMap::from(parked.clone()), true, at(0, 0));
    assert_eq!(parking.over, [place("held"), place("moved")]);
    assert_eq!(parking.unwanted, [place("gone")]);
    assert_eq!(parking.tried, BTreeMap::new());
    assert_eq!(now, plan(), "nothing waits");

    let mut unknown = plan();
    unknown.problem = Some(crate::plan::RepositoryProblem::Missing);
    unknown.images.clear();
    let kept = put_aside(&mut unknown, BTreeMap::from(parked), true, at(0, 0));
    assert_eq!(kept, Parking::default(), "a repository that was not seen says nothing");
}
