//! Globs and regular expressions for repositories and tags.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

use crate::oci::{RepositoryName, Tag};

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a pattern: {problem}")]
pub struct InvalidPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
}

impl InvalidPattern {
    fn new(pattern: &str, problem: impl Into<String>) -> Self {
        Self {
            pattern: pattern.to_owned(),
            problem: problem.into(),
        }
    }
}

/// Compiled size of a pattern, in bytes, above which it is refused: far more than any list of names needs, and
/// small enough that a rules file with hundreds of them stays in memory.
const SIZE_LIMIT: usize = 1 << 20;

/// The characters that make a text a glob instead of a name.
const GLOB_CHARACTERS: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

/// A glob (or exact name) for repositories: `*` does not cross `/`, `**` does. Matches the whole name, case-sensitive.
///
/// Wildcards are `*`, `**`, `?`, a class `[..]` and alternatives `{a,b}`; they are counted in the order in which they begin.
#[derive(Clone, Debug)]
pub struct RepositoryPattern {
    text: String,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Exact(RepositoryName),
    /// Bytes, as globset's expressions are over bytes.
    Glob(regex::bytes::Regex),
}

/// A glob, or `/regular expression/` that searches, for tags.
#[derive(Clone, Debug)]
pub struct TagPattern {
    text: String,
    matcher: TagMatcher,
}

#[derive(Clone, Debug)]
enum TagMatcher {
    Glob(GlobMatcher),
    Regex(regex::Regex),
}

fn glob(text: &str) -> Result<globset::Glob, InvalidPattern> {
    GlobBuilder::new(text)
        .literal_separator(true)
        .backslash_escape(true)
        // Without it globset drops the empty half of `app{,-dev}` without a word.
        .empty_alternates(true)
        .build()
        .map_err(|error| InvalidPattern::new(text, error.kind().to_string()))
}

/// The last line says what is wrong; those before it draw the expression, which our own reports do already.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

impl RepositoryPattern {
    /// Compiles a glob.
    /// # Errors
    /// A glob that is not valid.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let form = if text.contains(GLOB_CHARACTERS) {
            let groups = capture_groups(glob(text)?.regex()).ok_or_else(|| {
                InvalidPattern::new(
                    text,
                    "`**` must stand alone between slashes, such as `team/**` or `**/web`; within a part write `*`",
                )
            })?;
            let regex = regex::bytes::RegexBuilder::new(&groups)
                .size_limit(SIZE_LIMIT)
                .build()
                .map_err(|error| InvalidPattern::new(text, one_line(&error)))?;
            Form::Glob(regex)
        } else {
            let name = text.parse::<RepositoryName>();
            Form::Exact(name.map_err(|error| InvalidPattern::new(text, error.rule))?)
        };
        Ok(Self {
            text: text.to_owned(),
            form,
        })
    }

    /// The name, where the pattern holds no wildcard.
    pub fn exact(&self) -> Option<RepositoryName> {
        match &self.form {
            Form::Exact(name) => Some(name.clone()),
            Form::Glob(_) => None,
        }
    }

    /// What every name that matches begins with, up to its last slash: `platform/` of `platform/**`, empty where nothing is
    /// sure.
    pub fn literal_prefix(&self) -> &str {
        let literal = self.text.split(GLOB_CHARACTERS).next().unwrap_or_default();
        &literal[..literal.rfind('/').map_or(0, |slash| slash + 1)]
    }

    /// True when the name matches.
    pub fn matches(&self, name: &RepositoryName) -> bool {
        match &self.form {
            Form::Exact(exact) => exact == name,
            Form::Glob(regex) => regex.is_match(name.as_str().as_bytes()),
        }
    }

    /// What the wildcards matched, in order (`{1}`, `{2}` of a template); `None` where the name does not match.
    /// A wildcard in an alternative that was not taken matched the empty text.
    pub fn captures(&self, name: &RepositoryName) -> Option<Vec<String>> {
        match &self.form {
            Form::Exact(exact) => (exact == name).then(Vec::new),
            Form::Glob(regex) => {
                let found = regex.captures(name.as_str().as_bytes())?;
                let text = |group: Option<regex::bytes::Match<'_>>| {
                    group.map_or_else(String::new, |group| {
                        String::from_utf8_lossy(group.as_bytes()).into_owned()
                    })
                };
                Some(found.iter().skip(1).map(text).collect())
            }
        }
    }

    /// How many wildcards it has.
    pub fn wildcards(&self) -> usize {
        match &self.form {
            Form::Exact(_) => 0,
            // The first group is the whole match.
            Form::Glob(regex) => regex.captures_len() - 1,
        }
    }
}

/// Puts a group around each wildcard of an expression that globset made of a glob, so that the two can never
/// disagree on what matches. `None` where `**` stands beside other text: globset reads it as `*` there, which is
/// not what anybody means who writes it.
fn capture_groups(expression: &str) -> Option<String> {
    // Globset's texts for `**` at the start, in the middle and, unless it is all there is, at the end.
    const RECURSIVE: [(&str, &str); 3] = [
        ("(?:/?|.*/)", "(?:/?|(.*)/)"),
        ("(?:/|/.*/)", "(?:/|/(.*)/)"),
        (".*", "(.*)"),
    ];
    const STAR: &str = "[^/]*";
    let mut groups = String::with_capacity(expression.len() * 2);
    let mut rest = expression;
    if let Some(flags) = rest.strip_prefix("(?-u)") {
        groups.push_str("(?-u)");
        rest = flags;
    }
    'next: while let Some(first) = rest.chars().next() {
        for (plain, grouped) in RECURSIVE {
            if let Some(after) = rest.strip_prefix(plain) {
                groups.push_str(grouped);
                rest = after;
                continue 'next;
            }
        }
        if let Some(after) = rest.strip_prefix(STAR) {
            if after.starts_with(STAR) {
                return None;
            }
            groups.push_str("([^/]*)");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("(?:") {
            groups.push('(');
            rest = after;
        } else if first == '[' {
            let end = class_end(rest);
            groups.push('(');
            groups.push_str(&rest[..end]);
            groups.push(')');
            rest = &rest[end..];
        } else {
            let length = if first == '\\' {
                1 + rest[1..].chars().next().map_or(0, char::len_utf8)
            } else {
                first.len_utf8()
            };
            groups.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    Some(groups)
}

/// Where the character class that `text` begins with ends. Globset escapes a `]` within one.
fn class_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

impl TagPattern {
    /// Compiles a glob or a `/regular expression/`.
    /// # Errors
    /// A pattern that is not valid.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let matcher = match inner {
            Some("") => return Err(InvalidPattern::new(text, "the regular expression is empty")),
            Some(expression) => regex::RegexBuilder::new(expression)
                .size_limit(SIZE_LIMIT)
                .build()
                .map(TagMatcher::Regex)
                .map_err(|error| InvalidPattern::new(text, one_line(&error)))?,
            None if text.is_empty() => return Err(InvalidPattern::new(text, "it is empty")),
            None if text.starts_with('/') => {
                return Err(InvalidPattern::new(text, "a regular expression also ends in `/`"));
            }
            None if text.contains(['/', ':']) => {
                return Err(InvalidPattern::new(
                    text,
                    "a tag holds neither `/` nor `:`; repositories are matched by `repositories:`",
                ));
            }
            None => TagMatcher::Glob(glob(text)?.compile_matcher()),
        };
        Ok(Self {
            text: text.to_owned(),
            matcher,
        })
    }

    /// True when the tag matches.
    pub fn matches(&self, tag: &Tag) -> bool {
        match &self.matcher {
            TagMatcher::Glob(glob) => glob.is_match(tag.as_str()),
            TagMatcher::Regex(regex) => regex.is_match(tag.as_str()),
        }
    }
}

impl PartialEq for RepositoryPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl PartialEq for TagPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captures(pattern: &str, name: &str) -> Option<Vec<String>> {
        let pattern = RepositoryPattern::parse(pattern).expect("a pattern");
        let name = name.parse().expect("a name");
        let found = pattern.captures(&name);
        assert_eq!(pattern.matches(&name), found.is_some());
        if let Some(found) = &found {
            assert_eq!(found.len(), pattern.wildcards());
        }
        found
    }

    #[test]
    fn wildcards_match_and_capture() {
        for (pattern, name, expected) in [
            ("library/alpine", "library/alpine", Some(vec![])),
            ("library/alpine", "library/alpine2", None),
            ("*", "a", Some(vec!["a"])),
            ("*", "a/b", None),
            ("**", "a/b/c", Some(vec!["a/b/c"])),
            ("platform/**", "platform/a", Some(vec!["a"])),
            ("platform/**", "platform/a/b", Some(vec!["a/b"])),
            ("platform/**", "platform", None),
            ("platform/**", "platforms/a", None),
            ("**/web", "web", Some(vec![""])),
            ("**/web", "a/b/web", Some(vec!["a/b"])),
            ("a/**/z", "a/z", Some(vec![""])),
            ("a/**/z", "a/b/c/z", Some(vec!["b/c"])),
            ("team-*/app-?", "team-red/app-1", Some(vec!["red", "1"])),
            ("app[0-9]/*", "app7/x", Some(vec!["7", "x"])),
            ("app[!0-9]", "app7", None),
            ("{dev,prod}/*", "prod/x", Some(vec!["prod", "x"])),
            ("{dev-*,prod}/*", "dev-1/x", Some(vec!["dev-1", "1", "x"])),
            ("{dev-*,prod}/*", "prod/x", Some(vec!["prod", "", "x"])),
            ("app{,-dev}", "app", Some(vec![""])),
            ("a.b/*", "axb/c", None),
        ] {
            let expected = expected.map(|texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect());
            assert_eq!(captures(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn what_all_matches_begin_with() {
        for (pattern, beginning) in [
            ("platform/**", "platform/"),
            ("a/b/web-*", "a/b/"),
            ("web-*", ""),
            ("**", ""),
            ("a/{b,c}/d", "a/"),
            ("a/b?", "a/"),
            ("a/web", "a/"),
        ] {
            let pattern = RepositoryPattern::parse(pattern).expect("a pattern");
            assert_eq!(pattern.literal_prefix(), beginning, "{pattern}");
        }
    }

    #[test]
    fn only_a_name_is_exact() {
        let exact = |text: &str| RepositoryPattern::parse(text).expect("a pattern").exact();
        assert_eq!(exact("library/alpine"), "library/alpine".parse().ok());
        for text in ["library/*", "a?", "[a]", "{a,b}", "**"] {
            assert_eq!(exact(text), None, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_repository_pattern() {
        for (text, hint) in [
            ("", "lower-case"),
            ("Library/alpine", "lower-case"),
            ("a/", "lower-case"),
            ("a[", "]"),
            ("{a", "{"),
            ("a}", "}"),
            ("a[z-a]", "range"),
            ("team**", "stand alone"),
            ("**team", "stand alone"),
            ("a/***", "stand alone"),
        ] {
            let error = RepositoryPattern::parse(text).expect_err(text);
            assert!(error.problem.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn tags_match_whole_globs_or_anywhere_by_expression() {
        for (pattern, tag, expected) in [
            ("v*", "v1.2", true),
            ("v*", "rv1", false),
            ("V*", "v1", false),
            ("1.?", "1.2", true),
            ("1.?", "1.20", false),
            ("{latest,stable}", "stable", true),
            ("*-rc*", "1.2-rc1", true),
            ("latest", "latest", true),
            ("/rc/", "1.2-rc1", true),
            ("/^v[0-9]+$/", "v12", true),
            ("/^v[0-9]+$/", "v12a", false),
        ] {
            let pattern = TagPattern::parse(pattern).expect("a pattern");
            assert_eq!(
                pattern.matches(&tag.parse().expect("a tag")),
                expected,
                "{pattern} on {tag}"
            );
        }
        for text in ["", "/", "//", "/v", "a/b", "a:b", "/(/", "[", r"/\w{500}{500}/"] {
            let error = TagPattern::parse(text).expect_err(text);
            assert!(!error.problem.contains('\n'), "{text}: {error}");
        }
    }

    fn glob_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[ab.-]".prop_map(String::from),
            2 => Just("/".to_owned()),
            2 => Just("*".to_owned()),
            1 => Just("**".to_owned()),
            1 => Just("?".to_owned()),
            1 => Just("[!a]".to_owned()),
            1 => Just("[a-b]".to_owned()),
            1 => Just("[]]".to_owned()),
            1 => Just("{a,b/**}".to_owned()),
            1 => Just("{**/a,*}".to_owned()),
            1 => Just("\\*".to_owned()),
        ];
        proptest::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn matches_exactly_what_globset_matches(text in glob_text(), names in proptest::collection::vec("[ab]([.-]?[ab]){0,2}(/[ab]([.-]?[ab]){0,2}){0,3}", 1..12)) {
            let Ok(reference) = glob(&text) else { return Ok(()) };
            let pattern = match RepositoryPattern::parse(&text) {
                Ok(pattern) => pattern,
                Err(error) => {
                    let refused = error.problem.contains("stand alone") || !text.contains(GLOB_CHARACTERS);
                    prop_assert!(refused, "{}", error);
                    return Ok(());
                }
            };
            let reference = reference.compile_matcher();
            for name in names {
                let Ok(name) = name.parse::<RepositoryName>() else { continue };
                prop_assert_eq!(pattern.matches(&name), reference.is_match(name.as_str()), "{} on {}", text, name);
                if let Some(found) = pattern.captures(&name) {
                    prop_assert_eq!(found.len(), pattern.wildcards());
                }
            }
        }
    }
}
