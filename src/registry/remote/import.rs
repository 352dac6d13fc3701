//! Images that the registry fetches by itself.

use super::Registry;
use crate::oci::{Digest, RepositoryName};
use crate::registry::{ImportSource, ImportedImage, Imports, Result};

impl Registry {
    /// Whether it fetches images from there by itself.
    pub fn imports_from(&self, source: &Self) -> Imports {
        self.shared
            .vendor
            .imports_from(&self.shared.settings, source.as_import_source())
    }

    /// Has it fetch an image from there, and waits until it has. Under no tag.
    ///
    /// # Errors
    /// It refuses, fails, or takes too long. What it goes on with by itself does no harm: it moves no tag.
    pub async fn import(
        &self,
        source: &Self,
        from: &RepositoryName,
        digest: &Digest,
        to: &RepositoryName,
        bytes: u64,
    ) -> Result<()> {
        let image = ImportedImage {
            source: source.as_import_source(),
            from,
            digest,
            to,
            bytes,
        };
        self.shared.vendor.import(&self.api(), &image).await
    }

    fn as_import_source(&self) -> ImportSource<'_> {
        ImportSource {
            name: &self.shared.name,
            settings: &self.shared.settings,
        }
    }
}
