//! What can be asked of the engine.

use std::path::PathBuf;

use crate::oci::{Reference, RepositoryName};
use crate::registry::RegistrySettings;
use crate::rules::{PlatformPolicy, RuleName};
use crate::store::{RunId, Trigger};

/// Run a rule.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// Which.
    pub rule: RuleName,
    /// Why.
    pub trigger: Trigger,
    /// The interrupted run that it continues.
    pub continues: Option<RunId>,
    /// Only these images, for `retry`; all where empty.
    pub only: Vec<Only>,
    /// Somebody wants it now: what failed for good before is tried too, instead of when its time has come.
    pub at_once: bool,
}

/// One image of a rule at one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Only {
    /// Source repository.
    pub repository: RepositoryName,
    /// Tag or digest.
    pub reference: String,
    /// Destination registry's name.
    pub destination: String,
}

/// One end of `copy`.
#[derive(Clone, Debug)]
pub struct CopyEnd {
    /// Its name in messages: the host, or `oci:<path>`.
    pub name: String,
    /// How to reach it.
    pub settings: RegistrySettings,
    /// The repository ([`crate::registry::IMAGE_REPOSITORY`] for a layout without one).
    pub repository: RepositoryName,
    /// Tag or digest; `None`: `latest` at the source (the only image of a layout), the source's at the destination.
    pub reference: Option<Reference>,
}

/// The one image of a run that names it.
#[derive(Clone, Debug)]
pub(super) struct Single {
    pub(super) repository: RepositoryName,
    /// As it was written.
    pub(super) from: Option<Reference>,
    pub(super) to: RepositoryName,
    /// As it was written.
    pub(super) reference: Option<Reference>,
}

/// Copy one image by hand.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// From.
    pub source: CopyEnd,
    /// To.
    pub destination: CopyEnd,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// What of the image.
    pub platforms: PlatformPolicy,
}

/// Compare destinations with sources.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// Which rule.
    pub rule: RuleName,
    /// Read and hash every byte.
    pub deep: bool,
    /// Copy again what is missing or wrong.
    pub repair: bool,
}

/// Where `copy` keeps its state, beside the main one.
pub fn copy_state(main: &std::path::Path) -> PathBuf {
    main.with_file_name("copy.db")
}
