//! Which platforms of an image are copied.

use crate::oci::{Descriptor, Digest, Manifest, Platform, PlatformSelector};

/// `platforms:` and `index:` of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PlatformPolicy {
    /// Everything, byte for byte (`index: keep`, and no `platforms:`).
    #[default]
    All,
    /// These platforms; an index is rewritten by taking entries out (`index: rewrite`).
    Rewrite(Vec<PlatformSelector>),
}

impl PlatformPolicy {
    /// A text that is equal for equal policies and changes with the version of the algorithm: the key under
    /// which the store remembers rewritten digests. Order of the selectors does not matter.
    pub fn fingerprint(&self) -> String {
        unimplemented!()
    }
}

/// Which entries of an index stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEntries {
    /// Digests of the entries that stay, attestations of kept images and artifacts without a platform included.
    pub keep: Vec<Digest>,
    /// Wanted platforms that the index does not have: a warning.
    pub missing: Vec<PlatformSelector>,
}

/// What a policy makes of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlatformChoice {
    /// Copied as it is (all entries wanted, or an artifact without a platform).
    Unchanged { missing: Vec<PlatformSelector> },
    /// An index with some entries taken out: these bytes are pushed instead.
    Rewritten {
        bytes: Vec<u8>,
        digest: Digest,
        missing: Vec<PlatformSelector>,
    },
    /// None of the wanted platforms is there.
    Skipped { available: Vec<Platform> },
}

impl PlatformPolicy {
    /// Applies the policy to an index. A nested index (an entry that is itself an index) has no platform and stays whole.
    pub fn choose_entries(&self, entries: &[Descriptor]) -> KeptEntries {
        let _ = entries;
        unimplemented!()
    }
    /// Applies the policy to a top manifest. `config_platform` is the platform that a plain image's config names
    /// (`None` for artifacts, or where it was not read because the policy is `All`).
    /// # Errors
    /// An index that cannot be spliced.
    pub fn choose(
        &self,
        manifest: &Manifest,
        config_platform: Option<&Platform>,
    ) -> Result<PlatformChoice, crate::oci::SpliceError> {
        let _ = (manifest, config_platform);
        unimplemented!()
    }
}
