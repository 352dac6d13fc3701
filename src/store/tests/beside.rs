//! Several processes and one file: readers beside a writer, a process that is killed.

use super::*;

#[tokio::test]
async fn reading_makes_no_file_and_finds_none_where_there_is_none() {
    let (_folder, path) = place();
    assert!(Store::open_read_only(&path).await.unwrap().is_none());
    assert!(!path.parent().unwrap().exists());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "").unwrap();
    assert!(Store::open_read_only(&path).await.unwrap().is_none());

    let store = Store::open(&path).await.unwrap();
    start_run(&store, "a", at(0)).await;
    store.close().await;
    let folder = path.parent().unwrap();
    let before = files(folder);
    let reader = Store::open_read_only(&path).await.unwrap().unwrap();
    assert_eq!(reader.runs(5).await.unwrap().len(), 1);
    assert_eq!(files(folder), before);
    let error = reader.request_cancel(RunId(1)).await.unwrap_err().to_string();
    assert!(error.contains("it was opened for reading only"), "{error}");

    // A writer that comes later is seen, as is what it did once it is gone.
    let store = Store::open(&path).await.unwrap();
    start_run(&store, "b", at(1)).await;
    assert_eq!(reader.runs(5).await.unwrap().len(), 2);
    store.close().await;
    assert_eq!(reader.runs(5).await.unwrap().len(), 2);
    reader.close().await;
    assert_eq!(files(folder), before);
}

#[tokio::test]
async fn a_reader_beside_a_writer_sees_what_is_done_and_does_not_wait() {
    let (_folder, path) = place();
    let writer = Store::open(&path).await.unwrap();
    start_run(&writer, "a", at(0)).await;
    let reader = Store::open_read_only(&path).await.unwrap().unwrap();
    assert_eq!(reader.runs(5).await.unwrap().len(), 1);
    {
        let mut connection = writer.0.writer().await.unwrap();
        let mut transaction = sqlx::Connection::begin_with(&mut *connection, "BEGIN IMMEDIATE")
            .await
            .unwrap();
        sqlx::query("DELETE FROM runs")
            .execute(&mut *transaction)
            .await
            .unwrap();
        assert_eq!(reader.runs(5).await.unwrap().len(), 1);
        assert_eq!(writer.runs(5).await.unwrap().len(), 1);
        transaction.rollback().await.unwrap();
    }
    start_run(&writer, "b", at(1)).await;
    assert_eq!(reader.runs(5).await.unwrap().len(), 2);
    // A second writer takes its turn: `cancel` beside a run.
    let second = Store::open(&path).await.unwrap();
    assert!(second.request_cancel(RunId(1)).await.unwrap());
    second.close().await;
    assert_eq!(writer.cancel_requested(&[RunId(1)]).await.unwrap(), [RunId(1)]);
}

/// Set for the process that [`a_killed_process_loses_its_lock_and_nothing_else`] starts: where the database is.
const DOOMED: &str = "TRANSSHIP_TEST_DOOMED_STATE";

#[tokio::test]
#[ignore = "the process that another test starts and kills"]
async fn doomed_process() {
    let Some(path) = std::env::var_os(DOOMED).map(PathBuf::from) else {
        return;
    };
    let _lock = StateLock::acquire(&path, "sync").unwrap().unwrap();
    let store = Store::open(&path).await.unwrap();
    start_run(&store, "nightly", at(0)).await;
    let mut writer = store.0.writer().await.unwrap();
    let mut transaction = sqlx::Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE")
        .await
        .unwrap();
    sqlx::query("DELETE FROM runs")
        .execute(&mut *transaction)
        .await
        .unwrap();
    println!("{DOOMED} ready");
    // Until it is killed, or its parent is gone.
    std::io::read_to_string(std::io::stdin()).unwrap();
}

#[tokio::test]
async fn a_killed_process_loses_its_lock_and_nothing_else() {
    use std::io::BufRead;
    use std::process::{Command, Stdio};
    let (_folder, path) = place();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::beside::doomed_process",
            "--ignored",
            "--nocapture",
        ])
        .env(DOOMED, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let ready = output.lines().any(|line| line.unwrap().contains("ready"));
    assert!(ready, "the process ended before it was ready");
    let holder = StateLock::holder(&path).unwrap().unwrap();
    assert_eq!(
        (holder.pid, holder.command.as_deref()),
        (Some(child.id()), Some("sync"))
    );
    let reader = Store::open_read_only(&path).await.unwrap().unwrap();
    assert_eq!(reader.runs(5).await.unwrap().len(), 1);

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(StateLock::holder(&path).unwrap(), None);
    assert_eq!(reader.runs(5).await.unwrap().len(), 1);
    let _lock = StateLock::acquire(&path, "sync").unwrap().unwrap();
    let store = Store::open(&path).await.unwrap();
    let closed = store.close_interrupted(at(9)).await.unwrap();
    assert_eq!(closed.len(), 1);
    assert_eq!(reader.runs(5).await.unwrap()[0].outcome, Some(RunOutcome::Interrupted));
}
