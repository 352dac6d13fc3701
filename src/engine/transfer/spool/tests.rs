//! Files, locks and room, each spool of a test standing for a process.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

const MIB: u64 = 1024 * 1024;

pub(super) fn spool(folder: &Path, max_size: u64) -> Spool {
    Spool::new(SpoolSettings {
        path: folder.join("spool"),
        max_size,
    })
}

/// On a disk of which more than a tenth is free, as the spool uses no other.
pub(super) fn folder() -> TempDir {
    let mut parents = [std::env::temp_dir(), PathBuf::from("/dev/shm")].into_iter();
    let roomy = |parent: &PathBuf| {
        let folder = std::fs::File::open(parent).and_then(|folder| disk::disk_of(&folder));
        folder.is_ok_and(|disk| disk.has_room_for(100 * MIB + disk.capacity / 50))
    };
    let parent = parents.find(roomy);
    TempDir::new_in(parent.expect("an eighth of the disk for temporary files is free")).expect("a temporary directory")
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn path(folder: &Path, text: &str) -> PathBuf {
    folder.join("spool").join(disk::name(&digest(text)))
}

pub(super) async fn ours(spool: &Spool, text: &str, size: u64) -> SpoolFile {
    match spool.claim(&digest(text), size, Effort::MakeRoom).await {
        Claimed::Ours(file) => file,
        Claimed::Absent => panic!("not made"),
        Claimed::Crowded => panic!("others were to be removed"),
        Claimed::Without => panic!("refused"),
    }
}

async fn refused(spool: &Spool, text: &str, size: u64) -> bool {
    matches!(
        spool.claim(&digest(text), size, Effort::MakeRoom).await,
        Claimed::Without
    )
}

#[tokio::test]
async fn a_file_is_for_us_alone_and_keeps_what_was_added() {
    let folder = folder();
    let spool = spool(folder.path(), 10 * MIB);
    assert!(matches!(
        spool.claim(&digest("a"), MIB, Effort::Take).await,
        Claimed::Absent
    ));
    let mut file = ours(&spool, "a", MIB).await;
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&folder.path().join("spool")), 0o700);
    assert_eq!(mode(&path(folder.path(), "a")), 0o600);
    assert!(refused(&spool, "a", MIB).await, "it has a writer");
    assert!(
        refused(&self::spool(folder.path(), MIB), "a", MIB).await,
        "in any process"
    );

    file.add(0, Bytes::from_static(b"hello ")).await.expect("added");
    file.add(4, Bytes::from_static(b"o world"))
        .await
        .expect("the part that is new");
    file.add(2, Bytes::from_static(b"llo")).await.expect("nothing new");
    file.add(99, Bytes::from_static(b"behind a hole"))
        .await
        .expect("left out");
    assert_eq!(file.read(3, 5).await.expect("read"), "lo wo");
    assert_eq!(file.read(6, 500).await.expect("up to the end"), "world");
    file.keep().await;
    assert_eq!(std::fs::read(path(folder.path(), "a")).expect("a file"), b"hello world");

    let file = ours(&self::spool(folder.path(), 10 * MIB), "a", MIB).await;
    assert_eq!((file.held, file.end), (11, 11));
    file.remove().await;
    assert!(!path(folder.path(), "a").exists());
}

#[tokio::test]
async fn a_file_never_grows_beyond_its_blob() {
    let folder = folder();
    let spool = spool(folder.path(), 10 * MIB);
    let mut file = ours(&spool, "a", 8).await;
    file.add(0, Bytes::from_static(b"0123456789")).await.expect("cut");
    file.keep().await;
    assert_eq!(ours(&spool, "a", 8).await.held, 8);
    // Somebody has a wrong length: it is not used, and stays.
    for effort in [Effort::Take, Effort::Make, Effort::MakeRoom] {
        let claimed = spool.claim(&digest("a"), 7, effort).await;
        assert!(matches!(claimed, Claimed::Absent));
    }
    assert_eq!(ours(&spool, "a", 8).await.held, 8);
    assert_eq!(std::fs::read(path(folder.path(), "a")).expect("a file"), b"01234567");
}

#[tokio::test]
async fn many_small_writes_arrive_in_order_through_a_small_buffer() {
    let folder = folder();
    let spool = spool(folder.path(), 10 * MIB);
    let mut file = ours(&spool, "a", 4 * MIB).await;
    let all: Vec<u8> = (0..4 * MIB).map(|n| (n * 7 % 251) as u8).collect();
    let mut offset = 0;
    for part in all.chunks(100_000) {
        file.add(offset, Bytes::copy_from_slice(part)).await.expect("added");
        offset += part.len() as u64;
    }
    assert_eq!(file.read(3 * MIB, MIB).await.expect("read"), &all[3 * MIB as usize..]);
    file.keep().await;
    assert!(std::fs::read(path(folder.path(), "a")).expect("a file") == all);
}

#[tokio::test]
async fn all_files_together_stay_within_the_limit() {
    let folder = folder();
    let limit = 30 * MIB;
    let (one, other) = (spool(folder.path(), limit), spool(folder.path(), limit));
    let first = ours(&one, "a", 20 * MIB).await;
    assert_eq!(first.end, 0, "room is counted before it is filled");
    assert!(refused(&one, "b", 11 * MIB).await);
    assert!(refused(&other, "b", 11 * MIB).await, "by every process");
    assert!(!path(folder.path(), "b").exists());
    drop(ours(&other, "b", 10 * MIB).await);

    // What is idle makes room, the oldest first; what is in use does not.
    drop(ours(&other, "c", 5 * MIB).await);
    assert!(!path(folder.path(), "b").exists() && path(folder.path(), "c").exists());
    assert!(refused(&other, "d", 11 * MIB).await);
    assert!(path(folder.path(), "c").exists(), "nothing is removed in vain");
    drop(first);
    for effort in [Effort::Make, Effort::MakeRoom] {
        let claimed = other.claim(&digest("d"), 30 * MIB, effort).await;
        let crowded = matches!(claimed, Claimed::Crowded);
        assert_eq!(
            crowded,
            effort == Effort::Make,
            "nothing is removed for a length that nobody has looked at"
        );
        assert_eq!(path(folder.path(), "c").exists(), crowded);
    }
    let last = ours(&other, "d", 30 * MIB).await;
    assert!(!path(folder.path(), "a").exists() && !path(folder.path(), "c").exists());
    last.remove().await;
    assert!(refused(&one, "e", 31 * MIB).await);
    drop(ours(&one, "e", 30 * MIB).await);
}

#[tokio::test]
async fn a_file_that_may_not_grow_is_read_nevertheless() {
    let folder = folder();
    let mut file = ours(&spool(folder.path(), MIB), "a", MIB).await;
    file.add(0, Bytes::from_static(b"paid for")).await.expect("added");
    file.keep().await;
    let mut file = ours(&spool(folder.path(), MIB / 2), "a", MIB).await;
    assert_eq!(file.read(0, 100).await.expect("read"), "paid for");
    file.add(8, Bytes::from_static(b" and more")).await.expect("left out");
    assert_eq!(file.end, 8);
    file.keep().await;
    assert_eq!(std::fs::read(path(folder.path(), "a")).expect("a file"), b"paid for");
}

#[tokio::test]
async fn what_somebody_else_may_have_put_there_is_refused() {
    let folder = folder();
    let spool = spool(folder.path(), 100 * MIB);
    ours(&spool, "x", MIB).await.remove().await;
    // As our own files, so that nothing but the link is wrong with them.
    let victims = ["link", "hard"].map(|name| {
        let victim = folder.path().join(format!("victim of {name}"));
        std::fs::write(&victim, "precious").expect("a file");
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        victim
    });
    symlink(&victims[0], path(folder.path(), "link")).expect("a link");
    std::fs::hard_link(&victims[1], path(folder.path(), "hard")).expect("a link");
    std::fs::create_dir(path(folder.path(), "folder")).expect("a directory");
    std::fs::write(path(folder.path(), "open"), "read by others").expect("a file");
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path(folder.path(), "open"), open).expect("a mode");
    for text in ["link", "hard", "folder", "open"] {
        assert!(refused(&spool, text, MIB).await, "{text}");
    }
    for victim in &victims {
        assert_eq!(std::fs::read(victim).expect("a file"), b"precious");
    }
    // They hinder no other blob, and are nobody's to remove.
    ours(&spool, "a", 100 * MIB).await.remove().await;
    spool.remove_idle(Timestamp::MAX).await;
    for text in ["link", "hard", "folder", "open"] {
        assert!(path(folder.path(), text).symlink_metadata().is_ok(), "{text}");
    }
}

#[tokio::test]
async fn a_directory_that_others_may_write_to_is_refused() {
    let folder = folder();
    let place = folder.path().join("spool");
    std::fs::create_dir(&place).expect("a directory");
    for (mode, works) in [
        (0o777, false),
        (0o770, false),
        (0o1777, false),
        (0o755, true),
        (0o700, true),
    ] {
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode)).expect("a mode");
        let claimed = spool(folder.path(), MIB).claim(&digest("a"), 1000, Effort::Make).await;
        assert_eq!(matches!(claimed, Claimed::Ours(_)), works, "{mode:o}");
    }
    // A place that can be no directory.
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    assert!(refused(&spool(&file, MIB), "a", 1000).await);
    // Not even root may make files there.
    assert!(refused(&spool(Path::new("/proc"), MIB), "a", 1000).await);
}

#[tokio::test]
async fn only_old_files_that_nobody_uses_are_removed() {
    let folder = folder();
    let spool = spool(folder.path(), 10 * MIB);
    drop(ours(&spool, "idle", 1000).await);
    let used = ours(&spool, "used", 1000).await;
    let other = folder.path().join("spool/notes.txt");
    std::fs::write(&other, "of somebody").expect("a file");
    let written = path(folder.path(), "idle").metadata().expect("there").mtime();
    let after = |seconds: u64| {
        let seconds = written + i64::try_from(seconds).expect("small");
        Timestamp::from_second(seconds).expect("a time")
    };
    spool.remove_idle(after(IDLE.as_secs())).await;
    assert!(path(folder.path(), "idle").exists(), "not a second more than a week");
    spool.remove_idle(after(IDLE.as_secs() + 1)).await;
    assert!(!path(folder.path(), "idle").exists());
    assert!(path(folder.path(), "used").exists() && other.exists());
    drop(used);
    spool.forget(&digest("used")).await;
    assert!(!path(folder.path(), "used").exists());
    spool.forget(&digest("used")).await;
}

#[tokio::test]
async fn a_write_that_fails_is_told_to_who_adds() {
    let folder = folder();
    let path = folder.path().join("file");
    std::fs::write(&path, "x").expect("a file");
    // Open for reading only, so that every write fails.
    let tail = Arc::new(Tail::new(std::fs::File::open(&path).expect("a file"), 1));
    tail.add(Bytes::from_static(b"y")).await.expect("it waits for the disk");
    let why = tail.wait_for(2).await.expect_err("it cannot be written");
    assert!(why.contains("os error 9"), "{why}");
    assert!(tail.add(Bytes::from_static(b"z")).await.is_err());
    tail.rest().await;
    assert_eq!(tail.read(0, 10).expect("read"), "x");
}

#[tokio::test]
async fn another_process_that_looks_through_the_directory_is_waited_for() {
    let folder = folder();
    let spool = spool(folder.path(), MIB);
    let place = spool.settings().path.clone();
    let busy = Folder::lock(&place).expect("a directory").expect("nobody else");
    assert!(Folder::lock(&place).expect("a directory").is_none());
    tokio::time::pause();
    assert!(refused(&spool, "a", 1000).await, "not for long");
    drop(busy);
    ours(&spool, "a", 1000).await.remove().await;
}

#[tokio::test]
async fn what_is_looked_for_in_the_directory_is_looked_for_under_its_lock() {
    let folder = folder();
    let place = folder.path().join("spool");
    let lock = Folder::lock(&place).expect("a directory").expect("nobody else");
    // As if a process of the same number, which sees the directory from a container of its own, were just asking.
    let probe = place.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&probe, "of another").expect("a file");
    assert!(Folder::lock(&place).expect("a directory").is_none());
    assert_eq!(std::fs::read(&probe).expect("it is still there"), b"of another");
    drop(lock);
    drop(Folder::lock(&place).expect("a directory").expect("nobody else"));
    assert!(!probe.exists(), "left by a process that was killed");
}

/// What work comes to while more time passes than a disk is waited for, counted from when `begun` ends.
async fn in_time<T>(work: impl Future<Output = T>, begun: impl Future<Output = ()>) -> T {
    let passing = async {
        begun.await;
        for _ in 0..4 {
            tokio::time::advance(DISK_PATIENCE).await;
        }
    };
    let (done, ()) = tokio::join!(tokio::time::timeout(DISK_PATIENCE * 3, work), passing);
    done.expect("a disk is not waited for without end")
}

/// Work at a disk that hangs until the sender is dropped, and word that it has begun.
fn hanging() -> (
    std::sync::mpsc::Sender<()>,
    tokio::sync::oneshot::Receiver<()>,
    impl FnOnce() + Send,
) {
    let (held, hangs) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let work = move || {
        let _ = begun.send(());
        let _ = hangs.recv();
    };
    (held, begins, work)
}

#[tokio::test]
async fn a_claim_that_hangs_holds_nobody_up() {
    let folder = folder();
    let spool = spool(folder.path(), 10 * MIB);
    tokio::time::pause();
    let (held, begins, hang) = hanging();
    let wanted = digest("a");
    let slow = wanted.clone();
    let claim = spool.claim_by(&wanted, MIB, move |folder, reserved| {
        hang();
        folder.claim(&slow, MIB, Effort::Make, 10 * MIB, reserved)
    });
    let meanwhile = async {
        begins.await.expect("begun");
        assert!(spool.0.reserved.try_lock().is_ok(), "others may count meanwhile");
        assert!(!spool.0.said_unusable.load(Ordering::Relaxed));
    };
    assert!(matches!(in_time(claim, meanwhile).await, Claimed::Without));
    assert!(spool.0.said_unusable.load(Ordering::Relaxed), "it is said");
    // At once: not one thread more for a disk that hangs.
    assert!(refused(&spool, "b", MIB).await);
    spool.forget(&digest("c")).await;

    drop(held);
    tokio::time::resume();
    while spool.0.threads.hang() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(spool.reserved().is_empty(), "what came too late is given back");
    ours(&spool, "a", MIB).await.remove().await;
}

#[tokio::test]
async fn a_write_that_hangs_is_given_up_and_the_file_with_it() {
    let folder = folder();
    let spool = spool(folder.path(), 10 * MIB);
    tokio::time::pause();
    let mut file = ours(&spool, "a", 4 * MIB).await;
    let (tail, hung) = Tail::hung(file.tail.file().try_clone().expect("a file"));
    file.tail = tail;
    let part = Bytes::from(vec![7; MIB as usize]);
    file.add(0, part.clone()).await.expect("it waits for the disk");
    assert_eq!(file.add(MIB, part).await, Err(TOO_SLOW.to_owned()));
    assert_eq!(file.read(0, 1).await, Err(TOO_SLOW.to_owned()));
    file.remove().await;
    assert!(spool.0.threads.hang() && refused(&spool, "b", MIB).await);
    drop(hung);
    // The file is closed on a thread, which is soon done.
    tokio::time::resume();
    while spool.0.threads.hang() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    ours(&spool, "b", MIB).await.remove().await;
}

#[test]
fn a_removal_and_a_read_that_hang_are_left_to_themselves() {
    // One thread for everything that blocks, which hangs: nothing begins at all.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let folder = folder();
        let (one, other) = (spool(folder.path(), 10 * MIB), spool(folder.path(), 10 * MIB));
        let kept = ours(&other, "b", MIB).await;
        let mut file = ours(&one, "a", MIB).await;
        file.add(0, Bytes::from_static(b"hello")).await.expect("added");
        assert_eq!(file.read(0, 5).await.expect("read"), "hello");
        let (held, begins, hang) = hanging();
        let stuck = tokio::task::spawn_blocking(hang);
        begins.await.expect("begun");
        let at_once = || std::future::ready(());
        assert_eq!(in_time(file.read(0, 5), at_once()).await, Err(TOO_SLOW.to_owned()));
        in_time(file.remove(), at_once()).await;
        in_time(kept.keep(), at_once()).await;
        drop(held);
        stuck.await.expect("it ended");
    });
}
