//! What a rule means: which repositories and tags it selects and why, what they are called at the
//! destination, which platforms are kept, when it runs. Pure: time is an argument, nothing does I/O.

mod matching;
mod naming;
mod pattern;
mod platforms;
mod rule;
mod schedule;
mod selection;

pub use matching::MatchedRepository;
pub use naming::{InvalidTemplate, NameTemplate};
pub use pattern::{InvalidPattern, RepositoryPattern, TagPattern};
pub use platforms::{Attestations, KeptEntries, PlatformChoice, PlatformPolicy, RewrittenIndex};
pub use rule::{Destination, MovedTags, OnConflict, RegistryName, RepositoryRule, RetryPolicy, Rule, RuleName};
pub use schedule::{InvalidSchedule, MissedRuns, Overlap, Schedule};
pub use selection::{Excluded, InvalidRange, Newest, NewestBy, SelectedTags, SemverRange, TagFilter};
