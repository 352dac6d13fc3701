//! Whether there are answers to what is being asked: of one question, which may take many requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

tokio::task_local! {
    /// Of the question that the current task is about.
    static ANSWERS: Answers;
}

/// What has come so far in answer to the requests of one question. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    answers: AtomicU64,
    waiting: AtomicUsize,
}

impl Answers {
    /// Asks a question, and counts its answers. What it leaves to other tasks does not count.
    pub async fn to<F: Future>(&self, asking: F) -> F::Output {
        ANSWERS.scope(self.clone(), asking).await
    }

    /// Answers so far, but for those that tell of trouble and will be asked again.
    pub fn count(&self) -> u64 {
        self.0.answers.load(Ordering::Relaxed)
    }

    /// True while a request waits for its turn among ours, which the other side knows nothing of.
    pub fn wait_for_us(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// An answer has come.
    pub(super) fn note() {
        let _ = ANSWERS.try_with(|answers| answers.0.answers.fetch_add(1, Ordering::Relaxed));
    }

    /// Waits for a request's turn.
    pub(super) async fn in_turn<F: Future>(turn: F) -> F::Output {
        let _waiting = ANSWERS.try_with(|answers| Waiting::begin(&answers.0)).ok();
        turn.await
    }
}

struct Waiting(Arc<Counts>);

impl Waiting {
    fn begin(counts: &Arc<Counts>) -> Self {
        counts.waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn answers_count_for_their_question_alone() {
        let (one, other) = (Answers::default(), Answers::default());
        Answers::note();
        one.to(async { Answers::note() }).await;
        let (turn, comes) = oneshot::channel::<()>();
        let waiting = one.to(async {
            let _ = Answers::in_turn(comes).await;
            Answers::note();
        });
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(one.wait_for_us() && !other.wait_for_us());
        drop(turn);
        waiting.await;
        assert_eq!((one.count(), other.count(), one.wait_for_us()), (2, 0, false));
    }
}
