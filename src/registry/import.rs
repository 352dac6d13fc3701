//! Images that a registry fetches by itself from where they are, so that none of their bytes comes by us.

use super::{Credentials, RemoteSettings};
use crate::oci::{Digest, RepositoryName};

/// Whether a registry fetches images by itself from another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imports {
    /// It does not: it cannot, or the rules do not ask for it.
    Never,
    /// It does, and not from this one: why, as a lower-case fragment.
    NotFrom(String),
    /// It does.
    On(ImportTerms),
}

/// What an image must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportTerms {
    /// Fewer bytes than these are brought sooner by us.
    pub at_least: u64,
    /// Manifests of one image at most.
    pub manifests: usize,
}

/// Where an image comes from.
#[derive(Clone, Copy, Debug)]
pub struct ImportSource<'a> {
    /// The registry's name in the rules.
    pub name: &'a str,
    /// What the rules say of it.
    pub settings: &'a RemoteSettings,
}

/// An image that a registry is to fetch by itself: by digest, and without a tag, so that a fetch that ends late moves none.
#[derive(Clone, Copy, Debug)]
pub struct ImportedImage<'a> {
    /// Where it is.
    pub source: ImportSource<'a>,
    /// The repository there.
    pub from: &'a RepositoryName,
    /// The top manifest.
    pub digest: &'a Digest,
    /// The repository here.
    pub to: &'a RepositoryName,
    /// Bytes of its blobs.
    pub bytes: u64,
}

impl ImportSource<'_> {
    /// User and password that the rules have for it.
    pub fn credentials(&self) -> Option<&Credentials> {
        match &self.settings.login {
            super::LoginSource::Given(credentials) => Some(credentials),
            super::LoginSource::Anonymous | super::LoginSource::DockerConfig => None,
        }
    }
}
