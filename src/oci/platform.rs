//! Platforms, and the selectors that rules name them by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The platform that an image runs on (image-spec `image-index.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    #[serde(default, deserialize_with = "word")]
    pub os: String,
    /// Such as `amd64`.
    #[serde(default, deserialize_with = "word")]
    pub architecture: String,
    /// Such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_word")]
    pub variant: Option<String>,
    /// Windows build, such as `10.0.20348.2113`.
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_word"
    )]
    pub os_version: Option<String>,
}

/// Characters of a part of a platform at most; the longest real one (a Windows build) has some fifteen.
const LONGEST: usize = 64;

/// What stands in the place of a part that is no word: the text comes from whoever pushed the image, and is shown.
const NO_WORD: &str = "unknown";

fn checked(text: String) -> String {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if text.len() <= LONGEST && text.bytes().all(word) {
        text
    } else {
        NO_WORD.to_owned()
    }
}

fn word<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(checked)
}

fn optional_word<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?
        .filter(|text| !text.is_empty())
        .map(checked))
}

impl Platform {
    /// True for BuildKit's `unknown/unknown`, which marks attestations.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

/// `os/architecture[/variant]` as written in a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlatformSelector {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// Why a text is not a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a platform: write os/architecture or os/architecture/variant, such as linux/arm64")]
pub struct InvalidPlatform {
    /// What was found.
    pub text: String,
}

impl FromStr for PlatformSelector {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(word) {
            return Err(InvalidPlatform { text: text.to_owned() });
        }
        Ok(Self {
            os: parts[0].to_owned(),
            architecture: parts[1].to_owned(),
            variant: parts.get(2).map(|v| (*v).to_owned()),
        })
    }
}

impl PlatformSelector {
    /// True when an image for `platform` is wanted. Without a variant every variant matches;
    /// `arm64` without one is `v8`, as containerd normalises it.
    pub fn matches(&self, platform: &Platform) -> bool {
        let default = |architecture: &str| (architecture == "arm64").then_some("v8");
        if self.os != platform.os || self.architecture != platform.architecture {
            return false;
        }
        match self.variant.as_deref() {
            None => true,
            Some(wanted) => platform.variant.as_deref().or(default(&platform.architecture)) == Some(wanted),
        }
    }
}

impl fmt::Display for PlatformSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        Platform {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.map(Into::into),
            os_version: None,
        }
    }

    #[test]
    fn selectors_match() {
        let arm: PlatformSelector = "linux/arm64".parse().expect("valid");
        assert!(arm.matches(&platform("linux", "arm64", None)));
        assert!(arm.matches(&platform("linux", "arm64", Some("v8"))));
        assert!(!arm.matches(&platform("windows", "arm64", None)));
        let v8: PlatformSelector = "linux/arm64/v8".parse().expect("valid");
        assert!(v8.matches(&platform("linux", "arm64", None)));
        let v7: PlatformSelector = "linux/arm/v7".parse().expect("valid");
        assert!(v7.matches(&platform("linux", "arm", Some("v7"))));
        assert!(!v7.matches(&platform("linux", "arm", None)));
        assert!(!v7.matches(&platform("linux", "arm", Some("v6"))));
    }

    #[test]
    fn a_part_that_is_no_word_is_unknown() {
        let text = r#"{"os":"x\nERROR all is lost\u001b[2J","architecture":"amd64","variant":""}"#;
        let read: Platform = serde_json::from_str(text).expect("a platform");
        assert_eq!(read, platform("unknown", "amd64", None));
    }

    #[test]
    fn refuses_what_is_no_platform() {
        for bad in ["", "linux", "linux/", "linux/amd64/v1/x", "Linux/amd64", "linux amd64"] {
            assert!(bad.parse::<PlatformSelector>().is_err(), "{bad}");
        }
    }
}
