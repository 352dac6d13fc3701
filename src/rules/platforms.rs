//! Which platforms of an image are copied, and whether its attestations are.

use std::collections::{BTreeMap, BTreeSet};

use crate::oci::{
    Descriptor, Digest, EntryEdit, Manifest, ManifestShape, Platform, PlatformSelector, SPLICE_VERSION, SpliceError,
    edit_entries, media_type,
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
    /// An index with some entries taken out, of itself or of an index within it.
    Rewritten {
        /// What is pushed instead.
        top: RewrittenIndex,
        /// Those within it that are rewritten too, children before parents.
        within: Vec<RewrittenIndex>,
        /// Wanted platforms that are not there.
        missing: Vec<PlatformSelector>,
    },
    /// None of the wanted platforms is there.
    Skipped {
        /// The platforms that are.
        available: Vec<Platform>,
    },
}

/// An index without the entries that are not wanted, every other byte as it came but the names of indexes within it that
/// are rewritten too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewrittenIndex {
    /// As it was.
    pub media_type: String,
    /// Its bytes now.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
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
        // As it was before attestations could be taken out: what is remembered under it stays valid. The second way of taking
        // them out looks into indexes within an index, which the first left alone.
        let strip = if self.strips() { "strip-2-" } else { "" };
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

    /// True for an entry of an index that is an index itself, whose attestations are to be taken out: what it names must be
    /// read for [`PlatformPolicy::choose`].
    pub fn looks_into(&self, entry: &Descriptor) -> bool {
        self.strips()
            && media_type::is_index(&entry.media_type)
            && match EntryKind::of(entry) {
                EntryKind::Image(platform) => self.wants(platform),
                EntryKind::Attestation(_) | EntryKind::LostAttestation => false,
                EntryKind::Other => true,
            }
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

    /// Applies the policy to an index. A nested index (an entry that is itself an index) has no platform and stays.
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
    /// (`None` for artifacts, or where it was not read because all platforms are wanted). `read`: the indexes that
    /// [`PlatformPolicy::looks_into`] names, at any depth; one that is not among them stays whole. Of those, platforms select
    /// nothing: only their attestations go.
    ///
    /// # Errors
    /// An index that cannot be spliced.
    pub fn choose(
        &self,
        manifest: &Manifest,
        config_platform: Option<&Platform>,
        read: &BTreeMap<Digest, Manifest>,
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
        let mut cutter = Cutter {
            policy: self,
            read,
            known: BTreeMap::new(),
            made: Vec::new(),
        };
        let choice = match cutter.cut(manifest, verdict.kept)? {
            None => PlatformChoice::Unchanged { missing },
            Some(top) => PlatformChoice::Rewritten {
                top,
                within: cutter.made,
                missing,
            },
        };
        Ok(choice)
    }
}

/// Takes entries out of an index and of those within it.
struct Cutter<'a> {
    policy: &'a PlatformPolicy,
    /// The indexes within, by digest.
    read: &'a BTreeMap<Digest, Manifest>,
    /// What became of those that were looked into; `None` for one that stays.
    known: BTreeMap<&'a Digest, Option<(Digest, u64)>>,
    /// Those that do not stay, children before parents.
    made: Vec<RewrittenIndex>,
}

impl<'a> Cutter<'a> {
    /// `index` with those of its entries that `kept` says, in their order; `None` where nothing of it changes.
    fn cut(&mut self, index: &'a Manifest, kept: Vec<bool>) -> Result<Option<RewrittenIndex>, SpliceError> {
        let mut edits = Vec::with_capacity(kept.len());
        for (entry, kept) in index.entries().iter().zip(kept) {
            edits.push(match kept {
                true => self.within(entry)?,
                false => EntryEdit::Drop,
            });
        }
        if edits.iter().all(|edit| *edit == EntryEdit::Keep) {
            return Ok(None);
        }
        // The splice asks for each entry in the index's order, which is theirs.
        let mut edits = edits.into_iter();
        let bytes = edit_entries(index.bytes(), |_| edits.next().unwrap_or(EntryEdit::Keep))?;
        Ok(Some(RewrittenIndex {
            media_type: index.media_type().to_owned(),
            digest: Digest::of(&bytes),
            bytes,
        }))
    }

    /// What becomes of an entry that stays: it names another index where attestations go from its own. As deep as what was read.
    fn within(&mut self, entry: &Descriptor) -> Result<EntryEdit, SpliceError> {
        let read = self.read;
        let Some((digest, index)) = read
            .get_key_value(&entry.digest)
            .filter(|_| self.policy.looks_into(entry))
        else {
            return Ok(EntryEdit::Keep);
        };
        let became = match self.known.get(digest) {
            Some(became) => became.clone(),
            None => {
                let all_platforms = PlatformPolicy {
                    platforms: Vec::new(),
                    attestations: self.policy.attestations,
                };
                let cut = self.cut(index, all_platforms.judge(index.entries()).kept)?;
                let became = cut.as_ref().map(|cut| (cut.digest.clone(), cut.bytes.len() as u64));
                self.made.extend(cut);
                self.known.insert(digest, became.clone());
                became
            }
        };
        Ok(became.map_or(EntryEdit::Keep, |(digest, size)| EntryEdit::Replace { digest, size }))
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
mod tests;
