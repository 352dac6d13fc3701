//! Logs and redaction. May be used by every module and uses none.

mod redact;

pub use redact::{RedactedUrl, Secret};
