//! What holds for a registry as a whole.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limits(concurrency: Option<usize>, requests_per_second: Option<f64>, bandwidth: Option<u64>) -> Limits {
    Limits {
        concurrency,
        requests_per_second,
        bandwidth,
    }
}

fn throttle(of: Limits) -> Arc<Throttle> {
    Limiter::default().throttle("there", "there.example", of)
}

/// Waits as long as it takes on the clock of the test, which stands still unless nothing else moves.
async fn soon<F: Future>(future: F) -> Option<F::Output> {
    tokio::time::timeout(SECOND, future).await.ok()
}

/// Enters as often as there is a place.
async fn fill(throttle: &Arc<Throttle>, class: Class) -> Vec<Permit> {
    let mut permits = Vec::new();
    while let Some(permit) = soon(throttle.enter(class, 0)).await {
        permits.push(permit);
    }
    permits
}

fn shrink(throttle: &Throttle, class: Class) {
    let start = Instant::now();
    for number in 1..20 {
        throttle
            .places
            .with(|windows| windows.congested(class, start + number * SECOND, start + number * SECOND));
    }
    assert_eq!(throttle.size(class), 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_within_one_registry_cannot_wait_for_itself() {
    for of_registry in [None, Some(1), Some(2), Some(5)] {
        for of_process in [None, Some(1), Some(3)] {
            for shrunk in [false, true] {
                let limiter = Limiter::default();
                limiter.set(limits(of_process, None, None));
                let throttle = limiter.throttle("there", "there.example", limits(of_registry, None, None));
                let what = format!("{of_registry:?} {of_process:?} {shrunk}");
                let reads = fill(&throttle, Class::BlobRead).await;
                assert!(!reads.is_empty(), "{what}");
                if shrunk {
                    shrink(&throttle, Class::BlobRead);
                    shrink(&throttle, Class::BlobWrite);
                }
                // With every read open, a write and a small request still get in, one after the other.
                for class in [Class::BlobWrite, Class::Begin, Class::BlobWrite] {
                    assert!(soon(throttle.enter(class, 0)).await.is_some(), "{what} {class:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_gets_what_is_free_and_nobody_waits_for() {
    let throttle = throttle(limits(Some(4), None, None));
    let first = throttle.try_enter(Class::BlobRead);
    let second = throttle.try_enter(Class::BlobRead);
    assert!(first.is_some() && second.is_some());
    assert!(throttle.try_enter(Class::BlobRead).is_none(), "the window is full");
    let mut waiting = std::pin::pin!(throttle.enter(Class::BlobRead, 0));
    assert!(soon(&mut waiting).await.is_none());
    drop(first);
    assert!(throttle.try_enter(Class::BlobRead).is_none(), "it is another's");
    assert!(soon(waiting).await.is_some());
    let third = throttle.try_enter(Class::BlobRead);
    assert!(third.is_some());
    drop(third);
    throttle.pause(SECOND);
    assert!(throttle.try_enter(Class::BlobRead).is_none(), "not during a pause");
}

#[tokio::test(start_paused = true)]
async fn blobs_leave_a_place_to_small_requests() {
    let throttle = throttle(limits(Some(4), None, None));
    let _blobs = (
        fill(&throttle, Class::BlobRead).await,
        fill(&throttle, Class::BlobWrite).await,
    );
    let small = soon(throttle.enter(Class::Read, 0)).await;
    assert!(small.is_some());
    assert!(
        soon(throttle.enter(Class::Read, 0)).await.is_none(),
        "four are the most"
    );
    drop(small);
    assert!(soon(throttle.enter(Class::List, 0)).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_ceiling_of_the_process_is_over_all_registries() {
    let limiter = Limiter::default();
    limiter.set(limits(Some(3), None, None));
    let ends = ["a", "b"].map(|name| limiter.throttle(name, name, Limits::default()));
    let mut permits = Vec::new();
    for end in ends.iter().cycle().take(3) {
        permits.push(soon(end.enter(Class::Read, 0)).await.expect("a place"));
    }
    for end in &ends {
        assert!(soon(end.enter(Class::Read, 0)).await.is_none());
    }
    limiter.set(limits(Some(4), None, None));
    assert!(
        soon(ends[0].enter(Class::Read, 0)).await.is_some(),
        "new limits hold at once"
    );
    permits.pop();
    limiter.set(Limits::default());
    assert_eq!(fill(&ends[1], Class::List).await.len(), 4, "only the window bounds");
}

#[tokio::test(start_paused = true)]
async fn new_rules_change_the_limits_of_what_is_under_way() {
    let limiter = Limiter::default();
    let open = |of| limiter.throttle("there", "there.example", of);
    let before = open(limits(Some(2), Some(0.001), None));
    let _two = fill(&before, Class::Read).await;
    before.turn(0, false).await.expect("no pause");
    let start = Instant::now();
    let waiting = async {
        let (_third, turn) = tokio::join!(before.enter(Class::Read, 0), before.turn(0, false));
        turn.expect("no pause");
    };
    let reloading = async {
        tokio::time::sleep(SECOND).await;
        open(limits(Some(3), None, None));
    };
    tokio::join!(waiting, reloading);
    assert!(start.elapsed() <= 2 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn higher_priorities_get_the_next_place() {
    let throttle = throttle(limits(Some(2), None, None));
    let mut first = fill(&throttle, Class::Read).await;
    let order = Mutex::new(Vec::new());
    let come = |class, priority| {
        let (throttle, order) = (&throttle, &order);
        async move {
            let _permit = throttle.enter(class, priority).await;
            order.lock().expect("no panic").push(priority);
        }
    };
    let leave = async {
        tokio::task::yield_now().await;
        first.pop();
    };
    tokio::join!(
        come(Class::Read, -1),
        come(Class::Read, 0),
        come(Class::List, 9),
        come(Class::BlobWrite, 5),
        leave
    );
    assert_eq!(*order.lock().expect("no panic"), [9, 5, 0, -1]);
}

#[tokio::test(start_paused = true)]
async fn requests_a_second_are_exact() {
    for (own, whole, wanted) in [
        (Some(50.0), None, 50.0),
        (Some(50.0), Some(20.0), 20.0),
        (Some(0.5), Some(9.0), 0.5),
    ] {
        let limiter = Limiter::default();
        limiter.set(limits(None, whole, None));
        let throttle = limiter.throttle("there", "there.example", limits(None, own, None));
        let start = Instant::now();
        let time = 20 * SECOND;
        let ask = || async {
            let mut asked = 0_u32;
            while start.elapsed() < time {
                throttle.turn(0, false).await.expect("no pause");
                asked += u32::from(start.elapsed() < time);
            }
            asked
        };
        let asked: u32 = futures_util::future::join_all((0..10).map(|_| ask()))
            .await
            .into_iter()
            .sum();
        let (asked, exact) = (f64::from(asked), wanted * 20.0);
        // One more at the beginning counts where they are few.
        assert!(
            asked >= exact * 0.95 && asked <= (exact * 1.05).max(exact + 1.0),
            "{asked} at {wanted}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn small_requests_do_not_wait_for_the_bytes_of_blobs() {
    let throttle = throttle(limits(Some(8), None, Some(100_000)));
    let start = Instant::now();
    let blob = |direction| {
        let throttle = &throttle;
        async move {
            let mut flow = throttle.flow(direction, None);
            let mut moved = 0_u64;
            while start.elapsed() < 10 * SECOND {
                flow.pass(250_000).await;
                moved += 250_000;
            }
            moved
        }
    };
    let small = async {
        let mut longest = Duration::ZERO;
        for _ in 0..500 {
            let asked = Instant::now();
            let permit = throttle.enter(Class::Read, 0).await;
            throttle.turn(0, false).await.expect("no pause");
            permit.charge(Direction::Down, 10);
            longest = longest.max(asked.elapsed());
            drop(permit);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        longest
    };
    let (down, up, longest) = tokio::join!(blob(Direction::Down), blob(Direction::Up), small);
    assert_eq!(longest, Duration::ZERO);
    // Each direction has its own, in whole chunks of 250,000; the small ones took 5,000 of what came down.
    assert!(
        (750_000..=1_250_000).contains(&down) && (1_000_000..=1_250_000).contains(&up),
        "{down} {up}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_keeps_to_a_bandwidth_ends_one_after_the_other_and_the_small_first() {
    let throttle = throttle(limits(None, None, Some(1_000_000)));
    let start = Instant::now();
    let sizes: Vec<u64> = [20_000_000, 6_000_000, 6_000_000, 6_000_000, 100_000].to_vec();
    let bodies = sizes.iter().enumerate().map(|(number, size)| {
        let throttle = &throttle;
        async move {
            let mut flow = throttle.flow(Direction::Up, Some(*size));
            let mut silence = Duration::ZERO;
            let mut ended = start.elapsed();
            for _ in 0..size / 10_000 {
                flow.pass(10_000).await;
                silence = silence.max(start.elapsed() - ended);
                ended = start.elapsed();
            }
            (number, ended, silence)
        }
    });
    let mut ends = futures_util::future::join_all(bodies).await;
    ends.sort_by_key(|(_, ended, _)| *ended);
    let order: Vec<usize> = ends.iter().map(|(number, ..)| *number).collect();
    assert_eq!((order[0], order[4]), (4, 0), "{ends:?}");
    // Were all served evenly, those of six million would end together after 24 s. They end one after the other, if later than
    // after 6, 12 and 18, as some turns are the others' all the same.
    for (place, most) in [0.3, 14.0, 18.0, 24.0, 39.0].into_iter().enumerate() {
        assert!(ends[place].1.as_secs_f64() <= most, "{ends:?}");
    }
    // Nobody is left without a byte for long: the other end would give up.
    assert!(ends.iter().all(|(.., silence)| *silence <= SECOND), "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_for_all_and_what_was_refused_goes_first() {
    let throttle = throttle(Limits::default());
    let start = Instant::now();
    throttle.pause(2 * SECOND);
    let order = Mutex::new(Vec::new());
    let come = |number: usize| {
        let (throttle, order) = (&throttle, &order);
        async move {
            throttle.turn(0, number >= 28).await.expect("patience");
            order.lock().expect("no panic").push((number, start.elapsed()));
        }
    };
    futures_util::future::join_all((0..30).map(come)).await;
    let order = order.into_inner().expect("no panic");
    let all_after = order.iter().all(|(_, at)| *at >= 2 * SECOND);
    assert!(all_after, "{order:?}");
    // Two have passed or been called before the refused come.
    let refused = order.iter().rposition(|(number, _)| *number >= 28);
    assert_eq!(refused, Some(3), "{order:?}");
    // One after the other, but soon.
    let spread = order[29].1 - order[0].1;
    assert!(
        spread >= Duration::from_millis(100) && spread < Duration::from_millis(250),
        "{spread:?}"
    );
    assert_eq!(throttle.paused_for(), None);
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_the_hosts_under_all_its_names() {
    let limiter = Limiter::default();
    let open = |name, host| limiter.throttle(name, host, Limits::default());
    open("one", "hub.example").pause(9 * SECOND);
    assert_eq!(open("two", "hub.example").paused_for(), Some(9 * SECOND));
    assert_eq!(open("other", "other.example").paused_for(), None);
    // As new rules do it.
    assert_eq!(open("one", "hub.example").paused_for(), Some(9 * SECOND));
    open("two", "hub.example").pause(3600 * SECOND);
    let waited = open("one", "hub.example").turn(0, false).await;
    assert_eq!(waited, Err(3600 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_window_recovers_by_small_blobs_too() {
    let throttle = throttle(Limits::default());
    shrink(&throttle, Class::BlobRead);
    let _full = throttle.enter(Class::BlobRead, 0).await;
    for _ in 0..10 {
        let mut flow = throttle.flow(Direction::Down, None);
        flow.pass(1000).await;
    }
    assert!(throttle.size(Class::BlobRead) > 1);
}

/// Two registries of one process that has so many places.
fn two(of_process: usize) -> [Arc<Throttle>; 2] {
    let limiter = Limiter::default();
    limiter.set(limits(Some(of_process), None, None));
    ["a", "b"].map(|name| limiter.throttle(name, name, Limits::default()))
}

/// Asks once, as the request loop does it.
async fn ask(throttle: &Arc<Throttle>, class: Class) -> Permit {
    let permit = throttle.place(class, 0).await;
    permit.turn(0, false).await.expect("patience");
    permit
}

const CLASSES: [Class; 3] = [Class::Read, Class::BlobRead, Class::BlobWrite];

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_end_of_a_pause_keeps_none_from_asking_another_registry() {
    for of_process in [1, 2, 5] {
        for class in CLASSES {
            let [paused, other] = two(of_process);
            let start = Instant::now();
            paused.pause(60 * SECOND);
            let waiting = futures_util::future::join_all((0..8).map(|_| async {
                drop(ask(&paused, class).await);
                start.elapsed()
            }));
            let asking = async {
                // After all that wait.
                tokio::task::yield_now().await;
                for _ in 0..20 {
                    drop(ask(&other, class).await);
                }
                start.elapsed()
            };
            let (waited, asked) = tokio::join!(waiting, asking);
            assert_eq!(asked, Duration::ZERO, "{class:?} of {of_process}");
            assert!(waited.iter().all(|waited| *waited >= 60 * SECOND), "{waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_begins_while_places_are_held_frees_them_for_others() {
    let [paused, other] = two(2);
    let start = Instant::now();
    // One was refused just now, the other has its place and no turn yet.
    let refused = ask(&paused, Class::Read).await;
    let entered = paused.enter(Class::Read, 0).await;
    paused.pause(60 * SECOND);
    let again = async {
        refused.turn(0, true).await.expect("patience");
        start.elapsed()
    };
    let first = async {
        entered.turn(0, false).await.expect("patience");
        start.elapsed()
    };
    let asking = async {
        tokio::task::yield_now().await;
        drop(ask(&other, Class::Read).await);
        start.elapsed()
    };
    let (again, first, asked) = tokio::join!(again, first, asking);
    assert_eq!(asked, Duration::ZERO);
    assert!(again >= 60 * SECOND && first > again, "{again:?} {first:?}");
    // Both places are taken again.
    assert!(soon(ask(&other, Class::Read)).await.is_none());
    drop((refused, entered));
    assert!(soon(ask(&other, Class::Read)).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_begins_while_a_place_is_waited_for_is_heeded() {
    let [paused, other] = two(2);
    let start = Instant::now();
    let held = [ask(&other, Class::Read).await, ask(&other, Class::Read).await];
    let waiting = async {
        drop(ask(&paused, Class::Read).await);
        start.elapsed()
    };
    let pausing = async {
        tokio::time::sleep(SECOND).await;
        paused.pause(60 * SECOND);
        drop(held);
        let _both = [ask(&other, Class::Read).await, ask(&other, Class::Read).await];
        start.elapsed()
    };
    let (waited, asked) = tokio::join!(waiting, pausing);
    assert_eq!((waited, asked), (61 * SECOND, SECOND));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_its_turn_at_a_slow_registry_keeps_none_from_asking_another() {
    for class in CLASSES {
        let limiter = Limiter::default();
        limiter.set(limits(Some(2), None, None));
        let slow = limiter.throttle("a", "a", limits(None, Some(0.1), None));
        let other = limiter.throttle("b", "b", Limits::default());
        let start = Instant::now();
        let waiting = futures_util::future::join_all((0..4).map(|_| async {
            let permit = ask(&slow, class).await;
            tokio::time::sleep(SECOND / 10).await;
            drop(permit);
            start.elapsed()
        }));
        let asking = async {
            let mut longest = Duration::ZERO;
            while start.elapsed() < 25 * SECOND {
                let asked = Instant::now();
                drop(ask(&other, class).await);
                longest = longest.max(asked.elapsed());
                tokio::time::sleep(SECOND / 7).await;
            }
            longest
        };
        let (waited, longest) = tokio::join!(waiting, asking);
        assert!(longest <= SECOND / 10, "{class:?}: {longest:?}");
        // One every ten seconds, in turn.
        let seconds: Vec<u64> = waited.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [0, 10, 20, 30], "{class:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_a_second_are_exact_however_long_a_place_of_the_process_is_waited_for() {
    let limiter = Limiter::default();
    limiter.set(limits(Some(2), None, None));
    let slow = limiter.throttle("a", "a", limits(None, Some(2.0), None));
    let other = limiter.throttle("b", "b", Limits::default());
    let held = [ask(&other, Class::Read).await, ask(&other, Class::Read).await];
    let sent = Mutex::new(Vec::new());
    let asking = futures_util::future::join_all((0..12_usize).map(|number| {
        let (slow, sent) = (&slow, &sent);
        let class = Class::ALL[number % Class::ALL.len()];
        async move {
            drop(ask(slow, class).await);
            sent.lock().expect("no panic").push(Instant::now());
        }
    }));
    let freeing = async {
        tokio::time::sleep(30 * SECOND).await;
        drop(held);
    };
    tokio::join!(asking, freeing);
    let sent = sent.into_inner().expect("no panic");
    assert_eq!(sent.len(), 12);
    let gaps: Vec<Duration> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The first may come a little early, as everywhere.
    assert!(gaps.iter().all(|gap| *gap >= SECOND * 2 / 5), "{gaps:?}");
    assert!(gaps.iter().sum::<Duration>() <= 6 * SECOND, "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_is_being_written_keeps_its_place_to_read() {
    let [paused, other] = two(2);
    let reading = paused.enter(Class::BlobRead, 0).await;
    reading.keep();
    paused.pause(60 * SECOND);
    let mut turn = Box::pin(reading.turn(0, true));
    assert!(soon(&mut turn).await.is_none());
    assert!(soon(ask(&other, Class::BlobRead)).await.is_none(), "it is taken");
    let write = soon(ask(&other, Class::BlobWrite)).await;
    assert!(write.is_some(), "what it feeds has its own");
    turn.await.expect("patience");
}

#[tokio::test(start_paused = true)]
async fn a_reading_place_is_not_taken_during_a_pause() {
    let [paused, other] = two(2);
    paused.pause(60 * SECOND);
    let mut reading = Box::pin(paused.enter(Class::BlobRead, 0));
    assert!(soon(&mut reading).await.is_none());
    assert!(soon(ask(&other, Class::BlobRead)).await.is_some());
    drop(reading.await);
    // One that is too long is not waited for: the request says so.
    paused.pause(3600 * SECOND);
    let reading = soon(paused.enter(Class::BlobRead, 0)).await.expect("at once");
    assert!(reading.turn(0, false).await.is_err());
}
