use super::*;

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::parse(text, zone).expect("a schedule")
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn next(text: &str, zone: &str, after: &str) -> String {
    let next = schedule(text, zone).next_after(time(after), "rule");
    next.expect("a due time").to_string()
}

#[test]
fn due_times() {
    for (text, zone, after, expected) in [
        ("*/30 * * * *", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T00:30:00Z"),
        ("*/30 * * * *", "UTC", "2026-01-01T00:29:59.5Z", "2026-01-01T00:30:00Z"),
        ("@hourly", "UTC", "2026-01-01T00:00:01Z", "2026-01-01T01:00:00Z"),
        // Midnight in Shanghai.
        (
            "@daily",
            "Asia/Shanghai",
            "2026-01-01T00:00:00Z",
            "2026-01-01T16:00:00Z",
        ),
        // 1 is Monday, as in POSIX.
        ("0 0 * * 1", "UTC", "2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z"),
        ("0 0 * * 7", "UTC", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
        // The 13th or a Friday.
        ("0 0 13 * 5", "UTC", "2026-01-10T00:00:00Z", "2026-01-13T00:00:00Z"),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        // The hour that spring leaves out, and the one that autumn has twice.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            "2026-03-29T01:00:00Z",
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            "2026-10-25T00:30:00Z",
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-25T00:30:00Z",
            "2026-10-26T01:30:00Z",
        ),
    ] {
        assert_eq!(next(text, zone, after), expected, "{text} in {zone} after {after}");
    }
}

#[test]
fn refuses_what_is_no_schedule() {
    for (text, zone, hint) in [
        ("", "UTC", "empty"),
        ("* * * *", "UTC", "4 fields"),
        ("0 * * * * *", "UTC", "write five"),
        ("0 0 * * * * 2026", "UTC", "write five"),
        ("5/15 * * * *", "UTC", "5-59/15"),
        ("0 1,3/4 * * *", "UTC", "3-23/4"),
        ("0 0 31 2 *", "UTC", "never comes"),
        ("61 * * * *", "UTC", "cannot be read"),
        ("a b c d e", "UTC", "cannot be read"),
        ("@often", "UTC", "@hourly"),
        ("@reboot", "UTC", "@hourly"),
        ("@hourly", "Asia/Peking", "IANA"),
        ("@hourly", "", "IANA"),
    ] {
        let error = Schedule::parse(text, zone).expect_err(text);
        assert!(error.problem.contains(hint), "{text}: {error}");
    }
}

fn times(schedule: &Schedule, from: &str, count: usize) -> Vec<Timestamp> {
    let mut after = time(from);
    let mut found = Vec::new();
    for _ in 0..count {
        after = schedule.next_after(after, "rule").expect("a due time");
        found.push(after);
    }
    found
}

#[test]
fn jitter_delays_each_due_time_once_and_keeps_the_order() {
    let plain = schedule("*/10 * * * *", "UTC");
    let due = times(&plain, "2026-01-01T00:00:00Z", 50);
    // Shorter than, as long as and longer than the time between two due times.
    for jitter in [30, 599, 600, 3600] {
        let mut moved = plain.clone();
        moved.jitter = Duration::from_secs(jitter);
        // The time due at the start itself may have been moved past the start.
        let from = times(&moved, "2025-12-31T23:55:00Z", 3);
        let start = from.into_iter().find(|at| *at >= due[0]).expect("one of three");
        let mut all = vec![start];
        while all.len() < due.len() {
            let last = all[all.len() - 1];
            all.push(moved.next_after(last, "rule").expect("a due time"));
        }
        for (at, due) in all.iter().zip(&due) {
            let delay = at.duration_since(*due);
            assert!(delay >= SignedDuration::ZERO, "{at} before {due}");
            assert!(
                delay <= SignedDuration::from_secs(jitter as i64),
                "{at} too late for {due}"
            );
            // From any time between, the answer is the same.
            for before in [*due, *at] {
                let asked = moved
                    .next_after(before - SignedDuration::from_nanos(1), "rule")
                    .expect("a due time");
                assert!(asked <= *at, "asked at {before}");
            }
            assert_eq!(moved.next_after(*at - SignedDuration::from_nanos(1), "rule"), Some(*at));
        }
        assert!(all.is_sorted());
        assert!(all.iter().zip(&due).any(|(at, due)| at != due), "no jitter at all");
        let other: Vec<_> = due.iter().map(|due| moved.with_jitter(*due, "other")).collect();
        assert_ne!(all, other, "every rule has its own");
    }
}

#[test]
fn missed_times() {
    let mut schedule = schedule("0 3 * * *", "UTC");
    let missed =
        |schedule: &Schedule, last: Option<&str>, now: &str| schedule.missed(last.map(time), time(now), "rule");
    let yesterday = Some("2026-01-01T03:00:00Z");
    assert!(missed(&schedule, yesterday, "2026-01-02T03:00:00Z"));
    assert!(missed(&schedule, yesterday, "2026-01-02T04:00:00Z"));
    assert!(!missed(&schedule, yesterday, "2026-01-02T04:00:01Z"), "too old");
    assert!(!missed(&schedule, yesterday, "2026-01-02T02:59:59Z"), "not due");
    assert!(
        !missed(&schedule, Some("2026-01-02T03:00:00Z"), "2026-01-02T03:30:00Z"),
        "it ran"
    );
    assert!(!missed(&schedule, None, "2026-01-02T03:30:00Z"), "nothing known");
    assert!(
        !missed(&schedule, Some("2027-01-01T00:00:00Z"), "2026-01-02T03:30:00Z"),
        "clock went back"
    );
    schedule.missed = MissedRuns::Skip;
    assert!(!missed(&schedule, yesterday, "2026-01-02T03:30:00Z"));
    schedule.missed = MissedRuns::Run;
    schedule.missed_within = Duration::MAX;
    assert!(missed(&schedule, Some("2020-01-01T00:00:00Z"), "2026-01-02T02:00:00Z"));
}

#[test]
fn equal_schedules() {
    let one = schedule("@hourly", "UTC");
    assert_eq!(one, schedule("@hourly", "UTC"));
    assert_ne!(one, schedule("@hourly", "Europe/Berlin"));
    let mut other = one.clone();
    other.jitter = Duration::from_secs(1);
    assert_ne!(one, other);
    assert_eq!((one.text(), one.zone()), ("@hourly", "UTC"));
}
