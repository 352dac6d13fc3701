//! Asking several destinations the same, and waiting for none that says nothing.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::{Instant, timeout};

use super::context::RunContext;
use super::latecomers::Silences;
use crate::registry::Answers;
use crate::rules::RegistryName;

/// How long a destination may say nothing while others wait for it. As long as one that holds up the others in copying.
const SILENT: Duration = crate::plan::HELD_UP;

/// The same for one that has been silent before in this run, or was left behind in copying.
const SILENT_AGAIN: Duration = Duration::from_secs(3);

/// How often it is looked whether one says nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is done about a destination that says nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience<'a> {
    /// It is waited for until its requests have failed.
    Endless,
    /// So is one that is asked by itself, and that it answers is good to know.
    Alone(&'a Silences),
    /// The others go on without it.
    Together(&'a Silences),
}

/// What one destination is asked.
pub(super) struct Question<F, T, W> {
    asking: F,
    /// Whether somebody can go on with this answer.
    is_good: fn(&T) -> bool,
    watched: W,
}

/// What is known of a destination while it is waited for.
pub(super) trait Watched {
    /// What has come so far; `None` for one that always answers.
    fn heard_so_far(&self) -> Option<Heard>;

    /// How long it may say nothing.
    fn patience(&self) -> Duration;

    /// It has answered.
    fn heard(&self);
}

/// What has been heard of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Answers to this question.
    answers: u64,
    /// Answers to whoever asked.
    all: u64,
    /// A request waits for its turn among ours.
    waits_for_us: bool,
}

/// A destination of a run.
pub(super) struct Watching<'a> {
    context: &'a RunContext,
    registry: &'a RegistryName,
    patience: Patience<'a>,
    answers: Answers,
}

impl Watched for Watching<'_> {
    fn heard_so_far(&self) -> Option<Heard> {
        let end = self.context.destinations.get(self.registry)?;
        Some(Heard {
            answers: self.answers.count(),
            all: end.small_answers()?,
            waits_for_us: self.answers.wait_for_us(),
        })
    }

    fn patience(&self) -> Duration {
        let Patience::Together(silences) = self.patience else {
            return Duration::MAX;
        };
        let is_known = silences.has_been(self.registry);
        if is_known || self.context.transfer.pace.is_behind(self.registry.as_str()) {
            SILENT_AGAIN
        } else {
            SILENT
        }
    }

    fn heard(&self) {
        if let Patience::Alone(silences) | Patience::Together(silences) = self.patience {
            silences.end(self.registry);
        }
    }
}

/// Asks a destination. `answers` counts what comes to it.
pub(super) fn question<'a, F, T>(
    context: &'a RunContext,
    registry: &'a RegistryName,
    patience: Patience<'a>,
    answers: Answers,
    asking: F,
    is_good: fn(&T) -> bool,
) -> Question<F, T, Watching<'a>> {
    let watched = Watching {
        context,
        registry,
        patience,
        answers,
    };
    Question {
        asking,
        is_good,
        watched,
    }
}

/// What everybody waits for.
#[derive(Default)]
struct Progress {
    source: AtomicBool,
    destinations: AtomicUsize,
}

impl Progress {
    /// True where some destination would go on now, but for others.
    fn somebody_waits(&self) -> bool {
        self.source.load(Ordering::Relaxed) && self.destinations.load(Ordering::Relaxed) > 0
    }
}

/// Asks the source and the destinations at once. `None` for a destination that said nothing for some seconds while others would
/// have gone on. One that answers, however slowly, is waited for: to plan it by itself would cost the source's answers a second
/// time, and the reads that it shares with others.
pub(super) async fn ask_all<S, T, W: Watched>(
    source: impl Future<Output = S>,
    destinations: Vec<Question<impl Future<Output = T>, T, W>>,
) -> (S, Vec<Option<T>>) {
    let progress = Progress::default();
    let progress = &progress;
    let source = async {
        let answer = source.await;
        progress.source.store(true, Ordering::Relaxed);
        answer
    };
    let destinations = destinations.into_iter().map(|question| async move {
        let Question {
            asking,
            is_good,
            watched,
        } = question;
        let answer = unless_silent(asking, &watched, || progress.somebody_waits()).await;
        if answer.as_ref().is_some_and(is_good) {
            // Where nothing had to be asked, nothing has been heard.
            if watched.heard_so_far().is_some_and(|heard| heard.answers > 0) {
                watched.heard();
            }
            progress.destinations.fetch_add(1, Ordering::Relaxed);
        }
        answer
    });
    join(source, join_all(destinations)).await
}

async fn unless_silent<T, W: Watched>(
    asking: impl Future<Output = T>,
    watched: &W,
    is_waited_for: impl Fn() -> bool,
) -> Option<T> {
    let mut asking = pin!(asking);
    let mut silence: Option<Silence> = None;
    loop {
        if let Ok(answer) = timeout(LOOK_AGAIN, &mut asking).await {
            return Some(answer);
        }
        let Some(heard) = watched.heard_so_far() else {
            continue;
        };
        let now = Instant::now();
        let last = silence.unwrap_or_else(|| Silence::begin(heard, now));
        if heard.answers > last.heard.answers {
            watched.heard();
        }
        let next = match is_waited_for() {
            true => last.after(heard, now),
            false => Silence::begin(heard, now),
        };
        if next.is_too_long(now, watched.patience()) {
            return None;
        }
        silence = Some(next);
    }
}

/// Since when nothing has been heard.
#[derive(Clone, Copy, Debug)]
struct Silence {
    heard: Heard,
    /// In answer to this question.
    here: Instant,
    /// By anybody.
    at_all: Instant,
}

impl Silence {
    fn begin(heard: Heard, now: Instant) -> Self {
        Self {
            heard,
            here: now,
            at_all: now,
        }
    }

    fn after(self, heard: Heard, now: Instant) -> Self {
        let since = |is_news: bool, before: Instant| if is_news { now } else { before };
        Self {
            here: since(heard.answers > self.heard.answers, self.here),
            at_all: since(heard.all > self.heard.all, self.at_all),
            heard,
        }
    }

    /// True where nobody hears anything, or only others do, for much longer, and it is not that the requests of this question wait for
    /// theirs.
    fn is_too_long(&self, now: Instant, patience: Duration) -> bool {
        let (here, at_all) = (now.duration_since(self.here), now.duration_since(self.at_all));
        let nobody = here >= patience && at_all >= patience;
        nobody || (!self.heard.waits_for_us && here >= patience.saturating_mul(3))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use tokio::time::sleep;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    type Counting<'a> = Box<dyn Fn() -> Option<Heard> + Send + 'a>;

    struct End<'a>(Counting<'a>, Duration);

    fn heard(answers: u64, all: u64, waits_for_us: bool) -> Heard {
        Heard {
            answers,
            all,
            waits_for_us,
        }
    }

    impl Watched for End<'_> {
        fn heard_so_far(&self) -> Option<Heard> {
            self.0()
        }

        fn patience(&self) -> Duration {
            self.1
        }

        fn heard(&self) {}
    }

    fn question<'a>(
        asking: impl Future<Output = &'static str> + Send + 'a,
        answers: impl Fn() -> Option<u64> + Send + 'a,
    ) -> Question<BoxFuture<'a, &'static str>, &'static str, End<'a>> {
        Question {
            asking: asking.boxed(),
            is_good: |answer| *answer == "there",
            watched: End(
                Box::new(move || answers().map(|count| heard(count, count, false))),
                SILENT,
            ),
        }
    }

    fn after(wait: Duration) -> impl Future<Output = &'static str> + Send {
        sleep(wait).map(|()| "there")
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_given_up_ten_seconds_after_others_begin_to_wait() {
        let begun = Instant::now();
        let near = question(after(seconds(3)), || Some(0));
        let far = question(pending(), || Some(7));
        let (source, answers) = ask_all(sleep(seconds(20)).map(|()| 1), vec![near, far]).await;
        assert_eq!((source, answers), (1, vec![Some("there"), None]));
        assert!(
            (seconds(29)..seconds(32)).contains(&begun.elapsed()),
            "{:?}",
            begun.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_slowly_is_waited_for() {
        let begun = Instant::now();
        let near = question(ready("there"), || Some(0));
        // One answer in nine seconds.
        let far = question(after(seconds(600)), || Some(begun.elapsed().as_secs() / 9));
        let folder = question(after(seconds(700)), || None);
        let (_, answers) = ask_all(ready(()), vec![near, far, folder]).await;
        assert_eq!(answers, [Some("there"); 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_given_up_while_nobody_else_could_go_on() {
        let [one, two] = [40, 45].map(|wait| question(after(seconds(wait)), || Some(0)));
        let (_, answers) = ask_all(ready(()), vec![one, two]).await;
        assert_eq!(answers, [Some("there"); 2]);
        let failed = question(ready("not"), || Some(1));
        let last = question(after(seconds(60)), || Some(0));
        let (_, answers) = ask_all(ready(()), vec![failed, last]).await;
        assert_eq!(
            answers,
            [Some("not"), Some("there")],
            "who has failed goes on with nothing"
        );
        let alone = question(after(seconds(60)), || Some(0));
        let (_, answers) = ask_all(ready(()), vec![alone]).await;
        assert_eq!(answers, [Some("there")]);
    }

    #[test]
    fn what_others_hear_counts_for_a_while() {
        let begun = Instant::now();
        let silent = |told: fn(u64) -> Heard| {
            let mut silence = Silence::begin(told(0), begun);
            (0..1000).find(|second| {
                let now = begun + seconds(*second);
                silence = silence.after(told(*second), now);
                silence.is_too_long(now, SILENT)
            })
        };
        // Nobody hears anything: that our requests wait for one another, which are not answered, is no excuse.
        assert_eq!(silent(|_| heard(7, 9, false)), Some(10));
        assert_eq!(silent(|_| heard(7, 9, true)), Some(10));
        // Others do.
        assert_eq!(silent(|second| heard(7, second, false)), Some(30));
        assert_eq!(silent(|second| heard(7, second, true)), None);
        assert_eq!(silent(|second| heard(second / 9, 9, false)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_is_endless_or_short() {
        for (patience, given_up, after_seconds) in [
            (Duration::MAX, false, 600),
            (SILENT_AGAIN, true, 4),
            (Duration::ZERO, true, 1),
        ] {
            let begun = Instant::now();
            let near = question(ready("there"), || Some(0));
            let mut far = question(after(seconds(600)), || Some(0));
            far.watched.1 = patience;
            let (_, answers) = ask_all(ready(()), vec![near, far]).await;
            assert_eq!(
                (answers[1].is_none(), begun.elapsed().as_secs()),
                (given_up, after_seconds)
            );
        }
    }
}
