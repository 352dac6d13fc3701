//! Asking several destinations the same, and waiting for none that says nothing.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::{Instant, timeout};

use super::context::RunContext;
use super::latecomers::Latecomers;
use crate::rules::RegistryName;

/// How long a destination may say nothing while others wait for it. As long as one that holds up the others in copying.
const SILENT: Duration = crate::plan::HELD_UP;

/// The same for one that has been left behind in copying.
const SILENT_BEHIND: Duration = Duration::from_secs(3);

/// How often it is looked whether one says nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is done about a destination that says nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience<'a> {
    /// It is waited for until its requests have failed.
    Endless,
    /// The others go on without it. Who is late already has said nothing before.
    Short(&'a Latecomers),
}

/// What one destination is asked.
pub(super) struct Question<F, W> {
    asking: F,
    watched: W,
}

/// What is known of a destination while it is waited for.
pub(super) trait Watched {
    /// How many answers it has given so far, to whatever question; `None` for one that always answers.
    fn answers(&self) -> Option<u64>;

    /// How long it may say nothing.
    fn patience(&self) -> Duration;
}

/// A destination of a run.
pub(super) struct Watching<'a> {
    context: &'a RunContext,
    registry: &'a RegistryName,
    patience: Patience<'a>,
}

impl Watched for Watching<'_> {
    fn answers(&self) -> Option<u64> {
        self.context.destinations.get(self.registry)?.small_answers()
    }

    fn patience(&self) -> Duration {
        match self.patience {
            Patience::Endless => Duration::MAX,
            Patience::Short(latecomers) if latecomers.is_late(self.registry) => Duration::ZERO,
            Patience::Short(_) if self.context.transfer.pace.is_behind(self.registry.as_str()) => SILENT_BEHIND,
            Patience::Short(_) => SILENT,
        }
    }
}

/// Asks a destination.
pub(super) fn question<'a, F>(
    context: &'a RunContext,
    registry: &'a RegistryName,
    patience: Patience<'a>,
    asking: F,
) -> Question<F, Watching<'a>> {
    Question {
        asking,
        watched: Watching {
            context,
            registry,
            patience,
        },
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

/// Asks the source and the destinations at once. `None` for a destination that said nothing for some seconds while it alone, or
/// others like it, were waited for: what it was asked is given up. One that answers, however slowly, is waited for: to plan it by
/// itself would cost the source's answers a second time, and the reads that it shares with others.
pub(super) async fn ask_all<S, T, W: Watched>(
    source: impl Future<Output = S>,
    destinations: Vec<Question<impl Future<Output = T>, W>>,
) -> (S, Vec<Option<T>>) {
    let progress = Progress::default();
    let progress = &progress;
    let source = async {
        let answer = source.await;
        progress.source.store(true, Ordering::Relaxed);
        answer
    };
    let destinations = destinations.into_iter().map(|question| async move {
        let answer = unless_silent(question, || progress.somebody_waits()).await;
        if answer.is_some() {
            progress.destinations.fetch_add(1, Ordering::Relaxed);
        }
        answer
    });
    join(source, join_all(destinations)).await
}

async fn unless_silent<T, W: Watched>(
    question: Question<impl Future<Output = T>, W>,
    is_waited_for: impl Fn() -> bool,
) -> Option<T> {
    let Question { asking, watched } = question;
    let mut asking = pin!(asking);
    let mut last = None;
    loop {
        if let Ok(answer) = timeout(LOOK_AGAIN, &mut asking).await {
            return Some(answer);
        }
        let Some(count) = watched.answers().filter(|_| is_waited_for()) else {
            last = None;
            continue;
        };
        let now = Instant::now();
        let since = match last {
            Some((before, since)) if before == count => since,
            _ => now,
        };
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

    type Answers<'a> = Box<dyn Fn() -> Option<u64> + Send + 'a>;

    struct End<'a>(Answers<'a>, Duration);

    impl Watched for End<'_> {
        fn answers(&self) -> Option<u64> {
            self.0()
        }

        fn patience(&self) -> Duration {
            self.1
        }
    }

    fn question<'a>(
        asking: impl Future<Output = &'static str> + Send + 'a,
        answers: impl Fn() -> Option<u64> + Send + 'a,
    ) -> Question<BoxFuture<'a, &'static str>, End<'a>> {
        Question {
            asking: asking.boxed(),
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
            (seconds(30)..seconds(33)).contains(&begun.elapsed()),
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
        let alone = question(after(seconds(60)), || Some(0));
        let (_, answers) = ask_all(ready(()), vec![alone]).await;
        assert_eq!(answers, [Some("there")]);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_is_endless_short_or_none() {
        for (patience, given_up, after_seconds) in [
            (Duration::MAX, false, 600),
            (SILENT_BEHIND, true, 4),
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
