use super::*;

#[tokio::test]
async fn a_broken_write_goes_on() {
    let dir = TempDir::new().expect("a folder");
    let first = layout(&dir);
    let data: Vec<u8> = (0..1000u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::of(&data);
    let write = first.begin_write(&image()).await.expect("an upload");
    assert_eq!(
        first.upload_habit(&write).await.expect("known"),
        UploadHabit::KeepsBytes
    );
    let broken = first
        .finish_write(&write, &digest, 0, 4000, broken_body(&data[..1500]))
        .await;
    assert_eq!(broken.expect_err("broken").kind, ErrorKind::Network);
    let stored = write.to_stored();
    drop(first);

    let second = layout(&dir);
    let write = BlobWrite::from_stored(&stored).expect("as stored");
    let SessionState::Open { write, offset } = second.resume_write(&write).await.expect("an answer") else {
        panic!("the write is gone")
    };
    assert_eq!(offset, 1500);
    let ahead = second.write_piece(&write, 1600, 100, body(&data[1600..1700])).await;
    assert_eq!(ahead.expect_err("a hole").kind, ErrorKind::Invalid);
    // An older checkpoint is as good; what lies behind it is dropped.
    let (write, held) = second
        .write_piece(&write, 1400, 600, body(&data[1400..2000]))
        .await
        .expect("a piece");
    assert_eq!(held, 2000);
    let short = second.write_piece(&write, 2000, 100, body(&data[2000..2050])).await;
    assert_eq!(short.expect_err("short").kind, ErrorKind::Invalid);
    let long = second.write_piece(&write, 2000, 100, body(&data[2000..2200])).await;
    assert_eq!(long.expect_err("long").kind, ErrorKind::Invalid);
    let done = second
        .finish_write(&write, &digest, 2000, 2000, body(&data[2000..]))
        .await;
    assert_eq!(done.expect("whole").digest, digest);
    assert_eq!(std::fs::read(second.folder.blob(&digest)).expect("a blob"), data);
    let state = second.resume_write(&write).await.expect("an answer");
    assert!(matches!(state, SessionState::Gone));
}

#[tokio::test]
async fn wrong_bytes_are_dropped() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    let digest = Digest::of(b"right");
    let write = layout.begin_write(&image()).await.expect("an upload");
    // The first half is wrong and was written earlier: only a hash of the whole finds that.
    let (write, _) = layout.write_piece(&write, 0, 2, body(b"wr")).await.expect("a piece");
    let done = layout.finish_write(&write, &digest, 2, 3, body(b"ght")).await;
    assert_eq!(done.expect_err("wrong").kind, ErrorKind::Corrupt);
    assert_eq!(layout.head_blob(&image(), &digest).await.expect("a head"), None);
    assert!(matches!(
        layout.resume_write(&write).await.expect("an answer"),
        SessionState::Gone
    ));
    let empty = put_blob(&layout, b"").await;
    assert_eq!(layout.head_blob(&image(), &empty).await.expect("a head"), Some(0));
    let write = layout.begin_write(&image()).await.expect("an upload");
    layout.cancel_write(&write).await;
    assert!(matches!(
        layout.resume_write(&write).await.expect("an answer"),
        SessionState::Gone
    ));
}

#[tokio::test]
async fn stored_names_cannot_leave_the_folder() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    put_blob(&layout, b"x").await;
    let outside = dir.path().join("outside");
    std::fs::write(&outside, b"precious").expect("written");
    let absolute = outside.to_string_lossy().into_owned();
    for name in [
        "../../outside",
        "../index.json",
        "",
        ".",
        "..",
        "ABCDEF0123456789",
        "0123456789abcde/",
        &absolute,
    ] {
        let stored = serde_json::json!({ "repository": "image", "location": name, "min_piece": null }).to_string();
        let write = BlobWrite::from_stored(&stored).expect("well formed");
        let state = layout.resume_write(&write).await.expect("an answer");
        assert!(matches!(state, SessionState::Gone), "{name}");
        let piece = layout.write_piece(&write, 0, 1, body(b"!")).await;
        assert_eq!(piece.expect_err(name).kind, ErrorKind::Invalid);
        let done = layout.finish_write(&write, &Digest::of(b"!"), 0, 1, body(b"!")).await;
        assert_eq!(done.expect_err(name).kind, ErrorKind::Invalid);
        layout.cancel_write(&write).await;
    }
    assert_eq!(std::fs::read(&outside).expect("still there"), b"precious");
    assert!(dir.path().join("bundle/index.json").is_file());
}

#[tokio::test]
async fn unfinished_writes_of_days_ago_are_removed_at_the_first_write() {
    let dir = TempDir::new().expect("a folder");
    let first = layout(&dir);
    let writes = [
        first.begin_write(&image()).await.expect("a write"),
        first.begin_write(&image()).await.expect("a write"),
    ];
    let ingest = dir.path().join("bundle/.transship-ingest");
    let foreign = ingest.join("notes");
    std::fs::write(&foreign, "kept").expect("written");
    let files = [&ingest.join(&writes[0].location), &foreign];
    for path in files {
        let file = std::fs::File::options().write(true).open(path).expect("a file");
        let now = file.metadata().and_then(|found| found.modified()).expect("a time");
        let hours = std::time::Duration::from_secs(60 * 60);
        file.set_modified(now - 25 * hours).expect("a time");
    }
    let second = layout(&dir);
    let gone = |write: &BlobWrite| !ingest.join(&write.location).exists();
    assert!(!gone(&writes[0]), "reading removes nothing");
    put_blob(&second, b"x").await;
    assert!(gone(&writes[0]) && !gone(&writes[1]) && foreign.exists());
}

#[tokio::test]
async fn a_write_that_fails_on_a_full_disk_leaves_no_file() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    let failed = |kind: std::io::ErrorKind| Trouble::io("write", Path::new("/srv/x"), kind.into());
    let write = layout.begin_write(&image()).await.expect("a write");
    let path = dir.path().join("bundle/.transship-ingest").join(&write.location);
    layout
        .folder
        .cancel_if_full(&write.location, &failed(std::io::ErrorKind::Other));
    assert!(path.exists(), "what can go on is kept");
    layout
        .folder
        .cancel_if_full(&write.location, &failed(std::io::ErrorKind::StorageFull));
    assert!(!path.exists());
}
