//! A rule as a value: what to keep in step.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::naming::NameTemplate;
use super::pattern::RepositoryPattern;
use super::platforms::PlatformPolicy;
use super::schedule::Schedule;
use super::selection::TagFilter;

/// The name of a registry in the rules file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryName(Arc<str>);

/// The name of a rule in the rules file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName(Arc<str>);

macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// A name as the rules file gives it; the reader of that file has checked it.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }
            /// The name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}
name!(RegistryName);
name!(RuleName);

/// What to keep in step: one source, one or more destinations, which repositories and tags, when.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique among the rules.
    pub name: RuleName,
    /// Where images come from.
    pub source: RegistryName,
    /// Where they go; each blob is read once and written to all.
    pub destinations: Vec<Destination>,
    /// Which repositories of the source. A repository matched by several entries belongs to the first.
    pub repositories: Vec<RepositoryRule>,
    /// Which tags, where the repository's entry has no filter of its own.
    pub tags: TagFilter,
    /// When it runs by itself; `None` for rules that run by hand only.
    pub schedule: Option<Schedule>,
    /// What happens where the destination holds a digest that we wrote and the source has moved on.
    pub moved_tags: MovedTags,
    /// What happens where the destination holds a digest that we did not write.
    pub on_conflict: OnConflict,
    /// How long a destination's tag that we saw or wrote counts as in step without a look while its listing shows it;
    /// zero: never.
    pub trust_destination: Duration,
    /// Which platforms of an index are copied.
    pub platforms: PlatformPolicy,
    /// How often a job is tried.
    pub retry: RetryPolicy,
    /// From -100 to 100. Higher goes first where rules compete: for a start, for a place at a registry, for a quota.
    pub priority: i32,
}

/// One destination of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// The registry.
    pub registry: RegistryName,
    /// Overrides the `to` of the repository's entry.
    pub to: Option<NameTemplate>,
}

/// One entry of `repositories:`.
#[derive(Clone, Debug, PartialEq)]
pub struct RepositoryRule {
    /// Which repositories; an exact name costs no catalogue listing.
    pub pattern: RepositoryPattern,
    /// Repositories that are left out again.
    pub exclude: Vec<RepositoryPattern>,
    /// Their name at the destination; the same path without it.
    pub to: Option<NameTemplate>,
    /// Replaces the rule's tag filter.
    pub tags: Option<TagFilter>,
}

/// `moved_tags:`: the destination holds a digest that we wrote there, the source another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MovedTags {
    /// The destination follows.
    #[default]
    Follow,
    /// The destination's tag is left alone.
    Keep,
    /// The job fails.
    Fail,
}

/// `on_conflict:`: the destination holds a digest that we did not write there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// The source wins.
    #[default]
    Overwrite,
    /// The destination's tag is left alone.
    Keep,
    /// The job fails.
    Fail,
}

/// `retry:` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in a row that gained nothing, after which a job fails; at least 1.
    pub attempts: u32,
    /// The longest wait between two attempts.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    /// Six attempts with growing delays span about six seconds of waiting at least and five minutes at most
    /// each: enough for a registry's restart, short enough that a run ends.
    fn default() -> Self {
        Self {
            attempts: 6,
            max_delay: Duration::from_secs(300),
        }
    }
}
