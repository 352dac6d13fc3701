//! `demo` as somebody meets it first: nothing installed, nothing left.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::until;

/// A demo in a process group of its own, with standard input closed and folders that are otherwise empty.
fn demo(folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$0\" demo \"$@\" <&-", env!("CARGO_BIN_EXE_transship")])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder.join("home"))
        .env("TMPDIR", folder.join("tmp"))
        // Whoever needs the network fails: nobody answers there.
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .current_dir(folder.join("here"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command
}

fn folder() -> TempDir {
    let folder = TempDir::new().expect("a temporary directory");
    for name in ["home", "tmp", "here"] {
        std::fs::create_dir(folder.path().join(name)).expect("a folder");
    }
    folder
}

fn left(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["home", "tmp", "here"] {
        let entries = std::fs::read_dir(folder.join(name)).expect("a folder");
        found.extend(entries.map(|entry| entry.expect("an entry").path().display().to_string()));
    }
    found
}

/// Processes of the group, without those that have ended.
fn group(leader: u32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    stats
        .filter(|stat| {
            // pid (command) state parent group …
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            let fields: Vec<&str> = rest.split(' ').collect();
            fields.first() != Some(&"Z") && fields.get(2) == Some(&leader.to_string().as_str())
        })
        .collect()
}

fn told(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_demo_needs_nothing_and_leaves_nothing() {
    let folder = folder();
    let child = demo(folder.path()).spawn().expect("a shell");
    let leader = child.id();
    let output = child.wait_with_output().expect("our child");
    let text = told(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("Both sides are the same."), "{text}");
    assert!(!text.contains("WRONG"), "{text}");
    // Each sentence after a sync was compared: three and four tags of one repository, twice one of the other, two claims.
    assert_eq!(text.matches("on both sides").count(), 9, "{text}");
    assert_eq!(
        text.lines().filter(|line| line.starts_with("  ok ")).count(),
        11,
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "no colours where nobody sees them: {text:?}");
    assert_eq!(left(folder.path()), Vec::<String>::new());
    assert_eq!(group(leader), Vec::<String>::new());
}

#[tokio::test]
async fn a_demo_that_is_stopped_leaves_nothing_either() {
    let folder = folder();
    let mut child = demo(folder.path()).spawn().expect("a shell");
    // The folder is there while it runs: stopped in the middle, not before the start.
    until("the demo's folder", || {
        let ended = child.try_wait().expect("our child").is_some();
        (ended || !left(folder.path()).is_empty()).then_some(())
    })
    .await;
    let id = child.id().to_string();
    let sent = Command::new("kill")
        .args(["-s", "INT", &id])
        .status()
        .expect("kill is installed");
    assert!(sent.success());
    let output = child.wait_with_output().expect("our child");
    assert_eq!(output.status.code(), Some(130), "{}", told(&output));
    assert_eq!(left(folder.path()), Vec::<String>::new());
}

#[test]
fn a_demo_that_cannot_work_says_so() {
    let folder = folder();
    std::fs::remove_dir(folder.path().join("tmp")).expect("a folder");
    let output = demo(folder.path()).output().expect("a shell");
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("cannot make the folder") && text.contains("tmp"),
        "{text}"
    );
}
