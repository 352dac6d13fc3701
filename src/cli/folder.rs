//! A temporary folder.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::exit::Stop;
use crate::clock::Clock;

/// A folder that only this user can read and that goes with this value.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes one, with `purpose` in its name.
    ///
    /// # Errors
    /// There is no place where it could be made.
    pub(super) fn make(clock: &Clock, purpose: &str) -> Result<Self, Stop> {
        let name = format!(
            "transship-{purpose}-{}-{}",
            std::process::id(),
            clock.now().as_nanosecond()
        );
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| Stop::failed(format!("cannot make the folder {}: {error}", path.display())))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing can be done about it, and nothing of value is in it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
