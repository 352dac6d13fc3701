//! Progress as a person at a terminal sees it.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use transship::demo::images::image;
use transship::oci::Digest;

use super::{registry, resolve, rules, seed, shell};
use crate::support::command::Transship;
use crate::support::proxy::{Act, Fault, Gate, Proxy};
use crate::support::until;

/// A command under `script`, which gives it a terminal; what the terminal got goes to a file.
struct Terminal {
    child: Child,
    shown: PathBuf,
}

impl Terminal {
    fn open(home: &Transship, arguments: &str) -> Self {
        let shown = home.home().join("terminal");
        let inner = home.home().join("inner");
        // The program's own process id, for signals, is written by the shell that becomes the program.
        let program = env!("CARGO_BIN_EXE_transship");
        let line = format!("echo $$ >{}; exec {program} {arguments}", inner.display());
        let mut command = shell(home, "exec script -qefc \"$1\" \"$2\"");
        let child = command
            .arg(line)
            .arg(&shown)
            .env("SHELL", "/bin/sh")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("script (util-linux) is installed");
        Self { child, shown }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.shown).unwrap_or_default()).into_owned()
    }

    async fn wait_for(&self, what: &str) {
        until(what, || self.text().contains(what).then_some(())).await;
    }

    /// The exit status and everything that was shown.
    async fn end(mut self) -> (Option<i32>, String) {
        let status = until("the command to end", || self.child.try_wait().expect("our child")).await;
        (status.code(), self.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only where it has ended already; what runs on the terminal ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cursor that was hidden was shown again.
fn cursor_visible(shown: &str) -> bool {
    match (shown.rfind("\u{1b}[?25l"), shown.rfind("\u{1b}[?25h")) {
        (None, _) => true,
        (Some(hidden), visible) => visible.is_some_and(|visible| visible > hidden),
    }
}

fn process(home: &Path) -> String {
    std::fs::read_to_string(home.join("inner"))
        .expect("a process id")
        .trim()
        .to_owned()
}

#[tokio::test]
async fn a_terminal_shows_bars_while_images_move_and_the_report_afterwards() {
    let (from, to) = (registry().await, registry().await);
    let proxy = Proxy::start(&from.url()).await;
    let sample = image(1, "amd64", &[3 << 20]);
    seed(&from, "app/web", "v1", &sample);
    let layer = Digest::of(&sample.blobs[1]);
    let gate = Gate::new();
    proxy.add(Fault::once(
        "GET",
        layer.hex(),
        Act::HoldResponse(2 << 20, gate.clone()),
    ));
    let home = Transship::new(&rules(&proxy.url(), &to.url()));
    let terminal = Terminal::open(&home, "sync");
    terminal.wait_for("images").await;
    terminal.wait_for(layer.short()).await;
    terminal.wait_for("/3.00 MiB").await;
    gate.open();
    let (code, shown) = terminal.end().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("1       0        0"), "the report: {shown}");
    assert!(cursor_visible(&shown), "{shown:?}");
    assert_eq!(resolve(&to, "app/web", "v1"), Some(sample.digest()));

    // A failure is a line, and the exit status.
    seed(&from, "app/web", "v2", &image(2, "amd64", &[100]));
    let denied = Act::Answer(http::StatusCode::FORBIDDEN, None);
    proxy.add(Fault::every("GET", "/manifests/", denied));
    let (code, shown) = Terminal::open(&home, "sync").end().await;
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("failed") && shown.contains("app/web:v2"), "{shown}");

    // Whoever wants quiet has it.
    proxy.heal();
    let (code, shown) = Terminal::open(&home, "-q sync").end().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("images"), "{shown:?}");
}

#[tokio::test]
async fn ctrl_c_leaves_the_terminal_as_it_was() {
    let (from, to) = (registry().await, registry().await);
    let proxy = Proxy::start(&from.url()).await;
    let sample = image(1, "amd64", &[3 << 20]);
    seed(&from, "app/web", "v1", &sample);
    let gate = Gate::new();
    proxy.add(Fault::every(
        "GET",
        Digest::of(&sample.blobs[1]).hex(),
        Act::HoldResponse(2 << 20, gate),
    ));
    let home = Transship::new(&rules(&proxy.url(), &to.url()));
    let terminal = Terminal::open(&home, "sync");
    terminal.wait_for("/3.00 MiB").await;
    let interrupt = || {
        let sent = std::process::Command::new("kill")
            .args(["-s", "INT", &process(home.home())])
            .status();
        assert!(sent.expect("kill is installed").success());
    };
    interrupt();
    terminal.wait_for("SIGINT: nothing new starts").await;
    interrupt();
    let (code, shown) = terminal.end().await;
    assert_eq!(code, Some(130), "{shown}");
    assert!(cursor_visible(&shown), "{shown:?}");
    // The bars are wiped: the last line that they stood on was cleared.
    let after_bars = shown
        .rfind("\u{1b}[2K")
        .is_some_and(|cleared| !shown[cleared..].contains("/3.00 MiB"));
    assert!(after_bars, "{shown:?}");
}
