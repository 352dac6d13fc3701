use bytes::Bytes;

use super::*;
use crate::plan::lint_image_plan;

fn digest(n: u64) -> Digest {
    Digest::of(&n.to_le_bytes())
}

fn layer(n: u64) -> String {
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":{n}}}"#,
        digest(n)
    )
}

fn foreign(n: u64, urls: &str) -> String {
    format!(
        r#"{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{}","size":{n},"urls":[{urls}]}}"#,
        digest(n)
    )
}

fn image(config: u64, layers: &[String]) -> Manifest {
    parse(format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        layer(config),
        layers.join(",")
    ))
}

fn index(children: &[&Manifest]) -> Manifest {
    let entry = |child: &&Manifest| format!(r#"{{"digest":"{}","size":1}}"#, child.digest());
    let entries: Vec<String> = children.iter().map(entry).collect();
    parse(format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")))
}

fn parse(text: String) -> Manifest {
    Manifest::parse(None, Bytes::from(text), None).expect("a manifest")
}

fn tree(root: &Manifest, others: &[&Manifest]) -> ImageTree {
    let all = others.iter().copied().chain([root]);
    ImageTree {
        root: root.digest().clone(),
        manifests: all.map(|m| (m.digest().clone(), m.clone())).collect(),
    }
}

fn order(tree: &ImageTree) -> Vec<Digest> {
    let manifests = tree.children_first().expect("complete");
    manifests.iter().map(|manifest| manifest.digest().clone()).collect()
}

#[test]
fn children_come_before_parents_and_shared_ones_once() {
    let a = image(1, &[layer(10), layer(20)]);
    let b = image(2, &[layer(20), layer(5), layer(5)]);
    let inner = index(&[&a, &b]);
    let top = index(&[&a, &inner, &a]);
    let tree = tree(&top, &[&a, &b, &inner]);
    let all = [&a, &b, &inner, &top].map(|m| m.digest().clone());
    assert_eq!(order(&tree), all);
    let sizes: Vec<u64> = tree.blobs().iter().map(|blob| blob.size).collect();
    assert_eq!(sizes, [20, 10, 5, 2, 1]);

    let tag: Tag = "v1".parse().expect("a tag");
    let plan = image_plan(&tree, Some(&tag), &KnownContent::default()).expect("complete");
    assert_eq!(lint_image_plan(&tree, &plan), []);
    let references: Vec<String> = plan.manifests.iter().map(|step| step.reference.to_string()).collect();
    assert_eq!(references[3], "v1");
    assert_eq!(references[0], a.digest().to_string());
    let untagged = image_plan(&tree, None, &KnownContent::default()).expect("complete");
    assert_eq!(
        untagged.manifests.last().map(|step| step.reference.clone()),
        Some(top.digest().clone().into())
    );
}

#[test]
fn an_index_without_entries_is_one_manifest() {
    let top = index(&[]);
    let tree = tree(&top, &[]);
    let plan = image_plan(&tree, None, &KnownContent::default()).expect("complete");
    assert_eq!((plan.blobs.len(), plan.manifests.len()), (0, 1));
}

#[test]
fn a_manifest_that_was_not_read_is_an_error() {
    let a = image(1, &[]);
    let top = index(&[&a]);
    let incomplete = tree(&top, &[]);
    let error = image_plan(&incomplete, None, &KnownContent::default()).expect_err("a child is missing");
    assert_eq!((&error.parent, &error.missing), (top.digest(), a.digest()));
    let rootless = ImageTree {
        root: digest(0),
        manifests: BTreeMap::new(),
    };
    assert_eq!(rootless.children_first().expect_err("no root").missing, digest(0));
    assert!(rootless.blobs().is_empty());
}

#[test]
fn a_tree_that_goes_in_circles_ends() {
    // No digest can make one; a map with wrong keys can.
    let a = index(&[]);
    let b = index(&[&a]);
    let wrong = ImageTree {
        root: a.digest().clone(),
        manifests: BTreeMap::from([(a.digest().clone(), b)]),
    };
    assert_eq!(wrong.children_first().expect("complete").len(), 1);
}

#[test]
fn a_deep_tree_does_not_overflow_the_stack() {
    let mut all = vec![index(&[])];
    for _ in 0..20_000 {
        let parent = index(&[&all[all.len() - 1]]);
        all.push(parent);
    }
    let others: Vec<&Manifest> = all.iter().collect();
    let deep = tree(&all[20_000], &others);
    assert_eq!(order(&deep).len(), 20_001);
}

#[test]
fn what_is_known_decides_how_a_blob_gets_there() {
    let top = image(1, &[layer(10), layer(20), layer(30)]);
    let tree = tree(&top, &[]);
    let other: RepositoryName = "base/x".parse().expect("a name");
    let mut known = KnownContent {
        repository_absent: false,
        present: BTreeSet::from([digest(10), digest(99)]),
        missing: BTreeSet::new(),
        mountable: BTreeMap::from([(digest(20), other.clone()), (digest(10), other.clone())]),
    };
    let actions = |known: &KnownContent| -> Vec<BlobAction> {
        let plan = image_plan(&tree, None, known).expect("complete");
        assert_eq!(lint_image_plan(&tree, &plan), []);
        plan.blobs.into_iter().map(|blob| blob.action).collect()
    };
    let mount_from = Some(other);
    assert_eq!(
        actions(&known),
        [
            BlobAction::Find { mount_from: None },
            BlobAction::Find {
                mount_from: mount_from.clone()
            },
            BlobAction::Present,
            BlobAction::Find { mount_from: None },
        ]
    );
    known.repository_absent = true;
    known.present.clear();
    assert_eq!(
        actions(&known),
        [
            BlobAction::Send { mount_from: None },
            BlobAction::Send {
                mount_from: mount_from.clone()
            },
            BlobAction::Send { mount_from },
            BlobAction::Send { mount_from: None },
        ]
    );
}

#[test]
fn foreign_layers_stay_away_unless_only_a_registry_has_them() {
    let url = r#""https://example.com/x""#;
    let top = image(
        1,
        &[foreign(50, url), foreign(50, url), foreign(40, ""), foreign(30, url)],
    );
    let other = image(2, &[layer(30)]);
    let both = index(&[&top, &other]);
    let tree = tree(&both, &[&top, &other]);
    let plan = image_plan(&tree, None, &KnownContent::default()).expect("complete");
    assert_eq!(lint_image_plan(&tree, &plan), []);
    let sizes: Vec<u64> = plan.blobs.iter().map(|blob| blob.size).collect();
    assert_eq!(sizes, [40, 30, 2, 1]);
    let away: Vec<u64> = plan.foreign.iter().map(|blob| blob.size).collect();
    assert_eq!(away, [50]);
}
