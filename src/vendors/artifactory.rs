//! JFrog Artifactory: listings of tags by its storage API.
//!
//! Facts: jfrog.com, "Artifactory REST APIs", File List; goharbor/harbor `src/pkg/reg/adapter/jfrog`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{FutureExt, ready};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::artifactory_address as address;
use super::artifactory_create::{self as creation, Begin};
use super::artifactory_repositories::{self as repositories, Key};
use super::in_part::InPart;
use super::once::once;
use super::product;
use super::table::Row;
use crate::oci::{RepositoryName, media_type};
use crate::registry::{
    Api, ApiCall, ApiLogin, BulkListing, Created, ErrorKind, Kind, ListedTag, Operation, Phrase, Result, Told, Vendor,
    Ways,
};

pub(super) static ROW: Row = Row {
    kind: Kind::Artifactory,
    habits: |_| {},
    vendor: |_| Arc::new(Artifactory::default()),
};

/// Who may push and not delete may not overwrite (jfrog.com, "Permissions", Delete/Overwrite).
const MAY_NOT_OVERWRITE: &str = "the tag is there, and to overwrite it the user needs the permission Delete/Overwrite: grant it, or let the \
                                 rule leave such tags (`moved_tags: keep`, `on_conflict: keep`)";

static PHRASES: &[Phrase] = &[
    Phrase {
        status: 0,
        code: "",
        says: "needs delete permission",
        writes: Some(true),
        kind: ErrorKind::Conflict,
        advice: MAY_NOT_OVERWRITE,
    },
    // GoogleContainerTools/kaniko#1095. Who may not push at all is refused at the blobs, which come before.
    Phrase {
        status: 0,
        code: "MANIFEST_INVALID",
        says: "403 forbidden",
        writes: Some(true),
        kind: ErrorKind::Conflict,
        advice: MAY_NOT_OVERWRITE,
    },
];

static WAYS: Ways = Ways {
    // A file may be there that its list does not show yet.
    hides_tags: true,
    right_to_list: "the permission to read the repository's settings and files by Artifactory's API",
    // A blob in the closing PUT alone failed on some versions (RTFACT-19344).
    single_put: false,
    create_when_refused: true,
    phrases: PHRASES,
    // It is asked for with the others', in `list_repositories`.
    catalogue: false,
    ..Ways::PLAIN
};

/// How long it is believed what a repository of Artifactory's own is.
const CLASS_LIFE: Duration = Duration::from_secs(3600);
/// Keys of which that is known; above it they are forgotten, which costs a request each.
const MOST_CLASSES: usize = 10_000;
/// The longest list of files, in bytes. A tag has a folder with a file for each layer, and each file has 300 bytes or so: these
/// are eight thousand tags.
const LONGEST: usize = 32 * 1024 * 1024;

/// One Artifactory.
#[derive(Debug, Default)]
struct Artifactory {
    /// By key: what is there, and until when that is believed.
    classes: Mutex<HashMap<String, (Class, Duration)>>,
    /// Repositories whose lists are longer than answers of an API usually are.
    long: Mutex<HashSet<RepositoryName>>,
    told_of: InPart,
    /// Held while a key is looked for and made: whether names begin with keys, once that was looked at, and until when it is believed.
    making: tokio::sync::Mutex<Option<(Begin, Duration)>>,
    /// Held while one of those is read, so that no two of them are in memory.
    alone: tokio::sync::Mutex<()>,
}

/// What a repository of Artifactory's own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// It holds all there is of it.
    Whole,
    /// It holds what it has fetched, or shows what others hold.
    InPart,
    /// There is none of this name, or it is for others to know.
    Missing,
}

/// Of the settings of a repository of Artifactory's own.
#[derive(Deserialize)]
struct Repository {
    rclass: Option<String>,
}

#[derive(Deserialize)]
struct Files {
    #[serde(deserialize_with = "tags_of")]
    files: Vec<ListedTag>,
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
            let Some((key, image)) = self.placed(api, repository).await? else {
                return Ok(BulkListing::None);
            };
            if self.class(api, repository, key).await? != Class::Whole {
                return Ok(BulkListing::None);
            }
            let is_long = lock(&self.long).contains(repository);
            if !is_long {
                match list(api, repository, (key, image), None).await {
                    Err(error) if error.kind == ErrorKind::TooLarge => {}
                    listed => return listed,
                }
                lock(&self.long).insert(repository.clone());
            }
            let _alone = self.alone.lock().await;
            list(api, repository, (key, image), Some(LONGEST)).await
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            let learn = |keys: &[Key]| {
                let until = api.clock().elapsed() + CLASS_LIFE;
                let classes = keys.iter().filter(|key| !key.class.is_empty());
                let learnt = classes.map(|key| (key.key.clone(), (Class::of(&key.class), until)));
                lock(&self.classes).extend(learnt);
            };
            Ok(Some(repositories::list(api, below, &self.told_of, learn).await?))
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        async move {
            let mut begin = self.making.lock().await;
            let now = api.clock().elapsed();
            begin.take_if(|(_, until)| now >= *until);
            let known = begin.map(|(begin, _)| begin);
            let (made, seen) = creation::make(api, repository, known).await;
            *begin = seen.map(|seen| (seen, now + CLASS_LIFE)).or(*begin);
            let created = made?;
            if created == Created::Made {
                // What was known of it is that it was not there.
                lock(&self.classes).retain(|_, (class, _)| *class != Class::Missing);
            }
            Ok(created)
        }
        .boxed()
    }

    /// `Artifactory/7.98.7 79800900`: version and build.
    fn version<'a>(&'a self, api: &'a Api) -> Told<'a, Option<String>> {
        let said = product::said(api, "x-jfrog-version", "Artifactory");
        let version = said.map(|said| match said.rsplit_once(' ') {
            Some((version, build)) if version.contains(' ') && build.bytes().all(|byte| byte.is_ascii_digit()) => {
                version.to_owned()
            }
            _ => said,
        });
        Box::pin(ready(Ok(version)))
    }
}

impl Artifactory {
    /// The key whose storage has the image, and the image's name in it. `None` where names have no key and only the host may tell it:
    /// another repository may have the name of their first part.
    async fn placed<'a>(&self, api: &'a Api, repository: &'a RepositoryName) -> Result<Option<(&'a str, &'a str)>> {
        let url = &api.settings().url;
        if let Some(key) = address::key_of_path(url) {
            return Ok(Some((key, repository.as_str())));
        }
        let Some(placed) = repository.as_str().split_once('/') else {
            return Ok(None);
        };
        let Some(host) = address::key_of_host(url) else {
            return Ok(Some(placed));
        };
        // Who may read what is behind the host may see its key.
        let is_missing = match self.class(api, repository, host).await {
            Ok(class) => class == Class::Missing,
            Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Unauthorized) => true,
            Err(error) => return Err(error),
        };
        Ok(is_missing.then_some(placed))
    }

    /// What a key is: a remote repository has what it has fetched, and a virtual one may show what a remote one has. Only a look at a
    /// tag makes those ask where they fetch from.
    async fn class(&self, api: &Api, repository: &RepositoryName, key: &str) -> Result<Class> {
        let now = api.clock().elapsed();
        let known = |(class, until): &(Class, Duration)| (now < *until).then_some(*class);
        if let Some(class) = lock(&self.classes).get(key).and_then(known) {
            return Ok(class);
        }
        let url = address::url(api, &format!("/api/repositories/{key}"))?;
        let mut call = ApiCall::get(Operation::ListTags, api.place(Some(repository)), url);
        call.login = ApiLogin::Basic;
        let answer = api.call(call).await?;
        let class = match answer.status {
            200 => Class::of(&answer.json::<Repository>()?.rclass.unwrap_or_default()),
            400 | 404 => Class::Missing,
            _ => {
                let error = answer.refused("");
                return match error.kind {
                    ErrorKind::Unsupported => Ok(Class::Missing),
                    _ => Err(error),
                };
            }
        };
        let mut classes = lock(&self.classes);
        if classes.len() >= MOST_CLASSES {
            classes.clear();
        }
        classes.insert(key.to_owned(), (class, now + CLASS_LIFE));
        Ok(class)
    }
}

impl Class {
    fn of(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "local" | "federated" => Self::Whole,
            _ => Self::InPart,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All tags of an image of a key, in one answer, which may be so `long` in bytes, or as long as any.
async fn list(
    api: &Api,
    repository: &RepositoryName,
    (key, image): (&str, &str),
    long: Option<usize>,
) -> Result<BulkListing> {
    let path = format!("/api/storage/{key}/{image}?list&deep=1&depth=2&listFolders=0");
    let url = address::url(api, &path)?;
    let mut call = ApiCall::get(Operation::ListTags, api.place(Some(repository)), url);
    call.login = ApiLogin::Basic;
    call.longest = long.unwrap_or(call.longest);
    let answer = api.call(call).await?;
    match answer.status {
        200 => {}
        400 | 404 => return Ok(BulkListing::None),
        _ => return Err(answer.refused("")),
    }
    let files: Files = answer.json()?;
    Ok(BulkListing::Known {
        tags: once(files.files),
        // What the storage says of an index is not documented: it is compared with looks first.
        comparable: false,
    })
}

/// The tags among the files, of which most are layers: nothing of those is kept.
fn tags_of<'de, D: Deserializer<'de>>(files: D) -> Result<Vec<ListedTag>, D::Error> {
    struct Tags;
    impl<'de> Visitor<'de> for Tags {
        type Value = Vec<ListedTag>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of files")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut files: A) -> Result<Self::Value, A::Error> {
            let mut tags = Vec::new();
            while let Some(file) = files.next_element()? {
                tags.extend(listed(file));
            }
            Ok(tags)
        }
    }
    files.deserialize_seq(Tags)
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
        let tags = once(files.files);
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
