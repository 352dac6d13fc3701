//! What a policy makes of an index, byte by byte.

use bytes::Bytes;

use super::*;

fn rewrite(selectors: &[&str]) -> PlatformPolicy {
    PlatformPolicy {
        platforms: selectors.iter().map(|s| s.parse().expect("a selector")).collect(),
        attestations: Attestations::Keep,
    }
}

fn strip(selectors: &[&str]) -> PlatformPolicy {
    PlatformPolicy {
        attestations: Attestations::Strip,
        ..rewrite(selectors)
    }
}

fn image(n: u8, platform: &str) -> String {
    let (os, architecture) = platform.split_once('/').expect("os/architecture");
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{n},"platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#,
        Digest::of(&[n])
    )
}

fn attestation(n: u8, of: u8) -> String {
    format!(
        r#"{{"digest":"{}","size":{n},"platform":{{"os":"unknown","architecture":"unknown"}},"annotations":{{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"{}"}}}}"#,
        Digest::of(&[n]),
        Digest::of(&[of])
    )
}

fn bare(n: u8) -> String {
    format!(r#"{{"digest":"{}","size":{n}}}"#, Digest::of(&[n]))
}

fn index(entries: &[String]) -> Manifest {
    let text = format!(
        "{{\n  \"schemaVersion\": 2, \"manifests\": [{}]\n}}\n",
        entries.join(",\n ")
    );
    Manifest::parse(None, Bytes::from(text), None).expect("an index")
}

fn sizes(bytes: &[u8]) -> Vec<u64> {
    let manifest = Manifest::parse(None, Bytes::copy_from_slice(bytes), None).expect("an index");
    manifest.entries().iter().map(|entry| entry.size).collect()
}

#[test]
fn unwanted_platforms_and_their_attestations_go() {
    let entries = [
        image(1, "linux/amd64"),
        image(2, "linux/arm64"),
        image(3, "windows/amd64"),
        attestation(4, 1),
        attestation(5, 2),
        bare(6),
    ];
    let manifest = index(&entries);
    let policy = rewrite(&["linux/amd64", "linux/s390x", "linux/s390x"]);
    let choice = policy.choose(&manifest, None, &BTreeMap::new()).expect("spliced");
    let PlatformChoice::Rewritten { top, within, missing } = choice else {
        panic!("{choice:?}")
    };
    assert_eq!(sizes(&top.bytes), [1, 4, 6]);
    assert_eq!(top.digest, Digest::of(&top.bytes));
    assert_eq!(within, []);
    assert_eq!(missing, ["linux/s390x".parse().expect("a selector")]);
    let kept = policy.choose_entries(manifest.entries());
    assert_eq!(kept.keep, [Digest::of(&[1]), Digest::of(&[4]), Digest::of(&[6])]);
    assert_eq!(kept.missing, missing);
    // The same choice again is no change at all.
    let again = Manifest::parse(None, Bytes::from(top.bytes), None).expect("an index");
    assert_eq!(
        policy.choose(&again, None, &BTreeMap::new()).expect("unchanged"),
        PlatformChoice::Unchanged { missing }
    );
}

#[test]
fn all_wanted_is_unchanged_and_none_is_skipped() {
    let manifest = index(&[image(1, "linux/amd64"), attestation(4, 1), bare(6)]);
    assert_eq!(
        rewrite(&["linux/amd64"])
            .choose(&manifest, None, &BTreeMap::new())
            .expect("ok"),
        PlatformChoice::Unchanged { missing: vec![] }
    );
    let skipped = rewrite(&["linux/arm64"])
        .choose(&manifest, None, &BTreeMap::new())
        .expect("ok");
    let PlatformChoice::Skipped { available } = skipped else {
        panic!("{skipped:?}")
    };
    assert_eq!(
        available.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["linux/amd64"]
    );
    let all = rewrite(&[]).choose(&manifest, None, &BTreeMap::new()).expect("ok");
    assert_eq!(all, PlatformChoice::Unchanged { missing: vec![] });
    assert_eq!(rewrite(&[]).choose_entries(manifest.entries()).keep.len(), 3);
}

#[test]
fn attestations_go_and_everything_else_stays() {
    let lost = attestation(5, 2).replace(
        &format!(",\"vnd.docker.reference.digest\":\"{}\"", Digest::of(&[2])),
        "",
    );
    let entries = [
        image(1, "linux/amd64"),
        attestation(4, 1),
        image(2, "linux/arm64"),
        lost,
        bare(6),
    ];
    let manifest = index(&entries);
    let chosen = |policy: PlatformPolicy, manifest: &Manifest| {
        let choice = policy.choose(manifest, None, &BTreeMap::new()).expect("spliced");
        let PlatformChoice::Rewritten { top, missing, .. } = choice else {
            panic!("{choice:?}")
        };
        assert_eq!(missing, []);
        top.bytes
    };
    let bytes = chosen(strip(&[]), &manifest);
    assert_eq!(sizes(&bytes), [1, 2, 6]);
    let without = index(&[image(1, "linux/amd64"), image(2, "linux/arm64"), bare(6)]);
    assert_eq!(bytes, without.bytes().as_ref(), "every other byte as it was");
    let kept = PlatformChoice::Unchanged { missing: vec![] };
    assert_eq!(
        strip(&[]).choose(&without, None, &BTreeMap::new()).expect("ok"),
        kept,
        "nothing to do again"
    );
    assert_eq!(sizes(&chosen(strip(&["linux/arm64"]), &manifest)), [2, 6]);
    // One image with its attestation stays an index.
    let single = index(&[image(1, "linux/amd64"), attestation(4, 1)]);
    assert_eq!(sizes(&chosen(strip(&["linux/amd64"]), &single)), [1]);
    // Something that is for a platform is an image, whatever its marks; of attestations alone nothing would be left.
    let marked = attestation(4, 1)
        .replace("unknown", "linux")
        .replace(&Digest::of(&[1]).to_string(), "none");
    for manifest in [index(&[image(1, "linux/amd64"), marked]), index(&[attestation(4, 1)])] {
        assert_eq!(strip(&[]).choose(&manifest, None, &BTreeMap::new()).expect("ok"), kept);
    }
    let kind = Some("application/vnd.docker.attestation.manifest.v1+json");
    assert!(strip(&[]).leaves_out(kind) && !rewrite(&["linux/arm64"]).leaves_out(kind));
    assert!(!strip(&[]).leaves_out(None));
}

/// An entry for an index within an index.
fn nested(of: &Manifest) -> String {
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{}","size":{}}}"#,
        of.digest(),
        of.bytes().len()
    )
}

#[test]
fn attestations_go_from_indexes_within_too() {
    let inner = index(&[image(1, "linux/amd64"), attestation(4, 1)]);
    let stays = index(&[image(2, "linux/arm64")]);
    let middle = index(&[nested(&inner), nested(&stays), bare(7)]);
    let of_the_middle = format!(
        r#"{{"digest":"{}","size":8,"platform":{{"os":"unknown","architecture":"unknown"}},"annotations":{{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"{}"}}}}"#,
        Digest::of(&[8]),
        middle.digest()
    );
    let top = index(&[nested(&middle), nested(&inner), of_the_middle, bare(9)]);
    let read: BTreeMap<Digest, Manifest> = [&inner, &stays, &middle]
        .map(|manifest| (manifest.digest().clone(), manifest.clone()))
        .into();

    let inner_left = index(&[image(1, "linux/amd64")]);
    let middle_left = index(&[nested(&inner_left), nested(&stays), bare(7)]);
    let left = index(&[nested(&middle_left), nested(&inner_left), bare(9)]);
    for policy in [strip(&[]), strip(&["linux/arm64"])] {
        let choice = policy.choose(&top, None, &read).expect("spliced");
        let PlatformChoice::Rewritten { top, within, .. } = choice else {
            panic!("{choice:?}")
        };
        assert_eq!(
            (top.bytes.as_slice(), &top.digest),
            (left.bytes().as_ref(), left.digest())
        );
        let made: Vec<&Digest> = within.iter().map(|index| &index.digest).collect();
        assert_eq!(
            made,
            [inner_left.digest(), middle_left.digest()],
            "each once, children first"
        );
        assert_eq!(within[0].bytes, inner_left.bytes().as_ref());
        assert_eq!(within[1].media_type, "application/vnd.oci.image.index.v1+json");
    }
    // What is left is left.
    let again: BTreeMap<Digest, Manifest> = [&inner_left, &stays, &middle_left]
        .map(|manifest| (manifest.digest().clone(), manifest.clone()))
        .into();
    let kept = PlatformChoice::Unchanged { missing: vec![] };
    assert_eq!(strip(&[]).choose(&left, None, &again).expect("ok"), kept);
    // Who keeps them, or leaves an entry out, looks into nothing.
    let entries = top.entries();
    assert!(strip(&[]).looks_into(&entries[0]) && !strip(&[]).looks_into(&entries[2]));
    assert!(!strip(&[]).looks_into(&entries[3]) && !rewrite(&["linux/arm64"]).looks_into(&entries[0]));
}

#[test]
fn an_index_of_artifacts_is_unchanged() {
    let unknown = r#","platform":{"os":"unknown","architecture":"unknown"}}"#;
    let artifact = format!("{}{unknown}", bare(7).trim_end_matches('}'));
    for manifest in [index(&[bare(1), artifact]), index(&[])] {
        assert_eq!(
            rewrite(&["linux/arm64"])
                .choose(&manifest, None, &BTreeMap::new())
                .expect("ok"),
            PlatformChoice::Unchanged { missing: vec![] }
        );
    }
}

#[test]
fn a_plain_image_is_judged_by_its_config() {
    let text = r#"{"schemaVersion":2,"config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}"#;
    let manifest = Manifest::parse(None, Bytes::from_static(text.as_bytes()), None).expect("an image");
    let amd64 = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        ..Platform::default()
    };
    let policy = rewrite(&["linux/amd64", "linux/arm64"]);
    assert_eq!(
        policy.choose(&manifest, Some(&amd64), &BTreeMap::new()).expect("ok"),
        PlatformChoice::Unchanged {
            missing: vec!["linux/arm64".parse().expect("a selector")]
        }
    );
    assert_eq!(
        rewrite(&["linux/arm64"])
            .choose(&manifest, Some(&amd64), &BTreeMap::new())
            .expect("ok"),
        PlatformChoice::Skipped { available: vec![amd64] }
    );
    for artifact in [None, Some(&Platform::default())] {
        assert_eq!(
            policy.choose(&manifest, artifact, &BTreeMap::new()).expect("ok"),
            PlatformChoice::Unchanged { missing: vec![] }
        );
    }
}

#[test]
fn fingerprints_tell_policies_apart() {
    let print = |selectors: &[&str]| rewrite(selectors).fingerprint();
    assert_eq!(
        print(&["linux/arm64", "linux/amd64"]),
        print(&["linux/amd64", "linux/arm64", "linux/amd64"])
    );
    assert_ne!(print(&["linux/arm64"]), print(&["linux/arm64/v8"]));
    assert_eq!((print(&[]), rewrite(&[]).keeps_all()), ("all".to_owned(), true));
    let stripped = strip(&["linux/arm64"]).fingerprint();
    assert_ne!(stripped, print(&["linux/arm64"]));
    assert_ne!(strip(&[]).fingerprint(), stripped);
    assert!(!strip(&[]).keeps_all());
    assert!(print(&["linux/arm64"]).contains(&SPLICE_VERSION.to_string()));
}
