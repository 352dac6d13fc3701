//! Which platforms of an image are copied, and whether its attestations are.

use std::collections::BTreeSet;

use crate::oci::{
    Descriptor, Digest, Manifest, ManifestShape, Platform, PlatformSelector, SPLICE_VERSION, SpliceError, keep_entries,
    media_type,
};

/// `platforms:`, `index:` and `attestations:` of a rule. `Default` copies everything, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlatformPolicy {
    /// These platforms only, all where empty; an index is rewritten by taking the entries of others out.
    pub platforms: Vec<PlatformSelector>,
    /// Whether BuildKit's attestations go along.
    pub attestations: Attestations,
}

/// `attestations:`: what becomes of BuildKit's attestations (provenance, SBOM), which are entries of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attestations {
    /// They are copied with their image.
    #[default]
    Keep,
    /// They are taken out of the index, for registries that do not take them.
    Strip,
}

/// Which entries of an index stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEntries {
    /// Distinct digests of the entries that stay, in the index's order, attestations of kept images and artifacts
    /// without a platform included.
    pub keep: Vec<Digest>,
    /// Wanted platforms that the index does not have: a warning.
    pub missing: Vec<PlatformSelector>,
}

/// What a policy makes of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlatformChoice {
    /// Copied as it is (all entries wanted, or an artifact without a platform).
    Unchanged {
        /// Wanted platforms that are not there.
        missing: Vec<PlatformSelector>,
    },
    /// An index with some entries taken out: these bytes are pushed instead.
    Rewritten {
        /// The index without the entries that are not wanted, every other byte as it came.
        bytes: Vec<u8>,
        /// The digest of `bytes`.
        digest: Digest,
        /// Wanted platforms that are not there.
        missing: Vec<PlatformSelector>,
    },
    /// None of the wanted platforms is there.
    Skipped {
        /// The platforms that are.
        available: Vec<Platform>,
    },
}

/// What an entry of an index is to a choice of platforms.
enum EntryKind<'a> {
    /// An image for this platform.
    Image(&'a Platform),
    /// A BuildKit attestation of another entry.
    Attestation(Digest),
    /// One that does not say of which.
    LostAttestation,
    /// A nested index or an artifact, which no platform selects or leaves out.
    Other,
}

impl<'a> EntryKind<'a> {
    fn of(entry: &'a Descriptor) -> Self {
        if let Some(subject) = entry.attestation_of() {
            return Self::Attestation(subject);
        }
        if entry.is_attestation() {
            return Self::LostAttestation;
        }
        match &entry.platform {
            Some(platform) if is_real(platform) => Self::Image(platform),
            _ => Self::Other,
        }
    }
}

/// False for `unknown/unknown` and for a platform without words, which artifacts carry.
fn is_real(platform: &Platform) -> bool {
    !(platform.is_unknown() || platform.os.is_empty() && platform.architecture.is_empty())
}

/// One answer per entry, and the selectors that matched nothing.
struct Verdict {
    kept: Vec<bool>,
    missing: Vec<PlatformSelector>,
    /// Whether any image with a platform stays; `None` where there is no such entry.
    any_image: Option<bool>,
}

impl PlatformPolicy {
    /// A text that is equal for equal policies and changes with the version of the algorithm: the key under
    /// which the store remembers rewritten digests. Order of the selectors does not matter.
    pub fn fingerprint(&self) -> String {
        if self.keeps_all() {
            return "all".to_owned();
        }
        let sorted: BTreeSet<String> = self.platforms.iter().map(ToString::to_string).collect();
        let sorted: Vec<String> = sorted.into_iter().collect();
        // As it was before attestations could be taken out: what is remembered under it stays valid.
        let strip = if self.strips() { "strip-" } else { "" };
        format!("{strip}rewrite-{SPLICE_VERSION}:{}", sorted.join(","))
    }

    /// True where every image is copied byte for byte, without a look at its platforms.
    pub fn keeps_all(&self) -> bool {
        self.platforms.is_empty() && !self.strips()
    }

    /// True where a manifest of this artifact type is left out wherever it is found: BuildKit's attestations are referrers of
    /// their images too.
    pub fn leaves_out(&self, artifact_type: Option<&str>) -> bool {
        self.strips() && artifact_type == Some(media_type::BUILDKIT_ATTESTATION)
    }

    fn strips(&self) -> bool {
        self.attestations == Attestations::Strip
    }

    fn wants(&self, platform: &Platform) -> bool {
        self.platforms.is_empty() || self.platforms.iter().any(|selector| selector.matches(platform))
    }

    fn judge(&self, entries: &[Descriptor]) -> Verdict {
        let kinds: Vec<EntryKind<'_>> = entries.iter().map(EntryKind::of).collect();
        let images: Vec<&Platform> = kinds
            .iter()
            .filter_map(|kind| match kind {
                EntryKind::Image(platform) => Some(*platform),
                _ => None,
            })
            .collect();
        let kept_images: BTreeSet<&Digest> = entries
            .iter()
            .zip(&kinds)
            .filter(|(_, kind)| matches!(kind, EntryKind::Image(platform) if self.wants(platform)))
            .map(|(entry, _)| &entry.digest)
            .collect();
        let stays = |kind: &EntryKind<'_>| match kind {
            EntryKind::Image(platform) => self.wants(platform),
            EntryKind::Attestation(_) | EntryKind::LostAttestation if self.strips() => false,
            EntryKind::Attestation(subject) => self.platforms.is_empty() || kept_images.contains(subject),
            EntryKind::LostAttestation | EntryKind::Other => true,
        };
        let mut kept: Vec<bool> = kinds.iter().map(stays).collect();
        // Attestations and nothing else: without them there would be no image at all.
        if self.strips() && images.is_empty() && !kept.contains(&true) {
            kept.fill(true);
        }
        // Of an index without platforms nobody can say that one is missing.
        let missing = match images.is_empty() {
            true => Vec::new(),
            false => missing(&self.platforms, &images),
        };
        Verdict {
            kept,
            missing,
            any_image: (!images.is_empty()).then_some(!kept_images.is_empty()),
        }
    }

    /// Applies the policy to an index. A nested index (an entry that is itself an index) has no platform and stays whole.
    pub fn choose_entries(&self, entries: &[Descriptor]) -> KeptEntries {
        let verdict = self.judge(entries);
        let mut seen = BTreeSet::new();
        let keep = entries
            .iter()
            .zip(&verdict.kept)
            .filter(|(entry, kept)| **kept && seen.insert(&entry.digest))
            .map(|(entry, _)| entry.digest.clone())
            .collect();
        KeptEntries {
            keep,
            missing: verdict.missing,
        }
    }

    /// Applies the policy to a top manifest. `config_platform` is the platform that a plain image's config names
    /// (`None` for artifacts, or where it was not read because all platforms are wanted).
    /// # Errors
    /// An index that cannot be spliced.
    pub fn choose(
        &self,
        manifest: &Manifest,
        config_platform: Option<&Platform>,
    ) -> Result<PlatformChoice, SpliceError> {
        if manifest.shape() != ManifestShape::Index {
            return Ok(match config_platform {
                Some(platform) if is_real(platform) => {
                    if self.wants(platform) {
                        let missing = missing(&self.platforms, &[platform]);
                        PlatformChoice::Unchanged { missing }
                    } else {
                        let available = vec![platform.clone()];
                        PlatformChoice::Skipped { available }
                    }
                }
                _ => PlatformChoice::Unchanged { missing: Vec::new() },
            });
        }
        let entries = manifest.entries();
        let verdict = self.judge(entries);
        if verdict.any_image == Some(false) {
            let available = entries.iter().filter_map(|entry| match EntryKind::of(entry) {
                EntryKind::Image(platform) => Some(platform.clone()),
                _ => None,
            });
            return Ok(PlatformChoice::Skipped {
                available: available.collect(),
            });
        }
        let missing = verdict.missing;
        if verdict.kept.iter().all(|kept| *kept) {
            return Ok(PlatformChoice::Unchanged { missing });
        }
        // The splice asks for each entry in the index's order, which is the order of the verdict.
        let mut kept = verdict.kept.into_iter();
        let bytes = keep_entries(manifest.bytes(), |_| kept.next().unwrap_or(true))?;
        let digest = Digest::of(&bytes);
        Ok(PlatformChoice::Rewritten { bytes, digest, missing })
    }
}

/// The selectors that match none of `platforms`, each once, in the rule's order.
fn missing(selectors: &[PlatformSelector], platforms: &[&Platform]) -> Vec<PlatformSelector> {
    let mut seen = BTreeSet::new();
    let unmatched = selectors
        .iter()
        .filter(|selector| !platforms.iter().any(|platform| selector.matches(platform)));
    unmatched.filter(|selector| seen.insert(*selector)).cloned().collect()
}

#[cfg(test)]
mod tests {
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
        let choice = policy.choose(&manifest, None).expect("spliced");
        let PlatformChoice::Rewritten { bytes, digest, missing } = choice else {
            panic!("{choice:?}")
        };
        assert_eq!(sizes(&bytes), [1, 4, 6]);
        assert_eq!(digest, Digest::of(&bytes));
        assert_eq!(missing, ["linux/s390x".parse().expect("a selector")]);
        let kept = policy.choose_entries(manifest.entries());
        assert_eq!(kept.keep, [Digest::of(&[1]), Digest::of(&[4]), Digest::of(&[6])]);
        assert_eq!(kept.missing, missing);
        // The same choice again is no change at all.
        let again = Manifest::parse(None, Bytes::from(bytes), None).expect("an index");
        assert_eq!(
            policy.choose(&again, None).expect("unchanged"),
            PlatformChoice::Unchanged { missing }
        );
    }

    #[test]
    fn all_wanted_is_unchanged_and_none_is_skipped() {
        let manifest = index(&[image(1, "linux/amd64"), attestation(4, 1), bare(6)]);
        assert_eq!(
            rewrite(&["linux/amd64"]).choose(&manifest, None).expect("ok"),
            PlatformChoice::Unchanged { missing: vec![] }
        );
        let skipped = rewrite(&["linux/arm64"]).choose(&manifest, None).expect("ok");
        let PlatformChoice::Skipped { available } = skipped else {
            panic!("{skipped:?}")
        };
        assert_eq!(
            available.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["linux/amd64"]
        );
        let all = rewrite(&[]).choose(&manifest, None).expect("ok");
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
            let PlatformChoice::Rewritten { bytes, missing, .. } = policy.choose(manifest, None).expect("spliced")
            else {
                panic!("{policy:?}")
            };
            assert_eq!(missing, []);
            bytes
        };
        let bytes = chosen(strip(&[]), &manifest);
        assert_eq!(sizes(&bytes), [1, 2, 6]);
        let without = index(&[image(1, "linux/amd64"), image(2, "linux/arm64"), bare(6)]);
        assert_eq!(bytes, without.bytes().as_ref(), "every other byte as it was");
        let kept = PlatformChoice::Unchanged { missing: vec![] };
        assert_eq!(
            strip(&[]).choose(&without, None).expect("ok"),
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
            assert_eq!(strip(&[]).choose(&manifest, None).expect("ok"), kept);
        }
        let kind = Some("application/vnd.docker.attestation.manifest.v1+json");
        assert!(strip(&[]).leaves_out(kind) && !rewrite(&["linux/arm64"]).leaves_out(kind));
        assert!(!strip(&[]).leaves_out(None));
    }

    #[test]
    fn an_index_of_artifacts_is_unchanged() {
        let unknown = r#","platform":{"os":"unknown","architecture":"unknown"}}"#;
        let artifact = format!("{}{unknown}", bare(7).trim_end_matches('}'));
        for manifest in [index(&[bare(1), artifact]), index(&[])] {
            assert_eq!(
                rewrite(&["linux/arm64"]).choose(&manifest, None).expect("ok"),
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
            policy.choose(&manifest, Some(&amd64)).expect("ok"),
            PlatformChoice::Unchanged {
                missing: vec!["linux/arm64".parse().expect("a selector")]
            }
        );
        assert_eq!(
            rewrite(&["linux/arm64"]).choose(&manifest, Some(&amd64)).expect("ok"),
            PlatformChoice::Skipped { available: vec![amd64] }
        );
        for artifact in [None, Some(&Platform::default())] {
            assert_eq!(
                policy.choose(&manifest, artifact).expect("ok"),
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
}
