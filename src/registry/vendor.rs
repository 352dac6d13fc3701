//! What sets one vendor's registries apart beyond habits: its own login, listings and creation of repositories. The
//! vendors themselves stand in `vendors`, which knows this room; here they are called.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;

use super::{
    Api, BulkListing, Credentials, ErrorKind, ImportSource, ImportedImage, Imports, Kind, RemoteSettings, Result,
};
use crate::oci::{Digest, RepositoryName};

/// What a vendor is asked for.
pub type Told<'a, T> = BoxFuture<'a, Result<T>>;

/// A vendor's own ways with one registry. What is not written here is as with any registry: it knows nothing of its own.
pub trait Vendor: fmt::Debug + Send + Sync {
    /// What it is; `None` while that has not been found out.
    fn kind(&self) -> Option<Kind>;

    /// What else sets its registries apart. May change when the kind is found out, or found to be another one.
    fn ways(&self) -> &'static Ways {
        &Ways::PLAIN
    }

    /// Finds out what the registry is, where that is not known yet.
    fn recognise<'a>(&'a self, _api: &'a Api) -> Told<'a, ()> {
        Box::pin(ready(Ok(())))
    }

    /// Takes over what an earlier process found out, and how long that is still believed; without effect where the kind is known.
    fn assume(&self, _kind: Kind, _left: Duration, _api: &Api) {}

    /// Its kind, where it was found out since this was asked last.
    fn take_found(&self) -> Option<Kind> {
        None
    }

    /// The credential for `/v2/`. `None`: nothing of its own, what Docker's files say holds. Called by one at a time, and
    /// again when it ends or was refused. It must not ask `api` for anything that needs the login ([`ApiLogin::Basic`],
    /// [`ApiLogin::Own`]).
    ///
    /// [`ApiLogin::Basic`]: super::ApiLogin::Basic
    /// [`ApiLogin::Own`]: super::ApiLogin::Own
    ///
    /// # Errors
    /// What stands in the way of a credential that it should have.
    fn login<'a>(&'a self, _api: &'a Api) -> Told<'a, Option<Issued>> {
        Box::pin(ready(Ok(None)))
    }

    /// All tags with what they point to.
    ///
    /// # Errors
    /// `Denied`, `Unauthorized` and `Unsupported` say that this user may not ask, or that this registry has no such
    /// listing: names and a `HEAD` for each are taken then, and the user is warned once. `NotFound` says the same: only
    /// [`BulkListing::Absent`] says that the repository is not there.
    fn list_digests<'a>(&'a self, _api: &'a Api, _repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        Box::pin(ready(Ok(BulkListing::None)))
    }

    /// All repositories whose names begin with one of `below`, which are literal beginnings of the rules' patterns up to a
    /// slash (`platform/`, or the empty text for all); more than those do no harm. `None`: the catalogue is to be used.
    /// Why a part of the list was refused goes to [`Api::leave_out`].
    ///
    /// # Errors
    /// As [`Vendor::list_digests`]; the catalogue is tried then.
    fn list_repositories<'a>(&'a self, _api: &'a Api, _below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        Box::pin(ready(Ok(None)))
    }

    /// Makes what a push to the repository needs to be there. Called only with [`Ways::must_create`], or after a refusal with
    /// [`Ways::create_when_refused`], for one
    /// [`Vendor::container`] by one at a time.
    ///
    /// # Errors
    /// What stands in the way, such as a missing right.
    fn create<'a>(&'a self, _api: &'a Api, _repository: &'a RepositoryName) -> Told<'a, Created> {
        Box::pin(ready(Ok(Created::Nothing)))
    }

    /// What [`Vendor::create`] makes for a repository: itself, or the project that it is in.
    fn container<'r>(&self, repository: &'r RepositoryName) -> &'r str {
        repository.as_str()
    }

    /// Which of these blobs a repository has: [`Ways::blobs_at_once`] of them at most. What the API says nothing certain of is
    /// left out, and looked for by itself.
    ///
    /// # Errors
    /// It cannot be asked; the blobs are looked for one by one then.
    fn held_blobs<'a>(
        &'a self,
        _api: &'a Api,
        _repository: &'a RepositoryName,
        _digests: &'a [Digest],
    ) -> Told<'a, BTreeMap<Digest, bool>> {
        Box::pin(ready(Ok(BTreeMap::new())))
    }

    /// Whether images of a repository may be deleted, found out without deleting any. `None`: it has no way of its own.
    ///
    /// # Errors
    /// It cannot be asked.
    fn may_delete<'a>(&'a self, _api: &'a Api, _repository: &'a RepositoryName) -> Told<'a, Option<bool>> {
        Box::pin(ready(Ok(None)))
    }

    /// Whether it fetches images from there by itself. `own` are its own settings.
    fn imports_from(&self, _own: &RemoteSettings, _source: ImportSource<'_>) -> Imports {
        Imports::Never
    }

    /// Has it fetch an image by itself, under no tag, and waits until that has ended. Called only where
    /// [`Vendor::imports_from`] says so.
    ///
    /// # Errors
    /// It refuses, fails or takes too long; the image is brought by us then. `Denied`, `Unauthorized`, `NotFound`, `Config`,
    /// `Unsupported` and `Throttled` say that the next image would fare no better.
    fn import<'a>(&'a self, _api: &'a Api, _image: &'a ImportedImage<'a>) -> Told<'a, ()> {
        Box::pin(ready(Ok(())))
    }

    /// Finds out which [`Fact`]s hold of the registry, as far as that is not known yet, by questions that leave nothing behind.
    /// `repository` is one of the rules', there or not.
    ///
    /// [`Fact`]: super::Fact
    ///
    /// # Errors
    /// It cannot be asked.
    fn explore<'a>(&'a self, _api: &'a Api, _repository: &'a RepositoryName) -> Told<'a, ()> {
        Box::pin(ready(Ok(())))
    }

    /// Product and version, for people.
    ///
    /// # Errors
    /// It cannot be asked.
    fn version<'a>(&'a self, _api: &'a Api) -> Told<'a, Option<String>> {
        Box::pin(ready(Ok(None)))
    }
}

/// A credential that a vendor gave out.
#[derive(Clone, Debug, PartialEq)]
pub struct Issued {
    /// User and password; the user `<token>` says that the password is an identity token for the token server.
    pub credentials: Credentials,
    /// When it ends, where that is known. It is renewed at 80 % of its life.
    pub ends: Option<Timestamp>,
}

/// What making a repository came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// Nothing is to be made: the push does it.
    Nothing,
    /// It was made.
    Made,
    /// It was there already.
    WasThere,
}

/// What the client has to do otherwise for a kind, as far as nobody needs it before the kind is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways {
    /// True where a push does not make the repository, or the project that it is in: [`Vendor::create`] has to.
    pub must_create: bool,
    /// True where [`Vendor::create`] is asked only when a push was refused as one to what is not there (404). It may do no more
    /// than say who has to make it.
    pub create_when_refused: bool,
    /// What else it may be where nothing at all is at the registry's address, as a lower-case fragment.
    pub nowhere: &'static str,
    /// True where [`Vendor::list_digests`] leaves tags out that `tags/list` has: both are asked.
    pub hides_tags: bool,
    /// True where one service lists the tags of all repositories, so that what its digests mean in one of them they mean in all.
    pub lists_alike: bool,
    /// How many blobs [`Vendor::held_blobs`] takes at once; 0 where there is no such API.
    pub blobs_at_once: usize,
    /// What the user needs to be allowed to for [`Vendor::list_digests`], for the warning: "the permission `ecr:ListImages`".
    pub right_to_list: &'static str,
    /// The action that a token for lists needs beside `pull` (Azure: `metadata_read`).
    pub list_action: Option<&'static str>,
    /// True where a token server wants several scopes in fields of their own, not in one with spaces.
    pub repeat_scopes: bool,
    /// False where there is no catalogue to be asked for.
    pub catalogue: bool,
    /// False where a blob's bytes must not come with the closing PUT alone.
    pub single_put: bool,
    /// Refusals that mean something else here than elsewhere. The first that fits holds.
    pub phrases: &'static [Phrase],
    /// What a refused, expired login is called where the answer is no 401, in lower case: the login is renewed then.
    pub expired_login: Option<&'static str>,
}

impl Ways {
    /// Those of any registry.
    pub const PLAIN: Self = Self {
        must_create: false,
        create_when_refused: false,
        nowhere: "",
        hides_tags: false,
        lists_alike: false,
        blobs_at_once: 0,
        right_to_list: "",
        list_action: None,
        repeat_scopes: false,
        catalogue: true,
        single_put: true,
        phrases: &[],
        expired_login: None,
    };
}

/// What a refusal means in the words of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phrase {
    /// HTTP status; 0 for any.
    pub status: u16,
    /// Code of the error envelope; empty for any.
    pub code: &'static str,
    /// A part of the message, in lower case; empty for any.
    pub says: &'static str,
    /// Whether it is about writes or about reads alone; `None` for both.
    pub writes: Option<bool>,
    /// What is to be done about it.
    pub kind: ErrorKind,
    /// What the user can do, as a lower-case fragment; empty to leave the advice to the kind of error.
    pub advice: &'static str,
}

impl Phrase {
    /// True where it fits a refusal. `text` in lower case.
    pub(super) fn fits(&self, status: u16, code: &str, text: &str, writes: bool) -> bool {
        (self.status == 0 || self.status == status)
            && (self.code.is_empty() || self.code == code)
            && text.contains(self.says)
            && self.writes.is_none_or(|only| only == writes)
    }
}

/// A registry of no vendor's ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generic(pub Kind);

impl Vendor for Generic {
    fn kind(&self) -> Option<Kind> {
        Some(self.0)
    }
}
