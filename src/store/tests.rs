//! The state database against real files.

mod addresses;
mod aside;
mod beside;
mod file;
mod lock;
mod manifests;
mod memory;
mod owners;
mod together;
mod upkeep;
mod work;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::oci::{Digest, RepositoryName, Tag};

/// A folder for one test and the path of the database in it.
fn place() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state").join("transship.db");
    (folder, path)
}

/// Seconds after an arbitrary fixed time.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// Seconds of a day.
const DAY: i64 = 24 * 3600;

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn digest(number: usize) -> Digest {
    Digest::of(number.to_string().as_bytes())
}

async fn fresh() -> (TempDir, Store) {
    let (folder, path) = place();
    let store = Store::open(&path).await.unwrap();
    (folder, store)
}

async fn start_run(store: &Store, rule: &str, now: Timestamp) -> RunId {
    let run = NewRun {
        rule,
        trigger: Trigger::Manual,
        continues: None,
    };
    store.start_run(run, now).await.unwrap()
}

fn finished(outcome: JobOutcome) -> FinishedJob {
    FinishedJob {
        outcome,
        kind: None,
        status: None,
        code: None,
        message: None,
        attempts: 1,
        bytes_written: 0,
        next_attempt_at: None,
    }
}

/// A job from and to the given repository.
fn job<'a>(run: RunId, repository: &'a RepositoryName, digest: Option<&'a Digest>) -> NewJob<'a> {
    NewJob {
        run,
        source_registry: "harbor",
        source_repository: repository,
        reference: "v1",
        destination_registry: "ecr",
        destination_repository: repository,
        digest,
        owner: "host-1",
    }
}

/// The database as a crash at this moment would leave it: what is on disk, without the index that only memory completes.
fn crash_image(of: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(of, to).unwrap();
    std::fs::copy(beside(of, "-wal"), beside(to, "-wal")).unwrap();
}

/// The names of what is in a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}
