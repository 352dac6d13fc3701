//! Repository names, tags and references, checked against the distribution-spec grammar.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digest::Digest;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {rule}")]
pub struct InvalidName {
    /// `repository name` or `tag`.
    pub what: &'static str,
    /// What was found, cut to a printable length.
    pub text: String,
    /// The rule of the grammar, in words.
    pub rule: &'static str,
}

impl InvalidName {
    fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        let text = text.chars().take(160).collect();
        Self { what, text, rule }
    }
}

/// A repository within a registry, such as `platform/web`.
///
/// Grammar: distribution-spec 1.1, "Pulling manifests":
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/…)*`, 255 characters at most with the host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(Arc<str>);

/// A tag, such as `v1.4`. Grammar: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

/// What stands behind a repository's name: a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A name that may move.
    Tag(Tag),
    /// Content that cannot change.
    Digest(Digest),
}

impl RepositoryName {
    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last path component.
    pub fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

fn valid_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    // Between two alphanumeric runs: one dot, one or two underscores, or any number of dashes.
    bytes
        .split(|b| alphanumeric(b))
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

impl FromStr for RepositoryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > 255 {
            return Err(InvalidName::new("repository name", text, "at most 255 characters"));
        }
        if !text.split('/').all(valid_component) {
            return Err(InvalidName::new(
                "repository name",
                text,
                "lower-case letters and digits, separated by one of . _ __ - or /",
            ));
        }
        Ok(Self(text.into()))
    }
}

impl Tag {
    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn from_valid(text: String) -> Self {
        debug_assert!(text.parse::<Self>().is_ok());
        Self(text.into())
    }
}

impl FromStr for Tag {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let valid = (1..=128).contains(&text.len())
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName::new(
                "tag",
                text,
                "at most 128 letters, digits, _ . and -, not beginning with . or -",
            ))
        }
    }
}

impl Reference {
    /// The tag, where it is one.
    pub fn tag(&self) -> Option<&Tag> {
        match self {
            Self::Tag(tag) => Some(tag),
            Self::Digest(_) => None,
        }
    }

    /// The digest, where it is one.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Tag(_) => None,
            Self::Digest(digest) => Some(digest),
        }
    }

    /// `:tag` or `@digest`, to stand behind a repository's name.
    pub fn suffix(&self) -> String {
        match self {
            Self::Tag(tag) => format!(":{tag}"),
            Self::Digest(digest) => format!("@{digest}"),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidName;

    /// A digest where it reads as one, else a tag (a tag cannot hold a colon).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<Digest>() {
            Ok(digest) => Ok(Self::Digest(digest)),
            Err(_) => text.parse().map(Self::Tag),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

macro_rules! text_value {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
text_value!(RepositoryName);
text_value!(Tag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_grammar() {
        for good in ["a", "library/alpine", "a/b/c/d", "a__b", "a---b", "a.b_c-d/0", "x0"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", "../etc", "a/../b", "a b", "a%2fb",
            "a:b", &long,
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tag_grammar() {
        for good in ["latest", "1.10", "_x", "V1", &"t".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".x", "-x", "a/b", "a:b", "a b", "ü", &"t".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn references() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest.clone())));
        assert_eq!("v1".parse::<Reference>().map(|r| r.suffix()), Ok(":v1".to_owned()));
        assert_eq!(Reference::Digest(digest.clone()).suffix(), format!("@{digest}"));
    }
}
