//! Whether a plan for a tag is still the newest one.

use crate::oci::Digest;

/// What a run planned a destination's tag to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTag {
    /// When the source was looked at for it: the number of that look, growing in time.
    pub look: u64,
    /// What it is to hold.
    pub digest: Digest,
}

/// Whether a put of `digest` that was planned from `look` must not happen any more: a newer look at the source found something else.
pub fn is_overtaken(look: u64, digest: &Digest, newest: &PlannedTag) -> bool {
    newest.look > look && newest.digest != *digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_newer_plan_for_something_else_overtakes() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let newest = PlannedTag {
            look: 7,
            digest: new.clone(),
        };
        assert!(is_overtaken(6, &old, &newest));
        assert!(!is_overtaken(6, &new, &newest), "both want the same");
        assert!(!is_overtaken(7, &old, &newest), "it is the newest itself");
        assert!(!is_overtaken(8, &old, &newest));
    }
}
