//! `spool:` as a value.

use std::path::PathBuf;

use super::shape::Findings;
use super::size;
use super::tree::Node;

/// Room on disk for large blobs of slow sources while they are copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// The directory.
    pub path: PathBuf,
    /// Bytes that all files in it may take together.
    pub max_size: u64,
}

/// Where nothing is written: some layers of the largest images, and little of any disk that is meant for it.
const DEFAULT_SIZE: u64 = 10 << 30;

/// The spool of all files together; `None` where none is written or it has a mistake.
pub(super) fn read(findings: &mut Findings<'_>, roots: &[Node]) -> Option<SpoolSettings> {
    let node = super::in_one_file(findings, roots, "spool")?;
    let path = node.get("path")?;
    let text = path
        .text()
        .filter(|text| !text.trim().is_empty() && !path.is_unknown())?;
    Some(SpoolSettings {
        path: findings.sources.path(path.place, text),
        max_size: match node.get("max_size") {
            Some(written) => size::parse(written.text()?)?,
            None => DEFAULT_SIZE,
        },
    })
}
