//! From references to files: what a tag or digest leads to, what a manifest still lacks, who refers to it.

use super::IMAGE_REPOSITORY;
use super::folder::Folder;
use super::index::Entry;
use super::trouble::Trouble;
use crate::oci::{Descriptor, Digest, InvalidManifest, Manifest, Reference, RepositoryName};
use crate::registry::ErrorKind;

/// The tag that an image without a name has here, where it is the only one without: `skopeo copy … oci:DIR` writes that.
pub(super) const UNNAMED_TAG: &str = "latest";

pub(super) fn invalid(error: InvalidManifest) -> Trouble {
    let kind = match &error {
        InvalidManifest::TooLarge { .. } => ErrorKind::TooLarge,
        InvalidManifest::WrongDigest { .. } => ErrorKind::Corrupt,
        _ => ErrorKind::Invalid,
    };
    Trouble::new(kind, error.to_string())
}

/// The one image without a name, where there is one and no more. Referrers have no name either and are none.
pub(super) fn unnamed_image(folder: &Folder) -> Result<Option<Entry>, Trouble> {
    let Some(view) = folder.view()? else {
        return Ok(None);
    };
    let mut found = None;
    for entry in &view.unnamed {
        if folder.subject(&entry.digest)?.is_some() {
            continue;
        }
        if found.is_some() {
            return Ok(None);
        }
        found = Some(entry.clone());
    }
    Ok(found)
}

/// Where a reference leads; for a digest that `index.json` does not name, to the blob itself.
pub(super) fn resolve(
    folder: &Folder,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Option<Entry>, Trouble> {
    let view = folder.view()?;
    match reference {
        Reference::Tag(tag) => {
            let found = view.as_ref().and_then(|view| view.find(repository, tag)).cloned();
            let unnamed = repository.as_str() == IMAGE_REPOSITORY
                && tag.as_str() == UNNAMED_TAG
                && view.is_some_and(|view| !view.named.contains_key(repository));
            if found.is_none() && unnamed {
                return unnamed_image(folder);
            }
            Ok(found)
        }
        Reference::Digest(digest) => {
            let named = view
                .as_ref()
                .and_then(|view| view.entries().find(|entry| entry.digest == *digest).cloned());
            if named.is_some() {
                return Ok(named);
            }
            // Children of an index are named by their parents only.
            Ok(folder.blob_size(digest)?.map(|size| Entry {
                media_type: None,
                digest: digest.clone(),
                size,
            }))
        }
    }
}

/// Refuses a manifest that reaches what the layout does not hold.
pub(super) fn check_complete(folder: &Folder, manifest: &Manifest) -> Result<(), Trouble> {
    let children = manifest.entries().iter().map(|child| ("child manifest", child));
    let blobs = manifest
        .blobs()
        .filter(|blob| !blob.is_foreign())
        .map(|blob| ("blob", blob));
    for (what, descriptor) in children.chain(blobs) {
        let Descriptor { digest, size, .. } = descriptor;
        match folder.blob_size(digest)? {
            Some(held) if held == *size => {}
            Some(held) => {
                let message = format!("the layout's copy of the {what} {digest} has {held} bytes instead of {size}");
                return Err(Trouble::new(ErrorKind::MissingContent, message));
            }
            None => {
                let message = format!("the layout does not hold the {what} {digest} that this manifest names");
                return Err(Trouble::new(ErrorKind::MissingContent, message));
            }
        }
    }
    Ok(())
}

pub(super) fn find_referrers(
    folder: &Folder,
    repository: &RepositoryName,
    subject: &Digest,
) -> Result<Vec<Descriptor>, Trouble> {
    let Some(view) = folder.view()? else {
        return Ok(Vec::new());
    };
    let mut found: Vec<Descriptor> = Vec::new();
    for entry in view.entries() {
        if found.iter().any(|known| known.digest == entry.digest)
            || folder.subject(&entry.digest)?.as_ref() != Some(subject)
        {
            continue;
        }
        let Some(bytes) = folder.manifest_bytes(&entry.digest)? else {
            continue;
        };
        let size = bytes.len() as u64;
        let manifest =
            Manifest::parse(entry.media_type.as_deref(), bytes.into(), Some(&entry.digest)).map_err(invalid)?;
        found.push(Descriptor {
            media_type: manifest.media_type().to_owned(),
            digest: entry.digest.clone(),
            size,
            platform: None,
            annotations: manifest.annotations(),
            artifact_type: manifest.artifact_type().map(str::to_owned),
            urls: Vec::new(),
        });
    }
    // A layout that was filled from a registry without the referrers API has the fallback tag.
    if let Some(fallback) = view.find(repository, &subject.fallback_tag())
        && let Some(bytes) = folder.manifest_bytes(&fallback.digest)?
    {
        let list = Manifest::parse(fallback.media_type.as_deref(), bytes.into(), Some(&fallback.digest));
        for entry in list.map_err(invalid)?.entries() {
            if !found.iter().any(|known| known.digest == entry.digest) {
                found.push(entry.clone());
            }
        }
    }
    Ok(found)
}
