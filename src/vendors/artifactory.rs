//! JFrog Artifactory: listings by its storage API.
//!
//! Facts: jfrog.com, "Artifactory REST APIs", File List; goharbor/harbor `src/pkg/reg/adapter/jfrog`.

use std::sync::Arc;

use futures_util::future::FutureExt;
use serde::Deserialize;

use super::once::once;
use super::table::Row;
use crate::oci::{RepositoryName, media_type};
use crate::registry::{Api, ApiCall, ApiLogin, BulkListing, Kind, ListedTag, Operation, Told, Vendor, Ways};

pub(super) static ROW: Row = Row {
    kind: Kind::Artifactory,
    habits: |_| {},
    vendor: |_| Arc::new(Artifactory),
};

static WAYS: Ways = Ways {
    // Of a virtual repository the storage knows the local ones alone.
    hides_tags: true,
    right_to_list: "the permission to read the repository's files by Artifactory's API",
    // A blob in the closing PUT alone failed on some versions (RTFACT-19344).
    single_put: false,
    ..Ways::PLAIN
};

/// One Artifactory.
#[derive(Debug)]
struct Artifactory;

#[derive(Deserialize)]
struct Files {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    uri: String,
    sha2: Option<String>,
}

impl Vendor for Artifactory {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Artifactory)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            // The first part is the key of Artifactory's own repository, unless the host has it: then this is not found.
            if !repository.as_str().contains('/') {
                return Ok(BulkListing::None);
            }
            let path = format!("/artifactory/api/storage/{repository}?list&deep=1&depth=2&listFolders=0");
            let mut call = ApiCall::get(Operation::ListTags, api.place(Some(repository)), api.own(&path)?);
            call.login = ApiLogin::Basic;
            let answer = api.call(call).await?;
            match answer.status {
                200 => {}
                400 | 404 => return Ok(BulkListing::None),
                _ => return Err(answer.refused("")),
            }
            let files: Files = answer.json()?;
            Ok(BulkListing::Known {
                tags: once(files.files.into_iter().filter_map(listed)),
                // What the storage says of an index is not documented: it is compared with looks first.
                comparable: false,
            })
        }
        .boxed()
    }
}

/// `/<tag>/manifest.json`, or `/<tag>/list.manifest.json` for an index. Digests have folders too, which are no tags.
fn listed(file: File) -> Option<ListedTag> {
    let (tag, name) = file.uri.trim_start_matches('/').split_once('/')?;
    let index = match name {
        "manifest.json" => false,
        "list.manifest.json" => true,
        _ => return None,
    };
    if tag.starts_with("sha256:") || tag.starts_with("sha256__") {
        return None;
    }
    let kind = match index {
        true => media_type::OCI_INDEX,
        false => media_type::OCI_MANIFEST,
    };
    Some(ListedTag {
        tag: tag.parse().ok()?,
        digest: file.sha2.and_then(|hex| format!("sha256:{hex}").parse().ok()),
        media_type: Some(kind.to_owned()),
        pushed: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifactory_files_are_tags_where_they_are_manifests() {
        let sha2 = "a".repeat(64);
        let files: Files = serde_json::from_value(serde_json::json!({
            "uri": "https://corp.jfrog.io/artifactory/api/storage/docker/app",
            "files": [
                { "uri": "/v1/manifest.json", "sha2": sha2 },
                { "uri": "/v1/sha256__abc", "sha2": sha2 },
                { "uri": "/multi/list.manifest.json", "sha2": sha2 },
                { "uri": "/sha256:0123/manifest.json", "sha2": sha2 },
                { "uri": "/sha256__0123/manifest.json", "sha2": sha2 },
                { "uri": "/old/manifest.json" },
            ],
        }))
        .expect("files");
        let tags = once(files.files.into_iter().filter_map(listed));
        let shown: Vec<_> = tags
            .iter()
            .map(|listed| {
                let index = listed.media_type.as_deref().is_some_and(media_type::is_index);
                (listed.tag.as_str(), listed.digest.is_some(), index)
            })
            .collect();
        assert_eq!(
            shown,
            [("v1", true, false), ("multi", true, true), ("old", false, false)]
        );
    }
}
