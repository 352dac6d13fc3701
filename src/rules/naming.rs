//! What a source repository is called at a destination.

use std::fmt;

use crate::oci::{InvalidName, RepositoryName};

/// `to:` of a repository or destination: text with `{path}`, `{name}`, `{flat}`, `{1}`, `{2}` …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTemplate {
    text: String,
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{template:?} is not a name template: {problem}")]
pub struct InvalidTemplate {
    /// The template.
    pub template: String,
    /// What is wrong with it.
    pub problem: String,
}

impl NameTemplate {
    /// Reads a template.
    /// # Errors
    /// Unknown or unclosed placeholders, or text that can never make a repository name.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let _ = text;
        unimplemented!()
    }
    /// The highest `{n}` used, 0 for none.
    pub fn highest_capture(&self) -> usize {
        unimplemented!()
    }
    /// True when it holds no placeholder, so that every repository gets the same name.
    pub fn is_literal(&self) -> bool {
        unimplemented!()
    }
    /// The name at the destination of `source`, of which the pattern's wildcards matched `captures`.
    /// # Errors
    /// A result that is no repository name.
    pub fn expand(&self, source: &RepositoryName, captures: &[String]) -> Result<RepositoryName, InvalidName> {
        let _ = (source, captures);
        unimplemented!()
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
