//! What holds for every plan, whatever the two sides look like: plans are made of generated worlds and carried out on
//! a model of the destinations.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use transship::oci::{Digest, Manifest, Platform, Reference, Tag};
use transship::plan::{
    BlobAction, CopyReason, Decision, DestinationInventory, ErrorKind, ImageTree, KnownContent, Observation,
    RepositoryInventory, RepositoryPlan, Unknown, WantedImage, image_plan, lint_image_plan, lint_repository_plan,
    plan_repository,
};
use transship::rules::{MovedTags, Newest, NewestBy, OnConflict, RegistryName, SemverRange, TagFilter, TagPattern};

const TAGS: [&str; 9] = [
    "v1.0",
    "v1.1.2",
    "v1.2-rc1",
    "v2.0",
    "1.3",
    "latest",
    "nightly",
    "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.sig",
];

fn tag() -> impl Strategy<Value = Tag> {
    select(&TAGS[..]).prop_map(|text| text.parse().expect("a tag"))
}

/// Few digests, so that both sides often hold the same.
fn digest() -> impl Strategy<Value = Digest> {
    (0..4u8).prop_map(|n| Digest::of(&[n]))
}

/// A source tag: what the destination should hold for it, or nothing of the wanted platforms.
#[derive(Clone, Debug)]
struct SourceTag {
    digest: Digest,
    wanted: Option<Digest>,
}

#[derive(Clone, Debug)]
struct DestinationWorld {
    repository: bool,
    tags: BTreeMap<Tag, Digest>,
    written: BTreeMap<Tag, BTreeSet<Digest>>,
    claimed: BTreeSet<Tag>,
}

#[derive(Clone, Debug)]
struct World {
    source: BTreeMap<Tag, SourceTag>,
    destinations: Vec<DestinationWorld>,
}

/// Looks that fail or come too late.
#[derive(Clone, Debug, Default)]
struct Faults {
    source_listing: bool,
    source_tags: BTreeSet<Tag>,
    source_forgotten: BTreeSet<Tag>,
    source_gone: BTreeSet<Tag>,
    destination_listings: BTreeSet<usize>,
    destination_tags: BTreeSet<(usize, Tag)>,
    destination_forgotten: BTreeSet<(usize, Tag)>,
}

#[derive(Clone, Debug)]
struct Rule {
    filter: TagFilter,
    moved: MovedTags,
    conflict: OnConflict,
}

fn world() -> impl Strategy<Value = World> {
    let source_tag = (digest(), prop_oneof![4 => Just(0u8), 1 => Just(1), 1 => Just(2)]).prop_map(|(digest, form)| {
        let wanted = match form {
            0 => Some(digest.clone()),
            1 => Some(Digest::of(digest.hex().as_bytes())),
            _ => None,
        };
        SourceTag { digest, wanted }
    });
    let destination = (
        prop::bool::weighted(0.9),
        btree_map(tag(), digest(), 0..9),
        btree_map(tag(), btree_set(digest(), 0..3), 0..9),
        btree_set(tag(), 0..2),
    )
        .prop_map(|(repository, tags, written, claimed)| DestinationWorld {
            repository,
            tags: if repository { tags } else { BTreeMap::new() },
            written,
            claimed,
        });
    (btree_map(tag(), source_tag, 0..9), vec(destination, 1..4))
        .prop_map(|(source, destinations)| World { source, destinations })
}

fn faults() -> impl Strategy<Value = Faults> {
    let at_destination = || btree_set((0..3usize, tag()), 0..4);
    (
        prop::bool::weighted(0.1),
        btree_set(tag(), 0..3),
        btree_set(tag(), 0..2),
        btree_set(tag(), 0..2),
        subsequence(vec![0, 1, 2], 0..2),
        at_destination(),
        at_destination(),
    )
        .prop_map(
            |(source_listing, source_tags, forgotten, gone, listings, tags, late)| Faults {
                source_listing,
                source_tags,
                source_forgotten: forgotten,
                source_gone: gone,
                destination_listings: listings.into_iter().collect(),
                destination_tags: tags,
                destination_forgotten: late,
            },
        )
}

fn rule() -> impl Strategy<Value = Rule> {
    let patterns = || {
        let all = vec!["v*", "*-rc*", "/^1/", "latest", "*"];
        subsequence(all, 0..3).prop_map(|texts| {
            let read = texts
                .into_iter()
                .map(|text| TagPattern::parse(text).expect("a pattern"));
            read.collect::<Vec<_>>()
        })
    };
    let range = select(&["*", ">=1.1, <2", ">=1.2.0-rc0"][..])
        .prop_map(|text| SemverRange::parse(text, None).expect("a range"));
    let newest = (0..4usize, any::<bool>()).prop_map(|(count, by_name)| Newest {
        count,
        by: if by_name { NewestBy::Name } else { NewestBy::Semver },
    });
    (
        patterns(),
        patterns(),
        option::weighted(0.2, range),
        option::weighted(0.3, newest),
        select(&[MovedTags::Follow, MovedTags::Keep, MovedTags::Fail][..]),
        select(&[OnConflict::Overwrite, OnConflict::Keep, OnConflict::Fail][..]),
    )
        .prop_map(|(include, exclude, semver, newest, moved, conflict)| Rule {
            filter: TagFilter {
                include,
                // `*` as an exclusion leaves nothing to look at.
                exclude: exclude
                    .into_iter()
                    .filter(|pattern| pattern.to_string() != "*")
                    .collect(),
                semver,
                newest,
            },
            moved,
            conflict,
        })
}

fn unknown<T>() -> Observation<T> {
    Observation::Unknown(Unknown::new(ErrorKind::Network, "the connection broke"))
}

fn observe(world: &World, faults: &Faults) -> RepositoryInventory {
    let wanted = |(tag, held): (&Tag, &SourceTag)| {
        let seen = if faults.source_tags.contains(tag) {
            unknown()
        } else if faults.source_gone.contains(tag) {
            Observation::Absent
        } else {
            Observation::Known(WantedImage {
                source: held.digest.clone(),
                digest: held.wanted.clone().ok_or_else(|| vec![Platform::default()]),
                missing_platforms: Vec::new(),
            })
        };
        (tag.clone(), seen)
    };
    RepositoryInventory {
        registry: RegistryName::new("source"),
        repository: "team/app".parse().expect("a name"),
        named: false,
        listed: if faults.source_listing {
            unknown()
        } else {
            Observation::Known(world.source.keys().cloned().collect())
        },
        wanted: world
            .source
            .iter()
            .filter(|(tag, _)| !faults.source_forgotten.contains(*tag))
            .map(wanted)
            .collect(),
        destinations: world
            .destinations
            .iter()
            .enumerate()
            .map(|(place, held)| observe_destination(place, held, faults))
            .collect(),
    }
}

fn observe_destination(place: usize, held: &DestinationWorld, faults: &Faults) -> DestinationInventory {
    let digest = |(tag, digest): (&Tag, &Digest)| {
        let at = (place, tag.clone());
        let failed = faults.destination_tags.contains(&at);
        let seen = if failed {
            unknown()
        } else {
            Observation::Known(digest.clone())
        };
        (!faults.destination_forgotten.contains(&at)).then(|| (tag.clone(), seen))
    };
    DestinationInventory {
        registry: RegistryName::new(format!("destination-{place}")),
        repository: "mirror/app".parse().expect("a name"),
        listed: if faults.destination_listings.contains(&place) {
            unknown()
        } else if held.repository {
            Observation::Known(held.tags.keys().cloned().collect())
        } else {
            Observation::Absent
        },
        digests: held.tags.iter().filter_map(digest).collect(),
        trusted: BTreeSet::new(),
        written: held.written.clone(),
        claimed: held
            .claimed
            .iter()
            .map(|tag| (tag.clone(), "rule other: source:old/app".to_owned()))
            .collect(),
    }
}

fn plan(rule: &Rule, inventory: &RepositoryInventory) -> RepositoryPlan {
    plan_repository(&rule.filter, rule.moved, rule.conflict, inventory)
}

/// Every copy of a plan: place of the destination, tag, digest, reason.
fn copies(plan: &RepositoryPlan) -> Vec<(usize, Tag, Digest, CopyReason)> {
    let mut copies = Vec::new();
    for image in &plan.images {
        for (place, destination) in image.destinations.iter().enumerate() {
            if let Decision::Copy { reason } = destination.decision {
                let digest = image.digest.clone().expect("a copy has a digest");
                copies.push((place, image.tag.clone(), digest, reason));
            }
        }
    }
    copies
}

fn execute(plan: &RepositoryPlan, world: &mut World) {
    for (place, tag, digest, _) in copies(plan) {
        let held = &mut world.destinations[place];
        held.repository = true;
        held.tags.insert(tag.clone(), digest.clone());
        held.written.entry(tag).or_default().insert(digest);
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(512)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn plans_pass_the_lint_and_are_the_same_every_time(world in world(), faults in faults(), rule in rule()) {
        let inventory = observe(&world, &faults);
        let first = plan(&rule, &inventory);
        prop_assert_eq!(lint_repository_plan(&inventory, &first), []);
        prop_assert_eq!(plan(&rule, &inventory), first);
    }

    #[test]
    fn a_plan_carried_out_leaves_nothing_to_do(world in world(), faults in faults(), rule in rule()) {
        let before = plan(&rule, &observe(&world, &faults));
        let mut after = world.clone();
        execute(&before, &mut after);
        let again = plan(&rule, &observe(&after, &faults));
        prop_assert_eq!(copies(&again), []);
        // Whatever was neither copied nor in step is still what it was: kept, failed, skipped or gone.
        prop_assert_eq!(before.images.len(), again.images.len());
        for (image, now) in before.images.iter().zip(&again.images) {
            for (place, (first, second)) in image.destinations.iter().zip(&now.destinations).enumerate() {
                match &first.decision {
                    // A copy is seen to be there, unless this look fails.
                    Decision::Copy { .. } => {
                        let at = (place, image.tag.clone());
                        let unseen = faults.destination_tags.contains(&at) || faults.destination_forgotten.contains(&at);
                        prop_assert!(unseen || second.decision == Decision::InStep, "{:?}", second);
                    }
                    other => prop_assert_eq!(other, &second.decision),
                }
            }
        }
    }

    #[test]
    fn nothing_is_deleted_and_nothing_outside_the_rule_is_touched(world in world(), faults in faults(), rule in rule()) {
        let made = plan(&rule, &observe(&world, &faults));
        let selected = rule.filter.select(world.source.keys().cloned()).selected;
        let mut after = world.clone();
        execute(&made, &mut after);
        for (held, now) in world.destinations.iter().zip(&after.destinations) {
            for (tag, digest) in &held.tags {
                let found = now.tags.get(tag);
                prop_assert!(found.is_some(), "{} is gone", tag);
                prop_assert!(found == Some(digest) || selected.contains(tag), "{} changed", tag);
            }
            for (tag, digest) in &now.tags {
                let source = world.source.get(tag).and_then(|source| source.wanted.as_ref());
                prop_assert!(held.tags.get(tag) == Some(digest) || source == Some(digest), "{} holds what nobody wants", tag);
                prop_assert!(held.tags.get(tag) == Some(digest) || !held.claimed.contains(tag), "{} is claimed", tag);
            }
        }
    }

    /// Less seen, less done: were unknown read as absent, a failed look would bring copies that a good one does not.
    #[test]
    fn a_failed_look_never_adds_work(world in world(), faults in faults(), rule in rule()) {
        let all: BTreeSet<_> = copies(&plan(&rule, &observe(&world, &Faults::default())))
            .into_iter()
            .map(|(place, tag, digest, reason)| (place, tag, digest, reason as u8))
            .collect();
        for (place, tag, digest, reason) in copies(&plan(&rule, &observe(&world, &faults))) {
            prop_assert!(!faults.destination_listings.contains(&place));
            prop_assert!(!faults.source_tags.contains(&tag) && !faults.source_forgotten.contains(&tag));
            prop_assert!(all.contains(&(place, tag, digest, reason as u8)));
        }
    }

    /// Policies only choose among what is to be done; they never make a destination differ that does not.
    #[test]
    fn keeping_and_failing_only_take_copies_away(world in world(), faults in faults(), rule in rule()) {
        let inventory = observe(&world, &faults);
        let open = Rule { moved: MovedTags::Follow, conflict: OnConflict::Overwrite, ..rule.clone() };
        let all = copies(&plan(&open, &inventory));
        let allowed = |reason: CopyReason| match reason {
            CopyReason::Moved => rule.moved == MovedTags::Follow,
            CopyReason::Conflict => rule.conflict == OnConflict::Overwrite,
            CopyReason::NewTag | CopyReason::NewRepository => true,
        };
        let expected: Vec<_> = all.into_iter().filter(|(.., reason)| allowed(*reason)).collect();
        prop_assert_eq!(copies(&plan(&rule, &inventory)), expected);
    }
}

/// An image with nested indexes: each manifest refers to earlier ones only, the last is the root.
fn image_tree() -> impl Strategy<Value = ImageTree> {
    let node = (
        any::<bool>(),
        vec((0..12u64, any::<bool>()), 0..5),
        vec(any::<Index>(), 0..4),
    );
    vec(node, 1..10).prop_map(|nodes| {
        let mut made: Vec<Manifest> = Vec::new();
        for (is_index, blobs, children) in nodes {
            let text = if is_index && !made.is_empty() {
                let entry = |child: &Index| format!(r#"{{"digest":"{}","size":1}}"#, child.get(&made).digest());
                let entries: Vec<String> = children.iter().map(entry).collect();
                format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
            } else {
                let layers: Vec<String> = blobs.iter().map(|(n, foreign)| blob(*n, *foreign)).collect();
                format!(
                    r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
                    blob(made.len() as u64, false),
                    layers.join(",")
                )
            };
            made.push(Manifest::parse(None, Bytes::from(text), None).expect("a manifest"));
        }
        ImageTree {
            root: made[made.len() - 1].digest().clone(),
            // Those that the root does not reach are there too, and must not be touched.
            manifests: made.into_iter().map(|m| (m.digest().clone(), m)).collect(),
        }
    })
}

fn blob(n: u64, foreign: bool) -> String {
    let digest = Digest::of(format!("blob {n}").as_bytes());
    let more = if foreign {
        r#","mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","urls":["https://example.com/x"]"#
    } else {
        ""
    };
    format!(r#"{{"digest":"{digest}","size":{n}{more}}}"#)
}

proptest! {
    #![proptest_config(config())]

    /// The destination is a registry that refuses a manifest whose blobs or children it lacks.
    #[test]
    fn image_plans_suit_a_strict_registry(
        tree in image_tree(),
        tagged in any::<bool>(),
        repository_absent in any::<bool>(),
        present in btree_set(0..12u64, 0..6),
        missing in btree_set(0..12u64, 0..6),
        mountable in btree_set(0..12u64, 0..6),
    ) {
        let digest = |n: u64| Digest::of(format!("blob {n}").as_bytes());
        let tag: Tag = "v1".parse().expect("a tag");
        let known = KnownContent {
            repository_absent,
            present: present.into_iter().map(digest).collect(),
            missing: missing.into_iter().map(digest).collect(),
            mountable: mountable.into_iter().map(|n| (digest(n), "base/os".parse().expect("a name"))).collect(),
        };
        let plan = image_plan(&tree, tagged.then_some(&tag), &known).expect("complete");
        prop_assert_eq!(lint_image_plan(&tree, &plan), []);
        let mut blobs = known.present.clone();
        for step in &plan.blobs {
            match &step.action {
                BlobAction::Present => prop_assert!(known.present.contains(&step.digest)),
                BlobAction::Send { mount_from } | BlobAction::Find { mount_from } => {
                    prop_assert_eq!(mount_from.as_ref(), known.mountable.get(&step.digest));
                    let needs_no_look = repository_absent || known.missing.contains(&step.digest);
                    prop_assert_eq!(matches!(step.action, BlobAction::Send { .. }), needs_no_look);
                    prop_assert!(blobs.insert(step.digest.clone()), "{} is sent twice", step.digest);
                }
            }
        }
        let foreign: BTreeSet<&Digest> = plan.foreign.iter().map(|layer| &layer.digest).collect();
        let mut held: BTreeSet<Digest> = BTreeSet::new();
        let mut tags: BTreeMap<Tag, Digest> = BTreeMap::new();
        for step in &plan.manifests {
            prop_assert!(tags.is_empty(), "something is put after the tag");
            let manifest = &tree.manifests[&step.digest];
            for child in manifest.entries() {
                prop_assert!(held.contains(&child.digest), "{} lacks its child", step.digest);
            }
            for layer in manifest.blobs() {
                prop_assert!(blobs.contains(&layer.digest) || foreign.contains(&layer.digest), "{} lacks a blob", step.digest);
            }
            held.insert(step.digest.clone());
            if let Reference::Tag(tag) = &step.reference {
                tags.insert(tag.clone(), step.digest.clone());
            }
        }
        prop_assert!(held.contains(&tree.root));
        prop_assert_eq!(tags.get(&tag), tagged.then_some(&tree.root));
    }

    #[test]
    fn an_image_with_a_missing_manifest_is_not_planned(tree in image_tree(), lost in any::<Index>()) {
        let reached: Vec<Digest> = tree.children_first().expect("complete").iter().map(|m| m.digest().clone()).collect();
        let lost = lost.get(&reached).clone();
        let mut incomplete = tree;
        incomplete.manifests.remove(&lost);
        let error = image_plan(&incomplete, None, &KnownContent::default()).expect_err("a manifest is missing");
        prop_assert_eq!(error.missing, lost);
    }
}
