use super::*;

const WINDOW: Duration = Duration::from_secs(21_600);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn quota(remaining: u64, seen: i64) -> Quota {
    Quota {
        limit: Some(100),
        remaining,
        window: WINDOW,
        seen_at: at(seen),
    }
}

fn budget(remaining: u64) -> Budget {
    let mut budget = Budget::default();
    budget.hear(quota(remaining, 0), at(0));
    budget
}

/// When each of the images goes, in this order: windows after the quota was seen.
fn turns(budget: &Budget, images: &[u64]) -> Vec<i64> {
    let mut ahead = 0;
    let each = images.iter().map(|reads| {
        let turn = budget.turn(ahead, *reads, at(10));
        ahead += reads;
        match turn {
            Turn::Now => 0,
            Turn::At(time) => {
                let after = time.as_second() - at(0).as_second();
                assert_eq!(after % WINDOW.as_secs() as i64, 0);
                after / WINDOW.as_secs() as i64
            }
        }
    });
    each.collect()
}

#[test]
fn images_go_while_they_fit_and_the_others_in_the_windows_after() {
    assert_eq!(turns(&budget(76), &[70, 6, 1, 99, 1, 100, 1]), [0, 0, 1, 1, 2, 3, 3]);
    assert_eq!(turns(&budget(0), &[1, 99, 1]), [1, 1, 2]);
    assert_eq!(turns(&budget(0), &[0]), [0], "what is kept already costs nothing");
    assert_eq!(turns(&Budget::default(), &[5000]), [0], "nobody counts");
    // More than a window holds goes when a whole window is there.
    assert_eq!(turns(&budget(99), &[3000]), [1]);
    assert_eq!(turns(&budget(100), &[3000]), [0]);
}

#[test]
fn without_a_limit_the_end_of_the_window_is_waited_for() {
    let mut budget = Budget::default();
    budget.hear(
        Quota {
            limit: None,
            ..quota(3, 0)
        },
        at(0),
    );
    assert_eq!(turns(&budget, &[3, 1, 2, 1]), [0, 1, 1, 2]);
    budget.hear(
        Quota {
            limit: None,
            ..quota(0, 1)
        },
        at(1),
    );
    assert_eq!(budget.turn(0, 1, at(2)), Turn::At(at(21_601)));
    assert_eq!(budget.turn(0, 1, at(21_601)), Turn::Now);
}

#[test]
fn after_its_window_a_quota_is_whole_again() {
    let budget = budget(5);
    assert_eq!(budget.left(at(21_599)), Some(5));
    assert_eq!(budget.left(at(21_600)), Some(100));
    assert_eq!(budget.turn(60, 60, at(30_000)), Turn::At(at(30_000 + 21_600)));
}

#[test]
fn what_was_promised_is_spent_whatever_order_answers_come_in() {
    let mut budget = budget(10);
    budget.promise(4);
    assert_eq!(budget.left(at(1)), Some(6));
    // Two of the four have been read.
    budget.hear(quota(8, 2), at(2));
    budget.hear(quota(9, 1), at(2));
    assert_eq!(budget.left(at(2)), Some(6));
    budget.hear(quota(6, 3), at(3));
    budget.done(4);
    assert_eq!(budget.left(at(3)), Some(6));
    // Somebody else reads too.
    budget.promise(1);
    budget.hear(quota(2, 4), at(4));
    assert_eq!(budget.left(at(4)), Some(2));
    budget.done(1);
    assert_eq!(budget.left(at(4)), Some(2));
    assert_eq!(budget.turn(0, 3, at(4)), Turn::At(at(4 + 21_600)));
}

#[test]
fn a_new_window_forgets_what_was_promised_in_the_old_one() {
    let mut budget = budget(10);
    budget.promise(10);
    assert_eq!(budget.left(at(1)), Some(0));
    budget.hear(quota(100, 21_600), at(21_600));
    assert_eq!(budget.left(at(21_601)), Some(90), "those under way may still be read");
    budget.done(10);
    budget.hear(quota(95, 21_602), at(21_602));
    assert_eq!(budget.left(at(21_602)), Some(95));
}

#[test]
fn of_two_quotas_the_one_seen_last_holds_unless_it_was_seen_in_the_future() {
    let newer = |known: Option<i64>, new: i64, now: i64| {
        let chosen = newer_quota(known.map(|seen| quota(1, seen)), quota(2, new), at(now));
        chosen.map(|quota| (quota.remaining, quota.seen_at.as_second() - at(0).as_second()))
    };
    assert_eq!(newer(None, 5, 9), Some((2, 5)));
    assert_eq!(newer(Some(4), 5, 9), Some((2, 5)));
    assert_eq!(newer(Some(5), 5, 9), Some((2, 5)), "of the same time, what came last");
    assert_eq!(newer(Some(6), 5, 9), Some((1, 6)));
    // A clock that was ahead and is right again.
    assert_eq!(newer(Some(6), 10, 9), Some((1, 6)));
    assert_eq!(newer(Some(99), 5, 9), Some((2, 5)));
    assert_eq!(newer(Some(99), 10, 9), None);
    assert_eq!(newer(None, 10, 9), None);
    assert_eq!(newer(None, 9, 9), Some((2, 9)), "now is not the future");
}

#[test]
fn after_a_clock_was_ahead_the_next_answer_counts() {
    let mut budget = Budget::default();
    budget.hear(quota(0, 90_000), at(90_000));
    budget.promise(1);
    budget.hear(quota(0, 90_000), at(10));
    assert_eq!(budget.turn(0, 1, at(10)), Turn::Now, "nobody knows, so it is asked");
    budget.hear(quota(40, 11), at(11));
    assert_eq!(budget.left(at(11)), Some(39), "what is promised stays so");
    budget.done(1);
    assert_eq!(budget.left(at(11)), Some(39));
}
