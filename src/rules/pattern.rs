//! Globs and regular expressions for repositories and tags.

use std::fmt;

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a pattern: {problem}")]
pub struct InvalidPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A glob (or exact name) for repositories: `*` does not cross `/`, `**` does. Matches the whole name, case-sensitive.
#[derive(Clone, Debug)]
pub struct RepositoryPattern {
    text: String,
    // the implementer decides the rest
}

/// A glob, or `/regular expression/` that searches, for tags.
#[derive(Clone, Debug)]
pub struct TagPattern {
    text: String,
}

impl RepositoryPattern {
    /// Compiles a glob.
    /// # Errors
    /// A glob that is not valid.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let _ = text;
        unimplemented!()
    }
    /// The name, where the pattern holds no wildcard.
    pub fn exact(&self) -> Option<crate::oci::RepositoryName> {
        unimplemented!()
    }
    /// What the wildcards matched, in order (`{1}`, `{2}` of a template); `None` where the name does not match.
    pub fn captures(&self, name: &crate::oci::RepositoryName) -> Option<Vec<String>> {
        let _ = name;
        unimplemented!()
    }
    /// How many wildcards it has.
    pub fn wildcards(&self) -> usize {
        unimplemented!()
    }
}

impl TagPattern {
    /// Compiles a glob or a `/regular expression/`.
    /// # Errors
    /// A pattern that is not valid.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let _ = text;
        unimplemented!()
    }
    /// True when the tag matches.
    pub fn matches(&self, tag: &crate::oci::Tag) -> bool {
        let _ = tag;
        unimplemented!()
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
