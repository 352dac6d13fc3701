//! The unit file, as far as it can be checked without starting it.

use std::path::Path;
use std::process::{Command, Output};

const UNIT: &str = "systemd/transship.service";

/// The values of a key, in order.
fn values<'t>(unit: &'t str, key: &str) -> Vec<&'t str> {
    unit.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

/// Asks systemd about a unit whose program is replaced by one that is surely there, or `None` without systemd.
fn verify(folder: &Path, unit: &str) -> Option<Output> {
    let lines: Vec<_> = unit
        .lines()
        .map(|line| {
            if line.starts_with("ExecStart=") {
                "ExecStart=/bin/true"
            } else {
                line
            }
        })
        .collect();
    let path = folder.join("transship.service");
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    match Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&path)
        .output()
    {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: systemd-analyze cannot be run here: {error}");
            None
        }
    }
}

#[test]
fn systemd_takes_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = super::read(UNIT);
    let Some(output) = verify(folder.path(), &unit) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("transship.service"), "{said}");
    let wrong = verify(folder.path(), &unit.replace("ProtectSystem=", "ProtectSytem=")).unwrap();
    assert!(!wrong.status.success() || String::from_utf8_lossy(&wrong.stderr).contains("ProtectSytem"));
}

#[test]
fn the_unit_promises_what_the_daemon_does() {
    let unit = super::read(UNIT);
    for (key, value) in [
        ("Type", "notify"),
        (
            "ExecStart",
            "/usr/bin/transship daemon --rules /etc/transship/rules.yaml",
        ),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
        ("StateDirectory", "transship"),
        ("RuntimeDirectory", "transship"),
        ("User", "transship"),
        ("Group", "transship"),
        ("KillSignal", "SIGTERM"),
        ("Restart", "on-failure"),
        // Exit status 2 is a mistake in rules or state that a new start does not mend.
        ("RestartPreventExitStatus", "2"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("CapabilityBoundingSet", ""),
    ] {
        assert_eq!(values(&unit, key), [value], "{key}");
    }
    // Draining takes up to 20 s, and systemd must wait longer than that.
    let stop: u32 = values(&unit, "TimeoutStopSec")[0].parse().unwrap();
    assert!(stop > 20, "{stop}");
    assert_eq!(values(&unit, "WatchdogSec").len(), 1);
    let users = super::read("systemd/transship.sysusers.conf");
    assert!(users.lines().any(|line| line.starts_with("u transship ")), "{users}");
}
