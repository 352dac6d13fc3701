//! Which tags of a repository a rule wants, with the reason for each that it does not.

use std::collections::BTreeMap;

use serde::Serialize;

use super::pattern::TagPattern;
use crate::oci::Tag;

/// `tags:` of a rule. Steps in this order, each narrowing: include, exclude, semver, newest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TagFilter {
    /// Any of these; all tags where empty.
    pub include: Vec<TagPattern>,
    /// None of these.
    pub exclude: Vec<TagPattern>,
    /// A range such as `>=1.20, <3`.
    pub semver: Option<super::selection::SemverRange>,
    /// Only the newest.
    pub newest: Option<Newest>,
}

/// A semver range as the rules write it, with the optional `suffix`.
#[derive(Clone, Debug, PartialEq)]
pub struct SemverRange {
    /// The range.
    pub range: semver::VersionReq,
    /// See the rules reference: this suffix is no pre-release.
    pub suffix: Option<String>,
}

/// `newest: { count, by }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// How many stay.
    pub count: usize,
    /// By which order.
    pub by: NewestBy,
}

/// The order of `newest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewestBy {
    /// By version; what is no version does not count.
    Semver,
    /// By name, the last ones.
    Name,
}

/// Why a tag is not selected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Excluded {
    /// No `include` pattern matches.
    NotIncluded,
    /// This `exclude` pattern matches.
    ExcludedBy { pattern: String },
    /// Not a version.
    NotAVersion,
    /// A version outside the range.
    OutsideRange { range: String },
    /// Not among the newest.
    NotNewest { count: usize },
}

/// What a filter makes of a repository's tags. Attachments are in neither list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectedTags {
    /// Wanted tags, ordered by name.
    pub selected: Vec<Tag>,
    /// The others with the reason.
    pub excluded: BTreeMap<Tag, Excluded>,
}

impl TagFilter {
    /// Applies the filter. Attachment tags are dropped before the first step.
    pub fn select(&self, tags: impl IntoIterator<Item = Tag>) -> SelectedTags {
        let _ = tags.into_iter().count();
        unimplemented!()
    }
}
