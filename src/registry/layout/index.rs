//! `index.json`: which names a layout holds, and how one more is written without touching the others.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::IMAGE_REPOSITORY;
use crate::oci::{Descriptor, Digest, RepositoryName, Tag, media_type};

/// The annotation that names an entry (image-spec `annotations.md`; "Indexes" of `image-layout.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where content is, as an entry of `index.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) media_type: Option<String>,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// What can be read from `index.json`. Entries that are not understood are left out here, and kept in the file.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Entries with a name that is a tag, or a repository and a tag.
    pub(super) named: BTreeMap<RepositoryName, BTreeMap<Tag, Entry>>,
    /// Entries without a name: images that were stored without one, and referrers.
    pub(super) unnamed: Vec<Entry>,
}

impl View {
    /// All entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.named.values().flat_map(BTreeMap::values).chain(&self.unnamed)
    }

    pub(super) fn find(&self, repository: &RepositoryName, tag: &Tag) -> Option<&Entry> {
        self.named.get(repository)?.get(tag)
    }
}

/// `index.json` as a value, so that fields and entries of others stay.
#[derive(Debug)]
pub(super) struct Index(Map<String, Value>);

impl Index {
    /// An index without entries.
    pub(super) fn empty() -> Self {
        let mut fields = Map::new();
        fields.insert("schemaVersion".to_owned(), json!(2));
        fields.insert("mediaType".to_owned(), json!(media_type::OCI_INDEX));
        fields.insert("manifests".to_owned(), json!([]));
        Self(fields)
    }

    /// Reads the file's bytes; else what is wrong with them.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("is not valid JSON ({error})"))?;
        let Value::Object(mut fields) = value else {
            return Err("is not a JSON object".to_owned());
        };
        match fields.get("manifests") {
            Some(Value::Array(_)) => {}
            // Go writes an empty list as null.
            None | Some(Value::Null) => {
                fields.insert("manifests".to_owned(), json!([]));
            }
            Some(_) => return Err("has a `manifests` that is no list".to_owned()),
        }
        Ok(Self(fields))
    }

    /// The bytes for the file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(&self.0).expect("a JSON value can be written")
    }

    pub(super) fn view(&self) -> View {
        let mut view = View::default();
        for value in self.entries() {
            let Some(entry) = entry(value) else { continue };
            match name(value) {
                None => view.unnamed.push(entry),
                Some(text) => {
                    if let Some((repository, tag)) = parse_name(text) {
                        // The first of several wins, as for other readers.
                        view.named.entry(repository).or_default().entry(tag).or_insert(entry);
                    }
                }
            }
        }
        view
    }

    /// Makes the tag point to `entry`. `keep_unnamed` tells of a digest that loses its name whether its entry must
    /// stay without one (a referrer). False where nothing had to be changed.
    pub(super) fn set_tag(
        &mut self,
        repository: &RepositoryName,
        tag: &Tag,
        new: &Entry,
        keep_unnamed: impl Fn(&Digest) -> bool,
    ) -> bool {
        let is_ours = |value: &Value| {
            name(value)
                .and_then(parse_name)
                .is_some_and(|(r, t)| r == *repository && t == *tag)
        };
        let ours: Vec<Option<Entry>> = self.entries().filter(|value| is_ours(value)).map(entry).collect();
        if let [Some(only)] = ours.as_slice()
            && only.digest == new.digest
            && only.media_type == new.media_type
        {
            return false;
        }
        let mut kept = Vec::new();
        for mut value in std::mem::take(self.entries_mut()) {
            if !is_ours(&value) {
                kept.push(value);
                continue;
            }
            let lost = entry(&value).filter(|old| old.digest != new.digest);
            if lost.is_some_and(|old| keep_unnamed(&old.digest)) {
                if let Some(annotations) = value.get_mut("annotations").and_then(Value::as_object_mut) {
                    annotations.remove(REF_NAME);
                }
                kept.push(value);
            }
        }
        let mut value = to_value(new);
        value["annotations"] = json!({ REF_NAME: format_name(repository, tag) });
        kept.push(value);
        *self.entries_mut() = kept;
        true
    }

    /// Adds an entry without a name, unless the digest has an entry already. False where it has.
    pub(super) fn add_unnamed(&mut self, new: &Entry, artifact_type: Option<&str>) -> bool {
        if self.entries().filter_map(entry).any(|old| old.digest == new.digest) {
            return false;
        }
        let mut value = to_value(new);
        if let Some(artifact_type) = artifact_type {
            value["artifactType"] = json!(artifact_type);
        }
        self.entries_mut().push(value);
        true
    }

    fn entries(&self) -> impl Iterator<Item = &Value> {
        self.0.get("manifests").and_then(Value::as_array).into_iter().flatten()
    }

    fn entries_mut(&mut self) -> &mut Vec<Value> {
        match self.0.get_mut("manifests") {
            Some(Value::Array(list)) => list,
            _ => unreachable!("both constructors put a list there"),
        }
    }
}

fn entry(value: &Value) -> Option<Entry> {
    let descriptor: Descriptor = serde_json::from_value(value.clone()).ok()?;
    Some(Entry {
        media_type: Some(descriptor.media_type).filter(|text| !text.is_empty()),
        digest: descriptor.digest,
        size: descriptor.size,
    })
}

fn to_value(entry: &Entry) -> Value {
    json!({ "mediaType": entry.media_type, "digest": entry.digest, "size": entry.size })
}

fn name(value: &Value) -> Option<&str> {
    value.get("annotations")?.get(REF_NAME)?.as_str()
}

/// A tag alone belongs to [`IMAGE_REPOSITORY`]; `repository:tag` says both. Anything else is somebody else's name.
fn parse_name(text: &str) -> Option<(RepositoryName, Tag)> {
    let (repository, tag) = match text.rsplit_once(':') {
        Some(both) => both,
        None => (IMAGE_REPOSITORY, text),
    };
    Some((repository.parse().ok()?, tag.parse().ok()?))
}

fn format_name(repository: &RepositoryName, tag: &Tag) -> String {
    if repository.as_str() == IMAGE_REPOSITORY {
        tag.to_string()
    } else {
        format!("{repository}:{tag}")
    }
}
