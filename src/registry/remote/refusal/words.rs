//! What a refusal is in words: the registry's own, and what to do about it.

use http::StatusCode;

use super::{NO_CLASS, Refusal, is_write};
use crate::registry::remote::echo::masked;
use crate::registry::{ErrorKind, Operation};

/// What is kept of a registry's own words in a message.
const MAX_QUOTE: usize = 300;

/// What a 407 means, which no registry says.
pub(in crate::registry::remote) const WHO_AT_THE_PROXY: &str = "the proxy on the way to the registry wants to know who we are, or refuses our login; set or check \
     `proxy: { url, username, password }` of this registry";

impl Refusal {
    /// What it says, and the advice that fits its kind. `user` is who we are there, where known.
    pub(super) fn sentence(&self, operation: Operation, kind: ErrorKind, user: Option<&str>) -> String {
        let (code, text) = match self.echoes {
            true => (None, ""),
            false => (self.code.as_deref(), self.text.as_str()),
        };
        let said = match (code, text) {
            (None, "") => format!("the registry answered {}", self.status),
            (None, text) => format!("the registry answered {}: {text}", self.status),
            (Some(code), "") => format!("the registry answered {} {code}", self.status),
            (Some(code), text) => format!("the registry answered {} {code}: {text}", self.status),
        };
        if self.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return WHO_AT_THE_PROXY.to_owned();
        }
        if let Some(phrase) = self.phrase(operation).filter(|phrase| !phrase.advice.is_empty()) {
            return format!("{said}; {}", phrase.advice);
        }
        let pushes = is_write(operation);
        let right = match operation {
            Operation::ListRepositories => {
                "the right to list repositories, which patterns need and names do not".to_owned()
            }
            _ => format!("{} rights to this repository", if pushes { "push" } else { "pull" }),
        };
        let advice = match (kind, user) {
            (ErrorKind::Denied, _) if self.status == StatusCode::PRECONDITION_FAILED => {
                "a policy of the registry (signature, vulnerabilities) forbids the pull".to_owned()
            }
            (ErrorKind::Denied, Some(user)) => format!("the user {user:?} needs {right}"),
            (ErrorKind::Denied, None) => format!(
                "the account needs {right}; without one, set `username` and `password` of this registry"
            ),
            (ErrorKind::Unauthorized, Some(user)) => format!(
                "check `username` and `password` of this registry, and that the user {user:?} has {right}"
            ),
            (ErrorKind::Unauthorized, None) => format!(
                "set `username` and `password` of this registry, or run docker login with an account that has {right}"
            ),
            (ErrorKind::Conflict, _) => "the tag may not be changed there (immutable or locked)".to_owned(),
            (ErrorKind::Quota, _) if self.says_no_space() => "free space at the registry".to_owned(),
            (ErrorKind::Quota, _) => "free space or raise the quota at the registry".to_owned(),
            (ErrorKind::Unsupported, _) if text.to_ascii_lowercase().contains(NO_CLASS) => match text {
                text if text.contains(crate::oci::media_type::OCI_EMPTY) => {
                    "the registry takes images only, and artifacts with an empty config are none; where they are attestations of \
                     BuildKit, write `attestations: strip` in the rule, or build without them (--provenance=false)"
                        .to_owned()
                }
                _ => "the registry takes images only, not artifacts of this type: leave the tag out of the rule".to_owned(),
            },
            (ErrorKind::Unsupported, _) if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                "the registry takes no manifests of this type: leave the tag out of the rule, or have a newer version of the \
                 registry"
                    .to_owned()
            }
            (ErrorKind::Unsupported, _) if pushes && self.status == StatusCode::METHOD_NOT_ALLOWED => {
                "the registry takes no pushes: it may be read-only for maintenance, a mirror or a proxy cache"
                    .to_owned()
            }
            (ErrorKind::NotFound, _) if operation == Operation::ReadBlob => {
                "the image names this blob and the registry has lost it: push the image again there".to_owned()
            }
            (ErrorKind::TooLarge, _) => "raise the size limit of the registry, or of the proxy before it".to_owned(),
            (ErrorKind::MissingContent, _) => {
                "the registry lacks blobs or manifests that this one refers to".to_owned()
            }
            (ErrorKind::Throttled, _) => "too many requests; lower limits.concurrency or try later".to_owned(),
            (ErrorKind::Invalid, _) if self.text.contains("HTTP request to an HTTPS server") => {
                "the port speaks TLS: write https://".to_owned()
            }
            _ => return said,
        };
        format!("{said}; {advice}")
    }
}

/// A registry's words in one line of printable characters.
pub(in crate::registry::remote) fn quote(text: &str) -> String {
    let line: String = masked(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_QUOTE)
        .collect();
    line.trim().trim_end_matches('.').to_owned()
}
