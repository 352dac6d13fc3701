//! Finds and reads the rules files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::oci::Digest;

/// The largest rules file, in bytes. Some 10,000 rules.
pub(super) const MAX_FILE: u64 = 1024 * 1024;
/// The most files of a directory.
const MAX_FILES: usize = 1000;

/// The rules files of `path` in the order of reading: the file itself, or the `*.yaml` and `*.yml` of a directory by
/// name. Hidden ones are left out, as editors and Kubernetes leave some behind.
pub(super) fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        if yaml && !name.starts_with('.') && path.is_file() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} rules files")));
        }
    }
    if files.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no *.yaml or *.yml file is in this directory",
        ));
    }
    files.sort();
    Ok(files)
}

/// Reads a text file of at most `limit` bytes.
pub(super) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("larger than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))
}

/// A digest that changes with any name or byte of the files.
pub(super) fn digest(files: &[(String, String)]) -> Digest {
    let mut all = Vec::new();
    for (name, text) in files {
        // Lengths in front, so that no two lists of files look alike.
        for part in [name, text] {
            all.extend_from_slice(&(part.len() as u64).to_be_bytes());
            all.extend_from_slice(part.as_bytes());
        }
    }
    Digest::of(&all)
}
