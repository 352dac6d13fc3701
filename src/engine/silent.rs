//! Asking several destinations the same, and waiting for none that says nothing.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::{Instant, timeout};

use super::context::RunContext;
use super::latecomers::Silences;
use crate::registry::{Answers, Endpoint};
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
    /// How many answers have come so far; `None` while that says nothing of the destination.
    fn answers(&self) -> Option<u64>;

    /// How long it may say nothing.
    fn patience(&self) -> Duration;

    /// It has answered.
    fn heard(&self);
}

/// A destination of a run.
pub(super) struct Watching<'a> {
    context: &'a RunContext,
    registry: &'a RegistryName,
    patience: Patience<'a>,
    answers: Answers,
}

impl Watched for Watching<'_> {
    fn answers(&self) -> Option<u64> {
        let end = self.context.destinations.get(self.registry)?;
        // Requests that wait for our own limits have not been heard of there; during a pause nobody else waits for them.
        let is_asked = !self.answers.wait_for_us() || end.penalty().is_some();
        (is_asked && !matches!(end, Endpoint::Layout(_))).then(|| self.answers.count())
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
            watched.heard();
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
    let mut last = None;
    loop {
        if let Ok(answer) = timeout(LOOK_AGAIN, &mut asking).await {
            return Some(answer);
        }
        let Some(count) = watched.answers() else {
            last = None;
            continue;
        };
        let now = Instant::now();
        let (before, since) = last.unwrap_or((count, now));
        if count > before {
            watched.heard();
        }
        let since = if count > before || !is_waited_for() { now } else { since };
        last = Some((count, since));
        if now.duration_since(since) >= watched.patience() {
            return None;
        }
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

    type Counting<'a> = Box<dyn Fn() -> Option<u64> + Send + 'a>;

    struct End<'a>(Counting<'a>, Duration);

    impl Watched for End<'_> {
        fn answers(&self) -> Option<u64> {
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
            watched: End(Box::new(answers), SILENT),
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
