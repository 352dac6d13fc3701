//! What systemd is told over NOTIFY_SOCKET, read as systemd reads it.

use std::time::Duration;

use tokio::net::UnixDatagram;

use super::Scene;
use crate::support::within;

/// The next message in which `wanted` stands as a line; the messages before it are passed over.
async fn message(socket: &UnixDatagram, wanted: &str) -> Vec<String> {
    let reading = async {
        loop {
            let mut buffer = vec![0; 4096];
            let length = socket.recv(&mut buffer).await.expect("a message");
            let text = String::from_utf8(buffer[..length].to_vec()).expect("text");
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.iter().any(|line| line.starts_with(wanted)) {
                return lines;
            }
        }
    };
    within(&format!("{wanted} to be told"), reading).await
}

fn value<'m>(message: &'m [String], key: &str) -> &'m str {
    let found = message
        .iter()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key} in {message:?}"))
}

/// Microseconds of the machine's monotonic clock, as the daemon should tell them.
fn monotonic() -> u64 {
    match sd_notify::NotifyState::monotonic_usec_now().expect("a clock") {
        sd_notify::NotifyState::MonotonicUsec(at) => u64::try_from(at).expect("after the start of the machine"),
        other => panic!("not a time: {other:?}"),
    }
}

#[tokio::test]
async fn systemd_is_told_of_start_reload_life_and_stop() {
    let mut scene = Scene::new().await;
    let path = scene.home.home().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    scene.home.set_env("NOTIFY_SOCKET", path.to_str().expect("text"));
    scene.home.set_env("WATCHDOG_USEC", "100000");
    let daemon = scene.home.spawn(&["daemon"]);
    let ready = message(&socket, "READY=1").await;
    assert_eq!(value(&ready, "STATUS"), "2 rules, idle");

    // Several in a tenth of the minute after which the scheduler looks at its clock anyway.
    let alive = async {
        for _ in 0..5 {
            message(&socket, "WATCHDOG=1").await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(30), alive).await.is_ok(),
        "the watchdog's time was not heeded"
    );

    let before = monotonic();
    scene.home.set_rules(&scene.rules(&[("web", "app/web")]));
    daemon.signal("HUP");
    let reloading = message(&socket, "RELOADING=1").await;
    let at: u64 = value(&reloading, "MONOTONIC_USEC").parse().expect("a number");
    assert!((before..=monotonic()).contains(&at), "{at} is no time of the reload");
    let ready = message(&socket, "READY=1").await;
    assert_eq!(value(&ready, "STATUS"), "1 rule, idle");

    scene.home.set_rules("version: 1\nrules: nonsense\n");
    daemon.signal("HUP");
    message(&socket, "RELOADING=1").await;
    let ready = message(&socket, "READY=1").await;
    assert_eq!(value(&ready, "STATUS"), "1 rule, idle; changed rules were refused");

    daemon.signal("TERM");
    message(&socket, "STOPPING=1").await;
    daemon.finish().await.expect(0);
}

#[tokio::test]
async fn without_a_watchdog_none_is_fed() {
    let mut scene = Scene::new().await;
    let path = scene.home.home().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    scene.home.set_env("NOTIFY_SOCKET", path.to_str().expect("text"));
    let daemon = scene.home.spawn(&["daemon"]);
    daemon_told(&socket, "READY=1").await;
    daemon.signal("TERM");
    daemon_told(&socket, "STOPPING=1").await;
    daemon.finish().await.expect(0);
}

/// As [`message`], but a WATCHDOG before it fails.
async fn daemon_told(socket: &UnixDatagram, wanted: &str) {
    loop {
        let lines = message(socket, "").await;
        assert!(!lines.iter().any(|line| line == "WATCHDOG=1"), "{lines:?}");
        if lines.iter().any(|line| line == wanted) {
            return;
        }
    }
}
