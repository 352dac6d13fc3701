//! The paths of distribution-spec "Endpoints".

use crate::oci::{Digest, Reference, RepositoryName};

/// What a path names. Names and digests are valid; anything else is no route, as in distribution.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Catalog,
    Tags(RepositoryName),
    Manifest(RepositoryName, Reference),
    Referrers(RepositoryName, Digest),
    Blob(RepositoryName, Digest),
    Uploads(RepositoryName),
    Upload(RepositoryName, String),
}

impl Route {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v2/")?;
        match rest {
            "" => return Some(Self::Base),
            "_catalog" => return Some(Self::Catalog),
            _ => {}
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Some(Self::Tags(name.parse().ok()?));
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads/") {
            return Some(Self::Uploads(name.parse().ok()?));
        }
        let (parent, last) = rest.rsplit_once('/')?;
        if let Some(name) = parent.strip_suffix("/blobs/uploads") {
            return Some(Self::Upload(name.parse().ok()?, last.to_owned()));
        }
        let (name, kind) = parent.rsplit_once('/')?;
        let name: RepositoryName = name.parse().ok()?;
        match kind {
            "manifests" => Some(Self::Manifest(name, last.parse().ok()?)),
            "referrers" => Some(Self::Referrers(name, last.parse().ok()?)),
            "blobs" => Some(Self::Blob(name, last.parse().ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let name: RepositoryName = "a/blobs/b".parse().expect("a name");
        let digest = Digest::of(b"");
        let upload = Route::Upload(name.clone(), "id".to_owned());
        assert_eq!(Route::parse("/v2/a/blobs/b/blobs/uploads/id"), Some(upload));
        assert_eq!(
            Route::parse("/v2/a/blobs/b/blobs/uploads/"),
            Some(Route::Uploads(name.clone()))
        );
        assert_eq!(Route::parse("/v2/a/blobs/b/tags/list"), Some(Route::Tags(name.clone())));
        let blob = Route::parse(&format!("/v2/a/blobs/b/blobs/{digest}"));
        assert_eq!(blob, Some(Route::Blob(name, digest)));
        for none in [
            "/",
            "/v2",
            "/v2/a",
            "/v2/A/tags/list",
            "/v2/a/blobs/sha256:1",
            "/v2/../manifests/x",
        ] {
            assert_eq!(Route::parse(none), None, "{none}");
        }
    }
}
