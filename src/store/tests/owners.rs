//! Whose an open upload is. A lock belongs to an open file, so two opens in one process are as good as two processes.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::super::connection::MIGRATIONS;
use super::*;

fn key(number: usize) -> UploadKey {
    UploadKey {
        registry: "ecr".into(),
        repository: name("platform/web"),
        digest: digest(number),
    }
}

async fn process(path: &Path) -> Store {
    Store::open_among_others(path, "copy").await.unwrap()
}

async fn save(store: &Store, number: usize, write: &str, offset: u64) -> UploadId {
    let saved = store.save_upload(&key(number), 1000, write, offset, at(0)).await;
    saved.unwrap()
}

/// The session that a process would go on with.
async fn taken(store: &Store, number: usize) -> Option<String> {
    store.upload(&key(number)).await.unwrap().map(|upload| upload.write)
}

#[tokio::test]
async fn processes_that_live_leave_each_other_s_uploads_alone() {
    let (_folder, path) = place();
    let (first, second) = (process(&path).await, process(&path).await);
    let one = save(&first, 1, "one", 0).await;
    assert_eq!(taken(&second, 1).await, None);
    let two = save(&second, 1, "two", 0).await;
    first.record_offset(one, "one, next", 500, None, at(1)).await.unwrap();
    assert_eq!(taken(&first, 1).await.as_deref(), Some("one, next"));
    assert_eq!(taken(&second, 1).await.as_deref(), Some("two"));
    for upload in first.uploads().await.unwrap() {
        let others = upload.id == two;
        assert_eq!(second.forget_idle_upload(&upload).await.unwrap(), others, "{upload:?}");
    }
    assert_eq!(taken(&first, 1).await.as_deref(), Some("one, next"));
    assert_eq!(taken(&second, 1).await, None);
}

#[tokio::test]
async fn what_a_process_leaves_is_taken_up_by_any_that_needs_it_and_the_furthest_first() {
    let (_folder, path) = place();
    let (lives, first, second) = (process(&path).await, process(&path).await, process(&path).await);
    save(&first, 1, "one", 300).await;
    save(&first, 2, "other", 300).await;
    save(&second, 1, "two", 700).await;
    assert_eq!(taken(&lives, 1).await, None);
    first.close().await;
    second.close().await;
    // One that begins under the number of one that ended needs nothing of it, and is in nobody's way.
    let again = process(&path).await;
    assert_eq!(taken(&lives, 1).await.as_deref(), Some("two"));
    assert_eq!(taken(&lives, 1).await.as_deref(), Some("two"));
    assert_eq!(taken(&again, 1).await.as_deref(), Some("one"));
    assert_eq!(taken(&lives, 2).await.as_deref(), Some("other"));
    assert_eq!(taken(&again, 2).await, None);
}

#[tokio::test]
async fn an_old_upload_is_forgotten_unless_it_was_used_meanwhile() {
    let (_folder, path) = place();
    let (store, other) = (process(&path).await, process(&path).await);
    save(&other, 1, "one", 0).await;
    let used = save(&other, 2, "two", 0).await;
    other.close().await;
    let seen = store.uploads().await.unwrap();
    store.record_offset(used, "two", 5, None, at(9)).await.unwrap();
    for upload in &seen {
        let idle = upload.id != used;
        assert_eq!(store.forget_idle_upload(upload).await.unwrap(), idle, "{upload:?}");
    }
    let left = store.uploads().await.unwrap();
    assert_eq!(left.iter().map(|upload| upload.id).collect::<Vec<_>>(), [used]);
}

#[tokio::test]
async fn uploads_from_before_uploads_had_owners_go_on() {
    let (_folder, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut old: SqliteConnection = options.connect().await.unwrap();
    MIGRATIONS.run_direct(Some(6), &mut old, false).await.unwrap();
    let upload = "INSERT INTO uploads VALUES (7, 'ecr', 'platform/web', $1, 1000, 'one', 300, 5, 6)";
    sqlx::query(upload)
        .bind(digest(1).to_string())
        .execute(&mut old)
        .await
        .unwrap();
    sqlx::query("INSERT INTO checkpoints VALUES (1, 7, 300, x'0102')")
        .execute(&mut old)
        .await
        .unwrap();
    old.close().await.unwrap();
    let store = Store::open(&path).await.unwrap();
    let upload = store.upload(&key(1)).await.unwrap().unwrap();
    assert_eq!(
        (upload.id, upload.offset, upload.checkpoints.len()),
        (UploadId(7), 300, 1)
    );
    store.forget_upload(upload.id).await.unwrap();
    let left = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM checkpoints");
    let left = left.fetch_one(&mut *store.0.reader().await.unwrap()).await.unwrap();
    assert_eq!(left, 0, "they go with their upload");
}

#[tokio::test]
async fn a_place_that_cannot_be_used_is_said_with_a_remedy() {
    let (folder, path) = place();
    let error = async |path: &Path| {
        let refused = Store::open_among_others(path, "copy").await.unwrap_err().to_string();
        let place = format!("cannot open the state database {}: ", path.display());
        assert!(refused.starts_with(&place), "{refused}");
        assert!(refused.contains("--state"), "{refused}");
        refused
    };
    error(Path::new("/proc/transship/copy.db")).await;
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    error(&file.join("copy.db")).await;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/proc/transship/lock", beside(&path, ".lock")).unwrap();
    let refused = error(&path).await;
    assert!(refused.contains("cannot use the lock file"), "{refused}");
}
