//! Two processes and one state. A lock belongs to an open file, so two opens in one process are as good as two processes.

use super::*;

#[test]
fn a_second_process_is_told_who_holds_the_lock() {
    let (_folder, path) = place();
    assert_eq!(StateLock::holder(&path).unwrap(), None);
    assert!(!path.parent().unwrap().exists(), "asking must create nothing");
    let us = Holder {
        pid: Some(std::process::id()),
        command: Some("daemon".into()),
    };
    let lock = StateLock::acquire(&path, "daemon").unwrap().unwrap();
    assert_eq!(StateLock::holder(&path).unwrap().as_ref(), Some(&us));
    assert_eq!(StateLock::acquire(&path, "sync").unwrap().unwrap_err(), us);
    drop(lock);
    assert_eq!(StateLock::holder(&path).unwrap(), None);
    let _sync = StateLock::acquire(&path, "sync").unwrap().unwrap();
    let holder = StateLock::holder(&path).unwrap().unwrap();
    assert_eq!(holder.command.as_deref(), Some("sync"));
}

#[test]
fn what_a_dead_process_left_in_the_file_is_no_holder() {
    let (_folder, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(beside(&path, ".lock"), "1 a much longer command than the next\n").unwrap();
    assert_eq!(StateLock::holder(&path).unwrap(), None);
    let _lock = StateLock::acquire(&path, "sync").unwrap().unwrap();
    let text = std::fs::read_to_string(beside(&path, ".lock")).unwrap();
    assert_eq!(text, format!("{} sync\n", std::process::id()));
}

#[test]
fn a_holder_that_wrote_nothing_is_still_a_holder() {
    let (_folder, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(beside(&path, ".lock")).unwrap();
    file.lock().unwrap();
    let unknown = Holder {
        pid: None,
        command: None,
    };
    assert_eq!(StateLock::acquire(&path, "sync").unwrap().unwrap_err(), unknown);
}

#[test]
fn a_lock_that_cannot_be_made_is_said_with_its_place_and_a_remedy() {
    let error = StateLock::acquire(Path::new("/proc/transship/state.db"), "sync")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot use the lock file /proc/transship/state.db.lock: "),
        "{error}"
    );
    assert!(error.contains("choose another place with --state"), "{error}");
}
