//! The file: created, opened again, killed, damaged, foreign, newer, full.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use sqlx::migrate::Migrate;

use super::super::connection::{MIGRATIONS, is_old};
use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn pragma(store: &Store, text: &'static str) -> String {
    let mut writer = store.0.writer().await.unwrap();
    let value: sqlx::Result<i64> = sqlx::query_scalar(text).fetch_one(&mut *writer).await;
    match value {
        Ok(number) => number.to_string(),
        Err(_) => sqlx::query_scalar(text).fetch_one(&mut *writer).await.unwrap(),
    }
}

async fn open_error(path: &Path) -> String {
    match Store::open(path).await {
        Ok(_) => panic!("{} opens", path.display()),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn what_is_created_is_private_and_set_as_promised() {
    let (_folder, store) = fresh().await;
    let path = store.path().to_owned();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    start_run(&store, "a", at(0)).await;
    for file in ["", "-wal", "-shm"] {
        assert_eq!(mode(&beside(&path, file)), 0o600, "{file}");
    }
    assert_eq!(pragma(&store, "PRAGMA journal_mode").await, "wal");
    assert_eq!(pragma(&store, "PRAGMA synchronous").await, "2");
    assert_eq!(pragma(&store, "PRAGMA foreign_keys").await, "1");
    assert_eq!(pragma(&store, "PRAGMA trusted_schema").await, "0");
    assert_eq!(pragma(&store, "PRAGMA busy_timeout").await, "5000");
    assert_eq!(pragma(&store, "PRAGMA journal_size_limit").await, "67108864");
    let lax = "SELECT count(*) FROM pragma_table_list WHERE type = 'table' AND strict = 0 \
               AND name NOT LIKE 'sqlite_%' AND name <> '_sqlx_migrations'";
    assert_eq!(pragma(&store, lax).await, "0");
    store.close().await;
    assert_eq!(
        files(path.parent().unwrap()),
        BTreeSet::from(["transship.db".to_owned()])
    );
}

#[tokio::test]
async fn a_state_that_others_may_read_is_tightened() {
    let (_folder, path) = place();
    Store::open(&path).await.unwrap().close().await;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = Store::open(&path).await.unwrap();
    start_run(&store, "a", at(0)).await;
    for file in ["", "-wal", "-shm"] {
        assert_eq!(mode(&beside(&path, file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn every_migration_in_the_folder_is_built_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/migrations");
    assert_eq!(files(&folder).len(), MIGRATIONS.iter().count());
}

#[tokio::test]
async fn opening_again_changes_nothing_and_finds_everything() {
    let (_folder, path) = place();
    let store = Store::open(&path).await.unwrap();
    let run = start_run(&store, "a", at(0)).await;
    let clone = store.clone();
    store.close().await;
    let error = clone.runs(1).await.unwrap_err();
    assert!(error.to_string().contains("list runs: it was closed before"), "{error}");
    let error = clone.request_cancel(run).await.unwrap_err();
    assert!(error.to_string().contains("it was closed before"), "{error}");
    let before = std::fs::read(&path).unwrap();
    for _ in 0..2 {
        let store = Store::open(&path).await.unwrap();
        assert_eq!(store.run(run).await.unwrap().unwrap().rule, "a");
        store.close().await;
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn many_may_open_a_new_file_at_once() {
    let (_folder, path) = place();
    let opened = futures_util::future::join_all((0..8).map(|_| Store::open(&path))).await;
    for store in opened {
        start_run(&store.unwrap(), "a", at(0)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_stands_still_does_no_harm() {
    let (_folder, store) = fresh().await;
    let started = futures_util::future::join_all((0..50).map(|_| start_run(&store, "a", at(0)))).await;
    assert_eq!(started.len(), 50);
    let read = futures_util::future::join_all((0..50).map(|_| store.runs(50))).await;
    assert!(read.into_iter().all(|runs| runs.unwrap().len() == 50));
}

#[tokio::test]
async fn what_a_verb_stored_survives_a_crash() {
    let (_folder, path) = place();
    let store = Store::open(&path).await.unwrap();
    let run = start_run(&store, "nightly", at(0)).await;
    let done = start_run(&store, "done", at(0)).await;
    store.finish_run(done, RunOutcome::Ok, "{}", at(1)).await.unwrap();
    let repository = name("a");
    let open = store.start_job(job(run, &repository, None), at(0)).await.unwrap();
    let image = path.parent().unwrap().join("crashed").join("transship.db");
    let midway = path.parent().unwrap().join("midway").join("transship.db");
    crash_image(&path, &image);
    {
        // A crash in the middle of a transaction leaves nothing of it.
        let mut writer = store.0.writer().await.unwrap();
        let mut transaction = sqlx::Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE")
            .await
            .unwrap();
        sqlx::query("DELETE FROM runs")
            .execute(&mut *transaction)
            .await
            .unwrap();
        crash_image(&path, &midway);
    }
    for image in [image, midway] {
        let store = Store::open(&image).await.unwrap();
        let closed = store.close_interrupted(at(9)).await.unwrap();
        assert_eq!(closed.iter().map(|run| run.id).collect::<Vec<_>>(), [run]);
        assert_eq!(closed[0].outcome, Some(RunOutcome::Interrupted));
        assert_eq!(closed[0].finished_at, Some(at(9)));
        let job = store.job(open).await.unwrap().unwrap();
        assert_eq!(
            (job.outcome, job.finished_at),
            (Some(JobOutcome::Interrupted), Some(at(9)))
        );
        assert_eq!(store.run(done).await.unwrap().unwrap().outcome, Some(RunOutcome::Ok));
        assert_eq!(store.close_interrupted(at(10)).await.unwrap(), []);
    }
    // The transaction that was dropped blocks nobody.
    assert_eq!(store.runs(9).await.unwrap().len(), 2);
    start_run(&store, "after", at(2)).await;
}

#[tokio::test]
async fn damage_is_found_after_an_unclean_stop() {
    let (_folder, path) = place();
    let store = Store::open(&path).await.unwrap();
    let repository = name("a");
    let digests: Vec<_> = (0..2_000).map(digest).collect();
    store.remember_blobs("ecr", &repository, &digests, at(0)).await.unwrap();
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    start_run(&store, "a", at(0)).await;
    let image = path.parent().unwrap().join("crashed").join("transship.db");
    crash_image(&path, &image);
    let mut bytes = std::fs::read(&image).unwrap();
    let pages = bytes.len() / 4096;
    for page in pages / 2..pages - 1 {
        bytes[page * 4096..page * 4096 + 64].fill(0xEE);
    }
    std::fs::write(&image, bytes).unwrap();
    let error = open_error(&image).await;
    assert!(error.contains("it is damaged: move it away"), "{error}");
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let garbage = folder.path().join("garbage.db");
    std::fs::write(&garbage, "name: not a database\n".repeat(500)).unwrap();
    let error = open_error(&garbage).await;
    assert!(
        error.contains("garbage.db: it is not a database of transship: give another path"),
        "{error}"
    );
    let error = Store::open_read_only(&garbage).await.unwrap_err().to_string();
    assert!(error.contains("it is not a database of transship"), "{error}");
    assert_eq!(
        std::fs::read_to_string(&garbage).unwrap(),
        "name: not a database\n".repeat(500)
    );

    let error = open_error(folder.path()).await;
    assert!(
        error.contains("it is a directory: give the path of a file in it"),
        "{error}"
    );
    let error = Store::open_read_only(folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("it is a directory"), "{error}");
    let error = open_error(&garbage.join("state.db")).await;
    assert!(error.contains("part of its path is a file"), "{error}");

    let foreign = folder.path().join("foreign.db");
    let store = Store::open(&foreign).await.unwrap();
    {
        let mut writer = store.0.writer().await.unwrap();
        sqlx::query("DROP TABLE _sqlx_migrations")
            .execute(&mut *writer)
            .await
            .unwrap();
    }
    store.close().await;
    let error = open_error(&foreign).await;
    assert!(error.contains("it is the database of another program"), "{error}");
    let error = Store::open_read_only(&foreign).await.unwrap_err().to_string();
    assert!(error.contains("it is the database of another program"), "{error}");
}

#[tokio::test]
async fn a_truncated_database_is_damaged() {
    let (_folder, path) = place();
    let store = Store::open(&path).await.unwrap();
    let digests: Vec<_> = (0..500).map(digest).collect();
    store.remember_blobs("ecr", &name("a"), &digests, at(0)).await.unwrap();
    store.close().await;
    let length = std::fs::metadata(&path).unwrap().len();
    for left in [length - 4096, length / 2 + 100, 4096] {
        let short = path.with_file_name(format!("short-{left}.db"));
        std::fs::copy(&path, &short).unwrap();
        std::fs::File::options()
            .write(true)
            .open(&short)
            .unwrap()
            .set_len(left)
            .unwrap();
        let error = open_error(&short).await;
        assert!(error.contains("it is damaged: move it away"), "{left}: {error}");
    }
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_said_with_a_remedy() {
    // Root may write anywhere but here, so this holds for every user.
    let error = open_error(Path::new("/proc/transship/state.db")).await;
    assert!(
        error.starts_with("cannot open the state database /proc/transship/state.db: "),
        "{error}"
    );
    assert!(error.contains("choose another place with --state"), "{error}");
    for (kind, text) in [
        (std::io::ErrorKind::PermissionDenied, "this user may not write there"),
        (
            std::io::ErrorKind::ReadOnlyFilesystem,
            "the file system is mounted read-only",
        ),
        (std::io::ErrorKind::StorageFull, "the disk is full"),
    ] {
        let error = StoreError::file(Path::new("x.db"), kind.into()).to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_loses_nothing() {
    let (_folder, store) = fresh().await;
    let run = start_run(&store, "a", at(0)).await;
    {
        let mut writer = store.0.writer().await.unwrap();
        // SQLite answers at its own limit of pages as it does when the disk is full.
        sqlx::query("PRAGMA max_page_count = 1")
            .execute(&mut *writer)
            .await
            .unwrap();
    }
    let digests: Vec<_> = (0..5_000).map(digest).collect();
    let error = store
        .remember_blobs("ecr", &name("a"), &digests, at(0))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("failed while trying to remember blobs: the disk is full: free some space"),
        "{error}"
    );
    assert_eq!(store.known_blobs("ecr", &digests).await.unwrap().len(), 0);
    store.finish_run(run, RunOutcome::Ok, "{}", at(1)).await.unwrap();
    {
        let mut writer = store.0.writer().await.unwrap();
        sqlx::query("PRAGMA max_page_count = 1000000")
            .execute(&mut *writer)
            .await
            .unwrap();
    }
    store.remember_blobs("ecr", &name("a"), &digests, at(0)).await.unwrap();
    assert_eq!(store.known_blobs("ecr", &digests).await.unwrap().len(), 5_000);
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_by_itself_blocks_no_other() {
    let (_folder, store) = fresh().await;
    {
        let mut writer = store.0.writer().await.unwrap();
        let mut transaction = sqlx::Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE")
            .await
            .unwrap();
        sqlx::query("ROLLBACK").execute(&mut *transaction).await.unwrap();
    }
    store
        .remember_blobs("ecr", &name("a"), &[digest(1)], at(0))
        .await
        .unwrap();
    assert_eq!(pragma(&store, "PRAGMA synchronous").await, "2");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let (_folder, path) = place();
    let store = Store::open(&path).await.unwrap();
    {
        let mut writer = store.0.writer().await.unwrap();
        let mut newer = MIGRATIONS.iter().next().unwrap().clone();
        newer.version = 9_999;
        writer.skip("_sqlx_migrations", &newer).await.unwrap();
    }
    let beside_writer = Store::open_read_only(&path).await.unwrap_err();
    assert!(matches!(beside_writer, StoreError::Newer { .. }), "{beside_writer}");
    store.close().await;
    let error = Store::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { .. }), "{error}");
    assert!(error.to_string().contains("newer version of transship"), "{error}");
}

#[tokio::test]
async fn a_schema_that_was_changed_by_hand_is_refused() {
    let (_folder, path) = place();
    let store = Store::open(&path).await.unwrap();
    {
        let mut writer = store.0.writer().await.unwrap();
        sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'")
            .execute(&mut *writer)
            .await
            .unwrap();
    }
    store.close().await;
    let error = open_error(&path).await;
    assert!(
        error.contains("its tables are not those of any version of transship"),
        "{error}"
    );
}

#[tokio::test]
async fn values_that_we_do_not_write_are_no_panic() {
    let (_folder, store) = fresh().await;
    start_run(&store, "a", at(0)).await;
    for damage in [
        "UPDATE runs SET trigger = 'comet'",
        "UPDATE runs SET trigger = 'manual', started_at = 9223372036854775807",
    ] {
        sqlx::query(damage)
            .execute(&mut *store.0.writer().await.unwrap())
            .await
            .unwrap();
        let error = store.runs(1).await.unwrap_err().to_string();
        assert!(error.contains("a value that transship does not write"), "{error}");
    }
}

#[test]
fn only_libraries_with_the_repaired_log_are_taken() {
    for old in ["3.51.2", "3.9.0", "2.99.99", "3.51", "", "trunk"] {
        assert!(is_old(old), "{old}");
    }
    for new in ["3.51.3", "3.52.0", "4.0.0", "3.100.0"] {
        assert!(!is_old(new), "{new}");
    }
}

#[tokio::test]
async fn verbs_can_be_called_from_any_task() {
    fn sendable<T: Send>(future: T) -> T {
        future
    }
    let (_folder, path) = place();
    let store = sendable(Store::open(&path)).await.unwrap();
    sendable(store.start_run(
        NewRun {
            rule: "a",
            trigger: Trigger::Event,
            continues: None,
        },
        at(0),
    ))
    .await
    .unwrap();
    sendable(store.record_settled_jobs(&[], at(0))).await.unwrap();
    sendable(store.known_blobs("ecr", &[digest(1)])).await.unwrap();
    sendable(store.claim_tags("ecr", &name("a"), &[tag("v1")], "a", "b", at(0), at(0)))
        .await
        .unwrap();
    sendable(store.clean_runs(at(0))).await.unwrap();
    sendable(store.forget_unconfirmed(at(0), at(0))).await.unwrap();
    let reader = sendable(Store::open_read_only(&path)).await.unwrap().unwrap();
    assert_eq!(sendable(reader.runs(1)).await.unwrap().len(), 1);
    sendable(store.close()).await;
}

#[tokio::test]
async fn a_verb_that_is_dropped_is_done_wholly_or_not_at_all() {
    let (_folder, store) = fresh().await;
    let run = start_run(&store, "a", at(0)).await;
    let repository = name("a");
    let three = vec![(job(run, &repository, None), finished(JobOutcome::InStep)); 3];
    for patience in 0..150 {
        let patience = std::time::Duration::from_micros(patience * 10);
        // Whether it ended in time does not matter, only what it leaves.
        let _ = tokio::time::timeout(patience, store.record_settled_jobs(&three, at(0))).await;
        let _ = tokio::time::timeout(patience, store.runs(1)).await;
    }
    store.record_settled_jobs(&three, at(0)).await.unwrap();
    let jobs = store.jobs(&JobFilter::default()).await.unwrap();
    assert_eq!(jobs.len() % 3, 0);
    let second = Store::open(store.path()).await.unwrap();
    assert_eq!(second.jobs(&JobFilter::default()).await.unwrap(), jobs);
}

#[tokio::test]
async fn a_directory_without_the_right_to_write_is_said_with_a_remedy() {
    let (_folder, path) = place();
    let folder = path.parent().unwrap();
    let store = Store::open(&path).await.unwrap();
    start_run(&store, "a", at(0)).await;
    store.close().await;
    let everything = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o500)).unwrap();
    // Root is not bound by modes: for root both open.
    let bound = std::fs::write(folder.join("probe"), "").is_err();
    let old = Store::open(&path).await.map(drop).map_err(|error| error.to_string());
    let new = Store::open(&folder.join("new.db"))
        .await
        .map(drop)
        .map_err(|error| error.to_string());
    let read = Store::open_read_only(&path).await.unwrap().unwrap();
    assert_eq!(read.runs(1).await.unwrap().len(), 1);
    std::fs::set_permissions(folder, everything).unwrap();
    for opened in [old, new] {
        match opened {
            Ok(()) => assert!(!bound),
            Err(error) => assert!(
                error.contains("this user may not write there: give it the right"),
                "{error}"
            ),
        }
    }
}
