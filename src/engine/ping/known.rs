//! What is known of a registry: what was found out by runs and is kept, and what `ping` may find out by asking.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::engine::facade::Engine;
use crate::engine::learnt::{self, ALL, BULK_LISTING, KIND};
use crate::engine::report::PingCapability;
use crate::engine::transfer::{BLOB_RANGES, UPLOAD_HABIT};
use crate::engine::{addresses, blob_memory, listings};
use crate::plan::TriedRepositories;
use crate::registry::{ABSENT, Endpoint, Fact};
use crate::store::{Capability, MountRefusal, Store, StoreError};

/// Repositories that are asked for until something is known: one that is missing tells little.
const MOST_ASKED: usize = 3;
/// Of what is known of single repositories, as many are told of each sort; there may be thousands of them.
const MOST_TOLD: usize = 20;
/// Refused mounts that are read to be counted; there may be one for each two repositories.
const MOST_MOUNTS: usize = 10_000;

/// Asks for what is not known yet, or was missing or refused when it was asked for last. Nothing is left behind by that.
pub(super) async fn explore(engine: &Engine, end: &Endpoint, tried: Option<&TriedRepositories>) {
    let now = engine.clock().now();
    match remembered(engine.store(), end, now).await {
        Ok(known) => learnt::tell_what_is_there(end, &known, now),
        Err(error) => return tracing::warn!("cannot read what was learnt of {}: {error}", end.name()),
    }
    let repositories = tried
        .into_iter()
        .flat_map(|tried| tried.read.iter().chain(&tried.written));
    for repository in repositories.take(MOST_ASKED) {
        end.explore(repository).await;
    }
}

/// What is kept of an end; nothing where that is of another place.
///
/// # Errors
/// The state database fails.
pub(super) async fn remembered(store: &Store, end: &Endpoint, now: Timestamp) -> Result<Vec<Capability>, StoreError> {
    match addresses::has_moved(store, end).await? {
        true => Ok(Vec::new()),
        false => store.capabilities(end.name(), now).await,
    }
}

/// What is known and holds still, and how much more of it is not told.
pub(super) async fn capabilities(engine: &Engine, end: &Endpoint) -> (Vec<PingCapability>, usize) {
    let (store, now) = (engine.store(), engine.clock().now());
    let known = async || -> Result<_, StoreError> {
        let mounts = match addresses::has_moved(store, end).await? {
            true => Vec::new(),
            false => store.mount_refusals(end.name(), MOST_MOUNTS, now).await?,
        };
        Ok((remembered(store, end, now).await?, mounts))
    };
    let (known, mounts) = known().await.unwrap_or_else(|error| {
        tracing::warn!("cannot read what was learnt of {}: {error}", end.name());
        (Vec::new(), Vec::new())
    });
    let mounts = mounts.into_iter().map(
        |MountRefusal {
             from,
             to,
             learnt,
             expires,
         }| Capability {
            class: to,
            name: Fact::Mounts.as_str().to_owned(),
            value: format!("refused from {from}"),
            evidence: "a mount of a blob that was there was not done".to_owned(),
            learnt,
            expires,
        },
    );
    let (known, left_out) = first_of_each(known.into_iter().chain(mounts));
    (known.into_iter().map(told).collect(), left_out)
}

/// What is known of all repositories, and of single ones the first of each sort; with how many are left out.
fn first_of_each(known: impl Iterator<Item = Capability>) -> (Vec<Capability>, usize) {
    let mut taken: HashMap<String, usize> = HashMap::new();
    let (named, left_out): (Vec<_>, Vec<_>) = known.partition(|known| {
        let count = taken.entry(known.name.clone()).or_default();
        *count += usize::from(known.class != ALL);
        known.class == ALL || *count <= MOST_TOLD
    });
    (named, left_out.len())
}

fn told(known: Capability) -> PingCapability {
    let message = words(&known.class, &known.name, &known.value);
    let Capability {
        class,
        name,
        value,
        evidence,
        learnt,
        expires,
    } = known;
    PingCapability {
        class,
        name,
        value,
        message,
        evidence,
        learnt,
        expires,
    }
}

/// In plain words.
fn words(class: &str, name: &str, value: &str) -> String {
    let of_all = class == ALL;
    let to_whom = match value.strip_prefix("refused to ") {
        Some(account) => format!(" to {account}"),
        None => String::new(),
    };
    let is_refused = value.starts_with("refused");
    match (Fact::from_name(name), name) {
        (Some(Fact::ReferrersApi), _) if is_refused => {
            format!(
                "referrers of {class} are refused{to_whom}, or there is no referrers API: attachments are found by their tags"
            )
        }
        (Some(Fact::ReferrersApi), _) if value == ABSENT => {
            "it has no referrers API: attachments are found by their tags".to_owned()
        }
        (Some(Fact::ReferrersApi), _) => "it has the referrers API".to_owned(),
        (Some(Fact::Search), _) if value == ABSENT => {
            "it has no search extension: each tag is looked at by itself".to_owned()
        }
        (Some(Fact::Search), _) => "it has the search extension, which lists tags with their digests".to_owned(),
        (Some(Fact::MetadataDatabase), _) if value == ABSENT => {
            "it has no metadata database: each tag is looked at by itself".to_owned()
        }
        (Some(Fact::MetadataDatabase), _) => {
            "it has the metadata database, whose API lists tags with their digests".to_owned()
        }
        (Some(Fact::PageSize), _) => match value.parse::<u32>() {
            Ok(size) => format!("pages of {size} tags may be asked for"),
            Err(_) => "its pages are as long as it likes: no other length may be asked for".to_owned(),
        },
        (Some(Fact::Project), _) => match value.starts_with("proxy") {
            true => format!("the project {class} is a proxy cache: its tags are looked at one by one"),
            false => format!("the project {class} holds what was pushed to it"),
        },
        (Some(Fact::Mounts), _) => match value.strip_prefix("refused from ") {
            Some(from) => format!("blobs are not mounted from {from} into {class}: they are sent"),
            None => "blobs are mounted from one repository into another".to_owned(),
        },
        (None, KIND) => format!("it is of the kind {value}"),
        (None, BULK_LISTING) if of_all => format!("its API refuses to list repositories{to_whom}"),
        (None, BULK_LISTING) => {
            format!("its API refuses to list tags of {class}{to_whom}: each tag is looked at by itself")
        }
        (None, listings::INDEXES_AGREE) if of_all => "digests of indexes in its lists agreed with the tags".to_owned(),
        (None, listings::INDEXES_AGREE) => format!("digests of indexes in its list of {class} agreed with the tags"),
        (None, listings::IMAGES_AGREE) if of_all => "digests of images in its lists agreed with the tags".to_owned(),
        (None, listings::IMAGES_AGREE) => format!("digests of images in its list of {class} agreed with the tags"),
        (None, listings::DIFFERS) => {
            format!("a digest in its list of {class} was not the tag's: each tag is looked at by itself")
        }
        (None, blob_memory::REFUSES_MISSING_BLOBS) => {
            "it refuses a manifest whose blobs it lacks: blobs that were seen within a day need no look".to_owned()
        }
        (None, UPLOAD_HABIT) => {
            let kept = match value {
                "keeps_bytes" => "every byte that arrived",
                "keeps_pieces" => "whole pieces",
                _ => "nothing",
            };
            format!("of a broken upload it keeps {kept}")
        }
        (None, BLOB_RANGES) if value == "none" => "parts of blobs cannot be asked for: they are read whole".to_owned(),
        (None, BLOB_RANGES) => "parts of blobs came wrong: they are read whole".to_owned(),
        (None, _) => format!("{name} of {class}: {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::UploadHabit;

    #[test]
    fn what_is_known_of_thousands_of_repositories_is_counted() {
        let known = |class: &str, name: &str| Capability {
            class: class.to_owned(),
            name: name.to_owned(),
            value: String::new(),
            evidence: String::new(),
            learnt: Timestamp::UNIX_EPOCH,
            expires: Timestamp::UNIX_EPOCH,
        };
        let many = (0..1000).map(|number| format!("team/app{number}"));
        let all = many
            .flat_map(|class| [known(&class, "listed_digests_agree"), known(&class, "mounts")])
            .chain([known(ALL, "mounts"), known(ALL, "kind"), known("team", "project")]);
        let (told, left_out) = first_of_each(all);
        assert_eq!((told.len(), left_out), (2 * MOST_TOLD + 3, 2 * (1000 - MOST_TOLD)));
        assert_eq!(
            told.iter().filter(|known| known.name == "mounts").count(),
            MOST_TOLD + 1
        );
    }

    #[test]
    fn what_is_known_is_said_in_words() {
        let cases = [
            ("*", "referrers_api", "present"),
            ("*", "referrers_api", "absent"),
            ("team/app", "referrers_api", "refused to robot$a"),
            ("team/app", "referrers_api", "refused"),
            ("*", "search", "present"),
            ("*", "search", "absent"),
            ("*", "metadata_database", "present"),
            ("*", "metadata_database", "absent"),
            ("*", "page_size", "1000"),
            ("*", "page_size", "its own"),
            ("team", "project", "own 7"),
            ("hub", "project", "proxy 8"),
            ("*", "mounts", "done"),
            ("copy/app", "mounts", "refused from team/app"),
            ("*", "kind", "zot"),
            ("*", "bulk_listing", "refused"),
            ("team", "bulk_listing", "refused to robot$a"),
            ("*", "listed_index_digests_agree", "yes"),
            ("team/app", "listed_index_digests_agree", "yes"),
            ("*", "listed_image_digests_agree", "yes"),
            ("team/app", "listed_image_digests_agree", "yes"),
            ("team/app", "listed_digests_differ", "yes"),
            ("*", "refuses_missing_blobs", "yes"),
            ("*", "upload_habit", UploadHabit::KeepsPieces.as_str()),
            ("*", "blob_ranges", "none"),
            ("*", "blob_ranges", "wrong"),
            ("*", "of_a_later_version", "yes"),
        ];
        let all: Vec<String> = cases
            .into_iter()
            .map(|(class, name, value)| format!("{name} = {value}: {}", words(class, name, value)))
            .collect();
        insta::assert_snapshot!(all.join("\n"));
    }
}
