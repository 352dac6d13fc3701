//! Logs and redaction. May be used by every module and uses none.

pub mod log;
mod redact;

pub use redact::{RedactedUrl, Secret};
