//! When a digest is good enough that nobody looked up for this run: what a listing says beside a tag, and what is
//! remembered of a destination's tag.

use super::inventory::{Observation, WantedImage};
use crate::oci::Digest;

/// In which shapes of manifests the digests of a listing were those that a look at the tag gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// For an index.
    pub index: bool,
    /// For a manifest that is no index.
    pub plain: bool,
}

impl Agreement {
    /// Of a kind whose listings are known to tell what a look tells.
    pub const KNOWN: Self = Self {
        index: true,
        plain: true,
    };

    /// True where a listed digest is believed. `is_index`: `None` where the listing does not say what the manifest is; then
    /// both shapes must have agreed, as some listings give an index the digest of one of its images.
    pub fn holds_for(self, is_index: Option<bool>) -> bool {
        match is_index {
            Some(true) => self.index,
            Some(false) => self.plain,
            None => self.index && self.plain,
        }
    }

    /// The shapes of which `looks` (what the listing said, what the look gave, and whether that is an index) agreed; `None` where one
    /// differs, as then the listing's digests mean something else.
    pub fn of_looks<'a>(looks: impl IntoIterator<Item = (&'a Digest, &'a Digest, bool)>) -> Option<Self> {
        let mut seen = Self::default();
        for (listed, looked, is_index) in looks {
            if listed != looked {
                return None;
            }
            if is_index {
                seen.index = true;
            } else {
                seen.plain = true;
            }
        }
        Some(seen)
    }

    /// What either has.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            index: self.index || other.index,
            plain: self.plain || other.plain,
        }
    }

    /// What this has and the other lacks.
    #[must_use]
    pub fn beyond(self, other: Self) -> Self {
        Self {
            index: self.index && !other.index,
            plain: self.plain && !other.plain,
        }
    }

    /// True where it has nothing.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// True where a destination's tag that is believed to point to `believed` must be looked at all the same: it is about to
/// be written, or kept, or to fail, because of what it points to.
pub fn needs_look(believed: &Digest, wanted: Option<&Observation<WantedImage>>) -> bool {
    match wanted {
        Some(Observation::Known(WantedImage { digest: Ok(digest), .. })) => digest != believed,
        // What becomes of it does not depend on what the destination holds.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{ErrorKind, Unknown};

    fn wanted(digest: Result<Digest, Vec<crate::oci::Platform>>) -> Observation<WantedImage> {
        Observation::Known(WantedImage {
            source: Digest::of(b"source"),
            digest,
            missing_platforms: Vec::new(),
        })
    }

    #[test]
    fn only_a_difference_needs_a_look() {
        let (same, other) = (Digest::of(b"same"), Digest::of(b"other"));
        assert!(!needs_look(&same, Some(&wanted(Ok(same.clone())))));
        assert!(needs_look(&same, Some(&wanted(Ok(other)))));
        assert!(!needs_look(&same, Some(&wanted(Err(Vec::new())))));
        assert!(!needs_look(&same, Some(&Observation::Absent)));
        let unknown = Observation::Unknown(Unknown::new(ErrorKind::Network, "broke"));
        assert!(!needs_look(&same, Some(&unknown)));
        assert!(!needs_look(&same, None));
    }

    #[test]
    fn a_listing_is_believed_for_what_agreed() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let plain = Agreement::of_looks([(&one, &one, false)]).expect("nothing differs");
        assert!(plain.holds_for(Some(false)) && !plain.holds_for(Some(true)) && !plain.holds_for(None));
        let index = Agreement::of_looks([(&two, &two, true)]).expect("nothing differs");
        assert_eq!(plain.and(index), Agreement::KNOWN);
        assert!(plain.and(index).holds_for(None));
        assert_eq!(Agreement::KNOWN.beyond(index), plain);
        assert!(plain.beyond(Agreement::KNOWN).is_empty());
        assert_eq!(
            Agreement::of_looks([(&one, &one, false), (&one, &two, false)]),
            None,
            "one difference is enough"
        );
        assert_eq!(Agreement::of_looks([]), Some(Agreement::default()));
    }
}
