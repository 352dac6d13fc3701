//! Which tags of a repository a rule wants, with the reason for each that it does not.

use std::collections::{BTreeMap, BTreeSet};

use semver::{Version, VersionReq};
use serde::Serialize;

use super::pattern::TagPattern;
use crate::oci::{AttachmentTag, Tag};

/// `tags:` of a rule. Steps in this order, each narrowing: include, exclude, semver, newest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TagFilter {
    /// Any of these; all tags where empty.
    pub include: Vec<TagPattern>,
    /// None of these.
    pub exclude: Vec<TagPattern>,
    /// A range such as `>=1.20, <3`.
    pub semver: Option<SemverRange>,
    /// Only the newest.
    pub newest: Option<Newest>,
}

/// A semver range as the rules write it, with the optional `suffix`.
#[derive(Clone, Debug, PartialEq)]
pub struct SemverRange {
    /// The range.
    pub range: VersionReq,
    /// Without the dash: where set, only tags that end in `-<suffix>` are versions, and the suffix is no pre-release.
    pub suffix: Option<String>,
}

/// Why a text is not a range of versions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{range:?} is not a range of versions: {problem}")]
pub struct InvalidRange {
    /// The range.
    pub range: String,
    /// What is wrong with it, and what to write instead.
    pub problem: String,
}

impl SemverRange {
    /// Reads a range such as `>=1.20, <3` (Cargo's syntax, a `v` before a number allowed), and the suffix that versions
    /// carry, such as `alpine`.
    /// # Errors
    /// What is no range, or a suffix that no tag can have.
    pub fn parse(text: &str, suffix: Option<&str>) -> Result<Self, InvalidRange> {
        let invalid = |problem: String| InvalidRange {
            range: text.to_owned(),
            problem,
        };
        if text.contains('|') {
            let problem = "alternatives (`||`) are not supported: write two entries of `repositories:`";
            return Err(invalid(problem.to_owned()));
        }
        let plain: Vec<&str> = text.split(',').map(str::trim).collect();
        let plain: Vec<String> = plain.into_iter().map(without_v).collect();
        let range = VersionReq::parse(&plain.join(", ")).map_err(|error| {
            invalid(format!(
                "{error}; write comparisons with commas between, such as >=1.20, <3"
            ))
        })?;
        let suffix = suffix.map(|suffix| suffix.trim_start_matches('-'));
        if let Some(suffix) = suffix
            && (suffix.is_empty() || format!("v-{suffix}").parse::<Tag>().is_err())
        {
            return Err(invalid(format!("no tag ends in the suffix {suffix:?}")));
        }
        Ok(Self {
            range,
            suffix: suffix.map(str::to_owned),
        })
    }
}

/// `>=v1.20` as `>=1.20`.
fn without_v(comparison: &str) -> String {
    let digits = comparison.trim_start_matches(['<', '>', '=', '^', '~', ' ']);
    let operator = &comparison[..comparison.len() - digits.len()];
    format!("{operator}{}", strip_v(digits))
}

/// Takes a `v` off where a digit follows.
fn strip_v(text: &str) -> &str {
    match text.strip_prefix('v') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => text,
    }
}

/// The version that a tag is: three numbers or two (`1.20` is `1.20.0`), a `v` before them allowed.
fn version(tag: &Tag, suffix: Option<&str>) -> Option<Version> {
    let mut text = tag.as_str();
    if let Some(suffix) = suffix {
        text = text.strip_suffix(suffix)?.strip_suffix('-')?;
    }
    let text = strip_v(text);
    let core = text.find(['-', '+']).unwrap_or(text.len());
    match text[..core].matches('.').count() {
        2 => Version::parse(text).ok(),
        1 => Version::parse(&format!("{}.0{}", &text[..core], &text[core..])).ok(),
        _ => None,
    }
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
    /// By version, equal ones by name; what is no version does not count.
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
    ExcludedBy {
        /// The pattern.
        pattern: String,
    },
    /// Not a version.
    NotAVersion,
    /// A version outside the range.
    OutsideRange {
        /// The range.
        range: String,
    },
    /// Not among the newest.
    NotNewest {
        /// How many are kept.
        count: usize,
    },
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
        let suffix = self.semver.as_ref().and_then(|semver| semver.suffix.as_deref());
        let mut excluded = BTreeMap::new();
        let mut selected = BTreeSet::new();
        for tag in tags {
            if AttachmentTag::parse(&tag).is_some() {
                continue;
            }
            match self.refuse(&tag, suffix) {
                Some(reason) => {
                    excluded.insert(tag, reason);
                }
                None => {
                    selected.insert(tag);
                }
            }
        }
        let mut selected: Vec<Tag> = selected.into_iter().collect();
        if let Some(newest) = self.newest {
            selected = keep_newest(newest, suffix, selected, &mut excluded);
        }
        SelectedTags { selected, excluded }
    }

    /// Why a tag fails one of the steps that look at one tag alone.
    fn refuse(&self, tag: &Tag, suffix: Option<&str>) -> Option<Excluded> {
        if !self.include.is_empty() && !self.include.iter().any(|pattern| pattern.matches(tag)) {
            return Some(Excluded::NotIncluded);
        }
        if let Some(pattern) = self.exclude.iter().find(|pattern| pattern.matches(tag)) {
            let pattern = pattern.to_string();
            return Some(Excluded::ExcludedBy { pattern });
        }
        let range = &self.semver.as_ref()?.range;
        match version(tag, suffix) {
            None => Some(Excluded::NotAVersion),
            Some(version) if range.matches(&version) => None,
            Some(_) => Some(Excluded::OutsideRange {
                range: range.to_string(),
            }),
        }
    }
}

/// The newest of `tags`, by name again; the others go to `excluded`.
fn keep_newest(
    newest: Newest,
    suffix: Option<&str>,
    tags: Vec<Tag>,
    excluded: &mut BTreeMap<Tag, Excluded>,
) -> Vec<Tag> {
    let mut ordered: Vec<(Option<Version>, Tag)> = Vec::with_capacity(tags.len());
    for tag in tags {
        match newest.by {
            NewestBy::Name => ordered.push((None, tag)),
            NewestBy::Semver => match version(&tag, suffix) {
                Some(version) => ordered.push((Some(version), tag)),
                None => {
                    excluded.insert(tag, Excluded::NotAVersion);
                }
            },
        }
    }
    ordered.sort_by(|a, b| b.cmp(a));
    let mut kept = BTreeSet::new();
    for (place, (_, tag)) in ordered.into_iter().enumerate() {
        if place < newest.count {
            kept.insert(tag);
        } else {
            let count = newest.count;
            excluded.insert(tag, Excluded::NotNewest { count });
        }
    }
    kept.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> TagFilter {
        let patterns = |texts: &[&str]| {
            let read = texts.iter().map(|text| TagPattern::parse(text).expect("a pattern"));
            read.collect()
        };
        TagFilter {
            include: patterns(include),
            exclude: patterns(exclude),
            ..TagFilter::default()
        }
    }

    fn range(text: &str, suffix: Option<&str>) -> TagFilter {
        TagFilter {
            semver: Some(SemverRange::parse(text, suffix).expect("a range")),
            ..TagFilter::default()
        }
    }

    fn select(filter: &TagFilter, tags: &[&str]) -> (Vec<String>, BTreeMap<String, Excluded>) {
        let found = filter.select(tags.iter().map(|tag| tag.parse().expect("a tag")));
        (
            found.selected.iter().map(Tag::to_string).collect(),
            found
                .excluded
                .into_iter()
                .map(|(tag, why)| (tag.to_string(), why))
                .collect(),
        )
    }

    #[test]
    fn without_a_filter_everything_but_attachments() {
        let attachment = format!("sha256-{}.sig", "a".repeat(64));
        let (selected, excluded) = select(&TagFilter::default(), &["b", "a", &attachment, "a"]);
        assert_eq!(selected, ["a", "b"]);
        assert!(excluded.is_empty());
    }

    #[test]
    fn each_reason_is_the_first_step_that_refused() {
        let mut all = filter(&["v*", "1.*"], &["*-rc*"]);
        all.semver = Some(SemverRange::parse(">=1.2, <2", None).expect("a range"));
        all.newest = Some(Newest {
            count: 2,
            by: NewestBy::Semver,
        });
        let tags = ["v1.1", "v1.2", "1.3.4", "v1.10.0", "v1.9-rc1", "vx", "latest", "v2.0"];
        let (selected, excluded) = select(&all, &tags);
        assert_eq!(selected, ["1.3.4", "v1.10.0"]);
        let range = ">=1.2, <2".to_owned();
        let pattern = "*-rc*".to_owned();
        let expected = [
            ("v1.1", Excluded::OutsideRange { range: range.clone() }),
            ("v1.2", Excluded::NotNewest { count: 2 }),
            ("v1.9-rc1", Excluded::ExcludedBy { pattern }),
            ("vx", Excluded::NotAVersion),
            ("latest", Excluded::NotIncluded),
            ("v2.0", Excluded::OutsideRange { range }),
        ];
        assert_eq!(
            excluded,
            expected.into_iter().map(|(tag, why)| (tag.to_owned(), why)).collect()
        );
    }

    #[test]
    fn what_counts_as_a_version() {
        for (tag, expected) in [
            ("1.20.3", Some("1.20.3")),
            ("v1.20.3", Some("1.20.3")),
            ("1.20", Some("1.20.0")),
            ("v1.20", Some("1.20.0")),
            ("v1.20-rc.1", Some("1.20.0-rc.1")),
            ("1", None),
            ("v1", None),
            ("1-alpine", None),
            ("V1.2.3", None),
            ("vv1.2.3", None),
            ("1.2.3.4", None),
            ("01.2.3", None),
            ("latest", None),
            ("1.99999999999999999999", None),
            ("1.2.", None),
        ] {
            let found = version(&tag.parse().expect("a tag"), None).map(|version| version.to_string());
            assert_eq!(found.as_deref(), expected, "{tag}");
        }
    }

    #[test]
    fn pre_releases_pass_only_where_named() {
        let tags = ["1.2.0", "1.2.0-rc1", "1.3.0-rc1"];
        assert_eq!(select(&range(">=1.1", None), &tags).0, ["1.2.0"]);
        assert_eq!(select(&range(">=1.2.0-rc0", None), &tags).0, ["1.2.0", "1.2.0-rc1"]);
    }

    #[test]
    fn a_suffix_is_no_pre_release() {
        let tags = [
            "1.20",
            "1.20-alpine",
            "1.21-alpine3",
            "1.22-rc1-alpine",
            "v1.23.1-alpine",
            "x-alpine",
        ];
        let (selected, excluded) = select(&range(">=1.20", Some("alpine")), &tags);
        assert_eq!(selected, ["1.20-alpine", "v1.23.1-alpine"]);
        assert_eq!(excluded["1.20"], Excluded::NotAVersion);
        assert_eq!(excluded["1.21-alpine3"], Excluded::NotAVersion);
        assert!(matches!(excluded["1.22-rc1-alpine"], Excluded::OutsideRange { .. }));
        assert_eq!(excluded["x-alpine"], Excluded::NotAVersion);
        let mut newest = range("*", Some("-alpine"));
        newest.newest = Some(Newest {
            count: 1,
            by: NewestBy::Semver,
        });
        assert_eq!(select(&newest, &tags).0, ["v1.23.1-alpine"]);
    }

    #[test]
    fn the_newest() {
        let newest = |count, by| TagFilter {
            newest: Some(Newest { count, by }),
            ..TagFilter::default()
        };
        let tags = ["1.9.0", "1.10.0", "v1.10.0", "1.10", "nightly"];
        let (selected, excluded) = select(&newest(2, NewestBy::Semver), &tags);
        assert_eq!(selected, ["1.10.0", "v1.10.0"]);
        assert_eq!(excluded["1.10"], Excluded::NotNewest { count: 2 });
        assert_eq!(excluded["nightly"], Excluded::NotAVersion);
        assert_eq!(select(&newest(2, NewestBy::Name), &tags).0, ["nightly", "v1.10.0"]);
        assert_eq!(select(&newest(0, NewestBy::Name), &tags).0, Vec::<String>::new());
        assert_eq!(select(&newest(9, NewestBy::Name), &tags).0.len(), 5);
    }

    #[test]
    fn reads_ranges() {
        for text in [">=1.20, <3", ">=v1.20,<v3", "1.20", "~1.2.3", "*", "^1", "=v1.2.3"] {
            assert!(SemverRange::parse(text, None).is_ok(), "{text}");
        }
        for (text, suffix, hint) in [
            ("", None, "commas"),
            (">=1.20 <3", None, "commas"),
            (">=1 || <3", None, "alternatives"),
            ("latest", None, "commas"),
            ("*", Some(""), "suffix"),
            ("*", Some("a b"), "suffix"),
        ] {
            let error = SemverRange::parse(text, suffix).expect_err(text);
            assert!(error.problem.contains(hint), "{error}");
        }
    }
}
